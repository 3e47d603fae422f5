//! The way back: pickles of protocol 0 become the Python objects that CPython's unpickler makes of them.
//!
//! - `build`: the stack machine that executes the tokens of a pickle.
//! - `keys`: strings that are used again, as keys of dicts and as names of attributes.
//! - `globals`: the classes and functions that pickles name, and whether they may be used here.

mod build;
mod globals;
mod keys;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

pub(super) use self::globals::load_global;

use self::build::{Buffers, Builder};
use self::globals::Globals;
use self::keys::Keys;
use super::classes::Rules;
use super::natives::Natives;

/// Unpickles items, one after the other.
pub(crate) struct Loader {
    keys: Keys,
    globals: Globals,
    /// `_codecs.encode`, a call of which is how protocol 0 spells bytes.
    encode: Py<PyAny>,
    buffers: Buffers,
}

impl Loader {
    /// `loads` unpickles everything else. It is also asked for the classes that pickles name, so that both find the same.
    /// Without it, only plain types are unpickled here.
    pub(crate) fn new(py: Python<'_>, loads: Option<Py<PyAny>>) -> PyResult<Self> {
        static ENCODE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let encode = ENCODE.get_or_try_init(py, || py.import("_codecs")?.getattr("encode").map(Bound::unbind))?;
        Ok(Self {
            keys: Keys::default(),
            // Other threads may change a class under the walk where there is no GIL.
            globals: Globals::new(
                Rules::get(py)?,
                Natives::get(py)?,
                loads.filter(|_| !cfg!(Py_GIL_DISABLED)),
            ),
            encode: encode.clone_ref(py),
            buffers: Buffers::default(),
        })
    }

    /// Unpickles the item whose pickle begins at `data`'s first byte. Returns it and the size of the pickle in bytes, or `None`
    /// if the pickle is unusual, damaged or incomplete: then `loads` has to read it, and raises its errors.
    ///
    /// Fails if importing a name of the pickle fails, or if a signal handler raises an exception.
    pub(crate) fn load<'py>(&mut self, py: Python<'py>, data: &[u8]) -> PyResult<Option<(Bound<'py, PyAny>, usize)>> {
        loop {
            if let Some(found) = self.build(py, data)? {
                return Ok(Some(found));
            }
            // Runs Python code, which must not see a half-built object: so the build has ended.
            if !self.globals.resolve_unknown(py, data)? {
                return Ok(None);
            }
        }
    }

    /// Unpickles items of plain types from the beginning of `data`, and executes nothing. Stops at the first item that is not
    /// plain or not whole. Returns the size in bytes of the items before it. Instances of the classes that [`Self::load`] has
    /// met count as plain.
    pub(crate) fn load_plain<'py>(
        &mut self,
        py: Python<'py>,
        data: &[u8],
        mut take: impl FnMut(Bound<'py, PyAny>) -> PyResult<()>,
    ) -> PyResult<usize> {
        let mut done = 0;
        let mut build = self.begin(py);
        let result = loop {
            match build.item(&data[done..]).and_then(|found| match found {
                Some((item, size)) => take(item).map(|()| Some(size)),
                None => Ok(None),
            }) {
                Ok(Some(size)) => done += size,
                Ok(None) => break Ok(done),
                Err(error) => break Err(error),
            }
        };
        build.end();
        self.globals.met_unknown = false;
        result
    }

    fn build<'py>(&mut self, py: Python<'py>, data: &[u8]) -> PyResult<Option<(Bound<'py, PyAny>, usize)>> {
        let mut build = self.begin(py);
        let found = build.item(data);
        build.end();
        found
    }

    fn begin<'py>(&mut self, py: Python<'py>) -> Builder<'_, 'py> {
        Builder::new(
            py,
            &mut self.buffers,
            &mut self.keys,
            &mut self.globals,
            self.encode.bind(py),
        )
    }
}
