//! Small encrypted values: pickled, sealed and encrypted in one step, and the way back.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::bytes::new_bytes;
use super::error::codec_error;
use super::gil::detach_if_large;
use super::pickle::{Pickler, Unpickler, cut_off};
use super::seal::{Opened, Sealer, kind, opened};
use crate::cipher::{self, BLOCK_SIZE, Decryptor, Encryptor, Key};
use crate::error::Result;
use crate::memory::{append, grow};
use crate::seal::RECORD_MARK;

/// Most small values take no more bytes than this, and so no memory twice.
const SMALL: usize = 512;

/// What is stored of a small value, or of a count: its pickle and the record if there is one, sealed if there is a sealer, and
/// encrypted.
#[pyfunction]
#[pyo3(signature = (value, key, iv, is_count, sealer, record=None, /))]
pub(super) fn encrypt_value<'py>(
    value: &Bound<'py, PyAny>,
    key: &[u8],
    iv: &[u8],
    is_count: bool,
    sealer: Option<&Sealer>,
    record: Option<&[u8]>,
) -> PyResult<Bound<'py, PyBytes>> {
    let py = value.py();
    let iv = cipher::iv(iv)?;
    let mut output = Vec::new();
    grow(&mut output, SMALL)?;
    append(&mut output, &iv)?;
    // First, as in Djblets: where both fail, it is the pickling that is logged.
    Pickler::write_one(value, &mut output)?;
    if let Some(record) = record {
        append(&mut output, RECORD_MARK)?;
        append(&mut output, record)?;
    }
    let mut encryptor = Encryptor::new(Key::new(key)?, iv);
    let size = output.len();
    detach_if_large(py, size, || -> Result<()> {
        if let Some(sealer) = sealer {
            let trailer = sealer.0.trailer(kind(is_count), &output[BLOCK_SIZE..]);
            append(&mut output, &trailer)?;
        }
        encryptor.apply(&mut output[BLOCK_SIZE..]);
        Ok(())
    })?;
    new_bytes(py, &output)
}

/// The value of which that is stored. Its seal is checked if there is a sealer, and must be there if it is required.
#[pyfunction]
#[pyo3(signature = (stored, key, is_count, sealer, required, loads, /))]
pub(super) fn decrypt_value<'py>(
    py: Python<'py>,
    stored: &Bound<'py, PyAny>,
    key: &[u8],
    is_count: bool,
    sealer: Option<&Sealer>,
    required: bool,
    loads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    Ok(decrypt_value_and_record(py, stored, key, is_count, sealer, required, loads)?.0)
}

/// As [`decrypt_value`], with the record if there is one.
#[pyfunction]
#[pyo3(signature = (stored, key, is_count, sealer, required, loads, /))]
pub(super) fn decrypt_value_and_record<'py>(
    py: Python<'py>,
    stored: &Bound<'py, PyAny>,
    key: &[u8],
    is_count: bool,
    sealer: Option<&Sealer>,
    required: bool,
    loads: Option<&Bound<'py, PyAny>>,
) -> PyResult<(Bound<'py, PyAny>, Option<Bound<'py, PyBytes>>)> {
    let Ok(stored) = stored.cast::<PyBytes>() else {
        let class = stored.get_type();
        let text = format!("The data to decrypt must be of type \"bytes\", not \"{class}\"");
        return Err(codec_error("cipher", None, text));
    };
    let stored = stored.as_bytes();
    let (iv, encrypted) = stored.split_at(stored.len().min(BLOCK_SIZE));
    let mut decryptor = Decryptor::new(Key::new(key)?, cipher::iv(iv)?);
    let mut data = Vec::new();
    detach_if_large(py, encrypted.len(), || decryptor.apply(encrypted, &mut data))?;
    let Opened { pickle, record } = opened(&data, is_count, sealer, required)?;
    let (item, _) = Unpickler::new(py, loads)?
        .read(py, pickle)?
        .ok_or_else(|| cut_off(pickle.len()))?;
    Ok((item, record.map(|record| new_bytes(py, record)).transpose()?))
}
