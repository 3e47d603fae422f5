//! Items to chunks and back.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList};

use super::run;
use crate::chunk::CHUNK_SIZE;
use crate::cipher::{self, Key};
use crate::large::{Reader, Writer};

/// Turns items into chunks.
#[pyclass]
pub(super) struct LargeWriter(Writer);

#[pymethods]
impl LargeWriter {
    /// Starts a stream, encrypted if there are a key and an initialization vector.
    #[new]
    #[pyo3(signature = (compress, key, iv, /))]
    fn new(compress: bool, key: Option<&[u8]>, iv: Option<&[u8]>) -> PyResult<Self> {
        let encryption = match (key, iv) {
            (Some(key), Some(iv)) => Some((Key::new(key)?, cipher::iv(iv)?)),
            (None, None) => None,
            _ => return Err(PyValueError::new_err("An encryption key needs an IV, and an IV a key.")),
        };
        Ok(Self(Writer::new(
            compress,
            encryption.as_ref().map(|(key, iv)| (key, *iv)),
        )))
    }

    /// Appends one item's pickle.
    #[pyo3(signature = (pickle, /))]
    fn write(&mut self, py: Python<'_>, pickle: PyBackedBytes) -> PyResult<()> {
        Ok(run(py, pickle.len(), || self.0.write(&pickle))?)
    }

    /// Takes the chunks that are full and certainly not the last.
    fn take_full_chunks<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let cutter = self.0.cutter();
        let chunks = PyList::new(py, cutter.full_chunks().map(|chunk| PyBytes::new(py, chunk)))?;
        cutter.drop_full_chunks();
        Ok(chunks)
    }

    /// Ends the stream; what is left of it is in the full chunks and the last one.
    fn finish(&mut self, py: Python<'_>) -> PyResult<()> {
        Ok(run(py, CHUNK_SIZE, || self.0.finish())?)
    }

    /// The last chunk, once the full ones have been taken. None where the stream is empty.
    fn last_chunk<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.0.cutter().last_chunk().map(|chunk| PyBytes::new(py, chunk))
    }
}

/// Turns chunks into the stream of pickles that they hold.
#[pyclass]
pub(super) struct LargeReader(Reader<PyBackedBytes>);

#[pymethods]
impl LargeReader {
    /// Starts reading.
    #[new]
    #[pyo3(signature = (chunks, compressed, key, /))]
    fn new(chunks: Vec<PyBackedBytes>, compressed: bool, key: Option<&[u8]>) -> PyResult<Self> {
        let key = key.map(Key::new).transpose()?;
        Ok(Self(Reader::new(chunks, compressed, key.as_ref())?))
    }

    /// The whole stream.
    fn read_all<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let data = py.detach(|| {
            let mut data = Vec::new();
            while self.0.read(&mut data, CHUNK_SIZE)? {}
            Ok::<_, crate::error::Error>(data)
        })?;
        Ok(PyBytes::new(py, &data))
    }
}
