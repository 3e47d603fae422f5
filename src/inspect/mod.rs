//! The contents of a stored stream, as text for people. No pickle is executed, and time and memory are bounded for every
//! input.
//!
//! - `tree`: the objects that a pickle would build: classes are names, and calls are not made.
//! - `render`: the tree as shortened text.

mod render;
mod tree;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cipher::Key;
use crate::error::{Error, Result};
use crate::large::Reader;
use crate::memory::{collect, grow, push};
use crate::pickle::scan::{Global, Scanner};

/// The most names of classes and functions that are collected of one stream.
const MOST_GLOBALS: usize = 200;

/// How many bytes of pickles are read at a time, at least.
const STEP: usize = 64 * 1024;

/// The most memory, in bytes, that rendering takes in one step, apart from the tree: values are shortened, and their number
/// is limited. The code that renders texts can't return an error if memory is short, so this much is reserved before.
const ROOM_TO_SHOW: usize = 8 << 20;

/// How many characters are shown of one item.
const MOST_TEXT: usize = 2000;

/// The first byte of every zlib stream that is stored. No pickle begins with it: it is no opcode.
const ZLIB: u8 = 0x78;

/// The contents of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Whether it is compressed: as was said or, if nothing was, as its first byte says.
    pub compressed: bool,
    /// How many bytes of pickles were read.
    pub pickled: u64,
    /// How many items are whole.
    pub count: u64,
    /// The first of the items.
    pub items: Vec<Item>,
    /// The classes and functions that the pickles name, dotted.
    pub globals: BTreeSet<String>,
    /// Whether they name more than were collected.
    pub more_globals: bool,
    /// Why it can't be read to its end, if it can't.
    pub damage: Option<Damage>,
}

/// An item as it is shown.
#[derive(Debug, PartialEq, Eq)]
pub struct Item {
    /// The size of its pickle in bytes.
    pub size: usize,
    /// How it looks, shortened: Python's spelling, objects as `<module.Class …>`.
    pub text: String,
}

/// Why a stream can't be read to its end.
#[derive(Debug, PartialEq, Eq)]
pub struct Damage {
    /// The error.
    pub error: Error,
    /// The number of the chunk where it was noticed, from 0: the last one that was looked at.
    pub chunk: usize,
}

/// A chunk that tells when it is looked at: the reader goes through them in order.
struct Watched<'a> {
    bytes: &'a [u8],
    number: usize,
    last: &'a AtomicUsize,
}

impl AsRef<[u8]> for Watched<'_> {
    fn as_ref(&self) -> &[u8] {
        self.last.store(self.number, Ordering::Relaxed);
        self.bytes
    }
}

/// Reads a stream to its end or to where it is damaged, and keeps the first `show` items to look at.
///
/// Takes as much memory as the largest item's pickle, or little where items are small. Without a word on compression,
/// the stream says it itself.
///
/// Damage is no error here. Too little memory is.
pub fn inspect<Chunk: AsRef<[u8]>>(
    chunks: &[Chunk],
    compressed: Option<bool>,
    key: Option<Key<'_>>,
    show: usize,
) -> Result<Stream> {
    let last = AtomicUsize::new(0);
    let mut stream = Stream::default();
    match stream.read(chunks, compressed, key, show, &last) {
        Ok(()) => {}
        Err(Error::Memory) => return Err(Error::Memory),
        Err(error) => {
            let chunk = last.load(Ordering::Relaxed);
            stream.damage = Some(Damage { error, chunk });
        }
    }
    Ok(stream)
}

impl Stream {
    fn read<Chunk: AsRef<[u8]>>(
        &mut self,
        chunks: &[Chunk],
        compressed: Option<bool>,
        key: Option<Key<'_>>,
        show: usize,
        last: &AtomicUsize,
    ) -> Result<()> {
        let watched = || {
            let chunks = chunks.iter().map(AsRef::as_ref).enumerate();
            collect(chunks.map(|(number, bytes)| Watched { bytes, number, last }))
        };
        self.compressed = match compressed {
            Some(compressed) => compressed,
            None => {
                let mut first = Vec::new();
                Reader::new(watched()?, false, key)?.read(&mut first, 1)?;
                first.first() == Some(&ZLIB)
            }
        };
        let mut reader = Reader::new(watched()?, self.compressed, key)?;
        let mut scanner = Scanner::new();
        let mut data = Vec::new();
        loop {
            // As much again as there is, so that a huge item is not looked at over and over.
            let had = data.len();
            let read = reader.read(&mut data, had.max(STEP));
            self.pickled += (data.len() - had) as u64;
            // Of a damaged stream, too, what came before the damage.
            self.take_items(&mut scanner, &mut data, show)?;
            if !read? {
                break;
            }
        }
        if data.is_empty() {
            Ok(())
        } else {
            Err(Error::pickle("it ends in the middle of an item").moved_by(self.pickled))
        }
    }

    /// Drops all whole pickles from the beginning of `data`.
    fn take_items(&mut self, scanner: &mut Scanner, data: &mut Vec<u8>, show: usize) -> Result<()> {
        grow(&mut Vec::<u8>::new(), ROOM_TO_SHOW)?;
        let mut start = 0;
        let before = self.pickled - data.len() as u64;
        let (globals, more) = (&mut self.globals, &mut self.more_globals);
        loop {
            let found = scanner.scan_with(&data[start..], |global| {
                if globals.len() < MOST_GLOBALS {
                    globals.insert(name(global));
                } else if !*more {
                    *more = !globals.contains(&name(global));
                }
                Ok(())
            });
            let Some(size) = found.map_err(|error| error.moved_by(before + start as u64))? else {
                break;
            };
            scanner.reset();
            if self.items.len() < show {
                let text = show_pickle(&data[start..start + size])?;
                push(&mut self.items, Item { size, text })?;
            }
            self.count += 1;
            start += size;
        }
        data.drain(..start);
        Ok(())
    }
}

/// How one pickle looks, which the scanner must have found to be whole.
fn show_pickle(pickle: &[u8]) -> Result<String> {
    let tree = tree::Tree::grow(pickle)?;
    let mut text = render::render(&tree);
    if let Some((end, _)) = text.char_indices().nth(MOST_TEXT) {
        text.truncate(end);
        text.push_str(" …");
    }
    if tree.cut {
        text.push_str(" (only its beginning was looked at)");
    }
    Ok(text)
}

fn name(global: Global<'_>) -> String {
    match global {
        Global::Named { module, name, .. } => render::dotted(module, name),
        Global::Extension(code) => format!("extension {code}"),
        Global::Unknown => "a name that only executing the pickle would tell".to_owned(),
    }
}

#[cfg(test)]
mod tests;
