//! The opcodes of protocol 0, byte for byte as CPython's C pickler writes them.

use super::byte_mask;
use super::decimal;
use super::expected_line::{self, NextPut};
use super::opcode;
use crate::error::{Error, Result};
use crate::memory::{append, grow};

/// The decimal digits of 00 to 99. itoa is 4 to 15 % slower, and 24 to 52 % if its digits go by way of a block as ours do
/// (`cargo bench -- "pickle ints"`, medians of 25 Nov 2026).
static PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + number as u8 / 10, b'0' + number as u8 % 10];
        number += 1;
    }
    pairs
};

/// The longest line of an int of 64 bits, which has 19 digits, and a digit more.
const LONGEST_LONG: usize = "L-".len() + 20 + "L\n".len();

/// Appends one pickle to `out`.
///
/// Each opcode is appended as it comes; the caller makes sure that they are a pickle. If memory is short,
/// opcodes are left out, and [`stop`](Self::stop) returns the error: returning it from each of them would cost more.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
    result: Result<()>,
    next_number: u32,
    next_put: NextPut,
}

impl<'a> Writer<'a> {
    /// A writer at the start of a pickle.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            result: Ok(()),
            next_number: 0,
            next_put: NextPut::default(),
        }
    }

    /// `None`.
    #[inline]
    pub fn none(&mut self) {
        self.push(opcode::NONE);
    }

    /// A bool: protocol 0 has no opcode for it, and spells it as an int that no int is spelled like.
    #[inline]
    pub fn bool(&mut self, value: bool) {
        self.extend(if value { b"I01\n" } else { b"I00\n" });
    }

    /// An int: INT for 32 bits, LONG beyond.
    #[inline]
    pub fn int(&mut self, value: i64) {
        if let Ok(value) = i32::try_from(value) {
            let sign: &[u8] = if value < 0 { b"I-" } else { b"I" };
            self.number_line(sign, value.unsigned_abs());
        } else {
            self.long_line(value);
        }
    }

    /// An int of any length, by its bytes in two's complement, the lowest first. Returns how many digits it has.
    pub fn long(&mut self, bytes: &[u8]) -> usize {
        self.push(opcode::LONG);
        let digits = match decimal::append(bytes, self.out) {
            Ok(digits) => digits,
            Err(error) => {
                self.result = Err(error);
                0
            }
        };
        self.extend(b"L\n");
        digits
    }

    /// A float, as Python's `repr` spells it.
    pub fn float(&mut self, value: f64) {
        self.push(opcode::FLOAT);
        float_repr(value, self);
        self.push(b'\n');
    }

    /// A str whose characters are all below U+0100.
    #[inline]
    pub fn latin1(&mut self, text: &[u8]) {
        if text.len() <= BLOCK {
            self.short_latin1(text);
        } else {
            self.push(opcode::UNICODE);
            self.attempt(|out| escape_latin1(text, out));
            self.push(b'\n');
        }
    }

    #[inline]
    fn short_latin1(&mut self, text: &[u8]) {
        // Filled up with what is never escaped, so that the block can be looked at whole.
        let mut block = [b' '; BLOCK];
        block[..text.len()].copy_from_slice(text);
        self.push(opcode::UNICODE);
        if any_escaped(&block) {
            self.attempt(|out| escape_latin1(text, out));
        } else {
            self.extend_by_way_of(&block, text.len());
        }
        self.push(b'\n');
    }

    /// A str whose characters are all below U+10000.
    pub fn ucs2(&mut self, text: &[u16]) {
        self.push(opcode::UNICODE);
        self.attempt(|out| escape_wide(text, out));
        self.push(b'\n');
    }

    /// Any str, as code points.
    pub fn ucs4(&mut self, text: &[u32]) {
        self.push(opcode::UNICODE);
        self.attempt(|out| escape_wide(text, out));
        self.push(b'\n');
    }

    /// A class or function.
    pub fn global(&mut self, module: &[u8], name: &[u8]) {
        self.push(opcode::GLOBAL);
        self.extend(module);
        self.push(b'\n');
        self.extend(name);
        self.push(b'\n');
    }

    /// The start of a tuple.
    #[inline]
    pub fn mark(&mut self) {
        self.push(opcode::MARK);
    }

    /// A tuple of everything after the mark.
    #[inline]
    pub fn tuple(&mut self) {
        self.push(opcode::TUPLE);
    }

    /// An empty list.
    #[inline]
    pub fn list(&mut self) {
        self.extend(b"(l");
    }

    /// An empty dict.
    #[inline]
    pub fn dict(&mut self) {
        self.extend(b"(d");
    }

    /// The last value becomes the list's next item.
    #[inline]
    pub fn append(&mut self) {
        self.push(opcode::APPEND);
    }

    /// The last two values become the dict's next key and value.
    #[inline]
    pub fn set_item(&mut self) {
        self.push(opcode::SETITEM);
    }

    /// A call of a function with a tuple of arguments.
    pub fn reduce(&mut self) {
        self.push(opcode::REDUCE);
    }

    /// A dict of attributes is given to an instance.
    pub fn build(&mut self) {
        self.push(opcode::BUILD);
    }

    /// Puts the last value into the memo, under the number returned.
    #[inline]
    pub fn put(&mut self) -> u32 {
        let (line, length) = self.next_put.line().padded();
        let line = *line;
        self.extend_by_way_of(&line, length);
        self.next_put.increment();
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// A value out of the memo.
    #[inline]
    pub fn get(&mut self, number: u32) {
        self.number_line(b"g", number);
    }

    /// The end of the pickle. An error if it is not whole.
    pub fn stop(mut self) -> Result<()> {
        self.push(opcode::STOP);
        self.result
    }

    fn long_line(&mut self, value: i64) {
        let mut line = [b'\n'; LONGEST_LONG];
        let mut start = LONGEST_LONG - 2;
        line[start] = b'L';
        let mut number = value.unsigned_abs();
        while number > 0 {
            start -= 2;
            line[start..start + 2].copy_from_slice(&PAIRS[(number % 100) as usize]);
            number /= 100;
        }
        start += usize::from(line[start] == b'0');
        if value < 0 {
            start -= 1;
            line[start] = b'-';
        }
        start -= 1;
        line[start] = b'L';
        self.extend(&line[start..]);
    }

    #[inline]
    fn number_line(&mut self, opcode: &[u8], mut number: u32) {
        let mut line = [b'\n'; expected_line::MAX_LENGTH];
        let mut start = expected_line::MAX_LENGTH - 1;
        while number >= 10 {
            start -= 2;
            line[start..start + 2].copy_from_slice(&PAIRS[number as usize % 100]);
            number /= 100;
        }
        if number > 0 || start == expected_line::MAX_LENGTH - 1 {
            start -= 1;
            line[start] = b'0' + number as u8;
        }
        self.extend(opcode);
        let line = (u128::from_le_bytes(line) >> (8 * start)).to_le_bytes();
        self.extend_by_way_of(&line, expected_line::MAX_LENGTH - start);
    }

    #[inline]
    fn push(&mut self, byte: u8) {
        self.extend(&[byte]);
    }

    #[inline]
    fn extend(&mut self, bytes: &[u8]) {
        if self.has_room(bytes.len()) {
            self.out.extend_from_slice(bytes);
        }
    }

    /// Appends the line's beginning, by way of all of it.
    #[inline]
    fn extend_by_way_of<const SIZE: usize>(&mut self, line: &[u8; SIZE], length: usize) {
        if self.has_room(SIZE) {
            let end = self.out.len() + length;
            self.out.extend_from_slice(line);
            self.out.truncate(end);
        }
    }

    #[inline]
    fn has_room(&mut self, more: usize) -> bool {
        self.out.capacity() - self.out.len() >= more || self.make_room(more)
    }

    #[cold]
    fn make_room(&mut self, more: usize) -> bool {
        self.attempt(|out| grow(out, more));
        self.result.is_ok()
    }

    fn attempt(&mut self, append: impl FnOnce(&mut Vec<u8>) -> Result<()>) {
        if self.result.is_ok() {
            self.result = append(self.out);
        }
    }
}

/// A character of a str in one of CPython's three widths.
trait Character: Copy {
    fn code(self) -> u32;
}

impl Character for u16 {
    fn code(self) -> u32 {
        u32::from(self)
    }
}

impl Character for u32 {
    fn code(self) -> u32 {
        self
    }
}

/// Beyond what raw-unicode-escape escapes, the pickler escapes what would end or garble a line: also for a file that
/// was opened as text on Windows, hence 0x1a.
const ESCAPED: [u8; 5] = [b'\\', 0, b'\n', b'\r', 0x1a];

/// The two hexadecimal digits of each byte.
static HEX_PAIRS: [[u8; 2]; 256] = {
    let digits = *b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte / 16], digits[byte % 16]];
        byte += 1;
    }
    pairs
};

/// With more escapes in a block than this, its characters are looked at one by one.
const MANY: u32 = 16;

/// How much is made room for behind a long text.
const ROOM_FOR_MORE: usize = 1 << 12;

#[inline]
fn is_escaped(byte: u8) -> bool {
    ESCAPED.contains(&byte)
}

const BLOCK: usize = 32;

const LONGEST_ESCAPE: usize = "\\U0010ffff".len();

#[inline]
fn any_escaped<const SIZE: usize>(bytes: &[u8; SIZE]) -> bool {
    let found = |byte| bytes.iter().fold(0, |found, &other| found | u8::from(other == byte));
    (ESCAPED.map(found)).iter().fold(0, |any, found| any | found) != 0
}

fn escape_latin1(text: &[u8], out: &mut Vec<u8>) -> Result<()> {
    grow(out, text.len())?;
    // To go on in one place costs less a block, and more to begin with.
    if text.len() < 16 * byte_mask::BLOCK {
        escape_blocks::<{ worst(1) }>(text, out)
    } else {
        escape_blocks::<{ worst(16) }>(text, out)
    }
}

/// The most bytes that this many blocks take once they are escaped, and one more block.
const fn worst(blocks: usize) -> usize {
    (6 * blocks + 1) * byte_mask::BLOCK
}

fn escape_blocks<const ROOM: usize>(mut text: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let (start, length) = (out.len(), text.len());
    let mut escaped = [0; ROOM];
    let mut end = 0;
    while let Some(block) = text.first_chunk() {
        if end + worst(1) > ROOM {
            expect(out, start, end, length - text.len(), length)?;
            append(out, &escaped[..end])?;
            end = 0;
        }
        end += escape_block(block, byte_mask::BLOCK, &mut escaped[end..]);
        text = &text[byte_mask::BLOCK..];
    }
    append(out, &escaped[..end])?;

    let mut rest = [b' '; 3 * byte_mask::BLOCK];
    rest[..text.len()].copy_from_slice(text);
    for (start, length) in [
        (0, text.len()),
        (byte_mask::BLOCK, text.len().saturating_sub(byte_mask::BLOCK)),
    ] {
        if let Some(block) = rest[start..].first_chunk() {
            let end = escape_block(block, length.min(byte_mask::BLOCK), &mut escaped);
            append(out, &escaped[..end])?;
        }
    }
    Ok(())
}

/// Escapes the first `length` bytes of a block that is followed by another one. Returns how many bytes that makes.
///
/// The text between two escapes is copied together with the bytes after it, which the next copy overwrites. So each copy
/// has a fixed length.
#[inline]
fn escape_block(block: &[u8; 2 * byte_mask::BLOCK], length: usize, escaped: &mut [u8]) -> usize {
    let mut found = block.first_chunk().map_or(0, |first| byte_mask::mask(first, ESCAPED));
    let (mut from, mut end) = (0, 0);
    loop {
        escaped[end..end + byte_mask::BLOCK].copy_from_slice(&block[from..from + byte_mask::BLOCK]);
        if found == 0 {
            return end + length - from;
        }
        let next = found.trailing_zeros() as usize;
        end += next - from;
        let escape = escaped_byte(block[next]);
        escaped[end..end + escape.len()].copy_from_slice(&escape);
        end += escape.len();
        from = next + 1;
        found &= found - 1;
    }
}

/// The room that so many blocks of wide characters take at most, and one more behind them.
const fn worst_wide(blocks: usize) -> usize {
    (LONGEST_ESCAPE * blocks + 1) * byte_mask::BLOCK
}

fn escape_wide<C: Character>(text: &[C], out: &mut Vec<u8>) -> Result<()> {
    grow(out, text.len())?;
    if text.len() < 16 * byte_mask::BLOCK {
        escape_wide_blocks::<C, { worst_wide(1) }>(text, out)
    } else {
        escape_wide_blocks::<C, { worst_wide(16) }>(text, out)
    }
}

fn escape_wide_blocks<C: Character, const ROOM: usize>(text: &[C], out: &mut Vec<u8>) -> Result<()> {
    let start = out.len();
    let mut escaped = [0; ROOM];
    let (mut done, mut end) = (0, 0);
    for block in text.chunks(byte_mask::BLOCK) {
        if end + worst_wide(1) > ROOM {
            expect(out, start, end, done, text.len())?;
            append(out, &escaped[..end])?;
            end = 0;
        }
        end += escape_wide_block(block, &mut escaped[end..]);
        done += block.len();
    }
    append(out, &escaped[..end])
}

/// Makes room for `more` bytes and, if there isn't any yet, for all that the text takes if it goes on as it began: `done` of its
/// `length` characters are what has been written since `start`, and these bytes. To grow step by step may be to copy it.
fn expect(out: &mut Vec<u8>, start: usize, more: usize, done: usize, length: usize) -> Result<()> {
    if out.capacity() - out.len() >= more {
        return Ok(());
    }
    let written = out.len() - start + more;
    let rest = (written as f64 / done as f64 * (length - done) as f64 * 1.1) as usize;
    out.try_reserve_exact(more + rest + ROOM_FOR_MORE)
        .map_err(|_| Error::Memory)
}

/// Escapes up to a block of characters. Returns how many bytes that makes.
#[inline]
fn escape_wide_block<C: Character>(block: &[C], escaped: &mut [u8]) -> usize {
    let mut narrow = [b' '; 2 * byte_mask::BLOCK];
    for (byte, character) in narrow.iter_mut().zip(block) {
        // What is no byte becomes 0, which is one of those that are escaped.
        let code = character.code();
        *byte = if code > 0xff { 0 } else { code as u8 };
    }
    let mut found = narrow.first_chunk().map_or(0, |first| byte_mask::mask(first, ESCAPED));
    if found.count_ones() > MANY {
        return block.iter().fold(0, |end, character| {
            end + escape_character(character.code(), &mut escaped[end..])
        });
    }
    let (mut from, mut end) = (0, 0);
    loop {
        escaped[end..end + byte_mask::BLOCK].copy_from_slice(&narrow[from..from + byte_mask::BLOCK]);
        if found == 0 {
            return end + block.len() - from;
        }
        let next = found.trailing_zeros() as usize;
        end += next - from;
        end += escape(block[next].code(), &mut escaped[end..]);
        from = next + 1;
        found &= found - 1;
    }
}

/// Writes a character, escaped if it has to be. Returns its size in bytes.
#[inline]
fn escape_character(code: u32, escaped: &mut [u8]) -> usize {
    if code > 0xff || is_escaped(code as u8) {
        return escape(code, escaped);
    }
    escaped[0] = code as u8;
    1
}

/// Writes the escape of a character. Returns its size in bytes.
#[inline]
fn escape(code: u32, escaped: &mut [u8]) -> usize {
    let [a, b, c, d] = code.to_be_bytes().map(|byte| HEX_PAIRS[usize::from(byte)]);
    if code <= 0xffff {
        escaped[..6].copy_from_slice(&[b'\\', b'u', c[0], c[1], d[0], d[1]]);
        6
    } else {
        let long = [b'\\', b'U', a[0], a[1], b[0], b[1], c[0], c[1], d[0], d[1]];
        escaped[..10].copy_from_slice(&long);
        10
    }
}

#[inline]
fn escaped_byte(byte: u8) -> [u8; 6] {
    let [high, low] = HEX_PAIRS[usize::from(byte)];
    [b'\\', b'u', b'0', b'0', high, low]
}

/// The shortest digits that read back as the same float, laid out by Python's rules: plain from 1e-4 up to 1e16, an
/// exponent of at least two digits outside.
fn float_repr(value: f64, out: &mut Writer<'_>) {
    if !value.is_finite() {
        let spelled = if value.is_nan() {
            "nan"
        } else if value > 0.0 {
            "inf"
        } else {
            "-inf"
        };
        return out.extend(spelled.as_bytes());
    }
    let mut buffer = ryu::Buffer::new();
    if (1e-4..1e16).contains(&value.abs()) {
        // Here the two have the same rules.
        return out.extend(buffer.format_finite(value).as_bytes());
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    let (digits, point) = decimal(buffer.format_finite(value.abs()).as_bytes());
    lay_out(digits.as_slice(), point, out);
}

/// The digits of a float: at most 17.
#[derive(Default)]
struct Digits {
    bytes: [u8; 24],
    count: usize,
}

impl Digits {
    fn push(&mut self, digit: u8) {
        // No leading zeros.
        if (self.count > 0 || digit != b'0') && self.count < self.bytes.len() {
            self.bytes[self.count] = digit;
            self.count += 1;
        }
    }

    fn as_slice(&self) -> &[u8] {
        let significant = self.bytes[..self.count].iter().rposition(|&digit| digit != b'0');
        &self.bytes[..significant.map_or(0, |last| last + 1)]
    }
}

/// Significant digits, and where among them the point stands, of a number as `ryu` spells it.
fn decimal(spelled: &[u8]) -> (Digits, i32) {
    let mut digits = Digits::default();
    let mut point = 0;
    let mut behind_point = false;
    let mut rest = spelled.iter();
    for &byte in rest.by_ref() {
        match byte {
            b'.' => behind_point = true,
            b'e' => break,
            _ => {
                let before = digits.count;
                digits.push(byte);
                let leading_zero = digits.count == before;
                point += match (behind_point, leading_zero) {
                    (false, false) => 1,
                    (true, true) => -1,
                    _ => 0,
                };
            }
        }
    }
    let exponent = rest.as_slice();
    let (negative, exponent) = match exponent.split_first() {
        Some((b'-', digits)) => (true, digits),
        _ => (false, exponent),
    };
    let exponent = exponent
        .iter()
        .fold(0, |number, &digit| number * 10 + i32::from(digit - b'0'));
    (digits, if negative { point - exponent } else { point + exponent })
}

/// With an exponent.
fn lay_out(digits: &[u8], point: i32, out: &mut Writer<'_>) {
    let Some((first, others)) = digits.split_first() else {
        return out.extend(b"0.0");
    };
    out.push(*first);
    if !others.is_empty() {
        out.push(b'.');
        out.extend(others);
    }
    out.extend(if point > 0 { b"e+" } else { b"e-" });
    let exponent = u64::from((point - 1).unsigned_abs());
    let mut spelled = [b'0'; LONGEST_NUMBER];
    let start = decimal_digits(exponent, &mut spelled);
    // Two digits at least.
    out.extend(&spelled[start.min(LONGEST_NUMBER - 2)..]);
}

/// The decimal digits of any number of 64 bits are as many at most.
const LONGEST_NUMBER: usize = 20;

/// Writes a number's digits at the end of zeros. Returns where they start; zero has none.
fn decimal_digits(mut number: u64, digits: &mut [u8; LONGEST_NUMBER]) -> usize {
    let mut start = LONGEST_NUMBER;
    while number > 0 {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    start
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(write: impl FnOnce(&mut Writer<'_>)) -> String {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        write(&mut writer);
        writer.result.unwrap();
        out.into_iter().map(char::from).collect()
    }

    #[test]
    fn ints_are_32_bits_wide_or_long() {
        for (value, spelled) in [
            (0, "I0\n"),
            (9, "I9\n"),
            (10, "I10\n"),
            (-100, "I-100\n"),
            (12345, "I12345\n"),
            (2147483647, "I2147483647\n"),
            (-2147483648, "I-2147483648\n"),
            (2147483648, "L2147483648L\n"),
            (-2147483649, "L-2147483649L\n"),
            (i64::MIN, "L-9223372036854775808L\n"),
        ] {
            assert_eq!(written(|writer| writer.int(value)), spelled);
        }
    }

    #[test]
    fn floats_are_spelled_as_python_does() {
        for (value, spelled) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (100.0, "100.0"),
            (-2.5, "-2.5"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.00012, "0.00012"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e15, "1000000000000000.0"),
            (1234567890123456.7, "1234567890123456.8"),
            (1e16, "1e+16"),
            (12345678901234567.0, "1.2345678901234568e+16"),
            (1e22, "1e+22"),
            (1e100, "1e+100"),
            (5e-324, "5e-324"),
            (1.7976931348623157e308, "1.7976931348623157e+308"),
            (f64::NAN, "nan"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(written(|writer| writer.float(value)), format!("F{spelled}\n"));
        }
    }

    #[test]
    fn strings_escape_what_would_garble_a_line() {
        assert_eq!(
            written(|w| w.latin1(b"a\\b\0c\nd\re\x1af\x7f\x80\xff")),
            "Va\\u005cb\\u0000c\\u000ad\\u000de\\u001af\x7f\u{80}\u{ff}\n"
        );
        assert_eq!(
            written(|w| w.ucs2(&[0xe9, 0x100, 0xd800, 0x5c])),
            "V\u{e9}\\u0100\\ud800\\u005c\n"
        );
        assert_eq!(written(|w| w.ucs4(&[0x41, 0x20ac, 0x1f600])), "VA\\u20ac\\U0001f600\n");
    }

    #[test]
    fn an_escape_is_found_wherever_it_stands() {
        for length in 0..100 {
            for place in 0..length {
                let mut text = vec![b'x'; length];
                text[place] = b'\\';
                let wide: Vec<u16> = text.iter().copied().map(u16::from).collect();
                let expected = format!("V{}\\u005c{}\n", "x".repeat(place), "x".repeat(length - place - 1));
                assert_eq!(written(|writer| writer.latin1(&text)), expected);
                assert_eq!(written(|writer| writer.ucs2(&wide)), expected);
            }
        }
    }

    proptest! {
        #[test]
        fn escapes_as_one_character_after_the_other(
            pieces in prop::collection::vec((0..200_usize, prop::sample::select(ESCAPED.to_vec())), 0..40),
            rest in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut text = rest;
            for (plain, escaped) in pieces {
                text.extend(std::iter::repeat_n(b'x', plain).chain([escaped]));
            }
            let mut model = Vec::new();
            for &byte in &text {
                let mut escaped = [0; LONGEST_ESCAPE];
                let length = escape_character(byte.into(), &mut escaped);
                model.extend_from_slice(&escaped[..length]);
            }
            let mut out = Vec::new();
            escape_latin1(&text, &mut out).unwrap();
            prop_assert_eq!(out, model);
        }
    }

    #[test]
    fn memo_numbers_count_up() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        for number in 0..=1000 {
            assert_eq!(writer.put(), number);
        }
        writer.get(99);
        writer.stop().unwrap();
        assert!(out.starts_with(b"p0\np1\n"));
        assert!(out.ends_with(b"p999\np1000\ng99\n."));
    }
}
