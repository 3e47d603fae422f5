//! AES-CFB8 encryption with the processor's AES instructions, all of it in registers.
//!
//! Encrypting is bound by latency: a byte's block has to be through all rounds before the next one's first can start.
//! The `cfb8` crate adds to the rounds a way through memory for every byte. Here the shift register stays in a
//! register of the processor, and only its last byte waits for the byte before.

#![allow(unsafe_code, reason = "functions for processors that have been asked what they can")]

use std::arch::is_x86_feature_detected;
use std::arch::x86_64::{
    __m128i, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_aeskeygenassist_si128, _mm_cvtsi32_si128, _mm_cvtsi128_si32,
    _mm_extract_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi32, _mm_setr_epi32, _mm_setzero_si128, _mm_slli_si128,
    _mm_srli_si128, _mm_xor_si128,
};

use super::BLOCK_SIZE;

/// AES-256 has the most rounds, and one key more than rounds.
const MOST_KEYS: usize = 15;

/// A key's round keys. Only a processor that has the instructions has them.
#[derive(Clone)]
pub(super) struct RoundKeys {
    keys: [__m128i; MOST_KEYS],
    rounds: usize,
}

impl RoundKeys {
    /// Expands a key of 16, 24 or 32 bytes. `None` where the processor doesn't have the instructions.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        if !(is_x86_feature_detected!("aes") && is_x86_feature_detected!("sse4.1")) {
            return None;
        }
        Some(Self {
            // SAFETY: the processor has just been asked.
            keys: unsafe { expand(key) },
            rounds: key.len() / 4 + 6,
        })
    }
}

/// Encrypts a stream.
pub(super) struct Encryptor {
    keys: RoundKeys,
    register: __m128i,
}

impl Encryptor {
    pub(super) fn new(keys: RoundKeys, iv: [u8; BLOCK_SIZE]) -> Self {
        let iv = u128::from_le_bytes(iv);
        Self {
            keys,
            // SAFETY: there are no round keys without newer instructions.
            register: unsafe { _mm_set_epi64x((iv >> 64) as i64, iv as i64) },
        }
    }

    /// Encrypts the next bytes of the stream in place.
    pub(super) fn apply(&mut self, data: &mut [u8]) {
        let Self { keys, register } = self;
        // SAFETY: there are no round keys without the instructions.
        *register = unsafe {
            match keys.rounds {
                10 => encrypt::<10>(&keys.keys, *register, data),
                12 => encrypt::<12>(&keys.keys, *register, data),
                _ => encrypt::<14>(&keys.keys, *register, data),
            }
        };
    }
}

/// Returns the register as it is behind the data.
#[target_feature(enable = "aes,sse4.1")]
fn encrypt<const ROUNDS: usize>(keys: &[__m128i; MOST_KEYS], mut register: __m128i, data: &mut [u8]) -> __m128i {
    for byte in data {
        // What doesn't wait for the rounds: the register moved on, with the plain byte behind it.
        let plain = _mm_slli_si128::<15>(_mm_cvtsi32_si128(i32::from(*byte)));
        let moved = _mm_or_si128(_mm_srli_si128::<1>(register), plain);
        let keystream = _mm_slli_si128::<15>(encrypt_block::<ROUNDS>(keys, register));
        register = _mm_xor_si128(moved, keystream);
        *byte = _mm_extract_epi8::<15>(register).to_le_bytes()[0];
    }
    register
}

#[inline]
#[target_feature(enable = "aes,sse4.1")]
fn encrypt_block<const ROUNDS: usize>(keys: &[__m128i; MOST_KEYS], block: __m128i) -> __m128i {
    let mut state = _mm_xor_si128(block, keys[0]);
    for key in &keys[1..ROUNDS] {
        state = _mm_aesenc_si128(state, *key);
    }
    _mm_aesenclast_si128(state, keys[ROUNDS])
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
