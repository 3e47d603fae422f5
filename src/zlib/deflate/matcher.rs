//! Finds the matches that zlib finds.

use super::window::Window;
use super::{MAX_MATCH, WINDOW_SIZE, zeroed};

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

    /// Of the candidates of the position `from`, those where the window has `tail` at this offset: a bit for each.
    #[inline(always)]
    fn matching(self, window: &Window, from: u16, offset: u8, tail: u32) -> u32 {
        let mut matching = 0;
        for lane in 0..4 {
            matching |= u32::from(window.word(from.wrapping_sub(self.distance(lane)), offset) == tail) << lane;
        }
        matching
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
        let most = lookahead.min(MAX_MATCH);
        let nice = lookahead.min(NICE_LENGTH);
        let chain = chain(previous_length);
        let reach = reach(at, own.previous, ran_dry);
        let word = window.word(at, 0);

        let mut best = Match {
            length: previous_length.max(3),
            distance: 0,
        };
        let mut offset = (best.length - 3) as u8;
        let mut tail = window.word(at, offset);
        let mut from = at;
        let mut groups = 0;
        'search: loop {
            let nearest = self.nearest[slot(from)];
            let mut matching = nearest.matching(window, from, offset, tail);
            while matching != 0 {
                let lane = matching.trailing_zeros();
                matching &= matching - 1;
                let distance = at.wrapping_sub(from).saturating_add(nearest.distance(lane));
                if distance > reach {
                    break 'search;
                }
                let candidate = at.wrapping_sub(distance);
                let length = window.common(at, candidate, most);
                if length <= best.length {
                    continue;
                }
                if own.rank.wrapping_sub(self.links[slot(candidate)].rank) > chain {
                    break 'search;
                }
                best = Match { length, distance };
                if length >= nice {
                    break 'search;
                }
                offset = (length - 3) as u8;
                tail = window.word(at, offset);
                matching &= nearest.matching(window, from, offset, tail);
            }
            let last = nearest.distance(3);
            if at.wrapping_sub(from).saturating_add(last) > reach {
                break;
            }
            from = from.wrapping_sub(last);
            if window.word(from, 0) == word && own.rank.wrapping_sub(self.links[slot(from)].rank) >= chain {
                break;
            }
            groups += 1;
            if groups == MAX_GROUPS {
                return self.longest_in_chain(window, at, previous_length, lookahead, reach);
            }
        }
        if best.distance != 0 {
            best
        } else if previous_length < 3 {
            self.nearest_triple(window, at, own.previous, word)
        } else {
            Match::NONE
        }
    }

    /// zlib's own search, candidate by candidate. Where foreign ones crowd the finer hash, it is faster.
    #[cold]
    fn longest_in_chain(
        &self,
        window: &Window,
        at: u16,
        previous_length: usize,
        lookahead: usize,
        reach: u16,
    ) -> Match {
        let chain = chain(previous_length);
        let mut best = Match {
            length: previous_length,
            distance: 0,
        };
        let mut candidate = at;
        for _ in 0..chain {
            candidate = self.links[slot(candidate)].previous;
            let distance = at.wrapping_sub(candidate);
            if distance.wrapping_sub(1) >= reach {
                break;
            }
            let length = window.common(at, candidate, lookahead);
            if length > best.length {
                best = Match { length, distance };
                if length >= lookahead.min(NICE_LENGTH) {
                    break;
                }
            }
        }
        if best.distance == 0 || best.length == 3 && best.distance > TOO_FAR {
            Match::NONE
        } else {
            best
        }
    }

    #[inline(always)]
    fn nearest_triple(&self, window: &Window, at: u16, mut candidate: u16, word: u32) -> Match {
        for _ in 0..MAX_CHAIN {
            let distance = at.wrapping_sub(candidate);
            if distance.wrapping_sub(1) >= TOO_FAR {
                break;
            }
            if (window.word(candidate, 0) ^ word) & 0x00ff_ffff == 0 {
                return Match { length: 3, distance };
            }
            candidate = self.links[slot(candidate)].previous;
        }
        Match::NONE
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
