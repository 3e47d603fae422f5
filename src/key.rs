//! Base key to full cache key.
//!
//! A full key is what the cache is asked for: the site's prefix and the caller's parts joined with `:`, made safe for
//! memcached, which takes neither control characters, spaces nor more than 250 bytes. An encrypted entry's full key is
//! an HMAC instead, which tells nothing of the parts.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::error::{Result, append, grow, push};

/// The longest full key, in characters: memcached's 250 less a little room.
pub const MAX_KEY_SIZE: usize = 240;

/// A SHA-256 digest in hexadecimal.
const DIGEST_SIZE: usize = 64;

/// Joins the prefix (the site's domain, perhaps with its root, if there is a site) and the parts of a key.
///
/// Two or more parts may come from users, so `%` and `:` are escaped in them: no part can pass for two. A single part
/// has always been taken as it is.
///
/// Bytes rather than `str`, because a Python string can hold lone surrogates, which UTF-8 has no place for.
pub fn join(prefix: Option<&[u8]>, parts: &[&[u8]]) -> Result<Vec<u8>> {
    let mut key = Vec::new();
    grow(&mut key, MAX_KEY_SIZE)?;
    append(&mut key, prefix.unwrap_or_default())?;
    for (index, part) in parts.iter().enumerate() {
        if index > 0 || prefix.is_some() {
            push(&mut key, b':')?;
        }
        if parts.len() > 1 {
            escape_part(part, &mut key)?;
        } else {
            append(&mut key, part)?;
        }
    }
    Ok(key)
}

fn escape_part(part: &[u8], key: &mut Vec<u8>) -> Result<()> {
    let mut rest = part;
    while let Some(at) = memchr::memchr2(b'%', b':', rest) {
        append(key, &rest[..at])?;
        append(key, if rest[at] == b'%' { b"%25" } else { b"%3A" })?;
        rest = &rest[at + 1..];
    }
    append(key, rest)
}

/// The full key of an entry that is not encrypted. `None` where a key that is too long holds a lone surrogate: such a
/// key has no digest.
pub fn plain(joined: Vec<u8>) -> Result<Option<Vec<u8>>> {
    let mut key = if joined.iter().any(|&byte| is_invalid(byte)) {
        escape_invalid(&joined)?
    } else {
        joined
    };
    if character_starts(&key).count() > MAX_KEY_SIZE {
        let cut = character_starts(&key).nth(MAX_KEY_SIZE - DIGEST_SIZE);
        let (Ok(text), Some(cut)) = (std::str::from_utf8(&key), cut) else {
            return Ok(None);
        };
        let digest = Sha256::digest(text);
        key.truncate(cut);
        push_hex(&digest, &mut key)?;
    }
    Ok(Some(key))
}

/// The offsets, in bytes, at which characters start.
fn character_starts(key: &[u8]) -> impl Iterator<Item = usize> {
    key.iter()
        .enumerate()
        .filter(|(_, byte)| **byte & 0xc0 != 0x80)
        .map(|(at, _)| at)
}

/// The full key of an encrypted entry: HMAC-SHA256 of the joined key under the AES key.
///
/// The AES key may have any length here, as in Djblets; it is the cipher that is particular about it.
pub fn keyed(joined: &[u8], encryption_key: &[u8]) -> Result<Vec<u8>> {
    let mut full = Vec::new();
    // An HMAC takes keys of every length, so there is no error to hand on.
    if let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(encryption_key) {
        mac.update(joined);
        push_hex(&mac.finalize().into_bytes(), &mut full)?;
    }
    Ok(full)
}

const fn is_invalid(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f
}

fn escape_invalid(joined: &[u8]) -> Result<Vec<u8>> {
    let mut key = Vec::new();
    grow(&mut key, joined.len() + 16)?;
    for &byte in joined {
        if is_invalid(byte) {
            append(&mut key, b"\\x")?;
            push_hex(&[byte], &mut key)?;
        } else {
            push(&mut key, byte)?;
        }
    }
    Ok(key)
}

fn push_hex(bytes: &[u8], out: &mut Vec<u8>) -> Result<()> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let start = out.len();
    grow(out, 2 * bytes.len())?;
    out.resize(start + 2 * bytes.len(), 0);
    for ([high, low], byte) in out[start..].as_chunks_mut().0.iter_mut().zip(bytes) {
        *high = DIGITS[usize::from(byte >> 4)];
        *low = DIGITS[usize::from(byte & 0xf)];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(prefix: &str, parts: &[&str]) -> String {
        let prefix = (!prefix.is_empty()).then_some(prefix.as_bytes());
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        String::from_utf8(plain(join(prefix, &parts).unwrap()).unwrap().unwrap()).unwrap()
    }

    #[test]
    fn parts_are_joined_and_escaped_only_where_there_are_several() {
        assert_eq!(full("example.com", &["a:b%"]), "example.com:a:b%");
        assert_eq!(full("example.com", &["a:b%", "c"]), "example.com:a%3Ab%25:c");
        assert_eq!(full("example.com", &[]), "example.com");
        assert_eq!(full("", &["a"]), "a");
        assert_eq!(full("", &["", ""]), ":");
        assert_eq!(full("", &[]), "");
    }

    #[test]
    fn characters_that_memcached_refuses_are_escaped() {
        assert_eq!(
            full("", &["a\0\t \x1f!\x7f\u{80}é"]),
            "a\\x00\\x09\\x20\\x1f!\\x7f\u{80}é"
        );
    }

    #[test]
    fn only_a_key_of_more_than_240_characters_gets_a_digest() {
        let long = "é".repeat(240);
        assert_eq!(full("", &[&long]), long);
        let longer = "é".repeat(241);
        let key = full("", &[&longer]);
        assert_eq!(key.chars().count(), 240);
        let mut digest = Vec::new();
        push_hex(&Sha256::digest(&longer), &mut digest).unwrap();
        assert_eq!(key, "é".repeat(176) + std::str::from_utf8(&digest).unwrap());
    }

    #[test]
    fn a_lone_surrogate_passes_in_a_short_key_and_has_no_digest_in_a_long_one() {
        const SURROGATE: &[u8] = b"\xed\xa0\x80";
        let plain = |key| plain(key).unwrap();
        assert_eq!(plain(SURROGATE.to_vec()).unwrap(), SURROGATE);
        assert_eq!(plain(SURROGATE.repeat(240)).unwrap().len(), 720);
        assert_eq!(plain(SURROGATE.repeat(241)), None);
    }

    /// RFC 4231, test case 2; and an HMAC key that is longer than a block of SHA-256, test case 6.
    #[test]
    fn encrypted_keys_are_hmac_sha256() {
        assert_eq!(
            keyed(b"what do ya want for nothing?", b"Jefe").unwrap(),
            b"5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            keyed(b"Test Using Larger Than Block-Size Key - Hash Key First", &[0xaa; 131]).unwrap(),
            b"60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }
}
