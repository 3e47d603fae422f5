//! A block: literals and matches, and how zlib writes them.

use super::bits::BitWriter;
use super::huffman::{Huffman, MAX_BITS, MAX_SYMBOLS, codes};
use super::matcher::Match;
use super::{MIN_MATCH, zeroed};
use crate::error::Result;
use crate::memory::grow;

/// zlib ends a block after this many literals and matches, at memLevel 8.
const FULL: usize = (1 << 14) - 1;

const LITERALS: usize = 256;
const END_OF_BLOCK: usize = 256;
const LENGTH_CODES: usize = 29;
const DISTANCE_CODES: usize = 30;

/// The order in which the lengths of the code length codes are sent, and their extra bits (RFC 1951, section 3.2.7).
const CODE_LENGTH_ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const MAX_CODE_LENGTH_BITS: usize = 7;

const STORED: u32 = 0;
const FIXED: u32 = 1;
const DYNAMIC: u32 = 2;

/// The distance code of a literal, which has none.
const NO_DISTANCE: u32 = 31;

/// For each length, less `MIN_MATCH`, the length code; for each length code, the extra bits (RFC 1951, section 3.2.5).
const LENGTH_CODE: [u8; 256] = length_codes();
const LENGTH_EXTRA: [u8; LENGTH_CODES] = [
    0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0,
];
const DISTANCE_EXTRA: [u8; DISTANCE_CODES] = [
    0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13,
];

const fn length_codes() -> [u8; 256] {
    let mut codes = [0; 256];
    let (mut length, mut code) = (0, 0);
    while code < LENGTH_CODES {
        let end = length + (1 << LENGTH_EXTRA[code]);
        while length < end && length < 256 {
            codes[length] = code as u8;
            length += 1;
        }
        code += 1;
    }
    // The longest has a code of its own.
    codes[255] = 28;
    codes
}

/// The distance code for a distance less 1: its highest bit and the one below that.
#[inline(always)]
fn distance_code(distance: u32) -> u32 {
    let high = (distance | 2).ilog2();
    if distance < 2 {
        distance
    } else {
        2 * high + (distance >> (high - 1) & 1)
    }
}

const FIXED_LENGTHS: [u8; MAX_SYMBOLS] = {
    let mut lengths = [8; MAX_SYMBOLS];
    let mut symbol = 144;
    while symbol < 280 {
        lengths[symbol] = if symbol < 256 { 9 } else { 7 };
        symbol += 1;
    }
    lengths
};
const FIXED_DISTANCE_LENGTHS: [u8; MAX_SYMBOLS] = {
    let mut lengths = [0; MAX_SYMBOLS];
    let mut symbol = 0;
    while symbol < 32 {
        lengths[symbol] = 5;
        symbol += 1;
    }
    lengths
};
static FIXED_CODE: Huffman = Huffman {
    lengths: FIXED_LENGTHS,
    codes: codes(&FIXED_LENGTHS),
    count: MAX_SYMBOLS,
};
static FIXED_DISTANCE_CODE: Huffman = Huffman {
    lengths: FIXED_DISTANCE_LENGTHS,
    codes: codes(&FIXED_DISTANCE_LENGTHS),
    count: DISTANCE_CODES,
};

/// A literal or a match: 9 bits for the literal, or 256 and the length; 5 for the distance code; 15 for the distance.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Symbol(u32);

impl Symbol {
    #[inline(always)]
    pub(super) fn literal(byte: u8) -> Self {
        Self::new(u32::from(byte), NO_DISTANCE, 0)
    }

    #[inline(always)]
    pub(super) fn found(found: Match) -> Self {
        let length = (found.length - MIN_MATCH) as u8;
        let distance = u32::from(found.distance) - 1;
        Self::new(LITERALS as u32 + u32::from(length), distance_code(distance), distance)
    }

    #[inline(always)]
    fn new(literal_or_length: u32, distance_code: u32, distance: u32) -> Self {
        Self(literal_or_length | distance_code << 9 | distance << 14)
    }

    /// How many bytes of the input it stands for.
    pub(super) fn size(self) -> u64 {
        match self.literal_or_length().checked_sub(LITERALS) {
            Some(length) => (length + MIN_MATCH) as u64,
            None => 1,
        }
    }

    fn literal_or_length(self) -> usize {
        (self.0 & 0x1ff) as usize
    }

    fn distance_code(self) -> usize {
        (self.0 >> 9 & 0x1f) as usize
    }

    fn distance(self) -> u32 {
        self.0 >> 14
    }
}

/// The literals and matches of a block, and how often each code will be used.
pub(super) struct Block {
    symbols: Box<[Symbol; FULL + 1]>,
    count: usize,
    frequencies: [u16; MAX_SYMBOLS],
    distance_frequencies: [u16; 32],
}

impl Block {
    pub(super) fn new() -> Result<Self> {
        let mut block = Self {
            symbols: zeroed()?,
            count: 0,
            frequencies: [0; MAX_SYMBOLS],
            distance_frequencies: [0; 32],
        };
        block.clear();
        Ok(block)
    }

    pub(super) fn clear(&mut self) {
        self.count = 0;
        self.frequencies.fill(0);
        self.frequencies[END_OF_BLOCK] = 1;
        self.distance_frequencies.fill(0);
    }

    #[inline(always)]
    pub(super) fn is_full(&self) -> bool {
        self.count == FULL
    }

    #[inline(always)]
    pub(super) fn push(&mut self, symbol: Symbol) {
        self.symbols[self.count % (FULL + 1)] = symbol;
        self.count += 1;
        match symbol.literal_or_length().checked_sub(LITERALS) {
            Some(length) => {
                self.frequencies[END_OF_BLOCK + 1 + usize::from(LENGTH_CODE[length % 256])] += 1;
                self.distance_frequencies[symbol.distance_code() % 32] += 1;
            }
            None => self.frequencies[symbol.literal_or_length()] += 1,
        }
    }

    /// Writes the block in the way that takes the least room, and starts the next. `stored` is the input that it covers.
    pub(super) fn end(
        &mut self,
        stored: Option<[&[u8]; 2]>,
        last: bool,
        bits: &mut BitWriter,
        output: &mut Vec<u8>,
    ) -> Result<()> {
        let distance_frequencies = &self.distance_frequencies[..DISTANCE_CODES];
        let frequencies = &self.frequencies[..MAX_SYMBOLS - 2];
        let code = Huffman::new(frequencies, MAX_BITS);
        let distance_code = Huffman::new(distance_frequencies, MAX_BITS);
        let header = Header::new(&code, &distance_code);

        let extra = self.extra_bits();
        let dynamic = code.cost(frequencies) + distance_code.cost(distance_frequencies) + extra;
        let fixed = FIXED_CODE.cost(frequencies) + FIXED_DISTANCE_CODE.cost(distance_frequencies) + extra;
        let dynamic_bytes = (3 + header.cost() + dynamic).div_ceil(8);
        let fixed_bytes = (3 + fixed).div_ceil(8);

        // It is stored only if that takes no more.
        grow(output, fixed_bytes.min(dynamic_bytes) + BitWriter::SPARE)?;
        let last = u32::from(last);
        match stored {
            Some([one, two]) if one.len() + two.len() + 4 <= fixed_bytes.min(dynamic_bytes) => {
                bits.put(STORED << 1 | last, 3, output);
                bits.align(output);
                let length = (one.len() + two.len()) as u16;
                output.extend_from_slice(&length.to_le_bytes());
                output.extend_from_slice(&(!length).to_le_bytes());
                output.extend_from_slice(one);
                output.extend_from_slice(two);
            }
            _ if fixed_bytes <= dynamic_bytes => {
                bits.put(FIXED << 1 | last, 3, output);
                self.write(&FIXED_CODE, &FIXED_DISTANCE_CODE, fixed, bits, output);
            }
            _ => {
                bits.put(DYNAMIC << 1 | last, 3, output);
                header.write(bits, output);
                self.write(&code, &distance_code, dynamic, bits, output);
            }
        }
        self.clear();
        Ok(())
    }

    fn extra_bits(&self) -> usize {
        let lengths = self.frequencies[END_OF_BLOCK + 1..].iter().zip(LENGTH_EXTRA);
        let distances = self.distance_frequencies.iter().zip(DISTANCE_EXTRA);
        lengths
            .chain(distances)
            .map(|(&frequency, extra)| usize::from(frequency) * usize::from(extra))
            .sum()
    }

    /// Writes the literals and matches, which take `total` bits.
    fn write(&self, code: &Huffman, distance_code: &Huffman, total: usize, bits: &mut BitWriter, output: &mut Vec<u8>) {
        let literals_and_lengths = literals_and_lengths(code);
        let distances = distances(distance_code);
        let symbols = self.symbols[..self.count].iter().map(|symbol| {
            let (first, mut length) = literals_and_lengths[symbol.literal_or_length()];
            let (second, code_length, extra) = distances[symbol.distance_code()];
            let mut bits = u64::from(first) | u64::from(second) << length;
            length += code_length;
            bits |= u64::from(symbol.distance() & ((1 << extra) - 1)) << length;
            (bits, length + extra)
        });
        bits.put_all(symbols, total, output);
        bits.put(
            code.codes[END_OF_BLOCK].into(),
            code.lengths[END_OF_BLOCK].into(),
            output,
        );
    }
}

/// The bits, and how many, for each literal and, from 256, for each length with its extra bits.
fn literals_and_lengths(code: &Huffman) -> [(u32, u32); 512] {
    let mut table = [(0, 0); 512];
    for (symbol, entry) in table[..LITERALS].iter_mut().enumerate() {
        *entry = (u32::from(code.codes[symbol]), u32::from(code.lengths[symbol]));
    }
    let mut base = 0;
    for (length, entry) in table[LITERALS..].iter_mut().enumerate() {
        let symbol = usize::from(LENGTH_CODE[length]);
        if length > 0 && LENGTH_CODE[length - 1] != LENGTH_CODE[length] {
            base = length;
        }
        let size = u32::from(code.lengths[END_OF_BLOCK + 1 + symbol]);
        let extra = (length - base) as u32;
        *entry = (
            u32::from(code.codes[END_OF_BLOCK + 1 + symbol]) | extra << size,
            size + u32::from(LENGTH_EXTRA[symbol]),
        );
    }
    table
}

/// The bits, how many, and how many extra bits, for each distance code.
fn distances(code: &Huffman) -> [(u32, u32, u32); 32] {
    let mut table = [(0, 0, 0); 32];
    for (symbol, entry) in table[..DISTANCE_CODES].iter_mut().enumerate() {
        *entry = (
            code.codes[symbol].into(),
            code.lengths[symbol].into(),
            DISTANCE_EXTRA[symbol].into(),
        );
    }
    table
}

/// The head of a dynamic block: the code lengths, themselves coded (RFC 1951, section 3.2.7).
struct Header {
    counts: [usize; 2],
    /// Code lengths and repetitions, each with its extra bits.
    items: Items,
    frequencies: [u16; 19],
    code: Huffman,
    /// How many of the code length codes' lengths are sent.
    sent: usize,
}

/// At most one for each symbol.
struct Items {
    list: [(u8, u8); MAX_SYMBOLS + 32],
    count: usize,
}

impl Default for Items {
    fn default() -> Self {
        Self {
            list: [(0, 0); MAX_SYMBOLS + 32],
            count: 0,
        }
    }
}

impl Items {
    fn push(&mut self, item: (u8, u8)) {
        self.list[self.count] = item;
        self.count += 1;
    }

    fn as_slice(&self) -> &[(u8, u8)] {
        &self.list[..self.count]
    }
}

/// Extra bits of a code length symbol: of a repetition, that is.
fn repeat_extra(symbol: usize) -> u32 {
    [2, 3, 7].get(symbol.wrapping_sub(16)).copied().unwrap_or(0)
}

impl Header {
    fn new(code: &Huffman, distance_code: &Huffman) -> Self {
        let mut items = Items::default();
        for code in [code, distance_code] {
            for run in code.lengths[..code.count].chunk_by(PartialEq::eq) {
                push_run(run, &mut items);
            }
        }
        let mut frequencies = [0; 19];
        for &(symbol, _) in items.as_slice() {
            frequencies[usize::from(symbol)] += 1;
        }
        let lengths_code = Huffman::new(&frequencies, MAX_CODE_LENGTH_BITS);
        let last = CODE_LENGTH_ORDER
            .iter()
            .rposition(|&symbol| lengths_code.lengths[symbol] != 0);
        Self {
            counts: [code.count, distance_code.count],
            items,
            frequencies,
            code: lengths_code,
            sent: last.unwrap_or_default().max(3) + 1,
        }
    }

    fn cost(&self) -> usize {
        let items = self.items.as_slice().iter();
        let extra: u32 = items.map(|&(symbol, _)| repeat_extra(symbol.into())).sum();
        5 + 5 + 4 + 3 * self.sent + self.code.cost(&self.frequencies) + extra as usize
    }

    fn write(&self, bits: &mut BitWriter, output: &mut Vec<u8>) {
        bits.put((self.counts[0] - 257) as u32, 5, output);
        bits.put((self.counts[1] - 1) as u32, 5, output);
        bits.put((self.sent - 4) as u32, 4, output);
        for &symbol in &CODE_LENGTH_ORDER[..self.sent] {
            bits.put(self.code.lengths[symbol].into(), 3, output);
        }
        for &(symbol, extra) in self.items.as_slice() {
            let symbol = usize::from(symbol);
            bits.put(self.code.codes[symbol].into(), self.code.lengths[symbol].into(), output);
            bits.put(extra.into(), repeat_extra(symbol), output);
        }
    }
}

/// A run of one code length: repetitions as long as possible, what is too short for one spelt out.
fn push_run(run: &[u8], items: &mut Items) {
    let Some((&length, mut rest)) = run.split_first() else {
        return;
    };
    let longest = if length == 0 { 138 } else { 6 };
    if length == 0 {
        rest = run;
    } else {
        items.push((length, 0));
    }
    for part in rest.chunks(longest) {
        let size = part.len() as u8;
        match (length, size) {
            (_, ..=2) => part.iter().for_each(|&length| items.push((length, 0))),
            (0, ..=10) => items.push((17, size - 3)),
            (0, _) => items.push((18, size - 11)),
            _ => items.push((16, size - 3)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1951, section 3.2.5: the first length, or distance, of each code.
    #[test]
    fn lengths_and_distances_have_the_codes_of_the_rfc() {
        let mut length = 3;
        for (code, extra) in LENGTH_EXTRA.into_iter().enumerate().take(28) {
            assert_eq!(usize::from(LENGTH_CODE[length - 3]), code);
            length += 1 << extra;
        }
        assert_eq!(LENGTH_CODE[257 - 3], 27);
        assert_eq!(LENGTH_CODE[258 - 3], 28);
        let mut distance = 1;
        for (code, extra) in DISTANCE_EXTRA.into_iter().enumerate() {
            assert_eq!(distance_code(distance - 1) as usize, code);
            distance += 1 << extra;
            assert_eq!(distance_code(distance - 2) as usize, code);
        }
        assert_eq!(distance, 32769);
    }

    #[test]
    fn runs_of_code_lengths_are_repeated() {
        let run = |length: u8, size: usize| {
            let mut items = Items::default();
            push_run(&vec![length; size], &mut items);
            items.as_slice().to_vec()
        };
        assert_eq!(run(0, 2), [(0, 0), (0, 0)]);
        assert_eq!(run(0, 10), [(17, 7)]);
        assert_eq!(run(0, 140), [(18, 127), (0, 0), (0, 0)]);
        assert_eq!(run(5, 3), [(5, 0), (5, 0), (5, 0)]);
        assert_eq!(run(5, 7), [(5, 0), (16, 3)]);
        assert_eq!(run(5, 11), [(5, 0), (16, 3), (16, 1)]);
    }
}
