//! The last 64 KiB of the input.

use super::{MAX_MATCH, zeroed};
use crate::error::Result;

const SIZE: usize = 1 << 16;

/// The most that a block is stored of: what is certainly still in the window.
pub(super) const MAX_RANGE: u64 = SIZE as u64 / 2;

/// The beginning is repeated after the end, so that a match can be read past it.
const MIRROR: usize = 272;

/// A ring, indexed by the low 16 bits of a position.
pub(super) struct Window(Box<[u8; SIZE + MIRROR]>);

impl Window {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(zeroed()?))
    }

    /// Writes a piece of the input that is to be at `position`.
    pub(super) fn write(&mut self, position: u64, piece: &[u8]) {
        let start = usize::from(position as u16);
        let (piece, wrapped) = piece.split_at(piece.len().min(SIZE - start));
        self.0[start..start + piece.len()].copy_from_slice(piece);
        self.0[..wrapped.len()].copy_from_slice(wrapped);
        if start < MIRROR || !wrapped.is_empty() {
            self.0.copy_within(..MIRROR, SIZE);
        }
    }

    pub(super) fn byte(&self, position: u64) -> u8 {
        self.0[usize::from(position as u16)]
    }

    /// Four bytes, as a number.
    #[inline(always)]
    pub(super) fn word(&self, at: u16, offset: u8) -> u32 {
        let at = usize::from(at) + usize::from(offset);
        u32::from_le_bytes(*self.0[at..].first_chunk().unwrap_or(&[0; 4]))
    }

    /// How many bytes are the same at both places, up to `most`.
    #[inline(always)]
    pub(super) fn common(&self, one: u16, other: u16, most: usize) -> usize {
        let most = most.min(MAX_MATCH);
        let (one, other) = (self.reach(one), self.reach(other));
        let mut same = 0;
        while same < most {
            let differing = long(one, same) ^ long(other, same);
            if differing != 0 {
                return most.min(same + (differing.trailing_zeros() / 8) as usize);
            }
            same += 8;
        }
        most
    }

    fn reach(&self, at: u16) -> &[u8; MIRROR] {
        let at = usize::from(at);
        self.0[at..].first_chunk().unwrap_or(&[0; MIRROR])
    }

    /// What is between two positions, in two parts, or none if it may be gone. No block that long is worth storing.
    pub(super) fn range(&self, start: u64, end: u64) -> Option<[&[u8]; 2]> {
        if end - start > MAX_RANGE {
            return None;
        }
        let length = (end - start) as usize;
        let start = usize::from(start as u16);
        let first = length.min(SIZE - start);
        Some([&self.0[start..start + first], &self.0[..length - first]])
    }
}

#[inline(always)]
fn long(bytes: &[u8; MIRROR], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().unwrap_or(&[0; 8]))
}
