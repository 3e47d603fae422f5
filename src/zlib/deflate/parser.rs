//! The parser: which literals and matches the input becomes.

use std::ops::Range;

use super::matcher::{Match, Matcher};
use super::window::Window;
use super::{MAX_MATCH, MIN_MATCH, WINDOW_SIZE};
use crate::error::Result;

/// zlib waits for more input when it has less than this ahead, until the final flush.
pub(super) const MIN_LOOKAHEAD: u64 = (MAX_MATCH + MIN_MATCH + 1) as u64;

/// How far ahead positions are inserted: less than `MIN_LOOKAHEAD`, as their entries replace those a window ago.
const AHEAD: u64 = 256;

/// zlib's `max_lazy` at level 6: a match of this length is taken without a look at the next position.
const MAX_LAZY: usize = 16;

/// How much of the input before a position a parser has to know to go on from there.
pub(super) const HISTORY: usize = WINDOW_SIZE as usize;

/// A part of the input, with the ends of its pieces: where one ends, zlib's decision may depend on it.
#[derive(Clone, Copy)]
pub(super) struct Pieces<'a> {
    pub(super) bytes: &'a [u8],
    /// In ascending order.
    pub(super) ends: &'a [usize],
    /// The position of the first byte.
    pub(super) start: u64,
}

/// Where the parser's literals and matches go.
pub(super) trait Symbols {
    fn literal(&mut self, byte: u8);
    fn found(&mut self, found: Match);
    /// Whether room has to be made before the next.
    fn is_full(&self) -> bool;
    /// Makes room. The literals and matches so far reach up to `position`.
    fn make_room(&mut self, window: &Window, position: u64) -> Result<()>;
}

/// All that the next decisions depend on, beside the input.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    /// The position to be parsed next.
    pub(super) position: u64,
    /// The match at the previous position, which waits for a better one.
    deferred: Match,
    /// Whether the byte at the previous position is not yet among the symbols.
    literal_deferred: bool,
    /// Whether the last piece left less than `MIN_LOOKAHEAD` at this position.
    ran_dry: bool,
}

impl State {
    /// As at the beginning of a stream.
    pub(super) fn new(position: u64) -> Self {
        Self {
            position,
            deferred: Match::NONE,
            literal_deferred: false,
            ran_dry: false,
        }
    }

    /// Up to where literals and matches were made of the input.
    pub(super) fn parsed(&self) -> u64 {
        self.position - u64::from(self.literal_deferred)
    }
}

pub(super) struct Parser {
    pub(super) window: Window,
    matcher: Matcher,
    /// The position after the input. Positions start at `WINDOW_SIZE`, so that those in zeroed tables are too far away.
    end: u64,
    /// The position to be parsed next.
    position: u64,
    /// The position that the matcher is to learn next. It may learn of one before it is parsed, as the parser only ever
    /// looks back.
    inserted: u64,
    /// Where the matcher last forgot what is too far away.
    pruned: u64,
    /// The position at which the last piece left less than `MIN_LOOKAHEAD`.
    ran_dry: u64,
    deferred: Match,
    literal_deferred: bool,
}

// What `multiversion` compiles for newer processors has to be inlined there.
impl Parser {
    pub(super) fn new() -> Result<Self> {
        Ok(Self::begin(Window::new()?, Matcher::new()?))
    }

    fn begin(window: Window, matcher: Matcher) -> Self {
        Self {
            window,
            matcher,
            end: WINDOW_SIZE,
            position: WINDOW_SIZE,
            // zlib's tables use 0 for "none", so it never finds the very first position.
            inserted: WINDOW_SIZE + 1,
            pruned: WINDOW_SIZE,
            ran_dry: 0,
            deferred: Match::NONE,
            literal_deferred: false,
        }
    }

    /// A parser of another stream in the same memory.
    pub(super) fn restart(mut self) -> Self {
        self.matcher.clear(WINDOW_SIZE);
        Self::begin(self.window, self.matcher)
    }

    /// Goes on as a parser that came to this state when it had been fed `bytes[..fed]`. `HISTORY` bytes of the input are before
    /// the state's position.
    #[inline(always)]
    pub(super) fn resume(&mut self, pieces: &Pieces<'_>, fed: usize, state: State) {
        let at = (state.position - pieces.start) as usize;
        let start = state.position - WINDOW_SIZE;
        self.matcher.clear(start);
        self.window.write(start, &pieces.bytes[at - HISTORY..at]);
        // A position can be inserted when its four bytes are known.
        self.inserted = state.position - MIN_MATCH as u64;
        self.matcher.insert(&self.window, start, self.inserted);
        self.matcher.prune(self.inserted);
        self.pruned = self.inserted;

        // Less than `MIN_LOOKAHEAD`.
        self.window.write(state.position, &pieces.bytes[at..fed]);
        self.end = pieces.start + fed as u64;
        self.position = state.position;
        self.deferred = state.deferred;
        self.literal_deferred = state.literal_deferred;
        self.ran_dry = if state.ran_dry { state.position } else { 0 };
    }

    /// What it has come to.
    pub(super) fn state(&self) -> State {
        State {
            position: self.position,
            deferred: self.deferred,
            literal_deferred: self.literal_deferred,
            ran_dry: self.ran_dry == self.position,
        }
    }

    /// The position after the input.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Parses the next bytes of the input, up to where less than `MIN_LOOKAHEAD` is left.
    #[inline(always)]
    pub(super) fn feed(&mut self, pieces: &Pieces<'_>, range: Range<usize>, symbols: &mut impl Symbols) -> Result<()> {
        let mut at = range.start;
        let passed = pieces.ends.partition_point(|&end| end <= at);
        for &end in &pieces.ends[passed..] {
            if end > range.end {
                break;
            }
            self.feed_piece(&pieces.bytes[at..end], symbols)?;
            self.ran_dry = self.position;
            at = end;
        }
        self.feed_piece(&pieces.bytes[at..range.end], symbols)
    }

    #[inline(always)]
    fn feed_piece(&mut self, mut piece: &[u8], symbols: &mut impl Symbols) -> Result<()> {
        while !piece.is_empty() {
            piece = self.fill(piece);
            self.parse(MIN_LOOKAHEAD, symbols)?;
        }
        Ok(())
    }

    /// Parses what is left.
    #[inline(always)]
    pub(super) fn finish(&mut self, symbols: &mut impl Symbols) -> Result<()> {
        self.parse(1, symbols)?;
        if self.literal_deferred {
            symbols.literal(self.window.byte(self.position - 1));
            self.literal_deferred = false;
        }
        Ok(())
    }

    /// Moves as much of the input into the window as it has room for. Returns the rest.
    #[inline(always)]
    fn fill<'a>(&mut self, input: &'a [u8]) -> &'a [u8] {
        if self.end == self.pruned + WINDOW_SIZE {
            self.matcher.prune(self.inserted);
            self.pruned = self.position;
        }
        let room = usize::try_from(self.pruned + WINDOW_SIZE - self.end).unwrap_or_default();
        let (piece, rest) = input.split_at(room.min(input.len()));
        self.window.write(self.end, piece);
        self.end += piece.len() as u64;
        rest
    }

    /// Parses the input into literals and matches while at least `reserve` bytes of it are ahead.
    #[inline(always)]
    fn parse(&mut self, reserve: u64, symbols: &mut impl Symbols) -> Result<()> {
        while self.end - self.position >= reserve {
            let position = self.position;
            let lookahead = (self.end - position) as usize;
            let previous = self.deferred;
            if position >= self.inserted {
                self.insert_ahead();
            }
            self.deferred = if previous.length < MAX_LAZY && lookahead >= MIN_MATCH {
                let ran_dry = lookahead < MIN_LOOKAHEAD as usize || self.ran_dry == position;
                self.matcher
                    .longest(&self.window, position, previous.length, lookahead, ran_dry)
            } else {
                Match::NONE
            };
            if previous.length >= MIN_MATCH && self.deferred.length <= previous.length {
                self.take(previous, symbols);
                if symbols.is_full() {
                    symbols.make_room(&self.window, self.position)?;
                }
            } else {
                if self.literal_deferred {
                    symbols.literal(self.window.byte(position - 1));
                    if symbols.is_full() {
                        symbols.make_room(&self.window, position)?;
                    }
                }
                self.literal_deferred = true;
                self.position += 1;
            }
        }
        Ok(())
    }

    /// Takes the match that began at the previous position.
    #[inline(always)]
    fn take(&mut self, found: Match, symbols: &mut impl Symbols) {
        symbols.found(found);
        self.position += found.length as u64 - 1;
        self.deferred = Match::NONE;
        self.literal_deferred = false;
    }

    /// Tells the matcher of the next positions: many in a row, as that is fast.
    #[inline(always)]
    fn insert_ahead(&mut self) {
        let until = self.end.min(self.position + AHEAD);
        self.matcher.insert(&self.window, self.inserted, until);
        self.inserted = until;
    }
}
