//! What Python sees of the codec: a table. No logic of caching is here, and nothing of Django.

mod classes;
mod crypto;
mod dump;
mod error;
mod inspect;
mod key;
mod large;
mod load;
mod pickle;
#[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "dumping is left to CPython there"))]
mod raw;
mod seal;
mod value;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::Error;

/// fastblets' codec. Private: `fastblets.cache.backend` and `fastblets.secrets.crypto` are the way in.
#[pymodule(name = "_native")]
mod native {
    #[pymodule_export]
    use super::crypto::{Decryptor, Encryptor, decrypt, encrypt};
    #[pymodule_export]
    use super::inspect::{Inspection, inspect_chunks};
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
    const AES_BLOCK_SIZE: usize = crate::cipher::BLOCK_SIZE;
    #[pymodule_export]
    const CACHE_CHUNK_SIZE: usize = crate::chunk::CHUNK_SIZE;
    #[pymodule_export]
    const DEBUG_BUILD: bool = cfg!(debug_assertions);
    #[pymodule_export]
    const MAX_KEY_SIZE: usize = crate::key::MAX_KEY_SIZE;
    #[pymodule_export]
    const WRITE_ID_SIZE: usize = crate::seal::WRITE_ID_SIZE;
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
    Ok(raw::new_bytes(py, bytes).ok_or(Error::Memory)?)
}
