//! As much of a tree as is worth showing, as a pickle that anyone may read: literals as they stood in the first one,
//! lists and strings that name what holds them, nothing that is shared, nothing that is called.
//!
//! `serde-pickle` can't be given the first one. It would build what nests without end, copy what is shared as often
//! as it is named, and refuse it if there is more in it; and it forgets the names of classes. Of what is written here
//! it gets little, and all is as `Shown` has it.

use super::shown::{self, dotted, latin1_or_utf8, without_half_a_character};
use super::tree::{Id, Kind, Node, Tree};
use crate::pickle::scan::Operation;

/// How deep containers are shown in containers.
const MOST_DEPTH: usize = 8;

/// How many items are shown of one container; of a dict, keys and values count.
const MOST_ITEMS: usize = 40;

/// How many values are shown of one pickle.
const MOST_VALUES: usize = 400;

/// How many bytes are shown of one literal.
const MOST_LITERAL: usize = 200;

/// Writes the pickle.
pub(super) fn pickle(tree: &Tree<'_>) -> Vec<u8> {
    let mut writer = Writer {
        tree,
        left: MOST_VALUES,
        out: Vec::new(),
    };
    writer.value(tree.root, 0);
    writer.out.push(b'.');
    writer.out
}

struct Writer<'a> {
    tree: &'a Tree<'a>,
    /// How many more values are shown.
    left: usize,
    out: Vec<u8>,
}

impl<'a> Writer<'a> {
    fn value(&mut self, id: Id, depth: usize) {
        if self.left == 0 {
            return self.text("More");
        }
        self.left -= 1;
        match self.tree.node(id) {
            Node::Literal(literal) => self.literal(*literal),
            Node::Container { kind, items } => self.container(*kind, items, depth),
            Node::Global { module, name } => {
                let name = dotted(module, name);
                self.variant("Name", |writer| writer.text(&name));
            }
            Node::Elsewhere(what) => self.variant("Note", |writer| writer.text(what)),
            Node::Call {
                callable,
                arguments,
                state,
                items,
                pairs,
            } => {
                if self.usual_call(*callable, arguments, depth) {
                    return;
                }
                let (callable, arguments) = self.instance(*callable, arguments);
                self.variant("Call", |writer| {
                    writer.out.push(b'(');
                    writer.value(callable, depth + 1);
                    writer.list(arguments, depth);
                    writer.list(state, depth);
                    writer.container(if *pairs { Kind::Dict } else { Kind::List }, items, depth);
                    writer.out.push(b't');
                });
            }
        }
    }

    /// What protocol 0 can't but write as a call, though it is plain data.
    fn usual_call(&mut self, callable: Id, arguments: &'a [Id], depth: usize) -> bool {
        match (&*self.name(callable), self.tuple(arguments)) {
            ("builtins.bytes", Some([])) => self.variant("Literal", |writer| writer.out.extend(b"C\0")),
            ("builtins.set", Some([items])) => return self.set(Kind::Set, *items, depth),
            ("builtins.frozenset", Some([items])) => return self.set(Kind::FrozenSet, *items, depth),
            ("_codecs.encode", Some([text, encoding])) => {
                let (Node::Literal(text), Node::Literal(encoding)) = (self.tree.node(*text), self.tree.node(*encoding))
                else {
                    return false;
                };
                if encoding.content != b"latin1" {
                    return false;
                }
                let (begun, whole) = (shorten(*text), text.content.len());
                let call = [b"c_codecs\nencode\n", begun.as_slice(), encoding.whole, b"\x86R"].concat();
                self.readable(call, begun.len() < text.whole.len(), *text, whole);
            }
            _ => return false,
        }
        true
    }

    fn set(&mut self, kind: Kind, items: Id, depth: usize) -> bool {
        if let Node::Container {
            kind: Kind::List,
            items,
        } = self.tree.node(items)
        {
            self.container(kind, items, depth);
            return true;
        }
        false
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
        let name = match kind {
            Kind::List => "List",
            Kind::Tuple => "Tuple",
            Kind::Set => "Set",
            Kind::FrozenSet => "FrozenSet",
            Kind::Dict => "Dict",
            Kind::Unknown => "Unknown",
        };
        self.variant(name, |writer| writer.list(items, depth));
    }

    /// The items, and how many more there are.
    fn list(&mut self, items: &[Id], depth: usize) {
        self.out.push(b'(');
        let shown = if depth < MOST_DEPTH {
            items.len().min(MOST_ITEMS).min(self.left)
        } else {
            0
        };
        self.out.extend(b"](");
        for &item in &items[..shown] {
            self.value(item, depth + 1);
        }
        self.out.push(b'e');
        match items.len() - shown {
            // Of a pickle that goes on, nobody has counted them.
            rest if rest > 0 && self.tree.cut => self.out.push(b'N'),
            rest => self.size(rest),
        }
        self.out.push(b't');
    }

    fn literal(&mut self, literal: Operation<'_>) {
        let begun = shorten(literal);
        let cut = begun.len() < literal.whole.len();
        self.readable(begun, cut, literal, literal.content.len());
    }

    /// Writes opcodes that make one value, if they can be read.
    fn readable(&mut self, opcodes: Vec<u8>, cut: bool, literal: Operation<'_>, size: usize) {
        if !shown::is_literal(&opcodes) || (literal.opcode == b'V' && literal.content.ends_with(b"\r")) {
            return self.unreadable(literal);
        }
        if cut {
            return self.variant("Long", |writer| {
                writer.out.extend(opcodes);
                writer.size(size);
                writer.out.push(0x86);
            });
        }
        self.variant("Literal", |writer| writer.out.extend(opcodes));
    }

    fn unreadable(&mut self, literal: Operation<'_>) {
        let content = literal.content;
        let digits = content.strip_suffix(b"L").unwrap_or(content);
        let unsigned = digits.strip_prefix(b"-").unwrap_or(digits);
        let begun = &content[..content.len().min(MOST_LITERAL)];
        match literal.opcode {
            // Too large for serde's integers.
            b'I' | b'L' if digits.len() <= MOST_LITERAL && unsigned.iter().all(u8::is_ascii_digit) => {
                let digits = latin1_or_utf8(digits);
                self.variant("Number", |writer| writer.text(&digits));
            }
            b'I' | b'L' | b'F' | 0x8a | 0x8b => {
                let what = format!("a number of {} bytes", content.len());
                self.variant("Note", |writer| writer.text(&what));
            }
            _ => self.variant("Raw", |writer| {
                writer.bytes(begun);
                writer.size(content.len());
                writer.out.push(0x86);
            }),
        }
    }

    /// A variant of `Shown`, as serde has it: its name and what it holds.
    fn variant(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        self.text(name);
        content(self);
        self.out.push(0x86);
    }

    fn text(&mut self, text: &str) {
        self.out.push(b'X');
        self.sized(text.as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.out.push(b'B');
        self.sized(bytes);
    }

    fn sized(&mut self, bytes: &[u8]) {
        // What is written is never that long.
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.out.extend(size.to_le_bytes());
        self.out.extend(bytes);
    }

    fn size(&mut self, size: usize) {
        self.out.extend(format!("I{size}\n").as_bytes());
    }
}

/// The opcode with as much of a long string as is shown.
fn shorten(literal: Operation<'_>) -> Vec<u8> {
    let content = literal.content;
    if content.len() <= MOST_LITERAL {
        return literal.whole.to_vec();
    }
    let begun = &content[..MOST_LITERAL];
    let sized = |opcode: u8, begun: &[u8]| [&[opcode], &(begun.len() as u32).to_le_bytes()[..], begun].concat();
    match literal.opcode {
        b'V' => [b"V", without_half_an_escape(begun), b"\n"].concat(),
        b'X' | 0x8c | 0x8d => sized(b'X', without_half_a_character(begun)),
        b'U' | b'T' => sized(b'T', without_half_a_character(begun)),
        b'C' | b'B' | 0x8e | 0x96 => sized(b'B', begun),
        // No number of ours is as long, and there is no beginning of one.
        _ => vec![],
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
