//! Where memory is short the codec returns an error. An allocation that can't fail would end the process, and this test.

#![allow(unsafe_code, reason = "an allocator that fails when it is told to")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::num::NonZero;

use fastblets::cipher::{Decryptor, Encryptor, Key};
use fastblets::error::{Error, Result};
use fastblets::large::{Reader, Writer};
use fastblets::pickle::memo::{Entry, Memo};
use fastblets::pickle::scan::Scanner;
use fastblets::pickle::write;
use fastblets::seal::{Kind, Sealer};
use fastblets::zlib::{Deflate, Inflate, Sharing};
use fastblets::{inspect, key};

const KEY: [u8; 16] = *b"0123456789abcdef";
const IV: [u8; 16] = *b"an unlikely iv..";

/// Which allocations of this thread fail: so many succeed first.
#[derive(Clone, Copy)]
enum Fails {
    None,
    One { after: usize },
    All { after: usize },
}

thread_local! {
    static FAILS: Cell<Fails> = const { Cell::new(Fails::None) };
    static FAILED: Cell<bool> = const { Cell::new(false) };
    /// Smaller allocations don't fail.
    static LEAST: Cell<usize> = const { Cell::new(0) };
}

struct Failing;

#[global_allocator]
static ALLOCATOR: Failing = Failing;

impl Failing {
    fn fails(size: usize) -> bool {
        if size < LEAST.get() {
            return false;
        }
        let (fails, next) = match FAILS.get() {
            Fails::None => (false, Fails::None),
            Fails::One { after: 0 } => (true, Fails::None),
            Fails::One { after } => (false, Fails::One { after: after - 1 }),
            Fails::All { after: 0 } => (true, Fails::All { after: 0 }),
            Fails::All { after } => (false, Fails::All { after: after - 1 }),
        };
        FAILS.set(next);
        FAILED.set(fails || FAILED.get());
        fails
    }
}

// SAFETY: the system's allocator, which may fail at any time, too.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if Self::fails(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Self::fails(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if Self::fails(size) {
            return std::ptr::null_mut();
        }
        // SAFETY: as the caller promised.
        unsafe { System.realloc(place, layout, size) }
    }
}

/// Runs the work with each of its allocations failing, alone and with all after it, until there is none left to fail.
fn check<T: PartialEq + std::fmt::Debug>(work: impl Fn() -> Result<T>) {
    let expected = work();
    assert!(expected.is_ok());
    let kinds: [fn(usize) -> Fails; 2] = [|after| Fails::One { after }, |after| Fails::All { after }];
    for kind in kinds {
        for after in 0.. {
            FAILED.set(false);
            FAILS.set(kind(after));
            let result = work();
            FAILS.set(Fails::None);
            if !FAILED.get() {
                assert_eq!(result, expected);
                assert!(after > 0, "nothing was allocated");
                break;
            }
            // Where it was no more than a try, the result is right.
            assert!(result == Err(Error::Memory) || result == expected);
        }
    }
}

/// Bytes that don't compress well, as lines.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        b'0' + (state >> 60) as u8
    };
    (0..size).map(|_| next()).collect()
}

/// Pickles of all kinds of lengths, longer than two chunks together.
fn items() -> Vec<Vec<u8>> {
    [0, 1, 100, 70_000, 1_100_000, 1_200_000, 10].map(noise).to_vec()
}

fn write(compress: bool, encrypt: bool) -> Result<Vec<Vec<u8>>> {
    let key = Key::new(&KEY)?;
    let mut writer = Writer::new(compress, encrypt.then_some((key, IV)))?;
    // The chunks are the caller's, who has memory here.
    let mut chunks = Vec::new();
    let mut take = |writer: &mut Writer| {
        with_memory(|| chunks.extend(writer.cutter().full_chunks().map(<[u8]>::to_vec)));
        writer.cutter().drop_full_chunks();
    };
    for item in with_memory(items) {
        let pickle = writer.pickle();
        pickle.try_reserve(item.len()).map_err(|_| Error::Memory)?;
        pickle.extend_from_slice(&item);
        writer.end_pickle()?;
        take(&mut writer);
    }
    writer.finish()?;
    take(&mut writer);
    let last = writer.cutter().last_chunk();
    chunks.extend(with_memory(|| last.map(<[u8]>::to_vec)));
    Ok(chunks)
}

/// Does what isn't the codec's.
fn with_memory<T>(work: impl FnOnce() -> T) -> T {
    let fails = FAILS.replace(Fails::None);
    let result = work();
    FAILS.set(fails);
    result
}

fn read(chunks: &[Vec<u8>], compressed: bool, encrypted: bool) -> Result<Vec<u8>> {
    let key = Key::new(&KEY)?;
    let chunks = with_memory(|| chunks.iter().collect());
    let mut reader = Reader::new(chunks, compressed, encrypted.then_some(key))?;
    let mut output = Vec::new();
    while reader.read(&mut output, 100_000)? {}
    Ok(output)
}

#[test]
fn large_entries() {
    for (compress, encrypt) in [(false, false), (true, false), (false, true), (true, true)] {
        // The last stream's memory serves the next: here it is in use.
        let mut other = Deflate::default();
        other.write(b"x", &mut Vec::new()).unwrap();
        check(|| write(compress, encrypt));
        drop(other);
        let chunks = write(compress, encrypt).unwrap();
        assert!(chunks.len() > 1);
        check(|| read(&chunks, compress, encrypt));
    }
}

#[test]
fn a_stream_that_has_failed_does_not_go_on() {
    let mut writer = Writer::new(true, None).unwrap();
    writer.pickle().extend_from_slice(&noise(1_000_000));
    FAILS.set(Fails::All { after: 0 });
    let result = writer.end_pickle();
    FAILS.set(Fails::None);
    assert_eq!(result, Err(Error::Memory));
    writer.pickle().extend_from_slice(b"N.");
    assert_eq!(writer.end_pickle(), Err(Error::Memory));
    assert_eq!(writer.finish(), Err(Error::Memory));
}

#[test]
fn deflate_and_inflate() {
    // Blocks of all three kinds: of what repeats itself, of what doesn't, and a short one.
    let random: Vec<u8> = (0..100_000_u32)
        .map(|number| (number.wrapping_mul(number) >> 7) as u8)
        .collect();
    for input in [noise(200_000), random, b"abc".repeat(30_000), b"a".to_vec()] {
        check(|| deflated(&input));
    }
    let stored = deflated(b"abc").unwrap();
    check(|| {
        let mut output = [0; 10];
        let (_, given) = Inflate::default().read(&stored, &mut output)?;
        Ok((given, output))
    });
}

/// Here only what is larger than what the standard library allocates to start a thread fails: of that it can't tell.
#[test]
fn deflate_by_several_threads() {
    let sharing = Sharing {
        threads: NonZero::new(3),
        segment: 50_000,
        warm_up: 1000,
    };
    let input = noise(300_000);
    LEAST.set(4096);
    check(|| deflated_by(Deflate::new(sharing), &input));
    LEAST.set(0);
}

fn deflated(data: &[u8]) -> Result<Vec<u8>> {
    deflated_by(Deflate::default(), data)
}

fn deflated_by(mut stream: Deflate, data: &[u8]) -> Result<Vec<u8>> {
    let mut output = Vec::new();
    stream.write(data, &mut output)?;
    stream.finish(&mut output)?;
    Ok(output)
}

#[test]
fn pickles() {
    let latin1: Vec<u8> = (0..10_000_u32).map(|number| number as u8).collect();
    let ucs2: Vec<u16> = (0..10_000).map(|number| number * 5).collect();
    let ucs4: Vec<u32> = (0..10_000).map(|number| number * 50).collect();
    check(|| {
        let mut out = Vec::new();
        let mut writer = write::Writer::new(&mut out);
        writer.mark();
        for number in 0..1_000 {
            writer.none();
            writer.bool(true);
            writer.int(number);
            writer.int(number << 40);
            writer.float(number as f64 / 7.0);
            writer.float(number as f64 * 1e300);
            writer.latin1(b"short");
            writer.list();
            writer.dict();
            let number = writer.put();
            writer.get(number);
        }
        writer.latin1(&latin1);
        writer.latin1(&[b'\\'; 500]);
        writer.ucs2(&ucs2);
        writer.ucs4(&ucs4);
        writer.long(&[0x5a; 100]);
        writer.global(b"module", b"name");
        writer.tuple();
        writer.stop()?;
        Ok(out)
    });
}

#[test]
fn memo() {
    check(|| {
        let mut memo = Memo::default();
        for pickle in 0..2 {
            memo.clear()?;
            for number in 0..100_000 {
                let address = 16 * (number + pickle as usize);
                if let Entry::Vacant(vacant) = memo.entry(address) {
                    memo.put(vacant, address, number as u32)?;
                }
            }
        }
        Ok(memo.entry(16 * 5000))
    });
}

#[test]
fn keys() {
    let long = b"reviews of 17%:".repeat(30);
    check(|| key::join(Some(b"example.com"), &[&long, b"a:b", &long]));
    check(|| key::plain(key::join(None, &[&long])?, None));
    check(|| key::plain(key::join(Some(b"example.com"), &[b"sh\x7fort\xed\xa0\x80"])?, Some(100)));
    check(|| key::keyed(&key::join(None, &[&long])?, &KEY));
}

#[test]
fn cipher_and_seals() {
    let data = noise(5_000);
    check(|| {
        let mut output = Vec::new();
        Decryptor::new(Key::new(&KEY)?, IV).apply(&data, &mut output)?;
        Encryptor::new(Key::new(&KEY)?, IV).apply(&mut output);
        Ok(output)
    });

    // A seal takes no memory at all.
    FAILS.set(Fails::All { after: 0 });
    let seals = Sealer::new(Some(&KEY), b"full key").map(|sealer| {
        let chunk = sealer.chunk(IV, 0, true, b"", &data);
        let trailer = sealer.trailer(Kind::Value, &data);
        let checked = sealer.check_chunks(&[data.as_slice()], &[&chunk[..]], b"");
        let value = sealer.check(Kind::Value, &data, &trailer[4..]);
        (checked, value)
    });
    FAILS.set(Fails::None);
    assert_eq!(seals, Ok((Ok(()), Ok(()))));
}

#[test]
fn scanner() {
    let deep = [b"(".repeat(1_000), b"t".repeat(1_000), b".".to_vec()].concat();
    let mut memo = b"\x80\x04".to_vec();
    for _ in 0..1_000 {
        memo.extend(b"\x8c\x02io\x940");
    }
    memo.extend(b"N.");
    for pickle in [deep, memo] {
        check(|| Scanner::new().scan(&pickle));
    }
    check(|| {
        let mut names = Vec::new();
        Scanner::new().scan_with(b"cmodule\nname\n.", |_| {
            names.try_reserve(1).map_err(|_| Error::Memory)?;
            names.push(());
            // Elements without a size take no memory.
            let mut bytes: Vec<u8> = Vec::new();
            bytes.try_reserve(1).map_err(|_| Error::Memory)
        })?;
        Ok(names)
    });
}

/// Of what is shown to people, all that grows with the data.
#[test]
fn inspection() {
    let pickles = [
        b"(lp0\n".to_vec(),
        b"I1\na(dp1\nVa\np2\nI3\nsa".repeat(3_000),
        b".".to_vec(),
    ]
    .concat();
    let chunks = [&pickles[..10_000], &pickles[10_000..]];
    let found = inspect::inspect(&chunks, None, None, 0).unwrap();
    assert_eq!((found.count, found.damage), (1, None));
    check(|| inspect::inspect(&chunks, None, None, 0));
    let compressed = deflated(&pickles).unwrap();
    check(|| inspect::inspect(&[&compressed], None, None, 0));
}
