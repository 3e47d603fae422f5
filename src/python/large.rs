//! Items to chunks and back.

use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList};

use super::pickle::{CUT_OFF, Checker, Pickler, Unpickler};
use super::run;
use crate::chunk::CHUNK_SIZE;
use crate::cipher::{self, Key};
use crate::error::Result;
use crate::large::{Reader, Writer};

/// Up to this many bytes of pickles are unpickled before the first item is given out. Of a longer stream it is made sure
/// that it is whole, and then it is read again, item by item.
const READ_AHEAD: usize = 16 << 20;

/// Turns items into chunks.
#[pyclass(module = "fastblets._native")]
pub(super) struct LargeWriter {
    writer: Writer,
    pickler: Pickler,
}

#[pymethods]
impl LargeWriter {
    /// Starts a stream, encrypted if there are a key and an initialization vector.
    #[new]
    #[pyo3(signature = (compress, key, iv, /))]
    fn new(py: Python<'_>, compress: bool, key: Option<&[u8]>, iv: Option<&[u8]>) -> PyResult<Self> {
        let encryption = match (key, iv) {
            (Some(key), Some(iv)) => Some((Key::new(key)?, cipher::iv(iv)?)),
            (None, None) => None,
            _ => return Err(PyValueError::new_err("An encryption key needs an IV, and an IV a key.")),
        };
        let writer = Writer::new(compress, encryption);
        Ok(Self {
            writer,
            pickler: Pickler::new(py)?,
        })
    }

    /// Appends an item. Returns whether there are full chunks to take.
    #[pyo3(signature = (item, /))]
    fn write(&mut self, item: &Bound<'_, PyAny>) -> PyResult<bool> {
        let output = self.writer.pickle();
        let start = output.len();
        self.pickler.write(item, output)?;
        let size = output.len() - start;
        run(item.py(), size, || self.writer.end_pickle())?;
        Ok(self.writer.cutter().full_chunks().len() > 0)
    }

    /// Takes the chunks that are full and certainly not the last.
    fn take_full_chunks<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let cutter = self.writer.cutter();
        let chunks = PyList::new(py, cutter.full_chunks().map(|chunk| PyBytes::new(py, chunk)))?;
        cutter.drop_full_chunks();
        Ok(chunks)
    }

    /// Ends the stream; what is left of it is in the full chunks and the last one.
    fn finish(&mut self, py: Python<'_>) -> PyResult<()> {
        Ok(run(py, CHUNK_SIZE, || self.writer.finish())?)
    }

    /// The last chunk, once the full ones have been taken. None where the stream is empty.
    fn last_chunk<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.writer.cutter().last_chunk().map(|chunk| PyBytes::new(py, chunk))
    }
}

/// The items of a stream that is known to be whole. What is not plain is unpickled by `loads`, by default `pickle.loads`.
#[pyfunction]
#[pyo3(signature = (chunks, compressed, key, loads=None, /))]
pub(super) fn read_items<'py>(
    py: Python<'py>,
    chunks: Vec<PyBackedBytes>,
    compressed: bool,
    key: Option<&[u8]>,
    loads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, ItemStream>> {
    // Made before the items: whatever object the collector keeps track of is made behind them has it run over them all.
    let stream = Bound::new(py, ItemStream::default())?;
    let key = key.map(Key::new).transpose()?;
    let mut beginning = Reader::new(chunks.iter().collect(), compressed, key)?;
    let mut data = Vec::new();
    let stored = chunks.iter().map(|chunk| chunk.len()).sum();
    let ended = run(py, stored, || -> Result<bool> {
        while data.len() <= READ_AHEAD {
            if !beginning.read(&mut data, CHUNK_SIZE)? {
                return Ok(true);
            }
        }
        Ok(false)
    })?;
    if ended {
        stream.borrow_mut().ready = unpickle_all(Unpickler::new(py, loads)?, py, &data)?.into_iter();
        return Ok(stream);
    }

    let mut checker = Checker::default();
    py.detach(|| -> Result<()> {
        loop {
            checker.check(&mut data)?;
            // As much again as there is, so that a huge item is not looked at over and over.
            let want = data.len().max(CHUNK_SIZE);
            if !beginning.read(&mut data, want)? {
                break;
            }
        }
        if data.is_empty() { Ok(()) } else { Err(CUT_OFF) }
    })?;
    checker.import_globals(py, loads)?;
    stream.borrow_mut().rest = Some(Rest {
        reader: Reader::new(chunks, compressed, key)?,
        unpickler: Unpickler::new(py, loads)?,
        data: Vec::new(),
        at: 0,
    });
    Ok(stream)
}

fn unpickle_all(mut unpickler: Unpickler, py: Python<'_>, mut data: &[u8]) -> PyResult<Vec<Py<PyAny>>> {
    let mut items = Vec::new();
    while !data.is_empty() {
        let (item, size) = unpickler.read(py, data)?.ok_or(CUT_OFF)?;
        items.push(item.unbind());
        data = &data[size..];
    }
    Ok(items)
}

/// The items of a stream, one by one: all unpickled already or, of a long stream, each when it is asked for.
#[pyclass(module = "fastblets._native")]
#[derive(Default)]
pub(super) struct ItemStream {
    ready: std::vec::IntoIter<Py<PyAny>>,
    rest: Option<Rest>,
}

#[pymethods]
impl ItemStream {
    /// Whether the items have been unpickled, so that nothing can go wrong any more.
    #[getter]
    fn ready(&self) -> bool {
        self.rest.is_none()
    }

    fn __iter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        match &mut self.rest {
            Some(rest) => rest.next(py),
            None => Ok(self.ready.next()),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> std::result::Result<(), PyTraverseError> {
        self.ready.as_slice().iter().try_for_each(|item| visit.call(item))
    }

    fn __clear__(&mut self) {
        self.ready = Vec::new().into_iter();
    }
}

/// A long stream, which is read for the second time.
struct Rest {
    reader: Reader<PyBackedBytes>,
    unpickler: Unpickler,
    /// What has been read of the stream, and where in it the next item starts.
    data: Vec<u8>,
    at: usize,
}

impl Rest {
    fn next(&mut self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        loop {
            let unread = &self.data[self.at..];
            if !unread.is_empty()
                && let Some((item, size)) = self
                    .unpickler
                    .read(py, unread)
                    .map_err(|error| not_the_end(py, error))?
            {
                self.at += size;
                return Ok(Some(item.unbind()));
            }
            self.data.drain(..self.at);
            self.at = 0;
            let want = self.data.len().max(CHUNK_SIZE);
            if !py.detach(|| self.reader.read(&mut self.data, want))? {
                return if self.data.is_empty() {
                    Ok(None)
                } else {
                    Err(CUT_OFF.into())
                };
            }
        }
    }
}

/// An item that raises StopIteration when it is unpickled must not pass for the end of the stream (PEP 479).
fn not_the_end(py: Python<'_>, error: PyErr) -> PyErr {
    if !error.is_instance_of::<PyStopIteration>(py) {
        return error;
    }
    let wrapper = PyRuntimeError::new_err("An item raised StopIteration when it was unpickled.");
    wrapper.set_cause(py, Some(error));
    wrapper
}
