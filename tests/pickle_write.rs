//! Pickles of plain values, as a reader sees them that shares no line with the writer: serde-pickle's.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

use std::collections::BTreeMap;

use fastblets::pickle::scan::Scanner;
use fastblets::pickle::write::Writer;
use proptest::prelude::*;
use serde::Deserialize;
use serde_pickle::{DeOptions, HashableValue, Value};

fn write(value: &Value) -> Vec<u8> {
    let mut pickle = Vec::new();
    let mut writer = Writer::new(&mut pickle);
    put(value, &mut writer);
    writer.stop().unwrap();
    pickle
}

fn put(value: &Value, writer: &mut Writer<'_>) {
    match value {
        Value::None => return writer.none(),
        Value::Bool(value) => return writer.bool(*value),
        Value::I64(value) => return writer.int(*value),
        Value::F64(value) => return writer.float(*value),
        Value::String(text) => put_text(text, writer),
        Value::Tuple(items) => {
            writer.mark();
            items.iter().for_each(|item| put(item, writer));
            writer.tuple();
        }
        Value::List(items) => {
            writer.list();
            writer.put();
            for item in items {
                put(item, writer);
                writer.append();
            }
            return;
        }
        Value::Dict(items) => {
            writer.dict();
            writer.put();
            for (key, value) in items {
                put(&key.clone().into_value(), writer);
                put(value, writer);
                writer.set_item();
            }
            return;
        }
        other => unreachable!("{other:?} is not made"),
    }
    writer.put();
}

/// In the narrowest of CPython's widths.
fn put_text(text: &str, writer: &mut Writer<'_>) {
    let codes: Vec<u32> = text.chars().map(u32::from).collect();
    let widest = codes.iter().copied().max().unwrap_or(0);
    if let Ok(narrow) = codes
        .iter()
        .map(|&code| u8::try_from(code))
        .collect::<Result<Vec<_>, _>>()
    {
        writer.latin1(&narrow);
    } else if widest < 0x1_0000 {
        writer.ucs2(&codes.iter().map(|&code| code as u16).collect::<Vec<_>>());
    } else {
        writer.ucs4(&codes);
    }
}

fn values() -> impl Strategy<Value = Value> {
    // serde-pickle takes a carriage return for the end of a line.
    let text = || any::<String>().prop_map(|text| text.replace('\r', ""));
    let leaf = prop_oneof![
        Just(Value::None),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::I64),
        prop::num::f64::NORMAL.prop_map(Value::F64),
        text().prop_map(Value::String),
        "[ -~é€😀\n\\\\]{0,20}".prop_map(Value::String),
    ];
    leaf.prop_recursive(5, 60, 8, move |inner| {
        let key = prop_oneof![
            any::<i64>().prop_map(HashableValue::I64),
            text().prop_map(HashableValue::String)
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::List),
            prop::collection::vec(inner.clone(), 1..8).prop_map(Value::Tuple),
            prop::collection::btree_map(key, inner, 0..8).prop_map(Value::Dict),
        ]
    })
}

proptest! {
    #[test]
    fn another_reader_reads_the_same(value in values()) {
        let pickle = write(&value);
        prop_assert_eq!(Scanner::new().scan(&pickle), Ok(Some(pickle.len())));
        prop_assert_eq!(serde_pickle::value_from_slice(&pickle, DeOptions::new()).unwrap(), value);
    }
}

/// CPython's rules, character by character.
fn escaped(text: &[u32]) -> Vec<u8> {
    let mut line = b"V".to_vec();
    for &code in text {
        match code {
            0 | 0x0a | 0x0d | 0x1a | 0x5c => line.extend(format!("\\u{code:04x}").bytes()),
            0..=0xff => line.push(code as u8),
            0x100..=0xffff => line.extend(format!("\\u{code:04x}").bytes()),
            _ => line.extend(format!("\\U{code:08x}").bytes()),
        }
    }
    line.extend(b"\n.");
    line
}

proptest! {
    #[test]
    fn long_texts_are_escaped_as_character_by_character(
        parts in prop::collection::vec(
            (
                prop_oneof![0..0x80_u32, 0..0x100_u32, 0xd7f0..0xe010_u32, 0..0x1_0000_u32, 0..0x11_0000_u32, Just(10_u32)],
                prop_oneof![Just(1_usize), 1..3_usize, 1..300_usize],
            ),
            0..300,
        ),
    ) {
        let text: Vec<u32> = parts.into_iter().flat_map(|(code, count)| std::iter::repeat_n(code, count)).collect();
        let written = |put: &dyn Fn(&mut Writer<'_>)| {
            let mut pickle = Vec::new();
            let mut writer = Writer::new(&mut pickle);
            put(&mut writer);
            writer.stop().unwrap();
            pickle
        };
        prop_assert_eq!(written(&|writer| writer.ucs4(&text)), escaped(&text));
        let text: Vec<u32> = text.iter().map(|code| code & 0xffff).collect();
        let units: Vec<u16> = text.iter().map(|&code| code as u16).collect();
        prop_assert_eq!(written(&|writer| writer.ucs2(&units)), escaped(&text));
        let text: Vec<u32> = text.iter().map(|code| code & 0xff).collect();
        let bytes: Vec<u8> = text.iter().map(|&code| code as u8).collect();
        prop_assert_eq!(written(&|writer| writer.latin1(&bytes)), escaped(&text));
    }
}

#[test]
fn another_reader_reads_what_typed_vectors_say() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Record {
        id: i64,
        name: String,
        score: f64,
        tags: Vec<String>,
        more: BTreeMap<String, Option<bool>>,
    }

    let text = |text: &str| Value::String(text.into());
    let key = |text: &str| HashableValue::String(text.into());
    let more = BTreeMap::from([(key("yes"), Value::Bool(true)), (key("unknown"), Value::None)]);
    let record = BTreeMap::from([
        (key("id"), Value::I64(-7)),
        (key("name"), text("Ünï 😀")),
        (key("score"), Value::F64(0.1)),
        (key("tags"), Value::List(vec![text("a"), text("b\\n")])),
        (key("more"), Value::Dict(more)),
    ]);
    let read: Record = serde_pickle::from_slice(&write(&Value::Dict(record)), DeOptions::new()).unwrap();
    let expected = Record {
        id: -7,
        name: "Ünï 😀".into(),
        score: 0.1,
        tags: vec!["a".into(), "b\\n".into()],
        more: BTreeMap::from([("yes".into(), Some(true)), ("unknown".into(), None)]),
    };
    assert_eq!(read, expected);
}
