//! Time zones of `zoneinfo`, which only Python code takes apart and finds: so that is done before a walk.

use pyo3::exceptions::{PyKeyError, PyOSError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString, PyTuple};

use super::Natives;
use crate::memory::push;
use crate::python::cpython;
use crate::python::walk::Walk;

/// The most zones that are known. They are looked through one by one, and few streams have more.
const MOST: usize = 16;

/// The zones that there were in the items, and what `pickle` makes of them. A zone never changes.
#[derive(Default)]
#[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "the walk needs the GIL"))]
pub(in crate::python) struct ReducedZones {
    known: Vec<ReducedZone>,
    /// The zones that the walk met without knowing them. Then it was in vain.
    unknown: Vec<Py<PyAny>>,
}

/// What a zone is made of.
#[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "the walk needs the GIL"))]
pub(in crate::python) struct ReducedZone {
    zone: Py<PyAny>,
    pub(super) key: Py<PyString>,
    pub(super) from_cache: i64,
}

#[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "the walk needs the GIL"))]
impl ReducedZones {
    /// Forgets what the last walk met.
    pub(super) fn look(&mut self) {
        self.unknown.clear();
    }

    /// What the zone is made of. `Some(None)` if that has to be found out after the walk, `None` if there are too many.
    pub(super) fn find(&mut self, zone: &Bound<'_, PyAny>) -> Option<Option<&ReducedZone>> {
        if let Some(index) = self.known.iter().position(|known| known.zone.is(zone)) {
            return Some(self.known.get(index));
        }
        if !self.unknown.iter().any(|unknown| unknown.is(zone)) {
            if self.known.len() + self.unknown.len() >= MOST {
                return None;
            }
            push(&mut self.unknown, zone.clone().unbind()).ok()?;
        }
        Some(None)
    }

    pub(super) fn met_unknown(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// Takes apart all zones that the walk noted. `false` if one is for `pickle`, as one from a file is.
    pub(super) fn learn(&mut self, py: Python<'_>, natives: &Natives) -> PyResult<bool> {
        Walk::assert_none();
        for zone in std::mem::take(&mut self.unknown) {
            // What is raised here, `pickle` will raise.
            let Ok(reduction) = zone.bind(py).call_method0(intern!(py, "__reduce__")) else {
                return Ok(false);
            };
            let Some((key, from_cache)) = parts(natives, &reduction) else {
                return Ok(false);
            };
            let key = key.unbind();
            push(&mut self.known, ReducedZone { zone, key, from_cache })?;
        }
        Ok(true)
    }
}

/// The key, and whether the zone is the one that all share.
fn parts<'py>(natives: &Natives, reduction: &Bound<'py, PyAny>) -> Option<(Bound<'py, PyString>, i64)> {
    let reduction = cpython::exact::<PyTuple>(reduction).filter(|parts| parts.len() == 2)?;
    let function = reduction.get_item(0).ok()?;
    let arguments = reduction.get_item(1).ok()?;
    let unpickle = natives.unpickle_zone.as_ref()?.bind(reduction.py());
    (function.eq(unpickle).ok()?).then_some(())?;
    arguments_of_zone(cpython::exact::<PyTuple>(&arguments)?)
}

/// The arguments of `ZoneInfo._unpickle`.
fn arguments_of_zone<'py>(arguments: &Bound<'py, PyTuple>) -> Option<(Bound<'py, PyString>, i64)> {
    let key = arguments.get_item(0).ok()?.cast_into_exact::<PyString>().ok()?;
    let from_cache = arguments.get_item(1).ok()?;
    let from_cache = cpython::int(cpython::exact::<PyInt>(&from_cache)?)?;
    (arguments.len() == 2 && matches!(from_cache, 0 | 1)).then_some((key, from_cache))
}

/// The zones that the pickles of a stream name, as `ZoneInfo` finds them now.
#[derive(Default)]
pub(in crate::python) struct FoundZones {
    known: Vec<FoundZone>,
    /// The keys that the walk met without knowing their zones. Then it was in vain.
    unknown: Vec<Py<PyString>>,
}

struct FoundZone {
    key: Py<PyString>,
    /// `None` if it was not looked for before this walk.
    zone: Option<Py<PyAny>>,
    /// In how many items before this one it was not named.
    unused: u8,
}

impl FoundZones {
    /// A zone that was not met within so many items is no longer looked for before each.
    const UNUSED: u8 = 8;

    /// Looks again for the zones that were met lately: the cache of all zones may have been cleared.
    pub(in crate::python) fn look(&mut self, py: Python<'_>, natives: &Natives) -> PyResult<()> {
        self.unknown.clear();
        for known in &mut self.known {
            known.zone = None;
            if known.unused < Self::UNUSED {
                known.unused += 1;
                known.zone = match find(natives, known.key.bind(py)) {
                    Ok(zone) => Some(zone),
                    // Only an item that names it fails. Any other error may be what a signal's handler has raised.
                    Err(error) if is_about_zone(py, &error) => None,
                    Err(error) => return Err(error),
                };
            }
        }
        Ok(())
    }

    /// What `ZoneInfo._unpickle` returns, or None in its place if that has to be found out after the walk. No `None` if there
    /// are too many, or if it makes a new zone each time.
    pub(in crate::python) fn find<'py>(&mut self, arguments: &Bound<'py, PyTuple>) -> Option<Bound<'py, PyAny>> {
        let py = arguments.py();
        let (key, from_cache) = arguments_of_zone(arguments)?;
        if from_cache == 0 {
            return None;
        }
        let same = |known: &Py<PyString>| known.bind(py).as_any().eq(&key).unwrap_or(false);
        if let Some(known) = self.known.iter_mut().find(|known| same(&known.key)) {
            known.unused = 0;
            if let Some(zone) = &known.zone {
                return Some(zone.bind(py).clone());
            }
        }
        if !self.unknown.iter().any(same) {
            if self.known.len() + self.unknown.len() >= 2 * MOST {
                return None;
            }
            push(&mut self.unknown, key.unbind()).ok()?;
        }
        Some(py.None().into_bound(py))
    }

    pub(in crate::python) fn met_unknown(&self) -> bool {
        !self.unknown.is_empty()
    }

    /// Finds all zones that the walk noted. `false` if one is for `pickle`.
    pub(in crate::python) fn learn(&mut self, py: Python<'_>, natives: &Natives) -> PyResult<bool> {
        for key in std::mem::take(&mut self.unknown) {
            let bound = key.bind(py);
            if self
                .known
                .iter()
                .any(|known| known.key.bind(py).as_any().eq(bound).unwrap_or(false))
            {
                // It is looked for from now on, before the walk.
                find(natives, bound)?;
                continue;
            }
            if self.known.len() == MOST {
                return Ok(false);
            }
            // What is raised here, `pickle` would raise; or a signal's handler has raised it.
            find(natives, bound)?;
            push(
                &mut self.known,
                FoundZone {
                    key,
                    zone: None,
                    unused: 0,
                },
            )?;
        }
        Ok(true)
    }
}

/// Whether there is no such zone, or its file can't be read.
fn is_about_zone(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyKeyError>(py)
        || error.is_instance_of::<PyOSError>(py)
        || error.is_instance_of::<PyValueError>(py)
}

fn find(natives: &Natives, key: &Bound<'_, PyString>) -> PyResult<Py<PyAny>> {
    Walk::assert_none();
    let py = key.py();
    match &natives.unpickle_zone {
        Some(unpickle) => Ok(unpickle.bind(py).call1((key, 1))?.unbind()),
        None => Ok(py.None()),
    }
}
