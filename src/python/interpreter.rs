//! The one interpreter of the process that may use the module.

use std::sync::atomic::{AtomicI64, Ordering};

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

use super::cpython;

/// Lets the current interpreter import the module, as often as it likes, unless another one has.
///
/// Classes and modules that are kept between calls belong to one interpreter and must not reach another. The claim outlives
/// the interpreter.
///
/// Raises ImportError in any other interpreter.
pub(super) fn claim(py: Python<'_>) -> PyResult<()> {
    static OWNER: AtomicI64 = AtomicI64::new(NONE);
    const NONE: i64 = -1;
    let current = cpython::interpreter_id(py)?;
    match OWNER.compare_exchange(NONE, current, Ordering::Relaxed, Ordering::Relaxed) {
        Err(owner) if owner != current => Err(PyImportError::new_err(
            "Another Python interpreter in this process uses fastblets already, and only one can. Under mod_wsgi, let the \
             application run in the main interpreter: set \"WSGIApplicationGroup %{GLOBAL}\" in Apache's configuration, \
             and give each further application a process group of its own (WSGIDaemonProcess, WSGIProcessGroup).",
        )),
        _ => Ok(()),
    }
}
