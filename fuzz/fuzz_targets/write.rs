//! The writer's strs, in each of CPython's widths, beside a model that writes one character after the other.
#![no_main]

use fastblets::pickle::write::Writer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let wide: Vec<u16> = data
        .as_chunks()
        .0
        .iter()
        .map(|pair| u16::from_le_bytes(*pair))
        .collect();
    let widest: Vec<u32> = data
        .as_chunks()
        .0
        .iter()
        .map(|four| u32::from_le_bytes(*four) % 0x11_0000)
        .collect();
    check(data.iter().copied().map(u32::from), |writer| writer.latin1(data));
    check(wide.iter().copied().map(u32::from), |writer| writer.ucs2(&wide));
    check(widest.iter().copied(), |writer| writer.ucs4(&widest));
});

fn check(characters: impl Iterator<Item = u32>, write: impl FnOnce(&mut Writer<'_>)) {
    let mut written = b"before".to_vec();
    let mut expected = written.clone();
    write(&mut Writer::new(&mut written));
    expected.push(b'V');
    for code in characters {
        match code {
            0 | 0xa | 0xd | 0x1a | 0x5c | 0x100..=0xffff => expected.extend(format!("\\u{code:04x}").bytes()),
            0x1_0000.. => expected.extend(format!("\\U{code:08x}").bytes()),
            _ => expected.push(code as u8),
        }
    }
    expected.push(b'\n');
    assert!(written == expected);
}
