//! The walk over Python's objects: an item becomes the pickle that CPython's C pickler makes of it, byte for byte.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyType};

use super::classes::Rules;
use super::cpython;
use super::models::{self, Models};
use super::natives::{Checks, Natives};
use super::walk::Walk;
use crate::memory::{concat, push};
use crate::pickle::memo::Memo;
use crate::pickle::read::{Token, Tokens};

/// Pickles items, one after the other.
pub(crate) struct Dumper {
    #[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "the walk needs the GIL"))]
    memo: Memo,
    /// The interned string: the C pickler's own, which shares its memo number with the user's.
    #[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "the walk needs the GIL"))]
    latin1: Py<PyString>,
    classes: Classes,
    checks: Checks,
    models: Models,
}

impl Dumper {
    /// `dumps` is `pickle`'s own, which is asked how it spells a class.
    pub(crate) fn new(py: Python<'_>, dumps: Py<PyAny>) -> PyResult<Self> {
        Ok(Self {
            memo: Memo::default(),
            latin1: intern!(py, "latin1").clone().unbind(),
            classes: Classes::new(Rules::get(py)?, dumps),
            checks: Checks::new(Natives::get(py)?),
            models: Models::default(),
        })
    }

    /// Writes one pickle behind what `out` holds. `false` if the item is not made of plain types, native types and instances of
    /// ordinary classes alone, or is unusual in another way: then `out` is what it was, and the item is one for
    /// `pickle.dumps`, as are its errors. An error here is not the item's: it is what a signal's handler has raised, as
    /// to learn of classes may run Python code.
    pub(crate) fn dump(&mut self, item: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
        let before = out.len();
        loop {
            self.classes.look(item)?;
            self.checks.look(item.py())?;
            self.models.look(item.py())?;
            let done = self.walk(item, out).is_some();
            if done && self.classes.unknown.is_empty() && self.checks.met_all() {
                return Ok(true);
            }
            out.truncate(before);
            // What the types were, does not say what stopped the walk: a model may have.
            let again = match self.checks.learn(item.py())? {
                Some(false) => false,
                learned => self.learn_models(item.py())?.unwrap_or(done || learned.is_some()),
            };
            if !(again && self.classes.learn(item.py())?) {
                return Ok(false);
            }
        }
    }

    /// Finds out about the models that the walk has lacked, as [`Checks::learn`] does of types.
    #[cfg(not(Py_GIL_DISABLED))]
    fn learn_models(&mut self, py: Python<'_>) -> PyResult<Option<bool>> {
        self.models.learn(py, &mut self.classes.unknown)
    }

    #[cfg(Py_GIL_DISABLED)]
    fn learn_models(&mut self, _py: Python<'_>) -> PyResult<Option<bool>> {
        Ok(None)
    }

    /// Other threads may change any list or dict under the walk.
    #[cfg(Py_GIL_DISABLED)]
    fn walk(&mut self, _item: &Bound<'_, PyAny>, _out: &mut Vec<u8>) -> Option<()> {
        None
    }

    #[cfg(not(Py_GIL_DISABLED))]
    fn walk(&mut self, item: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> Option<()> {
        let _walk = Walk::new(item.py());
        // Where memory is short, `pickle` may have some yet; if not, the error is its own.
        self.memo.clear().ok()?;
        let mut walk = walk::Walk::new(
            &mut self.memo,
            out,
            self.latin1.bind(item.py()),
            &mut self.classes,
            &mut self.checks,
            &mut self.models,
        );
        walk.save(item, false, 0)?;
        walk.stop()
    }
}

/// The classes of which there were instances in the stream.
#[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "the walk needs the GIL"))]
struct Classes {
    rules: &'static Rules,
    dumps: Py<PyAny>,
    known: Vec<Class>,
    /// The classes that the walk met without knowing whether they are ordinary. Then it was in vain.
    unknown: Vec<Py<PyType>>,
}

struct Class {
    class: Py<PyType>,
    /// `None` if its instances are for `pickle`.
    spelling: Option<Spelling>,
    /// Whether the spelling holds, as was found before this pickle. `None` if it was not looked at.
    holds: Option<bool>,
    /// In how many items before this one there was no instance, apart from those that are the item.
    unused: u8,
    /// Its memo number, once the pickle has named it.
    number: Option<u32>,
}

/// How `pickle` spells a class, and what that rests on.
struct Spelling {
    module: Vec<u8>,
    name: Vec<u8>,
    module_attribute: Py<PyString>,
    qualified_name: Py<PyString>,
}

#[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "the walk needs the GIL"))]
impl Classes {
    /// They are looked through one by one, and few streams have more.
    const MOST: usize = 64;
    /// A class that was not met within so many items is no longer looked at before each. If it is met after all, that
    /// pickle is begun anew.
    const UNUSED: u8 = 8;

    fn new(rules: &'static Rules, dumps: Py<PyAny>) -> Self {
        Self {
            rules,
            dumps,
            known: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// Looks at the classes that the item may hold instances of. Anything may have been changed between two items, or in what
    /// ran before this walk.
    fn look(&mut self, item: &Bound<'_, PyAny>) -> PyResult<()> {
        let own = cpython::heap_type(item);
        self.unknown.clear();
        for known in &mut self.known {
            known.number = None;
            known.holds = None;
            let expected = known.unused < Self::UNUSED;
            known.unused += u8::from(expected);
            if let Some(spelling) = &known.spelling
                && (expected || own.as_ref().is_some_and(|own| known.class.is(own)))
            {
                known.holds = Some(spelling.holds_for(known.class.bind(item.py()), self.rules)?);
            }
        }
        Ok(())
    }

    /// The memo number of an instance's class, if it has one yet, and how it is spelled. `Some(None)` if that has to be found
    /// out after the walk. `None` if the instance is one for `pickle`.
    #[inline]
    fn find(
        &mut self,
        instance: &Bound<'_, PyAny>,
        within_item: bool,
    ) -> Option<Option<(&mut Option<u32>, &Spelling)>> {
        let class = cpython::heap_type(instance)?;
        let Some(index) = self.known.iter().position(|known| known.class.is(&class)) else {
            return self.note(class);
        };
        let known = &mut self.known[index];
        if within_item || known.holds.is_none() {
            known.unused = 0;
        }
        if known.holds.is_none() && known.spelling.is_some() {
            return self.note(class);
        }
        let known = &mut self.known[index];
        let spelling = known.spelling.as_ref().filter(|_| known.holds == Some(true))?;
        Some(Some((&mut known.number, spelling)))
    }

    /// Notes a class that is to be looked at after the walk. `None` if there are too many.
    #[cold]
    fn note<T>(&mut self, class: Bound<'_, PyType>) -> Option<Option<T>> {
        if !self.unknown.iter().any(|unknown| unknown.is(&class)) {
            if self.known.len() + self.unknown.len() >= 2 * Self::MOST {
                return None;
            }
            push(&mut self.unknown, class.unbind()).ok()?;
        }
        Some(None)
    }

    /// Finds out about all classes that the walk noted. `false` if the item is one for `pickle`.
    fn learn(&mut self, py: Python<'_>) -> PyResult<bool> {
        for class in std::mem::take(&mut self.unknown) {
            // Now that it has been met it is looked at again before the walk.
            if self.known.iter().any(|known| known.class.is(&class)) {
                continue;
            }
            if self.known.len() == Self::MOST {
                return Ok(false);
            }
            let spelling = self.spell(class.bind(py))?;
            let is_ordinary = spelling.is_some();
            let class = Class {
                class,
                spelling,
                holds: None,
                unused: 0,
                number: None,
            };
            push(&mut self.known, class)?;
            if !is_ordinary {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn spell(&self, class: &Bound<'_, PyType>) -> PyResult<Option<Spelling>> {
        Walk::assert_none();
        let py = class.py();
        if !self.rules.uses_default_pickling(class)? {
            return Ok(None);
        }
        let (Some(module_attribute), Some(qualified_name)) = (module_attribute(class)?, qualified_name(class)?) else {
            return Ok(None);
        };
        let pickle = match self.dumps.bind(py).call1((class, 0)) {
            Ok(pickle) => pickle,
            // It comes again when `pickle` gets to the class. Any other error is not the class's.
            Err(error) if error.is_instance(py, self.rules.not_pickled.bind(py)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some((module, name)) = spelled(pickle.cast::<PyBytes>()?.as_bytes()) else {
            return Ok(None);
        };
        let spelling = Spelling {
            module: concat(&[module])?,
            name: concat(&[name])?,
            module_attribute: module_attribute.unbind(),
            qualified_name: qualified_name.unbind(),
        };
        Ok(spelling.holds_for(class, self.rules)?.then_some(spelling))
    }
}

/// The module and name that a pickle of nothing but a class has.
fn spelled(pickle: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut tokens = Tokens::new(pickle);
    let Token::Global(module, name) = tokens.next_token()? else {
        return None;
    };
    let alone = tokens.next_token()? == Token::Put(0) && tokens.next_token()? == Token::Stop;
    alone.then_some((module, name))
}

#[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "the walk needs the GIL"))]
impl Spelling {
    /// Whether `pickle` would still spell the class so, and its instances by its defaults.
    fn holds_for(&self, class: &Bound<'_, PyType>, rules: &Rules) -> PyResult<bool> {
        let py = class.py();
        let (module, name) = (self.module_attribute.bind(py), self.qualified_name.bind(py));
        Ok(rules.uses_default_pickling(class)?
            && !models::is_state(class)
            && module_attribute(class)?.is_some_and(|now| now.is(module))
            && qualified_name(class)?.is_some_and(|now| now.is(name))
            && rules.find(module, name)?.is_some_and(|found| found.is(class)))
    }
}

/// `__module__`, if the class itself has it and it is a mere str.
fn module_attribute<'py>(class: &Bound<'py, PyType>) -> PyResult<Option<Bound<'py, PyString>>> {
    let Some(attributes) = cpython::class_attributes(class) else {
        return Ok(None);
    };
    let module = attributes.get_item(intern!(class.py(), "__module__"))?;
    Ok(module.and_then(|module| cpython::exact(&module).cloned()))
}

/// `__qualname__`, if it is a mere str.
fn qualified_name<'py>(class: &Bound<'py, PyType>) -> PyResult<Option<Bound<'py, PyString>>> {
    Ok(cpython::exact(class.qualname()?.as_any()).cloned())
}

#[cfg(not(Py_GIL_DISABLED))]
pub(super) mod walk {
    use pyo3::prelude::*;
    use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

    use super::super::cpython::{self, Characters};
    use super::super::models::Models;
    use super::super::models::write::has_metaclass;
    use super::super::natives::Checks;
    use super::Classes;
    use crate::pickle::memo::{Entry, Memo};
    use crate::pickle::write::Writer;

    /// Nested deeper, an item is the C pickler's, which knows how deep Python may go.
    pub(in crate::python) const DEEPEST: usize = 200;
    /// An int of more bytes is the C pickler's, too.
    const LONGEST_INT: usize = 10_000 / 8 + 1;
    /// No limit on the digits of an int can be set that is lower.
    const NEVER_TOO_MANY_DIGITS: usize = 640;
    /// The memo number of a tuple whose items are being saved.
    pub(in crate::python) const IN_PROGRESS: u32 = u32::MAX;

    pub(in crate::python) struct Walk<'a, 'py> {
        pub(in crate::python) memo: &'a mut Memo,
        pub(in crate::python) writer: Writer<'a>,
        pub(in crate::python) latin1: &'a Bound<'py, PyString>,
        classes: &'a mut Classes,
        pub(in crate::python) checks: &'a mut Checks,
        pub(in crate::python) models: &'a mut Models,
        /// The memo numbers of the globals that bytes, instances and time zones are made with. Nothing that is saved is one of
        /// them.
        pub(in crate::python) encode: Option<u32>,
        pub(in crate::python) getattr: Option<u32>,
        bytes: Option<u32>,
        reconstructor: Option<u32>,
        object: Option<u32>,
    }

    /// Whether nothing but the container through which the walk came holds the object.
    ///
    /// Such an object is met once only, so that its memo number is never asked for. It takes a container that owns its
    /// references, and a walk that runs no Python code. The second reference is the walk's own.
    #[inline]
    pub(in crate::python) fn met_once(object: &Bound<'_, PyAny>) -> bool {
        cpython::references(object) == 2
    }

    /// Names a class or function, in full if it has no memo number yet.
    pub(in crate::python) fn name(writer: &mut Writer<'_>, number: &mut Option<u32>, module: &[u8], name: &[u8]) {
        match *number {
            Some(number) => writer.get(number),
            None => {
                writer.global(module, name);
                *number = Some(writer.put());
            }
        }
    }

    /// Whether an instance has attributes that `pickle` may take for its class's hooks.
    fn has_hook(attributes: &Bound<'_, PyDict>) -> bool {
        let mut position = 0;
        while let Some((name, _)) = cpython::next_item(attributes, &mut position) {
            let name = cpython::exact::<PyString>(&name).and_then(cpython::characters);
            match name {
                Some(Characters::Latin1(name)) if !name.starts_with(b"__") => {}
                Some(Characters::Ucs2(_) | Characters::Ucs4(_)) => {}
                _ => return true,
            }
        }
        false
    }

    impl<'a, 'py> Walk<'a, 'py> {
        pub(super) fn new(
            memo: &'a mut Memo,
            out: &'a mut Vec<u8>,
            latin1: &'a Bound<'py, PyString>,
            classes: &'a mut Classes,
            checks: &'a mut Checks,
            models: &'a mut Models,
        ) -> Self {
            Self {
                memo,
                writer: Writer::new(out),
                latin1,
                classes,
                checks,
                models,
                encode: None,
                getattr: None,
                bytes: None,
                reconstructor: None,
                object: None,
            }
        }

        pub(super) fn stop(self) -> Option<()> {
            self.writer.stop().ok()
        }

        /// Saves an object; `None` if the C pickler has to.
        pub(in crate::python) fn save(&mut self, object: &Bound<'py, PyAny>, once: bool, depth: usize) -> Option<()> {
            if let Some(text) = cpython::exact::<PyString>(object) {
                return self.save_str(text, once);
            }
            if let Some(int) = cpython::exact::<PyInt>(object) {
                return self.save_int(int);
            }
            if let Some(dict) = cpython::exact::<PyDict>(object) {
                return self.save_dict(dict, once, depth);
            }
            if let Some(list) = cpython::exact::<PyList>(object) {
                return self.save_list(list, once, depth);
            }
            if let Some(value) = cpython::exact::<PyBool>(object) {
                self.writer.bool(value.is_true());
            } else if object.is_none() {
                self.writer.none();
            } else if let Some(float) = cpython::exact::<PyFloat>(object) {
                self.writer.float(float.value());
            } else if let Some(tuple) = cpython::exact::<PyTuple>(object) {
                return self.save_tuple(tuple, once, depth);
            } else if let Some(bytes) = cpython::exact::<PyBytes>(object) {
                return self.save_bytes(bytes, once);
            } else if let Some(native) = self.checks.natives.of(object) {
                return self.save_native(native, object, once, depth);
            } else if let Some(place) = self.models.of(object) {
                return self.save_model(place, object, once, depth);
            } else {
                return self.save_instance(object, once, depth);
            }
            Some(())
        }

        /// Saves what a container holds.
        #[inline]
        fn save_item(&mut self, item: &Bound<'py, PyAny>, depth: usize) -> Option<()> {
            self.save(item, met_once(item), depth + 1)
        }

        pub(in crate::python) fn save_str(&mut self, text: &Bound<'py, PyString>, once: bool) -> Option<()> {
            let vacant = match self.lookup(text, once) {
                Entry::Number(number) => return self.get(number),
                Entry::Vacant(vacant) => vacant,
            };
            match cpython::characters(text)? {
                Characters::Latin1(text) => self.writer.latin1(text),
                Characters::Ucs2(text) => self.writer.ucs2(text),
                Characters::Ucs4(text) => self.writer.ucs4(text),
            }
            self.put(vacant, text, once)
        }

        pub(in crate::python) fn save_int(&mut self, int: &Bound<'py, PyInt>) -> Option<()> {
            match cpython::int(int) {
                Some(value) => self.writer.int(value),
                None => self.save_long(int)?,
            }
            Some(())
        }

        /// Not by `repr`, in which CPython looks for signals. Python limits the digits, which is `pickle`'s to say.
        fn save_long(&mut self, int: &Bound<'py, PyInt>) -> Option<()> {
            let mut room = [0; LONGEST_INT];
            let digits = self.writer.long(cpython::long_bytes(int, &mut room)?);
            if digits <= NEVER_TOO_MANY_DIGITS {
                return Some(());
            }
            let limit = self.classes.rules.digits_limit(int.py()).ok()?;
            (limit == 0 || digits <= limit).then_some(())
        }

        fn save_list(&mut self, list: &Bound<'py, PyList>, once: bool, depth: usize) -> Option<()> {
            let vacant = match self.lookup(list, once) {
                Entry::Number(number) => return self.get(number),
                Entry::Vacant(vacant) => vacant,
            };
            if depth > DEEPEST {
                return None;
            }
            self.writer.list();
            self.put(vacant, list, once)?;
            let mut index = 0;
            while let Some(item) = cpython::list_item(list, index) {
                self.save_item(&item, depth)?;
                self.writer.append();
                index += 1;
            }
            Some(())
        }

        fn save_dict(&mut self, dict: &Bound<'py, PyDict>, once: bool, depth: usize) -> Option<()> {
            let vacant = match self.lookup(dict, once) {
                Entry::Number(number) => return self.get(number),
                Entry::Vacant(vacant) => vacant,
            };
            if depth > DEEPEST {
                return None;
            }
            self.writer.dict();
            self.put(vacant, dict, once)?;
            let own_keys = !cpython::shares_keys(dict);
            let mut position = 0;
            while let Some((key, value)) = cpython::next_item(dict, &mut position) {
                self.save(&key, own_keys && met_once(&key), depth + 1)?;
                self.save_item(&value, depth)?;
                self.writer.set_item();
            }
            Some(())
        }

        /// A tuple is put into the memo behind its items, so that one that holds itself is saved twice, in a form of its
        /// own: one for the C pickler.
        fn save_tuple(&mut self, tuple: &Bound<'py, PyTuple>, once: bool, depth: usize) -> Option<()> {
            if tuple.is_empty() {
                self.writer.mark();
                self.writer.tuple();
                return Some(());
            }
            let vacant = match self.lookup(tuple, once) {
                Entry::Number(IN_PROGRESS) => return None,
                Entry::Number(number) => return self.get(number),
                Entry::Vacant(vacant) => vacant,
            };
            if depth > DEEPEST {
                return None;
            }
            let address = tuple.as_ptr() as usize;
            if !once {
                self.memo.put(vacant, address, IN_PROGRESS).ok()?;
            }
            self.writer.mark();
            for item in tuple.iter_borrowed() {
                // The walk holds no reference of its own here.
                self.save(&item, cpython::references(&item) == 1, depth + 1)?;
            }
            self.writer.tuple();
            let number = self.writer.put();
            if !once {
                self.memo.renumber(address, number);
            }
            Some(())
        }

        /// Protocol 0 has no opcode for bytes: they are `_codecs.encode(text, 'latin1')`, or `bytes()`.
        fn save_bytes(&mut self, bytes: &Bound<'py, PyBytes>, once: bool) -> Option<()> {
            if let Entry::Number(number) = self.lookup(bytes, once) {
                return self.get(number);
            }
            match bytes.as_bytes() {
                [] => {
                    name(&mut self.writer, &mut self.bytes, b"__builtin__", b"bytes");
                    self.writer.mark();
                    self.writer.tuple();
                }
                content => {
                    name(&mut self.writer, &mut self.encode, b"_codecs", b"encode");
                    self.writer.mark();
                    self.save_latin1(bytes.py(), content)?;
                    self.save_str(self.latin1, false)?;
                    self.writer.tuple();
                    self.writer.put();
                }
            }
            self.writer.reduce();
            match self.lookup(bytes, once) {
                Entry::Vacant(vacant) => self.put(vacant, bytes, once),
                Entry::Number(_) => None,
            }
        }

        /// The string of a single byte is CPython's own, and may be in the user's data as well.
        fn save_latin1(&mut self, py: Python<'py>, content: &[u8]) -> Option<()> {
            if let [_] = content {
                return self.save_str(&cpython::singleton(py, content)?, false);
            }
            self.writer.latin1(content);
            self.writer.put();
            Some(())
        }

        /// Protocol 0 has no opcode for instances: they are `copyreg._reconstructor(class, object, None)`, by its name in
        /// Python 2, and are then given their attributes.
        fn save_instance(&mut self, instance: &Bound<'py, PyAny>, once: bool, depth: usize) -> Option<()> {
            let vacant = match self.lookup(instance, once) {
                Entry::Number(number) => return self.get(number),
                Entry::Vacant(vacant) => vacant,
            };
            if depth > DEEPEST {
                return None;
            }
            let Some((class, spelling)) = self.classes.find(instance, depth > 0)? else {
                return self.meet(instance, vacant, once, depth);
            };
            let attributes = cpython::attributes(instance).filter(|attributes| !has_hook(attributes))?;
            let writer = &mut self.writer;
            name(writer, &mut self.reconstructor, b"copy_reg", b"_reconstructor");
            writer.mark();
            name(writer, class, &spelling.module, &spelling.name);
            self.close_instance();
            self.put(vacant, instance, once)?;
            if !attributes.is_empty() {
                // Nothing else can hold what was made just now, or what only the instance holds.
                self.save_item(&attributes, depth)?;
                self.writer.build();
            }
            Some(())
        }

        /// Begins an instance, of which the class has to be named next.
        pub(in crate::python) fn open_instance(&mut self) {
            name(
                &mut self.writer,
                &mut self.reconstructor,
                b"copy_reg",
                b"_reconstructor",
            );
            self.writer.mark();
        }

        /// Ends an instance, which has no attributes yet, and is to be put into the memo.
        pub(in crate::python) fn close_instance(&mut self) {
            name(&mut self.writer, &mut self.object, b"__builtin__", b"object");
            self.writer.none();
            self.writer.tuple();
            self.writer.put();
            self.writer.reduce();
        }

        /// Goes on behind an instance of a class that is not known. What is written is not right, and not kept: it is to meet
        /// all such classes in one walk.
        #[cold]
        fn meet(&mut self, instance: &Bound<'py, PyAny>, vacant: usize, once: bool, depth: usize) -> Option<()> {
            // Others may have no `__dict__` yet, and be pickled otherwise once they have one: exceptions are.
            let class = instance.get_type();
            if has_metaclass(&class) || !self.classes.rules.has_default_slots(&class) {
                return None;
            }
            self.put(vacant, instance, once)?;
            match cpython::attributes(instance) {
                Some(attributes) => self.save_item(&attributes, depth),
                None => Some(()),
            }
        }

        #[inline]
        pub(in crate::python) fn lookup<T>(&self, object: &Bound<'py, T>, once: bool) -> Entry {
            if once {
                Entry::Vacant(0)
            } else {
                self.memo.entry(object.as_ptr() as usize)
            }
        }

        #[inline]
        pub(in crate::python) fn get(&mut self, number: u32) -> Option<()> {
            self.writer.get(number);
            Some(())
        }

        #[inline]
        pub(in crate::python) fn put<T>(&mut self, vacant: usize, object: &Bound<'py, T>, once: bool) -> Option<()> {
            let number = self.writer.put();
            if !once {
                self.memo.put(vacant, object.as_ptr() as usize, number).ok()?;
            }
            Some(())
        }
    }
}
