//! A value as it is shown: read from a plain pickle, written as Python would spell it.

use std::fmt::{self, Write};

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use crate::pickle::write::Writer;

/// What `plain` writes.
#[derive(Debug, Deserialize)]
pub(super) enum Shown {
    Literal(Literal),
    /// The beginning of a literal, and how many bytes it has in the pickle.
    Long(Literal, usize),
    /// The digits of a large int.
    Number(String),
    /// The beginning of something that can't be decoded, and how many bytes it has.
    Raw(Literal, usize),
    List(Items),
    Tuple(Items),
    Set(Items),
    FrozenSet(Items),
    /// Keys and values in turn.
    Dict(Items),
    Unknown(Items),
    /// A class or function.
    Name(String),
    /// What is called, its arguments, its state, and what is put into it.
    Call(Box<Self>, Items, Items, Box<Self>),
    Note(String),
    More,
}

/// Values, and how many more there are, if that is known.
#[derive(Debug, Deserialize)]
pub(super) struct Items(Vec<Shown>, Option<usize>);

/// What `serde-pickle` reads by itself.
#[derive(Debug)]
pub(super) enum Literal {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
}

/// Reads a plain pickle.
pub(super) fn read(pickle: &[u8]) -> Option<Shown> {
    serde_pickle::from_slice(pickle, options()).ok()
}

/// Whether opcodes make one literal.
pub(super) fn is_literal(opcodes: &[u8]) -> bool {
    let pickle = [opcodes, b"."].concat();
    serde_pickle::from_slice::<Literal>(&pickle, options()).is_ok()
}

fn options() -> serde_pickle::DeOptions {
    // Python 2's strings: Python 3 decodes them, too.
    serde_pickle::DeOptions::new().decode_strings()
}

/// What stands in a pickle, as text.
pub(super) fn latin1_or_utf8(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
    }
}

/// Without the last character if that is cut off in the middle.
pub(super) fn without_half_a_character(text: &[u8]) -> &[u8] {
    match std::str::from_utf8(text) {
        Err(error) if error.error_len().is_none() => &text[..error.valid_up_to()],
        _ => text,
    }
}

/// The name of a class or function, harmless and not too long. Protocols below 3 have Python 2's names of modules.
pub(super) fn dotted(module: &[u8], name: &[u8]) -> String {
    const LONGEST: usize = 100;
    /// Bytes that hold one character more.
    const ENOUGH: usize = 4 * (LONGEST + 2);
    let module: &[u8] = match module {
        b"__builtin__" => b"builtins",
        b"copy_reg" => b"copyreg",
        module => module,
    };
    let mut dotted = String::new();
    for part in [module, b".", name] {
        let part = part.get(..ENOUGH).map_or(part, without_half_a_character);
        let part = latin1_or_utf8(part);
        part.chars()
            .take(LONGEST)
            .for_each(|character| escape(character, &mut dotted));
        if part.chars().nth(LONGEST).is_some() {
            dotted.push('…');
        }
    }
    dotted
}

impl<'de> Deserialize<'de> for Literal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl Visitor<'_> for Any {
            type Value = Literal;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a literal")
            }

            fn visit_unit<E: Error>(self) -> Result<Literal, E> {
                Ok(Literal::None)
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Literal, E> {
                Ok(Literal::Bool(value))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Literal, E> {
                Ok(Literal::Int(value))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Literal, E> {
                Ok(Literal::Float(value))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<Literal, E> {
                Ok(Literal::Text(value.to_owned()))
            }

            fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<Literal, E> {
                Ok(Literal::Bytes(value.to_owned()))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(literal) => literal.fmt(f),
            Self::Long(literal, size) => write!(f, "{literal}… ({size} bytes)"),
            Self::Number(digits) => f.write_str(digits),
            Self::Raw(literal, size) => write!(f, "<{size} bytes that can't be decoded, {literal}…>"),
            Self::List(items) => write!(f, "[{items}]"),
            Self::Tuple(items) if items.0.len() == 1 && items.1 == Some(0) => write!(f, "({items},)"),
            Self::Tuple(items) => write!(f, "({items})"),
            Self::Set(items) if items.0.is_empty() && items.1 == Some(0) => f.write_str("set()"),
            Self::Set(items) => write!(f, "{{{items}}}"),
            Self::FrozenSet(items) if items.0.is_empty() && items.1 == Some(0) => f.write_str("frozenset()"),
            Self::FrozenSet(items) => write!(f, "frozenset({{{items}}})"),
            Self::Dict(items) => write!(f, "{{{}}}", Pairs(items)),
            Self::Unknown(items) => write!(f, "({items}"),
            Self::Name(name) => write!(f, "<{name}>"),
            Self::Call(callable, arguments, state, items) => call(f, callable, arguments, state, items),
            Self::Note(what) => write!(f, "<{what}>"),
            Self::More => f.write_char('…'),
        }
    }
}

fn call(f: &mut fmt::Formatter<'_>, callable: &Shown, arguments: &Items, state: &Items, items: &Shown) -> fmt::Result {
    match callable {
        Shown::Name(name) => write!(f, "<{name}")?,
        other => write!(f, "<{other}")?,
    }
    match arguments.0.as_slice() {
        [] => {}
        [Shown::Tuple(Items(arguments, Some(0)))] if moment(callable, arguments).is_some() => {
            moment(callable, arguments).map_or(Ok(()), |moment| write!(f, " {moment}"))?;
            if let [_, zone] = arguments.as_slice() {
                write!(f, " {zone}")?;
            }
        }
        [Shown::Tuple(arguments)] => write!(f, "({arguments})")?,
        _ => write!(f, "({arguments})")?,
    }
    match state.0.as_slice() {
        [] => {}
        // A state of slots alone.
        [Shown::Tuple(Items(parts, Some(0)))]
            if let [Shown::Literal(Literal::None), slots @ Shown::Dict(_)] = parts.as_slice() =>
        {
            write!(f, " {slots}")?;
        }
        _ => write!(f, " {state}")?,
    }
    if let Shown::List(content) | Shown::Dict(content) = items
        && !(content.0.is_empty() && content.1 == Some(0))
    {
        write!(f, " {items}")?;
    }
    f.write_char('>')
}

/// The date or time that `datetime` has packed into bytes, in the ISO's spelling.
fn moment(callable: &Shown, arguments: &[Shown]) -> Option<String> {
    let (Shown::Name(name), [Shown::Literal(Literal::Bytes(bytes)), ..]) = (callable, arguments) else {
        return None;
    };
    // The top bit of the month, or of an hour without a date.
    const FOLD: u8 = 0x80;
    let date =
        |year: [u8; 2], month: u8, day: u8| format!("{:04}-{:02}-{day:02}", u16::from_be_bytes(year), month & !FOLD);
    let time = |hour: u8, minute: u8, second: u8, micro: [u8; 3]| {
        let micro = micro.iter().fold(0, |all, &byte| all << 8 | u32::from(byte));
        format!("{:02}:{minute:02}:{second:02}.{micro:06}", hour & !FOLD)
    };
    let fold = |byte: u8| if byte & FOLD == 0 { "" } else { " fold=1" };
    match (name.as_str(), bytes.as_slice()) {
        ("datetime.date", &[y1, y2, m, d]) => Some(date([y1, y2], m, d)),
        ("datetime.time", &[h, m, s, a, b, c]) => Some(time(h, m, s, [a, b, c]) + fold(h)),
        ("datetime.datetime", &[y1, y2, month, d, h, m, s, a, b, c]) => {
            let (date, time) = (date([y1, y2], month, d), time(h, m, s, [a, b, c]));
            Some(format!("{date} {time}{}", fold(month)))
        }
        _ => None,
    }
}

impl fmt::Display for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, item) in self.0.iter().enumerate() {
            write!(f, "{}{item}", if number > 0 { ", " } else { "" })?;
        }
        more(f, self.0.len(), self.1)
    }
}

/// Keys and values.
struct Pairs<'a>(&'a Items);

impl fmt::Display for Pairs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Items(items, rest) = self.0;
        for (number, pair) in items.chunks(2).enumerate() {
            let separator = if number > 0 { ", " } else { "" };
            match pair {
                [key, value] => write!(f, "{separator}{key}: {value}")?,
                [key] => write!(f, "{separator}{key}: …")?,
                _ => {}
            }
        }
        more(f, items.len(), rest.map(|rest| rest.div_ceil(2)))
    }
}

fn more(f: &mut fmt::Formatter<'_>, shown: usize, rest: Option<usize>) -> fmt::Result {
    match (shown, rest) {
        (_, Some(0)) => Ok(()),
        (0, None) => f.write_char('…'),
        (0, Some(1)) => f.write_str("… 1 item"),
        (0, Some(rest)) => write!(f, "… {rest} items"),
        (_, None) => f.write_str(", …"),
        (_, Some(rest)) => write!(f, ", … {rest} more"),
    }
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Bool(true) => f.write_str("True"),
            Self::Bool(false) => f.write_str("False"),
            Self::Int(value) => value.fmt(f),
            Self::Float(value) => {
                let mut line = Vec::new();
                Writer::new(&mut line).float(*value);
                f.write_str(latin1_or_utf8(&line[1..]).trim_end())
            }
            Self::Text(text) => {
                let mut quoted = String::from("'");
                text.chars().for_each(|character| escape(character, &mut quoted));
                write!(f, "{quoted}'")
            }
            Self::Bytes(bytes) => {
                f.write_str("b'")?;
                bytes.iter().try_for_each(|&byte| match byte {
                    b'\'' | b'\\' => write!(f, "\\{}", char::from(byte)),
                    b'\n' => f.write_str("\\n"),
                    b'\r' => f.write_str("\\r"),
                    b'\t' => f.write_str("\\t"),
                    b' '..=b'~' => f.write_char(char::from(byte)),
                    _ => write!(f, "\\x{byte:02x}"),
                })?;
                f.write_char('\'')
            }
        }
    }
}

/// As Python's `repr` does, so that nothing in there moves the cursor of a terminal or turns its text around.
fn escape(character: char, output: &mut String) {
    let code = u32::from(character);
    let written = match character {
        '\'' | '\\' => write!(output, "\\{character}"),
        '\n' => output.write_str("\\n"),
        '\r' => output.write_str("\\r"),
        '\t' => output.write_str("\\t"),
        _ if character == '"' || character.escape_debug().len() == 1 => output.write_char(character),
        _ if code < 0x100 => write!(output, "\\x{code:02x}"),
        _ if code < 0x10000 => write!(output, "\\u{code:04x}"),
        _ => write!(output, "\\U{code:08x}"),
    };
    debug_assert!(written.is_ok(), "a String takes everything");
}
