//! The table of what Python sees of the codec. There is no logic of caching here, and nothing of Django.

mod bytes;
mod classes;
#[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "dumping is left to CPython there"))]
mod cpython;
mod crypto;
mod dump;
mod error;
mod gil;
mod inspect;
mod interpreter;
mod keep;
mod key;
mod large;
mod load;
mod models;
mod natives;
mod pickle;
mod reduce;
mod seal;
mod testing;
mod value;
mod walk;

use pyo3::prelude::*;

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
    use super::models::use_models;
    #[pymodule_export]
    use super::seal::{Sealer, open_pickle, split_value};
    #[pymodule_export]
    use super::testing::{
        count_walks, pickle_dumps, pickle_dumps_all, pickle_loads, pickle_loads_all, pickle_scan, use_fast_paths,
    };
    #[pymodule_export]
    use super::value::{decrypt_value, decrypt_value_and_record, encrypt_value};

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
        super::interpreter::claim(module.py())?;
        // The types of the standard library as they are now: a test may put others in their place later.
        super::natives::Natives::get(module.py())?;
        Ok(())
    }
}
