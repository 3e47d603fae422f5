//! Strings that are used again, as keys of dicts and as names of attributes.

use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::pickle::key_cache::KeyCache;
use crate::pickle::read::{ASCII, Tokens};
use crate::python::cpython::{self, Characters};

/// A [`KeyCache`] of Python's strings.
#[derive(Default)]
pub(super) struct Keys(KeyCache<Py<PyString>>);

impl Keys {
    /// Begins the next pickle.
    pub(super) fn next_pickle(&mut self) {
        self.0.next_pickle();
    }

    /// Takes the next token if it is the key that is expected, and returns its string.
    #[inline(always)]
    pub(super) fn accept_expected<'py>(
        &mut self,
        py: Python<'py>,
        tokens: &mut Tokens<'_>,
    ) -> Option<Bound<'py, PyString>> {
        self.0.accept_expected(tokens).map(|text| text.bind(py).clone())
    }

    /// The string of a line, if it is kept and this pickle does not have it yet.
    #[inline]
    pub(super) fn find<'py>(&mut self, py: Python<'py>, line: &[u8]) -> Option<Bound<'py, PyString>> {
        self.0
            .find(line, |text| equals(text.bind(py), line))
            .map(|text| text.bind(py).clone())
    }

    /// Keeps the string of an ASCII line without escapes.
    #[inline]
    pub(super) fn insert(&mut self, ascii: &[u8], text: &Bound<'_, PyString>) {
        self.0.insert(
            ascii,
            || text.clone().unbind(),
            |known| equals(known.bind(text.py()), ascii),
        );
    }

    /// The interned string that is equal to this one, which CPython uses as an attribute's name.
    #[inline]
    pub(super) fn interned<'py>(&mut self, text: &Bound<'py, PyString>) -> Option<Bound<'py, PyString>> {
        let py = text.py();
        if let Characters::Latin1(ascii) = cpython::characters(text)?
            && let Some(interned) = self.0.interned(ascii, |known| known.is(text))
        {
            if interned.is_none() {
                *interned = Some(cpython::interned(cpython::new_latin1(py, ascii, ASCII)?).unbind());
            }
            return interned.as_ref().map(|name| name.bind(py).clone());
        }
        Some(cpython::interned(text.clone()))
    }
}

#[inline]
fn equals(text: &Bound<'_, PyString>, ascii: &[u8]) -> bool {
    matches!(cpython::characters(text), Some(Characters::Latin1(characters)) if characters == ascii)
}
