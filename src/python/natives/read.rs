//! A type's arguments or state become its instance, as CPython's unpickler does it.
//!
//! Most types are called with what the pickle has for them, once it is sure that no code of a class can run. What they raise is
//! dropped, since `pickle` will raise it again.
//!
//! Dates and dates with times are most of what rows have. They are recognized by the whole of their reduction, and made of it
//! in one step.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDate, PyDateTime, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType, PyTzInfo};

use super::{Native, Natives};
use crate::python::cpython;

/// The size of the longest state, that of a date with a time.
const MAX_STATE: usize = 10;

/// The state of a date, with or without a time.
pub(in crate::python) struct State {
    bytes: [u8; MAX_STATE],
    size: usize,
}

impl State {
    /// The bytes of a str's line. `None` if there are more than any state has, or one is spelled as no pickler does it.
    #[inline]
    pub(in crate::python) fn of_line(mut line: &[u8]) -> Option<Self> {
        let mut state = Self {
            bytes: [0; MAX_STATE],
            size: 0,
        };
        while let Some((&byte, rest)) = line.split_first() {
            let place = state.bytes.get_mut(state.size)?;
            (*place, line) = match (byte, rest) {
                (b'\\', [b'u', b'0', b'0', high, low, rest @ ..]) => {
                    (hexadecimal(*high)? << 4 | hexadecimal(*low)?, rest)
                }
                (b'\\', _) => return None,
                _ => (byte, rest),
            };
            state.size += 1;
        }
        Some(state)
    }

    /// The object with this state. `None` if it has another size, or is none of a date that there is: `pickle` knows what
    /// becomes of it.
    #[inline]
    pub(in crate::python) fn of<'py>(
        &self,
        natives: &Natives,
        native: Native,
        py: Python<'py>,
        zone: Option<&Bound<'py, PyAny>>,
    ) -> Option<Bound<'py, PyAny>> {
        let [high, low, month, day, hour, minute, second, rest @ ..] = self.bytes;
        let year = i32::from(u16::from_be_bytes([high, low]));
        match (native, self.size) {
            (Native::Date, 4) if zone.is_none() => Some(PyDate::new(py, year, month, day).ok()?.into_any()),
            (Native::DateTime, MAX_STATE) => {
                let zone = match zone {
                    Some(zone) if is_zone(natives, zone) && !zone.is_none() => Some(zone.cast::<PyTzInfo>().ok()?),
                    Some(_) => return None,
                    None => None,
                };
                let microsecond = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]);
                let made = PyDateTime::new(py, year, month, day, hour, minute, second, microsecond, zone);
                Some(made.ok()?.into_any())
            }
            _ => None,
        }
    }
}

#[inline]
fn hexadecimal(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Returns what the type returns if it is called with these arguments, as its own pickles do. `is_plain` says whether a value can
/// be hashed without running Python code.
pub(in crate::python) fn called<'py>(
    natives: &Natives,
    native: Native,
    class: &Bound<'py, PyAny>,
    arguments: &Bound<'py, PyTuple>,
    is_plain: impl Fn(&Bound<'py, PyAny>) -> bool,
) -> Option<Bound<'py, PyAny>> {
    let argument = |index| arguments.get_borrowed_item(index).ok();
    if let Some(known) = container(natives, native, arguments) {
        return if known { class.call1(arguments).ok() } else { None };
    }
    let first = argument(0)?;
    let has_state = |size| cpython::exact::<PyBytes>(&first).is_some_and(|state| state.as_bytes().len() == size);
    let known = match (native, arguments.len()) {
        (Native::Date, 1) => has_state(4),
        (Native::DateTime, 1) => has_state(MAX_STATE),
        (Native::DateTime, 2) => has_state(MAX_STATE) && is_zone(natives, &*argument(1)?),
        (Native::Time, 1) => has_state(6),
        (Native::Time, 2) => has_state(6) && is_zone(natives, &*argument(1)?),
        (Native::TimeDelta, 3) => arguments
            .iter_borrowed()
            .all(|part| cpython::exact::<PyInt>(&part).is_some()),
        (Native::TimeZone, 1) => is_delta(natives, &first),
        (Native::TimeZone, 2) => is_delta(natives, &first) && cpython::exact::<PyString>(&*argument(1)?).is_some(),
        (Native::Decimal, 1) => cpython::exact::<PyString>(&first).is_some(),
        (Native::Complex, 2) => arguments
            .iter_borrowed()
            .all(|part| cpython::exact::<PyFloat>(&part).is_some()),
        (Native::Set | Native::FrozenSet, 1) => {
            cpython::exact::<PyList>(&first).is_some_and(|items| items.iter().all(|item| is_plain(&item)))
        }
        _ => false,
    };
    if known { class.call1(arguments).ok() } else { None }
}

/// Whether these are the arguments of a container that is filled later. `None` if the type is another one.
fn container(natives: &Natives, native: Native, arguments: &Bound<'_, PyTuple>) -> Option<bool> {
    let argument = |index| arguments.get_borrowed_item(index).ok();
    match native {
        Native::OrderedDict => Some(arguments.is_empty()),
        Native::DefaultDict => Some(match argument(0) {
            Some(factory) => arguments.len() == 1 && is_factory(natives, &factory),
            None => true,
        }),
        Native::Deque => Some(match (argument(0), argument(1)) {
            (Some(items), Some(most)) => {
                let is_empty = cpython::exact::<PyTuple>(&items).is_some_and(PyTupleMethods::is_empty);
                arguments.len() == 2 && is_empty && cpython::exact::<PyInt>(&most).is_some()
            }
            (first, _) => first.is_none(),
        }),
        _ => None,
    }
}

/// Whether it is a class that a `defaultdict` may call here.
fn is_factory(natives: &Natives, class: &Bound<'_, PyAny>) -> bool {
    natives.factory(class).is_some() || matches!(natives.find(class), Some(Native::Set | Native::FrozenSet))
}

/// Appends an item to what has no type of its own for that in a pickle; `None` if it is another object than a `deque`.
pub(in crate::python) fn append(natives: &Natives, object: &Bound<'_, PyAny>, item: &Bound<'_, PyAny>) -> Option<()> {
    if !natives.is(Native::Deque, object) {
        return None;
    }
    object
        .call_method1(intern!(object.py(), "append"), (item,))
        .ok()
        .map(drop)
}

/// Puts a value under a plain key; `None` if the object is no dict that is filled here.
pub(in crate::python) fn set_item(
    natives: &Natives,
    object: &Bound<'_, PyAny>,
    key: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
) -> Option<()> {
    if !matches!(natives.of(object), Some(Native::DefaultDict | Native::OrderedDict)) {
        return None;
    }
    object.set_item(key, value).ok()
}

/// Whether it is a time zone that calls no Python code.
fn is_zone(natives: &Natives, object: &Bound<'_, PyAny>) -> bool {
    object.is_none() || matches!(natives.of(object), Some(Native::TimeZone | Native::ZoneInfo))
}

fn is_delta(natives: &Natives, object: &Bound<'_, PyAny>) -> bool {
    natives.of(object) == Some(Native::TimeDelta)
}

/// Does what `UUID.__setstate__` does.
pub(in crate::python) fn set_uuid(natives: &Natives, uuid: &Bound<'_, PyAny>, state: &Bound<'_, PyDict>) -> Option<()> {
    let py = uuid.py();
    let own = natives.uuid.as_ref()?;
    let int = state.get_item(&natives.int).ok()??;
    cpython::exact::<PyInt>(&int)?;
    let is_safe = match (state.len(), state.get_item(&natives.is_safe).ok()?) {
        (1, None) => &own.safe[2],
        (2, Some(is_safe)) => match cpython::int(cpython::exact::<PyInt>(&is_safe)?)? {
            0 => &own.safe[0],
            -1 => &own.safe[1],
            _ => return None,
        },
        _ => return None,
    };
    cpython::set_slot(own.int.bind(py), uuid, &int)?;
    cpython::set_slot(own.is_safe.bind(py), uuid, is_safe.bind(py))
}

/// The global that a pickle names, as far as it is one of those by which the types' instances are made.
pub(in crate::python) fn is_usable(natives: &Natives, object: &Bound<'_, PyAny>) -> PyResult<Option<bool>> {
    let py = object.py();
    if object.is(&natives.getattr) || natives.factory(object).is_some() {
        return Ok(Some(true));
    }
    match cpython::exact::<PyType>(object).and_then(|class| natives.find(class)) {
        Some(native) => natives.is_read_here(py, native).map(Some),
        None => Ok(None),
    }
}

/// Returns what `getattr` returns for the function that makes time zones.
pub(in crate::python) fn unpickle_zone<'py>(
    natives: &Natives,
    arguments: &Bound<'py, PyTuple>,
) -> Option<Bound<'py, PyAny>> {
    let class = arguments.get_borrowed_item(0).ok()?;
    let name = arguments.get_borrowed_item(1).ok()?;
    let is_it = arguments.len() == 2
        && natives.find(&class) == Some(Native::ZoneInfo)
        && *cpython::exact::<PyString>(&name)? == "_unpickle";
    let unpickle = natives.unpickle_zone.as_ref().filter(|_| is_it)?;
    Some(unpickle.bind(arguments.py()).clone())
}
