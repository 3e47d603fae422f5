//! Base key to full cache key.
//!
//! A full key is what the cache is asked for: the site's prefix and the caller's parts joined with `:`, made safe for
//! memcached, which takes neither control characters, spaces nor more than 250 bytes. An encrypted entry's full key is
//! an HMAC instead, which tells nothing of the parts.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::memory::{append, grow, push};

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

/// The full key of an entry that is not encrypted.
///
/// `max_bytes` is the longest full key that the cache takes, where it counts bytes: memcached's 250 less what its client
/// puts in front. Djblets counts characters alone, so that it can't store an entry under a longer key: such a key may be
/// shortened without a loss. With no room for a digest, the key stays as it is.
pub fn plain(joined: Vec<u8>, max_bytes: Option<usize>) -> Result<String> {
    let mut key = printable(joined)?;
    let max_bytes = max_bytes.filter(|max| *max >= DIGEST_SIZE).unwrap_or(usize::MAX);
    let has_many_chars = key.len() > MAX_KEY_SIZE && key.chars().count() > MAX_KEY_SIZE;
    if has_many_chars || key.len() > max_bytes {
        let digest = Sha256::digest(&key);
        let by_chars = key.char_indices().nth(MAX_KEY_SIZE - DIGEST_SIZE);
        let mut cut = by_chars.map_or(key.len(), |(at, _)| at).min(max_bytes - DIGEST_SIZE);
        while !key.is_char_boundary(cut) {
            cut -= 1;
        }
        key.truncate(cut);
        push_hex(&digest, &mut key)?;
    }
    Ok(key)
}

/// The full key of an encrypted entry: HMAC-SHA256 of the joined key under the AES key.
///
/// The AES key may have any length here, as in Djblets; it is the cipher that is particular about it.
pub fn keyed(joined: &[u8], encryption_key: &[u8]) -> Result<String> {
    let mut full = String::new();
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

/// Escapes what no cache takes in a key: control characters and spaces as `\x20`, lone surrogates, which have no UTF-8,
/// as `\ud800`.
fn printable(joined: Vec<u8>) -> Result<String> {
    match String::from_utf8(joined) {
        Ok(key) if key.bytes().any(is_invalid) => escape_invalid(key.as_bytes()),
        Ok(key) => Ok(key),
        Err(error) => escape_invalid(error.as_bytes()),
    }
}

fn escape_invalid(joined: &[u8]) -> Result<String> {
    let mut key = String::new();
    reserve(&mut key, joined.len() + 16)?;
    let mut rest = joined;
    while let Some(chunk) = rest.utf8_chunks().next() {
        for char in chunk.valid().chars() {
            if let '\0'..=' ' | '\x7f' = char {
                push_str(&mut key, "\\x")?;
                push_hex(&[char as u8], &mut key)?;
            } else {
                push_str(&mut key, char.encode_utf8(&mut [0; 4]))?;
            }
        }
        rest = &rest[chunk.valid().len()..];
        // The three bytes of a surrogate. Nothing else that isn't UTF-8 comes from a Python string.
        if let Some((&[first, second, third], behind)) = rest.split_first_chunk() {
            let low = u16::from(second & 0x3f) << 6 | u16::from(third & 0x3f);
            push_str(&mut key, "\\u")?;
            push_hex(&(u16::from(first) << 12 | low).to_be_bytes(), &mut key)?;
            rest = behind;
        } else {
            break;
        }
    }
    Ok(key)
}

fn push_hex(bytes: &[u8], out: &mut String) -> Result<()> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    reserve(out, 2 * bytes.len())?;
    for byte in bytes {
        out.push(char::from(DIGITS[usize::from(byte >> 4)]));
        out.push(char::from(DIGITS[usize::from(byte & 0xf)]));
    }
    Ok(())
}

fn push_str(text: &mut String, more: &str) -> Result<()> {
    reserve(text, more.len())?;
    text.push_str(more);
    Ok(())
}

fn reserve(text: &mut String, more: usize) -> Result<()> {
    text.try_reserve(more).map_err(|_| Error::Memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(prefix: &str, parts: &[&str]) -> String {
        let prefix = (!prefix.is_empty()).then_some(prefix.as_bytes());
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        plain(join(prefix, &parts).unwrap(), None).unwrap()
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
        assert_eq!(key, "é".repeat(176) + &digest(&longer));
    }

    fn digest(text: &str) -> String {
        let mut digest = String::new();
        push_hex(&Sha256::digest(text), &mut digest).unwrap();
        digest
    }

    #[test]
    fn a_key_of_more_bytes_than_the_cache_takes_gets_a_digest() {
        let cases = [
            ("x".repeat(240), 239, "x".repeat(175)),
            ("x".repeat(300), 240, "x".repeat(176)),
            ("x".repeat(300), 100, "x".repeat(36)),
            ("é".repeat(120), 239, "é".repeat(87)),
            ("🔑".repeat(62), 247, "🔑".repeat(45)),
            ("🔑".repeat(17), 64, String::new()),
        ];
        for (key, max, kept) in cases {
            let full = plain(key.clone().into(), Some(max)).unwrap();
            assert_eq!(full, kept + &digest(&key), "{max}");
            assert!(full.len() <= max);
        }
        for (key, max) in [("x".repeat(240), 240), ("é".repeat(120), 240), ("x".repeat(240), 63)] {
            assert_eq!(plain(key.clone().into(), Some(max)).unwrap(), key);
        }
    }

    #[test]
    fn a_lone_surrogate_is_escaped() {
        let surrogates = [&b"a "[..], b"\xed\xa0\x80", "é".as_bytes(), b"\xed\xbf\xbf\xed\xa0\x80"].concat();
        assert_eq!(plain(surrogates, None).unwrap(), "a\\x20\\ud800é\\udfff\\ud800");
        assert_eq!(plain(b"\xed\xa0\x80".repeat(241), None).unwrap().len(), 240);
    }

    /// RFC 4231, test case 2; and an HMAC key that is longer than a block of SHA-256, test case 6.
    #[test]
    fn encrypted_keys_are_hmac_sha256() {
        assert_eq!(
            keyed(b"what do ya want for nothing?", b"Jefe").unwrap(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            keyed(b"Test Using Larger Than Block-Size Key - Hash Key First", &[0xaa; 131]).unwrap(),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }
}
