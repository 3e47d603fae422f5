//! The way back: pickles of protocol 0 become the Python objects that CPython's unpickler makes of them.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyBytes, PyDict, PyInt, PyList, PyNone, PyString, PyTuple, PyType};

use super::classes::Rules;
use super::cpython::{self, Characters};
use super::new_bytes;
use super::walk::Walk;
use crate::error::{concat, grow, push};
use crate::pickle::expected_line::{ExpectedLine, NextPut};
use crate::pickle::opcode;
use crate::pickle::read::{Text, Token, Tokens};
use crate::pickle::scan::{self, Scanner};

/// The bits of ASCII characters.
const ASCII: u32 = 0x7f;

/// Unpickles items, one after the other.
pub(crate) struct Loader {
    keys: Keys,
    globals: Globals,
    /// `_codecs.encode`, as which protocol 0 spells bytes.
    encode: Py<PyAny>,
    memory: Memory,
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
            globals: Globals::new(Rules::get(py)?, loads.filter(|_| !cfg!(Py_GIL_DISABLED))),
            encode: encode.clone_ref(py),
            memory: Memory::default(),
        })
    }

    /// The item that the pickle at `data`'s first byte holds, and the number of bytes that the pickle takes. `None` if
    /// the pickle is unusual, damaged or incomplete: then it is one for `loads`, as are its errors. An error here is that of
    /// a name in the pickle, or a signal handler's.
    pub(crate) fn load<'py>(&mut self, py: Python<'py>, data: &[u8]) -> PyResult<Option<(Bound<'py, PyAny>, usize)>> {
        loop {
            if let Some(found) = self.build(py, data)? {
                return Ok(Some(found));
            }
            // That runs Python code, for which nothing half-built may be about.
            if !self.globals.learn(py, data)? {
                return Ok(None);
            }
        }
    }

    /// Loads items of plain types alone from the beginning of `data`, and executes nothing. Stops at the first that is not
    /// plain or not whole. Returns how many bytes those before it take. Once [`Self::load`] has learned of classes, their
    /// instances count as plain here, too.
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

    fn begin<'py>(&mut self, py: Python<'py>) -> Build<'_, 'py> {
        Build {
            py,
            stack: recycled(&mut self.memory.stack),
            memo: recycled(&mut self.memory.memo),
            next_put: NextPut::default(),
            marks: std::mem::take(&mut self.memory.marks),
            fence: 0,
            memory: &mut self.memory,
            keys: &mut self.keys,
            globals: &mut self.globals,
            encode: self.encode.bind(py),
            walk: None,
        }
    }
}

/// The memory that a build leaves for the next.
#[derive(Default)]
struct Memory {
    stack: Vec<Py<PyAny>>,
    memo: Vec<Py<PyAny>>,
    marks: Vec<usize>,
}

/// The memory of a vector, for other contents.
fn recycled<A, B>(used: &mut Vec<A>) -> Vec<B> {
    let mut used = std::mem::take(used);
    clear(&mut used);
    // Collected in place: the standard library keeps the allocation if the sizes agree.
    used.into_iter().filter_map(|_| None).collect()
}

/// Empties a vector. What was needed for one huge item is not kept for all that follow.
#[inline]
fn clear<T>(used: &mut Vec<T>) {
    const LARGEST_KEPT: usize = 1 << 16;
    used.clear();
    if used.capacity() > LARGEST_KEPT {
        *used = Vec::new();
    }
}

/// Items being built, one after the other.
struct Build<'a, 'py> {
    py: Python<'py>,
    stack: Vec<Bound<'py, PyAny>>,
    memo: Vec<Bound<'py, PyAny>>,
    next_put: NextPut,
    /// The stack's heights at the marks below the last.
    marks: Vec<usize>,
    /// The stack's height at the last mark, below which only a token that collects may reach.
    fence: usize,
    memory: &'a mut Memory,
    keys: &'a mut Keys,
    globals: &'a mut Globals,
    encode: &'a Bound<'py, PyAny>,
    walk: Option<Walk>,
}

impl<'py> Build<'_, 'py> {
    const DEEPEST_KEY: usize = 16;
    const LONGEST_INT: usize = 4_000;
    /// In bytes: worth the pause of giving up the GIL and getting it back.
    const LONG_TEXT: usize = 1 << 16;

    /// The item at `data`'s beginning, and its size. An error if looking at the classes has raised one.
    fn item(&mut self, data: &[u8]) -> PyResult<Option<(Bound<'py, PyAny>, usize)>> {
        clear(&mut self.stack);
        clear(&mut self.memo);
        clear(&mut self.marks);
        self.next_put = NextPut::default();
        self.fence = 0;
        self.keys.next_pickle();
        self.globals.look(self.py);
        let mut tokens = Tokens::new(data);
        self.walk = Some(Walk::new(self.py));
        let item = self.follow(&mut tokens);
        self.walk = None;
        self.globals.error.take().map_or(Ok(()), Err)?;
        Ok(item.map(|item| (item, tokens.consumed())))
    }

    /// Drops whatever was begun.
    fn end(mut self) {
        self.memory.stack = recycled(&mut self.stack);
        self.memory.memo = recycled(&mut self.memo);
        self.memory.marks = std::mem::take(&mut self.marks);
    }

    #[inline]
    fn follow(&mut self, tokens: &mut Tokens<'_>) -> Option<Bound<'py, PyAny>> {
        let py = self.py;
        loop {
            match tokens.next_token()? {
                Token::Put(number) => self.put(number)?,
                Token::Text(line) => {
                    self.text(line)?;
                    self.put_at_once(tokens)?;
                }
                Token::SetItem => {
                    self.set_item()?;
                    self.key_at_once(tokens)?;
                }
                Token::Append => self.append()?,
                Token::Int(value) => self.push(cpython::new_int(py, value)?)?,
                Token::Mark => self.mark()?,
                Token::List => {
                    self.collect_nothing(cpython::new_list(py)?)?;
                    self.put_at_once(tokens)?;
                }
                Token::Dict => {
                    self.collect_nothing(cpython::new_dict(py)?)?;
                    self.put_at_once(tokens)?;
                    self.key_at_once(tokens)?;
                }
                Token::Tuple => {
                    self.tuple()?;
                    self.put_at_once(tokens)?;
                }
                Token::Bool(value) => self.push(PyBool::new(py, value).to_owned())?,
                Token::None => self.push(PyNone::get(py).to_owned())?,
                Token::Float(value) => self.push(cpython::new_float(py, value)?)?,
                Token::Get(number) => self.push(self.memo.get(number)?.clone())?,
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
    fn push<T>(&mut self, object: Bound<'py, T>) -> Option<()> {
        push(&mut self.stack, object.into_any()).ok()
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
            push(&mut self.memo, object).ok()?;
            self.next_put.increment();
        } else {
            *self.memo.get_mut(number)? = object;
        }
        Some(())
    }

    /// Takes the PUT that CPython writes behind whatever may come again: to recognize it takes less than to read it.
    #[inline(always)]
    fn put_at_once(&mut self, tokens: &mut Tokens<'_>) -> Option<()> {
        if tokens.accept(self.next_put.line()) {
            self.next_put.increment();
            push(&mut self.memo, self.stack.last()?.clone()).ok()?;
        }
        Some(())
    }

    /// Takes the key that came here the last time, likewise, and its PUT.
    #[inline(always)]
    fn key_at_once(&mut self, tokens: &mut Tokens<'_>) -> Option<()> {
        if let Some(key) = self.keys.expect(self.py, tokens) {
            self.push(key)?;
            self.put_at_once(tokens)?;
        }
        Some(())
    }

    #[inline]
    fn text(&mut self, line: &[u8]) -> Option<()> {
        if line.len() >= Self::LONG_TEXT && self.stack.is_empty() && self.memo.is_empty() {
            return self.lone_long_text(line);
        }
        let in_key_place = self.top().is_some_and(|top| cpython::exact::<PyDict>(top).is_some());
        let known = if in_key_place {
            self.keys.find(self.py, line)
        } else {
            None
        };
        let text = match known {
            Some(text) => text,
            None => {
                let measured = Text::measure(line)?;
                let text = cpython::new_str(self.py, &measured)?;
                if in_key_place && measured.bits <= ASCII && measured.unescaped().is_some() {
                    self.keys.keep(line, &text);
                }
                text
            }
        };
        self.push(text)
    }

    /// An item that begins with a long text most likely is that text. It takes a while, in which other threads may run, as
    /// nothing is half-built yet.
    #[cold]
    fn lone_long_text(&mut self, line: &[u8]) -> Option<()> {
        self.walk = None;
        let text = cpython::new_long_str(self.py, line)?;
        self.globals.look(self.py);
        self.walk = Some(Walk::new(self.py));
        self.push(text)
    }

    /// Python limits the digits, and reads the longest ints in Python code.
    fn long(&mut self, digits: &[u8]) -> Option<()> {
        if digits.len() > Self::LONGEST_INT {
            return None;
        }
        let digits = cpython::new_latin1(self.py, digits, ASCII)?;
        let int = self.py.get_type::<PyInt>().call1((digits,)).ok()?;
        self.push(int)
    }

    #[inline]
    fn append(&mut self) -> Option<()> {
        let item = self.pop()?;
        cpython::exact::<PyList>(self.top()?)?.append(item).ok()
    }

    /// A key is plain, so that its hash and comparison run no Python code.
    #[inline]
    fn set_item(&mut self) -> Option<()> {
        let value = self.pop()?;
        let key = self.pop()?;
        if cpython::exact::<PyString>(&key).is_none() && !is_plain_key(&key, Self::DEEPEST_KEY) {
            return None;
        }
        cpython::exact::<PyDict>(self.top()?)?.set_item(key, value).ok()
    }

    #[inline]
    fn mark(&mut self) -> Option<()> {
        push(&mut self.marks, self.fence).ok()?;
        self.fence = self.stack.len();
        Some(())
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
        self.push(empty)
    }

    fn tuple(&mut self) -> Option<()> {
        let height = self.unmark()?;
        let tuple = cpython::new_tuple(self.py, self.stack.drain(height..))?;
        self.push(tuple)
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
                self.push(object)
            }
        }
    }

    fn reduce(&mut self) -> Option<()> {
        let arguments = self.pop()?;
        let arguments = cpython::exact::<PyTuple>(&arguments)?;
        let function = self.pop()?;
        let object = if function.is(self.encode) {
            latin1_encoded(arguments)?.into_any()
        } else if function.is(self.py.get_type::<PyBytes>()) && arguments.is_empty() {
            cpython::new_bytes(self.py, b"")?.into_any()
        } else if function.is(&self.globals.rules.reconstructor) {
            reconstructed(arguments)?
        } else {
            return None;
        };
        self.push(object)
    }

    /// The instance is of an ordinary class, as no other is ever made here.
    fn give_attributes(&mut self) -> Option<()> {
        let state = self.pop()?;
        let state = cpython::exact::<PyDict>(&state)?;
        let instance = self.top().filter(|top| cpython::has_heap_type(top))?;
        let attributes = cpython::attributes(instance)?;
        for (name, value) in state {
            let name = match cpython::exact::<PyString>(&name) {
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
    match cpython::exact::<PyTuple>(key) {
        Some(tuple) => depth > 0 && tuple.iter_borrowed().all(|item| is_plain_key(&item, depth - 1)),
        None => !cpython::has_heap_type(key),
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
    cpython::new_instance(cpython::exact::<PyType>(&class)?)
}

/// What `_codecs.encode(text, 'latin1')` gives.
fn latin1_encoded<'py>(arguments: &Bound<'py, PyTuple>) -> Option<Bound<'py, PyBytes>> {
    let text = arguments.get_item(0).ok()?;
    let encoding = arguments.get_item(1).ok()?;
    if arguments.len() != 2 || cpython::exact::<PyString>(&encoding)? != "latin1" {
        return None;
    }
    match cpython::characters(cpython::exact::<PyString>(&text)?)? {
        Characters::Latin1(bytes) => cpython::new_bytes(arguments.py(), bytes),
        Characters::Ucs2(_) | Characters::Ucs4(_) => None,
    }
}

/// The classes that pickles of the stream name, and what it takes to make their instances.
struct Globals {
    rules: &'static Rules,
    loads: Option<Py<PyAny>>,
    known: Vec<Global>,
    /// Whether the last pickle had to be given up at one that was not known or not looked at.
    met_unknown: bool,
    /// What has been raised where they were looked at.
    error: Option<PyErr>,
}

struct Global {
    module: Vec<u8>,
    name: Vec<u8>,
    object: Py<PyAny>,
    /// Whether it may be used in a walk, as was found before this one. `None` if it was not looked at.
    is_of_use: Option<bool>,
    /// In how many pickles before this one it was not named.
    unused: u8,
}

impl Globals {
    /// They are looked through one by one, and few streams have more.
    const MOST: usize = 64;
    /// One that was not named for so many pickles is no longer looked at before each. If it is named after all, that
    /// pickle is begun anew.
    const UNUSED: u8 = 8;

    fn new(rules: &'static Rules, loads: Option<Py<PyAny>>) -> Self {
        Self {
            rules,
            loads,
            known: Vec::new(),
            met_unknown: false,
            error: None,
        }
    }

    /// Looks at the classes, of which anything may have been changed between two items or in what ran before this walk.
    fn look(&mut self, py: Python<'_>) {
        for known in &mut self.known {
            known.is_of_use = None;
            if known.unused < Self::UNUSED {
                known.unused += 1;
                match is_of_use(known.object.bind(py), self.rules) {
                    Ok(is_of_use) => known.is_of_use = Some(is_of_use),
                    Err(error) => self.error = Some(error),
                }
            }
        }
    }

    fn find<'py>(&mut self, py: Python<'py>, module: &[u8], name: &[u8]) -> Option<Bound<'py, PyAny>> {
        let mut known = self.known.iter_mut();
        if let Some(known) = known.find(|known| known.is(module, name)) {
            known.unused = 0;
            if let Some(is_of_use) = known.is_of_use {
                return is_of_use.then(|| known.object.bind(py).clone());
            }
        }
        self.met_unknown = true;
        None
    }

    /// Finds out about all that the pickle names, if it had to be given up for one of them. `false` if that was not the reason,
    /// or the pickle is one for `loads`.
    fn learn(&mut self, py: Python<'_>, data: &[u8]) -> PyResult<bool> {
        let (true, Some(loads)) = (std::mem::take(&mut self.met_unknown), &self.loads) else {
            return Ok(false);
        };
        let room = Self::MOST - self.known.len();
        let mut names: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let whole = Scanner::new().scan_with(data, |global| {
            let scan::Global::Named { module, name, .. } = global else {
                return Ok(());
            };
            if let Some(known) = self.known.iter_mut().find(|known| known.is(module, name)) {
                // Now that it has been named it is looked at again.
                known.unused = 0;
            } else if names.len() <= room
                && !is_of_bytes(module, name)
                && !names.iter().any(|found| found.0 == module && found.1 == name)
            {
                push(&mut names, (concat(&[module])?, concat(&[name])?))?;
            }
            Ok(())
        });
        // One that is not whole comes again, or is damaged.
        if !matches!(whole, Ok(Some(_))) || names.len() > room {
            return Ok(false);
        }
        for (module, name) in names {
            let object = load_global(loads.bind(py), 0, &module, &name)?;
            let is_of_use = is_of_use(&object, self.rules)?;
            let global = Global {
                module,
                name,
                object: object.unbind(),
                is_of_use: None,
                unused: 0,
            };
            push(&mut self.known, global)?;
            if !is_of_use {
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

/// Whether it is one of the two functions as which protocol 0 spells bytes.
fn is_of_bytes(module: &[u8], name: &[u8]) -> bool {
    matches!((module, name), (b"_codecs", b"encode") | (b"__builtin__", b"bytes"))
}

/// Whether it is an ordinary class, or one of the two things with which its instances are made.
fn is_of_use(object: &Bound<'_, PyAny>, rules: &Rules) -> PyResult<bool> {
    if object.is(object.py().get_type::<PyAny>()) || object.is(&rules.reconstructor) {
        return Ok(true);
    }
    match cpython::exact::<PyType>(object) {
        Some(class) => rules.uses_default_pickling(class),
        None => Ok(false),
    }
}

/// The class or function that unpickling finds under a name.
pub(super) fn load_global<'py>(
    loads: &Bound<'py, PyAny>,
    protocol: u8,
    module: &[u8],
    name: &[u8],
) -> PyResult<Bound<'py, PyAny>> {
    Walk::assert_none();
    // A pickle of the mere name, so that the unpickler's own rules hold.
    let pickle = concat(&[b"\x80", &[protocol], b"c", module, b"\n", name, b"\n."])?;
    loads.call1((new_bytes(loads.py(), &pickle)?,))
}

/// The strings that were keys lately: items of one shape have the same keys, and a string that is there already has
/// its hash already.
#[derive(Default)]
struct Keys {
    keys: Vec<Key>,
    /// For each hash, where its key is, `NONE` if nowhere.
    places: Vec<u16>,
    pickle: u32,
    /// Where the last key is, and the one that came next the last time.
    last: usize,
    expected: usize,
}

struct Key {
    text: Py<PyString>,
    line: ExpectedLine,
    /// The pickle that has the string. CPython would make a second one if the same pickle spells it out again, and if
    /// the item is pickled again one can tell.
    pickle: u32,
    /// Where the key is that came next the last time.
    next: usize,
    /// The interned string that is equal, once it has been an attribute's name.
    name: Option<Py<PyString>>,
}

impl Keys {
    /// A power of two.
    const MOST: usize = 2048;
    const NONE: u16 = u16::MAX;
    const LONGEST: usize = 32;

    fn next_pickle(&mut self) {
        if self.pickle == u32::MAX {
            *self = Self::default();
        }
        self.pickle += 1;
    }

    /// The str that the next token is, if it is the one that came next the last time. That takes neither a search for the
    /// line's end nor a look-up.
    #[inline(always)]
    fn expect<'py>(&mut self, py: Python<'py>, tokens: &mut Tokens<'_>) -> Option<Bound<'py, PyString>> {
        let key = self.keys.get_mut(self.expected)?;
        if key.pickle == self.pickle || !tokens.accept(&key.line) {
            return None;
        }
        key.pickle = self.pickle;
        self.last = self.expected;
        self.expected = key.next;
        Some(key.text.bind(py).clone())
    }

    /// The str that a line is, if it is there and this pickle doesn't have it yet. Those that are there have no escapes, so
    /// that no other line is the same.
    #[inline]
    fn find<'py>(&mut self, py: Python<'py>, line: &[u8]) -> Option<Bound<'py, PyString>> {
        let place = usize::from(*self.places.get(hash(line))?);
        let key = self.keys.get_mut(place)?;
        if key.pickle == self.pickle || !same(key.text.bind(py), line) {
            return None;
        }
        key.pickle = self.pickle;
        let text = key.text.bind(py).clone();
        self.follow(place);
        Some(text)
    }

    /// Keeps the str that an ASCII line without escapes is.
    #[inline]
    fn keep(&mut self, ascii: &[u8], text: &Bound<'_, PyString>) {
        // The first pickle may be the only one.
        if ascii.len() > Self::LONGEST || ascii.len() < 2 || self.pickle == 1 {
            return;
        }
        if self.places.is_empty() {
            if grow(&mut self.places, Self::MOST).is_err() {
                return;
            }
            self.places.resize(Self::MOST, Self::NONE);
        }
        let place = &mut self.places[hash(ascii)];
        let key = Key {
            text: text.clone().unbind(),
            line: ExpectedLine::new(opcode::UNICODE, ascii),
            pickle: self.pickle,
            next: usize::from(*place),
            name: None,
        };
        match self.keys.get_mut(usize::from(*place)) {
            // One that is equal serves the next pickle as well.
            Some(known) if same(known.text.bind(text.py()), ascii) => return,
            Some(known) => *known = key,
            None => {
                let next = self.keys.len() as u16;
                if push(&mut self.keys, key).is_err() {
                    return;
                }
                *place = next;
            }
        }
        let place = usize::from(*place);
        self.follow(place);
    }

    /// Remembers that a key came next.
    #[inline]
    fn follow(&mut self, place: usize) {
        if let Some(last) = self.keys.get_mut(self.last) {
            last.next = place;
        }
        self.last = place;
        self.expected = self.keys.get(place).map_or(place, |key| key.next);
    }

    /// The interned str that is equal to this one, as which CPython keeps an attribute's name. No key becomes it: the same
    /// string may be a key elsewhere, where CPython would have two.
    #[inline]
    fn interned<'py>(&mut self, text: &Bound<'py, PyString>) -> Option<Bound<'py, PyString>> {
        let py = text.py();
        if let Characters::Latin1(ascii) = cpython::characters(text)?
            && let Some(place) = self.places.get(hash(ascii))
            && let Some(key) = self.keys.get_mut(usize::from(*place))
            && key.text.is(text)
        {
            if key.name.is_none() {
                key.name = Some(cpython::interned(cpython::new_latin1(py, ascii, ASCII)?).unbind());
            }
            return key.name.as_ref().map(|name| name.bind(py).clone());
        }
        Some(cpython::interned(text.clone()))
    }
}

#[inline]
fn starts_with_underscores(name: &Bound<'_, PyString>) -> Option<bool> {
    Some(matches!(cpython::characters(name)?, Characters::Latin1(name) if name.starts_with(b"__")))
}

#[inline]
fn same(text: &Bound<'_, PyString>, ascii: &[u8]) -> bool {
    matches!(cpython::characters(text), Some(Characters::Latin1(characters)) if characters == ascii)
}

/// Below `Keys::MOST`. Every byte of the longest key counts, and the length. The product's highest bits are those on which
/// all others have an effect.
#[inline]
fn hash(line: &[u8]) -> usize {
    let (first, last) = if let (Some(first), Some(last)) = (line.first_chunk(), line.last_chunk()) {
        (folded(u128::from_le_bytes(*first)), folded(u128::from_le_bytes(*last)))
    } else if let (Some(first), Some(last)) = (line.first_chunk(), line.last_chunk()) {
        (u64::from_le_bytes(*first), u64::from_le_bytes(*last))
    } else if let (Some(first), Some(last)) = (line.first_chunk(), line.last_chunk()) {
        (u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into())
    } else {
        (line.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)), 0)
    };
    let word = first ^ last.rotate_left(29) ^ line.len() as u64;
    (word.wrapping_mul(0x517c_c1b7_2722_0a95) >> (u64::BITS - Keys::MOST.ilog2())) as usize
}

#[inline]
fn folded(word: u128) -> u64 {
    word as u64 ^ ((word >> 64) as u64).rotate_left(19)
}
