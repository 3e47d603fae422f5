//! Python's bytes, in and out.

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use super::cpython;
use crate::error::Error;
use crate::memory::push;

/// Makes bytes. Raises MemoryError if memory is short, where PyO3's own function panics.
pub(super) fn new_bytes<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    Ok(cpython::new_bytes(py, bytes).ok_or(Error::Memory)?)
}

/// Takes the chunks of an entry, or their seals, out of an iterable of bytes.
pub(super) fn chunks_of(iterable: &Bound<'_, PyAny>) -> PyResult<Vec<PyBackedBytes>> {
    let mut chunks = Vec::new();
    for chunk in iterable.try_iter()? {
        push(&mut chunks, chunk?.extract()?)?;
    }
    Ok(chunks)
}
