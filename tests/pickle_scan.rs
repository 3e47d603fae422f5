//! The scanner against a naive model that knows the opcodes by heart, however the data is cut.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod model;

use fastblets::error::{Error, Result};
use fastblets::pickle::scan::{Global, Scanner};
use model::model;
use proptest::prelude::*;

/// What the scanner says of data that arrives in pieces, and the globals that it saw.
fn in_pieces(data: &[u8], cuts: &[usize]) -> (Result<Option<usize>>, Vec<String>) {
    let mut scanner = Scanner::new();
    let mut globals = Vec::new();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (data.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(data.len());
    for cut in cuts {
        let found = scanner.scan_with(&data[..cut], |global| {
            globals.push(describe(global));
            Ok(())
        });
        match found {
            Ok(None) => {}
            done => return (done, globals),
        }
    }
    (Ok(None), globals)
}

fn describe(global: Global<'_>) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match global {
        Global::Named { module, name, .. } => format!("{} {}", text(module), text(name)),
        Global::Extension(code) => format!("extension {code}"),
        Global::Unknown => "unknown".to_owned(),
    }
}

fn globals(data: &[u8]) -> Vec<String> {
    let (done, globals) = in_pieces(data, &[]);
    assert_eq!(done, Ok(Some(data.len())), "{data:?}");
    globals
}

/// Opcodes that leave one more value on the stack, whole.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        "[FILPSVg][a-z0-9 ]{0,20}\n".prop_map(String::into_bytes),
        "c[a-z.]{1,9}\n[A-Z.]{1,9}\n".prop_map(String::into_bytes),
        "V[a-z]{0,9}\np[0-9]{1,4}\n".prop_map(String::into_bytes),
        "[N\\])}]|\\(l|\\(d|\\(t|\\(i[a-z]{1,3}\n[a-z]{1,3}\n".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..20)
            .prop_map(|content| [vec![b'C', content.len() as u8], content].concat()),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(|content| [
            b"X".to_vec(),
            (content.len() as u32).to_le_bytes().to_vec(),
            content
        ]
        .concat()),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(|content| [
            vec![0x96],
            (content.len() as u64).to_le_bytes().to_vec(),
            content
        ]
        .concat()),
        any::<u8>().prop_map(|byte| vec![b'K', byte]),
        any::<u16>().prop_map(|int| [vec![b'M'], int.to_le_bytes().to_vec()].concat()),
        any::<u32>().prop_map(|int| [vec![b'J'], int.to_le_bytes().to_vec()].concat()),
        any::<u64>().prop_map(|int| [vec![b'G'], int.to_le_bytes().to_vec()].concat()),
        Just(vec![0x80, 4, b'N', 0x94]),
        Just(vec![0x88, 0x82, 1, 0x86]),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let values = prop::collection::vec(inner, 1..6);
        prop_oneof![
            values
                .clone()
                .prop_map(|values| [b"(".to_vec(), values.concat(), b"t".to_vec()].concat()),
            values
                .clone()
                .prop_map(|values| [b"](".to_vec(), values.concat(), b"e".to_vec()].concat()),
            values
                .clone()
                .prop_map(|values| [b"N(".to_vec(), values.concat(), b"1".to_vec()].concat()),
            values.prop_map(|values| values.into_iter().fold(b"(lp0\n".to_vec(), |all, value| [
                all,
                value,
                b"a".to_vec()
            ]
            .concat())),
        ]
    })
}

proptest! {
    #[test]
    fn finds_the_end_however_the_data_is_cut(
        value in value(),
        behind in prop::collection::vec(any::<u8>(), 0..9),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let pickle = [value, b".".to_vec()].concat();
        let stream = [pickle.clone(), behind].concat();
        prop_assert_eq!(model(&stream), Some(pickle.len()));
        let whole = in_pieces(&stream, &[]);
        prop_assert_eq!(&whole.0, &Ok(Some(pickle.len())));
        prop_assert_eq!(in_pieces(&stream, &cuts), whole);
        let every: Vec<usize> = (0..stream.len()).collect();
        prop_assert_eq!(in_pieces(&stream, &every).0, Ok(Some(pickle.len())));
        let short = &pickle[..cuts.first().map_or(0, |cut| cut % pickle.len())];
        prop_assert_eq!(in_pieces(short, &[]).0, Ok(None));
    }

    #[test]
    fn anything_at_all_has_one_answer(data: Vec<u8>, cuts in prop::collection::vec(any::<usize>(), 0..6)) {
        let whole = in_pieces(&data, &[]);
        prop_assert_eq!(&in_pieces(&data, &cuts), &whole);
        if let (Ok(Some(end)), _) = whole {
            prop_assert_eq!(model(&data), Some(end));
        }
    }

    #[test]
    fn opcodes_at_random_have_one_answer(
        data in prop::collection::vec(prop::sample::select(b"(tldsaNpgVIFL.R0c12]}eu\n\n\nK\x8c\x93\x94\x95".to_vec()), 0..60),
        cuts in prop::collection::vec(any::<usize>(), 0..6),
    ) {
        let whole = in_pieces(&data, &[]);
        prop_assert_eq!(&in_pieces(&data, &cuts), &whole);
        if let (Ok(Some(end)), _) = whole {
            prop_assert_eq!(model(&data), Some(end));
        }
    }
}

#[test]
fn a_scanner_is_as_new_after_a_reset() {
    let mut scanner = Scanner::new();
    for _ in 0..3 {
        assert_eq!(scanner.scan(b"(lp0\n(VI'm not done"), Ok(None));
        scanner.reset();
        assert_eq!(scanner.scan(b"(lp0\nI1\na.more"), Ok(Some(10)));
        scanner.reset();
        assert!(scanner.scan(b"(s").is_err());
        scanner.reset();
    }
}

#[test]
fn a_long_line_is_searched_once() {
    let mut data = b"V".to_vec();
    let mut scanner = Scanner::new();
    for _ in 0..200_000 {
        data.extend_from_slice(b"0123456789");
        assert_eq!(scanner.scan(&data), Ok(None));
    }
    data.extend_from_slice(b"\n.");
    assert_eq!(scanner.scan(&data), Ok(Some(data.len())));
}

#[test]
fn a_length_is_believed_when_the_bytes_are_there() {
    let mut scanner = Scanner::new();
    assert_eq!(scanner.scan(b"\x8e\xff\xff\xff\xff\xff\xff\xff\x00."), Ok(None));
    for impossible in [
        &b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff."[..],
        b"\x8b\0\0\0\x80.",
        b"\x95\xff\xff\xff\xff\xff\xff\xff\xff.",
    ] {
        scanner.reset();
        assert!(scanner.scan(impossible).is_err());
    }
}

#[test]
fn a_spliced_stream_is_noticed() {
    for damaged in [
        &b"s."[..],
        b"Na.",
        b".",
        b"t.",
        b"(lp0\nVa\ns.",
        b"(dp0\nVa\ns.",
        b"((lp0\na.",
        b"1.",
        b"(e.",
        b"\xff",
        b"\x00",
    ] {
        assert!(Scanner::new().scan(damaged).is_err(), "{damaged:?}");
    }
}

#[test]
fn reports_the_globals_of_every_protocol() {
    let point = ["app.models Point"];
    assert_eq!(globals(b"capp.models\nPoint\np0\n."), point);
    assert_eq!(globals(b"(iapp.models\nPoint\n."), point);
    assert_eq!(globals(b"\x80\x02capp.models\nPoint\nq\x00."), point);
    assert_eq!(
        globals(b"\x80\x04\x95\x19\0\0\0\0\0\0\0\x8c\x0aapp.models\x94\x8c\x05Point\x94\x93\x94NN00."),
        point
    );
    assert_eq!(
        globals(b"\x80\x04X\x0a\0\0\0app.modelsq\x00X\x05\0\0\0Pointq\x01\x93."),
        point
    );
    assert_eq!(
        globals(b"\x80\x02\x82\x2a\x83\x01\x02\x84\x01\0\0\x8000."),
        ["extension 42", "extension 513", "extension 2147483649"]
    );
}

#[test]
fn reports_a_global_whose_module_is_in_the_memo() {
    assert_eq!(
        globals(
            b"\x80\x04\x8c\x01m\x94\x8c\x01A\x94\x93\x94h\x00\x8c\x01B\x94\x93\x94h\x00h\x01\x930 0."
                .as_slice()
                .split(|&b| b == b' ')
                .collect::<Vec<_>>()
                .concat()
                .as_slice()
        ),
        ["m A", "m B", "m A"]
    );
}

#[test]
fn admits_what_only_executing_can_tell() {
    for (pickle, known) in [
        // A tuple's, a number's, a text of protocol 0's, nothing's name.
        (&b"\x8c\x01mN\x93."[..], "unknown"),
        (b"Vm\nVA\n\x93.", "unknown"),
        (b"\x8c\x01m\x8c\x01A\x8c\x01B0\x93.", "unknown"),
        (b"\x8c\x01m\x8c\x01A2\x93.", "unknown"),
        // The memo, changed behind the scanner's back by a PUT of protocol 0.
        (b"\x8c\x01m\x94\x8c\x01x\x94Np0\n0h\x00\x8c\x01A\x93.", "unknown"),
        (b"Np0\n\x8c\x01m\x94\x8c\x01A\x94h\x00h\x01\x93.", "unknown"),
        // The memo, changed in plain sight.
        (b"\x8c\x01m\x94\x8c\x01n\x94q\x00\x8c\x01A\x94h\x00h\x02\x93.", "n A"),
        (b"\x8c\x01m\x94Nq\x00h\x00\x8c\x01A\x93.", "unknown"),
    ] {
        assert_eq!(globals(pickle), [known], "{pickle:?}");
    }
}

#[test]
fn a_memo_number_beyond_the_pickle_is_refused() {
    let scan = |data: &[u8]| Scanner::new().scan(data);
    assert!(scan(b"Nr\xff\xff\xff\x7f.").is_err());
    assert!(scan(b"Np99999999\n.").is_err());
    assert!(scan(b"(lp99999999\n.").is_err());
    assert_eq!(scan(b"Nr\x01\0\0\0."), Ok(Some(7)));
    assert_eq!(scan(b"Np9999999\n."), Ok(Some(11)));
    // Numbers grow with the pickle.
    let mut large = b"(l".to_vec();
    large.extend(b"Na".repeat(6_000_000));
    large.extend(b"p10000000\n.");
    assert_eq!(scan(&large), Ok(Some(large.len())));
}

#[test]
fn little_garbage_is_a_pickle_of_protocol_0() {
    let taken = |data: &[u8]| matches!(Scanner::as_written().scan(data), Ok(Some(size)) if size == data.len());
    let mut found = Vec::new();
    for number in 0..1_u32 << 24 {
        let [_, bytes @ ..] = number.to_be_bytes();
        if taken(&bytes) {
            found.push(bytes);
        }
    }
    // Lines of nothing are refused by who reads them.
    assert_eq!(
        found,
        [*b"(d.", *b"(l.", *b"(t.", *b"F\n.", *b"I\n.", *b"L\n.", *b"g\n."]
    );
    let pairs = (0..=u16::MAX).map(u16::to_be_bytes).filter(|bytes| taken(bytes));
    assert_eq!(pairs.collect::<Vec<_>>(), [*b"N."]);
}

#[test]
fn a_str_of_protocol_0_has_a_memo_number() {
    let scan = |data: &[u8]| Scanner::as_written().scan(data);
    assert_eq!(scan(b"Vtext\np0\n."), Ok(Some(10)));
    assert!(scan(b"Vtext\n.").is_err());
    assert_eq!(scan(b"(lp0\nVtext\np1\naVtext\np2\na."), Ok(Some(26)));
    assert!(scan(b"(lp0\nVtext\np1\naVtext\na.").is_err());
    assert_eq!(Scanner::new().scan(b"Vtext\n."), Ok(Some(7)));
}

proptest! {
    #[test]
    fn of_protocol_0_is_what_others_take_too(data: Vec<u8>, value in value()) {
        for data in [data, [&value[..], b"."].concat()] {
            let mut scanner = Scanner::as_written();
            if let Ok(found) = scanner.scan(&data) {
                prop_assert_eq!(Scanner::new().scan(&data), Ok(found));
            }
            scanner.reset();
            prop_assert!(scanner.scan(b"K\x01.").is_err());
        }
    }
}

#[test]
fn an_error_has_the_offset_of_its_opcode() {
    for (data, offset) in [
        // The first opcode, one among those that are frequent, and one behind them.
        (&b"\xff"[..], 0),
        (b"I1\ns.", 3),
        (b"(Vtext\np0\na.", 10),
        (b"I1\nVtext\np0\n\xff", 12),
        (b"\x80\x04K\x01\x85\x86.", 5),
        (b"N0.", 2),
        (b"Nt.", 1),
        (b"Np99999999999\n.", 1),
        (b"\x8b\xff\xff\xff\xff.", 0),
    ] {
        let Err(Error::Pickle { offset: found, .. }) = Scanner::new().scan(data) else {
            panic!("{data:?} is not refused");
        };
        assert_eq!(found, Some(offset), "{data:?}");
    }
    let Err(Error::Pickle { offset, .. }) = Scanner::as_written().scan(b"(I1\nVtext\nt.") else {
        panic!("no PUT is missing");
    };
    assert_eq!(offset, Some(4));
}
