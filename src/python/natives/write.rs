//! An instance becomes a call of its type, as CPython's pickler spells it in protocol 0.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyComplex, PyComplexMethods, PyDate, PyDateAccess, PyDateTime, PyDelta, PyDeltaAccess, PyDict, PyInt, PyString,
    PyTime, PyTimeAccess, PyTuple, PyTzInfoAccess,
};

use super::{FACTORIES, Native, TYPES};
use crate::pickle::memo::Entry;
use crate::python::cpython::{self, Characters};
use crate::python::dump::walk::{DEEPEST, IN_PROGRESS, Walk, met_once, name};

impl<'py> Walk<'_, 'py> {
    /// Saves an instance of a type that is written here; `None` if the C pickler has to.
    #[inline(never)]
    pub(in crate::python) fn save_native(
        &mut self,
        native: Native,
        object: &Bound<'py, PyAny>,
        once: bool,
        depth: usize,
    ) -> Option<()> {
        self.checks.allow(native)?;
        match self.lookup(object, once) {
            // A set that holds itself is saved in a form of its own.
            Entry::Number(IN_PROGRESS) => return None,
            Entry::Number(number) => return self.get(number),
            Entry::Vacant(_) => {}
        }
        match native {
            Native::DateTime => self.save_datetime(object)?,
            Native::Date => {
                let date = object.cast::<PyDate>().ok()?;
                self.open(native);
                self.save_state(&date_state(date))?;
            }
            Native::Time => self.save_time(object)?,
            Native::TimeDelta => {
                let delta = object.cast::<PyDelta>().ok()?;
                self.open(native);
                for part in [delta.get_days(), delta.get_seconds(), delta.get_microseconds()] {
                    self.writer.int(part.into());
                }
            }
            Native::TimeZone => {
                // Its offset and name, which it keeps.
                let parts = object.call_method0(intern!(object.py(), "__getinitargs__")).ok()?;
                self.open(native);
                for part in cpython::exact::<PyTuple>(&parts)?.iter_borrowed() {
                    self.save(&part, false, depth + 1)?;
                }
            }
            Native::ZoneInfo => self.save_zone(object)?,
            Native::Decimal => {
                self.open(native);
                self.save_new_text(&cpython::text_of(object)?)?;
            }
            Native::Uuid => return self.save_uuid(object, once),
            Native::Set | Native::FrozenSet => return self.save_set(native, object, once, depth),
            Native::DefaultDict => return self.save_default_dict(object, once, depth),
            Native::OrderedDict => return self.save_ordered_dict(object, once, depth),
            Native::Deque => return self.save_deque(object, once, depth),
            Native::Complex => {
                let complex = object.cast::<PyComplex>().ok()?;
                self.open(native);
                self.writer.float(complex.real());
                self.writer.float(complex.imag());
            }
        }
        self.close(object, once)
    }

    /// Begins a call of the type.
    #[inline]
    fn open(&mut self, native: Native) {
        self.name_type(native);
        self.writer.mark();
    }

    #[inline]
    fn name_type(&mut self, native: Native) {
        let index = native as usize;
        let (_, _, module, own) = TYPES[index];
        let number = &mut self.checks.numbers[index];
        name(&mut self.writer, number, module.as_bytes(), own.as_bytes());
    }

    /// Ends a call, of which the result is the object.
    #[inline]
    fn close(&mut self, object: &Bound<'py, PyAny>, once: bool) -> Option<()> {
        self.writer.tuple();
        self.writer.put();
        self.writer.reduce();
        self.put_result(object, once)
    }

    /// Puts an object into the memo behind what it is made of.
    #[inline]
    pub(in crate::python) fn put_result(&mut self, object: &Bound<'py, PyAny>, once: bool) -> Option<()> {
        match self.lookup(object, once) {
            Entry::Vacant(vacant) => self.put(vacant, object, once),
            Entry::Number(_) => None,
        }
    }

    /// Saves bytes of two or more that were made just now.
    #[inline]
    fn save_state(&mut self, state: &[u8]) -> Option<()> {
        name(&mut self.writer, &mut self.encode, b"_codecs", b"encode");
        self.writer.mark();
        self.writer.latin1(state);
        self.writer.put();
        self.save_str(self.latin1, false)?;
        self.writer.tuple();
        self.writer.put();
        self.writer.reduce();
        self.writer.put();
        Some(())
    }

    /// Saves a str that was made just now, unless CPython has only one of it.
    fn save_new_text(&mut self, text: &Bound<'py, PyString>) -> Option<()> {
        let Characters::Latin1(characters) = cpython::characters(text)? else {
            return None;
        };
        if characters.len() <= 1 && cpython::singleton(text.py(), characters)?.is(text) {
            return self.save_str(text, false);
        }
        self.writer.latin1(characters);
        self.writer.put();
        Some(())
    }

    /// One with `fold=1` is pickled in a later protocol.
    fn save_datetime(&mut self, object: &Bound<'py, PyAny>) -> Option<()> {
        let moment = object.cast::<PyDateTime>().ok().filter(|moment| !moment.get_fold())?;
        let [year, century, month, day] = date_state(moment);
        let [hour, minute, second, high, middle, low] = time_state(moment);
        self.open(Native::DateTime);
        self.save_state(&[year, century, month, day, hour, minute, second, high, middle, low])?;
        match moment.get_tzinfo() {
            Some(zone) => self.save(&zone, false, 1),
            None => Some(()),
        }
    }

    fn save_time(&mut self, object: &Bound<'py, PyAny>) -> Option<()> {
        let time = object.cast::<PyTime>().ok().filter(|time| !time.get_fold())?;
        self.open(Native::Time);
        self.save_state(&time_state(time))?;
        match time.get_tzinfo() {
            Some(zone) => self.save(&zone, false, 1),
            None => Some(()),
        }
    }

    /// A zone is made by a method of its class, which `pickle` spells as `getattr(ZoneInfo, '_unpickle')`.
    fn save_zone(&mut self, zone: &Bound<'py, PyAny>) -> Option<()> {
        let py = zone.py();
        let Some(parts) = self.checks.zones.find(zone)? else {
            // What is written is not right, and not kept.
            return Some(());
        };
        let (key, from_cache) = (parts.key.clone_ref(py), parts.from_cache);
        name(&mut self.writer, &mut self.getattr, b"__builtin__", b"getattr");
        self.writer.mark();
        self.name_type(Native::ZoneInfo);
        self.writer.latin1(b"_unpickle");
        self.writer.put();
        self.writer.tuple();
        self.writer.put();
        self.writer.reduce();
        self.writer.put();
        self.writer.mark();
        self.save_str(key.bind(py), false)?;
        self.writer.int(from_cache);
        Some(())
    }

    /// An instance of a class in Python, with a state of its own.
    fn save_uuid(&mut self, uuid: &Bound<'py, PyAny>, once: bool) -> Option<()> {
        let py = uuid.py();
        let natives = self.checks.natives;
        let own = natives.uuid.as_ref()?;
        let int = cpython::slot(own.int.bind(py), uuid)?;
        let is_safe = cpython::slot(own.is_safe.bind(py), uuid)?;
        let is_safe = own.safe.iter().position(|member| member.is(&is_safe))?;
        self.open_instance();
        self.name_type(Native::Uuid);
        self.close_instance();
        self.put_result(uuid, once)?;
        self.writer.dict();
        self.writer.put();
        self.save_str(natives.int.bind(py), false)?;
        self.save_int(cpython::exact::<PyInt>(&int)?)?;
        self.writer.set_item();
        if let Some(number) = [Some(0), Some(-1), None][is_safe] {
            self.save_str(natives.is_safe.bind(py), false)?;
            self.writer.int(number);
            self.writer.set_item();
        }
        self.writer.build();
        Some(())
    }

    /// A set is made of a list.
    fn save_set(&mut self, native: Native, set: &Bound<'py, PyAny>, once: bool, depth: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        let address = set.as_ptr() as usize;
        if let (Entry::Vacant(vacant), false) = (self.lookup(set, once), once) {
            self.memo.put(vacant, address, IN_PROGRESS).ok()?;
        }
        self.open(native);
        self.writer.list();
        self.writer.put();
        for member in set.try_iter().ok()? {
            let member = member.ok()?;
            self.save(&member, met_once(&member), depth + 1)?;
            self.writer.append();
        }
        self.writer.tuple();
        self.writer.put();
        self.writer.reduce();
        let number = self.writer.put();
        if !once {
            self.memo.renumber(address, number);
        }
        Some(())
    }

    /// A dict that is made empty and then filled, as the two below are.
    fn save_default_dict(&mut self, dict: &Bound<'py, PyAny>, once: bool, depth: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        let natives = self.checks.natives;
        let factory = dict.getattr(&natives.default_factory).ok()?;
        self.name_type(Native::DefaultDict);
        self.writer.mark();
        if !factory.is_none() {
            self.save_factory(&factory)?;
        }
        self.writer.tuple();
        if !factory.is_none() {
            self.writer.put();
        }
        self.writer.reduce();
        self.put_result(dict, once)?;
        let dict = dict.cast::<PyDict>().ok()?;
        let own_keys = !cpython::shares_keys(dict);
        let mut position = 0;
        while let Some((key, value)) = cpython::next_item(dict, &mut position) {
            self.save(&key, own_keys && met_once(&key), depth + 1)?;
            self.save(&value, met_once(&value), depth + 1)?;
            self.writer.set_item();
        }
        Some(())
    }

    fn save_factory(&mut self, class: &Bound<'py, PyAny>) -> Option<()> {
        let natives = self.checks.natives;
        if let Some(place) = natives.factory(class) {
            let number = &mut self.checks.factory_numbers[place];
            name(&mut self.writer, number, b"__builtin__", FACTORIES[place].1.as_bytes());
            return Some(());
        }
        let native = natives
            .find(class)
            .filter(|native| matches!(native, Native::Set | Native::FrozenSet))?;
        self.checks.allow(native)?;
        self.name_type(native);
        Some(())
    }

    /// Its order is not that in which the dict has its items. To find the next key is to look up the one before, which may run
    /// Python code of keys that are no texts or ints.
    fn save_ordered_dict(&mut self, object: &Bound<'py, PyAny>, once: bool, depth: usize) -> Option<()> {
        let dict = object.cast::<PyDict>().ok()?;
        let are_plain = cpython::all_items(dict, |key, _| {
            cpython::exact::<PyString>(key).is_some() || cpython::exact::<PyInt>(key).is_some()
        });
        if depth > DEEPEST || !are_plain || !cpython::attributes(object)?.is_empty() {
            return None;
        }
        self.name_type(Native::OrderedDict);
        self.writer.mark();
        self.writer.tuple();
        self.writer.reduce();
        self.put_result(object, once)?;
        for key in object.try_iter().ok()? {
            let key = key.ok()?;
            let value = dict.get_item(&key).ok()??;
            self.save(&key, false, depth + 1)?;
            self.save(&value, met_once(&value), depth + 1)?;
            self.writer.set_item();
        }
        Some(())
    }

    fn save_deque(&mut self, deque: &Bound<'py, PyAny>, once: bool, depth: usize) -> Option<()> {
        if depth > DEEPEST {
            return None;
        }
        let most = deque.getattr(intern!(deque.py(), "maxlen")).ok()?;
        self.name_type(Native::Deque);
        self.writer.mark();
        if most.is_none() {
            self.writer.tuple();
        } else {
            self.writer.mark();
            self.writer.tuple();
            self.save_int(cpython::exact::<PyInt>(&most)?)?;
            self.writer.tuple();
            self.writer.put();
        }
        self.writer.reduce();
        self.put_result(deque, once)?;
        for item in deque.try_iter().ok()? {
            let item = item.ok()?;
            self.save(&item, met_once(&item), depth + 1)?;
            self.writer.append();
        }
        Some(())
    }
}

/// What `__reduce__` says of a date.
#[inline]
fn date_state(date: &impl PyDateAccess) -> [u8; 4] {
    let [high, low] = (date.get_year() as u16).to_be_bytes();
    [high, low, date.get_month(), date.get_day()]
}

/// What `__reduce__` says of a time of day.
#[inline]
fn time_state(time: &impl PyTimeAccess) -> [u8; 6] {
    let [_, high, middle, low] = time.get_microsecond().to_be_bytes();
    [time.get_hour(), time.get_minute(), time.get_second(), high, middle, low]
}
