//! Functions that only tests call: which way an item takes, and what each way makes of it.
//!
//! They are in every build, so that the tests run on the wheels that users install.

use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::bytes::new_bytes;
use super::pickle::{FAST_PATHS, Pickler, Unpickler};
use super::walk::BEGUN;
use crate::memory::push;
use crate::pickle::scan::Scanner;

/// Lets plain items be pickled here (the default), or everything by `pickle`. Returns the former setting.
#[pyfunction]
#[pyo3(signature = (enabled, /))]
pub(super) fn use_fast_paths(enabled: bool) -> bool {
    FAST_PATHS.swap(enabled, Ordering::Relaxed)
}

/// The protocol 0 pickle of an item, or None if it is one for `pickle.dumps`.
#[pyfunction]
#[pyo3(signature = (item, /))]
pub(super) fn pickle_dumps<'py>(item: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
    pickle_dumps_all(item.py(), vec![item.clone()])
}

/// The pickles of several items in a row, or None if one is for `pickle.dumps`.
#[pyfunction]
#[pyo3(signature = (items, /))]
pub(super) fn pickle_dumps_all<'py>(
    py: Python<'py>,
    items: Vec<Bound<'py, PyAny>>,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let mut output = Vec::new();
    let mut dumper = Pickler::new(py)?.dumper;
    for item in &items {
        if !dumper.dump(item, &mut output)? {
            return Ok(None);
        }
    }
    Ok(Some(new_bytes(py, &output)?))
}

/// The items that pickles in a row hold, or None if one is for `pickle.loads`.
#[pyfunction]
#[pyo3(signature = (data, /))]
pub(super) fn pickle_loads_all<'py>(py: Python<'py>, mut data: &[u8]) -> PyResult<Option<Vec<Bound<'py, PyAny>>>> {
    let mut items = Vec::new();
    let mut loader = Unpickler::new(py, None)?.loader;
    while !data.is_empty() {
        let Some((item, size)) = loader.load(py, data)? else {
            return Ok(None);
        };
        push(&mut items, item)?;
        data = &data[size..];
    }
    Ok(Some(items))
}

/// The item that a pickle holds, in a tuple, or None if it is one for `pickle.loads`.
#[pyfunction]
#[pyo3(signature = (pickle, /))]
pub(super) fn pickle_loads<'py>(py: Python<'py>, pickle: &[u8]) -> PyResult<Option<(Bound<'py, PyAny>,)>> {
    let found = Unpickler::new(py, None)?.loader.load(py, pickle)?;
    Ok(found.map(|(item, _)| (item,)))
}

/// Where each pickle of a stream ends, up to the first that is incomplete.
#[pyfunction]
#[pyo3(signature = (data, /))]
pub(super) fn pickle_scan(data: &[u8]) -> PyResult<Vec<usize>> {
    let mut ends = Vec::new();
    let mut scanner = Scanner::new();
    let mut start = 0;
    while let Some(size) = scanner.scan(&data[start..])? {
        scanner.reset();
        start += size;
        push(&mut ends, start)?;
    }
    Ok(ends)
}

/// How many walks have begun in this process.
#[pyfunction]
#[pyo3(signature = (/))]
pub(super) fn count_walks() -> usize {
    BEGUN.load(Ordering::Relaxed)
}
