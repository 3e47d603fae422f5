//! Finds the matches that zlib finds.

use std::ops::ControlFlow;

use super::window::Window;
use super::{MAX_MATCH, MIN_MATCH, WINDOW_SIZE, u16x4, zeroed};
use crate::error::Result;

/// zlib's limit, its window less its `MIN_LOOKAHEAD`.
const MAX_DISTANCE: u16 = 32506;

/// zlib's parameters at level 6.
const MAX_CHAIN: u16 = 128;
const GOOD_LENGTH: usize = 8;
const NICE_LENGTH: usize = 128;

/// A match of three bytes that is farther away than this costs more than three literals.
const TOO_FAR: u16 = 4096;

const POSITIONS: usize = WINDOW_SIZE as usize;
const HASH3: usize = 1 << 15;
const HASH4_BITS: u32 = 15;
const HASH4: usize = 1 << HASH4_BITS;

/// Up to this position chains are mostly empty.
const YOUNG: u64 = WINDOW_SIZE + (1 << 14);

/// How many groups of candidates are looked at before the plain chain is cheaper.
const MAX_GROUPS: usize = 40;

/// The distances of the four nearest candidates, the nearest lowest. Those of 32 KiB or more are only known to be so.
#[derive(Clone, Copy, Default)]
struct Nearest(u64);

impl Nearest {
    const TOO_FAR: u64 = 0x8000_8000_8000_8000;

    /// In a run of one byte: 1, 2, 3 and 4.
    const IN_RUN: u64 = 0x0004_0003_0002_0001;

    #[inline(always)]
    fn distance(self, lane: u32) -> u16 {
        (self.0 >> (16 * lane)) as u16
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    pub(super) length: usize,
    pub(super) distance: u16,
}

impl Match {
    pub(super) const NONE: Self = Self { length: 2, distance: 0 };
}

/// A position's place in zlib's hash chain, in one number, as one is read and one written at every position.
///
/// The low half is the position before it in the chain. It may be of long ago, and then seem near. Where it seems to
/// match, it is known already: the same search passed it, or began there. The high half is its rank: how many were in
/// the chain before it, so that the steps between two positions are known without a walk.
#[derive(Clone, Copy, Default)]
struct Link(u32);

impl Link {
    #[inline(always)]
    fn previous(self) -> u16 {
        self.0 as u16
    }

    #[inline(always)]
    fn rank(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

/// The last position with a hash, and its rank, as in a [`Link`].
#[derive(Clone, Copy, Default)]
struct Head(u32);

impl Head {
    /// The place in the chain of the next position.
    #[inline(always)]
    fn next(self) -> Link {
        Link(self.0.wrapping_add(1 << 16))
    }

    #[inline(always)]
    fn new(at: u16, link: Link) -> Self {
        Self(link.0 & !0xffff | u32::from(at))
    }

    fn prune(&mut self, at: u16) {
        self.0 = self.0 & !0xffff | u32::from(prune(self.0 as u16, at));
    }
}

/// The last position with a finer hash, and the distances that it knows but for the farthest, which nobody behind it
/// asks for.
#[derive(Clone, Copy, Default)]
struct FineHead(u64);

impl FineHead {
    /// What the next position knows.
    #[inline(always)]
    fn seen_from(self, at: u16) -> Nearest {
        Nearest(u16x4::saturating_add(self.0 & !0xffff, at.wrapping_sub(self.0 as u16)))
    }

    #[inline(always)]
    fn new(at: u16, nearest: Nearest) -> Self {
        Self(nearest.0 << 16 | u64::from(at))
    }

    fn prune(&mut self, at: u16) {
        self.0 = self.0 & !0xffff | u64::from(prune(self.0 as u16, at));
    }
}

/// Moves a position that is too far away so that it stays so for another 32 KiB.
#[inline(always)]
fn prune(position: u16, at: u16) -> u16 {
    at.wrapping_sub(at.wrapping_sub(position).min(0x8000))
}

pub(super) struct Matcher {
    heads: Box<[Head; HASH3]>,
    links: Box<[Link; POSITIONS]>,
    fine_heads: Box<[FineHead; HASH4]>,
    /// For each position the distances of the nearest ones that share its finer hash, the nearest first.
    nearest: Box<[Nearest; POSITIONS]>,
}

/// zlib's hash of three bytes, from that at the position before. Its collisions count, as they fill the chains.
#[inline(always)]
fn next_hash3(hash: usize, word: u32) -> usize {
    (hash << 5 ^ (word >> 16 & 0xff) as usize) % HASH3
}

/// What is the same as the hash at the position before, as far as the next one depends on it.
fn hash3_before(word: u32) -> usize {
    next_hash3((word & 0xff) as usize, word << 8)
}

#[inline(always)]
fn hash4(word: u32) -> usize {
    (word.wrapping_mul(0x9e37_79b1) >> (32 - HASH4_BITS)) as usize
}

/// Where a position's entry is.
#[inline(always)]
fn slot(at: u16) -> usize {
    usize::from(at) % POSITIONS
}

impl Matcher {
    pub(super) fn new() -> Result<Self> {
        let mut matcher = Self {
            heads: zeroed()?,
            links: zeroed()?,
            fine_heads: zeroed()?,
            nearest: zeroed()?,
        };
        matcher.clear(WINDOW_SIZE);
        Ok(matcher)
    }

    /// Forgets everything before `start`. The heads are set to what is too far away from the next `WINDOW_SIZE` positions; what
    /// they don't lead to is never read.
    pub(super) fn clear(&mut self, start: u64) {
        let far = start.wrapping_sub(WINDOW_SIZE) as u16;
        self.heads.fill(Head(far.into()));
        self.fine_heads.fill(FineHead(far.into()));
        // A stream's first position is searched for, but never inserted. Of the one before, it is asked whether it is in a run.
        for at in [start.wrapping_sub(1) as u16, start as u16] {
            self.links[slot(at)] = Link(far.into());
            self.nearest[slot(at)] = Nearest(Nearest::TOO_FAR);
        }
    }

    /// Learns of the positions from `start` to `end`.
    #[inline(always)]
    pub(super) fn insert(&mut self, window: &Window, mut start: u64, end: u64) {
        let (before, word) = (start.wrapping_sub(1) as u16, window.word(start as u16, 0));
        if self.nearest[slot(before)].0 == Nearest::IN_RUN && window.word(before, 0) == word {
            start = self.insert_run(window, start, end, word);
        }
        let Self {
            heads,
            links,
            fine_heads,
            nearest,
        } = self;
        // In a run of one byte the hashes stay the same, and each position is the next one's nearest candidate. To know that is
        // faster than to look it up.
        let mut last_word = !window.word(start as u16, 0);
        let mut hash3 = hash3_before(window.word(start as u16, 0));
        let mut hash4 = 0;
        let (mut head, mut fine_head) = (Head::default(), FineHead::default());
        for position in start..end {
            let at = position as u16;
            let word = window.word(at, 0);
            if word != last_word {
                hash3 = next_hash3(hash3, word);
                hash4 = self::hash4(word);
                (head, fine_head) = (heads[hash3], fine_heads[hash4]);
            }
            let (link, near) = (head.next(), fine_head.seen_from(at));
            (links[slot(at)], nearest[slot(at)]) = (link, near);
            (head, fine_head) = (Head::new(at, link), FineHead::new(at, near));
            (heads[hash3], fine_heads[hash4]) = (head, fine_head);
            last_word = word;
        }
    }

    /// Goes on in a long run of one byte, of which `word` is four, as far as it reaches. Of each position only the rank is new.
    /// Returns the position after the last.
    #[inline(always)]
    fn insert_run(&mut self, window: &Window, mut position: u64, end: u64, word: u32) -> u64 {
        let hash3 = next_hash3(hash3_before(word), word);
        let mut head = self.heads[hash3];
        while position < end && window.word(position as u16, 0) == word {
            let at = position as u16;
            let link = head.next();
            (self.links[slot(at)], self.nearest[slot(at)]) = (link, Nearest(Nearest::IN_RUN));
            head = Head::new(at, link);
            position += 1;
        }
        self.heads[hash3] = head;
        self.fine_heads[hash4(word)] = FineHead::new(position.wrapping_sub(1) as u16, Nearest(Nearest::IN_RUN));
        position
    }

    /// Moves the heads that are too far away so that they stay so until the next call, `WINDOW_SIZE` positions on.
    pub(super) fn prune(&mut self, position: u64) {
        let at = position as u16;
        self.heads.iter_mut().for_each(|head| head.prune(at));
        self.fine_heads.iter_mut().for_each(|head| head.prune(at));
    }

    /// The match that zlib finds at `position`, if it is longer than the one at the previous position.
    #[inline(always)]
    pub(super) fn longest(
        &self,
        window: &Window,
        position: u64,
        previous_length: usize,
        lookahead: usize,
        ran_dry: bool,
    ) -> Match {
        let at = position as u16;
        let own = self.links[slot(at)];
        // Later on it is even odds whether a chain is empty, and a wrong guess costs more than a look at candidates.
        if position < YOUNG && at.wrapping_sub(own.previous()) >= 0x8000 {
            return Match::NONE;
        }
        let length = previous_length.max(MIN_MATCH);
        let mut search = Search {
            matcher: self,
            window,
            at,
            rank: own.rank(),
            most: lookahead.min(MAX_MATCH),
            nice: lookahead.min(NICE_LENGTH),
            chain: chain(previous_length),
            reach: reach(at, own.previous(), ran_dry),
            best: Match { length, distance: 0 },
        };
        if search.nearest().is_none() {
            return search.chain(previous_length);
        }
        if search.best.distance != 0 {
            search.best
        } else if previous_length < MIN_MATCH {
            self.nearest_triple(window, at, own.previous())
        } else {
            Match::NONE
        }
    }

    /// The nearest match of three bytes.
    #[inline(always)]
    fn nearest_triple(&self, window: &Window, at: u16, mut candidate: u16) -> Match {
        let triple = window.word(at, 0) << 8;
        for _ in 0..MAX_CHAIN {
            let distance = at.wrapping_sub(candidate);
            if distance.wrapping_sub(1) >= TOO_FAR {
                break;
            }
            if window.word(candidate, 0) << 8 == triple {
                return Match {
                    length: MIN_MATCH,
                    distance,
                };
            }
            candidate = self.links[slot(candidate)].previous();
        }
        Match::NONE
    }
}

/// A search for the longest match.
struct Search<'a> {
    matcher: &'a Matcher,
    window: &'a Window,
    at: u16,
    rank: u16,
    /// No match is longer than this.
    most: usize,
    /// A match of this length is good enough to stop.
    nice: usize,
    /// How many candidates zlib looks at.
    chain: u16,
    /// How far away a candidate may be.
    reach: u16,
    best: Match,
}

impl Search<'_> {
    /// Looks at those that share four bytes, which zlib meets in the same order between others that can't win. Gives up,
    /// with `None`, where foreign ones crowd the finer hash.
    #[inline(always)]
    fn nearest(&mut self) -> Option<()> {
        let mut from = self.at;
        let mut nearest = self.matcher.nearest[slot(from)];
        for group in 0..MAX_GROUPS {
            let passed = self.at.wrapping_sub(from);
            let last = nearest.distance(3);
            // Loaded now, as it takes time to arrive.
            let next = self.matcher.nearest[slot(from.wrapping_sub(last))];
            let mut matching = self.matching(nearest, from);
            while matching != 0 {
                let distance = passed.saturating_add(nearest.distance(matching.trailing_zeros()));
                if self.look_at(distance).is_break() {
                    return Some(());
                }
                matching &= matching - 1;
                matching &= self.matching(nearest, from);
            }
            from = from.wrapping_sub(last);
            // To look for the end of the chain costs as much as half a group of candidates that can't win.
            if passed.saturating_add(last) > self.reach || group % 2 == 1 && self.ends_chain(from) {
                return Some(());
            }
            nearest = next;
        }
        None
    }

    /// Of the candidates that the position `from` knows, those which may be longer than the best: a bit for each.
    #[inline(always)]
    fn matching(&self, nearest: Nearest, from: u16) -> u32 {
        let offset = (self.best.length - MIN_MATCH) as u8;
        let tail = self.window.word(self.at, offset);
        let mut matching = 0;
        for lane in 0..4 {
            let candidate = from.wrapping_sub(nearest.distance(lane));
            matching |= u32::from(self.window.word(candidate, offset) == tail) << lane;
        }
        matching
    }

    /// Takes a candidate if it is longer than the best. Breaks where zlib looks no further.
    #[inline(always)]
    fn look_at(&mut self, distance: u16) -> ControlFlow<()> {
        if distance > self.reach {
            return ControlFlow::Break(());
        }
        let candidate = self.at.wrapping_sub(distance);
        let length = self.window.common(self.at, candidate, self.most);
        if length <= self.best.length {
            return ControlFlow::Continue(());
        }
        if self.steps(candidate) > self.chain {
            return ControlFlow::Break(());
        }
        self.best = Match { length, distance };
        if length >= self.nice {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// How far down zlib's chain a candidate is, if it is in the same.
    #[inline(always)]
    fn steps(&self, candidate: u16) -> u16 {
        self.rank.wrapping_sub(self.matcher.links[slot(candidate)].rank())
    }

    /// Whether zlib looks at none that is farther away than this candidate.
    #[inline(always)]
    fn ends_chain(&self, candidate: u16) -> bool {
        self.window.word(candidate, 0) == self.window.word(self.at, 0) && self.steps(candidate) >= self.chain
    }

    /// zlib's own search, candidate by candidate.
    #[cold]
    fn chain(mut self, previous_length: usize) -> Match {
        self.best = Match {
            length: previous_length,
            distance: 0,
        };
        let mut candidate = self.at;
        for _ in 0..self.chain {
            candidate = self.matcher.links[slot(candidate)].previous();
            let distance = self.at.wrapping_sub(candidate);
            if distance.wrapping_sub(1) >= self.reach || self.look_at(distance).is_break() {
                break;
            }
        }
        let Match { length, distance } = self.best;
        if distance == 0 || length == MIN_MATCH && distance > TOO_FAR {
            Match::NONE
        } else {
            self.best
        }
    }
}

/// How many candidates are looked at.
#[inline(always)]
fn chain(previous_length: usize) -> u16 {
    if previous_length >= GOOD_LENGTH {
        MAX_CHAIN / 4
    } else {
        MAX_CHAIN
    }
}

/// How far away a candidate may be.
///
/// zlib lets the first in the chain be at the limit, the others not. But where its window, of twice 32 KiB, is about to
/// slide, it does so before it looks if there is too little input ahead, and the first is then at 0, which means "none".
#[inline(always)]
fn reach(at: u16, first: u16, ran_dry: bool) -> u16 {
    let slid = ran_dry && slot(at) == usize::from(MAX_DISTANCE);
    if at.wrapping_sub(first) == MAX_DISTANCE && !slid {
        MAX_DISTANCE
    } else {
        MAX_DISTANCE - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn distances_add_up_until_they_are_too_far(steps in prop::collection::vec(1..=0xffff_u16, 1..20)) {
            let mut at = 0_u16;
            let mut head = FineHead::new(0, Nearest(Nearest::TOO_FAR));
            let mut model = vec![0x8000_u32; 4];
            for step in steps {
                at = at.wrapping_add(step);
                let nearest = head.seen_from(at);
                head = FineHead::new(at, nearest);
                model.insert(0, 0);
                model.truncate(4);
                for (lane, distance) in (0..).zip(&mut model) {
                    *distance += u32::from(step);
                    let got = u32::from(nearest.distance(lane));
                    prop_assert!(got == *distance || got >= 0x8000 && *distance >= 0x8000);
                }
            }
        }
    }
}
