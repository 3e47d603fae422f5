//! The pipe: items come back from their chunks, stock zlib makes the same bytes, and damaged chunks are read or refused,
//! no more.
#![no_main]

use std::num::NonZero;

use fastblets::cipher::Key;
use fastblets::large::{Reader, Writer};
use fastblets::zlib::{Deflate, Sharing};
use flate2::{Compress, Compression, FlushCompress};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, bool, u16, Vec<&[u8]>, u16, u8, (u8, u16, u8), u16)| {
    let (compress, encrypt, step, items, damaged, with, (threads, segment, warm_up), repeated) = input;
    let key = Key::new(&[7; 16]).expect("16 bytes are a key");
    let mut writer = Writer::new(compress, encrypt.then_some((key, [9; 16]))).expect("there is memory");
    for item in &items {
        writer.pickle().extend_from_slice(item);
        writer.end_pickle().expect("there is memory");
    }
    writer.finish().expect("there is memory");
    let mut stored = writer.cutter().input().clone();
    if compress && !encrypt {
        assert_eq!(stored, stock(&items));
    }

    if compress && !encrypt {
        let sharing = Sharing {
            threads: NonZero::new(usize::from(threads % 5)),
            segment: 600 + usize::from(segment) % 40_000,
            warm_up: 16 * usize::from(warm_up),
        };
        share(&items, usize::from(repeated) * 4, sharing);
    }

    let key = encrypt.then_some(key);
    assert_eq!(
        read(&stored, compress, key, step).expect("what was written can be read"),
        items.concat()
    );
    let at = usize::from(damaged) % stored.len().max(1);
    if let Some(byte) = stored.get_mut(at) {
        *byte ^= with;
        let _ = read(&stored, compress, key, step);
    }
});

/// Several threads find what one finds: in what the fuzzer made, repeated until it is worth to share.
fn share(items: &[&[u8]], repeated: usize, sharing: Sharing) {
    let once = items.concat();
    let (mut bytes, mut ends) = (Vec::new(), Vec::new());
    while !once.is_empty() && bytes.len() < 40_000 + repeated {
        for item in items {
            bytes.extend_from_slice(item);
            ends.push(bytes.len());
        }
    }
    let mut output = Vec::new();
    let mut deflate = Deflate::new(sharing);
    deflate
        .write_pieces(&bytes, &ends, &mut output, |_| ())
        .expect("there is memory");
    deflate.finish(&mut output).expect("there is memory");
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let pieces: Vec<&[u8]> = starts.zip(&ends).map(|(start, &end)| &bytes[start..end]).collect();
    assert_eq!(output, stock(&pieces));
}

fn read(stored: &[u8], compressed: bool, key: Option<Key<'_>>, step: u16) -> fastblets::error::Result<Vec<u8>> {
    let step = usize::from(step) + 1;
    let mut reader = Reader::new(stored.chunks(step).collect(), compressed, key)?;
    let mut output = Vec::new();
    while reader.read(&mut output, step)? {}
    Ok(output)
}

fn stock(items: &[&[u8]]) -> Vec<u8> {
    let mut zlib = Compress::new(Compression::new(6), true);
    let mut output = Vec::new();
    for item in items {
        let end = zlib.total_in() + item.len() as u64;
        while zlib.total_in() < end {
            output.reserve(1 << 16);
            let done = item.len() - (end - zlib.total_in()) as usize;
            zlib.compress_vec(&item[done..], &mut output, FlushCompress::None)
                .expect("deflate");
        }
    }
    while zlib
        .compress_vec(&[], &mut output, FlushCompress::Finish)
        .expect("deflate")
        != flate2::Status::StreamEnd
    {
        output.reserve(1 << 16);
    }
    output
}
