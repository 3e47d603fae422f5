//! Items to chunks and back.

use std::num::NonZero;

use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList};

use super::bytes::{chunks_of, new_bytes};
use super::cpython;
use super::gil::detach_if_large;
use super::pickle::{Checker, Pickler, Unpickler};
use crate::chunk::CHUNK_SIZE;
use crate::cipher::{self, Key};
use crate::error::{Error, Result};
use crate::large::{Reader, Writer};
use crate::memory::collect;
use crate::zlib::Sharing;

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
    /// Starts a stream, encrypted if there are a key and an initialization vector. `threads` is how many threads may compress
    /// it, the caller's included, by default one for each processor that may be used. There are at most four.
    #[new]
    #[pyo3(signature = (compress, key, iv, threads=None, /))]
    fn new(
        py: Python<'_>,
        compress: bool,
        key: Option<&[u8]>,
        iv: Option<&[u8]>,
        threads: Option<NonZero<usize>>,
    ) -> PyResult<Self> {
        let encryption = match (key, iv) {
            (Some(key), Some(iv)) => Some((Key::new(key)?, cipher::iv(iv)?)),
            (None, None) => None,
            _ => return Err(PyValueError::new_err("An encryption key needs an IV, and an IV a key.")),
        };
        let writer = Writer::new(compress, encryption)?.shared(Sharing::new(threads));
        Ok(Self {
            writer,
            pickler: Pickler::new(py)?,
        })
    }

    /// Appends an item. Returns whether there are full chunks to take.
    #[pyo3(signature = (item, /))]
    fn write(&mut self, item: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.pickler.write(item, self.writer.pickle())?;
        detach_if_large(item.py(), self.writer.due(), || self.writer.end_pickle())?;
        Ok(self.writer.cutter().full_chunks().len() > 0)
    }

    /// Takes the chunks that are full and certainly not the last.
    fn take_full_chunks<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let chunks = cpython::new_list(py).ok_or(Error::Memory)?;
        let cutter = self.writer.cutter();
        cutter.take_full_chunks(|chunk| chunks.append(new_bytes(py, chunk)?))?;
        chunks.reverse()?;
        Ok(chunks)
    }

    /// Ends the stream; what is left of it is in the full chunks and the last one.
    fn finish(&mut self, py: Python<'_>) -> PyResult<()> {
        Ok(detach_if_large(py, CHUNK_SIZE, || self.writer.finish())?)
    }

    /// The last chunk, once the full ones have been taken. None where the stream is empty.
    fn last_chunk<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let chunk = self.writer.cutter().last_chunk();
        chunk.map(|chunk| new_bytes(py, chunk)).transpose()
    }
}

/// Returns an iterator over the items of a stream, which has been checked to be whole. For a long stream it is an `ItemStream`,
/// for any other an iterator over a list. `loads`, by default `pickle.loads`, unpickles items that are not plain.
#[pyfunction]
#[pyo3(signature = (chunks, compressed, key, loads=None, /))]
pub(super) fn read_items<'py>(
    py: Python<'py>,
    chunks: &Bound<'py, PyAny>,
    compressed: bool,
    key: Option<&[u8]>,
    loads: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let chunks = chunks_of(chunks)?;
    // Allocated before the items: a tracked allocation after them triggers a full collection.
    let items = cpython::new_list(py).ok_or(Error::Memory)?;
    let iterator = items.try_iter()?.into_any();
    let key = key.map(Key::new).transpose()?;
    let reader = Reader::new(collect(chunks.iter())?, compressed, key)?;
    let mut ahead = Ahead::new(Unpickler::new(py, loads)?, reader);
    if ahead.read(&items)? {
        return Ok(iterator);
    }

    // The stream is long: it is read again from the beginning, item by item.
    drop((items, iterator));
    let Ahead {
        reader: mut beginning,
        mut data,
        ..
    } = ahead;
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
        checker.finish(&data)
    })?;
    checker.import_globals(py, loads)?;
    let stream = ItemStream {
        reader: Reader::new(chunks, compressed, key)?,
        unpickler: Unpickler::new(py, loads)?,
        data: Vec::new(),
        at: 0,
    };
    Ok(Bound::new(py, stream)?.into_any())
}

/// The beginning of a stream, or all of one that is not long.
struct Ahead<Chunk> {
    unpickler: Unpickler,
    reader: Reader<Chunk>,
    /// What has been read and not yet unpickled.
    data: Vec<u8>,
    /// How much has been unpickled.
    done: usize,
}

impl<Chunk: AsRef<[u8]> + Send> Ahead<Chunk> {
    /// The first step shows what kind of items there are, and costs little if it was in vain.
    const FIRST_STEP: usize = 1 << 16;
    const STEP: usize = 1 << 20;
    /// Fewer items a step are not worth it: at the end of each, a part of one has been unpickled in vain.
    const FEWEST: usize = 16;

    fn new(unpickler: Unpickler, reader: Reader<Chunk>) -> Self {
        Self {
            unpickler,
            reader,
            data: Vec::new(),
            done: 0,
        }
    }

    /// Reads and unpickles all, unless the stream is a long one: then returns false.
    ///
    /// Plain items are unpickled as they come, while they are in the processor's caches and before they take memory of
    /// their own, which costs as much as to inflate them. Of others none is before all has been read, and with it the
    /// checksum of a compressed stream, as that may execute anything.
    fn read(&mut self, items: &Bound<'_, PyList>) -> PyResult<bool> {
        let py = items.py();
        let stored = self.reader.unread();
        let mut step = Self::FIRST_STEP;
        let mut ended = false;
        while !ended {
            ended = !detach_if_large(py, stored, || self.reader.read(&mut self.data, step))?;
            let is_long = self.expected_size(stored) > READ_AHEAD as f64;
            if is_long || self.unpickle_plain(items)? < Self::FEWEST {
                break;
            }
            step = Self::STEP;
        }
        // All at once, as other threads may run meanwhile; and into memory that is had at once, as to grow it step by step may
        // be to copy it.
        let room = self.expected_size(stored).min(READ_AHEAD as f64) as usize;
        let whole = detach_if_large(py, stored, || -> Result<bool> {
            let more = room.saturating_sub(self.done + self.data.len());
            // A small entry has all that it needs.
            if !ended && more > 0 {
                let more = more + 2 * Self::STEP;
                self.data.try_reserve_exact(more).map_err(|_| Error::Memory)?;
            }
            while !ended {
                if self.done + self.data.len() > READ_AHEAD {
                    return Ok(false);
                }
                ended = !self.reader.read(&mut self.data, Self::STEP)?;
            }
            Ok(true)
        })?;
        if !whole {
            return Ok(false);
        }
        let mut at = 0;
        while at < self.data.len() {
            let unread = &self.data[at..];
            let found = self.unpickler.read(py, unread)?;
            let (item, size) = found.ok_or_else(|| self.unpickler.cut_off(unread.len()))?;
            items.append(item)?;
            at += size;
        }
        Ok(true)
    }

    /// How long the stream would be if all of it were as what has been read.
    fn expected_size(&self, stored: usize) -> f64 {
        let size = self.done + self.data.len();
        size as f64 * stored as f64 / (stored - self.reader.unread()) as f64
    }

    /// Unpickles items up to the first one that is incomplete or not plain. Returns how many.
    fn unpickle_plain(&mut self, items: &Bound<'_, PyList>) -> PyResult<usize> {
        let before = items.len();
        let size = self
            .unpickler
            .read_plain(items.py(), &self.data, |item| items.append(item))?;
        self.data.drain(..size);
        self.done += size;
        Ok(items.len() - before)
    }
}

/// The items of a long stream, which is read for the second time: each is unpickled when it is asked for.
#[pyclass(module = "fastblets._native")]
pub(super) struct ItemStream {
    reader: Reader<PyBackedBytes>,
    unpickler: Unpickler,
    /// What has been read of the stream, and where in it the next item starts.
    data: Vec<u8>,
    at: usize,
}

#[pymethods]
impl ItemStream {
    fn __iter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    fn __next__(&mut self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
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
                    Err(self.unpickler.cut_off(self.data.len()).into())
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
