//! The one place where the codec's errors become Python's.

use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{PyErr, PyErrArguments};

use crate::error::{Error, NO_MEMORY};

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        // What Djblets lets through, too: pyca's for keys and IVs, `zlib.error` and `UnpicklingError` for the rest, of
        // which callers see none, since an entry that can't be read is a miss.
        match error {
            Error::Memory => Self::new::<PyMemoryError, _>(NoMemory),
            _ => Self::new::<PyValueError, _>(error),
        }
    }
}

impl PyErrArguments for Error {
    fn arguments(self, py: Python<'_>) -> Py<PyAny> {
        text(py, &self.to_string())
    }
}

/// The text of [`Error::Memory`], which takes no memory before Python asks for it.
struct NoMemory;

impl PyErrArguments for NoMemory {
    fn arguments(self, py: Python<'_>) -> Py<PyAny> {
        text(py, NO_MEMORY)
    }
}

/// An exception goes without its text where there is no memory for that. PyO3's own way would be to panic.
fn text(py: Python<'_>, text: &str) -> Py<PyAny> {
    PyString::from_bytes(py, text.as_bytes()).map_or_else(|_| py.None(), |text| text.into_any().unbind())
}
