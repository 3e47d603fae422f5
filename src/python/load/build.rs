//! The stack machine that executes the tokens of a pickle.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyInt, PyList, PyNone, PyString, PyTuple, PyType};

use super::globals::Globals;
use super::keys::Keys;
use crate::memory::{clear, push, recycle};
use crate::pickle::expected_line::NextPut;
use crate::pickle::opcode;
use crate::pickle::read::{ASCII, Text, Token, Tokens};
use crate::python::cpython::{self, Characters};
use crate::python::natives::read::{self, State};
use crate::python::natives::{Native, is_plain_key};
use crate::python::walk::Walk;

/// The memory that one build leaves for the next.
#[derive(Default)]
pub(super) struct Buffers {
    stack: Vec<Py<PyAny>>,
    memo: Vec<Option<Py<PyAny>>>,
    marks: Vec<usize>,
}

/// Builds items, one after the other.
pub(super) struct Builder<'a, 'py> {
    py: Python<'py>,
    stack: Vec<Bound<'py, PyAny>>,
    /// `None` stands for what was passed over without being made. No pickler asks for it again.
    memo: Vec<Option<Bound<'py, PyAny>>>,
    next_put: NextPut,
    /// The values of `fence` at the marks below the last one.
    marks: Vec<usize>,
    /// The stack's height at the last mark. Only a token that takes everything down to the mark may reach below it.
    fence: usize,
    buffers: &'a mut Buffers,
    keys: &'a mut Keys,
    globals: &'a mut Globals,
    encode: &'a Bound<'py, PyAny>,
    /// Objects that run Python code when they end, and so outlive the walk.
    staying: Vec<Bound<'py, PyAny>>,
    walk: Option<Walk>,
}

impl<'a, 'py> Builder<'a, 'py> {
    /// The most digits of an int.
    const MAX_INT_DIGITS: usize = 4_000;
    /// From this size on, in bytes, releasing the GIL for a text is worth its cost.
    const LONG_TEXT: usize = 1 << 16;

    pub(super) fn new(
        py: Python<'py>,
        buffers: &'a mut Buffers,
        keys: &'a mut Keys,
        globals: &'a mut Globals,
        encode: &'a Bound<'py, PyAny>,
    ) -> Self {
        Self {
            py,
            stack: recycle(&mut buffers.stack),
            memo: recycle(&mut buffers.memo),
            next_put: NextPut::default(),
            marks: std::mem::take(&mut buffers.marks),
            fence: 0,
            buffers,
            keys,
            globals,
            encode,
            staying: Vec::new(),
            walk: None,
        }
    }

    /// Builds the item at `data`'s beginning. Returns it and its size in bytes, or `None` if it is one for `loads`. Fails if
    /// checking the classes has raised an exception.
    pub(super) fn item(&mut self, data: &[u8]) -> PyResult<Option<(Bound<'py, PyAny>, usize)>> {
        clear(&mut self.stack);
        clear(&mut self.memo);
        clear(&mut self.marks);
        self.next_put = NextPut::default();
        self.fence = 0;
        self.keys.next_pickle();
        self.globals.check_all(self.py);
        let mut tokens = Tokens::new(data);
        self.walk = Some(Walk::new(self.py));
        let item = self.execute(&mut tokens);
        self.walk = None;
        self.staying.clear();
        self.globals.error.take().map_or(Ok(()), Err)?;
        let item = item.filter(|_| !self.globals.zones.met_unknown());
        Ok(item.map(|item| (item, tokens.consumed())))
    }

    /// Drops what was begun, and leaves the memory for the next build.
    pub(super) fn end(mut self) {
        self.buffers.stack = recycle(&mut self.stack);
        self.buffers.memo = recycle(&mut self.memo);
        self.buffers.marks = std::mem::take(&mut self.marks);
    }

    #[inline]
    fn execute(&mut self, tokens: &mut Tokens<'_>) -> Option<Bound<'py, PyAny>> {
        let py = self.py;
        loop {
            match tokens.next_token()? {
                Token::Put(number) => self.put(number)?,
                Token::Text(line) => {
                    self.text(line)?;
                    self.accept_put(tokens)?;
                }
                Token::SetItem => {
                    self.set_item()?;
                    self.accept_expected_key(tokens)?;
                }
                Token::Append => self.append()?,
                Token::Int(value) => self.push(cpython::new_int(py, value)?)?,
                Token::Mark => self.mark()?,
                Token::List => {
                    self.collect_empty(cpython::new_list(py)?)?;
                    self.accept_put(tokens)?;
                }
                Token::Dict => {
                    self.collect_empty(cpython::new_dict(py)?)?;
                    self.accept_put(tokens)?;
                    self.accept_expected_key(tokens)?;
                }
                Token::Tuple => {
                    self.tuple()?;
                    self.accept_put(tokens)?;
                }
                Token::Bool(value) => self.push(PyBool::new(py, value).to_owned())?,
                Token::None => self.push(PyNone::get(py).to_owned())?,
                Token::Float(value) => self.push(cpython::new_float(py, value)?)?,
                Token::Get(number) => {
                    let object = self.get(number)?;
                    let made = cpython::exact::<PyType>(&object).and_then(|class| self.made_ahead(class, tokens));
                    match made {
                        Some(made) => {
                            self.push(made)?;
                            self.accept_put(tokens)?;
                        }
                        None => self.push(object)?,
                    }
                }
                Token::Long(digits) => self.long(digits)?,
                Token::Global(module, name) => self.global(module, name)?,
                Token::Reduce => self.reduce()?,
                Token::Build => self.set_attributes()?,
                Token::Pop => self.pop_value_or_mark()?,
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
            push(&mut self.memo, Some(object)).ok()?;
            self.next_put.increment();
        } else {
            *self.memo.get_mut(number)? = Some(object);
        }
        Some(())
    }

    #[inline]
    fn get(&self, number: usize) -> Option<Bound<'py, PyAny>> {
        self.memo.get(number)?.clone()
    }

    /// Takes the PUT that CPython writes after each object that may occur again. Recognizing it is cheaper than reading it.
    #[inline(always)]
    fn accept_put(&mut self, tokens: &mut Tokens<'_>) -> Option<()> {
        if tokens.accept(self.next_put.line()) {
            self.next_put.increment();
            push(&mut self.memo, Some(self.stack.last()?.clone())).ok()?;
        }
        Some(())
    }

    /// Takes the key that followed the last time, in the same way, and its PUT.
    #[inline(always)]
    fn accept_expected_key(&mut self, tokens: &mut Tokens<'_>) -> Option<()> {
        if let Some(key) = self.keys.accept_expected(self.py, tokens) {
            self.push(key)?;
            self.accept_put(tokens)?;
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
                    self.keys.insert(line, &text);
                }
                text
            }
        };
        self.push(text)
    }

    /// Most likely, an item that begins with a long text consists of it. Other threads may run meanwhile, as nothing is half-built
    /// yet.
    #[cold]
    fn lone_long_text(&mut self, line: &[u8]) -> Option<()> {
        self.walk = None;
        let text = cpython::new_long_str(self.py, line)?;
        self.globals.check_all(self.py);
        self.walk = Some(Walk::new(self.py));
        self.push(text)
    }

    /// Python limits the digits, and reads the longest ints by Python code.
    fn long(&mut self, digits: &[u8]) -> Option<()> {
        if digits.len() > Self::MAX_INT_DIGITS {
            return None;
        }
        let digits = cpython::new_latin1(self.py, digits, ASCII)?;
        let int = self.py.get_type::<PyInt>().call1((digits,)).ok()?;
        self.push(int)
    }

    #[inline]
    fn append(&mut self) -> Option<()> {
        let item = self.pop()?;
        let top = self.top()?;
        match cpython::exact::<PyList>(top) {
            Some(list) => list.append(item).ok(),
            None => read::append(self.globals.natives, top, &item),
        }
    }

    /// A key is plain, so that its hash and comparison run no Python code.
    #[inline]
    fn set_item(&mut self) -> Option<()> {
        let value = self.pop()?;
        let key = self.pop()?;
        if cpython::exact::<PyString>(&key).is_none() && !is_plain_key(self.globals.natives, &key) {
            return None;
        }
        let top = self.top()?;
        match cpython::exact::<PyDict>(top) {
            Some(dict) => dict.set_item(key, value).ok(),
            None => read::set_item(self.globals.natives, top, &key, &value),
        }
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
    fn collect_empty<T>(&mut self, empty: Bound<'py, T>) -> Option<()> {
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

    fn pop_value_or_mark(&mut self) -> Option<()> {
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
            let made = reconstructed(arguments)?;
            if self.globals.models.must_stay(&made.get_type()) {
                push(&mut self.staying, made.clone()).ok()?;
            }
            made
        } else {
            self.called(&function, arguments)?
        };
        self.push(object)
    }

    /// What comes of the call of a date's type, if the tokens spell it as CPython does once the pickle has named all that it
    /// takes. Nothing of what it is made of gets made, other than the date.
    #[inline(never)]
    fn made_ahead(&mut self, class: &Bound<'py, PyType>, tokens: &mut Tokens<'_>) -> Option<Bound<'py, PyAny>> {
        let native = self.globals.natives.find(class)?;
        if !matches!(native, Native::DateTime | Native::Date) {
            return None;
        }
        let (mut ahead, mut next_put) = (tokens.clone(), self.next_put.clone());
        let mut put = |ahead: &mut Tokens<'_>| {
            let found = ahead.accept(next_put.line());
            next_put.increment();
            found.then_some(())
        };
        ahead.take(opcode::MARK)?;
        if !self.get(ahead.take_get()?)?.is(self.encode) {
            return None;
        }
        ahead.take(opcode::MARK)?;
        let state = State::of_line(ahead.take_text()?)?;
        put(&mut ahead)?;
        let encoding = self.get(ahead.take_get()?)?;
        if *cpython::exact::<PyString>(&encoding)? != "latin1" {
            return None;
        }
        ahead.take(opcode::TUPLE)?;
        put(&mut ahead)?;
        ahead.take(opcode::REDUCE)?;
        put(&mut ahead)?;
        let zone = match ahead.take(opcode::TUPLE) {
            Some(()) => None,
            None => {
                let zone = self.get(ahead.take_get()?)?;
                ahead.take(opcode::TUPLE)?;
                Some(zone)
            }
        };
        put(&mut ahead)?;
        ahead.take(opcode::REDUCE)?;
        let made = state.of(self.globals.natives, native, self.py, zone.as_ref())?;
        for _ in 0..4 {
            push(&mut self.memo, None).ok()?;
        }
        self.next_put = next_put;
        *tokens = ahead;
        Some(made)
    }

    /// Calls what a native type is made by.
    fn called(&mut self, function: &Bound<'py, PyAny>, arguments: &Bound<'py, PyTuple>) -> Option<Bound<'py, PyAny>> {
        let natives = self.globals.natives;
        if let Some(native) = natives.find(function) {
            let is_plain = |item: &Bound<'py, PyAny>| is_plain_key(natives, item);
            return read::called(natives, native, function, arguments, is_plain);
        }
        if self.globals.models.is_maker(function) {
            return self.globals.models.made(arguments);
        }
        if function.is(&natives.getattr) {
            return read::unpickle_zone(natives, arguments);
        }
        let unpickle = natives.unpickle_zone.as_ref()?;
        function.is(unpickle).then(|| self.globals.zones.find(arguments))?
    }

    /// The instance is one of an ordinary class or a UUID, as no others are made here.
    fn set_attributes(&mut self) -> Option<()> {
        let state = self.pop()?;
        let state = cpython::exact::<PyDict>(&state)?;
        let instance = self.top().filter(|top| cpython::has_heap_type(top))?;
        let natives = self.globals.natives;
        match natives.of(instance) {
            Some(Native::Uuid) => return read::set_uuid(natives, instance, state),
            Some(_) => return None,
            None => {}
        }
        if let Some(place) = self.globals.models.of(instance) {
            return self.globals.models.set(place, self.stack.last()?, state);
        }
        let attributes = cpython::attributes(instance)?;
        for (name, value) in state {
            let name = match cpython::exact::<PyString>(&name) {
                // It may be a hook of pickling.
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

/// Returns what `copyreg._reconstructor(class, object, None)` returns.
fn reconstructed<'py>(arguments: &Bound<'py, PyTuple>) -> Option<Bound<'py, PyAny>> {
    let py = arguments.py();
    let class = arguments.get_item(0).ok()?;
    let base = arguments.get_item(1).ok()?;
    if arguments.len() != 3 || !base.is(py.get_type::<PyAny>()) || !arguments.get_item(2).ok()?.is_none() {
        return None;
    }
    cpython::new_instance(cpython::exact::<PyType>(&class)?)
}

/// Returns what `_codecs.encode(text, 'latin1')` returns.
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

#[inline]
fn starts_with_underscores(name: &Bound<'_, PyString>) -> Option<bool> {
    Some(matches!(cpython::characters(name)?, Characters::Latin1(name) if name.starts_with(b"__")))
}
