//! The one place where the codec's errors become Python's.

use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{PyErrArguments, create_exception, intern};

use crate::error::{Error, NO_MEMORY};

create_exception!(
    fastblets._native,
    CodecError,
    PyValueError,
    "Stored data can't be read, or a key can't be used. `kind` tells which step failed: \"cipher\", \"zlib\", \
     \"pickle\" or \"seal\". `offset` is where in the stream of pickles the error was noticed, in bytes, or None."
);

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        // Djblets lets pyca's errors through for keys and IVs, and `zlib.error` and `UnpicklingError` for the rest.
        // Callers see none of them, since an entry that can't be read is a miss.
        let (kind, offset) = match error {
            Error::Memory => return Self::new::<PyMemoryError, _>(NoMemory),
            Error::KeySize(_) | Error::IvSize(_) => ("cipher", None),
            Error::Zlib(_) => ("zlib", None),
            Error::Pickle { offset, .. } => ("pickle", offset),
            Error::Seal(_) => ("seal", None),
        };
        codec_error(kind, offset, error.to_string())
    }
}

/// An error of this kind, with a text of its own, and where in the stream of pickles it was noticed.
pub(super) fn codec_error(kind: &'static str, offset: Option<u64>, text: String) -> PyErr {
    Python::attach(|py| {
        let error = PyErr::new::<CodecError, _>(Text(text));
        let value = error.value(py);
        let set = value
            .setattr(intern!(py, "kind"), kind)
            .and_then(|()| value.setattr(intern!(py, "offset"), offset));
        match set {
            Ok(()) => error,
            Err(other) => other,
        }
    })
}

struct Text(String);

impl PyErrArguments for Text {
    fn arguments(self, py: Python<'_>) -> Py<PyAny> {
        text(py, &self.0)
    }
}

/// The text of [`Error::Memory`], which takes no memory before Python asks for it.
struct NoMemory;

impl PyErrArguments for NoMemory {
    fn arguments(self, py: Python<'_>) -> Py<PyAny> {
        text(py, NO_MEMORY)
    }
}

/// If memory is short the exception has no text. PyO3's own function panics.
fn text(py: Python<'_>, text: &str) -> Py<PyAny> {
    PyString::from_bytes(py, text.as_bytes()).map_or_else(|_| py.None(), |text| text.into_any().unbind())
}
