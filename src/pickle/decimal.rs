//! Decimal digits of ints that are longer than a machine's.

use crate::error::Result;
use crate::memory::grow;

/// The base of the limbs: as many digits as fit into 32 bits.
const BASE: u64 = 1_000_000_000;
const DIGITS: usize = 9;

/// Appends an int's sign and digits. Returns how many digits.
///
/// `bytes` are its two's complement, the lowest first. Takes time with the square of their number, as CPython does: for ints of
/// some thousand digits at most.
pub(super) fn append(bytes: &[u8], out: &mut Vec<u8>) -> Result<usize> {
    let negative = bytes.last().is_some_and(|&highest| highest >= 0x80);
    let limbs = limbs(bytes, negative)?;
    grow(out, 1 + DIGITS * limbs.len())?;
    if negative {
        out.push(b'-');
    }
    let start = out.len();
    let mut spelled = [b'0'; DIGITS];
    for (place, &limb) in limbs.iter().rev().enumerate() {
        let mut rest = limb;
        for digit in spelled.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let leading = if place == 0 {
            spelled
                .iter()
                .take(DIGITS - 1)
                .take_while(|&&digit| digit == b'0')
                .count()
        } else {
            0
        };
        out.extend_from_slice(&spelled[leading..]);
    }
    Ok(out.len() - start)
}

/// The limbs of the int's absolute value, the lowest first; one that is zero for zero.
fn limbs(bytes: &[u8], negative: bool) -> Result<Vec<u32>> {
    let mut limbs = Vec::new();
    // A limb has more than 29 bits.
    grow(&mut limbs, bytes.len() / 3 + 2)?;
    limbs.push(0);
    let complement = if negative { u32::MAX } else { 0 };
    for place in (0..bytes.len().div_ceil(4)).rev() {
        let mut word = if negative { [0xff; 4] } else { [0; 4] };
        let bytes = &bytes[4 * place..];
        let length = bytes.len().min(4);
        word[..length].copy_from_slice(&bytes[..length]);
        multiply_and_add(&mut limbs, 1 << 32, u32::from_le_bytes(word) ^ complement);
    }
    if negative {
        // The complement is one less.
        multiply_and_add(&mut limbs, 1, 1);
    }
    Ok(limbs)
}

/// `factor` is at most 2**32, so that a limb's product and what is carried have 64 bits.
#[inline]
fn multiply_and_add(limbs: &mut Vec<u32>, factor: u64, summand: u32) {
    let mut carry = u64::from(summand);
    for limb in &mut *limbs {
        let sum = u64::from(*limb) * factor + carry;
        *limb = (sum % BASE) as u32;
        carry = sum / BASE;
    }
    while carry > 0 {
        limbs.push((carry % BASE) as u32);
        carry /= BASE;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spelled(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        let digits = append(bytes, &mut out).unwrap();
        let spelled: String = out.into_iter().map(char::from).collect();
        assert_eq!(digits, spelled.trim_start_matches('-').len());
        spelled
    }

    /// One digit after the other, by division.
    fn model(bytes: &[u8]) -> String {
        let negative = bytes.last().is_some_and(|&highest| highest >= 0x80);
        let mut number = bytes.to_vec();
        if negative {
            let mut carry = true;
            for byte in &mut number {
                let (sum, overflow) = (!*byte).overflowing_add(u8::from(carry));
                *byte = sum;
                carry = overflow;
            }
        }
        let mut digits = Vec::new();
        while number.iter().any(|&byte| byte > 0) {
            let mut rest = 0;
            for byte in number.iter_mut().rev() {
                let value = rest * 256 + u32::from(*byte);
                *byte = (value / 10) as u8;
                rest = value % 10;
            }
            digits.push(char::from(b'0' + rest as u8));
        }
        if digits.is_empty() {
            digits.push('0');
        }
        if negative {
            digits.push('-');
        }
        digits.into_iter().rev().collect()
    }

    #[test]
    fn borders() {
        for number in [
            0,
            1,
            -1,
            9,
            10,
            999_999_999,
            1_000_000_000,
            i128::MAX,
            i128::MIN,
            -(1 << 64),
            1 << 64,
        ] {
            assert_eq!(spelled(&number.to_le_bytes()), number.to_string());
        }
        let mut lowest = [0; 1251];
        lowest[1250] = 0x80;
        assert_eq!(spelled(&lowest), model(&lowest));
        assert_eq!(spelled(&[0x7f; 1251]), model(&[0x7f; 1251]));
        assert_eq!(spelled(&[]), "0");
    }

    proptest! {
        #[test]
        fn digits_are_those_of_a_machines_int(number: i128) {
            prop_assert_eq!(spelled(&number.to_le_bytes()), number.to_string());
        }

        #[test]
        fn digits_are_those_of_the_model(bytes in prop::collection::vec(any::<u8>(), 1..120)) {
            prop_assert_eq!(spelled(&bytes), model(&bytes));
        }
    }
}
