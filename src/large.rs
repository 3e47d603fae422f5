//! The pipe: pickles > deflate? > encrypt? > chunks, and chunks > decrypt? > inflate? > pickles.
//!
//! Both directions stream. Writing holds a chunk and zlib's state, reading what the caller asks for.

use crate::chunk::{CHUNK_SIZE, Cutter};
use crate::cipher::{BLOCK_SIZE, Decryptor, Encryptor, Key, iv};
use crate::error::{Error, Result};
use crate::memory::{append, grow, shrink};
use crate::zlib::{Deflate, Inflate, Sharing};

/// How much is given to inflate at a time, and the least room it is given for its output, in bytes.
const STEP: usize = 64 * 1024;

/// Turns pickles into chunks.
pub struct Writer {
    deflate: Option<Deflate>,
    encryptor: Option<Encryptor>,
    cutter: Cutter,
    /// The pickle that is to be compressed. Small items are not gathered for several threads: their chunks would be stored later
    /// than Djblets stores them, and several at once.
    pickle: Vec<u8>,
    /// Where in the cutter's input that begins which is not yet encrypted.
    start: usize,
    /// The first error. After it the stream is not what it should be.
    result: Result<()>,
}

impl Writer {
    /// Starts a stream. An encrypted one begins with its initialization vector, even if nothing ever follows.
    pub fn new(compress: bool, encryption: Option<(Key<'_>, [u8; BLOCK_SIZE])>) -> Result<Self> {
        let mut cutter = Cutter::default();
        if let Some((_, iv)) = &encryption {
            append(cutter.input(), iv)?;
        }
        Ok(Self {
            deflate: compress.then(Deflate::default),
            encryptor: encryption.map(|(key, iv)| Encryptor::new(key, iv)),
            cutter,
            pickle: Vec::new(),
            start: 0,
            result: Ok(()),
        })
    }

    /// Lets several threads compress a stream that has just been started.
    #[must_use]
    pub fn shared(mut self, sharing: Sharing) -> Self {
        self.deflate = self.deflate.map(|_| Deflate::new(sharing));
        self
    }

    /// Where the next item's pickle is to be appended, before [`end_pickle`](Self::end_pickle).
    pub fn pickle(&mut self) -> &mut Vec<u8> {
        if self.deflate.is_some() {
            &mut self.pickle
        } else {
            self.start = self.cutter.input().len();
            self.cutter.input()
        }
    }

    /// How many bytes [`end_pickle`](Self::end_pickle) has to work on.
    pub fn due(&mut self) -> usize {
        if self.deflate.is_none() {
            self.cutter.input().len() - self.start
        } else {
            self.pickle.len()
        }
    }

    /// Takes over the pickle that was appended. After an error there is no going on.
    pub fn end_pickle(&mut self) -> Result<()> {
        self.result.clone()?;
        self.result = self.take_pickle();
        self.result.clone()
    }

    fn take_pickle(&mut self) -> Result<()> {
        let Some(deflate) = &mut self.deflate else {
            self.encrypt();
            return Ok(());
        };
        // What is written first is encrypted while other threads still look for matches.
        let (encryptor, start) = (&mut self.encryptor, &mut self.start);
        *start = self.cutter.input().len();
        deflate.write_with(&self.pickle, self.cutter.input(), |output| {
            if let Some(encryptor) = encryptor {
                encryptor.apply(&mut output[*start..]);
                *start = output.len();
            }
        })?;
        self.pickle.clear();
        // One huge item must not hold its memory for all that follow it.
        shrink(&mut self.pickle, CHUNK_SIZE);
        Ok(())
    }

    /// Ends the stream. What is left is in the full chunks and the last one.
    pub fn finish(&mut self) -> Result<()> {
        self.result.clone()?;
        self.result = self.end_stream();
        self.result.clone()
    }

    fn end_stream(&mut self) -> Result<()> {
        self.start = self.cutter.input().len();
        if let Some(deflate) = &mut self.deflate {
            deflate.finish(self.cutter.input())?;
        }
        self.encrypt();
        Ok(())
    }

    /// The chunks made so far.
    pub fn cutter(&mut self) -> &mut Cutter {
        &mut self.cutter
    }

    fn encrypt(&mut self) {
        if let Some(encryptor) = &mut self.encryptor {
            encryptor.apply(&mut self.cutter.input()[self.start..]);
        }
    }
}

/// Turns chunks into the stream of pickles that they hold. Each chunk is dropped when it has been read.
pub struct Reader<Chunk> {
    source: Source<Chunk>,
    inflater: Option<Inflater>,
}

impl<Chunk: AsRef<[u8]>> Reader<Chunk> {
    /// Starts reading. Fails where an encrypted stream is too short for its initialization vector.
    pub fn new(chunks: Vec<Chunk>, compressed: bool, key: Option<Key<'_>>) -> Result<Self> {
        Ok(Self {
            source: Source::new(chunks, key)?,
            inflater: compressed.then(Inflater::default),
        })
    }

    /// How much of what is stored has not been used yet, in bytes.
    pub fn unread(&self) -> usize {
        let inflated = self.inflater.as_ref().map_or(0, Inflater::unread);
        inflated + self.source.unread()
    }

    /// Appends some of the stream to `output`: `want` bytes, a little more, or what is left. Returns false, and appends
    /// nothing, at its end; a compressed stream is then known to be whole.
    pub fn read(&mut self, output: &mut Vec<u8>, want: usize) -> Result<bool> {
        let start = output.len();
        match &mut self.inflater {
            Some(inflater) => inflater.read(&mut self.source, output, want)?,
            None => self.source.read(output, want)?,
        }
        Ok(output.len() > start)
    }
}

#[derive(Default)]
struct Inflater {
    stream: Inflate,
    input: Vec<u8>,
    at: usize,
}

impl Inflater {
    fn unread(&self) -> usize {
        self.input.len() - self.at
    }

    fn read<Chunk: AsRef<[u8]>>(
        &mut self,
        source: &mut Source<Chunk>,
        output: &mut Vec<u8>,
        want: usize,
    ) -> Result<()> {
        let mut written = output.len();
        let end = written + want;
        let result = self.inflate(source, output, &mut written, end);
        output.truncate(written);
        result
    }

    /// Fills `output` from `written` up to `end`, or as far as the stream goes. Behind what is written it may have any
    /// length: room that has been made is not made again for the next piece of input.
    fn inflate<Chunk: AsRef<[u8]>>(
        &mut self,
        source: &mut Source<Chunk>,
        output: &mut Vec<u8>,
        written: &mut usize,
        end: usize,
    ) -> Result<()> {
        while *written < end {
            if self.at == self.input.len() {
                self.at = 0;
                self.input.clear();
                source.read(&mut self.input, STEP)?;
                if self.input.is_empty() && self.stream.ended() {
                    break;
                }
            }
            let room = end.max(*written + STEP);
            if output.len() < room {
                grow(output, room - output.len())?;
                output.resize(room, 0);
            }
            let (taken, given) = self.stream.read(&self.input[self.at..], &mut output[*written..])?;
            self.at += taken;
            *written += given;
            if taken + given == 0 {
                return Err(Error::Zlib("it ends too early"));
            }
        }
        Ok(())
    }
}

/// The chunks in a row, decrypted.
struct Source<Chunk> {
    chunks: std::vec::IntoIter<Chunk>,
    chunk: Option<Chunk>,
    at: usize,
    decryptor: Option<Decryptor>,
}

impl<Chunk: AsRef<[u8]>> Source<Chunk> {
    fn new(chunks: Vec<Chunk>, key: Option<Key<'_>>) -> Result<Self> {
        let mut source = Self {
            chunks: chunks.into_iter(),
            chunk: None,
            at: 0,
            decryptor: None,
        };
        if let Some(key) = key {
            let mut bytes = Vec::new();
            source.read(&mut bytes, BLOCK_SIZE)?;
            source.decryptor = Some(Decryptor::new(key, iv(&bytes)?));
        }
        Ok(source)
    }

    fn unread(&self) -> usize {
        let chunks = self.chunk.iter().chain(self.chunks.as_slice());
        let stored: usize = chunks.map(|chunk| chunk.as_ref().len()).sum();
        stored - self.at
    }

    /// Appends `want` bytes to `output`, or what is left.
    fn read(&mut self, output: &mut Vec<u8>, want: usize) -> Result<()> {
        let end = output.len() + want;
        while output.len() < end {
            let Some(chunk) = &self.chunk else {
                self.chunk = self.chunks.next();
                if self.chunk.is_none() {
                    return Ok(());
                }
                continue;
            };
            let rest = chunk.as_ref().get(self.at..).unwrap_or_default();
            let piece = &rest[..rest.len().min(end - output.len())];
            match &mut self.decryptor {
                Some(decryptor) => decryptor.apply(piece, output)?,
                None => append(output, piece)?,
            }
            self.at += piece.len();
            if piece.len() == rest.len() {
                self.chunk = None;
                self.at = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZero;

    use super::*;
    use proptest::prelude::*;

    const KEY: &[u8] = b"0123456789abcdef";
    const IV: [u8; 16] = *b"an unlikely iv..";

    /// The stored chunks, as a caller collects them.
    fn write(items: &[Vec<u8>], compress: bool, encrypt: bool) -> Vec<Vec<u8>> {
        write_shared(items, compress, encrypt, Sharing::serial())
    }

    fn write_shared(items: &[Vec<u8>], compress: bool, encrypt: bool, sharing: Sharing) -> Vec<Vec<u8>> {
        let key = Key::new(KEY).unwrap();
        let encryption = encrypt.then_some((key, IV));
        let mut writer = Writer::new(compress, encryption).unwrap().shared(sharing);
        let mut chunks: Vec<Vec<u8>> = Vec::new();
        let mut collect = |cutter: &mut Cutter| {
            chunks.extend(cutter.full_chunks().map(<[u8]>::to_vec));
            cutter.drop_full_chunks();
        };
        for item in items {
            writer.pickle().extend_from_slice(item);
            writer.end_pickle().unwrap();
            collect(writer.cutter());
        }
        writer.finish().unwrap();
        collect(writer.cutter());
        chunks.extend(writer.cutter().last_chunk().map(<[u8]>::to_vec));
        chunks
    }

    fn read(chunks: &[Vec<u8>], compressed: bool, encrypted: bool, step: usize) -> Result<Vec<u8>> {
        let key = Key::new(KEY).unwrap();
        let mut reader = Reader::new(chunks.to_vec(), compressed, encrypted.then_some(key))?;
        let mut output = Vec::new();
        let stored = reader.unread();
        let iv = if encrypted { BLOCK_SIZE } else { 0 };
        assert_eq!(stored + iv, chunks.iter().map(Vec::len).sum::<usize>());
        let mut unread = stored;
        while reader.read(&mut output, step)? {
            assert!(reader.unread() <= unread);
            unread = reader.unread();
            assert!(compressed || unread + output.len() == stored);
        }
        assert_eq!(reader.unread(), 0);
        Ok(output)
    }

    /// Noise that deflate can do little about, so that a few items fill chunks.
    fn noise(size: usize) -> Vec<u8> {
        let mut state = 1_u32;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .take(size)
        .collect()
    }

    #[test]
    fn a_stream_comes_back_in_all_modes() {
        for size in [
            0,
            1,
            CHUNK_SIZE - 17,
            CHUNK_SIZE - 16,
            CHUNK_SIZE,
            CHUNK_SIZE + 1,
            3 * CHUNK_SIZE,
        ] {
            let item = noise(size);
            for (compress, encrypt) in [(false, false), (false, true), (true, false), (true, true)] {
                let chunks = write(std::slice::from_ref(&item), compress, encrypt);
                assert!(chunks.iter().rev().skip(1).all(|chunk| chunk.len() == CHUNK_SIZE));
                if !compress {
                    let stored = size + if encrypt { 16 } else { 0 };
                    assert_eq!(chunks.len(), stored.div_ceil(CHUNK_SIZE));
                }
                for step in [1000, 1 << 20] {
                    assert!(read(&chunks, compress, encrypt, step).unwrap() == item);
                }
            }
        }
    }

    #[test]
    fn several_threads_do_not_show() {
        let long = noise(3_000_000);
        let records: Vec<Vec<u8>> = long.chunks(150).map(<[u8]>::to_vec).collect();
        let mixed = [
            records[..1000].to_vec(),
            vec![long.clone()],
            records[1000..2000].to_vec(),
        ]
        .concat();
        for items in [vec![long], records, mixed] {
            for encrypt in [false, true] {
                let expected = write(&items, true, encrypt);
                for threads in [2, 4] {
                    let sharing = Sharing::new(NonZero::new(threads));
                    assert!(write_shared(&items, true, encrypt, sharing) == expected);
                }
            }
        }
    }

    #[test]
    fn an_empty_stream_stores_what_falls_out_of_it() {
        assert_eq!(write(&[], false, false), Vec::<Vec<u8>>::new());
        assert_eq!(write(&[], false, true), [IV.to_vec()]);
        assert_eq!(write(&[], true, false), [b"x\x9c\x03\0\0\0\0\x01".to_vec()]);
        assert_eq!(write(&[], true, true)[0].len(), 16 + 8);
    }

    #[test]
    fn damage_to_a_compressed_stream_is_noticed() {
        let [chunk] = &write(&[noise(5000)], true, false)[..] else {
            panic!("one chunk")
        };
        for size in 0..chunk.len() {
            assert!(
                read(&[chunk[..size].to_vec()], true, false, 1 << 20).is_err(),
                "cut at {size}"
            );
        }
        for at in 0..chunk.len() {
            let mut flipped = chunk.clone();
            flipped[at] ^= 1;
            assert!(read(&[flipped], true, false, 1 << 20).is_err(), "flipped at {at}");
        }
        assert!(read(&[chunk.clone(), b"x".to_vec()], true, false, 1 << 20).is_err());
        assert!(read(&[chunk.clone(), chunk.clone()], true, false, 1 << 20).is_err());
        // Empty chunks hold nothing that could be wrong.
        assert!(read(&[vec![], chunk.clone(), vec![]], true, false, 1 << 20).is_ok());
    }

    #[test]
    fn an_encrypted_stream_needs_its_iv() {
        assert_eq!(read(&[], false, true, 100), Err(Error::IvSize(0)));
        assert_eq!(
            read(&[vec![1; 10], vec![2; 5]], false, true, 100),
            Err(Error::IvSize(15))
        );
        assert_eq!(read(&[vec![1; 10], vec![2; 6]], false, true, 100), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn how_the_stream_was_cut_does_not_matter(
            items in prop::collection::vec(prop::collection::vec(0..4_u8, 0..3000), 0..6),
            cuts in prop::collection::vec(0..4000_usize, 0..6),
            compress: bool,
            encrypt: bool,
            step in 1..5000_usize,
        ) {
            let mut rest = write(&items, compress, encrypt).concat();
            let mut chunks = Vec::new();
            for cut in cuts {
                let tail = rest.split_off(cut.min(rest.len()));
                chunks.push(std::mem::replace(&mut rest, tail));
            }
            chunks.push(rest);
            prop_assert_eq!(read(&chunks, compress, encrypt, step), Ok(items.concat()));
        }

        #[test]
        fn anything_can_be_read_without_a_panic(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..4),
            compressed: bool,
            encrypted: bool,
        ) {
            let _ = read(&chunks, compressed, encrypted, 100);
        }
    }
}
