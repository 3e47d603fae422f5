//! The way back: pickles of protocol 0 become the Python objects that CPython's unpickler makes of them.

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyNone, PyString, PyTuple, PyType};

use super::classes::Rules;
use super::raw::{self, Characters, CollectorPause};
use crate::pickle::read::{Text, Token, Tokens};

/// The bits of ASCII characters.
const ASCII: u32 = 0x7f;

/// Unpickles items, one after the other.
pub(crate) struct Loader {
    keys: Keys,
    globals: Globals,
    /// `_codecs.encode`, as which protocol 0 spells bytes.
    encode: Py<PyAny>,
    // Their memory, kept from pickle to pickle.
    stack: Vec<Py<PyAny>>,
    memo: Vec<Py<PyAny>>,
    marks: Vec<usize>,
}

impl Loader {
    /// `loads` is who unpickles everything else, and is asked for the classes that pickles name, so that they are those
    /// that it would find, if any. Without it, plain types alone are unpickled here.
    pub(crate) fn new(py: Python<'_>, loads: Option<Py<PyAny>>) -> PyResult<Self> {
        static ENCODE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let encode = ENCODE.get_or_try_init(py, || py.import("_codecs")?.getattr("encode").map(Bound::unbind))?;
        Ok(Self {
            keys: Keys::default(),
            // Other threads may change a class under the walk where there is no GIL.
            globals: Globals::new(loads.filter(|_| !cfg!(Py_GIL_DISABLED))),
            encode: encode.clone_ref(py),
            stack: Vec::new(),
            memo: Vec::new(),
            marks: Vec::new(),
        })
    }

    /// The item that the pickle at `data`'s first byte holds, and the number of bytes that the pickle takes. `None` if
    /// the pickle is unusual, damaged or incomplete: then it is one for `loads`, as are its errors.
    pub(crate) fn load<'py>(&mut self, py: Python<'py>, data: &[u8]) -> PyResult<Option<(Bound<'py, PyAny>, usize)>> {
        loop {
            if let Some(found) = self.build(py, data) {
                return Ok(Some(found));
            }
            // That runs Python code, for which nothing half-built may be about, and no collector paused.
            if !self.globals.learn(py)? {
                return Ok(None);
            }
        }
    }

    fn build<'py>(&mut self, py: Python<'py>, data: &[u8]) -> Option<(Bound<'py, PyAny>, usize)> {
        self.keys.next_pickle();
        self.globals.next_pickle();
        let mut build = Build {
            py,
            stack: recycled(&mut self.stack),
            memo: recycled(&mut self.memo),
            marks: recycled(&mut self.marks),
            fence: 0,
            keys: &mut self.keys,
            globals: &mut self.globals,
            encode: self.encode.bind(py),
            pause: None,
        };
        let mut tokens = Tokens::new(data);
        let item = build.run(&mut tokens);
        let mut used = (build.stack, build.memo, build.marks);
        self.stack = recycled(&mut used.0);
        self.memo = recycled(&mut used.1);
        self.marks = recycled(&mut used.2);
        Some((item?, tokens.consumed()))
    }
}

/// The memory of a vector, for other contents.
fn recycled<A, B>(used: &mut Vec<A>) -> Vec<B> {
    const LARGEST_KEPT: usize = 1 << 16;
    let mut used = std::mem::take(used);
    used.clear();
    if used.capacity() > LARGEST_KEPT {
        return Vec::new();
    }
    // Collected in place: the standard library keeps the allocation if the sizes agree.
    used.into_iter().filter_map(|_| None).collect()
}

/// One item being built.
struct Build<'a, 'py> {
    py: Python<'py>,
    stack: Vec<Bound<'py, PyAny>>,
    memo: Vec<Bound<'py, PyAny>>,
    /// The stack's heights at the marks below the last.
    marks: Vec<usize>,
    /// The stack's height at the last mark, below which only a token that collects may reach.
    fence: usize,
    keys: &'a mut Keys,
    globals: &'a mut Globals,
    encode: &'a Bound<'py, PyAny>,
    pause: Option<CollectorPause>,
}

impl<'py> Build<'_, 'py> {
    const DEEPEST_KEY: usize = 16;
    const LONGEST_INT: usize = 4_000;
    /// In bytes: worth the pause of giving up the GIL and getting it back.
    const LONG_TEXT: usize = 1 << 16;

    fn run(&mut self, tokens: &mut Tokens<'_>) -> Option<Bound<'py, PyAny>> {
        self.pause = Some(CollectorPause::new(self.py));
        let item = self.follow(tokens);
        self.pause = None;
        item
    }

    #[inline]
    fn follow(&mut self, tokens: &mut Tokens<'_>) -> Option<Bound<'py, PyAny>> {
        let py = self.py;
        loop {
            match tokens.next_token()? {
                Token::Put(number) => self.put(number)?,
                Token::Text(line) => self.text(line)?,
                Token::SetItem => self.set_item()?,
                Token::Append => self.append()?,
                Token::Int(value) => self.push(value.into_pyobject(py).ok()?),
                Token::Mark => self.mark(),
                Token::List => self.collect_nothing(PyList::empty(py))?,
                Token::Dict => self.collect_nothing(PyDict::new(py))?,
                Token::Tuple => self.tuple()?,
                Token::Bool(value) => self.push(PyBool::new(py, value).to_owned()),
                Token::None => self.push(PyNone::get(py).to_owned()),
                Token::Float(value) => self.push(PyFloat::new(py, value)),
                Token::Get(number) => self.stack.push(self.memo.get(number)?.clone()),
                Token::Long(digits) => self.long(digits)?,
                Token::Global(module, name) => self.global(module, name)?,
                Token::Reduce => self.reduce()?,
                Token::Build => self.give_attributes()?,
                Token::Pop => self.drop_top()?,
                Token::Stop => return self.finish(),
            }
        }
    }

    #[inline]
    fn push<T>(&mut self, object: Bound<'py, T>) {
        self.stack.push(object.into_any());
    }

    #[inline]
    fn pop(&mut self) -> Option<Bound<'py, PyAny>> {
        self.top()?;
        self.stack.pop()
    }

    #[inline]
    fn top(&self) -> Option<&Bound<'py, PyAny>> {
        self.stack.get(self.fence..)?.last()
    }

    /// CPython numbers the memo without gaps.
    #[inline]
    fn put(&mut self, number: usize) -> Option<()> {
        let object = self.top()?.clone();
        if number == self.memo.len() {
            self.memo.push(object);
        } else {
            *self.memo.get_mut(number)? = object;
        }
        Some(())
    }

    #[inline]
    fn text(&mut self, line: &[u8]) -> Option<()> {
        if line.len() >= Self::LONG_TEXT && self.stack.is_empty() && self.memo.is_empty() {
            return self.lone_long_text(line);
        }
        let text = Text::measure(line)?;
        let in_key_place = self.top().is_some_and(|top| raw::exact::<PyDict>(top).is_some());
        let text = match text.unescaped() {
            Some(ascii) if in_key_place && text.bits <= ASCII => self.keys.get(self.py, ascii)?,
            _ => raw::new_str(self.py, &text)?,
        };
        self.push(text);
        Some(())
    }

    /// An item that begins with a long text most likely is that text. It takes a while, in which other threads may run, as
    /// nothing is half-built yet.
    #[cold]
    fn lone_long_text(&mut self, line: &[u8]) -> Option<()> {
        self.pause = None;
        let text = raw::new_long_str(self.py, line)?;
        self.pause = Some(CollectorPause::new(self.py));
        self.globals.next_pickle();
        self.push(text);
        Some(())
    }

    /// Python limits the digits, and reads the longest ints in Python code.
    fn long(&mut self, digits: &[u8]) -> Option<()> {
        if digits.len() > Self::LONGEST_INT {
            return None;
        }
        let digits = raw::new_latin1(self.py, digits, ASCII)?;
        let int = self.py.get_type::<PyInt>().call1((digits,)).ok()?;
        self.push(int);
        Some(())
    }

    #[inline]
    fn append(&mut self) -> Option<()> {
        let item = self.pop()?;
        raw::exact::<PyList>(self.top()?)?.append(item).ok()
    }

    /// A key is plain, so that its hash and comparison run no Python code.
    #[inline]
    fn set_item(&mut self) -> Option<()> {
        let value = self.pop()?;
        let key = self.pop()?;
        if !is_plain_key(&key, Self::DEEPEST_KEY) {
            return None;
        }
        raw::exact::<PyDict>(self.top()?)?.set_item(key, value).ok()
    }

    #[inline]
    fn mark(&mut self) {
        self.marks.push(self.fence);
        self.fence = self.stack.len();
    }

    #[inline]
    fn unmark(&mut self) -> Option<usize> {
        let height = self.fence;
        self.fence = self.marks.pop()?;
        Some(height)
    }

    #[inline]
    fn collect_nothing<T>(&mut self, empty: Bound<'py, T>) -> Option<()> {
        let height = self.unmark()?;
        if self.stack.len() != height {
            return None;
        }
        self.push(empty);
        Some(())
    }

    fn tuple(&mut self) -> Option<()> {
        let height = self.unmark()?;
        let tuple = PyTuple::new(self.py, self.stack.drain(height..)).ok()?;
        self.push(tuple);
        Some(())
    }

    fn drop_top(&mut self) -> Option<()> {
        if self.stack.len() == self.fence {
            self.unmark()?;
        } else {
            self.stack.pop();
        }
        Some(())
    }

    fn global(&mut self, module: &[u8], name: &[u8]) -> Option<()> {
        match (module, name) {
            (b"_codecs", b"encode") => self.push(self.encode.clone()),
            (b"__builtin__", b"bytes") => self.push(self.py.get_type::<PyBytes>()),
            _ => {
                let object = self.globals.find(self.py, module, name)?;
                self.push(object);
            }
        }
        Some(())
    }

    fn reduce(&mut self) -> Option<()> {
        let arguments = self.pop()?;
        let arguments = raw::exact::<PyTuple>(&arguments)?;
        let function = self.pop()?;
        let object = if function.is(self.encode) {
            latin1_encoded(arguments)?.into_any()
        } else if function.is(self.py.get_type::<PyBytes>()) && arguments.is_empty() {
            raw::new_bytes(self.py, b"")?.into_any()
        } else if function.is(&Rules::get(self.py).ok()?.reconstructor) {
            reconstructed(arguments)?
        } else {
            return None;
        };
        self.push(object);
        Some(())
    }

    /// The instance is of an ordinary class, as no other is ever made here.
    fn give_attributes(&mut self) -> Option<()> {
        let state = self.pop()?;
        let state = raw::exact::<PyDict>(&state)?;
        let instance = self.top().filter(|top| raw::has_made_class(top))?;
        let attributes = raw::attributes(instance)?;
        for (name, value) in state {
            let name = match raw::exact::<PyString>(&name) {
                // It may be a hook.
                Some(name) if starts_with_underscores(name)? => return None,
                Some(name) => self.keys.interned(name)?.into_any(),
                None => name,
            };
            attributes.set_item(name, value).ok()?;
        }
        Some(())
    }

    fn finish(&mut self) -> Option<Bound<'py, PyAny>> {
        let item = self.pop()?;
        (self.stack.is_empty() && self.marks.is_empty()).then_some(item)
    }
}

/// Whether a key can be hashed in safety: an instance's hash is Python code, and CPython hashes tuples in tuples without an eye on the stack.
#[inline]
fn is_plain_key(key: &Bound<'_, PyAny>, depth: usize) -> bool {
    match raw::exact::<PyTuple>(key) {
        Some(tuple) => depth > 0 && tuple.iter_borrowed().all(|item| is_plain_key(&item, depth - 1)),
        None => !raw::has_made_class(key),
    }
}

/// What `copyreg._reconstructor(class, object, None)` gives.
fn reconstructed<'py>(arguments: &Bound<'py, PyTuple>) -> Option<Bound<'py, PyAny>> {
    let py = arguments.py();
    let class = arguments.get_item(0).ok()?;
    let base = arguments.get_item(1).ok()?;
    if arguments.len() != 3 || !base.is(py.get_type::<PyAny>()) || !arguments.get_item(2).ok()?.is_none() {
        return None;
    }
    raw::new_instance(raw::exact::<PyType>(&class)?)
}

/// What `_codecs.encode(text, 'latin1')` gives.
fn latin1_encoded<'py>(arguments: &Bound<'py, PyTuple>) -> Option<Bound<'py, PyBytes>> {
    let text = arguments.get_item(0).ok()?;
    let encoding = arguments.get_item(1).ok()?;
    if arguments.len() != 2 || raw::exact::<PyString>(&encoding)? != "latin1" {
        return None;
    }
    match raw::characters(raw::exact::<PyString>(&text)?)? {
        Characters::Latin1(bytes) => raw::new_bytes(arguments.py(), bytes),
        Characters::Ucs2(_) | Characters::Ucs4(_) => None,
    }
}

/// The classes that pickles of the stream name, and what it takes to make their instances.
struct Globals {
    loads: Option<Py<PyAny>>,
    known: Vec<Global>,
    /// The one at which the last pickle had to be given up.
    unknown: Option<(Vec<u8>, Vec<u8>)>,
}

struct Global {
    module: Vec<u8>,
    name: Vec<u8>,
    /// `None` if pickles that name it are for `loads`.
    object: Option<Py<PyAny>>,
    /// Whether it has been looked at since Python code ran last.
    checked: bool,
}

impl Globals {
    /// They are looked through one by one, and few streams have more.
    const MOST: usize = 64;

    fn new(loads: Option<Py<PyAny>>) -> Self {
        Self {
            loads,
            known: Vec::new(),
            unknown: None,
        }
    }

    fn next_pickle(&mut self) {
        self.known.iter_mut().for_each(|global| global.checked = false);
    }

    fn find<'py>(&mut self, py: Python<'py>, module: &[u8], name: &[u8]) -> Option<Bound<'py, PyAny>> {
        let mut known = self.known.iter_mut();
        let Some(global) = known.find(|global| global.module == module && global.name == name) else {
            self.unknown = Some((module.to_vec(), name.to_vec()));
            return None;
        };
        let object = global.object.as_ref()?.bind(py);
        if !global.checked {
            global.checked = is_of_use(object);
        }
        global.checked.then(|| object.clone())
    }

    /// Finds out about the one at which the last pickle had to be given up. `false` if that was not the reason.
    fn learn(&mut self, py: Python<'_>) -> PyResult<bool> {
        let (Some((module, name)), Some(loads)) = (self.unknown.take(), &self.loads) else {
            return Ok(false);
        };
        if self.known.len() == Self::MOST {
            return Ok(false);
        }
        let object = match load_global(loads.bind(py), &module, &name) {
            Ok(object) => Some(object.unbind()),
            // It comes again when the item is unpickled, in its place.
            Err(error) if error.is_instance_of::<PyException>(py) => None,
            Err(error) => return Err(error),
        };
        self.known.push(Global {
            module,
            name,
            object,
            checked: false,
        });
        Ok(true)
    }
}

/// Whether it is an ordinary class, or one of the two things with which its instances are made.
fn is_of_use(object: &Bound<'_, PyAny>) -> bool {
    let py = object.py();
    Rules::get(py).is_ok_and(|rules| {
        object.is(py.get_type::<PyAny>())
            || object.is(&rules.reconstructor)
            || raw::exact::<PyType>(object).is_some_and(|class| rules.are_all_for(class))
    })
}

/// The class or function that unpickling finds under a name.
pub(super) fn load_global<'py>(loads: &Bound<'py, PyAny>, module: &[u8], name: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    // A pickle of the mere name, so that the unpickler's own rules hold.
    let pickle = [b"c", module, b"\n", name, b"\n."].concat();
    loads.call1((PyBytes::new(loads.py(), &pickle),))
}

/// The strings that were keys lately: items of one shape have the same keys, and a string that is there already has
/// its hash already.
#[derive(Default)]
struct Keys {
    slots: Vec<Option<Key>>,
    pickle: u32,
}

struct Key {
    text: Py<PyString>,
    /// The pickle that has the string. CPython would make a second one if the same pickle spells it out again, and if
    /// the item is pickled again one can tell.
    pickle: u32,
    /// The interned string that is equal, once it has been an attribute's name.
    name: Option<Py<PyString>>,
}

impl Keys {
    const SLOTS: usize = 2048;
    const LONGEST: usize = 32;

    fn next_pickle(&mut self) {
        if self.pickle == u32::MAX {
            *self = Self::default();
        }
        self.pickle += 1;
    }

    #[inline]
    fn get<'py>(&mut self, py: Python<'py>, ascii: &[u8]) -> Option<Bound<'py, PyString>> {
        // The first pickle may be the only one.
        if ascii.len() > Self::LONGEST || ascii.len() < 2 || self.pickle == 1 {
            return raw::new_latin1(py, ascii, ASCII);
        }
        if self.slots.is_empty() {
            self.slots.resize_with(Self::SLOTS, || None);
        }
        let slot = &mut self.slots[hash(ascii) % Self::SLOTS];
        if let Some(key) = slot.as_mut().filter(|key| same(key.text.bind(py), ascii)) {
            if key.pickle == self.pickle {
                return raw::new_latin1(py, ascii, ASCII);
            }
            key.pickle = self.pickle;
            return Some(key.text.bind(py).clone());
        }
        let text = raw::new_latin1(py, ascii, ASCII)?;
        *slot = Some(Key {
            text: text.clone().unbind(),
            pickle: self.pickle,
            name: None,
        });
        Some(text)
    }

    /// The interned str that is equal to this one, as which CPython keeps an attribute's name. No key becomes it: the same
    /// string may be a key elsewhere, where CPython would have two.
    #[inline]
    fn interned<'py>(&mut self, text: &Bound<'py, PyString>) -> Option<Bound<'py, PyString>> {
        let py = text.py();
        if let Characters::Latin1(ascii) = raw::characters(text)?
            && let Some(Some(key)) = self.slots.get_mut(hash(ascii) % Self::SLOTS)
            && key.text.is(text)
        {
            if key.name.is_none() {
                key.name = Some(raw::interned(raw::new_latin1(py, ascii, ASCII)?).unbind());
            }
            return key.name.as_ref().map(|name| name.bind(py).clone());
        }
        Some(raw::interned(text.clone()))
    }
}

#[inline]
fn starts_with_underscores(name: &Bound<'_, PyString>) -> Option<bool> {
    Some(matches!(raw::characters(name)?, Characters::Latin1(name) if name.starts_with(b"__")))
}

#[inline]
fn same(text: &Bound<'_, PyString>, ascii: &[u8]) -> bool {
    matches!(raw::characters(text), Some(Characters::Latin1(characters)) if characters == ascii)
}

#[inline]
fn hash(ascii: &[u8]) -> usize {
    let word = ascii.iter().fold(ascii.len() as u64, |word, &byte| {
        (word.rotate_left(5) ^ u64::from(byte)).wrapping_mul(0x517c_c1b7_2722_0a95)
    });
    (word >> 32) as usize
}
