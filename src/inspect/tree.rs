//! The objects that a pickle would build, as a tree, or a graph, in which classes are names and no call is made.
//!
//! A node stands for an object. Nodes are in one vector and refer to each other by number. So dropping them needs no
//! recursion, a value that is used a thousand times exists once, and a value may contain itself.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::memory::{append, concat, push};
use crate::pickle::opcode;
use crate::pickle::scan::{Operation, operations};

/// The number of a node.
pub(super) type Id = usize;

/// The most bytes of a pickle that are read; the last literal is read to its end. The text of a value is far shorter.
const MOST_BYTES: usize = 256 * 1024;

/// The type of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    List,
    Tuple,
    Set,
    FrozenSet,
    /// Keys and values in turn.
    Dict,
    /// The values after a mark whose opcode was not read, because the pickle was cut.
    Unknown,
}

#[derive(Debug)]
pub(super) enum Node<'a> {
    /// None, a number, a string or bytes, as they stand in the pickle.
    Literal(Operation<'a>),
    Container {
        kind: Kind,
        items: Vec<Id>,
    },
    /// A class or function.
    Global {
        module: &'a [u8],
        name: &'a [u8],
    },
    /// The result of a call.
    Call {
        callable: Id,
        /// Arguments: a tuple and, for what has them, keyword arguments.
        arguments: Vec<Id>,
        /// The arguments of `__setstate__`.
        state: Vec<Id>,
        /// The values that would be appended or set: items, or keys and values in turn.
        items: Vec<Id>,
        pairs: bool,
    },
    /// Something that the pickle doesn't hold.
    Elsewhere(&'static str),
}

#[derive(Debug)]
pub(super) struct Tree<'a> {
    nodes: Vec<Node<'a>>,
    pub(super) root: Id,
    /// Whether the pickle goes on after these nodes.
    pub(super) cut: bool,
}

impl<'a> Tree<'a> {
    /// Walks a pickle that a scanner has found to be whole.
    pub(super) fn grow(pickle: &'a [u8]) -> Result<Self> {
        let mut grower = Grower::default();
        let mut at = 0;
        let mut ended = false;
        for operation in operations(pickle) {
            if operation.opcode == opcode::STOP {
                ended = true;
                break;
            }
            if at > MOST_BYTES {
                break;
            }
            at += operation.whole.len();
            grower.apply(operation)?;
        }
        let root = grower.fold()?;
        Ok(Self {
            nodes: grower.nodes,
            root,
            cut: !ended,
        })
    }

    pub(super) fn node(&self, id: Id) -> &Node<'a> {
        // Every number comes from a node that was pushed; there is always one.
        self.nodes.get(id).unwrap_or(&Node::Elsewhere("nothing"))
    }
}

#[derive(Debug, Default)]
struct Grower<'a> {
    nodes: Vec<Node<'a>>,
    stack: Vec<Id>,
    /// How high the stack was at each mark.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
}

impl<'a> Grower<'a> {
    fn apply(&mut self, operation: Operation<'a>) -> Result<()> {
        let content = operation.content;
        match operation.opcode {
            opcode::PROTO | opcode::FRAME | opcode::READONLY_BUFFER => Ok(()),
            opcode::MARK => push(&mut self.marks, self.stack.len()),
            opcode::POP => {
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                } else {
                    self.stack.pop();
                }
                Ok(())
            }
            opcode::POP_MARK => {
                let mark = self.mark();
                self.stack.truncate(mark);
                Ok(())
            }
            opcode::DUP => match self.stack.last() {
                Some(&id) => push(&mut self.stack, id),
                None => Ok(()),
            },
            opcode::PUT | opcode::BINPUT | opcode::LONG_BINPUT => self.put(number(operation)),
            opcode::MEMOIZE => self.put(self.memo.len() as u64),
            opcode::GET | opcode::BINGET | opcode::LONG_BINGET => match self.memo.get(&number(operation)) {
                Some(&id) => push(&mut self.stack, id),
                None => self.push(Node::Elsewhere("a memo that isn't there")),
            },
            opcode::EMPTY_LIST => self.container(Kind::List, vec![]),
            opcode::EMPTY_TUPLE => self.container(Kind::Tuple, vec![]),
            opcode::EMPTY_DICT => self.container(Kind::Dict, vec![]),
            opcode::EMPTY_SET => self.container(Kind::Set, vec![]),
            opcode::LIST => self.collect(Kind::List),
            opcode::TUPLE => self.collect(Kind::Tuple),
            opcode::DICT => self.collect(Kind::Dict),
            opcode::FROZENSET => self.collect(Kind::FrozenSet),
            opcode::TUPLE1..=opcode::TUPLE3 => {
                let items = self.pop_many(usize::from(operation.opcode - opcode::EXT4))?;
                self.container(Kind::Tuple, items)
            }
            opcode::APPEND => {
                let items = self.pop_many(1)?;
                self.extend(&items, false)
            }
            opcode::SETITEM => {
                let items = self.pop_many(2)?;
                self.extend(&items, true)
            }
            opcode::APPENDS | opcode::SETITEMS | opcode::ADDITEMS => {
                let items = self.since_mark()?;
                self.extend(&items, operation.opcode == opcode::SETITEMS)
            }
            opcode::GLOBAL => self.line_global(content),
            opcode::STACK_GLOBAL => {
                let names = self.pop_many(2)?;
                let mut texts = names.iter().map(|&id| match self.nodes.get(id) {
                    Some(Node::Literal(literal)) => literal.content,
                    _ => b"?",
                });
                let (module, name) = (texts.next().unwrap_or(b"?"), texts.next().unwrap_or(b"?"));
                self.push(Node::Global { module, name })
            }
            opcode::REDUCE | opcode::NEWOBJ => {
                let arguments = self.pop_many(1)?;
                self.call(arguments)
            }
            opcode::NEWOBJ_EX => {
                let arguments = self.pop_many(2)?;
                self.call(arguments)
            }
            opcode::INST => {
                let arguments = self.since_mark()?;
                self.line_global(content)?;
                self.call_with(arguments)
            }
            opcode::OBJ => {
                let mut arguments = self.since_mark()?;
                if !arguments.is_empty() {
                    push(&mut self.stack, arguments.remove(0))?;
                }
                self.call_with(arguments)
            }
            opcode::BUILD => {
                let new = self.pop_many(1)?;
                match self.top() {
                    Some(Node::Call { state, .. }) => append(state, &new),
                    _ => Ok(()),
                }
            }
            opcode::PERSID => self.push(Node::Elsewhere("a persistent object")),
            opcode::BINPERSID => {
                self.stack.pop();
                self.push(Node::Elsewhere("a persistent object"))
            }
            opcode::EXT1..=opcode::EXT4 => self.push(Node::Elsewhere("an object of copyreg's extension registry")),
            opcode::NEXT_BUFFER => self.push(Node::Elsewhere("a buffer outside of the pickle")),
            _ => self.push(Node::Literal(operation)),
        }
    }

    /// One value of all that is on the stack: there is more than one if the walk was cut off.
    fn fold(&mut self) -> Result<Id> {
        while let Some(&mark) = self.marks.last() {
            self.fold_to(mark)?;
            self.collect(Kind::Unknown)?;
        }
        self.fold_to(0)?;
        if self.stack.is_empty() {
            self.push(Node::Elsewhere("nothing"))?;
        }
        Ok(self.stack.first().copied().unwrap_or_default())
    }

    /// Puts what is on the stack above `floor` where it would have gone: into the container below it.
    fn fold_to(&mut self, floor: usize) -> Result<()> {
        while self.stack.len() > floor + 1 {
            let last = self.pop_many(1)?;
            if self.is_open() {
                self.extend(&last, false)?;
            } else if self.stack.len() > floor + 1 {
                // A key stands between a dict and the value.
                let key = self.pop_many(1)?;
                if self.is_open() {
                    self.extend(&key, true)?;
                    self.extend(&last, true)?;
                }
            }
        }
        Ok(())
    }

    fn is_open(&mut self) -> bool {
        match self.top() {
            Some(Node::Container { kind, .. }) => matches!(kind, Kind::List | Kind::Dict | Kind::Set),
            Some(Node::Call { .. }) => true,
            _ => false,
        }
    }

    fn top(&mut self) -> Option<&mut Node<'a>> {
        self.nodes.get_mut(*self.stack.last()?)
    }

    fn push(&mut self, node: Node<'a>) -> Result<()> {
        push(&mut self.stack, self.nodes.len())?;
        push(&mut self.nodes, node)
    }

    fn pop_many(&mut self, count: usize) -> Result<Vec<Id>> {
        self.pop_to(self.stack.len().saturating_sub(count))
    }

    fn pop_to(&mut self, height: usize) -> Result<Vec<Id>> {
        let items = concat(&[&self.stack[height..]])?;
        self.stack.truncate(height);
        Ok(items)
    }

    fn since_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.mark();
        self.pop_to(mark)
    }

    /// Takes the last mark: how high the stack was there.
    fn mark(&mut self) -> usize {
        self.marks.pop().unwrap_or(0).min(self.stack.len())
    }

    fn put(&mut self, number: u64) -> Result<()> {
        if let Some(&id) = self.stack.last() {
            self.memo.try_reserve(1).map_err(|_| Error::Memory)?;
            self.memo.insert(number, id);
        }
        Ok(())
    }

    fn container(&mut self, kind: Kind, items: Vec<Id>) -> Result<()> {
        self.push(Node::Container { kind, items })
    }

    fn collect(&mut self, kind: Kind) -> Result<()> {
        let items = self.since_mark()?;
        self.container(kind, items)
    }

    fn extend(&mut self, new: &[Id], in_pairs: bool) -> Result<()> {
        match self.top() {
            Some(Node::Container { items, .. }) => append(items, new),
            Some(Node::Call { items, pairs, .. }) => {
                *pairs |= in_pairs;
                append(items, new)
            }
            _ => Ok(()),
        }
    }

    fn line_global(&mut self, lines: &'a [u8]) -> Result<()> {
        let end = memchr::memchr(b'\n', lines).unwrap_or(lines.len());
        self.push(Node::Global {
            module: &lines[..end],
            name: lines.get(end + 1..).unwrap_or_default(),
        })
    }

    /// A call with positional arguments.
    fn call_with(&mut self, arguments: Vec<Id>) -> Result<()> {
        self.container(Kind::Tuple, arguments)?;
        let arguments = self.pop_many(1)?;
        self.call(arguments)
    }

    fn call(&mut self, arguments: Vec<Id>) -> Result<()> {
        match self.stack.pop() {
            Some(callable) => self.push(Node::Call {
                callable,
                arguments,
                state: vec![],
                items: vec![],
                pairs: false,
            }),
            None => Ok(()),
        }
    }
}

fn number(operation: Operation<'_>) -> u64 {
    let content = operation.content;
    if matches!(operation.opcode, opcode::PUT | opcode::GET) {
        // Text that is not a number refers to no value.
        let text = std::str::from_utf8(content).unwrap_or_default();
        return text.trim().parse().unwrap_or(u64::MAX);
    }
    content
        .iter()
        .rev()
        .fold(0, |number, &byte| number << 8 | u64::from(byte))
}
