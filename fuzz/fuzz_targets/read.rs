//! The reader's tokens on any bytes: each value is the same when written again, and where the reader sees the end of a
//! pickle the scanner does.
#![no_main]

use fastblets::pickle::read::{Piece, Text, Token, Tokens};
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
    let mut written = Vec::new();
    Writer::new(&mut written).ucs4(&characters);
    let Some(Token::Text(line)) = Tokens::new(&written).next_token() else {
        panic!("a str was written")
    };
    let again = Text::measure(line).expect("what was written is usual");
    assert_eq!(self::characters(again), characters);
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
