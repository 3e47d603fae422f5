//! Seals: what was sealed is accepted, and nothing else is, whatever has become of it.
#![no_main]

use fastblets::seal::{Kind, Sealer, split};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Option<&[u8]>, &[u8], [u8; 16], Vec<&[u8]>, &[u8], &[u8], u16, u8)| {
    let (secret, full_key, write_id, chunks, record, data, at, with) = input;
    let record_of = |last| if last { record } else { b"" };
    let sealer = Sealer::new(secret, full_key).expect("any secret makes a key");

    let last = chunks.len().wrapping_sub(1);
    let mut seals: Vec<Vec<u8>> = chunks
        .iter()
        .enumerate()
        .map(|(index, chunk)| sealer.chunk(write_id, index, index == last, record_of(index == last), chunk).to_vec())
        .collect();
    let mut stored: Vec<Vec<u8>> = chunks.iter().map(|chunk| chunk.to_vec()).collect();
    assert_eq!(sealer.check_chunks(&stored, &seals, record).is_ok(), !chunks.is_empty());
    let mut bytes = seals.iter_mut().chain(&mut stored).flatten();
    if let Some(byte) = bytes.nth(at.into()) {
        *byte ^= with;
        assert_eq!(sealer.check_chunks(&stored, &seals, record).is_ok(), with == 0);
    }

    let (pickle, tag) = split(data);
    assert!(data.starts_with(pickle));
    if let Some(tag) = tag {
        // A fuzzer that watches comparisons finds a true seal sooner or later: without a secret anybody can make one.
        let sealed = [pickle, &sealer.trailer(Kind::Value, pickle)].concat();
        assert_eq!(sealer.check(Kind::Value, pickle, tag).is_ok(), sealed == data);
    }
    let sealed = [data, &sealer.trailer(Kind::Count, data)].concat();
    let (pickle, tag) = split(&sealed);
    assert_eq!(pickle, data);
    let tag = tag.expect("it was sealed");
    assert!(sealer.check(Kind::Count, pickle, tag).is_ok());
    assert!(sealer.check(Kind::Value, pickle, tag).is_err());
});
