//! AES-CFB8 in any pieces against the `cfb8` crate, there and back.
#![no_main]

use aes::cipher::{Array, BlockModeEncrypt, KeyIvInit};
use fastblets::cipher::{Decryptor, Encryptor, Key};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: ([u8; 16], [u8; 16], Vec<&[u8]>)| {
    let (bytes, iv, pieces) = input;
    let plain = pieces.concat();
    let mut expected = plain.clone();
    cfb8::Encryptor::<aes::Aes128>::new(&bytes.into(), &iv.into())
        .encrypt_blocks(Array::slice_as_chunks_mut(&mut expected).0);

    let key = Key::new(&bytes).expect("16 bytes are a key");
    let mut encryptor = Encryptor::new(key, iv);
    let mut encrypted = plain.clone();
    let mut rest = encrypted.as_mut_slice();
    for piece in &pieces {
        let (head, tail) = rest.split_at_mut(piece.len());
        encryptor.apply(head);
        rest = tail;
    }
    assert_eq!(encrypted, expected);

    let mut decryptor = Decryptor::new(key, iv);
    let mut decrypted = Vec::new();
    let mut rest = encrypted.as_slice();
    for piece in &pieces {
        let (head, tail) = rest.split_at(piece.len());
        decryptor.apply(head, &mut decrypted).expect("there is memory");
        rest = tail;
    }
    assert_eq!(decrypted, plain);
});
