//! Seals on Python's bytes.

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use super::bytes::{chunks_of, new_bytes};
use super::gil::detach_if_large;
use super::pickle::cut_off;
use crate::error::{Error, Result};
use crate::pickle::scan::Scanner;
use crate::seal::{self, Kind, WRITE_ID_SIZE};

/// What an encrypted value has instead of a pickle if it was damaged, or has another key.
const NOT_ONE_PICKLE: Error = Error::pickle("it goes on behind its end");
const NO_SEAL: Error = Error::Seal("there is none");

/// Seals and checks what belongs to the entry with this full key, under a secret if there is one.
#[pyclass(module = "fastblets._native", frozen)]
pub(super) struct Sealer(pub(super) seal::Sealer);

#[pymethods]
impl Sealer {
    #[new]
    #[pyo3(signature = (secret, full_key, /))]
    fn new(secret: Option<&[u8]>, full_key: &[u8]) -> PyResult<Self> {
        Ok(Self(seal::Sealer::new(secret, full_key)?))
    }

    /// The seal of a chunk, and of the record beside it if there is one.
    #[pyo3(signature = (write_id, index, last, chunk, record=None, /))]
    fn seal_chunk<'py>(
        &self,
        py: Python<'py>,
        write_id: [u8; WRITE_ID_SIZE],
        index: usize,
        last: bool,
        chunk: PyBackedBytes,
        record: Option<&[u8]>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let seal = detach_if_large(py, chunk.len(), || {
            self.0.chunk(write_id, index, last, record.unwrap_or_default(), &chunk)
        });
        new_bytes(py, &seal)
    }

    /// Checks all chunks of an entry with their seals, and the record beside the last one if there is one.
    #[pyo3(signature = (chunks, seals, record=None, /))]
    fn check_chunks(
        &self,
        py: Python<'_>,
        chunks: &Bound<'_, PyAny>,
        seals: &Bound<'_, PyAny>,
        record: Option<&[u8]>,
    ) -> PyResult<()> {
        let (chunks, seals) = (chunks_of(chunks)?, chunks_of(seals)?);
        let size = chunks.iter().map(|chunk| chunk.len()).sum();
        Ok(detach_if_large(py, size, || {
            self.0.check_chunks(&chunks, &seals, record.unwrap_or_default())
        })?)
    }

    /// The pickle of a value, or of a count, with its seal behind it.
    #[pyo3(signature = (pickle, is_count, /))]
    fn seal_pickle<'py>(&self, py: Python<'py>, pickle: &[u8], is_count: bool) -> PyResult<Bound<'py, PyBytes>> {
        let trailer = self.0.trailer(kind(is_count), pickle);
        PyBytes::new_with(py, pickle.len() + trailer.len(), |sealed| {
            let (head, tail) = sealed.split_at_mut(pickle.len());
            head.copy_from_slice(pickle);
            tail.copy_from_slice(&trailer);
            Ok(())
        })
    }
}

pub(super) fn kind(is_count: bool) -> Kind {
    if is_count { Kind::Count } else { Kind::Value }
}

/// The one pickle that was encrypted, as CPython writes it in protocol 0 or 4, without its record and its seal. That is checked if
/// there is a sealer, and must be there if it is required.
#[pyfunction]
#[pyo3(signature = (data, is_count, sealer, required, /))]
pub(super) fn open_pickle<'py>(
    py: Python<'py>,
    data: &[u8],
    is_count: bool,
    sealer: Option<&Sealer>,
    required: bool,
) -> PyResult<Bound<'py, PyBytes>> {
    new_bytes(py, opened(data, is_count, sealer, required)?.pickle)
}

/// What was encrypted: the pickle, the record behind it if there is one, and whether there is a seal. None of it is checked.
#[pyfunction]
#[pyo3(signature = (data, /))]
pub(super) fn split_value<'py>(py: Python<'py>, data: &[u8]) -> PyResult<SplitValue<'py>> {
    let end = Scanner::as_written().scan(data);
    let (content, tag) = split(data, &end);
    let (pickle, behind) = content.split_at(end.ok().flatten().unwrap_or(content.len()));
    let Some(record) = seal::record(behind) else {
        return Ok((new_bytes(py, content)?, None, tag.is_some()));
    };
    Ok((new_bytes(py, pickle)?, Some(new_bytes(py, record)?), tag.is_some()))
}

type SplitValue<'py> = (Bound<'py, PyBytes>, Option<Bound<'py, PyBytes>>, bool);

/// What was encrypted, without its seal.
pub(super) struct Opened<'a> {
    pub(super) pickle: &'a [u8],
    pub(super) record: Option<&'a [u8]>,
}

/// As [`open_pickle`].
pub(super) fn opened<'a>(
    data: &'a [u8],
    is_count: bool,
    sealer: Option<&Sealer>,
    required: bool,
) -> Result<Opened<'a>> {
    // Garbage, such as a wrong key makes, may well begin with a pickle; and a pickle that claims to be longer than it is
    // must not get to the unpickler, which would make room for it.
    let end = Scanner::as_written().scan(data);
    let (content, tag) = split(data, &end);
    match (sealer, tag) {
        (Some(sealer), Some(tag)) => sealer.0.check(kind(is_count), content, tag)?,
        (_, None) if required => return Err(NO_SEAL),
        _ => {}
    }
    match end? {
        Some(size) => {
            let (pickle, behind) = content.split_at(size);
            let record = seal::record(behind);
            if record.is_none() && !behind.is_empty() {
                return Err(NOT_ONE_PICKLE.moved_by(size as u64));
            }
            Ok(Opened { pickle, record })
        }
        None => Err(cut_off(content.len())),
    }
}

/// The pickle with its record, and its seal's tag. A pickle of protocol 4 may hold any bytes, so that its own bytes may look like a
/// seal.
fn split<'a>(data: &'a [u8], end: &Result<Option<usize>>) -> (&'a [u8], Option<&'a [u8]>) {
    match end {
        Ok(Some(size)) => {
            let (behind, tag) = seal::split(&data[*size..]);
            (&data[..size + behind.len()], tag)
        }
        _ => seal::split(data),
    }
}
