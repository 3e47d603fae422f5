//! What stands in stored chunks, for people to look at.

use pyo3::prelude::*;
use pyo3::types::{PyInt, PyList, PyString, PyTuple};

use super::bytes::chunks_of;
use super::cpython;
use super::gil::detach_if_large;
use crate::cipher::Key;
use crate::error::Error;
use crate::inspect;

/// What was found in a stream of pickles.
#[pyclass(module = "fastblets._native", frozen, get_all)]
pub(super) struct Inspection {
    compressed: bool,
    /// The bytes of all pickles.
    pickled: Py<PyInt>,
    /// The number of whole items.
    count: Py<PyInt>,
    /// The first items: the size of the pickle, and how the item looks.
    items: Py<PyList>,
    /// The classes and functions that the pickles name, sorted.
    names: Py<PyList>,
    more_names: bool,
    /// What is wrong, and the number of the chunk where it was noticed.
    damage: Option<Py<PyTuple>>,
}

/// Looks at a stream, without executing any of its pickles. Without a word on compression, the stream says it itself.
#[pyfunction]
#[pyo3(signature = (chunks, compressed, key, show, /))]
pub(super) fn inspect_chunks(
    py: Python<'_>,
    chunks: &Bound<'_, PyAny>,
    compressed: Option<bool>,
    key: Option<&[u8]>,
    show: usize,
) -> PyResult<Inspection> {
    let chunks = chunks_of(chunks)?;
    let key = key.map(Key::new).transpose()?;
    let stored = chunks.iter().map(|chunk| chunk.len()).sum();
    let stream = detach_if_large(py, stored, || inspect::inspect(&chunks, compressed, key, show))?;
    let items = cpython::new_list(py).ok_or(Error::Memory)?;
    for item in stream.items {
        items.append(pair(py, int(py, item.size)?, text(py, &item.text)?)?)?;
    }
    let names = cpython::new_list(py).ok_or(Error::Memory)?;
    for name in stream.globals {
        names.append(text(py, &name)?)?;
    }
    let damage = stream.damage.map(|damage| {
        let error = text(py, &damage.error.to_string())?;
        pair(py, error, int(py, damage.chunk)?)
    });
    Ok(Inspection {
        compressed: stream.compressed,
        pickled: int(py, stream.pickled)?.cast_into()?.unbind(),
        count: int(py, stream.count)?.cast_into()?.unbind(),
        items: items.unbind(),
        names: names.unbind(),
        more_names: stream.more_globals,
        damage: damage.transpose()?.map(Bound::unbind),
    })
}

fn int(py: Python<'_>, number: impl TryInto<i64>) -> PyResult<Bound<'_, PyAny>> {
    // Nothing that was counted one by one is larger.
    let number = number.try_into().unwrap_or(i64::MAX);
    Ok(cpython::new_int(py, number).ok_or(Error::Memory)?.into_any())
}

fn text<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    Ok(PyString::from_bytes(py, text.as_bytes())?.into_any())
}

fn pair<'py>(py: Python<'py>, one: Bound<'py, PyAny>, other: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    Ok(cpython::new_tuple(py, [one, other].into_iter()).ok_or(Error::Memory)?)
}
