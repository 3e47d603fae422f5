use proptest::prelude::*;

use super::*;

/// How a pickle looks.
fn show(pickle: &[u8]) -> String {
    assert_eq!(Scanner::new().scan(pickle), Ok(Some(pickle.len())), "{pickle:?}");
    show_pickle(pickle).unwrap()
}

#[test]
fn plain_values_look_as_in_python() {
    for (pickle, text) in [
        (&b"N."[..], "None"),
        (b"I01\n.", "True"),
        (b"I00\n.", "False"),
        (b"I-7\n.", "-7"),
        (b"L12345678901234567890123L\n.", "12345678901234567890123"),
        (b"F1e+16\n.", "1e+16"),
        (b"F-0.5\n.", "-0.5"),
        (b"Fnan\n.", "nan"),
        (b"Vit's \\u005c \\u000a \xe9 \\u20ac\np0\n.", "'it\\'s \\\\ \\n é €'"),
        (b"X\x03\0\0\0abc.", "'abc'"),
        (b"X\x05\0\0\0a\xed\xb2\x80b.", "'a\\udc80b'"),
        (b"V\\ud800a\r\n.", "'\\ud800a\\r'"),
        (b"U\x03abc.", "'abc'"),
        (b"K\xff.", "255"),
        (b"M\xff\xff.", "65535"),
        (b"J\xff\xff\xff\xff.", "-1"),
        (b"\x8a\0.", "0"),
        (b"\x8a\x02\x00\x80.", "-32768"),
        (b"G?\xe0\0\0\0\0\0\0.", "0.5"),
        (b"\x88.", "True"),
        (b"C\x03a\0'.", "b'a\\x00\\''"),
        (
            b"c_codecs\nencode\np0\n(V\xff\\u0000\np1\nVlatin1\np2\ntp3\nRp4\n.",
            "b'\\xff\\x00'",
        ),
        (
            b"\x80\x02c_codecs\nencode\nX\x03\0\0\0\0\xc3\xbfX\x06\0\0\0latin1\x86R.",
            "b'\\x00\\xff'",
        ),
        (b"c__builtin__\nbytes\np0\n(tRp1\n.", "b''"),
        (b"(lp0\n.", "[]"),
        (b"(lp0\nI1\naI2\na.", "[1, 2]"),
        (b"(I1\ntp0\n.", "(1,)"),
        (b"(I1\nI2\ntp0\n.", "(1, 2)"),
        (b").", "()"),
        (b"(dp0\nVb\np1\nI1\nsVa\np2\n(lp3\ns.", "{'b': 1, 'a': []}"),
        (b"c__builtin__\nset\np0\n((lp1\nI1\natp2\nRp3\n.", "{1}"),
        (b"c__builtin__\nfrozenset\np0\n((lp1\ntp2\nRp3\n.", "frozenset()"),
        (b"\x80\x04\x8f(K\x01K\x02\x90.", "{1, 2}"),
        (b"\x80\x04(K\x01\x91.", "frozenset({1})"),
    ] {
        assert_eq!(show(pickle), text);
    }
}

#[test]
fn objects_are_shown_by_name() {
    for (pickle, text) in [
        (
            &b"ccopy_reg\n_reconstructor\np0\n(creports.models\nReport\np1\nc__builtin__\nobject\np2\nNtp3\nRp4\n\
               (dp5\nVid\np6\nI1\nsb."[..],
            "<reports.models.Report {'id': 1}>",
        ),
        (b"cposix\nsystem\n(Vtouch /tmp/x\ntR.", "<posix.system('touch /tmp/x')>"),
        (b"(Vtouch /tmp/x\niposix\nsystem\n.", "<posix.system('touch /tmp/x')>"),
        (b"(cposix\nsystem\nVtouch\no.", "<posix.system('touch')>"),
        (
            b"ccollections\nOrderedDict\n(tRI1\nI2\ns.",
            "<collections.OrderedDict {1: 2}>",
        ),
        (
            b"\x80\x04\x8c\x01m\x8c\x01C\x93)\x81}\x8c\x01aK\x01sb.",
            "<m.C {'a': 1}>",
        ),
        (
            b"\x80\x04\x8c\x01m\x8c\x01C\x93)}\x8c\x01aK\x01s\x92.",
            "<m.C((), {'a': 1})>",
        ),
        (
            b"\x80\x04\x8c\x01m\x8c\x01C\x93)\x81N}\x8c\x01aK\x01s\x86b.",
            "<m.C {'a': 1}>",
        ),
        (
            b"\x80\x04\x8c\x01m\x8c\x01C\x93)\x81}\x8c\x01bK\x02s}\x8c\x01aK\x01s\x86b.",
            "<m.C ({'b': 2}, {'a': 1})>",
        ),
        (b"\x80\x04\x8c\x01m\x8c\x01C\x93.", "<m.C>"),
        (b"Pwho knows\n.", "<a persistent object>"),
        (b"\x82\x01.", "<an object of copyreg's extension registry>"),
    ] {
        assert_eq!(show(pickle), text);
    }
}

#[test]
fn dates_and_times_can_be_read() {
    for (pickle, text) in [
        (
            &b"cdatetime\ndate\n(c_codecs\nencode\n(V\x07\xea\x0b\x17\nVlatin1\ntRtR."[..],
            "<datetime.date 2026-11-23>",
        ),
        (
            b"\x80\x04cdatetime\ndatetime\nC\x0a\x07\xe8\x01\x02\x03\x04\x05\0\0\x06\x85R.",
            "<datetime.datetime 2024-01-02 03:04:05.000006>",
        ),
        (
            b"\x80\x04cdatetime\ntime\nC\x06\x83\x04\x05\0\0\x06Vzone\n\x86R.",
            "<datetime.time 03:04:05.000006 fold=1 'zone'>",
        ),
        (
            b"\x80\x04cdatetime\ndatetime\nC\x0a\x07\xe7\x8b\x05\x01\x1e\0\0\0\0\x85R.",
            "<datetime.datetime 2023-11-05 01:30:00.000000 fold=1>",
        ),
        (b"\x80\x04cdatetime\ndate\nC\x02ab\x85R.", "<datetime.date(b'ab')>"),
    ] {
        assert_eq!(show(pickle), text);
    }
}

#[test]
fn what_is_shared_or_holds_itself_is_shown() {
    assert_eq!(show(b"(lp0\n(lp1\nVabc\np2\naag1\na."), "[['abc'], ['abc']]");
    assert_eq!(show(b"(lp0\ng0\na."), "[[[[[[[[[… 1 item]]]]]]]]]");
    assert_eq!(show(b"I1\n2\x86."), "(1, 1)");
}

#[test]
fn what_is_long_is_shortened() {
    let long = [b"V", &b"\\u20ac".repeat(10_000)[..], b"\n."].concat();
    assert_eq!(show(&long), format!("'{}'… (60000 bytes)", "€".repeat(33)));
    let text = "é".repeat(300);
    let long = [b"X", &600_u32.to_le_bytes()[..], text.as_bytes(), b"."].concat();
    assert_eq!(show(&long), format!("'{}'… (600 bytes)", "é".repeat(100)));
    let list = [b"(l", &b"I1\na".repeat(100)[..], b"."].concat();
    assert_eq!(show(&list), format!("[{}1, … 60 more]", "1, ".repeat(39)));
    let wide = [
        b"(l",
        &[b"(l", &b"I1\na".repeat(39)[..], b"a"].concat().repeat(40)[..],
        b".",
    ]
    .concat();
    assert!(show(&wide).chars().count() < 2100);
    // Enough values have been shown when it is a key's turn to have its own.
    let ones = |count: usize| [b"(", &b"I1\n".repeat(count)[..], b"t"].concat();
    let pairs = [b"I5\n", &ones(19)[..], b"s"].concat().repeat(60);
    let dict = [b"(d", &ones(18)[..], b"I7\ns", &pairs, b"."].concat();
    assert!(show(&dict).contains(" 5: …"), "{}", show(&dict));
}

#[test]
fn of_a_huge_pickle_the_beginning_is_shown() {
    let records = b"(dVid\nI7\nsV who\nVsomebody\nsa".repeat(100_000);
    let shown = show(&[b"(l", &records[..], b"."].concat());
    assert!(shown.starts_with("[{'id': 7, ' who': 'somebody'}, "), "{shown}");
    assert!(shown.ends_with(", …] (only its beginning was looked at)"), "{shown}");
    // Whatever stands open where it ends.
    let opened = b"(dVa\n".repeat(1000);
    let nested = [&opened[..], b"V", &[b'x'; 1_000_000], b"\n", &b"s".repeat(1000), b"."].concat();
    assert_eq!(
        show(&nested),
        format!(
            "{}{{…}}{} (only its beginning was looked at)",
            "{'a': ".repeat(8),
            "}".repeat(8)
        ),
    );
}

#[test]
fn what_is_no_pickler_s_is_said() {
    assert_eq!(show(b"V\\x\n."), "<2 bytes that can't be decoded, b'\\\\x'…>");
    assert_eq!(show(b"S'a'\n."), "<3 bytes that can't be decoded, b'\\'a\\''…>");
    assert_eq!(
        show(b"X\x02\0\0\0a\xff."),
        "<2 bytes that can't be decoded, b'a\\xff'…>"
    );
    assert_eq!(show(b"Iabc\n."), "<a number of 3 bytes>");
    assert_eq!(show(b"\x8a\x10aaaaaaaaaaaaaaaa."), "<a number of 16 bytes>");
}

#[test]
fn a_terminal_is_not_written_to_by_data() {
    let shown = show("X\x0b\0\0\0\u{1b}[2J\u{202e}\u{7}abc.".as_bytes());
    assert_eq!(shown, "'\\x1b[2J\\u202e\\x07abc'");
    assert_eq!(show(b"ca\x1b[2J\nb'\n."), "<a\\x1b[2J.b\\'>");
}

#[test]
fn bombs_go_off_unheard() {
    // Deep, by nesting and by the memo.
    let deep = [&b"(".repeat(100_000)[..], b"N", &b"t".repeat(100_000)[..], b"."].concat();
    assert_eq!(show(&deep), format!("{}(… 1 item){}", "(".repeat(8), ",)".repeat(8)));
    let deeper = [&b"(".repeat(300_000)[..], b"N", &b"t".repeat(300_000)[..], b"."].concat();
    assert_eq!(show(&deeper), "(((((((((… (only its beginning was looked at)");
    let mut chain = b"(lp0\n".to_vec();
    for number in 1..30_000 {
        chain.extend(format!("0(g{}\ntp{number}\n", number - 1).as_bytes());
    }
    chain.push(b'.');
    assert!(show(&chain).chars().count() < 2100);
    // Two of two of two…
    let laughs = [b"I1\n", &b"2\x86".repeat(100_000)[..], b"."].concat();
    assert!(show(&laughs).chars().count() < 2100);
    // Digits that take very long to convert.
    let digits = [b"L", &b"9".repeat(3_000_000)[..], b"L\n."].concat();
    assert_eq!(show(&digits), "<a number of 3000001 bytes>");
    // A length that isn't there is the scanner's to refuse.
    assert!(
        inspect(&[b"X\xff\xff\xff\x7fabc."], Some(false), None, 1)
            .unwrap()
            .damage
            .is_some()
    );
}

#[test]
fn a_stream_is_described() {
    let pickles = b"I1\n.Vab\n.cm\nf\n.";
    let stream = inspect(&[&pickles[..4], &pickles[4..]], None, None, 2).unwrap();
    assert!(!stream.compressed);
    assert_eq!((stream.pickled, stream.count), (15, 3));
    assert_eq!(stream.damage, None);
    let item = |size, text: &str| Item {
        size,
        text: text.to_owned(),
    };
    assert_eq!(stream.items, [item(4, "1"), item(5, "'ab'")]);
    assert_eq!(stream.globals, BTreeSet::from(["m.f".to_owned()]));
}

#[test]
fn damage_is_located() {
    let stream = inspect(&[&b"I1\n.I2\n"[..], &b".I3"[..]], None, None, 5).unwrap();
    assert_eq!(stream.count, 2);
    let error = Error::pickle("it ends in the middle of an item").moved_by(10);
    assert_eq!(stream.damage, Some(Damage { error, chunk: 1 }));
    let stream = inspect(&[&b"I1\n."[..], &b"\xff"[..], &b"I3\n."[..]], None, None, 5).unwrap();
    assert_eq!((stream.count, stream.items.len()), (1, 1));
    let error = Error::pickle("an unknown opcode").moved_by(4);
    assert_eq!(stream.damage, Some(Damage { error, chunk: 2 }));
    // Beyond what is read at a time.
    let stream = inspect(&[&*b"I1\n.".repeat(STEP), &b"I2\n(."[..]], None, None, 1).unwrap();
    let error = Error::pickle("an opcode finds too little on the stack").moved_by(4 * STEP as u64 + 4);
    assert_eq!(stream.damage.unwrap().error, error);
}

#[test]
fn a_wrong_checksum_is_told_from_other_damage() {
    let mut deflate = crate::zlib::Deflate::default();
    let mut stored = Vec::new();
    deflate.write(b"I1\n.", &mut stored).unwrap();
    deflate.finish(&mut stored).unwrap();
    assert!(inspect(&[&stored], None, None, 1).unwrap().compressed);
    let last = stored.len() - 1;
    stored[last] ^= 1;
    let damage = inspect(&[&stored], None, None, 1).unwrap().damage.unwrap();
    assert_eq!(damage.error, Error::Zlib("its checksum is wrong"));
    let damage = inspect(&[&stored[..5]], None, None, 1).unwrap().damage.unwrap();
    assert_eq!(damage.error, Error::Zlib("it ends too early"));
}

/// Opcodes that do something, more often than chance would have it.
fn opcodes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(b"(.012NRa]e)}slt dbouI\x81\x85\x86\x87\x88\x8f\x90\x91\x92\x93\x94\x97\x98".to_vec())
            .prop_map(|byte| vec![byte]),
        "[FILPSVgp][0-9a-z\\\\u'\r-]{0,6}\n".prop_map(String::into_bytes),
        "[ci](a|copy_reg|__builtin__|_codecs)\n(set|_reconstructor|encode|object|bytes)\n".prop_map(String::into_bytes),
        any::<[u8; 2]>().prop_map(|[opcode, byte]| vec![opcode, byte]),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| [vec![0x8c, bytes.len() as u8], bytes].concat()),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn anything_can_be_inspected_without_a_panic(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..4),
        compressed: Option<bool>,
        encrypted: bool,
    ) {
        let key = Key::new(&[7; 16]).unwrap();
        inspect(&chunks, compressed, encrypted.then_some(key), 3).unwrap();
    }

    #[test]
    fn any_opcodes_can_be_shown(pickle in opcodes()) {
        // Whether a scanner would have let them pass or not.
        let text = show_pickle(&pickle).unwrap();
        prop_assert!(text.chars().count() < MOST_TEXT + 50);
        prop_assert!(!text.chars().any(char::is_control));
    }
}
