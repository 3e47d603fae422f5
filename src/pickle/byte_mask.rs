//! The places of certain bytes in a block, as a mask of bits.

/// How many bytes one mask covers, a bit for each.
pub(super) const BLOCK: usize = 64;

/// A bit for each byte of the block, lowest first: set if the byte is one of `needles`.
///
/// One mask shows every character of a block that has to be escaped, or every escape. Searching for them one after the other
/// took twice as long on source text, as the processor mispredicts where the next one is.
#[cfg(target_arch = "x86_64")]
#[inline]
#[allow(
    unsafe_code,
    reason = "vectors: the model, in words of 64 bits, takes three times as long"
)]
pub(super) fn mask<const N: usize>(block: &[u8; BLOCK], needles: [u8; N]) -> u64 {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8, _mm_setzero_si128,
    };
    let (vectors, _) = block.as_chunks::<16>();
    let mut mask = 0;
    for (number, vector) in vectors.iter().enumerate() {
        // SAFETY: SSE2, which every processor of this architecture has; the sixteen bytes are there.
        let found = unsafe {
            let vector = _mm_loadu_si128(vector.as_ptr().cast());
            let found = needles.iter().fold(_mm_setzero_si128(), |found, needle| {
                _mm_or_si128(found, _mm_cmpeq_epi8(vector, _mm_set1_epi8(needle.cast_signed())))
            });
            _mm_movemask_epi8(found)
        };
        mask |= u64::from(found.cast_unsigned()) << (16 * number);
    }
    mask
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) use model as mask;

/// Scalar reference implementation, in words of eight bytes.
#[cfg(any(test, not(target_arch = "x86_64")))]
pub(super) fn model<const N: usize>(block: &[u8; BLOCK], needles: [u8; N]) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let (words, _) = block.as_chunks::<8>();
    let mut mask = 0;
    for (number, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let found = needles.iter().fold(0, |found, &needle| {
            let zero_where_equal = word ^ (u64::from(needle) * super::find::ONES);
            found | !(((zero_where_equal & LOW) + LOW) | zero_where_equal | LOW)
        });
        // The top bits of eight bytes, side by side.
        mask |= (found >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56 << (8 * number);
    }
    mask
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tells_each_byte(block in prop::array::uniform32(b'['..=b'^'), other: [u8; 32], needles: [u8; 2]) {
            let mut bytes = [0; BLOCK];
            bytes[..32].copy_from_slice(&block);
            bytes[32..].copy_from_slice(&other);
            for needles in [needles, [b'\\', b']'], [0, other[7]]] {
                let expected = bytes.iter().rev().fold(0, |mask, byte| mask << 1 | u64::from(needles.contains(byte)));
                prop_assert_eq!(mask(&bytes, needles), expected);
                prop_assert_eq!(model(&bytes, needles), expected);
            }
        }
    }
}
