//! Finds the matches that zlib finds.

use std::ops::ControlFlow;

use super::window::Window;
use super::{MAX_MATCH, MIN_MATCH, WINDOW_SIZE, zeroed};

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
    const LANES: u64 = 0x0001_0001_0001_0001;
    const TOO_FAR: u64 = 0x8000 * Self::LANES;

    /// What a position knows whose nearest candidate knows this.
    #[inline(always)]
    fn seen_from(self, distance: u16) -> Self {
        let lanes = self.0 << 16;
        let far = lanes & Self::TOO_FAR;
        Self(((lanes ^ far) + u64::from(distance) * Self::LANES) | far)
    }

    #[inline(always)]
    fn distance(self, lane: u32) -> u16 {
        (self.0 >> (16 * lane)) as u16
    }
}

#[derive(Clone, Copy)]
pub(super) struct Match {
    pub(super) length: usize,
    pub(super) distance: u16,
}

impl Match {
    pub(super) const NONE: Self = Self { length: 2, distance: 0 };
}

/// A position's place in zlib's hash chain.
#[derive(Clone, Copy, Default)]
struct Link {
    /// This may be of long ago, and then seem near. Where it seems to match, it is known already: the same search passed
    /// it, or began there.
    previous: u16,
    /// How many were in the chain before it, so that the steps between two positions are known without a walk.
    rank: u16,
}

pub(super) struct Matcher {
    heads: Box<[u16; HASH3]>,
    links: Box<[Link; POSITIONS]>,
    fine_heads: Box<[u16; HASH4]>,
    /// For each position the distances of the nearest ones that share its finer hash, the nearest first.
    nearest: Box<[Nearest; POSITIONS]>,
}

impl Default for Matcher {
    fn default() -> Self {
        let mut matcher = Self {
            heads: zeroed(),
            links: zeroed(),
            fine_heads: zeroed(),
            nearest: zeroed(),
        };
        matcher.forget_first();
        matcher
    }
}

/// zlib's hash of three bytes. Its collisions count, as they fill the chains.
#[inline(always)]
fn hash3(word: u32) -> usize {
    (((word << 10) ^ (word >> 3 & 0x1fe0) ^ (word >> 16 & 0xff)) & 0x7fff) as usize
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
    /// Forgets everything. What the heads don't lead to is never read.
    pub(super) fn clear(&mut self) {
        self.heads.fill(0);
        self.fine_heads.fill(0);
        self.forget_first();
    }

    /// The first position is searched for, but never inserted.
    fn forget_first(&mut self) {
        self.links[0] = Link::default();
        self.nearest[0] = Nearest(Nearest::TOO_FAR);
    }

    /// Learns of the positions from `start` to `end`.
    #[inline(never)]
    pub(super) fn insert(&mut self, window: &Window, start: u64, end: u64) {
        let Self {
            heads,
            links,
            fine_heads,
            nearest,
        } = self;
        // In a run of one byte each position is the next one's nearest candidate. To know that is faster than to look it up.
        let (mut last_word, mut rank, mut near) = (!window.word(start as u16, 0), 0_u16, Nearest::default());
        for position in start..end {
            let at = position as u16;
            let word = window.word(at, 0);
            let head = std::mem::replace(&mut heads[hash3(word)], at);
            let fine_head = std::mem::replace(&mut fine_heads[hash4(word)], at);
            if word == last_word {
                rank = rank.wrapping_add(1);
                near = near.seen_from(1);
            } else {
                rank = links[slot(head)].rank.wrapping_add(1);
                near = nearest[slot(fine_head)].seen_from(at.wrapping_sub(fine_head).min(0x8000));
            }
            links[slot(at)] = Link { previous: head, rank };
            nearest[slot(at)] = near;
            last_word = word;
        }
    }

    /// Moves the heads that are too far away so that they stay so until the next call, `WINDOW_SIZE` positions on.
    pub(super) fn prune(&mut self, position: u64) {
        let at = position as u16;
        let prune = |head: &mut u16| *head = at.wrapping_sub(at.wrapping_sub(*head).min(0x8000));
        self.heads.iter_mut().for_each(prune);
        self.fine_heads.iter_mut().for_each(prune);
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
        if position < YOUNG && at.wrapping_sub(own.previous) >= 0x8000 {
            return Match::NONE;
        }
        let length = previous_length.max(MIN_MATCH);
        let mut search = Search {
            matcher: self,
            window,
            at,
            rank: own.rank,
            most: lookahead.min(MAX_MATCH),
            nice: lookahead.min(NICE_LENGTH),
            chain: chain(previous_length),
            reach: reach(at, own.previous, ran_dry),
            best: Match { length, distance: 0 },
        };
        if search.nearest().is_none() {
            return search.chain(previous_length);
        }
        if search.best.distance != 0 {
            search.best
        } else if previous_length < MIN_MATCH {
            self.nearest_triple(window, at, own.previous)
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
            candidate = self.links[slot(candidate)].previous;
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
        for _ in 0..MAX_GROUPS {
            let passed = self.at.wrapping_sub(from);
            let nearest = self.matcher.nearest[slot(from)];
            let mut matching = self.matching(nearest, from);
            while matching != 0 {
                let distance = passed.saturating_add(nearest.distance(matching.trailing_zeros()));
                if self.look_at(distance).is_break() {
                    return Some(());
                }
                matching &= matching - 1;
                matching &= self.matching(nearest, from);
            }
            let last = nearest.distance(3);
            from = from.wrapping_sub(last);
            if passed.saturating_add(last) > self.reach || self.ends_chain(from) {
                return Some(());
            }
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
        self.rank.wrapping_sub(self.matcher.links[slot(candidate)].rank)
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
            candidate = self.matcher.links[slot(candidate)].previous;
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
        fn distances_add_up_until_they_are_too_far(steps in prop::collection::vec(1..0x8001_u16, 1..20)) {
            let mut nearest = Nearest(Nearest::TOO_FAR);
            let mut model = vec![0x8000_u32; 4];
            for step in steps {
                nearest = nearest.seen_from(step);
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
