//! Vectors of four 16-bit lanes in one `u64`.

/// Adds a number to each lane. Lanes saturate.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[allow(
    unsafe_code,
    reason = "one instruction instead of twenty, at every position of a stream"
)]
pub(super) fn saturating_add(lanes: u64, number: u16) -> u64 {
    use std::arch::x86_64::{_mm_adds_epu16, _mm_cvtsi64_si128, _mm_cvtsi128_si64, _mm_set1_epi16};
    // SAFETY: SSE2, which every processor of this architecture has.
    unsafe {
        let lanes = _mm_cvtsi64_si128(lanes.cast_signed());
        _mm_cvtsi128_si64(_mm_adds_epu16(lanes, _mm_set1_epi16(number.cast_signed()))).cast_unsigned()
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) use model as saturating_add;

/// Scalar reference implementation.
#[cfg(any(test, not(target_arch = "x86_64")))]
pub(super) fn model(lanes: u64, number: u16) -> u64 {
    let lane = |shift: u32| u64::from(((lanes >> shift) as u16).saturating_add(number)) << shift;
    lane(0) | lane(16) | lane(32) | lane(48)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_its_model(lanes: u64, number: u16) {
            prop_assert_eq!(super::saturating_add(lanes, number), super::model(lanes, number));
        }
    }
}
