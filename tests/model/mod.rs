//! The naive scanner: for the tests and for the fuzzer.

/// Where the pickle ends: opcode by opcode, as `pickletools.opcodes` lists their arguments.
pub(crate) fn model(data: &[u8]) -> Option<usize> {
    let line = |from: usize| Some(from + data.get(from..)?.iter().position(|&byte| byte == b'\n')? + 1);
    let counted = |from: usize, size: usize| {
        let length = data
            .get(from..from + size)?
            .iter()
            .rev()
            .fold(0, |sum, &byte| sum * 256 + usize::from(byte));
        Some(from + size + length)
    };
    let mut at = 0;
    loop {
        let opcode = *data.get(at)?;
        at += 1;
        at = match opcode {
            b'.' => return Some(at),
            b'F' | b'I' | b'L' | b'P' | b'S' | b'V' | b'g' | b'p' => line(at)?,
            b'c' | b'i' => line(line(at)?)?,
            b'K' | b'h' | b'q' | 0x80 | 0x82 => at + 1,
            b'M' | 0x83 => at + 2,
            b'J' | b'j' | b'r' | 0x84 => at + 4,
            b'G' | 0x95 => at + 8,
            b'U' | b'C' | 0x8a | 0x8c => counted(at, 1)?,
            b'T' | b'B' | b'X' | 0x8b => counted(at, 4)?,
            0x8d | 0x8e | 0x96 => counted(at, 8)?,
            _ => at,
        };
    }
}
