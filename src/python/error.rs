//! The one place where the codec's errors become Python's.

use pyo3::PyErr;
use pyo3::exceptions::{PyMemoryError, PyValueError};

use crate::error::Error;

impl From<Error> for PyErr {
    fn from(error: Error) -> Self {
        // What Djblets lets through, too: pyca's for keys and IVs, `zlib.error` and `UnpicklingError` for the rest, of
        // which callers see none, since an entry that can't be read is a miss.
        match error {
            Error::Memory => PyMemoryError::new_err(error.to_string()),
            _ => PyValueError::new_err(error.to_string()),
        }
    }
}
