//! Deflate with each of stock zlib's decisions: level 6, a window of 32 KiB, memLevel 8, a zlib header.
//!
//! The format is RFC 1950 and RFC 1951. What is chosen within it (which match, when to defer it, where a block ends, how
//! it is stored) is the algorithm of zlib, by Jean-loup Gailly and Mark Adler, written anew. zlib is under the zlib
//! licence; this is not the original software.

mod bits;
mod block;
mod huffman;

mod matcher;
mod multiversion;
mod stream;
mod u16x4;

mod window;

use std::sync::Mutex;

use crate::error::{Error, Result};
use stream::Stream;

const WINDOW_SIZE: u64 = 1 << 15;
const MIN_MATCH: usize = 3;
const MAX_MATCH: usize = 258;

/// The last stream, for the next: two thirds of a megabyte fresh from the system take longer than a few kilobytes of input.
static SPARE: Mutex<Option<Stream>> = Mutex::new(None);

/// One zlib stream being written. After an error there is no more to be had of it.
pub struct Deflate(Option<Stream>);

impl Default for Deflate {
    fn default() -> Self {
        let spare = SPARE.try_lock().ok().and_then(|mut spare| spare.take());
        Self(spare.map(Stream::restart))
    }
}

impl Drop for Deflate {
    fn drop(&mut self) {
        if let (Some(stream), Ok(mut spare)) = (self.0.take(), SPARE.try_lock()) {
            *spare = Some(stream);
        }
    }
}

impl Deflate {
    /// Compresses one piece, appending to `output` what is complete so far, which may be nothing.
    ///
    /// The pieces must be those that Djblets passes to `compress()`, one an item: where a call ends, zlib may slide its
    /// window a little earlier, and then find another match (seen at positions 65274 + 32768 k of a stream).
    pub fn write(&mut self, piece: &[u8], output: &mut Vec<u8>) -> Result<()> {
        multiversion::write(self.stream()?, piece, output)
    }

    /// Ends the stream.
    pub fn finish(&mut self, output: &mut Vec<u8>) -> Result<()> {
        multiversion::finish(self.stream()?, output)
    }

    fn stream(&mut self) -> Result<&mut Stream> {
        match &mut self.0 {
            Some(stream) => Ok(stream),
            none => Ok(none.insert(Stream::new()?)),
        }
    }
}

/// A table of zeros that never was on the stack.
fn zeroed<T: Clone + Default, const SIZE: usize>() -> Result<Box<[T; SIZE]>> {
    let mut table = Vec::new();
    table.try_reserve_exact(SIZE).map_err(|_| Error::Memory)?;
    table.resize(SIZE, T::default());
    // It has no more room than that, so it stays where it is.
    table.into_boxed_slice().try_into().map_err(|_| Error::Memory)
}
