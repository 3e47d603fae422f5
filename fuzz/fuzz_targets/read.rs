//! The reader's tokens on any bytes: each value is the same when written again, and where the reader sees the end of a
//! pickle the scanner does.
#![no_main]

use std::mem::MaybeUninit;

use fastblets::pickle::read::{Character, Piece, Text, Token, Tokens, fill};
use fastblets::pickle::scan::Scanner;
use fastblets::pickle::write::Writer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut tokens = Tokens::new(data);
    while let Some(token) = tokens.next_token() {
        match token {
            Token::Int(_) | Token::Float(_) | Token::Bool(_) => {
                let mut written = Vec::new();
                write(token, &mut written);
                assert_eq!(Tokens::new(&written).next_token(), Some(token));
            }
            Token::Text(line) => match Text::measure(line) {
                Some(text) => check_text(text),
                None => return,
            },
            Token::Stop => {
                let end = tokens.consumed();
                // The scanner also looks after the stack, as the reader's caller does.
                if let Ok(found) = Scanner::new().scan(&data[..end]) {
                    assert_eq!(found, Some(end));
                }
                return;
            }
            _ => {}
        }
    }
});

fn write(token: Token<'_>, output: &mut Vec<u8>) {
    let mut writer = Writer::new(output);
    match token {
        Token::Int(value) => writer.int(value),
        Token::Float(value) => writer.float(value),
        Token::Bool(value) => writer.bool(value),
        _ => {}
    }
}

fn check_text(text: Text<'_>) {
    let characters = characters(text);
    assert_eq!(characters.len(), text.length);
    assert_eq!(filled::<u32>(text).as_ref(), Some(&characters));
    for (widest, filled) in [(0xff, filled::<u8>(text)), (0xffff, filled::<u16>(text))] {
        let fits = characters.iter().all(|&code| code <= widest);
        assert_eq!(filled.as_ref(), fits.then_some(&characters));
    }
    let mut written = Vec::new();
    Writer::new(&mut written).ucs4(&characters);
    let Some(Token::Text(line)) = Tokens::new(&written).next_token() else {
        panic!("a str was written")
    };
    let again = Text::measure(line).expect("what was written is usual");
    assert_eq!(self::characters(again), characters);
}

/// The same, all at once, with no more room than there has to be.
fn filled<C: Character + Default + Into<u32>>(text: Text<'_>) -> Option<Vec<u32>> {
    let mut place = vec![MaybeUninit::new(C::default()); text.length];
    let filled = fill(text.line(), &mut place)?;
    assert_eq!(filled.length, text.length);
    // SAFETY: initialized from the beginning.
    Some(
        place
            .iter()
            .map(|character| unsafe { character.assume_init() }.into())
            .collect(),
    )
}

fn characters(text: Text<'_>) -> Vec<u32> {
    let mut characters = Vec::new();
    for piece in text.pieces() {
        match piece.expect("a measured text has whole pieces") {
            Piece::Raw(raw) => characters.extend(raw.iter().map(|&byte| u32::from(byte))),
            Piece::Character(code) => characters.push(code),
        }
    }
    characters
}
