//! Cutting a stream into chunks that fit into a cache.

use crate::error::Error;
use crate::memory::{append, shrink};

/// A chunk's size in bytes: just under the largest item that memcached takes by default.
pub const CHUNK_SIZE: usize = (1 << 20) - 1024;

/// How many chunks' memory is kept for those that follow.
const KEPT: usize = 2;

/// How many chunks may be held twice while they are given away. To free memory bit by bit is slow: the system has to be asked
/// for it again, page by page. For a list of records of 5 MB it took half as long as pickling it.
const HELD_TWICE: usize = 16;

/// Collects a stream and gives it back in chunks.
#[derive(Debug, Default)]
pub struct Cutter {
    pending: Vec<u8>,
}

impl Cutter {
    /// Where the stream is to be appended.
    pub fn input(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// The chunks that are certainly not the last. A chunk that is exactly full waits, since it may be.
    pub fn full_chunks(&self) -> impl DoubleEndedIterator<Item = &[u8]> + ExactSizeIterator {
        let full = self.pending.len().saturating_sub(1) / CHUNK_SIZE;
        self.pending[..full * CHUNK_SIZE].chunks(CHUNK_SIZE)
    }

    /// Gives away the full chunks, the last one first. A huge value's are freed bit by bit, so that it isn't held twice.
    pub fn take_full_chunks<E: From<Error>>(&mut self, mut take: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let full = self.full_chunks().len();
        if full <= HELD_TWICE {
            self.full_chunks().rev().try_for_each(take)?;
            self.drop_full_chunks();
            return Ok(());
        }
        let mut rest = Vec::new();
        append(&mut rest, &self.pending[full * CHUNK_SIZE..])?;
        for start in (0..full).rev().map(|index| index * CHUNK_SIZE) {
            take(&self.pending[start..start + CHUNK_SIZE])?;
            self.pending.truncate(start);
            if self.pending.capacity() - start >= HELD_TWICE / 2 * CHUNK_SIZE {
                // `memory::shrink` would copy what is left.
                self.pending.shrink_to_fit();
            }
        }
        self.pending = rest;
        Ok(())
    }

    /// Forgets the full chunks.
    pub fn drop_full_chunks(&mut self) {
        let taken = self.full_chunks().len() * CHUNK_SIZE;
        self.pending.drain(..taken);
        // One huge item must not hold its memory for all that follow it.
        shrink(&mut self.pending, KEPT * CHUNK_SIZE);
    }

    /// What is left after the full chunks: the last chunk, `None` where nothing is left.
    pub fn last_chunk(&self) -> Option<&[u8]> {
        self.pending.chunks(CHUNK_SIZE).next_back()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sizes(total: usize) -> (Vec<usize>, Option<usize>) {
        let mut cutter = Cutter::default();
        cutter.input().resize(total, 7);
        let full = cutter.full_chunks().map(<[u8]>::len).collect();
        cutter.drop_full_chunks();
        assert_eq!(cutter.full_chunks().len(), 0);
        (full, cutter.last_chunk().map(<[u8]>::len))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]

        #[test]
        fn chunks_are_taken_from_the_end(full in 0..2 * HELD_TWICE, rest in 0..2_usize) {
            let total = full * CHUNK_SIZE + rest;
            let stream = || (0..total).map(|at| (at / 1000) as u8);
            let (mut forgetful, mut cutter) = (Cutter::default(), Cutter::default());
            forgetful.input().extend(stream());
            cutter.input().extend(stream());
            let mut chunks = Vec::new();
            cutter
                .take_full_chunks(|chunk| {
                    chunks.insert(0, chunk.to_vec());
                    Ok::<_, Error>(())
                })
                .unwrap();
            prop_assert!(chunks.iter().eq(forgetful.full_chunks()));
            forgetful.drop_full_chunks();
            prop_assert_eq!(cutter.input(), forgetful.input());
            prop_assert!(cutter.input().capacity() <= KEPT * CHUNK_SIZE);
        }
    }

    #[test]
    fn a_chunk_that_is_exactly_full_stays_last() {
        assert_eq!(sizes(0), (vec![], None));
        assert_eq!(sizes(1), (vec![], Some(1)));
        assert_eq!(sizes(CHUNK_SIZE - 1), (vec![], Some(CHUNK_SIZE - 1)));
        assert_eq!(sizes(CHUNK_SIZE), (vec![], Some(CHUNK_SIZE)));
        assert_eq!(sizes(CHUNK_SIZE + 1), (vec![CHUNK_SIZE], Some(1)));
        assert_eq!(sizes(3 * CHUNK_SIZE), (vec![CHUNK_SIZE; 2], Some(CHUNK_SIZE)));
    }
}
