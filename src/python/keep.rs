//! Objects that must outlive the interpreter.

use pyo3::prelude::*;

/// Keeps an object until the process ends. It is not destroyed when the interpreter ends, as modules' own objects are.
#[pyfunction]
#[pyo3(signature = (object, /))]
pub(super) fn keep_forever(object: Py<PyAny>) {
    std::mem::forget(object);
}
