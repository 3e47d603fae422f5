//! The classes and functions that pickles name, and whether they may be used here.
//!
//! Importing a name and checking a class may run Python code. So both are done outside of a walk: a pickle that names something
//! new is given up, its names are resolved, and it is begun again.

use pyo3::prelude::*;
use pyo3::types::PyType;

use crate::memory::{concat, push};
use crate::pickle::scan::{self, Scanner};
use crate::python::bytes::new_bytes;
use crate::python::classes::Rules;
use crate::python::cpython;
use crate::python::models::{Models, Recipe};
use crate::python::natives::{FoundZones, Natives, read};
use crate::python::walk::Walk;

/// The classes that the pickles of a stream name, and the function that makes their instances.
pub(super) struct Globals {
    pub(super) rules: &'static Rules,
    pub(super) natives: &'static Natives,
    pub(super) zones: FoundZones,
    pub(super) models: Models,
    loads: Option<Py<PyAny>>,
    known: Vec<Global>,
    /// Whether the last pickle was given up at a name that was not known or not checked.
    pub(super) met_unknown: bool,
    /// The exception that a check has raised.
    pub(super) error: Option<PyErr>,
}

struct Global {
    module: Vec<u8>,
    name: Vec<u8>,
    object: Py<PyAny>,
    /// Whether it may be used in this walk. `None` if it was not checked before it.
    is_usable: Option<bool>,
    /// How many pickles in a row have not named it.
    unused: u8,
}

impl Globals {
    /// The most that are known. They are searched one by one, and few streams have more.
    const MAX_KNOWN: usize = 64;
    /// After so many pickles that don't name it, a global is no longer checked before each. If a pickle does name it then,
    /// that pickle is begun again.
    const MAX_UNUSED: u8 = 8;

    pub(super) fn new(rules: &'static Rules, natives: &'static Natives, loads: Option<Py<PyAny>>) -> Self {
        Self {
            rules,
            natives,
            zones: FoundZones::default(),
            models: Models::default(),
            loads,
            known: Vec::new(),
            met_unknown: false,
            error: None,
        }
    }

    /// Checks the classes again: Python code may have changed them since the last item.
    pub(super) fn check_all(&mut self, py: Python<'_>) {
        let looked = self.zones.look(py, self.natives).and_then(|()| self.models.look(py));
        if let Err(error) = looked {
            self.error = Some(error);
        }
        for known in &mut self.known {
            known.is_usable = None;
            if known.unused < Self::MAX_UNUSED {
                known.unused += 1;
                match is_usable(known.object.bind(py), self.rules, self.natives, &mut self.models) {
                    Ok(is_usable) => known.is_usable = Some(is_usable),
                    Err(error) => self.error = Some(error),
                }
            }
        }
    }

    /// The global of this name, if it may be used in this walk.
    pub(super) fn find<'py>(&mut self, py: Python<'py>, module: &[u8], name: &[u8]) -> Option<Bound<'py, PyAny>> {
        let mut known = self.known.iter_mut();
        if let Some(known) = known.find(|known| known.is(module, name)) {
            known.unused = 0;
            if let Some(is_usable) = known.is_usable {
                return is_usable.then(|| known.object.bind(py).clone());
            }
        }
        self.met_unknown = true;
        None
    }

    /// Imports and checks everything that the pickle names, if it was given up because of a name. Returns whether it is worth
    /// another try.
    pub(super) fn resolve_unknown(&mut self, py: Python<'_>, data: &[u8]) -> PyResult<bool> {
        let (true, Some(loads)) = (std::mem::take(&mut self.met_unknown), &self.loads) else {
            return if self.zones.met_unknown() {
                self.zones.learn(py, self.natives)
            } else {
                Ok(self.models.lacked() && self.models.find(py)?)
            };
        };
        let room = Self::MAX_KNOWN - self.known.len();
        let mut names: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let whole = Scanner::new().scan_with(data, |global| {
            let scan::Global::Named { module, name, .. } = global else {
                return Ok(());
            };
            if let Some(known) = self.known.iter_mut().find(|known| known.is(module, name)) {
                // It is checked again from now on.
                known.unused = 0;
            } else if names.len() <= room
                && !is_of_bytes(module, name)
                && !names.iter().any(|found| found.0 == module && found.1 == name)
            {
                push(&mut names, (concat(&[module])?, concat(&[name])?))?;
            }
            Ok(())
        });
        // A pickle that is not whole comes again, or is damaged.
        if !matches!(whole, Ok(Some(_))) || names.len() > room {
            return Ok(false);
        }
        for (module, name) in names {
            let object = load_global(loads.bind(py), 0, &module, &name)?;
            // It may have been imported just now.
            Recipe::get(py)?;
            let is_usable = is_usable(&object, self.rules, self.natives, &mut self.models)?;
            let global = Global {
                module,
                name,
                object: object.unbind(),
                is_usable: None,
                unused: 0,
            };
            push(&mut self.known, global)?;
            if !is_usable {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Global {
    fn is(&self, module: &[u8], name: &[u8]) -> bool {
        self.module == module && self.name == name
    }
}

/// Whether it is one of the two functions by which protocol 0 spells bytes.
fn is_of_bytes(module: &[u8], name: &[u8]) -> bool {
    matches!((module, name), (b"_codecs", b"encode") | (b"__builtin__", b"bytes"))
}

/// Whether it is an ordinary class, a native type, or one of the objects by which pickles make their instances.
fn is_usable(object: &Bound<'_, PyAny>, rules: &Rules, natives: &Natives, models: &mut Models) -> PyResult<bool> {
    if object.is(object.py().get_type::<PyAny>()) || object.is(&rules.reconstructor) {
        return Ok(true);
    }
    if let Some(is_usable) = read::is_usable(natives, object)? {
        return Ok(is_usable);
    }
    if let Some(is_usable) = models.is_usable(object)? {
        return Ok(is_usable);
    }
    match cpython::exact::<PyType>(object) {
        Some(class) => rules.uses_default_pickling(class),
        None => Ok(false),
    }
}

/// Returns the class or function that `loads` finds under a name.
pub(crate) fn load_global<'py>(
    loads: &Bound<'py, PyAny>,
    protocol: u8,
    module: &[u8],
    name: &[u8],
) -> PyResult<Bound<'py, PyAny>> {
    Walk::assert_none();
    // A pickle of nothing but the name, so that the unpickler's own rules apply.
    let pickle = concat(&[b"\x80", &[protocol], b"c", module, b"\n", name, b"\n."])?;
    loads.call1((new_bytes(loads.py(), &pickle)?,))
}
