//! The strings that were keys of dicts lately.
//!
//! Items of one shape have the same keys, most often in the same order. A string that exists already need not be made, and
//! has its hash. So the reader guesses the next key and compares; if the guess is wrong, it looks the key up.

use super::expected_line::ExpectedLine;
use super::opcode;
use super::read::Tokens;
use crate::memory::{grow, push};

/// Keys of items, with the string objects (`Text`) that were made of them. All are ASCII without escapes, so that no two
/// lines are the same string.
///
/// A string is given out once in a pickle: CPython makes a second one if a pickle spells it out again, and one can tell by
/// pickling the item again.
pub struct KeyCache<Text> {
    keys: Vec<Key<Text>>,
    /// For each hash the index of its key, or `NONE`.
    indices: Vec<u16>,
    /// The number of the current pickle.
    pickle: u32,
    /// The index of the last key.
    last: usize,
    /// The index of the key that followed it the last time.
    expected: usize,
}

struct Key<Text> {
    text: Text,
    line: ExpectedLine,
    /// The pickle to which the string was given last.
    pickle: u32,
    /// The index of the key that followed this one the last time.
    next: usize,
    /// The equal string that is interned, once the key has been an attribute's name.
    interned: Option<Text>,
}

impl<Text> Default for KeyCache<Text> {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            indices: Vec::new(),
            pickle: 0,
            last: 0,
            expected: 0,
        }
    }
}

/// The most keys that are kept: a power of two.
const MAX_KEYS: usize = 2048;
const NONE: u16 = u16::MAX;
/// The longest key that is kept, in bytes.
const MAX_LENGTH: usize = 32;

impl<Text> KeyCache<Text> {
    /// Begins the next pickle, to which each string may be given once more.
    pub fn next_pickle(&mut self) {
        if self.pickle == u32::MAX {
            *self = Self::default();
        }
        self.pickle += 1;
    }

    /// Takes the next token if it is the key that followed the last time, and returns its string. That takes neither a search
    /// for the line's end nor a lookup.
    #[inline(always)]
    pub fn accept_expected(&mut self, tokens: &mut Tokens<'_>) -> Option<&Text> {
        let key = self.keys.get_mut(self.expected)?;
        if key.pickle == self.pickle || !tokens.accept(&key.line) {
            return None;
        }
        key.pickle = self.pickle;
        self.last = self.expected;
        self.expected = key.next;
        Some(&key.text)
    }

    /// The string of a line, if it is kept and was not given to this pickle. `is_line` tells whether a string is the line.
    #[inline]
    pub fn find(&mut self, line: &[u8], is_line: impl FnOnce(&Text) -> bool) -> Option<&Text> {
        let index = usize::from(*self.indices.get(hash(line))?);
        let key = self.keys.get_mut(index)?;
        if key.pickle == self.pickle || !is_line(&key.text) {
            return None;
        }
        key.pickle = self.pickle;
        self.follow(index);
        self.keys.get(index).map(|key| &key.text)
    }

    /// Keeps the string that the current pickle has for an ASCII line without escapes. `is_line` is as for [`find`](Self::find).
    // Out of the way of the reader's loop: most keys are there.
    #[inline(never)]
    pub fn insert(&mut self, line: &[u8], text: impl FnOnce() -> Text, is_line: impl FnOnce(&Text) -> bool) {
        // The first pickle may be the only one.
        if line.len() > MAX_LENGTH || line.len() < 2 || self.pickle == 1 {
            return;
        }
        if self.indices.is_empty() {
            if grow(&mut self.indices, MAX_KEYS).is_err() {
                return;
            }
            self.indices.resize(MAX_KEYS, NONE);
        }
        let index = &mut self.indices[hash(line)];
        let key = |text| Key {
            text,
            line: ExpectedLine::new(opcode::UNICODE, line),
            pickle: self.pickle,
            next: usize::from(*index),
            interned: None,
        };
        match self.keys.get_mut(usize::from(*index)) {
            // The string that is kept serves the next pickle as well.
            Some(known) if is_line(&known.text) => return,
            Some(known) => *known = key(text()),
            None => {
                let next = self.keys.len() as u16;
                if push(&mut self.keys, key(text())).is_err() {
                    return;
                }
                *index = next;
            }
        }
        let index = usize::from(*index);
        self.follow(index);
    }

    /// Where the interned string of a line is kept, or is to be kept. `None` if the line's own string is not the one that
    /// `is_text` recognizes.
    ///
    /// No key becomes its interned string: CPython may have two strings if the same one is also a key elsewhere.
    #[inline]
    pub fn interned(&mut self, line: &[u8], is_text: impl FnOnce(&Text) -> bool) -> Option<&mut Option<Text>> {
        let index = usize::from(*self.indices.get(hash(line))?);
        let key = self.keys.get_mut(index)?;
        is_text(&key.text).then_some(&mut key.interned)
    }

    /// Remembers that a key followed the last one.
    #[inline]
    fn follow(&mut self, index: usize) {
        if let Some(last) = self.keys.get_mut(self.last) {
            last.next = index;
        }
        self.last = index;
        self.expected = self.keys.get(index).map_or(index, |key| key.next);
    }
}

/// Below `MAX_KEYS`. Every byte of the longest key counts, and so does the length. The product's highest bits are those that
/// depend on all others. rustc-hash in its place takes 14 % longer (`cargo bench -- "pickle keys"`, medians of 25 Nov 2026).
#[inline]
fn hash(line: &[u8]) -> usize {
    let (first, last) = if let (Some(first), Some(last)) = (line.first_chunk(), line.last_chunk()) {
        (folded(u128::from_le_bytes(*first)), folded(u128::from_le_bytes(*last)))
    } else if let (Some(first), Some(last)) = (line.first_chunk(), line.last_chunk()) {
        (u64::from_le_bytes(*first), u64::from_le_bytes(*last))
    } else if let (Some(first), Some(last)) = (line.first_chunk(), line.last_chunk()) {
        (u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into())
    } else {
        (line.iter().fold(0, |word, &byte| word << 8 | u64::from(byte)), 0)
    };
    let word = first ^ last.rotate_left(29) ^ line.len() as u64;
    (word.wrapping_mul(0x517c_c1b7_2722_0a95) >> (u64::BITS - MAX_KEYS.ilog2())) as usize
}

#[inline]
fn folded(word: u128) -> u64 {
    word as u64 ^ ((word >> 64) as u64).rotate_left(19)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;

    type Cache = KeyCache<Rc<str>>;

    /// The string of a key as a reader gets it, and whether the cache had it.
    fn read(cache: &mut Cache, key: &str) -> (Rc<str>, bool) {
        let pickle = format!("V{key}\np1\ns and what follows");
        let mut tokens = Tokens::new(pickle.as_bytes());
        if let Some(text) = cache.accept_expected(&mut tokens) {
            assert_eq!(tokens.consumed(), key.len() + 2);
            return (text.clone(), true);
        }
        assert_eq!(tokens.consumed(), 0);
        let is_line = |text: &Rc<str>| **text == *key;
        if let Some(text) = cache.find(key.as_bytes(), is_line) {
            return (text.clone(), true);
        }
        let text: Rc<str> = key.into();
        cache.insert(key.as_bytes(), || text.clone(), is_line);
        (text, false)
    }

    fn read_pickle(cache: &mut Cache, keys: &[&str]) -> Vec<bool> {
        cache.next_pickle();
        keys.iter().map(|key| read(cache, key).1).collect()
    }

    #[test]
    fn keys_are_kept_from_the_second_pickle_on() {
        let mut cache = Cache::default();
        assert_eq!(read_pickle(&mut cache, &["id", "name"]), [false, false]);
        assert_eq!(read_pickle(&mut cache, &["id", "name"]), [false, false]);
        assert_eq!(read_pickle(&mut cache, &["id", "name"]), [true, true]);
        assert_eq!(read_pickle(&mut cache, &["name", "id", "email"]), [true, true, false]);
        assert_eq!(read_pickle(&mut cache, &["email", "name"]), [true, true]);
    }

    #[test]
    fn the_key_that_followed_is_expected() {
        let mut cache = Cache::default();
        for _ in 0..3 {
            read_pickle(&mut cache, &["id", "name", "email"]);
        }
        cache.next_pickle();
        let mut tokens = Tokens::new(b"Vid\nVname\nVemail\nand what follows");
        for _ in 0..3 {
            assert!(cache.accept_expected(&mut tokens).is_some());
        }
        // All were given to this pickle.
        assert!(cache.accept_expected(&mut tokens).is_none());
    }

    #[test]
    fn a_pickle_gets_each_string_once() {
        let mut cache = Cache::default();
        read_pickle(&mut cache, &[]);
        read_pickle(&mut cache, &["name"]);
        assert_eq!(read_pickle(&mut cache, &["name", "name", "name"]), [true, false, false]);
    }

    #[test]
    fn keys_that_are_too_short_or_too_long_are_not_kept() {
        let mut cache = Cache::default();
        let (longest, too_long) = ("x".repeat(MAX_LENGTH), "x".repeat(MAX_LENGTH + 1));
        for _ in 0..2 {
            read_pickle(&mut cache, &["", "a", &longest, &too_long]);
        }
        assert_eq!(
            read_pickle(&mut cache, &["", "a", &longest, &too_long]),
            [false, false, true, false]
        );
    }

    #[test]
    fn the_interned_string_belongs_to_the_key_that_was_given_out() {
        let mut cache = Cache::default();
        read_pickle(&mut cache, &[]);
        cache.next_pickle();
        let (text, _) = read(&mut cache, "name");
        let place = cache.interned(b"name", |known| Rc::ptr_eq(known, &text));
        *place.unwrap() = Some("name".into());
        let other: Rc<str> = "name".into();
        assert!(cache.interned(b"name", |known| Rc::ptr_eq(known, &other)).is_none());
        assert!(
            cache
                .interned(b"name", |known| Rc::ptr_eq(known, &text))
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn after_the_last_number_of_a_pickle_the_cache_begins_anew() {
        let mut cache = Cache::default();
        read_pickle(&mut cache, &[]);
        read_pickle(&mut cache, &["name"]);
        cache.pickle = u32::MAX;
        assert_eq!(read_pickle(&mut cache, &["name"]), [false]);
        assert_eq!(cache.pickle, 1);
    }

    #[test]
    fn similar_keys_have_different_hashes() {
        let keys: Vec<String> = (0..100).map(|number| format!("column_{number}")).collect();
        let hashes: HashSet<usize> = keys.iter().map(|key| hash(key.as_bytes())).collect();
        assert!(hashes.len() > 90, "{}", hashes.len());
        assert!(hashes.iter().all(|&hash| hash < MAX_KEYS));
    }

    proptest! {
        /// More keys than the cache holds, so that they displace each other.
        #[test]
        fn a_string_is_that_of_its_line(pickles in prop::collection::vec(prop::collection::vec(0..5000_u32, 0..300), 1..20)) {
            let mut cache = Cache::default();
            for keys in pickles {
                cache.next_pickle();
                let mut given = Vec::new();
                for key in keys {
                    let key = format!("{key:x}");
                    let (text, _) = read(&mut cache, &key);
                    prop_assert_eq!(&*text, key.as_str());
                    prop_assert!(!given.iter().any(|other| Rc::ptr_eq(other, &text)));
                    given.push(text);
                }
            }
        }
    }
}
