//! Seals: what tells that an entry is the one that was stored under its key, whole and unchanged.
//!
//! Djblets reads only the first element of a stored chunk, and ignores what follows a pickle's STOP. So a seal can travel
//! with the data, and Djblets still reads it.
//!
//! Everything sealed is authenticated by a tag of 32 bytes over one message, whose fields are put together so that no two
//! different ones give the same bytes:
//!
//! ```text
//! "fastblets seal 1" | length of the full key, 8 bytes | full key | kind, 1 byte |
//!     of a chunk: identity of the write, 16 bytes | index, 8 bytes | 1 if it is the last, else 0, 1 byte | its bytes
//!     of the last chunk with a record: as of a chunk, but between flag and bytes: length of the record, 8 bytes | record
//!     of a value or a count: its pickle, and behind it the record if there is one
//! ```
//!
//! Numbers are big-endian. With a secret the tag is HMAC-SHA256 (RFC 2104) under HKDF-SHA256 (RFC 5869) of the secret,
//! without a salt and with the info "fastblets seal 1"; it proves who stored the entry. Without one it is the message's
//! SHA-256, which anybody can make: it notices accidents only.
//!
//! That a chunk's tag tells its index and whether it is the last is the idea of STREAM (Hoang, Reyhanitabar, Rogaway and
//! Vizár, "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance", 2015); the identity of the write keeps
//! chunks of different writes apart.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// The size in bytes of the random identity of a write.
pub const WRITE_ID_SIZE: usize = 16;

const TAG_SIZE: usize = 32;
const LABEL: &[u8; 16] = b"fastblets seal 1";
const VERSION: u8 = 1;

/// The size in bytes of a chunk's seal: version, identity of the write, tag.
pub const CHUNK_SEAL_SIZE: usize = 1 + WRITE_ID_SIZE + TAG_SIZE;

/// In front of the tag after a pickle. No pickle of protocol 0 holds a zero byte; of protocol 4 one may.
const TRAILER_MARK: &[u8; 4] = b"\0fb\x01";
/// The size in bytes of the seal behind a pickle.
pub const TRAILER_SIZE: usize = TRAILER_MARK.len() + TAG_SIZE;

/// In front of the record between a pickle and its seal.
pub const RECORD_MARK: &[u8; 4] = b"\0fr\x01";

const FOREIGN: Error = Error::Seal("it is none of fastblets'");
const WRONG: Error = Error::Seal("it does not fit the data");

/// What a seal is on, so that none can pass for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The pickle of a small value.
    Value,
    /// The pickle of the number of a large entry's chunks.
    Count,
}

/// Seals and checks what belongs to one entry.
#[derive(Clone)]
pub struct Sealer(Tag);

/// A tag being computed.
#[derive(Clone)]
#[allow(
    clippy::large_enum_variant,
    reason = "each seal would take memory, of which there may be none"
)]
enum Tag {
    Keyed(Hmac<Sha256>),
    Unkeyed(Sha256),
}

impl Sealer {
    /// For the entry with this full key. Who has the secret can make seals; without one everybody can.
    pub fn new(secret: Option<&[u8]>, full_key: &[u8]) -> Result<Self> {
        let mut tag = match secret {
            // Never without the key, whatever goes wrong: such a seal proves nothing.
            Some(secret) => keyed(secret).ok_or(Error::Seal("there is no key for it"))?,
            None => Tag::Unkeyed(Sha256::new()),
        };
        tag.update(LABEL);
        tag.update(&number(full_key.len()));
        tag.update(full_key);
        Ok(Self(tag))
    }

    /// The seal of a chunk: its number, from 0 on, and whether it is the last of this write. The last one may have a record.
    pub fn chunk(
        &self,
        write_id: [u8; WRITE_ID_SIZE],
        index: usize,
        last: bool,
        record: &[u8],
        chunk: &[u8],
    ) -> [u8; CHUNK_SEAL_SIZE] {
        let tag = self.chunk_tag(&write_id, index, last, record, chunk).finish();
        let mut seal = [VERSION; CHUNK_SEAL_SIZE];
        let (id, place) = seal[1..].split_at_mut(WRITE_ID_SIZE);
        id.copy_from_slice(&write_id);
        place.copy_from_slice(&tag);
        seal
    }

    /// Checks all chunks of an entry, with their seals: that they are of one write, complete and in order. And with the record
    /// beside the last one, empty if there is none.
    pub fn check_chunks<T: AsRef<[u8]>>(&self, chunks: &[T], seals: &[T], record: &[u8]) -> Result<()> {
        if chunks.is_empty() || chunks.len() != seals.len() {
            return Err(Error::Seal("there is none"));
        }
        let mut write_id = None;
        for (index, (chunk, seal)) in chunks.iter().zip(seals).enumerate() {
            let (id, tag) = chunk_seal(seal.as_ref()).ok_or(FOREIGN)?;
            if *write_id.get_or_insert(id) != id {
                return Err(Error::Seal("it is of another write"));
            }
            let last = index + 1 == chunks.len();
            let record = if last { record } else { &[] };
            self.chunk_tag(id, index, last, record, chunk.as_ref()).check(tag)?;
        }
        Ok(())
    }

    /// The seal that goes behind a pickle.
    pub fn trailer(&self, kind: Kind, pickle: &[u8]) -> [u8; TRAILER_SIZE] {
        let tag = self.pickle_tag(kind, pickle).finish();
        let mut trailer = [0; TRAILER_SIZE];
        let (mark, place) = trailer.split_at_mut(TRAILER_MARK.len());
        mark.copy_from_slice(TRAILER_MARK);
        place.copy_from_slice(&tag);
        trailer
    }

    /// Checks the seal that [`split`] found behind a pickle.
    pub fn check(&self, kind: Kind, pickle: &[u8], tag: &[u8]) -> Result<()> {
        self.pickle_tag(kind, pickle).check(tag)
    }

    fn chunk_tag(&self, write_id: &[u8; WRITE_ID_SIZE], index: usize, last: bool, record: &[u8], chunk: &[u8]) -> Tag {
        let mut tag = self.0.clone();
        tag.update(&[if record.is_empty() { 2 } else { 3 }]);
        tag.update(write_id);
        tag.update(&number(index));
        tag.update(&[last.into()]);
        if !record.is_empty() {
            tag.update(&number(record.len()));
            tag.update(record);
        }
        tag.update(chunk);
        tag
    }

    fn pickle_tag(&self, kind: Kind, pickle: &[u8]) -> Tag {
        let mut tag = self.0.clone();
        tag.update(&[match kind {
            Kind::Value => 0,
            Kind::Count => 1,
        }]);
        tag.update(pickle);
        tag
    }
}

/// What is behind a pickle, between it and its seal, if it is a record: a text in ASCII behind a mark.
pub fn record(behind: &[u8]) -> Option<&[u8]> {
    let text = behind.strip_prefix(RECORD_MARK)?;
    text.iter().all(|byte| (b' '..=b'~').contains(byte)).then_some(text)
}

/// A pickle, and the tag of the seal after it if there is one. `data` must not be a pickle and nothing else, whose last bytes
/// may look like a seal.
pub fn split(data: &[u8]) -> (&[u8], Option<&[u8]>) {
    data.len()
        .checked_sub(TRAILER_SIZE)
        .map(|at| data.split_at(at))
        .and_then(|(pickle, trailer)| Some((pickle, Some(trailer.strip_prefix(TRAILER_MARK)?))))
        .unwrap_or((data, None))
}

fn keyed(secret: &[u8]) -> Option<Tag> {
    let mut key = [0; 32];
    Hkdf::<Sha256>::new(None, secret).expand(LABEL, &mut key).ok()?;
    Some(Tag::Keyed(Hmac::new_from_slice(&key).ok()?))
}

fn number(value: usize) -> [u8; 8] {
    (value as u64).to_be_bytes()
}

fn chunk_seal(seal: &[u8]) -> Option<(&[u8; WRITE_ID_SIZE], &[u8])> {
    if seal.len() != CHUNK_SEAL_SIZE {
        return None;
    }
    seal.strip_prefix(&[VERSION])?.split_first_chunk()
}

impl Tag {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Keyed(mac) => mac.update(bytes),
            Self::Unkeyed(hash) => Digest::update(hash, bytes),
        }
    }

    fn finish(self) -> [u8; TAG_SIZE] {
        match self {
            Self::Keyed(mac) => mac.finalize().into_bytes().into(),
            Self::Unkeyed(hash) => hash.finalize().into(),
        }
    }

    /// In constant time where there is a secret to be found out.
    fn check(self, tag: &[u8]) -> Result<()> {
        let fits = match self {
            Self::Keyed(mac) => mac.verify_slice(tag).is_ok(),
            Self::Unkeyed(hash) => hash.finalize().as_slice() == tag,
        };
        if fits { Ok(()) } else { Err(WRONG) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ID: [u8; 16] = *b"an identity.....";

    fn sealed(sealer: &Sealer, chunks: &[Vec<u8>], record: &[u8]) -> Vec<Vec<u8>> {
        let last = chunks.len() - 1;
        chunks
            .iter()
            .enumerate()
            .map(|(index, chunk)| {
                sealer
                    .chunk(
                        ID,
                        index,
                        index == last,
                        if index == last { record } else { b"" },
                        chunk,
                    )
                    .to_vec()
            })
            .collect()
    }

    fn with_trailer(sealer: &Sealer, kind: Kind, pickle: &[u8]) -> Vec<u8> {
        [pickle, &sealer.trailer(kind, pickle)].concat()
    }

    fn seals_of(secret: Option<&[u8]>, full_key: &[u8]) -> Sealer {
        Sealer::new(secret, full_key).unwrap()
    }

    fn sealers() -> [Sealer; 2] {
        [seals_of(Some(b"0123456789abcdef"), b"key"), seals_of(None, b"key")]
    }

    #[test]
    fn what_was_sealed_is_accepted() {
        for sealer in sealers() {
            for chunks in [vec![vec![]], vec![vec![1; 100]], vec![vec![1; 100], vec![2], vec![3]]] {
                let seals = sealed(&sealer, &chunks, b"");
                assert_eq!(sealer.check_chunks(&chunks, &seals, b""), Ok(()));
            }
            for kind in [Kind::Value, Kind::Count] {
                let data = with_trailer(&sealer, kind, b"I3\n.");
                let (pickle, tag) = split(&data);
                assert_eq!(pickle, b"I3\n.");
                assert_eq!(sealer.check(kind, pickle, tag.unwrap()), Ok(()));
            }
        }
    }

    #[test]
    fn chunks_are_bound_to_key_write_place_and_end() {
        let chunks: Vec<Vec<u8>> = vec![vec![1; 50], vec![2; 50], vec![3; 50]];
        for sealer in sealers() {
            let seals = sealed(&sealer, &chunks, b"");
            for kept in 0..3 {
                assert!(sealer.check_chunks(&chunks[..kept], &seals[..kept], b"").is_err());
            }
            let more = |list: &[Vec<u8>]| [list, &list[2..]].concat();
            assert!(sealer.check_chunks(&more(&chunks), &more(&seals), b"").is_err());
            let swapped = |list: &[Vec<u8>]| vec![list[1].clone(), list[0].clone(), list[2].clone()];
            assert!(sealer.check_chunks(&swapped(&chunks), &swapped(&seals), b"").is_err());
            let mut of_another_write = seals.clone();
            of_another_write[1] = sealer.chunk(*b"another identity", 1, false, b"", &chunks[1]).to_vec();
            assert_eq!(
                sealer.check_chunks(&chunks, &of_another_write, b""),
                Err(Error::Seal("it is of another write"))
            );
            for other in [
                seals_of(Some(b"0123456789abcdef"), b"kez"),
                seals_of(Some(b"0123456789abcdeg"), b"key"),
                seals_of(None, b"kez"),
            ] {
                assert_eq!(other.check_chunks(&chunks, &seals, b""), Err(WRONG));
            }
        }
        assert!(
            sealers()[0]
                .check_chunks(&chunks, &sealed(&sealers()[1], &chunks, b""), b"")
                .is_err()
        );
    }

    #[test]
    fn a_record_is_bound_to_its_chunks() {
        let chunks = vec![vec![1; 50], b"1;;;;abc".to_vec()];
        for sealer in sealers() {
            let seals = sealed(&sealer, &chunks, b"1;;;;abc");
            assert_eq!(sealer.check_chunks(&chunks, &seals, b"1;;;;abc"), Ok(()));
            for other in [b"1;;;;abd".as_slice(), b"1;;;;ab", b""] {
                assert_eq!(sealer.check_chunks(&chunks, &seals, other), Err(WRONG));
            }
            // Nor can its bytes move into the chunk.
            let seals = sealed(&sealer, &chunks, b"");
            assert_eq!(sealer.check_chunks(&chunks, &seals, b"1;;;;abc"), Err(WRONG));
            let none = vec![vec![1; 50], Vec::new()];
            assert_eq!(sealer.check_chunks(&none, &seals, b"1;;;;abc"), Err(WRONG));
        }
    }

    #[test]
    fn a_record_is_a_text_behind_its_mark() {
        assert_eq!(record(b"\0fr\x011;;;;abc"), Some(b"1;;;;abc".as_slice()));
        for other in [
            b"".as_slice(),
            b"1;;;;abc",
            b"\0fr\x02a",
            b"\0fr\x01a\n",
            b"\0fr\x01\xe9",
        ] {
            assert_eq!(record(other), None);
        }
    }

    #[test]
    fn a_value_is_no_count() {
        for sealer in sealers() {
            let data = with_trailer(&sealer, Kind::Value, b"V3\np0\n.");
            let (pickle, tag) = split(&data);
            assert_eq!(sealer.check(Kind::Count, pickle, tag.unwrap()), Err(WRONG));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let chunks = vec![b"some".to_vec(), b"bytes".to_vec()];
        for sealer in sealers() {
            let seals = sealed(&sealer, &chunks, b"");
            for (of, at, bit) in (0..2).flat_map(|of| (0..49).flat_map(move |at| (0..8).map(move |bit| (of, at, bit))))
            {
                let mut flipped = seals.clone();
                flipped[of][at] ^= 1 << bit;
                assert!(sealer.check_chunks(&chunks, &flipped, b"").is_err());
                if at < chunks[of].len() {
                    let mut flipped = chunks.clone();
                    flipped[of][at] ^= 1 << bit;
                    assert!(sealer.check_chunks(&flipped, &seals, b"").is_err());
                }
            }
        }
    }

    #[test]
    fn fields_do_not_run_into_each_other() {
        let whole = with_trailer(&seals_of(None, b"key"), Kind::Value, b"ab.");
        let shifted = with_trailer(&seals_of(None, b"key\0a"), Kind::Value, b"b.");
        assert_ne!(split(&whole).1, split(&shifted).1);
    }

    proptest! {
        #[test]
        fn anything_can_be_split_and_checked(data: Vec<u8>, seals in prop::collection::vec(any::<Vec<u8>>(), 0..3)) {
            let (pickle, tag) = split(&data);
            prop_assert!(data.starts_with(pickle));
            for sealer in sealers() {
                if let Some(tag) = tag {
                    prop_assert!(sealer.check(Kind::Value, pickle, tag).is_err());
                }
                prop_assert!(sealer.check_chunks(&seals, &seals, b"").is_err());
            }
        }
    }
}
