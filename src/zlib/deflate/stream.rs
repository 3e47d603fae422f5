//! The stream: what goes into the window, how it is parsed, where a block ends.

use zlib_rs::adler32::adler32;

use super::bits::BitWriter;
use super::block::Block;
use super::matcher::{Match, Matcher};
use super::window::Window;
use super::{MAX_MATCH, MIN_MATCH, WINDOW_SIZE};
use crate::error::Result;
use crate::memory::{append, grow};

/// Deflate with a window of 32 KiB at zlib's default level (RFC 1950, section 2.2).
const HEADER: [u8; 2] = [0x78, 0x9c];

/// zlib waits for more input when it has less than this ahead, until the final flush.
const MIN_LOOKAHEAD: u64 = (MAX_MATCH + MIN_MATCH + 1) as u64;

/// How far ahead positions are inserted: less than `MIN_LOOKAHEAD`, as their entries replace those a window ago.
const AHEAD: u64 = 256;

/// zlib's `max_lazy` at level 6: a match of this length is taken without a look at the next position.
const MAX_LAZY: usize = 16;

/// CPython hands larger pieces to zlib in parts of this size.
const MAX_PIECE: usize = u32::MAX as usize;

pub(super) struct Stream {
    window: Window,
    matcher: Matcher,
    block: Block,
    /// What is yet to be written of it.
    header: &'static [u8],
    bits: BitWriter,
    checksum: u32,
    /// The position after the input. Positions start at `WINDOW_SIZE`, so that those in zeroed tables are too far away.
    end: u64,
    /// The position to be parsed next.
    position: u64,
    /// The position that the matcher is to learn next. It may learn of one before it is parsed, as the parser only ever
    /// looks back.
    inserted: u64,
    /// Where the block begins.
    block_start: u64,
    /// Where the matcher last forgot what is too far away.
    pruned: u64,
    /// The position at which the last piece left less than `MIN_LOOKAHEAD`.
    ran_dry: u64,
    /// The match at the previous position, which waits for a better one.
    deferred: Match,
    /// Whether the byte at the previous position is not yet in the block.
    literal_deferred: bool,
}

// What `multiversion` compiles for newer processors has to be inlined there.
impl Stream {
    pub(super) fn new() -> Result<Self> {
        Ok(Self::begin(Window::new()?, Matcher::new()?, Block::new()?))
    }

    fn begin(window: Window, matcher: Matcher, block: Block) -> Self {
        Self {
            window,
            matcher,
            block,
            header: &HEADER,
            bits: BitWriter::default(),
            checksum: 1,
            end: WINDOW_SIZE,
            position: WINDOW_SIZE,
            // zlib's tables use 0 for "none", so it never finds the very first position.
            inserted: WINDOW_SIZE + 1,
            block_start: WINDOW_SIZE,
            pruned: WINDOW_SIZE,
            ran_dry: 0,
            deferred: Match::NONE,
            literal_deferred: false,
        }
    }

    /// Another stream in the same memory.
    pub(super) fn restart(mut self) -> Self {
        self.matcher.clear();
        self.block.clear();
        Self::begin(self.window, self.matcher, self.block)
    }

    #[inline(always)]
    pub(super) fn write(&mut self, piece: &[u8], output: &mut Vec<u8>) -> Result<()> {
        append(output, std::mem::take(&mut self.header))?;
        for part in piece.chunks(MAX_PIECE) {
            let mut rest = part;
            while !rest.is_empty() {
                rest = self.fill(rest);
                self.parse(MIN_LOOKAHEAD, output)?;
            }
            self.ran_dry = self.position;
        }
        Ok(())
    }

    #[inline(always)]
    pub(super) fn finish(&mut self, output: &mut Vec<u8>) -> Result<()> {
        append(output, std::mem::take(&mut self.header))?;
        self.parse(1, output)?;
        if self.literal_deferred {
            self.block.literal(self.window.byte(self.position - 1));
            self.literal_deferred = false;
        }
        self.end_block(true, output)?;
        grow(output, 1)?;
        self.bits.align(output);
        append(output, &self.checksum.to_be_bytes())
    }

    /// Moves as much of the input into the window as it has room for. Returns the rest.
    #[inline(always)]
    fn fill<'a>(&mut self, input: &'a [u8]) -> &'a [u8] {
        if self.end == self.pruned + WINDOW_SIZE {
            self.matcher.prune(self.inserted);
            self.pruned = self.position;
        }
        let room = usize::try_from(self.pruned + WINDOW_SIZE - self.end).unwrap_or_default();
        let (piece, rest) = input.split_at(room.min(input.len()));
        self.window.write(self.end, piece);
        self.checksum = adler32(self.checksum, piece);
        self.end += piece.len() as u64;
        rest
    }

    /// Parses the input into literals and matches while at least `reserve` bytes of it are ahead.
    #[inline(always)]
    fn parse(&mut self, reserve: u64, output: &mut Vec<u8>) -> Result<()> {
        while self.end - self.position >= reserve {
            let position = self.position;
            let lookahead = (self.end - position) as usize;
            let previous = self.deferred;
            if position >= self.inserted {
                self.insert_ahead();
            }
            self.deferred = if previous.length < MAX_LAZY && lookahead >= MIN_MATCH {
                let ran_dry = lookahead < MIN_LOOKAHEAD as usize || self.ran_dry == position;
                self.matcher
                    .longest(&self.window, position, previous.length, lookahead, ran_dry)
            } else {
                Match::NONE
            };
            if previous.length >= MIN_MATCH && self.deferred.length <= previous.length {
                self.take(previous);
                if self.block.is_full() {
                    self.end_block(false, output)?;
                }
            } else {
                if self.literal_deferred {
                    self.block.literal(self.window.byte(position - 1));
                    if self.block.is_full() {
                        self.end_block(false, output)?;
                    }
                }
                self.literal_deferred = true;
                self.position += 1;
            }
        }
        Ok(())
    }

    /// Takes the match that began at the previous position.
    #[inline(always)]
    fn take(&mut self, found: Match) {
        self.block.found(found);
        self.position += found.length as u64 - 1;
        self.deferred = Match::NONE;
        self.literal_deferred = false;
    }

    /// Tells the matcher of the next positions: many in a row, as that is fast.
    #[inline(always)]
    fn insert_ahead(&mut self) {
        let until = self.end.min(self.position + AHEAD);
        self.matcher.insert(&self.window, self.inserted, until);
        self.inserted = until;
    }

    fn end_block(&mut self, last: bool, output: &mut Vec<u8>) -> Result<()> {
        let stored = self.window.range(self.block_start, self.position);
        self.block.end(stored, last, &mut self.bits, output)?;
        self.block_start = self.position;
        Ok(())
    }
}
