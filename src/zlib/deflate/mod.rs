//! Deflate with each of stock zlib's decisions: level 6, a window of 32 KiB, memLevel 8, a zlib header.
//!
//! The format is RFC 1950 and RFC 1951. The choices that the format leaves open (which match, when to defer it, where a
//! block ends, how it is stored) are those of zlib, by Jean-loup Gailly and Mark Adler, in a new implementation. zlib is under
//! the zlib licence; this is not the original software.
//!
//! # How a match is found
//!
//! zlib keeps a chain of earlier positions for each hash of three bytes. At a position it walks the chain from the nearest
//! candidate on, up to 128 steps (32 if the previous position has a match of 8 bytes already). It takes the first of the
//! longest matches, and stops at one of 128 bytes. The stored bytes depend on that walk: on which candidates are in a chain,
//! on their order, on how many steps are taken. So the same match has to be found; but it need not be found by the same walk.
//!
//! 1. **Who can win?** A candidate that beats a match of three bytes shares at least four bytes with the position. So
//!    [`matcher`] keeps a second, finer hash of four bytes. Each position stores the distances of the four nearest earlier
//!    positions with its finer hash (`Nearest`, four 16-bit lanes in one `u64`, see [`u16x4`]). Inserting a position is one
//!    saturating addition: what the last position with that hash knew, plus the distance to it.
//! 2. **The search** reads four candidates at a time. It compares the last four bytes that a longer match would need; those
//!    that differ can't win. The others are measured eight bytes at a time. The farthest of the four leads to the next group.
//! 3. **Would zlib have come so far?** Every position also stores its *rank* in zlib's own chain of three-byte hashes: how
//!    many positions were inserted there before it. The difference of two ranks is the number of steps that zlib's walk
//!    takes, without a walk. A candidate beyond zlib's limit ends the search.
//! 4. **Where it does not pay**, zlib's plain walk is done instead: if the groups are crowded with positions that only share
//!    the finer hash by accident, and for matches of exactly three bytes, of which the nearest counts.
//!
//! Distances are 16 bits. A distance of 32 KiB or more is only known to be too far; heads that would wrap around are moved
//! along every 32 KiB (`prune`).
//!
//! In a long run of one byte each position has the same four nearest ones, so that only its rank is written.
//!
//! # From the input to the stream
//!
//! [`parser`] decides which matches are used, as zlib's lazy evaluation does: a match waits one position for a better one.
//! [`stream`] counts literals and matches and ends a block after 16,383 of them; [`block`] and [`huffman`] write it with
//! zlib's trees. `tests/deflate.rs` compares all of it with stock zlib.
//!
//! # Several threads
//!
//! Every position is inserted into its chain, whether it is parsed or skipped. So the chains, and with them the match that is
//! found at a position, depend on the 32 KiB before and the 262 bytes after it, and on nothing that the parser decided. Its
//! decisions depend on them and on its own [`State`](parser::State). [`parallel`] has several threads parse parts of a long
//! input from a guessed state, and uses what they find only if the guess was right.
//!
//! Two things could make a difference, and don't. zlib's window slides early where there is less than 262 bytes ahead: that
//! is at the ends of pieces only, and whether it may is a part of the state. Blocks end by count: the main thread counts.

mod bits;
mod block;
mod huffman;
mod matcher;
mod multiversion;
mod parallel;
mod parser;
mod stream;
mod u16x4;
mod window;

use std::sync::Mutex;

use crate::error::{Error, Result};
pub use parallel::Sharing;
use stream::Stream;

const WINDOW_SIZE: u64 = 1 << 15;
const MIN_MATCH: usize = 3;
const MAX_MATCH: usize = 258;

/// CPython hands larger pieces to zlib in parts of this size.
const MAX_PIECE: usize = u32::MAX as usize;

/// The last stream, kept for the next: allocating two thirds of a megabyte takes longer than a few kilobytes of input.
static SPARE: Mutex<Option<Stream>> = Mutex::new(None);

/// Writes one zlib stream. After an error it must not be used any more.
pub struct Deflate {
    stream: Option<Stream>,
    sharing: Sharing,
}

impl Default for Deflate {
    fn default() -> Self {
        Self::new(Sharing::serial())
    }
}

impl Drop for Deflate {
    fn drop(&mut self) {
        if let (Some(mut stream), Ok(mut spare)) = (self.stream.take(), SPARE.try_lock()) {
            stream.shrink();
            *spare = Some(stream);
        }
    }
}

impl Deflate {
    /// A stream whose long inputs are shared between threads. How they are does not show in the output.
    pub fn new(sharing: Sharing) -> Self {
        let spare = SPARE.try_lock().ok().and_then(|mut spare| spare.take());
        Self {
            stream: spare.map(Stream::restart),
            sharing,
        }
    }

    /// Compresses one piece, appending to `output` what is complete so far, which may be nothing.
    ///
    /// The pieces must be those that Djblets passes to `compress()`, one an item: where a call ends, zlib may slide its
    /// window a little earlier, and then find another match (seen at positions 65274 + 32768 k of a stream).
    pub fn write(&mut self, piece: &[u8], output: &mut Vec<u8>) -> Result<()> {
        self.write_with(piece, output, |_| ())
    }

    /// As [`write`](Self::write). `written` is called when more has been appended to `output`.
    pub fn write_with(
        &mut self,
        piece: &[u8],
        output: &mut Vec<u8>,
        mut written: impl FnMut(&mut Vec<u8>),
    ) -> Result<()> {
        for part in piece.chunks(MAX_PIECE) {
            self.write_pieces(part, &[part.len()], output, &mut written)?;
        }
        Ok(())
    }

    /// Compresses several pieces at once, of at most 4 GB each, as one after the other. They end at `ends` in
    /// `bytes`, the last one at its end. `written` is called when more has been appended to `output`.
    pub fn write_pieces(
        &mut self,
        bytes: &[u8],
        ends: &[usize],
        output: &mut Vec<u8>,
        mut written: impl FnMut(&mut Vec<u8>),
    ) -> Result<()> {
        let plan = self.sharing.plan(bytes.len());
        self.stream()?.write(bytes, ends, plan, output, &mut written)
    }

    /// Ends the stream.
    pub fn finish(&mut self, output: &mut Vec<u8>) -> Result<()> {
        self.stream()?.finish(output)
    }

    fn stream(&mut self) -> Result<&mut Stream> {
        match &mut self.stream {
            Some(stream) => Ok(stream),
            none => Ok(none.insert(Stream::new()?)),
        }
    }
}

/// A table of zeros, made on the heap.
fn zeroed<T: Clone + Default, const SIZE: usize>() -> Result<Box<[T; SIZE]>> {
    let mut table = Vec::new();
    table.try_reserve_exact(SIZE).map_err(|_| Error::Memory)?;
    table.resize(SIZE, T::default());
    // Its capacity is exact, so this does not move it.
    table.into_boxed_slice().try_into().map_err(|_| Error::Memory)
}
