//! AES-CFB8: AES as a stream cipher with an 8-bit shift register (NIST SP 800-38A, section 6.3).
//!
//! Each byte of keystream is the first byte of the encryption of the 16 bytes of ciphertext before it. So
//! encryption takes one block after the other. Decryption has the whole ciphertext, and takes many blocks at a time.
//! Keys and initialization vectors are arguments: there is no randomness here.

use aes::cipher::{Array, BlockCipherEncrypt, BlockModeEncrypt, InnerIvInit, KeyInit, consts::U16};
// Decryption encrypts blocks, too.
use aes::{Aes128Enc as Aes128, Aes192Enc as Aes192, Aes256Enc as Aes256};

use crate::error::{Error, Result};
use crate::memory::grow;

#[cfg(target_arch = "x86_64")]
mod registers;

/// The size in bytes of AES' block, and so of an initialization vector.
pub const BLOCK_SIZE: usize = 16;

/// How many blocks are decrypted at a time. More than any processor works on at once, few enough for the first cache.
const BATCH: usize = 64;

type Block = Array<u8, U16>;

/// An AES key of 16, 24 or 32 bytes.
#[derive(Clone, Copy)]
pub enum Key<'a> {
    /// For AES-128.
    Aes128(&'a [u8; 16]),
    /// For AES-192.
    Aes192(&'a [u8; 24]),
    /// For AES-256.
    Aes256(&'a [u8; 32]),
}

impl<'a> Key<'a> {
    /// Takes the bytes of a key.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let aes128 = bytes.try_into().map(Self::Aes128);
        let aes192 = || bytes.try_into().map(Self::Aes192);
        let aes256 = || bytes.try_into().map(Self::Aes256);
        aes128
            .or_else(|_| aes192())
            .or_else(|_| aes256())
            .map_err(|_| Error::KeySize(bytes.len()))
    }
}

/// A key's round keys.
enum Aes {
    Aes128(Aes128),
    Aes192(Aes192),
    Aes256(Aes256),
}

impl Aes {
    fn new(key: Key<'_>) -> Self {
        match key {
            Key::Aes128(bytes) => Self::Aes128(Aes128::new(bytes.into())),
            Key::Aes192(bytes) => Self::Aes192(Aes192::new(bytes.into())),
            Key::Aes256(bytes) => Self::Aes256(Aes256::new(bytes.into())),
        }
    }
}

/// Takes the bytes of an initialization vector.
pub fn iv(bytes: &[u8]) -> Result<[u8; BLOCK_SIZE]> {
    bytes.try_into().map_err(|_| Error::IvSize(bytes.len()))
}

/// Encrypts a stream. How it is split between calls does not matter.
pub struct Encryptor(Cfb8Encryptor);

enum Cfb8Encryptor {
    #[cfg(target_arch = "x86_64")]
    Registers(registers::Encryptor),
    Aes128(cfb8::Encryptor<Aes128>),
    Aes192(cfb8::Encryptor<Aes192>),
    Aes256(cfb8::Encryptor<Aes256>),
}

impl Encryptor {
    /// Starts a stream. An initialization vector must never serve twice with one key.
    pub fn new(key: Key<'_>, iv: [u8; BLOCK_SIZE]) -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(encryptor) = registers::Encryptor::new(key, iv) {
            return Self(Cfb8Encryptor::Registers(encryptor));
        }
        Self::portable(key, iv)
    }

    /// Starts a stream as on a processor of which nothing is known.
    fn portable(key: Key<'_>, iv: [u8; BLOCK_SIZE]) -> Self {
        let iv = Block::from(iv);
        Self(match Aes::new(key) {
            Aes::Aes128(aes) => Cfb8Encryptor::Aes128(cfb8::Encryptor::inner_iv_init(aes, &iv)),
            Aes::Aes192(aes) => Cfb8Encryptor::Aes192(cfb8::Encryptor::inner_iv_init(aes, &iv)),
            Aes::Aes256(aes) => Cfb8Encryptor::Aes256(cfb8::Encryptor::inner_iv_init(aes, &iv)),
        })
    }

    /// Encrypts the next bytes of the stream in place.
    pub fn apply(&mut self, data: &mut [u8]) {
        fn run(mode: &mut impl BlockModeEncrypt<BlockSize = aes::cipher::consts::U1>, data: &mut [u8]) {
            mode.encrypt_blocks(Array::slice_as_chunks_mut(data).0);
        }
        match &mut self.0 {
            #[cfg(target_arch = "x86_64")]
            Cfb8Encryptor::Registers(encryptor) => encryptor.apply(data),
            Cfb8Encryptor::Aes128(mode) => run(mode, data),
            Cfb8Encryptor::Aes192(mode) => run(mode, data),
            Cfb8Encryptor::Aes256(mode) => run(mode, data),
        }
    }
}

/// Decrypts a stream. How it is split between calls does not matter.
pub struct Decryptor {
    aes: Aes,
    /// The last 16 bytes of ciphertext.
    register: [u8; BLOCK_SIZE],
}

impl Decryptor {
    /// Starts a stream.
    pub fn new(key: Key<'_>, iv: [u8; BLOCK_SIZE]) -> Self {
        Self {
            aes: Aes::new(key),
            register: iv,
        }
    }

    /// Decrypts the next bytes of the stream, appending them to `output`.
    pub fn apply(&mut self, data: &[u8], output: &mut Vec<u8>) -> Result<()> {
        grow(output, data.len())?;
        // The register and the first bytes of data, so that every byte's block is 16 bytes in a row somewhere.
        let (head, tail) = data.split_at(data.len().min(BLOCK_SIZE));
        let mut joined = [0; 2 * BLOCK_SIZE];
        let (register, room) = joined.split_at_mut(BLOCK_SIZE);
        register.copy_from_slice(&self.register);
        room[..head.len()].copy_from_slice(head);
        let joined = &joined[..BLOCK_SIZE + head.len()];

        self.decrypt(joined, head, output);
        self.decrypt(data, tail, output);

        let last = if data.len() < BLOCK_SIZE { joined } else { data };
        self.register.copy_from_slice(&last[last.len() - BLOCK_SIZE..]);
        Ok(())
    }

    /// Decrypts `data`, of which byte i is preceded by the 16 bytes at `before[i..]`.
    fn decrypt(&self, before: &[u8], data: &[u8], output: &mut Vec<u8>) {
        match &self.aes {
            Aes::Aes128(aes) => decrypt(aes, before, data, output),
            Aes::Aes192(aes) => decrypt(aes, before, data, output),
            Aes::Aes256(aes) => decrypt(aes, before, data, output),
        }
    }
}

fn decrypt(aes: &impl BlockCipherEncrypt<BlockSize = U16>, before: &[u8], data: &[u8], output: &mut Vec<u8>) {
    let mut blocks = [Block::default(); BATCH];
    let windows = before.windows(BLOCK_SIZE);
    let mut windows = windows.take(data.len());
    for bytes in data.chunks(BATCH) {
        let blocks = &mut blocks[..bytes.len()];
        for (block, window) in blocks.iter_mut().zip(&mut windows) {
            block.copy_from_slice(window);
        }
        aes.encrypt_blocks(blocks);
        output.extend(bytes.iter().zip(&*blocks).map(|(byte, block)| byte ^ block[0]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aes::cipher::BlockModeDecrypt;
    use proptest::prelude::*;

    /// The model: one byte after the other, by the book.
    fn model(key: &[u8], iv: [u8; BLOCK_SIZE], data: &[u8], encrypt: bool) -> Vec<u8> {
        let aes = Aes::new(Key::new(key).unwrap());
        let mut register = iv;
        let mut output = Vec::new();
        for &byte in data {
            let mut block = Block::from(register);
            match &aes {
                Aes::Aes128(aes) => aes.encrypt_block(&mut block),
                Aes::Aes192(aes) => aes.encrypt_block(&mut block),
                Aes::Aes256(aes) => aes.encrypt_block(&mut block),
            }
            let result = byte ^ block[0];
            register.rotate_left(1);
            register[BLOCK_SIZE - 1] = if encrypt { result } else { byte };
            output.push(result);
        }
        output
    }

    /// On this processor and as on any other, which must be the same.
    fn encrypt(key: &[u8], iv: [u8; BLOCK_SIZE], pieces: &[&[u8]]) -> Vec<u8> {
        let key = Key::new(key).unwrap();
        let output = encrypt_with(Encryptor::new(key, iv), pieces);
        assert_eq!(output, encrypt_with(Encryptor::portable(key, iv), pieces));
        output
    }

    fn encrypt_with(mut encryptor: Encryptor, pieces: &[&[u8]]) -> Vec<u8> {
        let mut output = Vec::new();
        for piece in pieces {
            let mut piece = piece.to_vec();
            encryptor.apply(&mut piece);
            output.extend(piece);
        }
        output
    }

    fn decrypt(key: &[u8], iv: [u8; BLOCK_SIZE], pieces: &[&[u8]]) -> Vec<u8> {
        let mut decryptor = Decryptor::new(Key::new(key).unwrap(), iv);
        let mut output = Vec::new();
        for piece in pieces {
            decryptor.apply(piece, &mut output).unwrap();
        }
        output
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    /// NIST SP 800-38A (2001 edition), F.3.7 to F.3.12: CFB8-AES128, CFB8-AES192 and CFB8-AES256.
    #[test]
    fn nist_vectors() {
        let iv = iv(&unhex("000102030405060708090a0b0c0d0e0f")).unwrap();
        let plain = unhex("6bc1bee22e409f96e93d7e117393172aae2d");
        for (key, encrypted) in [
            (
                "2b7e151628aed2a6abf7158809cf4f3c",
                "3b79424c9c0dd436bace9e0ed4586a4f32b9",
            ),
            (
                "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
                "cda2521ef0a905ca44cd057cbf0d47a0678a",
            ),
            (
                "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
                "dc1f1a8520a64db55fcc8ac554844e889700",
            ),
        ] {
            let (key, encrypted) = (unhex(key), unhex(encrypted));
            assert_eq!(encrypt(&key, iv, &[&plain]), encrypted);
            assert_eq!(decrypt(&key, iv, &[&encrypted]), plain);
            assert_eq!(model(&key, iv, &plain, true), encrypted);
            assert_eq!(model(&key, iv, &encrypted, false), plain);
        }
    }

    #[test]
    fn keys_and_ivs_of_other_lengths_are_refused() {
        for size in (0..=40).filter(|size| ![16, 24, 32].contains(size)) {
            assert_eq!(Key::new(&vec![0; size]).err(), Some(Error::KeySize(size)));
        }
        for size in (0..=40).filter(|&size| size != 16) {
            assert_eq!(iv(&vec![0; size]), Err(Error::IvSize(size)));
        }
    }

    fn key_bytes() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![Just(16), Just(24), Just(32)].prop_flat_map(|size| prop::collection::vec(any::<u8>(), size))
    }

    proptest! {
        #[test]
        fn how_the_input_was_split_does_not_matter(
            key in key_bytes(),
            iv in any::<[u8; BLOCK_SIZE]>(),
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
        ) {
            let plain = pieces.concat();
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let encrypted = model(&key, iv, &plain, true);
            prop_assert_eq!(&encrypt(&key, iv, &pieces), &encrypted);

            let mut rest = encrypted.as_slice();
            let split: Vec<&[u8]> =
                pieces.iter().map(|piece| { let (head, tail) = rest.split_at(piece.len()); rest = tail; head }).collect();
            prop_assert_eq!(decrypt(&key, iv, &split), plain);
        }

        #[test]
        fn decryption_is_the_models_and_the_crates(key in key_bytes(), iv in any::<[u8; BLOCK_SIZE]>(),
                                                    data in prop::collection::vec(any::<u8>(), 0..600)) {
            let fast = decrypt(&key, iv, &[&data]);
            prop_assert_eq!(&fast, &model(&key, iv, &data, false));
            if key.len() == 16 {
                let aes = Aes128::new_from_slice(&key).unwrap();
                let mut crates = data;
                cfb8::Decryptor::inner_iv_init(aes, &Block::from(iv))
                    .decrypt_blocks(Array::slice_as_chunks_mut(&mut crates).0);
                prop_assert_eq!(fast, crates);
            }
        }
    }
}
