//! What Python sees of the codec: a table.

mod dump;
mod load;
#[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "dumping is left to CPython there"))]
mod raw;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::pickle::scan::Scanner;

/// fastblets' codec. Private: `fastblets.cache.backend` and `fastblets.secrets.crypto` are the way in.
#[pymodule]
#[pyo3(name = "_native")]
mod native {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::{pickle_dumps, pickle_dumps_all, pickle_loads, pickle_loads_all, pickle_scan};

    #[pymodule_init]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        Ok(())
    }
}

/// The protocol 0 pickle of an object, or `None` if it takes `pickle.dumps` to write it.
#[pyfunction]
fn pickle_dumps<'py>(py: Python<'py>, obj: &Bound<'py, PyAny>) -> Option<Bound<'py, PyBytes>> {
    let mut out = Vec::new();
    let done = dump::Dumper::new(py).dump(obj, &mut out);
    done.then(|| PyBytes::new(py, &out))
}

/// The protocol 0 pickles of several objects, concatenated, or `None` if one takes `pickle.dumps`.
#[pyfunction]
fn pickle_dumps_all<'py>(py: Python<'py>, objects: Vec<Bound<'py, PyAny>>) -> Option<Bound<'py, PyBytes>> {
    let mut out = Vec::new();
    let mut dumper = dump::Dumper::new(py);
    let done = objects.iter().all(|object| dumper.dump(object, &mut out));
    done.then(|| PyBytes::new(py, &out))
}

/// The objects that concatenated protocol 0 pickles hold, or `None` if one takes `pickle.loads`.
#[pyfunction]
fn pickle_loads_all<'py>(py: Python<'py>, mut data: &[u8]) -> PyResult<Option<Vec<Bound<'py, PyAny>>>> {
    let mut objects = Vec::new();
    let mut loader = load::Loader::new(py)?;
    while !data.is_empty() {
        let Some((object, length)) = loader.load_prefix(py, data) else {
            return Ok(None);
        };
        objects.push(object);
        data = &data[length..];
    }
    Ok(Some(objects))
}

/// The object that a protocol 0 pickle holds, in a tuple, or `None` if it takes `pickle.loads` to read it.
#[pyfunction]
fn pickle_loads<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Option<(Bound<'py, PyAny>,)>> {
    Ok(load::Loader::new(py)?.load(py, data).map(|item| (item,)))
}

/// Where each of the concatenated pickles ends, as far as they are complete.
#[pyfunction]
fn pickle_scan(data: &[u8]) -> PyResult<Vec<usize>> {
    let mut ends = Vec::new();
    let mut scanner = Scanner::new();
    let mut start = 0;
    while let Some(length) = scanner
        .scan(&data[start..])
        .map_err(|error| PyValueError::new_err(error.to_string()))?
    {
        start += length;
        ends.push(start);
        scanner.reset();
    }
    Ok(ends)
}
