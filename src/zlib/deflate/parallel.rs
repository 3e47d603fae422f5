//! One long input, parsed by several threads.
//!
//! Which matches there are depends on the input alone: zlib puts every position into its chains, whatever it makes of it. Only
//! the parser's own [`State`] says which of them are used, and two parsers that begin in different states nearly always come to
//! the same one after a few bytes. So the input is cut into segments, and helpers guess: each takes a segment, begins a little
//! before it in a fresh state, notes the state at which it arrives at the border, and parses on. The main thread takes the
//! segments in order. If the state noted is the one in which the segment before has ended, the guess is what it would have found
//! itself. Otherwise it parses that segment, too.
//!
//! Literals and matches are counted and written by the main thread alone, so that blocks end where they do without helpers.
//! A helper that fails, by a panic or for want of memory, is only one that did not guess.

use std::num::NonZero;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::block::Symbol;
use super::matcher::Match;
use super::multiversion;
use super::parser::{HISTORY, MIN_LOOKAHEAD, Parser, Pieces, State, Symbols};
use super::stream::Encoder;
use super::window::Window;
use crate::error::Result;
use crate::memory::grow;

/// The most threads that are used. With each, there is more that the main thread alone has to write.
const MOST_THREADS: usize = 4;

/// A guess is not worth it if there are fewer literals and matches than this before the segment: in long runs, the parsers'
/// states don't meet.
const FEWEST_SYMBOLS: usize = 32;

/// How an input is shared between threads.
#[derive(Debug, Clone, Copy)]
pub struct Sharing {
    /// The most threads that work on it, the caller's included. None: as many as there are processors that may be used. There
    /// are never more than four.
    pub threads: Option<NonZero<usize>>,
    /// The size of a segment, in bytes, at most. An input of less than two is not shared, and no more threads are used than
    /// there are segments.
    pub segment: usize,
    /// How many bytes before a segment a helper begins.
    pub warm_up: usize,
}

impl Sharing {
    /// Shares between that many threads.
    pub const fn new(threads: Option<NonZero<usize>>) -> Self {
        Self {
            threads,
            segment: 1 << 19,
            warm_up: 1 << 12,
        }
    }

    /// Shares nothing.
    pub const fn serial() -> Self {
        Self::new(Some(NonZero::<usize>::MIN))
    }

    /// How many threads there may be. The system is asked at most once, as it takes its time.
    pub(super) fn threads(&mut self) -> usize {
        let threads = self
            .threads
            .get_or_insert_with(|| thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN));
        threads.get().min(MOST_THREADS)
    }

    /// How an input of this size is shared. None if one thread is to do it.
    pub(super) fn plan(&mut self, size: usize) -> Option<Plan> {
        // The second segment needs a history, and the state at its border may be a little before that.
        let least = HISTORY + MIN_LOOKAHEAD as usize + self.warm_up;
        if size < (2 * self.segment).max(least + self.segment) || self.threads() == 1 {
            return None;
        }
        let threads = self.threads().min(size / self.segment);
        let count = size.div_ceil(self.segment).next_multiple_of(threads);
        let segment = size.div_ceil(count);
        Some(Plan {
            threads,
            size,
            segment,
            first: segment.max(least),
            warm_up: self.warm_up,
        })
    }
}

/// How one input is cut.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    threads: usize,
    size: usize,
    /// The size of the first segment.
    first: usize,
    /// The size of the others but for the last, which may be smaller.
    segment: usize,
    warm_up: usize,
}

impl Plan {
    fn count(&self) -> usize {
        1 + (self.size - self.first).div_ceil(self.segment)
    }

    fn segment(&self, index: usize) -> Range<usize> {
        let start = |index: usize| match index.checked_sub(1) {
            Some(before) => self.size.min(self.first + before * self.segment),
            None => 0,
        };
        start(index)..start(index + 1)
    }
}

/// What a segment becomes if the parser arrives at it in the state `from`.
struct Guess {
    from: State,
    symbols: List,
    to: State,
}

/// A list of literals and matches.
#[derive(Default)]
pub(super) struct List(Vec<Symbol>);

impl List {
    const ROOM: usize = 1 << 14;

    pub(super) fn as_slice(&self) -> &[Symbol] {
        &self.0
    }
}

impl Symbols for List {
    #[inline(always)]
    fn literal(&mut self, byte: u8) {
        self.0.push(Symbol::literal(byte));
    }

    #[inline(always)]
    fn found(&mut self, found: Match) {
        self.0.push(Symbol::found(found));
    }

    #[inline(always)]
    fn is_full(&self) -> bool {
        self.0.len() == self.0.capacity()
    }

    #[cold]
    fn make_room(&mut self, _: &Window, _: u64) -> Result<()> {
        grow(&mut self.0, Self::ROOM)
    }
}

/// What the threads know of each other.
struct Board {
    /// How many segments have been taken by a thread, in order.
    taken: usize,
    /// How many are written.
    written: usize,
    /// For each segment what became of it. The inner `None`: no guess.
    results: Vec<Option<Option<Guess>>>,
    /// Whether there is nothing left to do.
    stopped: bool,
}

struct Job<'a> {
    pieces: &'a Pieces<'a>,
    plan: Plan,
    board: Mutex<Board>,
    changed: Condvar,
}

impl<'a> Job<'a> {
    fn new(pieces: &'a Pieces<'a>, plan: Plan) -> Result<Self> {
        let mut results = Vec::new();
        grow(&mut results, plan.count())?;
        results.resize_with(plan.count(), || None);
        // The first segment is the main thread's, as only its parser knows what was before.
        results[0] = Some(None);
        Ok(Self {
            pieces,
            plan,
            board: Mutex::new(Board {
                taken: 1,
                written: 0,
                results,
                stopped: false,
            }),
            changed: Condvar::new(),
        })
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        // Nothing that can panic is done with it.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'b>(&self, board: MutexGuard<'b, Board>) -> MutexGuard<'b, Board> {
        self.changed.wait(board).unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next segment, if that is not too far ahead of what is written: guesses take memory.
    fn take(&self, board: &mut Board) -> Option<usize> {
        let index = board.taken;
        let most = self.plan.count().min(board.written + 2 * self.plan.threads);
        (index < most).then(|| {
            board.taken += 1;
            index
        })
    }

    /// What a helper does.
    fn help(&self, parser: &mut Parser) {
        let mut board = self.board();
        while !board.stopped && board.taken < self.plan.count() {
            match self.take(&mut board) {
                Some(index) => {
                    drop(board);
                    self.guess_one(index, parser);
                    board = self.board();
                }
                None => board = self.wait(board),
            }
        }
    }

    fn guess_one(&self, index: usize, parser: &mut Parser) {
        // Each guess begins with a parser that remembers nothing.
        let guess = catch_unwind(AssertUnwindSafe(|| self.guess(index, parser)));
        self.board().results[index] = Some(guess.ok().and_then(Result::ok).flatten());
        self.changed.notify_all();
    }

    fn guess(&self, index: usize, parser: &mut Parser) -> Result<Option<Guess>> {
        #[cfg(test)]
        tests::fail(self.pieces, index);
        let segment = self.plan.segment(index);
        let start = segment.start - self.plan.warm_up;
        let fresh = State::new(self.pieces.start + start as u64);
        multiversion::resume(parser, self.pieces, start, fresh);
        let mut symbols = List::default();
        grow(&mut symbols.0, List::ROOM)?;
        multiversion::feed(parser, self.pieces, start..segment.start, &mut symbols)?;
        if symbols.0.len() < FEWEST_SYMBOLS {
            return Ok(None);
        }
        symbols.0.clear();
        let from = parser.state();
        multiversion::feed(parser, self.pieces, segment, &mut symbols)?;
        let to = parser.state();
        Ok(Some(Guess { from, symbols, to }))
    }

    /// The guess for a segment whose turn it is. None if the main thread has to parse it. Until it is known, `parser` helps with
    /// later segments.
    fn next(&self, index: usize, parser: &mut Parser) -> Option<Guess> {
        let mut board = self.board();
        loop {
            if let Some(result) = board.results[index].take() {
                return result;
            }
            if board.taken == index {
                board.taken += 1;
                return None;
            }
            match self.take(&mut board) {
                Some(later) => {
                    drop(board);
                    self.guess_one(later, parser);
                    board = self.board();
                }
                None => board = self.wait(board),
            }
        }
    }

    fn set_written(&self, count: usize) {
        self.board().written = count;
        self.changed.notify_all();
    }
}

/// Lets the helpers go, whatever happens.
struct Stop<'a>(&'a Job<'a>);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.board().stopped = true;
        self.0.changed.notify_all();
    }
}

/// Parses the pieces as `parser` alone would. `written` is called when more of the output is there.
pub(super) fn parse(
    pieces: &Pieces<'_>,
    plan: Plan,
    parser: &mut Parser,
    helpers: &mut Vec<Parser>,
    encoder: &mut Encoder<'_>,
    written: &mut dyn FnMut(&mut Vec<u8>),
) -> Result<()> {
    let job = &Job::new(pieces, plan)?;
    add_helpers(helpers, plan.threads - 1);
    thread::scope(|scope| {
        let _stop = Stop(job);
        for parser in helpers.iter_mut().take(plan.threads - 1) {
            let builder = thread::Builder::new();
            if spawn(builder, scope, || job.help(parser)).is_err() {
                // The process may have no more threads.
                break;
            }
        }
        lead(job, parser, encoder, written)
    })
}

/// Adds parsers for helpers, as far as there is memory for them.
fn add_helpers(helpers: &mut Vec<Parser>, count: usize) {
    while helpers.len() < count {
        match (Parser::new(), grow(helpers, 1)) {
            (Ok(parser), Ok(())) => helpers.push(parser),
            _ => break,
        }
    }
}

fn spawn<'scope>(
    builder: thread::Builder,
    scope: &'scope thread::Scope<'scope, '_>,
    work: impl FnOnce() + Send + 'scope,
) -> std::io::Result<()> {
    #[cfg(test)]
    tests::refuse()?;
    builder.spawn_scoped(scope, work).map(drop)
}

/// What the main thread does.
fn lead(
    job: &Job<'_>,
    parser: &mut Parser,
    encoder: &mut Encoder<'_>,
    written: &mut dyn FnMut(&mut Vec<u8>),
) -> Result<()> {
    let (pieces, plan) = (job.pieces, job.plan);
    let mut state = parser.state();
    for index in 0..plan.count() {
        let segment = plan.segment(index);
        match job.next(index, parser) {
            Some(guess) if guess.from == state => {
                encoder.take(guess.symbols.as_slice(), state.parsed(), pieces)?;
                state = guess.to;
            }
            _ => {
                go_on(parser, pieces, segment.start, state);
                multiversion::feed(parser, pieces, segment, encoder)?;
                state = parser.state();
            }
        }
        job.set_written(index + 1);
        written(encoder.output);
    }
    go_on(parser, pieces, pieces.bytes.len(), state);
    Ok(())
}

/// Makes the parser one that came to this state when it had been fed `bytes[..fed]`. Mostly it is that.
fn go_on(parser: &mut Parser, pieces: &Pieces<'_>, fed: usize, state: State) {
    if parser.end() != pieces.start + fed as u64 || parser.state() != state {
        multiversion::resume(parser, pieces, fed, state);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::super::stream::Stream;
    use super::super::{Deflate, WINDOW_SIZE};
    use super::*;

    thread_local! {
        /// How many threads this thread can still start.
        static THREADS: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    /// Inputs that begin with this make helpers panic.
    const PANIC: &[u8] = b"a helper panics in every second segment";

    pub(super) fn refuse() -> std::io::Result<()> {
        let left = THREADS.get().checked_sub(1).ok_or(std::io::ErrorKind::WouldBlock)?;
        THREADS.set(left);
        Ok(())
    }

    pub(super) fn fail(pieces: &Pieces<'_>, index: usize) {
        if pieces.bytes.starts_with(PANIC) && index.is_multiple_of(2) {
            std::panic::resume_unwind(Box::new("a panic"));
        }
    }

    fn text(size: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let words = std::iter::repeat_with(|| {
            state = state.wrapping_mul(0x9e37_79b1).wrapping_add(12345);
            let word = state >> 24;
            format!("{} ", word * word)
        });
        words.flat_map(String::into_bytes).take(size).collect()
    }

    fn deflated(data: &[u8], sharing: Sharing) -> Vec<u8> {
        let mut deflate = Deflate::new(sharing);
        let mut output = Vec::new();
        deflate.write(data, &mut output).unwrap();
        deflate.finish(&mut output).unwrap();
        output
    }

    fn small(threads: usize) -> Sharing {
        Sharing {
            threads: NonZero::new(threads),
            segment: 40_000,
            warm_up: 1000,
        }
    }

    #[test]
    fn a_panic_is_contained() {
        let data = [PANIC.to_vec(), text(400_000)].concat();
        assert_eq!(deflated(&data, small(3)), deflated(&data, Sharing::serial()));

        let pieces = &Pieces {
            bytes: &data,
            ends: &[data.len()],
            start: WINDOW_SIZE,
        };
        let job = Job::new(pieces, small(3).plan(data.len()).unwrap()).unwrap();
        let mut helper = Parser::new().unwrap();
        for index in [1, 2, 3] {
            job.guess_one(index, &mut helper);
        }
        let results = job.board().results.split_off(1);
        assert!(matches!(results[..3], [Some(Some(_)), Some(None), Some(Some(_))]));
    }

    #[test]
    fn threads_that_cannot_be_started_are_done_without() {
        let data = text(400_000);
        let expected = deflated(&data, Sharing::serial());
        for threads in 0..3 {
            THREADS.set(threads);
            let output = deflated(&data, small(4));
            assert_eq!(THREADS.replace(usize::MAX), 0);
            assert_eq!(output, expected);
        }
    }

    #[test]
    fn an_error_of_the_main_thread_lets_the_helpers_go() {
        let data = text(400_000);
        let pieces = &Pieces {
            bytes: &data,
            ends: &[data.len()],
            start: WINDOW_SIZE,
        };
        let plan = small(3).plan(data.len()).unwrap();
        let mut stream = Stream::new().unwrap();
        let result = std::panic::catch_unwind(AssertUnwindSafe(|| {
            stream.write(pieces.bytes, pieces.ends, Some(plan), &mut Vec::new(), &mut |_| {
                std::panic::resume_unwind(Box::new("a panic"))
            })
        }));
        assert!(result.is_err());
    }

    /// A list of its literals and matches, and in how many segments it was guessed right.
    fn guesses(data: &[u8], sharing: &mut Sharing) -> (usize, usize) {
        let pieces = &Pieces {
            bytes: data,
            ends: &[data.len()],
            start: WINDOW_SIZE,
        };
        let plan = sharing.plan(data.len()).unwrap();
        let job = Job::new(pieces, plan).unwrap();
        let (mut truth, mut helper) = (Parser::new().unwrap(), Parser::new().unwrap());
        let mut right = 0;
        for index in 1..plan.count() {
            let before = plan.segment(index - 1);
            truth.feed(pieces, before, &mut List::default()).unwrap();
            let guess = job.guess(index, &mut helper).unwrap();
            right += usize::from(guess.is_some_and(|guess| guess.from == truth.state()));
        }
        (right, plan.count() - 1)
    }

    #[test]
    fn guesses_are_mostly_right_and_runs_are_left_alone() {
        let (right, all) = guesses(&text(2_000_000), &mut small(2));
        assert!(right * 10 > all * 9, "{right} of {all}");
        assert_eq!(guesses(&vec![0; 500_000], &mut small(2)).0, 0);
        assert_eq!(guesses(&text(500_000), &mut Sharing { warm_up: 0, ..small(2) }).0, 0);
    }

    #[test]
    fn no_more_threads_than_there_is_work_for() {
        let threads = |size: usize, most: usize| {
            let plan = Sharing::new(NonZero::new(most)).plan(size);
            plan.map_or(1, |plan| plan.threads)
        };
        assert_eq!(threads((1 << 20) - 1, 4), 1);
        assert_eq!(threads(1 << 20, 4), 2);
        assert_eq!(threads(3 << 19, 4), 3);
        assert_eq!(threads(1 << 30, 4), 4);
        assert_eq!(threads(1 << 30, 400), 4);
        assert_eq!(threads(1 << 30, 1), 1);
        assert!((1..=MOST_THREADS).contains(&Sharing::new(None).threads()));
    }

    proptest! {
        #[test]
        fn segments_cover_the_input(size: u32, threads in 2..=4_usize, segment in 600..100_000_usize, warm_up in 0..5000_usize) {
            let size = size as usize % 10_000_000;
            let mut sharing = Sharing { threads: NonZero::new(threads), segment, warm_up };
            if let Some(plan) = sharing.plan(size) {
                let mut end = 0;
                for index in 0..plan.count() {
                    let range = plan.segment(index);
                    prop_assert_eq!(range.start, end);
                    prop_assert!(!range.is_empty());
                    prop_assert!(index == 0 || range.len() <= segment && range.start >= HISTORY + warm_up);
                    end = range.end;
                }
                prop_assert_eq!(end, size);
            } else {
                prop_assert!(size < 2 * segment || size < HISTORY + warm_up + MIN_LOOKAHEAD as usize + segment);
            }
        }
    }
}
