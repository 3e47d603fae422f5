//! The opcodes that [`Writer`](super::write::Writer) writes, back into their arguments.
//!
//! CPython's unpickler takes far more than its pickler writes: signs, hexadecimal numbers, quotes, a dozen further
//! opcodes. All of that is "unusual" here, and `None`: the reader must never understand something differently, and
//! whoever asks has CPython's unpickler to turn to.

use std::mem::MaybeUninit;

use super::byte_mask;
use super::expected_line::ExpectedLine;
use super::find::{ONES, find, zero_bytes};
use super::opcode;
use super::scan::line_end;

/// The bits of ASCII characters.
pub const ASCII: u32 = 0x7f;

/// One opcode of protocol 0 with its argument.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Token<'a> {
    /// `None`.
    None,
    /// A bool.
    Bool(bool),
    /// An int of up to 18 digits.
    Int(i64),
    /// The decimal digits of a longer int, and its sign.
    Long(&'a [u8]),
    /// A float.
    Float(f64),
    /// A str, with its escapes.
    Text(&'a [u8]),
    /// A class or function: module and name.
    Global(&'a [u8], &'a [u8]),
    /// The start of a tuple, list or dict.
    Mark,
    /// A tuple of everything after the mark.
    Tuple,
    /// A list of everything after the mark. CPython writes an empty one, and appends.
    List,
    /// A dict of everything after the mark. CPython writes an empty one, and sets its items.
    Dict,
    /// The last value becomes the list's next item.
    Append,
    /// The last two values become the dict's next key and value.
    SetItem,
    /// A call of a function with a tuple of arguments.
    Reduce,
    /// The last value goes into the memo under this number.
    Put(usize),
    /// A value out of the memo.
    Get(usize),
    /// A dict of attributes is given to an instance.
    Build,
    /// The last value, or the last mark, is dropped.
    Pop,
    /// The end of the pickle.
    Stop,
}

/// The tokens of a pickle.
#[derive(Debug, Clone)]
pub struct Tokens<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    /// The tokens of the pickle that starts at `data`'s first byte.
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    /// How many bytes the tokens so far take.
    pub fn consumed(&self) -> usize {
        self.at
    }

    /// The next token; `None` if it is incomplete or unusual.
    ///
    /// Inlined, so that whoever asks what token it is does so once, with the opcode.
    #[inline(always)]
    pub fn next_token(&mut self) -> Option<Token<'a>> {
        let opcode = *self.data.get(self.at)?;
        self.at += 1;
        Some(match opcode {
            opcode::PUT => Token::Put(self.number()?),
            opcode::UNICODE => Token::Text(self.line()?),
            opcode::SETITEM => Token::SetItem,
            opcode::APPEND => Token::Append,
            opcode::INT => self.int_or_bool()?,
            opcode::MARK => Token::Mark,
            opcode::LIST => Token::List,
            opcode::DICT => Token::Dict,
            opcode::TUPLE => Token::Tuple,
            opcode::FLOAT => Token::Float(float(self.line()?)?),
            opcode::NONE => Token::None,
            opcode::GET => Token::Get(self.number()?),
            opcode::LONG => long(self.line()?)?,
            opcode::GLOBAL => Token::Global(self.line()?, self.line()?),
            opcode::REDUCE => Token::Reduce,
            opcode::BUILD => Token::Build,
            opcode::POP => Token::Pop,
            opcode::STOP => Token::Stop,
            _ => return None,
        })
    }

    /// Passes over the next token if this is its line.
    #[inline(always)]
    pub fn accept(&mut self, line: &ExpectedLine) -> bool {
        let length = self.data.get(self.at..).and_then(|rest| line.match_start(rest));
        self.at += length.unwrap_or(0);
        length.is_some()
    }

    /// Passes over the next token if it is this opcode, which takes no argument.
    #[inline]
    pub fn take(&mut self, opcode: u8) -> Option<()> {
        (*self.data.get(self.at)? == opcode).then(|| self.at += 1)
    }

    /// The number of the next token if it is a GET. After `None` the tokens are to be read from another place.
    #[inline]
    pub fn take_get(&mut self) -> Option<usize> {
        self.take(opcode::GET)?;
        self.number()
    }

    /// The line of the next token if it is a str. After `None` the tokens are to be read from another place.
    #[inline]
    pub fn take_text(&mut self) -> Option<&'a [u8]> {
        self.take(opcode::UNICODE)?;
        self.line()
    }

    #[inline(always)]
    fn number(&mut self) -> Option<usize> {
        let number = match self.short_number() {
            Some(number) => number,
            None => digits(self.line()?)?,
        };
        usize::try_from(number).ok()
    }

    #[inline(always)]
    fn int_or_bool(&mut self) -> Option<Token<'a>> {
        match self.short_number() {
            Some(number) => Some(Token::Int(number)),
            None => int_or_bool(self.line()?),
        }
    }

    /// A line of up to seven digits.
    #[inline(always)]
    fn short_number(&mut self) -> Option<i64> {
        let (number, length) = short_number(*self.data.get(self.at..)?.first_chunk()?)?;
        self.at += length;
        Some(number)
    }

    #[inline]
    fn line(&mut self) -> Option<&'a [u8]> {
        let end = line_end(self.data, self.at)?;
        let line = &self.data[self.at..end - 1];
        self.at = end;
        Some(line)
    }
}

/// The number that eight bytes begin with, and the length of its line. All digits are looked at at once: how many there are
/// is never what the processor guesses.
#[inline]
fn short_number(bytes: [u8; 8]) -> Option<(i64, usize)> {
    const ZEROS: u64 = ONES * b'0' as u64;
    let word = u64::from_le_bytes(bytes);
    let bits = zero_bytes(word ^ (ONES * u64::from(b'\n'))).trailing_zeros() & !7;
    if !(8..64).contains(&bits) || (bytes[0] == b'0' && bits > 8) {
        return None;
    }
    // Zeros in front make eight digits.
    let digits = word << (64 - bits) | ZEROS >> bits;
    let high = digits ^ ZEROS;
    if (high | high.wrapping_add(ONES * 6)) & (ONES * 0xf0) != 0 {
        return None;
    }
    let pairs = (high * 10 + (high >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    let number = (fours * 10_000 + (fours >> 32)) & 0xffff_ffff;
    Some((number as i64, bits as usize / 8 + 1))
}

/// Decimal digits, at most 18 of them, without a sign or needless zeros.
#[inline]
fn digits(line: &[u8]) -> Option<i64> {
    if !(1..=18).contains(&line.len()) || (line[0] == b'0' && line.len() > 1) {
        return None;
    }
    line.iter().try_fold(0, |number, &byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| number * 10 + i64::from(digit))
    })
}

#[inline]
fn int(line: &[u8]) -> Option<i64> {
    match line.strip_prefix(b"-") {
        // Python has no negative zero, and to the unpickler it might be a bool.
        Some(line) => digits(line).filter(|&number| number > 0).map(|number| -number),
        None => digits(line),
    }
}

#[inline]
fn int_or_bool<'a>(line: &'a [u8]) -> Option<Token<'a>> {
    match line {
        b"01" => Some(Token::Bool(true)),
        b"00" => Some(Token::Bool(false)),
        _ => Some(Token::Int(int(line)?)),
    }
}

fn long(line: &[u8]) -> Option<Token<'_>> {
    let line = line.strip_suffix(b"L")?;
    if let Some(number) = int(line) {
        return Some(Token::Int(number));
    }
    let digits = line.strip_prefix(b"-").unwrap_or(line);
    let plain = digits.len() > 18 && digits[0] != b'0' && digits.iter().all(u8::is_ascii_digit);
    plain.then_some(Token::Long(line))
}

/// A float as `repr` spells it.
fn float(line: &[u8]) -> Option<f64> {
    match line {
        b"nan" => return Some(f64::NAN),
        b"inf" => return Some(f64::INFINITY),
        b"-inf" => return Some(f64::NEG_INFINITY),
        _ => {}
    }
    if let Some(value) = short_float(line) {
        return Some(value);
    }
    let spelled_out = line
        .iter()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'+' | b'-'));
    let line = std::str::from_utf8(line).ok().filter(|_| spelled_out)?;
    // A number that overflows is an error in Python, but infinity in Rust.
    line.parse().ok().filter(|value: &f64| value.is_finite())
}

/// A float of up to 15 digits without an exponent: as both the digits and the power of ten are floats, one division
/// gives the nearest (Clinger, "How to read floating point numbers accurately", 1990).
#[inline]
fn short_float(line: &[u8]) -> Option<f64> {
    const POWERS: [f64; 16] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
    ];
    let (negative, digits) = match line.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, line),
    };
    if !(3..=16).contains(&digits.len()) {
        return None;
    }
    let mut number = 0_u64;
    let mut point = None;
    for (at, &byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => number = 10 * number + u64::from(byte - b'0'),
            b'.' if point.is_none() => point = Some(at),
            _ => return None,
        }
    }
    let behind_point = digits.len() - 1 - point?;
    let value = number as f64 / POWERS.get(behind_point)?;
    Some(if negative { -value } else { value })
}

/// A part of a str's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Characters below U+0100, as they are.
    Raw(&'a [u8]),
    /// One escaped character.
    Character(u32),
}

/// The value of a hexadecimal digit; 16 for other bytes.
static HEX_DIGITS: [u8; 256] = {
    let mut worth = [0x10; 256];
    let mut digit = 0;
    while digit < 16 {
        worth[b"0123456789abcdef"[digit] as usize] = digit as u8;
        worth[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    worth
};

/// Up to so many bytes vectors aren't worth a function call.
const SHORT_LINE: usize = 64;

/// The pieces of a str's line.
#[derive(Debug, Clone)]
pub struct Pieces<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Option<Piece<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let plain = find(b'\\', self.rest).unwrap_or(self.rest.len());
        if plain > 0 {
            let (raw, rest) = self.rest.split_at(plain);
            self.rest = rest;
            return Some(Some(Piece::Raw(raw)));
        }
        Some(self.escape().map(Piece::Character))
    }
}

impl Pieces<'_> {
    fn escape(&mut self) -> Option<u32> {
        let (code, size) = escaped(self.rest)?;
        self.rest = self.rest.get(size..)?;
        Some(code)
    }
}

/// The character of `\uXXXX` or `\UXXXXXXXX`, and how many bytes that takes. A backslash without either stands for itself
/// to Python, and is unusual here.
#[inline]
fn escaped(text: &[u8]) -> Option<(u32, usize)> {
    let digits = match text.get(1)? {
        b'u' => 4,
        b'U' => 8,
        _ => return None,
    };
    let size = 2 + digits;
    let mut code = 0;
    let mut wrong = 0;
    for &digit in text.get(2..size)? {
        let value = HEX_DIGITS[usize::from(digit)];
        code = code << 4 | u32::from(value);
        wrong |= value;
    }
    (wrong <= 0xf && code <= u32::from(char::MAX)).then_some((code, size))
}

/// A character in one of CPython's three widths.
pub trait Character: Copy + From<u8> {
    /// The character with this code, if the width has it.
    fn from_code(code: u32) -> Option<Self>;
}

impl Character for u8 {
    fn from_code(code: u32) -> Option<Self> {
        code.try_into().ok()
    }
}

impl Character for u16 {
    fn from_code(code: u32) -> Option<Self> {
        code.try_into().ok()
    }
}

impl Character for u32 {
    fn from_code(code: u32) -> Option<Self> {
        Some(code)
    }
}

/// The bits that the characters of a line may have, escapes aside: those of ASCII, or of one byte.
#[inline]
pub fn raw_bits(line: &[u8]) -> u32 {
    if line.is_ascii() { ASCII } else { 0xff }
}

/// The same, and whether the line has escapes, at one go where it is short.
#[inline]
fn look_at(line: &[u8]) -> (u32, bool) {
    const TOP: u64 = 0x8080_8080_8080_8080;
    let (Some(last), ..=SHORT_LINE) = (line.last_chunk::<8>(), line.len()) else {
        return (raw_bits(line), find(b'\\', line).is_some());
    };
    let (words, _) = line.as_chunks::<8>();
    let (mut bits, mut found) = (0, 0);
    // The last one may count twice in part.
    for word in words.iter().chain([last]) {
        let word = u64::from_le_bytes(*word);
        bits |= word;
        found |= zero_bytes(word ^ (ONES * u64::from(b'\\')));
    }
    (if bits & TOP == 0 { ASCII } else { 0xff }, found != 0)
}

/// The result of decoding a str's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    /// How many characters there are.
    pub length: usize,
    /// The bits of those that were escaped, or-ed.
    pub escaped_bits: u32,
}

/// Puts a str's characters into `place`, at its beginning. `None` if it has no room for one, or an escape is unusual.
pub fn fill<C: Character>(mut line: &[u8], place: &mut [MaybeUninit<C>]) -> Option<Filled> {
    let mut filled = Filled {
        length: 0,
        escaped_bits: 0,
    };
    while let Some(block) = line.first_chunk()
        && let Some(place) = place[filled.length..].first_chunk_mut()
    {
        line = &line[fill_block(block, place, &mut filled)?..];
    }
    for piece in (Pieces { rest: line }) {
        let place = &mut place[filled.length..];
        match piece? {
            Piece::Raw(raw) => {
                for (place, &byte) in place.get_mut(..raw.len())?.iter_mut().zip(raw) {
                    place.write(byte.into());
                }
                filled.length += raw.len();
            }
            Piece::Character(code) => {
                place.first_mut()?.write(C::from_code(code)?);
                filled.length += 1;
                filled.escaped_bits |= code;
            }
        }
    }
    Some(filled)
}

/// Fills in what begins in the first half of a block, and returns how many of its bytes that takes. No byte makes more than
/// one character.
///
/// The text between two escapes is copied together with the bytes after it, which the next copy overwrites. So each copy
/// has a fixed length.
#[inline]
fn fill_block<C: Character>(
    block: &[u8; 2 * byte_mask::BLOCK],
    place: &mut [MaybeUninit<C>; 2 * byte_mask::BLOCK],
    filled: &mut Filled,
) -> Option<usize> {
    let mut escapes = byte_mask::mask(block.first_chunk()?, [b'\\']);
    let (mut from, mut to) = (0, 0);
    while from < byte_mask::BLOCK {
        let places = place[to..to + byte_mask::BLOCK].iter_mut();
        for (place, &byte) in places.zip(&block[from..from + byte_mask::BLOCK]) {
            place.write(byte.into());
        }
        let next = (escapes.trailing_zeros() as usize).min(byte_mask::BLOCK);
        to += next - from;
        from = next;
        if escapes != 0 {
            let (code, size) = escaped(&block[from..])?;
            place[to].write(C::from_code(code)?);
            filled.escaped_bits |= code;
            to += 1;
            from += size;
            // There are none within an escape.
            escapes &= escapes - 1;
        }
    }
    filled.length += to;
    Some(from)
}

/// A str's line, measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    line: &'a [u8],
    /// How many characters there are.
    pub length: usize,
    /// All characters' bits, or-ed: tells whether they are ASCII, and how wide they are.
    pub bits: u32,
}

impl<'a> Text<'a> {
    /// Measures a str's line; `None` if an escape is unusual.
    #[inline]
    pub fn measure(line: &'a [u8]) -> Option<Self> {
        let (bits, escapes) = look_at(line);
        let text = Self {
            line,
            length: line.len(),
            bits,
        };
        if escapes { text.measure_escapes() } else { Some(text) }
    }

    fn measure_escapes(mut self) -> Option<Self> {
        self.length = 0;
        for piece in self.pieces() {
            match piece? {
                Piece::Raw(raw) => self.length += raw.len(),
                Piece::Character(code) => {
                    self.length += 1;
                    self.bits |= code;
                }
            }
        }
        Some(self)
    }

    /// The line that was measured.
    pub fn line(&self) -> &'a [u8] {
        self.line
    }

    /// The line, if it is the string, character for byte.
    #[inline]
    pub fn unescaped(&self) -> Option<&'a [u8]> {
        (self.length == self.line.len()).then_some(self.line)
    }

    /// The line's pieces; none is `None` once the line has been measured.
    pub fn pieces(&self) -> Pieces<'a> {
        Pieces { rest: self.line }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::write::Writer;
    use super::*;

    fn token(data: &str) -> Option<Token<'_>> {
        Tokens::new(data.as_bytes()).next_token()
    }

    fn characters(line: &[u8]) -> Option<Vec<u32>> {
        let text = Text::measure(line)?;
        let mut characters = Vec::new();
        for piece in text.pieces() {
            match piece? {
                Piece::Raw(raw) => characters.extend(raw.iter().copied().map(u32::from)),
                Piece::Character(code) => characters.push(code),
            }
        }
        assert_eq!(text.length, characters.len());
        assert_eq!(text.bits < 0x80, characters.iter().all(|&code| code < 0x80));
        assert_eq!(text.bits < 0x100, characters.iter().all(|&code| code < 0x100));
        assert_eq!(text.bits < 0x10000, characters.iter().all(|&code| code < 0x10000));
        Some(characters)
    }

    /// The same, all at once.
    fn filled<C: Character + Into<u32> + Default>(line: &[u8]) -> Option<Vec<u32>> {
        let mut place = vec![MaybeUninit::new(C::default()); line.len()];
        let filled = fill(line, &mut place)?;
        // SAFETY: initialized from the beginning.
        #[allow(unsafe_code, reason = "what is tested leaves it open how much of the place it fills")]
        let place = place.iter().map(|character| unsafe { character.assume_init() }.into());
        Some(place.take(filled.length).collect())
    }

    fn text_written(write: impl FnOnce(&mut Writer<'_>)) -> Option<Vec<u32>> {
        let mut out = Vec::new();
        write(&mut Writer::new(&mut out));
        match Tokens::new(&out).next_token()? {
            Token::Text(line) => characters(line),
            _ => None,
        }
    }

    proptest! {
        #[test]
        fn fills_in_what_the_pieces_are(
            pieces in prop::collection::vec((0..200_usize, 0..0x300_u32), 0..20),
            wide: bool,
        ) {
            let mut text = Vec::new();
            for (plain, code) in pieces {
                text.extend(std::iter::repeat_n(u32::from(b'x'), plain));
                // Control characters are escaped, others if they are wide.
                text.push(if wide { code } else { code % 0x20 });
            }
            let mut out = Vec::new();
            Writer::new(&mut out).ucs4(&text);
            let line = &out[1..out.len() - 1];
            prop_assert_eq!(filled::<u16>(line), Some(text.clone()));
            prop_assert_eq!(filled::<u32>(line), Some(text.clone()));
            let fits = text.iter().all(|&code| code < 0x100);
            prop_assert_eq!(filled::<u8>(line), fits.then_some(text));
        }

        #[test]
        fn short_numbers_are_what_their_digits_are(line in "[0-9]{1,9}|[-0-9:/ a]{0,9}", rest in "[0-9\n]{8}") {
            let bytes = format!("{line}\n{rest}");
            let found = short_number(*bytes.as_bytes().first_chunk().unwrap());
            let expected = digits(line.as_bytes()).filter(|_| line.len() <= 7);
            prop_assert_eq!(found, expected.map(|number| (number, line.len() + 1)));
        }

        #[test]
        fn short_floats_are_the_nearest(digits in "-?[0-9]{0,10}[.][0-9]{0,10}", garbled in "[-.0-9e]{1,6}") {
            for line in [digits, garbled] {
                if let Some(value) = short_float(line.as_bytes()) {
                    let nearest: f64 = line.parse().unwrap();
                    prop_assert_eq!(value.to_bits(), nearest.to_bits());
                } else {
                    // Too long, too short, or none.
                    let digits = line.strip_prefix('-').unwrap_or(&line);
                    let short = (3..=16).contains(&digits.len()) && digits.bytes().filter(|&byte| byte == b'.').count() == 1;
                    prop_assert!(!short || digits.contains(['e', '-']));
                }
            }
        }

        #[test]
        fn fills_in_anything(line in prop::collection::vec(prop::sample::select(b"\\uU0019abAF\xff xyz".to_vec()), 0..400)) {
            prop_assert_eq!(filled::<u32>(&line), characters(&line));
        }

        #[test]
        fn reads_every_str_that_the_writer_writes(text in prop::collection::vec(0u32..0x110000, 0..100)) {
            prop_assert_eq!(text_written(|writer| writer.ucs4(&text)), Some(text.clone()));
            let narrow: Vec<u16> = text.iter().map(|&code| code as u16).collect();
            let codes: Vec<u32> = narrow.iter().copied().map(u32::from).collect();
            prop_assert_eq!(text_written(|writer| writer.ucs2(&narrow)), Some(codes));
            let bytes: Vec<u8> = text.iter().map(|&code| code as u8).collect();
            let codes: Vec<u32> = bytes.iter().copied().map(u32::from).collect();
            prop_assert_eq!(text_written(|writer| writer.latin1(&bytes)), Some(codes));
        }

        #[test]
        fn reads_every_number_that_the_writer_writes(int: i64, float: f64) {
            let mut out = Vec::new();
            let mut writer = Writer::new(&mut out);
            writer.int(int);
            writer.float(float);
            let mut tokens = Tokens::new(&out);
            match tokens.next_token() {
                Some(Token::Int(read)) => prop_assert_eq!(read, int),
                Some(Token::Long(digits)) => prop_assert_eq!(digits, int.to_string().into_bytes()),
                other => prop_assert!(false, "{:?}", other),
            }
            prop_assert_eq!(tokens.next_token(), Some(Token::Float(float)));
            prop_assert_eq!(tokens.consumed(), out.len());
        }

        #[test]
        fn survives_anything(data: Vec<u8>) {
            let mut tokens = Tokens::new(&data);
            while let Some(token) = tokens.next_token() {
                if let Token::Text(line) = token {
                    characters(line);
                }
            }
        }
    }

    #[test]
    fn takes_no_spelling_but_the_picklers() {
        for unusual in [
            "I\n",
            "I-0\n",
            "I+1\n",
            "I007\n",
            "I0x10\n",
            "I 1\n",
            "I1_0\n",
            "I1",
            "IL\n",
            "L1\n",
            "L\n",
            "L-L\n",
            "L00L\n",
            "F\n",
            "F1_0\n",
            "F1e999\n",
            "F-nan\n",
            "Finfinity\n",
            "F 1\n",
            "p-1\n",
            "p01\n",
            "p\n",
            "p1",
            "g1L\n",
            "S'x'\n",
            "]",
            "\u{80}",
        ] {
            assert_eq!(token(unusual), None, "{unusual:?}");
        }
    }

    #[test]
    fn tells_bools_from_ints() {
        assert_eq!(token("I01\n"), Some(Token::Bool(true)));
        assert_eq!(token("I00\n"), Some(Token::Bool(false)));
        assert_eq!(token("I1\n"), Some(Token::Int(1)));
        assert_eq!(token("I0\n"), Some(Token::Int(0)));
        assert_eq!(token("I10\n"), Some(Token::Int(10)));
    }

    #[test]
    fn leaves_unusual_escapes_alone() {
        for unusual in [
            "\\",
            "a\\b",
            "\\\\",
            "\\u12",
            "\\u12g4",
            "\\U00110000",
            "\\U0001f60",
            "\\u+123",
        ] {
            assert_eq!(characters(unusual.as_bytes()), None, "{unusual:?}");
        }
    }
}
