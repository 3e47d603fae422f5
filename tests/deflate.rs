//! Our deflate against stock zlib, byte for byte. `FASTBLETS_FUZZ=N` tries N times as many inputs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use std::num::NonZero;
use std::time::{Duration, Instant};

use fastblets::zlib::{Deflate, Sharing};
use flate2::{Compress, Compression, FlushCompress, Status};
use proptest::prelude::*;

/// Stock zlib, as CPython's `compressobj()` calls it: one call a piece.
fn model(data: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut zlib = Compress::new(Compression::new(6), true);
    let mut output = Vec::new();
    for piece in pieces(data, cuts) {
        let end = zlib.total_in() + piece.len() as u64;
        while output.len() == output.capacity() || zlib.total_in() < end {
            output.reserve(1 << 16);
            let rest = &piece[piece.len() - (end - zlib.total_in()) as usize..];
            zlib.compress_vec(rest, &mut output, FlushCompress::None).unwrap();
        }
    }
    while zlib.compress_vec(&[], &mut output, FlushCompress::Finish).unwrap() != Status::StreamEnd {
        output.reserve(1 << 16);
    }
    output
}

fn ours(data: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut deflate = Deflate::default();
    let mut output = Vec::new();
    for piece in pieces(data, cuts) {
        deflate.write(piece, &mut output).unwrap();
    }
    deflate.finish(&mut output).unwrap();
    output
}

/// With several threads, and the pieces in batches of at most this many bytes, unless one is longer.
fn shared(data: &[u8], cuts: &[usize], sharing: Sharing, batch: usize) -> Vec<u8> {
    let mut deflate = Deflate::new(sharing);
    let mut output = Vec::new();
    let (mut start, mut end, mut ends) = (0, 0, Vec::new());
    let mut told = 0;
    let mut write = |bytes: &[u8], ends: &[usize], output: &mut Vec<u8>| {
        let written = |output: &mut Vec<u8>| {
            assert!(output.len() >= told);
            told = output.len();
        };
        deflate.write_pieces(bytes, ends, output, written).unwrap();
    };
    for piece in pieces(data, cuts) {
        if end + piece.len() - start > batch {
            write(&data[start..end], &ends, &mut output);
            ends.clear();
            start = end;
        }
        end += piece.len();
        ends.push(end - start);
    }
    write(&data[start..end], &ends, &mut output);
    deflate.finish(&mut output).unwrap();
    output
}

/// Small segments, and warm-ups after which guesses are often wrong.
fn sharing(random: &mut Random) -> Sharing {
    Sharing {
        threads: NonZero::new(random.between(1, 5)),
        segment: random.between(600, 43_000),
        warm_up: [0, 30, 200, 1000, 4096][random.below(5)],
    }
}

fn pieces<'a>(data: &'a [u8], cuts: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([data.len()]);
    starts.zip(ends).map(|(start, end)| &data[start..end])
}

#[track_caller]
fn check(data: &[u8], cuts: &[usize], what: &str) {
    let (ours, model) = (ours(data, cuts), model(data, cuts));
    if ours != model {
        let at = ours.iter().zip(&model).position(|(one, other)| one != other);
        panic!("{what}: {} bytes, {} cuts, differ at {at:?}", data.len(), cuts.len());
    }
}

#[track_caller]
fn check_shared(data: &[u8], cuts: &[usize], random: &mut Random, what: &str) {
    let sharing = sharing(random);
    let batch = [1, 100_000, usize::MAX][random.below(3)];
    let (ours, model) = (shared(data, cuts, sharing, batch), model(data, cuts));
    if ours != model {
        let at = ours.iter().zip(&model).position(|(one, other)| one != other);
        panic!(
            "{what}, {sharing:?}: {} bytes, {} cuts, batches of {batch}, differ at {at:?}",
            data.len(),
            cuts.len()
        );
    }
}

/// A generator of numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn between(&mut self, start: usize, end: usize) -> usize {
        start + self.below(end - start)
    }

    /// Below `end`, and mostly small.
    fn small(&mut self, end: usize) -> usize {
        let end = self.below(end) + 1;
        self.below(end)
    }

    fn bytes(&mut self, size: usize, alphabet: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.below(alphabet) as u8)
            .take(size)
            .collect()
    }
}

type Generator = fn(&mut Random, usize) -> Vec<u8>;

const KINDS: [(&str, Generator); 12] = [
    ("random bytes", |random, size| random.bytes(size, 256)),
    ("a small alphabet", |random, size| {
        let alphabet = random.between(1, 20);
        random.bytes(size, alphabet)
    }),
    ("words", |random, size| {
        let words = vocabulary(random);
        build(size, |data| {
            data.extend_from_slice(&words[random.small(words.len())]);
            data.push(b" \n"[random.below(10) / 9]);
        })
    }),
    ("source text", |random, size| {
        let words = vocabulary(random);
        build(size, |data| {
            data.resize(data.len() + 4 * random.below(5), b' ');
            for _ in 0..random.between(1, 8) {
                data.extend_from_slice(&words[random.small(words.len())]);
                data.push(b" .=(),:"[random.below(7)]);
            }
            data.push(b'\n');
        })
    }),
    ("runs", |random, size| {
        build(size, |data| {
            let length = match random.below(4) {
                0 => random.between(1, 6),
                1 => random.between(250, 270),
                2 => random.between(510, 530),
                _ => random.small(2000),
            };
            let byte = random.below(3) as u8;
            data.resize(data.len() + length, byte);
        })
    }),
    ("far matches", |random, size| {
        let alphabet = [256, 256, 4][random.below(3)];
        let mut data = random.bytes(size.min(40_000), alphabet);
        while data.len() < size {
            let distance = match random.below(4) {
                0 => random.between(32_480, 32_540),
                1 => random.between(4_090, 4_100),
                2 => random.between(32_500, 32_510),
                _ => random.between(1, 33_000),
            };
            let length = [3, 4, 5, 17, 129, 258][random.below(6)] + random.below(3);
            copy(&mut data, distance, length);
            let gap = random.below(12);
            data.extend(random.bytes(gap, alphabet));
        }
        data
    }),
    ("copies from anywhere", |random, size| {
        let most = random.between(4, 400);
        let gap = random.between(1, 60);
        build(size, |data| {
            let gap = random.below(gap) + 1;
            data.extend(random.bytes(gap, 256));
            let distance = random.small(data.len().min(40_000)) + 1;
            let length = random.between(3, most);
            copy(data, distance, length);
        })
    }),
    ("records", |random, size| {
        let mut id = random.below(1_000_000);
        build(size, |data| {
            id += 1;
            let score = random.below(10_000_000);
            let record = format!(
                "(dp0\nVid\np1\nI{id}\nsVname\np2\nVuser {id}\np3\nsVscore\np4\nF{}\nsVtags\np5\n(lp6\nVtag{}\np7\nas.",
                score as f64 / 1000.0,
                random.below(20),
            );
            data.extend_from_slice(record.as_bytes());
        })
    }),
    ("accented HTML", |random, size| {
        let words = vocabulary(random);
        build(size, |data| {
            let word = String::from_utf8_lossy(&words[random.small(words.len())]).into_owned();
            let line = format!(
                "V<li class=\"é{}\"><a href=\"/{word}/\">naïve {word}</a></li>\\u20ac\np0\n.",
                random.below(9)
            );
            data.extend(line.chars().map(|char| char as u32 as u8));
        })
    }),
    ("a period", |random, size| {
        let period = random.small(3000) + 1;
        let mut data = random.bytes(period.min(size), 256);
        while data.len() < size {
            let length = random.small(20_000) + 1;
            copy(&mut data, period, length);
            data.push(random.below(256) as u8);
        }
        data
    }),
    ("colliding hashes", |random, size| {
        // zlib's hash sees five bits of the first byte.
        let mut data = random.bytes(size, 4);
        for byte in &mut data {
            *byte = byte.wrapping_mul(0x21);
        }
        data
    }),
    ("a mixture", |random, size| {
        let mut data = Vec::new();
        while data.len() < size {
            let kind = random.below(KINDS.len() - 1);
            let part = random.small(size) + 1;
            data.extend(KINDS[kind].1(random, part));
        }
        data
    }),
];

fn build(size: usize, mut step: impl FnMut(&mut Vec<u8>)) -> Vec<u8> {
    let mut data = Vec::new();
    while data.len() < size {
        step(&mut data);
    }
    data
}

fn vocabulary(random: &mut Random) -> Vec<Vec<u8>> {
    (0..random.between(2, 3000))
        .map(|_| {
            let length = random.between(1, 12);
            random.bytes(length, 26).iter().map(|letter| letter + b'a').collect()
        })
        .collect()
}

fn copy(data: &mut Vec<u8>, distance: usize, length: usize) {
    for _ in 0..length {
        let byte = data.len().checked_sub(distance).map_or(0, |at| data[at]);
        data.push(byte);
    }
}

/// Where a stream of this size is cut into pieces.
fn cuts(random: &mut Random, size: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = match random.below(6) {
        0 => Vec::new(),
        1 => (0..random.below(10)).map(|_| random.below(size + 1)).collect(),
        2 => {
            let step = random.small(3000) + 1;
            (0..size).step_by(step).collect()
        }
        3 => (0..size.min(2000)).collect(),
        // Around the positions at which zlib slides its window, or looks whether it should.
        4 => (1..size / 32_768 + 2)
            .flat_map(|turn| [0, 1, 261, 262, 263].map(|back| turn * 32_768 - back + random.below(3)))
            .collect(),
        _ => (1..size / 32_768 + 2)
            .map(|turn| turn * 32_768 - 262 + random.below(5) - 2)
            .collect(),
    };
    cuts.retain(|&cut| cut <= size);
    cuts.sort_unstable();
    cuts
}

fn fuzz_factor() -> usize {
    std::env::var("FASTBLETS_FUZZ")
        .ok()
        .and_then(|factor| factor.parse().ok())
        .unwrap_or(1)
}

#[test]
fn all_kinds_of_data_however_cut() {
    let mut bytes = 0;
    let inputs = 500 * fuzz_factor();
    for seed in 0..inputs {
        let random = &mut Random(seed as u64);
        let (what, generate) = KINDS[seed % KINDS.len()];
        let size = [20, 300, 5000, 70_000, 200_000, 600_000][random.below(6)];
        let size = random.below(size + 1);
        let mut data = generate(random, size);
        data.truncate(size);
        bytes += size;
        check(&data, &[], &format!("{what}, seed {seed}"));
        check(&data, &cuts(random, size), &format!("{what} in pieces, seed {seed}"));
    }
    println!("{inputs} inputs, each whole and in pieces, {} MB", bytes / 1_000_000);
}

#[test]
fn shared_between_threads() {
    let mut bytes = 0;
    let inputs = 100 * fuzz_factor();
    for seed in 0..inputs {
        let random = &mut Random(seed as u64);
        let (what, generate) = KINDS[seed % KINDS.len()];
        let size = random.between(40_000, 600_000);
        let mut data = generate(random, size);
        data.truncate(size);
        bytes += size;
        check_shared(&data, &[], random, &format!("{what}, seed {seed}"));
        let cuts = cuts(random, size);
        check_shared(&data, &cuts, random, &format!("{what} in pieces, seed {seed}"));
    }
    println!("{inputs} inputs, each whole and in pieces, {} MB", bytes / 1_000_000);
}

/// The one case where zlib's bytes depend on where the pieces end: a candidate at the largest distance, at a position
/// where the window may slide first.
#[test]
fn a_match_at_the_largest_distance_where_the_window_slides() {
    let random = &mut Random(1);
    let mut depends = 0;
    for round in 0..25 * fuzz_factor() {
        let position = 65_274 + 32_768 * random.below(4);
        let size = position + random.between(1, 800) + random.below(2) * random.below(60_000);
        let mut data = random.bytes(size, 256);
        let length = random.between(3, 300);
        for at in position..size.min(position + length) {
            data[at] = data[at - 32_506];
        }
        let around = [0, 1, 2, 261, 262, 263, 264, 300].map(|after| (position + after).min(size));
        for cut in around {
            check(&data, &[cut], &format!("round {round}"));
            let expected = model(&data, &[cut]);
            depends += usize::from(expected != model(&data, &[]));
            // Found by a helper, too, to whom the pieces are told.
            let sharing = sharing(random);
            assert!(
                shared(&data, &[cut], sharing, usize::MAX) == expected,
                "{sharing:?}, round {round}"
            );
        }
        check(&data, &around, &format!("round {round}"));
        check(
            &data[..position + 262.min(size - position)],
            &[],
            &format!("round {round}"),
        );
    }
    assert!(depends > 0, "the case did not arise");
}

#[test]
fn blocks_that_are_exactly_full() {
    const FULL: usize = 16_383;
    let random = &mut Random(2);
    // Noise without any match: as many literals as bytes.
    let mut noise = Vec::new();
    while noise.len() < 3 * FULL + 10 {
        noise.extend((noise.len() as u32).wrapping_mul(0x9e37_79b1).to_be_bytes());
    }
    for blocks in 1..=3 {
        for size in blocks * FULL - 3..=blocks * FULL + 3 {
            check(&noise[..size], &[], "noise");
            check(&noise[..size], &[size - 1, size], "noise");
        }
    }
    // The last symbol a match, or the last two.
    for size in FULL - 20..FULL + 20 {
        for tail in [3, 4, 10, 258, 300] {
            let mut data = noise[..size].to_vec();
            let distance = random.between(3, 4000);
            copy(&mut data, distance, tail);
            check(&data, &[], "noise and a match");
            data.push(b'!');
            check(&data, &[], "noise, a match and a literal");
        }
    }
}

#[test]
fn everything_short() {
    for size in 0..=600 {
        let random = &mut Random(size as u64);
        for alphabet in [1, 2, 3, 256] {
            let data = random.bytes(size, alphabet);
            let every_byte: Vec<usize> = (0..=size).collect();
            check(&data, &[], "short");
            check(&data, &every_byte, "short, byte by byte");
        }
    }
}

#[test]
fn long_streams() {
    let sizes = 4_000_000..8_000_000;
    for (seed, (what, generate)) in KINDS
        .into_iter()
        .enumerate()
        .take(if fuzz_factor() > 1 { 12 } else { 4 })
    {
        let random = &mut Random(seed as u64);
        let size = random.between(sizes.start, sizes.end);
        let data = generate(random, size);
        check(&data, &cuts(random, data.len()), what);
    }
}

/// Data that fools our finer hash, not zlib's, must not take forever.
#[test]
fn no_input_is_slow() {
    let random = &mut Random(3);
    let mut colliding = Vec::new();
    while colliding.len() < 1 << 20 {
        let word = u32::try_from(random.below(1 << 17)).unwrap().wrapping_mul(0x0e8b_2f51);
        colliding.extend(word.to_le_bytes());
    }
    let started = Instant::now();
    check(&colliding, &[], "colliding");
    assert!(started.elapsed() < Duration::from_secs(10));
}

proptest! {
    #[test]
    fn anything_in_any_pieces(
        pieces in prop::collection::vec(prop::collection::vec(0..5_u8, 0..400), 0..20),
    ) {
        let mut cuts = Vec::new();
        let mut end = 0;
        for piece in &pieces {
            end += piece.len();
            cuts.push(end);
        }
        let data = pieces.concat();
        prop_assert_eq!(ours(&data, &cuts), model(&data, &cuts));
    }
}
