//! What Djblets stored, byte for byte, from the codec alone: no Python. `tests/vectors/record.py` recorded it; and the
//! seals of fastblets, recorded by `tests/vectors/record_seals.py`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use fastblets::chunk::Cutter;
use fastblets::cipher::{self, Decryptor, Encryptor, Key};
use fastblets::key;
use fastblets::large::{Reader, Writer};
use fastblets::pickle::scan::Scanner;
use fastblets::seal::{Kind, Sealer, split};
use fastblets::zlib::{Deflate, Inflate};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn vectors(file: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(file).unwrap();
    let found = file["vectors"].as_array().unwrap().clone();
    assert!(!found.is_empty());
    found
}

fn seals(part: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(include_str!("vectors/seals.json")).unwrap();
    let found = file[part].as_array().unwrap().clone();
    assert!(!found.is_empty());
    found
}

fn texts(values: &Value) -> Vec<Vec<u8>> {
    values
        .as_array()
        .unwrap()
        .iter()
        .map(|value| unhex(text(value)))
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes in hexadecimal, where they were recorded and not only digested.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    value["hex"].as_str().map(unhex)
}

fn assert_is(data: &[u8], expected: &Value, name: &str) {
    if let Some(expected) = bytes(expected) {
        assert_eq!(hex(data), hex(&expected), "{name}");
    } else {
        assert_eq!(data.len() as u64, expected["size"].as_u64().unwrap(), "{name}");
        assert_eq!(hex(&Sha256::digest(data)), text(&expected["sha256"]), "{name}");
    }
}

/// The IVs of the recordings count from one.
fn iv(number: u8) -> [u8; 16] {
    let mut iv = [0; 16];
    iv[15] = number;
    iv
}

/// `noise()` of `tests/vectors/cases.py`, as a protocol 0 pickle.
fn noise_pickle(size: usize) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/";
    let mut state = 1_u32;
    let block: Vec<u8> = (0..1 << 16)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ALPHABET[(state >> 26) as usize]
        })
        .collect();
    let noise = block.into_iter().cycle().take(size);
    b"V".iter().copied().chain(noise).chain(*b"\np0\n.").collect()
}

fn pickle(recorded: &Value) -> Option<Vec<u8>> {
    bytes(recorded).or_else(|| recorded["noise"].as_u64().map(|size| noise_pickle(size as usize)))
}

#[test]
fn keys() {
    for vector in vectors(include_str!("vectors/keys.json")) {
        let parts: Vec<&str> = match &vector["key"] {
            Value::String(part) => vec![part],
            parts => parts.as_array().unwrap().iter().map(text).collect(),
        };
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        let joined = key::join(vector["prefix"].as_str().map(str::as_bytes), &parts).unwrap();
        let full = match bytes(&vector["secret"]) {
            Some(secret) => key::keyed(&joined, &secret).unwrap(),
            None => key::plain(joined, None).unwrap(),
        };
        assert_eq!(full, text(&vector["full"]), "{vector}");
    }
}

#[test]
fn cipher() {
    for vector in vectors(include_str!("vectors/crypto.json")) {
        let [key, plain, stored] = ["key", "plain", "encrypted"].map(|name| unhex(text(&vector[name])));
        let key = Key::new(&key).unwrap();
        let mut encrypted = plain.clone();
        Encryptor::new(key, iv(1)).apply(&mut encrypted);
        assert_eq!([&iv(1)[..], &encrypted].concat(), stored);
        let mut decrypted = Vec::new();
        let mut decryptor = Decryptor::new(key, cipher::iv(&stored[..16]).unwrap());
        decryptor.apply(&stored[16..], &mut decrypted).unwrap();
        assert_eq!(decrypted, plain);
    }
}

/// An entry of which all pickles are known.
struct Entry {
    name: String,
    compress: bool,
    secret: Option<Vec<u8>>,
    pickles: Vec<Vec<u8>>,
    chunks: Vec<Value>,
    /// The main key's value.
    last: Value,
}

fn entries(large: bool) -> Vec<Entry> {
    let files = [include_str!("vectors/entries.json"), include_str!("vectors/wider.json")];
    let found: Vec<Entry> = files
        .into_iter()
        .flat_map(vectors)
        .filter(|vector| vector["large"].as_bool() == Some(large))
        .filter_map(|vector| {
            let mut stored = vector["stored"].as_array().unwrap().clone();
            Some(Entry {
                name: text(&vector["name"]).to_owned(),
                compress: vector["compress"].as_bool().unwrap(),
                secret: bytes(&vector["secret"]),
                pickles: vector["pickles"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(pickle)
                    .collect::<Option<_>>()?,
                last: stored.pop().unwrap(),
                chunks: stored.into_iter().map(|entry| entry["chunk"].clone()).collect(),
            })
        })
        .collect();
    assert!(found.len() > 10);
    found
}

impl Entry {
    fn key(&self) -> Option<Key<'_>> {
        self.secret.as_ref().map(|secret| Key::new(secret).unwrap())
    }

    fn write(&self) -> Vec<Vec<u8>> {
        let key = self.key();
        let mut writer = Writer::new(self.compress, key.map(|key| (key, iv(1)))).unwrap();
        let mut chunks: Vec<Vec<u8>> = Vec::new();
        let mut take = |cutter: &mut Cutter| {
            chunks.extend(cutter.full_chunks().map(<[u8]>::to_vec));
            cutter.drop_full_chunks();
        };
        for pickle in &self.pickles {
            writer.pickle().extend_from_slice(pickle);
            writer.end_pickle().unwrap();
            take(writer.cutter());
        }
        writer.finish().unwrap();
        take(writer.cutter());
        chunks.extend(writer.cutter().last_chunk().map(<[u8]>::to_vec));
        chunks
    }
}

#[test]
fn pipe() {
    for entry in entries(true) {
        let chunks = entry.write();
        assert_eq!(chunks.len(), entry.chunks.len(), "{}", entry.name);
        for (chunk, expected) in chunks.iter().zip(&entry.chunks) {
            assert_is(chunk, expected, &entry.name);
        }

        let mut reader = Reader::new(chunks, entry.compress, entry.key()).unwrap();
        let mut pickles = Vec::new();
        while reader.read(&mut pickles, 100_000).unwrap() {}
        assert!(pickles == entry.pickles.concat(), "{}", entry.name);
    }
}

#[test]
fn counts_and_small_values() {
    let encrypted = |secret: &[u8], pickle: &[u8], number: u8| {
        let mut data = pickle.to_vec();
        Encryptor::new(Key::new(secret).unwrap(), iv(number)).apply(&mut data);
        [&iv(number)[..], &data].concat()
    };
    for entry in entries(true) {
        let count = entry.chunks.len().to_string();
        match &entry.secret {
            Some(secret) => {
                let pickle = format!("V{count}\np0\n.");
                // The stream had the first IV.
                assert_is(
                    &encrypted(secret, pickle.as_bytes(), 2),
                    &entry.last["bytes"],
                    &entry.name,
                );
            }
            None => assert_eq!(text(&entry.last["count"]), count, "{}", entry.name),
        }
    }
    for entry in entries(false) {
        if let Some(secret) = &entry.secret {
            let stored = encrypted(secret, &entry.pickles[0], 1);
            assert_is(&stored, &entry.last["bytes"], &entry.name);
            // Nothing else that CPython writes may be found there.
            let end = Scanner::as_written().scan(&entry.pickles[0]);
            assert_eq!(end, Ok(Some(entry.pickles[0].len())), "{}", entry.name);
        }
    }
}

#[test]
fn seals_of_chunks() {
    for vector in seals("chunks") {
        let sealer = Sealer::new(bytes(&vector["secret"]).as_deref(), &unhex(text(&vector["full_key"]))).unwrap();
        let write_id = unhex(text(&vector["write_id"])).try_into().unwrap();
        let [chunks, seals] = ["chunks", "seals"].map(|name| texts(&vector[name]));
        for (index, (chunk, seal)) in chunks.iter().zip(&seals).enumerate() {
            let made = sealer.chunk(write_id, index, index + 1 == chunks.len(), b"", chunk);
            assert_eq!(hex(&made), hex(seal), "{vector}");
        }
        assert_eq!(sealer.check_chunks(&chunks, &seals, b""), Ok(()));
    }
}

#[test]
fn seals_of_pickles() {
    for vector in seals("pickles") {
        let sealer = Sealer::new(bytes(&vector["secret"]).as_deref(), &unhex(text(&vector["full_key"]))).unwrap();
        let [pickle, sealed] = ["pickle", "sealed"].map(|name| unhex(text(&vector[name])));
        let kind = if text(&vector["kind"]) == "count" {
            Kind::Count
        } else {
            Kind::Value
        };
        let mut made = pickle.clone();
        made.extend(sealer.trailer(kind, &pickle));
        assert_eq!(hex(&made), hex(&sealed), "{vector}");
        assert_eq!(split(&sealed).0, pickle);
        assert_eq!(sealer.check(kind, &pickle, split(&sealed).1.unwrap()), Ok(()));
    }
}

#[test]
fn sealed_entries() {
    for vector in seals("entries") {
        let aes_key = bytes(&vector["aes_key"]);
        let secret = aes_key.clone().or_else(|| bytes(&vector["seal_key"]));
        let mut stored = vector["stored"].as_array().unwrap().clone();
        let main = stored.pop().unwrap();
        let sealer = Sealer::new(secret.as_deref(), text(&main["key"]).as_bytes()).unwrap();
        let is_large = vector["large"].as_bool().unwrap();
        if is_large {
            let [chunks, seals] = [0, 1].map(|part| {
                stored
                    .iter()
                    .map(|entry| unhex(text(&entry["value"][part])))
                    .collect::<Vec<_>>()
            });
            assert_eq!(sealer.check_chunks(&chunks, &seals, b""), Ok(()), "{vector}");
        }
        let Some(aes_key) = aes_key else { continue };
        let encrypted = bytes(&main["value"]).unwrap();
        let mut data = Vec::new();
        let mut decryptor = Decryptor::new(Key::new(&aes_key).unwrap(), cipher::iv(&encrypted[..16]).unwrap());
        decryptor.apply(&encrypted[16..], &mut data).unwrap();
        let (pickle, tag) = split(&data);
        let kind = if is_large { Kind::Count } else { Kind::Value };
        assert_eq!(sealer.check(kind, pickle, tag.unwrap()), Ok(()), "{vector}");
    }
}

#[test]
fn zlib() {
    for entry in entries(true)
        .iter()
        .filter(|entry| entry.compress && entry.secret.is_none())
    {
        let mut deflate = Deflate::default();
        let mut compressed = Vec::new();
        for pickle in &entry.pickles {
            deflate.write(pickle, &mut compressed).unwrap();
        }
        deflate.finish(&mut compressed).unwrap();
        if let [chunk] = &entry.chunks[..] {
            assert_is(&compressed, chunk, &entry.name);
        }

        let pickles = entry.pickles.concat();
        let mut output = vec![0; pickles.len() + 1];
        let (read, written) = Inflate::default().read(&compressed, &mut output).unwrap();
        assert_eq!((read, written), (compressed.len(), pickles.len()), "{}", entry.name);
        assert!(output[..written] == pickles, "{}", entry.name);
    }
}
