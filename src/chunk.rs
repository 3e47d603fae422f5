//! Cutting a stream into chunks that fit into a cache.

use crate::memory::shrink;

/// A chunk's size in bytes: just under the largest item that memcached takes by default.
pub const CHUNK_SIZE: usize = (1 << 20) - 1024;

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
    pub fn full_chunks(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let full = self.pending.len().saturating_sub(1) / CHUNK_SIZE;
        self.pending[..full * CHUNK_SIZE].chunks(CHUNK_SIZE)
    }

    /// Forgets the full chunks.
    pub fn drop_full_chunks(&mut self) {
        let taken = self.full_chunks().len() * CHUNK_SIZE;
        self.pending.drain(..taken);
        // One huge item must not hold its memory for all that follow it.
        shrink(&mut self.pending, 2 * CHUNK_SIZE);
    }

    /// What is left after the full chunks: the last chunk, `None` where nothing is left.
    pub fn last_chunk(&self) -> Option<&[u8]> {
        self.pending.chunks(CHUNK_SIZE).next_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(total: usize) -> (Vec<usize>, Option<usize>) {
        let mut cutter = Cutter::default();
        cutter.input().resize(total, 7);
        let full = cutter.full_chunks().map(<[u8]>::len).collect();
        cutter.drop_full_chunks();
        assert_eq!(cutter.full_chunks().len(), 0);
        (full, cutter.last_chunk().map(<[u8]>::len))
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
