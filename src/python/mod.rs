//! What Python sees of the codec: a table. No logic of caching is here, and nothing of Django.

mod classes;
#[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "dumping is left to CPython there"))]
mod cpython;
mod crypto;
mod dump;
mod error;
mod inspect;
mod keep;
mod key;
mod large;
mod load;
mod pickle;
mod reduce;
mod seal;
mod value;
mod walk;

use std::sync::atomic::{AtomicI64, Ordering};

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::error::{Error, push};

/// fastblets' codec. Private: `fastblets.cache.backend` and `fastblets.secrets.crypto` are the way in.
#[pymodule(name = "_native")]
mod native {
    #[pymodule_export]
    use super::crypto::{Decryptor, Encryptor, decrypt, encrypt};
    #[pymodule_export]
    use super::error::CodecError;
    #[pymodule_export]
    use super::inspect::{Inspection, inspect_chunks};
    #[pymodule_export]
    use super::keep::keep_forever;
    #[pymodule_export]
    use super::key::{make_chunk_keys, make_full_key};
    #[pymodule_export]
    use super::large::{ItemStream, LargeWriter, read_items};
    #[pymodule_export]
    use super::pickle::{pickle_dumps, pickle_dumps_all, pickle_loads, pickle_loads_all, pickle_scan, use_fast_paths};
    #[pymodule_export]
    use super::seal::{Sealer, open_pickle, split_seal};
    #[pymodule_export]
    use super::value::{decrypt_value, encrypt_value};
    #[pymodule_export]
    use super::walk::count_walks;

    #[pymodule_export]
    const AES_BLOCK_SIZE: usize = crate::cipher::BLOCK_SIZE;
    #[pymodule_export]
    const CACHE_CHUNK_SIZE: usize = crate::chunk::CHUNK_SIZE;
    #[pymodule_export]
    const DEBUG_BUILD: bool = cfg!(debug_assertions);
    #[pymodule_export]
    const MAX_KEY_SIZE: usize = crate::key::MAX_KEY_SIZE;
    #[pymodule_export]
    const WRITE_ID_SIZE: usize = crate::seal::WRITE_ID_SIZE;

    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::let_in(module.py())
    }
}

/// Lets one interpreter of the process import the module, as often as it likes.
///
/// What is kept for all calls, such as classes and modules, is that interpreter's, and must never get to another one. It
/// stays so after the interpreter's end.
fn let_in(py: Python<'_>) -> PyResult<()> {
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

/// Below this many bytes the GIL is kept: giving it up and getting it back costs more than the work that it would let
/// others do meanwhile.
const GIL_RELEASE_SIZE: usize = 2048;

/// Runs pure work on bytes, with the GIL released if there is enough of it.
fn run<T: Send>(py: Python<'_>, size: usize, work: impl FnOnce() -> T + Send) -> T {
    if size < GIL_RELEASE_SIZE {
        work()
    } else {
        py.detach(work)
    }
}

/// New bytes. If memory is short that is an error, where PyO3's own way would be to panic.
fn new_bytes<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    Ok(cpython::new_bytes(py, bytes).ok_or(Error::Memory)?)
}

/// The chunks of an entry, or their seals, out of a list of bytes.
fn chunks_of(list: &Bound<'_, PyAny>) -> PyResult<Vec<PyBackedBytes>> {
    let mut chunks = Vec::new();
    for chunk in list.try_iter()? {
        push(&mut chunks, chunk?.extract()?)?;
    }
    Ok(chunks)
}
