//! The codec's rooms, each beside a rival or a naive model whose answer is the same: `cargo bench`.
//!
//! What only Python can run, pyca's OpenSSL for one, is compared in `memoize.py`.

#![allow(clippy::unwrap_used, reason = "a benchmark may panic")]
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::hash::BuildHasher;
use std::hint::black_box;
use std::io::{Read, Write};

use aes::Aes128;
use aes::cipher::{Array, BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main, measurement};
use fastblets::chunk::{CHUNK_SIZE, Cutter};
use fastblets::cipher::{Decryptor, Encryptor, Key};
use fastblets::large::{Reader, Writer};
use fastblets::pickle::key_cache::KeyCache;
use fastblets::pickle::memo::{Entry, Memo};
use fastblets::pickle::read::{Token, Tokens};
use fastblets::pickle::scan::Scanner;
use fastblets::pickle::write::Writer as PickleWriter;
use fastblets::zlib::{Deflate, Inflate};
use fastblets::{key, zlib};
use hashbrown::{DefaultHashBuilder, HashMap, hash_map};
use rustc_hash::FxBuildHasher;

type Group<'a> = BenchmarkGroup<'a, measurement::WallTime>;

const KEY: [u8; 16] = *b"0123456789abcdef";
const IV: [u8; 16] = *b"an unlikely iv..";
const MEGABYTE: usize = 1_000_000;
const MODES: [(&str, bool, bool); 4] = [
    ("plain", false, false),
    ("compressed", true, false),
    ("plain+encrypted", false, true),
    ("compressed+encrypted", true, true),
];

/// At least so many bytes of whole pickles: dicts that are alike but never the same.
fn records(size: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(size + 100);
    for number in 0_u64.. {
        if data.len() >= size {
            break;
        }
        let score = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        write!(
            data,
            "(dp0\nVid\np1\nI{number}\nsVemail\np2\nVuser{number}@example.com\np3\nsVscore\np4\nI{score}\ns."
        )
        .unwrap();
    }
    data
}

fn group<'a>(criterion: &'a mut Criterion, name: &str, bytes: usize) -> Group<'a> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(bytes as u64));
    // The slow ones take a tenth of a second each.
    group.sample_size(20);
    group
}

/// Benches several ways to the same answer, which the first of them gives.
fn compare<const N: usize, T: PartialEq>(group: &mut Group<'_>, input: &str, ways: [(&str, &dyn Fn() -> T); N]) {
    let [(_, first), ..] = ways.as_slice() else { return };
    let answer = first();
    for (name, way) in ways {
        assert!(way() == answer, "{name} gives another answer");
        group.bench_function(BenchmarkId::new(name, input), |bencher| bencher.iter(way));
    }
}

fn encrypt(data: &[u8]) -> Vec<u8> {
    let mut output = data.to_vec();
    Encryptor::new(Key::new(&KEY).unwrap(), IV).apply(&mut output);
    output
}

fn decrypt(data: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    Decryptor::new(Key::new(&KEY).unwrap(), IV)
        .apply(data, &mut output)
        .unwrap();
    output
}

fn encrypt_with_crate(data: &[u8]) -> Vec<u8> {
    let mut output = data.to_vec();
    cfb8::Encryptor::<Aes128>::new(&KEY.into(), &IV.into()).encrypt_blocks(Array::slice_as_chunks_mut(&mut output).0);
    output
}

fn decrypt_with_crate(data: &[u8]) -> Vec<u8> {
    let mut output = data.to_vec();
    cfb8::Decryptor::<Aes128>::new(&KEY.into(), &IV.into()).decrypt_blocks(Array::slice_as_chunks_mut(&mut output).0);
    output
}

fn cipher(criterion: &mut Criterion) {
    for size in [30, 4096, MEGABYTE] {
        let plain = &records(size)[..size];
        let encrypted = encrypt(plain);
        assert!(decrypt(&encrypted) == plain);
        let input = size.to_string();

        compare(
            &mut group(criterion, "cipher encrypt", size),
            &input,
            [
                ("fastblets", &|| encrypt(plain)),
                ("cfb8", &|| encrypt_with_crate(plain)),
            ],
        );
        compare(
            &mut group(criterion, "cipher decrypt", size),
            &input,
            [
                ("fastblets", &|| decrypt(&encrypted)),
                ("cfb8", &|| decrypt_with_crate(&encrypted)),
            ],
        );
    }
}

fn deflate(data: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    let mut stream = Deflate::default();
    stream.write(data, &mut output).unwrap();
    stream.finish(&mut output).unwrap();
    output
}

fn deflate_with_flate2(data: &[u8]) -> Vec<u8> {
    let mut stream = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
    stream.write_all(data).unwrap();
    stream.finish().unwrap()
}

fn inflate(data: &[u8], size: usize) -> Vec<u8> {
    let mut stream = Inflate::default();
    let mut output = vec![0; size];
    let (mut taken, mut given) = (0, 0);
    while !stream.ended() {
        let (read, written) = stream.read(&data[taken..], &mut output[given..]).unwrap();
        (taken, given) = (taken + read, given + written);
    }
    output
}

fn inflate_with_flate2(data: &[u8], size: usize) -> Vec<u8> {
    let mut output = Vec::with_capacity(size);
    flate2::read::ZlibDecoder::new(data).read_to_end(&mut output).unwrap();
    output
}

fn zlib_streams(criterion: &mut Criterion) {
    let plain = records(MEGABYTE);
    let compressed = deflate(&plain);

    compare(
        &mut group(criterion, "zlib deflate", plain.len()),
        "records",
        [
            ("fastblets", &|| deflate(&plain)),
            ("flate2", &|| deflate_with_flate2(&plain)),
        ],
    );
    compare(
        &mut group(criterion, "zlib inflate", plain.len()),
        "records",
        [
            ("fastblets", &|| inflate(&compressed, plain.len())),
            ("flate2", &|| inflate_with_flate2(&compressed, plain.len())),
        ],
    );
}

/// Keys by the book: everything formatted, a piece at a time.
fn naive_join(prefix: &str, parts: &[&str]) -> Vec<u8> {
    let escaped = parts.iter().map(|part| part.replace('%', "%25").replace(':', "%3A"));
    std::iter::once(prefix.to_owned())
        .chain(escaped)
        .collect::<Vec<_>>()
        .join(":")
        .into_bytes()
}

fn naive_plain(joined: &str) -> String {
    use sha2::Digest;

    let escaped: String = joined
        .chars()
        .map(|c| match c {
            '\0'..=' ' | '\x7f' => format!("\\x{:02x}", u32::from(c)),
            _ => c.to_string(),
        })
        .collect();
    if escaped.chars().count() <= key::MAX_KEY_SIZE {
        return escaped;
    }
    let digest: String = sha2::Sha256::digest(&escaped)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let kept: String = escaped.chars().take(key::MAX_KEY_SIZE - digest.len()).collect();
    kept + &digest
}

fn naive_keyed(joined: &[u8]) -> String {
    use hmac::{KeyInit, Mac};

    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&KEY).unwrap();
    mac.update(joined);
    mac.finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn keys(criterion: &mut Criterion) {
    let parts = ["reviews", "user:17", "100%"];
    let bytes = parts.map(str::as_bytes);
    let size = parts.concat().len();
    compare(
        &mut group(criterion, "key join", size),
        "sequence",
        [
            ("fastblets", &|| {
                key::join(Some(b"example.com"), black_box(&bytes)).unwrap()
            }),
            ("naive", &|| naive_join("example.com", black_box(&parts))),
        ],
    );

    let long = "reviews/".repeat(50);
    for (input, text) in [
        ("short", "example.com:reviews:17"),
        ("with spaces", "example.com:my reviews of 17"),
        ("long", &long),
    ] {
        compare(
            &mut group(criterion, "key plain", text.len()),
            input,
            [
                ("fastblets", &|| key::plain(black_box(text).into(), None).unwrap()),
                ("naive", &|| naive_plain(black_box(text))),
            ],
        );
    }

    let joined = b"example.com:reviews:17";
    compare(
        &mut group(criterion, "key keyed", joined.len()),
        "short",
        [
            ("fastblets", &|| key::keyed(black_box(joined), &KEY).unwrap()),
            ("naive", &|| naive_keyed(black_box(joined))),
        ],
    );
}

/// The chunks of pieces, as a writer gets them.
fn cut(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut cutter = Cutter::default();
    let mut chunks = Vec::new();
    for piece in pieces {
        cutter.input().extend_from_slice(piece);
        chunks.extend(cutter.full_chunks().map(<[u8]>::to_vec));
        cutter.drop_full_chunks();
    }
    chunks.extend(cutter.last_chunk().map(<[u8]>::to_vec));
    chunks
}

fn cut_at_once(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    pieces.concat().chunks(CHUNK_SIZE).map(<[u8]>::to_vec).collect()
}

fn chunks(criterion: &mut Criterion) {
    let data = records(8 * MEGABYTE);
    for (input, size) in [("pieces of 200 bytes", 200), ("one piece", data.len())] {
        let pieces: Vec<&[u8]> = data.chunks(size).collect();
        compare(
            &mut group(criterion, "chunk", data.len()),
            input,
            [("fastblets", &|| cut(&pieces)), ("naive", &|| cut_at_once(&pieces))],
        );
    }
}

fn write(items: &[&[u8]], compress: bool, key: Option<Key<'_>>) -> Vec<Vec<u8>> {
    let mut writer = Writer::new(compress, key.map(|key| (key, IV))).unwrap();
    let mut chunks = Vec::new();
    let mut take = |cutter: &mut Cutter| {
        chunks.extend(cutter.full_chunks().map(<[u8]>::to_vec));
        cutter.drop_full_chunks();
    };
    for item in items {
        writer.pickle().extend_from_slice(item);
        writer.end_pickle().unwrap();
        take(writer.cutter());
    }
    writer.finish().unwrap();
    take(writer.cutter());
    chunks.extend(writer.cutter().last_chunk().map(<[u8]>::to_vec));
    chunks
}

/// The same by the rooms themselves, one after the other.
fn write_in_steps(items: &[&[u8]], compress: bool, encrypted: bool) -> Vec<Vec<u8>> {
    let mut stream = Vec::new();
    if compress {
        let mut deflate = zlib::Deflate::default();
        for item in items {
            deflate.write(item, &mut stream).unwrap();
        }
        deflate.finish(&mut stream).unwrap();
    } else {
        stream = items.concat();
    }
    if encrypted {
        stream = [&IV, encrypt(&stream).as_slice()].concat();
    }
    cut_at_once(&[&stream])
}

fn read(chunks: &[Vec<u8>], compressed: bool, key: Option<Key<'_>>) -> Vec<u8> {
    let chunks = chunks.iter().map(Vec::as_slice).collect();
    let mut reader = Reader::new(chunks, compressed, key).unwrap();
    let mut output = Vec::new();
    while reader.read(&mut output, CHUNK_SIZE).unwrap() {}
    output
}

fn large(criterion: &mut Criterion) {
    let data = records(8 * MEGABYTE);
    let items: Vec<&[u8]> = data.chunks(200).collect();
    let key = Key::new(&KEY).unwrap();

    for (mode, compress, encrypted) in MODES {
        let key = encrypted.then_some(key);
        let chunks = write(&items, compress, key);
        compare(
            &mut group(criterion, "large write", data.len()),
            mode,
            [
                ("fastblets", &|| write(&items, compress, key)),
                ("in steps", &|| write_in_steps(&items, compress, encrypted)),
            ],
        );
        compare(
            &mut group(criterion, "large read", data.len()),
            mode,
            [
                ("fastblets", &|| read(&chunks, compress, key)),
                ("the answer, copied", &|| data.clone()),
            ],
        );
    }
}

fn scan(mut data: &[u8]) -> usize {
    let mut scanner = Scanner::new();
    let mut pickles = 0;
    while let Some(size) = scanner.scan(data).unwrap() {
        scanner.reset();
        data = &data[size..];
        pickles += 1;
    }
    pickles
}

/// What the reader does before it makes any object.
fn read_tokens(mut data: &[u8]) -> usize {
    let mut pickles = 0;
    while !data.is_empty() {
        let mut tokens = Tokens::new(data);
        while tokens.next_token().unwrap() != Token::Stop {}
        data = &data[tokens.consumed()..];
        pickles += 1;
    }
    pickles
}

/// For these pickles it happens to be right.
fn count_stops(data: &[u8]) -> usize {
    data.split(|&byte| byte == b'\n')
        .filter(|line| line.starts_with(b"s."))
        .count()
}

fn pickles(criterion: &mut Criterion) {
    let data = records(MEGABYTE);
    compare(
        &mut group(criterion, "pickle", data.len()),
        "records",
        [
            ("scan", &|| scan(&data)),
            ("tokens", &|| read_tokens(&data)),
            ("naive", &|| count_stops(&data)),
        ],
    );
}

fn write_ints(numbers: &[i64]) -> Vec<u8> {
    let mut output = Vec::new();
    let mut writer = PickleWriter::new(&mut output);
    for &number in numbers {
        writer.int(number);
    }
    output
}

fn write_ints_with_itoa(numbers: &[i64]) -> Vec<u8> {
    let mut output = Vec::new();
    let mut digits = itoa::Buffer::new();
    for &number in numbers {
        let (opcode, end): (_, &[u8]) = match i32::try_from(number) {
            Ok(_) => (b'I', b"\n"),
            Err(_) => (b'L', b"L\n"),
        };
        output.push(opcode);
        output.extend_from_slice(digits.format(number).as_bytes());
        output.extend_from_slice(end);
    }
    output
}

fn ints(criterion: &mut Criterion) {
    let random = |number: i64| number.wrapping_mul(0x1e37_79b9_7f4a_7c15);
    let of_bits = |bits: i64| (0..10_000).map(move |number| random(number) >> (64 - bits)).collect();
    let inputs: [(_, Vec<i64>); 4] = [
        ("counting", (0..10_000).collect()),
        ("16 bits", of_bits(16)),
        ("32 bits", of_bits(32)),
        ("64 bits", of_bits(64)),
    ];
    for (input, numbers) in &inputs {
        compare(
            &mut group(criterion, "pickle ints", 8 * numbers.len()),
            input,
            [
                ("fastblets", &|| write_ints(black_box(numbers))),
                ("itoa", &|| write_ints_with_itoa(black_box(numbers))),
            ],
        );
    }
}

/// Looks addresses up in the memo of one pickle after the other, and puts those in that are new. Returns the sum of the memo
/// numbers.
fn memoize(pickles: &[Vec<usize>]) -> u64 {
    let mut memo = Memo::default();
    let mut sum = 0;
    for addresses in pickles {
        memo.clear().unwrap();
        let mut next = 0;
        for &address in addresses {
            match memo.entry(address) {
                Entry::Number(number) => sum += u64::from(number),
                Entry::Vacant(vacant) => {
                    memo.put(vacant, address, next).unwrap();
                    next += 1;
                }
            }
        }
    }
    sum
}

fn memoize_with<S: Default + BuildHasher>(pickles: &[Vec<usize>]) -> u64 {
    let mut memo = HashMap::<usize, u32, S>::default();
    let mut sum = 0;
    for addresses in pickles {
        memo.clear();
        for &address in addresses {
            let next = memo.len() as u32;
            match memo.entry(address) {
                hash_map::Entry::Occupied(number) => sum += u64::from(*number.get()),
                hash_map::Entry::Vacant(vacant) => {
                    vacant.insert(next);
                }
            }
        }
    }
    sum
}

fn memo(criterion: &mut Criterion) {
    // Objects that were made one after the other, of 48 to 112 bytes; every fourth one comes again.
    let addresses = |count: usize| {
        (0..count)
            .map(|number| 0x7f00_0000_0000 + if number % 4 == 3 { number / 2 } else { number } * 80 / 16 * 16)
            .collect::<Vec<_>>()
    };
    for (input, pickles) in [
        ("1,000 pickles of 20 objects", vec![addresses(20); 1000]),
        ("a pickle of 100,000 objects", vec![addresses(100_000)]),
    ] {
        compare(
            &mut group(criterion, "pickle memo", pickles.len() * pickles[0].len() * 8),
            input,
            [
                ("fastblets", &|| memoize(black_box(&pickles))),
                ("hashbrown, foldhash", &|| {
                    memoize_with::<DefaultHashBuilder>(black_box(&pickles))
                }),
                ("hashbrown, rustc-hash", &|| {
                    memoize_with::<FxBuildHasher>(black_box(&pickles))
                }),
            ],
        );
    }
}

/// Looks all keys up, once in each of many pickles. Returns the sum of the places where they are.
fn find_keys(keys: &[&[u8]]) -> usize {
    let mut cache = KeyCache::<usize>::default();
    let mut sum = 0;
    for _ in 0..500 {
        cache.next_pickle();
        for (place, &key) in keys.iter().enumerate() {
            match cache.find(key, |&place| keys[place] == key) {
                Some(place) => sum += place,
                None => cache.insert(key, || place, |&place| keys[place] == key),
            }
        }
    }
    sum
}

fn find_keys_with<S: Default + BuildHasher>(keys: &[&[u8]]) -> usize {
    let mut cache = HashMap::<&[u8], (usize, u32), S>::default();
    let mut sum = 0;
    for pickle in 0..500 {
        for (place, &key) in keys.iter().enumerate() {
            match cache.get_mut(key) {
                Some((place, last)) if *last != pickle => {
                    *last = pickle;
                    sum += *place;
                }
                // The first pickle may be the only one.
                _ => {
                    if pickle > 0 {
                        cache.insert(key, (place, pickle));
                    }
                }
            }
        }
    }
    sum
}

fn key_cache(criterion: &mut Criterion) {
    let keys: [&[u8]; 12] = [
        b"id",
        b"name",
        b"email",
        b"is_active",
        b"date_joined",
        b"last_login",
        b"display_name_html",
        b"profile_url",
        b"groups",
        b"review_requests_count",
        b"avatar_urls",
        b"timezone",
    ];
    compare(
        &mut group(criterion, "pickle keys", 500 * keys.concat().len()),
        "of a user",
        [
            ("fastblets", &|| find_keys(black_box(&keys))),
            ("hashbrown, foldhash", &|| {
                find_keys_with::<DefaultHashBuilder>(black_box(&keys))
            }),
            ("hashbrown, rustc-hash", &|| {
                find_keys_with::<FxBuildHasher>(black_box(&keys))
            }),
        ],
    );
}

criterion_group!(
    rooms,
    cipher,
    zlib_streams,
    keys,
    chunks,
    large,
    pickles,
    ints,
    memo,
    key_cache
);
criterion_main!(rooms);
