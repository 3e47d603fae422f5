//! Bits into bytes, the lowest first (RFC 1951, section 3.1.1). The output must have room for them.

/// The bits that do not yet fill a byte.
#[derive(Default)]
pub(super) struct BitWriter {
    pending: u64,
    count: u32,
}

impl BitWriter {
    /// So many bytes of room it takes beyond the bits that are put: for those that were pending, and for whole words.
    pub(super) const SPARE: usize = 16;

    /// Appends up to 32 bits.
    pub(super) fn put(&mut self, bits: u32, count: u32, output: &mut Vec<u8>) {
        self.pending |= u64::from(bits) << self.count;
        self.count += count;
        while self.count >= 8 {
            output.push(self.pending as u8);
            self.pending >>= 8;
            self.count -= 8;
        }
    }

    /// Appends what the iterator gives, up to 56 bits an item and `total` bits together.
    pub(super) fn put_all(&mut self, items: impl Iterator<Item = (u64, u32)>, total: usize, output: &mut Vec<u8>) {
        let mut at = output.len();
        // Each item writes whole words.
        output.resize(at + total / 8 + Self::SPARE, 0);
        let (mut pending, mut count) = (self.pending, self.count);
        for (bits, length) in items {
            pending |= bits << count;
            count += length;
            output[at..at + 8].copy_from_slice(&pending.to_le_bytes());
            at += (count / 8) as usize;
            pending >>= count & !7;
            count &= 7;
        }
        output.truncate(at);
        (self.pending, self.count) = (pending, count);
    }

    /// Fills the last byte.
    pub(super) fn align(&mut self, output: &mut Vec<u8>) {
        self.put(0, (8 - self.count) % 8, output);
    }
}
