//! AES-CFB8 encryption with the processor's AES instructions, all of it in registers.
//!
//! Encrypting is bound by latency: a byte's block has to be through all rounds before the next one's first can start.
//! The `cfb8` crate adds to the rounds a way through memory for every byte. Here the shift register stays in a
//! register of the processor, and only its last byte waits for the byte before.

#![allow(unsafe_code, reason = "functions for processors that have been asked what they can")]

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::{
    __m128i, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_aeskeygenassist_si128, _mm_alignr_epi8, _mm_cvtsi32_si128,
    _mm_cvtsi128_si32, _mm_extract_epi8, _mm_set_epi64x, _mm_set1_epi32, _mm_setr_epi32, _mm_setzero_si128,
    _mm_slli_si128, _mm_srli_si128, _mm_xor_si128,
};

use super::{BLOCK_SIZE, Key};

/// AES-256 has the most rounds, and one key more than rounds.
const MOST_KEYS: usize = 15;

/// Encrypts a stream. Exists only if the processor has the instructions.
pub(super) struct Encryptor {
    keys: [__m128i; MOST_KEYS],
    rounds: usize,
    register: __m128i,
}

impl Encryptor {
    /// Starts a stream. `None` where the processor doesn't have the instructions.
    pub(super) fn new(key: Key<'_>, iv: [u8; BLOCK_SIZE]) -> Option<Self> {
        if !(is_x86_feature_detected!("aes") && is_x86_feature_detected!("sse4.1")) {
            return None;
        }
        let key: &[u8] = match key {
            Key::Aes128(key) => key,
            Key::Aes192(key) => key,
            Key::Aes256(key) => key,
        };
        let iv = u128::from_le_bytes(iv);
        Some(Self {
            // SAFETY: the processor has just been asked.
            keys: unsafe { expand(key) },
            rounds: key.len() / 4 + 6,
            // SAFETY: what every processor of this architecture has.
            register: unsafe { _mm_set_epi64x((iv >> 64) as i64, iv as i64) },
        })
    }

    /// Encrypts the next bytes of the stream in place.
    pub(super) fn apply(&mut self, data: &mut [u8]) {
        // SAFETY: there is no encryptor without the instructions.
        self.register = unsafe {
            match self.rounds {
                10 => encrypt::<10>(&self.keys, self.register, data),
                12 => encrypt::<12>(&self.keys, self.register, data),
                _ => encrypt::<14>(&self.keys, self.register, data),
            }
        };
    }
}

/// Encrypts the data in place. Returns the register after it.
///
/// Each byte depends on all rounds of AES of the byte before. So all other work is taken out of this chain: the plain text
/// and everything else that is added to the byte is part of the last round's key, and one instruction both puts the byte at
/// the register's end and shifts the register. The result is the next block with its first round key already added.
#[target_feature(enable = "aes,sse4.1")]
fn encrypt<const ROUNDS: usize>(keys: &[__m128i; MOST_KEYS], register: __m128i, data: &mut [u8]) -> __m128i {
    let first = keys[0];
    // The bytes of the next block stand one place further on, and so does what has been added to each of them.
    let moves = _mm_xor_si128(first, _mm_slli_si128::<1>(first));
    let last = _mm_xor_si128(keys[ROUNDS], _mm_srli_si128::<15>(first));
    let first_of_byte = _mm_extract_epi8::<15>(first).to_le_bytes()[0];
    let mut whitened = _mm_xor_si128(register, first);
    for byte in data {
        let last = _mm_xor_si128(last, _mm_cvtsi32_si128(i32::from(*byte)));
        let moved = _mm_xor_si128(whitened, moves);
        let mut state = whitened;
        for key in &keys[1..ROUNDS] {
            state = _mm_aesenc_si128(state, *key);
        }
        whitened = _mm_alignr_epi8::<1>(_mm_aesenclast_si128(state, last), moved);
        *byte = _mm_extract_epi8::<15>(whitened).to_le_bytes()[0] ^ first_of_byte;
    }
    _mm_xor_si128(whitened, first)
}

/// FIPS 197, section 5.2. Words are little-endian here, so that four of them are a round key as it lies in memory.
#[target_feature(enable = "aes,sse4.1")]
fn expand(key: &[u8]) -> [__m128i; MOST_KEYS] {
    let mut words = [0_u32; 4 * MOST_KEYS];
    for (word, bytes) in words.iter_mut().zip(key.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    let size = key.len() / 4;
    let mut round_constant = 1_u32;
    for at in size..4 * (size + 7) {
        let mut word = words[at - 1];
        if at % size == 0 {
            word = substitute(word).rotate_right(8) ^ round_constant;
            // Doubled in AES' field.
            round_constant = if round_constant == 0x80 {
                0x1b
            } else {
                round_constant << 1
            };
        } else if size > 6 && at % size == 4 {
            word = substitute(word);
        }
        words[at] = words[at - size] ^ word;
    }
    let mut keys = [_mm_setzero_si128(); MOST_KEYS];
    for (key, [a, b, c, d]) in keys.iter_mut().zip(words.as_chunks().0) {
        *key = _mm_setr_epi32(a.cast_signed(), b.cast_signed(), c.cast_signed(), d.cast_signed());
    }
    keys
}

/// Each byte through AES' S-box.
#[inline]
#[target_feature(enable = "aes,sse4.1")]
fn substitute(word: u32) -> u32 {
    let substituted = _mm_aeskeygenassist_si128::<0>(_mm_set1_epi32(word.cast_signed()));
    _mm_cvtsi128_si32(substituted).cast_unsigned()
}
