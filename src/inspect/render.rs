//! A tree as text, in Python's spelling: as much of it as is worth showing.

use std::fmt::Write;

use super::tree::{Id, Kind, Node, Tree};
use crate::pickle::opcode;
use crate::pickle::read::{Piece, Text};
use crate::pickle::scan::Operation;
use crate::pickle::write::Writer;

/// How deep containers are shown in containers.
const MOST_DEPTH: usize = 8;

/// How many items are shown of one container; of a dict, keys and values count.
const MOST_ITEMS: usize = 40;

/// How many values are shown of one pickle.
const MOST_VALUES: usize = 400;

/// How many bytes are shown of one literal.
const MOST_LITERAL: usize = 200;

/// How a tree looks.
pub(super) fn render(tree: &Tree<'_>) -> String {
    let mut renderer = Renderer {
        tree,
        left: MOST_VALUES,
        out: String::new(),
    };
    renderer.value(tree.root, 0);
    renderer.out
}

struct Renderer<'a> {
    tree: &'a Tree<'a>,
    /// How many more values are shown.
    left: usize,
    out: String,
}

impl<'a> Renderer<'a> {
    fn value(&mut self, id: Id, depth: usize) {
        if self.left == 0 {
            self.out.push('…');
            return;
        }
        self.left -= 1;
        match self.tree.node(id) {
            Node::Literal(literal) => self.literal(*literal),
            Node::Container { kind, items } => self.container(*kind, items, depth),
            Node::Global { module, name } => self.bracketed(&dotted(module, name)),
            Node::Elsewhere(what) => self.bracketed(what),
            Node::Call {
                callable, arguments, ..
            } if self.usual_call(*callable, arguments, depth) => {}
            Node::Call {
                callable,
                arguments,
                state,
                items,
                pairs,
            } => {
                let (callable, arguments) = self.instance(*callable, arguments);
                self.out.push('<');
                self.callable(callable, depth);
                self.arguments(callable, arguments, depth);
                self.state(state, depth);
                if !items.is_empty() {
                    self.out.push(' ');
                    self.container(if *pairs { Kind::Dict } else { Kind::List }, items, depth);
                }
                self.out.push('>');
            }
        }
    }

    fn bracketed(&mut self, text: &str) {
        self.out.extend(["<", text, ">"]);
    }

    /// Plain data that protocol 0 has to write as a call.
    fn usual_call(&mut self, callable: Id, arguments: &'a [Id], depth: usize) -> bool {
        let kind = match &*self.name(callable) {
            "builtins.bytes" if self.tuple(arguments) == Some(&[]) => {
                self.out.push_str("b''");
                return true;
            }
            "_codecs.encode" => {
                let Some(text) = self.encoded_bytes(callable, arguments) else {
                    return false;
                };
                self.shortened(text, |text| Some(bytes_repr(&latin1(text)?)));
                return true;
            }
            "builtins.set" => Kind::Set,
            "builtins.frozenset" => Kind::FrozenSet,
            _ => return false,
        };
        let Some(&[items]) = self.tuple(arguments) else {
            return false;
        };
        match self.tree.node(items) {
            Node::Container {
                kind: Kind::List,
                items,
            } => self.container(kind, items, depth),
            _ => return false,
        }
        true
    }

    /// The text that protocol 0 has in the place of bytes.
    fn encoded_bytes(&self, callable: Id, arguments: &[Id]) -> Option<Operation<'a>> {
        let &[text, encoding] = self.tuple(arguments)? else {
            return None;
        };
        match (self.tree.node(text), self.tree.node(encoding)) {
            (Node::Literal(text), Node::Literal(encoding)) => {
                (self.name(callable) == "_codecs.encode" && encoding.content == b"latin1").then_some(*text)
            }
            _ => None,
        }
    }

    /// The class itself, where `copyreg` is called to make an instance of it.
    fn instance(&self, callable: Id, arguments: &'a [Id]) -> (Id, &'a [Id]) {
        match (&*self.name(callable), self.tuple(arguments)) {
            ("copyreg._reconstructor", Some([class, base, state])) => {
                let plain = self.name(*base) == "builtins.object";
                (*class, if plain { &[] } else { std::slice::from_ref(state) })
            }
            // An instance that is made without arguments.
            (_, Some([])) => (callable, &[]),
            _ => (callable, arguments),
        }
    }

    fn callable(&mut self, id: Id, depth: usize) {
        match self.tree.node(id) {
            Node::Global { module, name } if self.left > 0 => {
                self.left -= 1;
                self.out.push_str(&dotted(module, name));
            }
            _ => self.value(id, depth + 1),
        }
    }

    fn arguments(&mut self, callable: Id, arguments: &'a [Id], depth: usize) {
        if arguments.is_empty() {
            return;
        }
        let (items, depth) = self
            .tuple(arguments)
            .map_or((arguments, depth), |items| (items, depth + 1));
        if let Some(moment) = self.moment(callable, items) {
            self.out.extend([" ", &moment]);
            if let &[_, zone] = items {
                self.out.push(' ');
                self.value(zone, depth + 1);
            }
            return;
        }
        self.out.push('(');
        self.items(items, depth);
        self.out.push(')');
    }

    fn state(&mut self, state: &'a [Id], depth: usize) {
        match self.tuple(state) {
            _ if state.is_empty() => {}
            // A state of slots alone.
            Some(&[none, slots])
                if matches!(self.tree.node(none), Node::Literal(literal) if literal.opcode == opcode::NONE)
                    && matches!(self.tree.node(slots), Node::Container { kind: Kind::Dict, .. }) =>
            {
                self.out.push(' ');
                self.value(slots, depth + 1);
            }
            _ => {
                self.out.push(' ');
                self.items(state, depth);
            }
        }
    }

    /// The date or time that `datetime` has packed into bytes, in the ISO's spelling.
    fn moment(&self, callable: Id, arguments: &[Id]) -> Option<String> {
        // The top bit of the month, or of an hour without a date.
        const FOLD: u8 = 0x80;
        let date = |year: [u8; 2], month: u8, day: u8| {
            format!("{:04}-{:02}-{day:02}", u16::from_be_bytes(year), month & !FOLD)
        };
        let time = |hour: u8, minute: u8, second: u8, micro: [u8; 3]| {
            let micro = micro.iter().fold(0, |all, &byte| all << 8 | u32::from(byte));
            format!("{:02}:{minute:02}:{second:02}.{micro:06}", hour & !FOLD)
        };
        let fold = |byte: u8| if byte & FOLD == 0 { "" } else { " fold=1" };
        let name = self.name(callable);
        if !name.starts_with("datetime.") {
            return None;
        }
        match (&*name, &*self.bytes(*arguments.first()?)?) {
            ("datetime.date", &[y1, y2, m, d]) => Some(date([y1, y2], m, d)),
            ("datetime.time", &[h, m, s, a, b, c]) => Some(time(h, m, s, [a, b, c]) + fold(h)),
            ("datetime.datetime", &[y1, y2, month, d, h, m, s, a, b, c]) => {
                let (date, time) = (date([y1, y2], month, d), time(h, m, s, [a, b, c]));
                Some(format!("{date} {time}{}", fold(month)))
            }
            _ => None,
        }
    }

    /// A few bytes, however the protocol writes them.
    fn bytes(&self, id: Id) -> Option<Vec<u8>> {
        match self.tree.node(id) {
            Node::Literal(literal) if is_bytes(literal.opcode) && literal.content.len() <= MOST_LITERAL => {
                Some(literal.content.to_vec())
            }
            Node::Call {
                callable, arguments, ..
            } => {
                let text = self.encoded_bytes(*callable, arguments)?;
                if text.content.len() <= MOST_LITERAL {
                    latin1(text)
                } else {
                    None
                }
            }
            _ => None,
        }
    }

    fn name(&self, id: Id) -> String {
        match self.tree.node(id) {
            Node::Global { module, name } => dotted(module, name),
            _ => String::new(),
        }
    }

    fn tuple(&self, arguments: &[Id]) -> Option<&'a [Id]> {
        match (arguments, self.tree.node(*arguments.first()?)) {
            (
                [_],
                Node::Container {
                    kind: Kind::Tuple,
                    items,
                },
            ) => Some(items),
            _ => None,
        }
    }

    fn container(&mut self, kind: Kind, items: &[Id], depth: usize) {
        let (start, end) = match kind {
            Kind::List => ("[", "]"),
            Kind::Tuple => ("(", ")"),
            Kind::Dict => ("{", "}"),
            Kind::Set if items.is_empty() => ("set()", ""),
            Kind::Set => ("{", "}"),
            Kind::FrozenSet if items.is_empty() => ("frozenset()", ""),
            Kind::FrozenSet => ("frozenset({", "})"),
            Kind::Unknown => ("(", ""),
        };
        self.out.push_str(start);
        if kind == Kind::Dict {
            self.pairs(items, depth);
        } else if self.items(items, depth) == 1 && items.len() == 1 && kind == Kind::Tuple {
            self.out.push(',');
        }
        self.out.push_str(end);
    }

    /// Writes items, and how many more there are. Returns how many were written.
    fn items(&mut self, items: &[Id], depth: usize) -> usize {
        let shown = self.room_for(items, depth);
        for (number, &item) in items[..shown].iter().enumerate() {
            if number > 0 {
                self.out.push_str(", ");
            }
            self.value(item, depth + 1);
        }
        self.more(shown, items.len() - shown);
        shown
    }

    /// The same with keys and values in turn.
    fn pairs(&mut self, items: &[Id], depth: usize) {
        let shown = self.room_for(items, depth);
        for (number, pair) in items[..shown].chunks(2).enumerate() {
            if number > 0 {
                self.out.push_str(", ");
            }
            self.value(pair[0], depth + 1);
            self.out.push_str(": ");
            match pair.get(1) {
                Some(&value) => self.value(value, depth + 1),
                None => self.out.push('…'),
            }
        }
        self.more(shown, (items.len() - shown).div_ceil(2));
    }

    fn room_for(&self, items: &[Id], depth: usize) -> usize {
        if depth < MOST_DEPTH {
            items.len().min(MOST_ITEMS).min(self.left)
        } else {
            0
        }
    }

    fn more(&mut self, shown: usize, rest: usize) {
        let text = match (shown, rest) {
            (_, 0) => return,
            // The number of items is not known if the pickle was cut.
            (0, _) if self.tree.cut => "…".to_owned(),
            (_, _) if self.tree.cut => ", …".to_owned(),
            (0, 1) => "… 1 item".to_owned(),
            (0, _) => format!("… {rest} items"),
            (_, _) => format!(", … {rest} more"),
        };
        self.out.push_str(&text);
    }

    fn literal(&mut self, literal: Operation<'_>) {
        let content = literal.content;
        match literal.opcode {
            opcode::NONE => self.out.push_str("None"),
            opcode::NEWTRUE => self.out.push_str("True"),
            opcode::NEWFALSE => self.out.push_str("False"),
            opcode::INT if content == b"01" => self.out.push_str("True"),
            opcode::INT if content == b"00" => self.out.push_str("False"),
            opcode::STRING => self.undecoded(content),
            opcode::UNICODE
            | opcode::BINUNICODE
            | opcode::SHORT_BINUNICODE
            | opcode::BINUNICODE8
            // Python 2's strings: Python 3 decodes them, too.
            | opcode::BINSTRING
            | opcode::SHORT_BINSTRING => self.shortened(literal, text_repr),
            byte if is_bytes(byte) => self.shortened(literal, |bytes| Some(bytes_repr(bytes.content))),
            _ => match number(literal) {
                Some(number) => self.out.push_str(&number),
                None => self.bracketed(&format!("a number of {} bytes", content.len())),
            },
        }
    }

    /// Writes as much of a long text as is shown, and how long it is.
    fn shortened(&mut self, literal: Operation<'_>, decode: impl Fn(Operation<'_>) -> Option<String>) {
        let begun = shorten(literal);
        let Some(text) = decode(Operation {
            content: begun,
            ..literal
        }) else {
            return self.undecoded(literal.content);
        };
        self.out.push_str(&text);
        if begun.len() < literal.content.len() {
            self.out.push_str(&format!("… ({} bytes)", literal.content.len()));
        }
    }

    fn undecoded(&mut self, content: &[u8]) {
        let begun = bytes_repr(&content[..content.len().min(MOST_LITERAL)]);
        self.bracketed(&format!("{} bytes that can't be decoded, {begun}…", content.len()));
    }
}

const fn is_bytes(byte: u8) -> bool {
    matches!(
        byte,
        opcode::SHORT_BINBYTES | opcode::BINBYTES | opcode::BINBYTES8 | opcode::BYTEARRAY8
    )
}

/// As much of a text or of bytes as is shown.
fn shorten(literal: Operation<'_>) -> &[u8] {
    let content = literal.content;
    if content.len() <= MOST_LITERAL {
        return content;
    }
    let begun = &content[..MOST_LITERAL];
    match literal.opcode {
        opcode::UNICODE => without_half_an_escape(begun),
        byte if is_bytes(byte) => begun,
        _ => without_half_a_character(begun),
    }
}

fn without_half_an_escape(text: &[u8]) -> &[u8] {
    let tail = text.len().saturating_sub("\\U0010ffff".len() - 1);
    match text[tail..].iter().rposition(|&byte| byte == b'\\') {
        Some(at) if text.len() - tail - at < if text.get(tail + at + 1) == Some(&b'u') { 6 } else { 10 } => {
            &text[..tail + at]
        }
        _ => text,
    }
}

/// Without the last character if that is cut off in the middle.
fn without_half_a_character(text: &[u8]) -> &[u8] {
    match std::str::from_utf8(text) {
        Err(error) if error.error_len().is_none() => &text[..error.valid_up_to()],
        _ => text,
    }
}

/// The characters of a text. None if it is not as a pickler writes it.
fn characters(text: Operation<'_>, mut found: impl FnMut(u32)) -> Option<()> {
    if text.opcode != opcode::UNICODE {
        return utf8_characters(text.content, found);
    }
    for piece in Text::measure(text.content)?.pieces() {
        match piece? {
            Piece::Raw(raw) => raw.iter().for_each(|&byte| found(byte.into())),
            Piece::Character(code) => found(code),
        }
    }
    Some(())
}

/// The characters of UTF-8 in which lone surrogates are encoded like all others.
fn utf8_characters(mut text: &[u8], mut found: impl FnMut(u32)) -> Option<()> {
    while let Some(chunk) = text.utf8_chunks().next() {
        chunk.valid().chars().for_each(|character| found(character.into()));
        text = match &text[chunk.valid().len()..] {
            [] => &[],
            &[0xed, second @ 0xa0..=0xbf, third @ 0x80..=0xbf, ref behind @ ..] => {
                found(0xd000 | u32::from(second & 0x3f) << 6 | u32::from(third & 0x3f));
                behind
            }
            _ => return None,
        };
    }
    Some(())
}

fn text_repr(text: Operation<'_>) -> Option<String> {
    let mut quoted = String::from("'");
    characters(text, |code| escape(code, &mut quoted))?;
    Some(quoted + "'")
}

/// The bytes of which a text has one character each.
fn latin1(text: Operation<'_>) -> Option<Vec<u8>> {
    let mut bytes = Some(Vec::new());
    characters(text, |code| match (u8::try_from(code), &mut bytes) {
        (Ok(byte), Some(bytes)) => bytes.push(byte),
        _ => bytes = None,
    })?;
    bytes
}

fn bytes_repr(bytes: &[u8]) -> String {
    let mut quoted = String::from("b'");
    for &byte in bytes {
        if byte.is_ascii() {
            escape(byte.into(), &mut quoted);
        } else {
            quoted.push_str(&format!("\\x{byte:02x}"));
        }
    }
    quoted + "'"
}

/// Python's spelling of a number. None if it is not a number, or too long to be shown.
fn number(literal: Operation<'_>) -> Option<String> {
    let content = literal.content;
    let int = || {
        let size = content.len();
        let mut bytes = [if content.last()? & 0x80 == 0 { 0 } else { 0xff }; 8];
        bytes.get_mut(..size)?.copy_from_slice(content);
        Some(i64::from_le_bytes(bytes).to_string())
    };
    match literal.opcode {
        opcode::INT | opcode::LONG => {
            let digits = content.strip_suffix(b"L").unwrap_or(content);
            let unsigned = digits.strip_prefix(b"-").unwrap_or(digits);
            let plain = (1..=MOST_LITERAL).contains(&unsigned.len()) && unsigned.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(digits).ok().filter(|_| plain)?;
            Some(
                text.parse::<i64>()
                    .map_or_else(|_| text.to_owned(), |int| int.to_string()),
            )
        }
        opcode::BININT => int(),
        // These have no sign.
        opcode::BININT1 | opcode::BININT2 => {
            let unsigned = content
                .iter()
                .rev()
                .fold(0_u32, |all, &byte| all << 8 | u32::from(byte));
            Some(unsigned.to_string())
        }
        opcode::LONG1 | opcode::LONG4 if content.is_empty() => Some("0".to_owned()),
        opcode::LONG1 | opcode::LONG4 => int(),
        opcode::FLOAT => {
            let text = std::str::from_utf8(content)
                .ok()
                .filter(|text| text.len() <= MOST_LITERAL)?;
            Some(float(text.parse().ok()?))
        }
        opcode::BINFLOAT => Some(float(f64::from_be_bytes(content.try_into().ok()?))),
        _ => None,
    }
}

fn float(value: f64) -> String {
    let mut line = Vec::new();
    Writer::new(&mut line).float(value);
    latin1_or_utf8(&line[1..]).trim_end().to_owned()
}

/// Bytes of a pickle as text.
fn latin1_or_utf8(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
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
            .for_each(|character| escape(character.into(), &mut dotted));
        if part.chars().nth(LONGEST).is_some() {
            dotted.push('…');
        }
    }
    dotted
}

/// As Python's `repr` does, so that nothing in there moves the cursor of a terminal or turns its text around.
fn escape(code: u32, output: &mut String) {
    let written = match char::from_u32(code) {
        Some(character @ ('\'' | '\\')) => write!(output, "\\{character}"),
        Some('\n') => output.write_str("\\n"),
        Some('\r') => output.write_str("\\r"),
        Some('\t') => output.write_str("\\t"),
        Some(character) if character == '"' || character.escape_debug().len() == 1 => output.write_char(character),
        _ if code < 0x100 => write!(output, "\\x{code:02x}"),
        _ if code < 0x10000 => write!(output, "\\u{code:04x}"),
        _ => write!(output, "\\U{code:08x}"),
    };
    debug_assert!(written.is_ok(), "a String takes everything");
}
