//! Where a pickle ends.
//!
//! Pickles carry no length: the end is the STOP that follows the last whole opcode. The scanner walks the opcodes of
//! every protocol (0 to 5), executes none, and refuses pickles of a shape that CPython's unpickler refuses: an unknown
//! opcode, a stack that runs empty, a missing mark. It also refuses a memo number larger than the pickle, for which the
//! unpickler would allocate memory. So each pickle that it refuses is damaged. The opcodes are those of CPython's
//! `pickletools`.

use std::collections::HashMap;
use std::ops::Range;

use super::find::find;
use super::opcode;
use crate::error::{Error, Result};
use crate::memory::push;

const UNKNOWN_OPCODE: Error = Error::pickle("an unknown opcode");
const UNDERFLOW: Error = Error::pickle("an opcode finds too little on the stack");
const NO_MARK: Error = Error::pickle("an opcode finds no mark");
const NO_SUCH_MEMO: Error = Error::pickle("a memo number beyond any pickle of its size");
const NOT_WRITTEN_SO: Error = Error::pickle("pickles are not written like this");
const TOO_LONG: Error = Error::pickle("a length beyond any memory");

/// The layout of the bytes after an opcode.
#[derive(Debug, Clone, Copy)]
enum Argument {
    /// This many bytes.
    Fixed(usize),
    /// A little-endian length of this many bytes, then as many bytes as it says.
    Counted(usize),
    /// This many lines.
    Lines(u8),
}

/// The effect of an opcode on the stack's depth.
#[derive(Debug, Clone, Copy)]
enum Effect {
    /// Takes some values off, puts some on.
    Replace { takes: usize, puts: usize },
    /// Sets a mark.
    Mark,
    /// Takes everything down to the last mark and some values below it, puts some on.
    ToMark { takes: usize, puts: usize },
    /// Takes a value off or, if that is on top, a mark.
    Pop,
    /// Ends the pickle.
    Stop,
}

/// An opcode of a pickle, with its argument.
#[derive(Debug, Clone, Copy)]
pub struct Operation<'a> {
    /// The opcode's byte.
    pub opcode: u8,
    /// The opcode and its whole argument, lengths and newlines included.
    pub whole: &'a [u8],
    /// The argument's content: without its length; of lines, all of them but for the last newline.
    pub content: &'a [u8],
}

/// The opcodes of a pickle that a [`Scanner`] has found to be whole, up to the end of `data` or an unknown opcode.
pub fn operations(data: &[u8]) -> impl Iterator<Item = Operation<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = data.get(at..)?;
        let opcode = *rest.first()?;
        let content = match OPCODES[usize::from(opcode)]?.argument {
            Argument::Fixed(size) => 1..1 + size,
            Argument::Counted(size) => {
                let start = 1 + size;
                start..end_of(start, little_endian(rest.get(1..start)?)).ok()?
            }
            Argument::Lines(lines) => {
                let end = (0..lines).try_fold(1, |end, _| line_end(rest, end))?;
                1..end - 1
            }
        };
        let newline = usize::from(matches!(OPCODES[usize::from(opcode)]?.argument, Argument::Lines(_)));
        let whole = rest.get(..content.end + newline)?;
        at += whole.len();
        Some(Operation {
            opcode,
            whole,
            content: &whole[content],
        })
    })
}

/// The meaning of an opcode for strings and globals: the scanner tells which global STACK_GLOBAL means.
#[derive(Debug, Clone, Copy)]
enum Meaning {
    Other,
    Global,
    Extension,
    StackGlobal,
    String,
    Get,
    Put,
    Memoize,
    LinePut,
    /// PROTO and FRAME, which leave the stack as it is.
    Framing,
}

#[derive(Debug, Clone, Copy)]
struct Opcode {
    argument: Argument,
    effect: Effect,
    meaning: Meaning,
}

static OPCODES: [Option<Opcode>; 256] = {
    let mut table = [None; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = describe(byte as u8);
        byte += 1;
    }
    table
};

/// A PUT of protocol 0 is taken without a look at its number if its line is no longer than this, in bytes.
const LONGEST_NUMBER: usize = 8;

/// The protocol of what protocol 0 can't carry.
const WIDER_PROTOCOL: u8 = 4;

const fn describe(byte: u8) -> Option<Opcode> {
    use Argument::{Counted, Fixed, Lines};
    use Meaning::{Extension, Framing, Get, Global, LinePut, Memoize, Other, Put, StackGlobal, String};

    const NONE: Argument = Fixed(0);
    const PUSH: Effect = Effect::Replace { takes: 0, puts: 1 };
    const SAME: Effect = Effect::Replace { takes: 1, puts: 1 };
    const TWO_TO_ONE: Effect = Effect::Replace { takes: 2, puts: 1 };
    const THREE_TO_ONE: Effect = Effect::Replace { takes: 3, puts: 1 };
    const COLLECT: Effect = Effect::ToMark { takes: 0, puts: 1 };
    const EXTEND: Effect = Effect::ToMark { takes: 1, puts: 1 };

    let (argument, effect, meaning) = match byte {
        opcode::MARK => (NONE, Effect::Mark, Other),
        opcode::STOP => (NONE, Effect::Stop, Other),
        opcode::POP => (NONE, Effect::Pop, Other),
        opcode::POP_MARK => (NONE, Effect::ToMark { takes: 0, puts: 0 }, Other),
        opcode::DUP => (NONE, Effect::Replace { takes: 1, puts: 2 }, Other),
        opcode::NONE
        | opcode::EMPTY_LIST
        | opcode::EMPTY_TUPLE
        | opcode::EMPTY_DICT
        | opcode::NEWTRUE
        | opcode::NEWFALSE
        | opcode::EMPTY_SET
        | opcode::NEXT_BUFFER => (NONE, PUSH, Other),
        opcode::BINPERSID | opcode::TUPLE1 | opcode::READONLY_BUFFER => (NONE, SAME, Other),
        opcode::REDUCE | opcode::BUILD | opcode::APPEND | opcode::NEWOBJ | opcode::TUPLE2 => (NONE, TWO_TO_ONE, Other),
        opcode::SETITEM | opcode::TUPLE3 | opcode::NEWOBJ_EX => (NONE, THREE_TO_ONE, Other),
        opcode::TUPLE | opcode::LIST | opcode::DICT | opcode::OBJ | opcode::FROZENSET => (NONE, COLLECT, Other),
        opcode::APPENDS | opcode::SETITEMS | opcode::ADDITEMS => (NONE, EXTEND, Other),
        opcode::FLOAT
        | opcode::INT
        | opcode::LONG
        | opcode::PERSID
        | opcode::STRING
        | opcode::UNICODE
        | opcode::GET => (Lines(1), PUSH, Other),
        opcode::PUT => (Lines(1), SAME, LinePut),
        opcode::GLOBAL => (Lines(2), PUSH, Global),
        opcode::INST => (Lines(2), COLLECT, Global),
        opcode::BININT1 => (Fixed(1), PUSH, Other),
        opcode::BININT2 => (Fixed(2), PUSH, Other),
        opcode::BININT => (Fixed(4), PUSH, Other),
        opcode::BINFLOAT => (Fixed(8), PUSH, Other),
        opcode::BINGET => (Fixed(1), PUSH, Get),
        opcode::LONG_BINGET => (Fixed(4), PUSH, Get),
        opcode::BINPUT => (Fixed(1), SAME, Put),
        opcode::LONG_BINPUT => (Fixed(4), SAME, Put),
        opcode::MEMOIZE => (NONE, SAME, Memoize),
        opcode::EXT1 => (Fixed(1), PUSH, Extension),
        opcode::EXT2 => (Fixed(2), PUSH, Extension),
        opcode::EXT4 => (Fixed(4), PUSH, Extension),
        opcode::STACK_GLOBAL => (NONE, TWO_TO_ONE, StackGlobal),
        opcode::PROTO => (Fixed(1), Effect::Replace { takes: 0, puts: 0 }, Framing),
        opcode::FRAME => (Fixed(8), Effect::Replace { takes: 0, puts: 0 }, Framing),
        opcode::SHORT_BINSTRING | opcode::SHORT_BINBYTES | opcode::LONG1 => (Counted(1), PUSH, Other),
        opcode::BINSTRING | opcode::BINBYTES | opcode::LONG4 => (Counted(4), PUSH, Other),
        opcode::BINBYTES8 | opcode::BYTEARRAY8 => (Counted(8), PUSH, Other),
        opcode::SHORT_BINUNICODE => (Counted(1), PUSH, String),
        opcode::BINUNICODE => (Counted(4), PUSH, String),
        opcode::BINUNICODE8 => (Counted(8), PUSH, String),
        _ => return None,
    };
    Some(Opcode {
        argument,
        effect,
        meaning,
    })
}

/// Whether CPython's pickler writes this opcode in protocol 0.
const fn is_written_in_protocol_0(byte: u8) -> bool {
    matches!(
        byte,
        opcode::MARK | opcode::STOP
            | opcode::POP
            | opcode::FLOAT
            | opcode::INT
            | opcode::LONG
            | opcode::NONE
            | opcode::REDUCE
            | opcode::UNICODE
            | opcode::APPEND
            | opcode::BUILD
            | opcode::GLOBAL
            | opcode::DICT
            | opcode::GET
            | opcode::LIST
            | opcode::PUT
            | opcode::SETITEM
            | opcode::TUPLE
            // TUPLE2: with a function that sets the state, a reduction has it in every protocol.
            | opcode::TUPLE2
    )
}

/// Whether CPython's pickler writes this opcode in protocol 4, other than as the first one.
const fn is_written_in_protocol_4(byte: u8) -> bool {
    matches!(
        byte,
        opcode::MARK
            | opcode::STOP
            | opcode::POP
            | opcode::POP_MARK
            | opcode::NONE
            | opcode::REDUCE
            | opcode::APPEND
            | opcode::BUILD
            | opcode::APPENDS
            | opcode::SETITEM
            | opcode::TUPLE
            | opcode::SETITEMS
            | opcode::BININT
            | opcode::BININT1
            | opcode::BININT2
            | opcode::BINFLOAT
            | opcode::LONG1
            | opcode::LONG4
            | opcode::NEWTRUE
            | opcode::NEWFALSE
            | opcode::SHORT_BINBYTES
            | opcode::BINBYTES
            | opcode::BINBYTES8
            | opcode::SHORT_BINUNICODE
            | opcode::BINUNICODE
            | opcode::BINUNICODE8
            | opcode::EMPTY_TUPLE
            | opcode::TUPLE1
            | opcode::TUPLE2
            | opcode::TUPLE3
            | opcode::EMPTY_LIST
            | opcode::EMPTY_DICT
            | opcode::EMPTY_SET
            | opcode::FROZENSET
            | opcode::ADDITEMS
            | opcode::STACK_GLOBAL
            | opcode::EXT1
            | opcode::EXT2
            | opcode::EXT4
            | opcode::NEWOBJ
            | opcode::NEWOBJ_EX
            | opcode::BINGET
            | opcode::LONG_BINGET
            | opcode::MEMOIZE
            | opcode::FRAME
    )
}

/// Every str that CPython writes gets a memo number.
fn check_memoized(data: &[u8], end: usize) -> Result<()> {
    match data.get(end) {
        Some(&opcode::PUT) | None => Ok(()),
        Some(_) => Err(NOT_WRITTEN_SO),
    }
}

/// A class or function that a pickle names, as it stands in the pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Global<'a> {
    /// `module` and `name`, which mean what the protocol says: below 3 the unpickler maps Python 2's names to Python 3's, and
    /// from 4 on a dot in the name leads to an attribute of an attribute.
    Named {
        /// The pickle's protocol.
        protocol: u8,
        /// The module, in UTF-8.
        module: &'a [u8],
        /// The name inside the module, in UTF-8.
        name: &'a [u8],
    },
    /// A code of `copyreg`'s extension registry.
    Extension(u32),
    /// STACK_GLOBAL on values that only executing the pickle can tell.
    Unknown,
}

/// The depth of the unpickler's stack and its marks.
#[derive(Debug, Default)]
struct Depth {
    values: usize,
    /// The depth at the last mark, which no opcode but those that collect may reach through.
    fence: usize,
    /// The fences below.
    marks: Vec<usize>,
    marked: bool,
}

impl Depth {
    #[inline]
    fn replace(&mut self, takes: usize, puts: usize) -> Result<()> {
        if self.values - self.fence < takes {
            return Err(UNDERFLOW);
        }
        self.values = self.values - takes + puts;
        Ok(())
    }

    #[inline]
    fn mark(&mut self) -> Result<()> {
        if self.marked {
            push(&mut self.marks, self.fence)?;
        }
        self.marked = true;
        self.fence = self.values;
        Ok(())
    }

    #[inline]
    fn collect(&mut self, takes: usize, puts: usize) -> Result<()> {
        if !self.marked {
            return Err(NO_MARK);
        }
        self.values = self.fence;
        self.unmark();
        self.replace(takes, puts)
    }

    fn unmark(&mut self) {
        let below = self.marks.pop();
        self.marked = below.is_some();
        self.fence = below.unwrap_or(0);
    }

    fn pop(&mut self) -> Result<()> {
        if self.marked && self.values == self.fence {
            self.unmark();
            return Ok(());
        }
        self.replace(1, 0)
    }

    fn apply(&mut self, effect: Effect) -> Result<()> {
        match effect {
            Effect::Replace { takes, puts } => self.replace(takes, puts),
            Effect::Mark => self.mark(),
            Effect::ToMark { takes, puts } => self.collect(takes, puts),
            Effect::Pop => self.pop(),
            Effect::Stop => self.replace(1, 0),
        }
    }
}

/// Where a string of the pickle stands, if the value is a string that the scanner has seen.
type Span = Option<Range<usize>>;

/// As much of the stack and the memo as it takes to name STACK_GLOBAL's operands in the pickles that CPython writes.
#[derive(Debug, Default)]
struct Strings {
    /// The two values on top of the stack.
    top: [Span; 2],
    memo: HashMap<usize, Span>,
    /// PUTs of protocol 0 are not followed: after one, nothing is known.
    lost: bool,
}

impl Strings {
    fn push(&mut self, span: Span) {
        self.top.swap(0, 1);
        self.top[1] = span;
    }

    fn put(&mut self, number: usize) -> Result<()> {
        self.memo.try_reserve(1).map_err(|_| Error::Memory)?;
        self.memo.insert(number, self.top[1].clone());
        Ok(())
    }

    fn stack_global<'a>(&self, data: &'a [u8], protocol: u8) -> Global<'a> {
        let text = |span: &Span| data.get(span.clone()?);
        match (text(&self.top[0]), text(&self.top[1])) {
            (Some(module), Some(name)) if !self.lost => Global::Named { protocol, module, name },
            _ => Global::Unknown,
        }
    }
}

/// The result of one opcode.
enum Step {
    /// It ends here.
    Whole(usize),
    /// It is STOP, and the pickle ends here.
    Stop(usize),
    /// The data ends in the middle of it.
    Partial,
}

/// Finds the end of a pickle in data that arrives in pieces.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Where the first opcode starts that is not done.
    at: usize,
    /// How far that opcode's current line has been searched, and how many of its lines are found.
    searched: usize,
    lines: u8,
    first_line_end: usize,
    depth: Depth,
    strings: Strings,
    /// The protocol that the pickle says, 0 as long as it says none.
    protocol: u8,
    as_written: bool,
}

impl Scanner {
    /// A scanner at the first byte of a pickle.
    pub fn new() -> Self {
        Self::default()
    }

    /// A scanner of complete data that accepts only opcodes that CPython's pickler writes in protocols 0 and 4. The
    /// unpickler accepts more.
    ///
    /// Two random bytes are a pickle of any protocol in one of 10,000 cases, six in one of 65,000: many opcodes of later
    /// protocols push a value of any bytes. In protocol 0, two are `N.` in one of 65,536 cases, and more are one far more
    /// seldom. A pickle of protocol 4 says so in its first two bytes, which one of 65,536 texts begins with, and has to be one
    /// from there to the last byte.
    pub fn as_written() -> Self {
        Self {
            as_written: true,
            ..Self::default()
        }
    }

    /// Forgets everything, for the next pickle.
    pub fn reset(&mut self) {
        self.depth.marks.clear();
        self.strings.memo.clear();
        let marks = std::mem::take(&mut self.depth.marks);
        let memo = std::mem::take(&mut self.strings.memo);
        *self = Self {
            as_written: self.as_written,
            ..Self::default()
        };
        self.depth.marks = marks;
        self.strings.memo = memo;
    }

    /// The length of the pickle, STOP included, or `None` as long as it is incomplete.
    ///
    /// `data` starts at the pickle's first byte and may only have grown since the last call.
    pub fn scan(&mut self, data: &[u8]) -> Result<Option<usize>> {
        self.scan_with(data, |_| Ok(()))
    }

    /// As [`scan`](Self::scan), reporting each global on the way. An error of `found` ends it.
    ///
    /// A pickle's error has the offset of the opcode where it was noticed, from the pickle's first byte.
    pub fn scan_with(&mut self, data: &[u8], mut found: impl FnMut(Global<'_>) -> Result<()>) -> Result<Option<usize>> {
        self.run(data, &mut found)
            .map_err(|error| error.moved_by(self.at as u64))
    }

    fn run(&mut self, data: &[u8], found: &mut impl FnMut(Global<'_>) -> Result<()>) -> Result<Option<usize>> {
        // One step first: it alone remembers how far an incomplete opcode has been searched.
        loop {
            match self.step(data, found)? {
                Step::Whole(end) => self.at = end,
                Step::Stop(end) => return Ok(Some(end)),
                Step::Partial => return Ok(None),
            }
            self.frequent(data)?;
        }
    }

    /// Runs through the opcodes that plain values of protocol 0 consist of, up to the first other or incomplete one.
    #[inline]
    fn frequent(&mut self, data: &[u8]) -> Result<()> {
        if self.as_written && self.protocol != 0 {
            return Ok(());
        }
        let mut at = self.at;
        let result = self.pass_frequent(data, &mut at);
        if at > self.at {
            self.at = at;
            self.strings.top = [None, None];
        }
        result
    }

    /// Moves `at` past each opcode that is done.
    #[inline(always)]
    fn pass_frequent(&mut self, data: &[u8], at: &mut usize) -> Result<()> {
        let depth = &mut self.depth;
        while let Some(&byte) = data.get(*at) {
            match byte {
                opcode::PUT | opcode::UNICODE | opcode::INT | opcode::GET | opcode::FLOAT => {
                    let Some(end) = line_end(data, *at + 1) else { break };
                    if byte == opcode::UNICODE && self.as_written {
                        check_memoized(data, end)?;
                    }
                    if byte == opcode::PUT {
                        if end - *at - 1 > LONGEST_NUMBER {
                            break;
                        }
                        depth.replace(1, 1)?;
                        self.strings.lost = true;
                    } else {
                        depth.replace(0, 1)?;
                    }
                    *at = end;
                    continue;
                }
                opcode::SETITEM => depth.replace(3, 1)?,
                opcode::APPEND => depth.replace(2, 1)?,
                opcode::MARK => depth.mark()?,
                opcode::DICT | opcode::LIST | opcode::TUPLE => depth.collect(0, 1)?,
                opcode::NONE => depth.replace(0, 1)?,
                _ => break,
            }
            *at += 1;
        }
        Ok(())
    }

    /// Takes any one opcode.
    fn step(&mut self, data: &[u8], found: &mut impl FnMut(Global<'_>) -> Result<()>) -> Result<Step> {
        let Some(&byte) = data.get(self.at) else {
            return Ok(Step::Partial);
        };
        let opcode = OPCODES[usize::from(byte)].ok_or(UNKNOWN_OPCODE)?;
        if self.as_written && !self.is_written(data, byte) {
            return Err(NOT_WRITTEN_SO);
        }
        let start = self.at + 1;
        let Some(argument) = self.argument(data, start, byte, opcode.argument)? else {
            return Ok(Step::Partial);
        };
        self.check_memo_number(data, &argument, opcode.meaning)?;
        self.depth.apply(opcode.effect)?;
        if let Effect::Stop = opcode.effect {
            if self.as_written && (self.depth.values > 0 || self.depth.marked) {
                return Err(NOT_WRITTEN_SO);
            }
            return Ok(Step::Stop(start));
        }
        let end = argument.end;
        if byte == opcode::UNICODE && self.as_written {
            check_memoized(data, end)?;
        }
        if byte == opcode::PROTO {
            self.protocol = data[argument.start];
        }
        self.follow(data, argument, opcode.meaning, found)?;
        (self.searched, self.lines) = (0, 0);
        Ok(Step::Whole(end))
    }

    /// Whether CPython's pickler writes the next opcode there.
    fn is_written(&self, data: &[u8], byte: u8) -> bool {
        match self.protocol {
            0 if byte == opcode::PROTO => {
                self.at == 0 && data.get(1).is_none_or(|&protocol| protocol == WIDER_PROTOCOL)
            }
            0 => is_written_in_protocol_0(byte),
            _ => is_written_in_protocol_4(byte),
        }
    }

    /// The place of the argument's content, after its length if it has one.
    fn argument(&mut self, data: &[u8], start: usize, byte: u8, layout: Argument) -> Result<Option<Range<usize>>> {
        match layout {
            Argument::Fixed(size) => {
                let end = start + size;
                if byte == opcode::FRAME {
                    return frame(data, start, end);
                }
                Ok((end <= data.len()).then_some(start..end))
            }
            Argument::Counted(size) => {
                let Some(length) = data.get(start..start + size).map(little_endian) else {
                    return Ok(None);
                };
                if byte == opcode::LONG4 && length > i32::MAX as u64 {
                    return Err(TOO_LONG);
                }
                let end = end_of(start + size, length)?;
                Ok((end <= data.len()).then_some(start + size..end))
            }
            Argument::Lines(lines) => Ok(self.lines(data, start, lines)),
        }
    }

    fn lines(&mut self, data: &[u8], start: usize, lines: u8) -> Option<Range<usize>> {
        self.searched = self.searched.max(start);
        while self.lines < lines {
            let Some(end) = line_end(data, self.searched) else {
                self.searched = data.len();
                return None;
            };
            if self.lines == 0 {
                self.first_line_end = end;
            }
            self.searched = end;
            self.lines += 1;
        }
        Some(start..self.searched)
    }

    /// CPython's pickler numbers what it memoizes without gaps, so that no number exceeds the bytes before it.
    fn check_memo_number(&self, data: &[u8], argument: &Range<usize>, meaning: Meaning) -> Result<()> {
        let text = &data[argument.clone()];
        let number = match meaning {
            Meaning::Put => little_endian(text),
            // The unpickler refuses text that is not a number.
            Meaning::LinePut if text.len() > LONGEST_NUMBER => std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0),
            _ => 0,
        };
        let most = self.at as u64 + 0xff;
        if number > most { Err(NO_SUCH_MEMO) } else { Ok(()) }
    }

    /// Reports globals, and keeps track of the strings that name them.
    fn follow(
        &mut self,
        data: &[u8],
        argument: Range<usize>,
        meaning: Meaning,
        found: &mut impl FnMut(Global<'_>) -> Result<()>,
    ) -> Result<()> {
        let number = || little_endian(&data[argument.clone()]) as usize;
        match meaning {
            Meaning::String => {
                self.strings.push(Some(argument));
                return Ok(());
            }
            Meaning::Get => {
                let span = self.strings.memo.get(&number()).cloned().flatten();
                self.strings.push(span);
                return Ok(());
            }
            Meaning::Put => return self.strings.put(number()),
            Meaning::Memoize => return self.strings.put(self.strings.memo.len()),
            Meaning::LinePut => self.strings.lost = true,
            Meaning::Framing => return Ok(()),
            Meaning::StackGlobal => found(self.strings.stack_global(data, self.protocol))?,
            Meaning::Extension => found(Global::Extension(number() as u32))?,
            Meaning::Global => found(Global::Named {
                protocol: self.protocol,
                module: &data[argument.start..self.first_line_end - 1],
                name: &data[self.first_line_end..argument.end - 1],
            })?,
            Meaning::Other => {}
        }
        self.strings.top = [None, None];
        Ok(())
    }
}

/// CPython insists that a whole frame be there, and then ignores where it ends.
fn frame(data: &[u8], start: usize, end: usize) -> Result<Option<Range<usize>>> {
    let Some(length) = data.get(start..end).map(little_endian) else {
        return Ok(None);
    };
    Ok((end_of(end, length)? <= data.len()).then_some(start..end))
}

fn end_of(start: usize, length: u64) -> Result<usize> {
    isize::try_from(length)
        .ok()
        .and_then(|length| start.checked_add_signed(length))
        .ok_or(TOO_LONG)
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Where the line that starts at `from` ends, its newline included.
#[inline]
pub(super) fn line_end(data: &[u8], from: usize) -> Option<usize> {
    Some(from + find(b'\n', data.get(from..)?)? + 1)
}
