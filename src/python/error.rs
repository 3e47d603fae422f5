//! The one place where the codec's errors become Python's.

use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;
use pyo3::{create_exception, intern};

use crate::error::Error;

create_exception!(
    fastblets._native,
    CodecError,
    PyValueError,
    "Stored data that can't be read, or a key that can't be used. `kind` tells which step failed: \"cipher\", \"zlib\", \
     \"pickle\" or \"seal\"."
);

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        // Djblets lets pyca's errors through for keys and IVs, and `zlib.error` and `UnpicklingError` for the rest.
        // Callers see none of them, since an entry that can't be read is a miss.
        let kind = match error {
            Error::Memory => return PyMemoryError::new_err(error.to_string()),
            Error::KeySize(_) | Error::IvSize(_) => "cipher",
            Error::Zlib(_) => "zlib",
            Error::Pickle(_) => "pickle",
            Error::Seal(_) => "seal",
        };
        codec_error(kind, error.to_string())
    }
}

/// An error of this kind, with a text of its own.
pub(super) fn codec_error(kind: &'static str, text: String) -> PyErr {
    Python::attach(|py| {
        let error = CodecError::new_err(text);
        match error.value(py).setattr(intern!(py, "kind"), kind) {
            Ok(()) => error,
            Err(other) => other,
        }
    })
}
