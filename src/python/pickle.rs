//! Pickling items: plain ones and instances of ordinary classes here, all others by CPython's own `pickle`.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

use super::bytes::new_bytes;
use super::dump::Dumper;
use super::load::{Loader, load_global};
use super::reduce::CPickler;
use crate::error::{Error, Result};
use crate::memory::concat;
use crate::pickle::scan::{Global, Scanner};

/// Off only in tests, which test both ways.
pub(super) static FAST_PATHS: AtomicBool = AtomicBool::new(true);

const CUT_OFF: Error = Error::pickle("it ends too early");

/// The error of a stream of this many bytes that ends in the middle of a pickle.
pub(super) fn cut_off(size: usize) -> Error {
    CUT_OFF.moved_by(size as u64)
}

const NOT_A_NAME: Error = Error::pickle("a name of several lines");

/// Writes items as pickles.
pub(super) struct Pickler {
    pub(super) dumper: Dumper,
    others: CPickler,
}

impl Pickler {
    pub(super) fn new(py: Python<'_>) -> PyResult<Self> {
        Ok(Self {
            dumper: Dumper::new(py, pickle_function(py, intern!(py, "dumps"))?)?,
            others: CPickler::default(),
        })
    }

    /// Appends the item's pickle to `output`, which stays as it is if there is an error.
    pub(super) fn write(&mut self, item: &Bound<'_, PyAny>, output: &mut Vec<u8>) -> PyResult<()> {
        if fast_paths() && self.dumper.dump(item, output)? {
            return Ok(());
        }
        self.others.write(item, output)
    }

    /// Appends the pickle of a single item.
    pub(super) fn write_one(item: &Bound<'_, PyAny>, output: &mut Vec<u8>) -> PyResult<()> {
        let py = item.py();
        let mut pickler = Self::new(py)?;
        pickler.write(item, output)?;
        pickler.others.leave(py);
        Ok(())
    }
}

/// Reads items from a stream of pickles.
pub(super) struct Unpickler {
    pub(super) loader: Loader,
    scanner: Scanner,
    loads: Py<PyAny>,
    /// Whether the data ended before the next item did at the last call. Then only the scanner looks at it, which goes on where
    /// it stopped.
    incomplete: bool,
    /// How many bytes of the stream the items so far take.
    position: u64,
}

impl Unpickler {
    /// `loads`, by default `pickle.loads`, reads items that are not plain, and finds the classes that pickles name.
    pub(super) fn new(py: Python<'_>, loads: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let loads = loads_or_default(py, loads)?;
        Ok(Self {
            loader: Loader::new(py, Some(loads.clone_ref(py)))?,
            scanner: Scanner::new(),
            loads,
            incomplete: false,
            position: 0,
        })
    }

    /// Takes plain items from the beginning of `data`, up to the first that is not plain or not whole. Executes nothing. Returns
    /// the size of the items in bytes.
    pub(super) fn read_plain<'py>(
        &mut self,
        py: Python<'py>,
        data: &[u8],
        take: impl FnMut(Bound<'py, PyAny>) -> PyResult<()>,
    ) -> PyResult<usize> {
        if !fast_paths() {
            return Ok(0);
        }
        let size = self.loader.load_plain(py, data, take)?;
        self.position += size as u64;
        Ok(size)
    }

    /// The error of a stream that ends after `rest` further bytes, in the middle of an item.
    pub(super) fn cut_off(&self, rest: usize) -> Error {
        cut_off(rest).moved_by(self.position)
    }

    /// The first item in `data` and its size, or `None` if `data` is only the beginning of it. Then `data` must have
    /// grown at the next call.
    pub(super) fn read<'py>(&mut self, py: Python<'py>, data: &[u8]) -> PyResult<Option<(Bound<'py, PyAny>, usize)>> {
        let found = self.read_next(py, data)?;
        if let Some((_, size)) = &found {
            self.position += *size as u64;
        }
        Ok(found)
    }

    fn read_next<'py>(&mut self, py: Python<'py>, data: &[u8]) -> PyResult<Option<(Bound<'py, PyAny>, usize)>> {
        if !self.incomplete
            && fast_paths()
            && let Some(found) = self.loader.load(py, data)?
        {
            return Ok(Some(found));
        }
        let scanned = self.scanner.scan(data);
        let Some(size) = scanned.map_err(|error| error.moved_by(self.position))? else {
            self.incomplete = true;
            return Ok(None);
        };
        self.scanner.reset();
        let pickle = &data[..size];
        if std::mem::take(&mut self.incomplete)
            && fast_paths()
            && let Some(found) = self.loader.load(py, pickle)?
        {
            return Ok(Some(found));
        }
        let item = self.loads.bind(py).call1((new_bytes(py, pickle)?,))?;
        Ok(Some((item, size)))
    }
}

/// Checks that a stream consists of whole pickles, without executing any.
#[derive(Default)]
pub(super) struct Checker {
    scanner: Scanner,
    /// The classes and functions that the pickles name, with their protocols.
    globals: HashSet<(u8, Vec<u8>, Vec<u8>)>,
    /// How many bytes of the stream were whole pickles.
    position: u64,
}

impl Checker {
    /// Drops all whole pickles from the beginning of `data`.
    pub(super) fn check(&mut self, data: &mut Vec<u8>) -> Result<()> {
        let mut start = 0;
        let globals = &mut self.globals;
        loop {
            let scanned = self.scanner.scan_with(&data[start..], |global| {
                if let Global::Named { protocol, module, name } = global {
                    globals.try_reserve(1).map_err(|_| Error::Memory)?;
                    globals.insert((protocol, concat(&[module])?, concat(&[name])?));
                }
                Ok(())
            });
            let Some(size) = scanned.map_err(|error| error.moved_by(self.position + start as u64))? else {
                break;
            };
            self.scanner.reset();
            start += size;
        }
        data.drain(..start);
        self.position += start as u64;
        Ok(())
    }

    /// Fails if the stream ends in `rest`, which is no whole pickle.
    pub(super) fn finish(&self, rest: &[u8]) -> Result<()> {
        if rest.is_empty() {
            Ok(())
        } else {
            Err(cut_off(rest.len()).moved_by(self.position))
        }
    }

    /// Imports the classes and functions that the pickles name, as unpickling would.
    pub(super) fn import_globals(&self, py: Python<'_>, loads: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let loads = loads_or_default(py, loads)?;
        for (protocol, module, name) in &self.globals {
            // Only later protocols have such names. The text after the newline would be executed here.
            if module.contains(&b'\n') || name.contains(&b'\n') {
                return Err(NOT_A_NAME.into());
            }
            load_global(loads.bind(py), *protocol, module, name)?;
        }
        Ok(())
    }
}

fn fast_paths() -> bool {
    FAST_PATHS.load(Ordering::Relaxed)
}

fn loads_or_default(py: Python<'_>, loads: Option<&Bound<'_, PyAny>>) -> PyResult<Py<PyAny>> {
    match loads {
        Some(loads) => Ok(loads.clone().unbind()),
        None => pickle_function(py, intern!(py, "loads")),
    }
}

fn pickle_function(py: Python<'_>, name: &Bound<'_, PyString>) -> PyResult<Py<PyAny>> {
    static PICKLE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let pickle = PICKLE.get_or_try_init(py, || py.import("pickle").map(Bound::unbind))?;
    Ok(pickle.bind(py).getattr(name)?.unbind())
}
