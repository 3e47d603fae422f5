//! Huffman codes as zlib makes them.

/// The longest code of literals, lengths and distances (RFC 1951, section 3.2.7).
pub(super) const MAX_BITS: usize = 15;

/// Literals, the end of a block, lengths, and two more that only the fixed code has.
pub(super) const MAX_SYMBOLS: usize = 288;

/// A node of the tree being built: its frequency, its depth, its number.
///
/// Of two with the same frequency the flatter one goes first. Of two that are as flat as well, the order is what falls
/// out of the heap, so the heap has to be zlib's.
#[derive(Clone, Copy, Default)]
struct Node(u64);

impl Node {
    fn new(frequency: u64, depth: u64, number: usize) -> Self {
        Self(frequency << 32 | depth << 16 | number as u64)
    }

    fn number(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    /// The father of two nodes.
    fn join(self, other: Self, number: usize) -> Self {
        let depth = |node: Self| node.0 >> 16 & 0xffff;
        Self::new(
            (self.0 >> 32) + (other.0 >> 32),
            depth(self).max(depth(other)) + 1,
            number,
        )
    }

    fn before(self, other: Self) -> bool {
        self.0 >> 16 <= other.0 >> 16
    }
}

/// A heap of nodes; the first is unused, the sons of `n` are `2n` and `2n + 1`.
struct Heap {
    nodes: [Node; MAX_SYMBOLS + 1],
    length: usize,
}

impl Heap {
    fn push_leaf(&mut self, symbol: usize, frequency: u16) {
        self.length += 1;
        self.nodes[self.length] = Node::new(u64::from(frequency), 0, symbol);
    }

    fn sift(&mut self, mut place: usize) {
        let node = self.nodes[place];
        loop {
            let mut son = 2 * place;
            if son > self.length {
                break;
            }
            if son < self.length && self.nodes[son + 1].before(self.nodes[son]) {
                son += 1;
            }
            if node.before(self.nodes[son]) {
                break;
            }
            self.nodes[place] = self.nodes[son];
            place = son;
        }
        self.nodes[place] = node;
    }

    fn pop(&mut self) -> Node {
        let first = self.nodes[1];
        self.nodes[1] = self.nodes[self.length];
        self.length -= 1;
        self.sift(1);
        first
    }

    fn replace_first(&mut self, node: Node) {
        self.nodes[1] = node;
        self.sift(1);
    }
}

/// A canonical Huffman code (RFC 1951, section 3.2.2).
pub(super) struct Huffman {
    pub(super) lengths: [u8; MAX_SYMBOLS],
    /// With their bits reversed, as they are sent.
    pub(super) codes: [u16; MAX_SYMBOLS],
    /// How many symbols are to be sent: up to the last that is used.
    pub(super) count: usize,
}

impl Huffman {
    /// The code for symbols of these frequencies, limited to `max_length` bits.
    pub(super) fn new(frequencies: &[u16], max_length: usize) -> Self {
        let mut heap = Heap {
            nodes: [Node::default(); MAX_SYMBOLS + 1],
            length: 0,
        };
        let mut count = 0;
        for (symbol, &frequency) in frequencies.iter().enumerate() {
            if frequency != 0 {
                heap.push_leaf(symbol, frequency);
                count = symbol + 1;
            }
        }
        // PKZIP wants at least one distance code, and a code of at least one bit: zlib makes two codes at least.
        while heap.length < 2 {
            if count < 3 {
                heap.push_leaf(count, 1);
                count += 1;
            } else {
                heap.push_leaf(0, 1);
            }
        }
        let lengths = lengths(heap, frequencies.len(), max_length);
        Self {
            lengths,
            codes: codes(&lengths),
            count,
        }
    }

    /// How many bits the symbols take, extra bits not counted.
    pub(super) fn cost(&self, frequencies: &[u16]) -> usize {
        let lengths = self.lengths.iter().map(|&length| usize::from(length));
        let frequencies = frequencies.iter().map(|&frequency| usize::from(frequency));
        lengths
            .zip(frequencies)
            .map(|(length, frequency)| length * frequency)
            .sum()
    }
}

/// The lengths of the codes.
fn lengths(mut heap: Heap, symbols: usize, max_length: usize) -> [u8; MAX_SYMBOLS] {
    let mut fathers = [0_u16; 2 * MAX_SYMBOLS];
    // In the order in which they left the heap, so by frequency.
    let mut sorted = [0_u16; 2 * MAX_SYMBOLS];
    let mut node = symbols;
    let mut left = 0;
    for leaf in (1..=heap.length / 2).rev() {
        heap.sift(leaf);
    }
    while heap.length >= 2 {
        let one = heap.pop();
        let other = heap.nodes[1];
        for son in [one, other] {
            sorted[left] = son.number() as u16;
            fathers[son.number()] = node as u16;
            left += 1;
        }
        heap.replace_first(one.join(other, node));
        node += 1;
    }
    limit_lengths(&sorted[..left], &fathers, symbols, node - 1, max_length)
}

/// The leaves' depths, with those beyond the limit made good the way zlib does, which is not the best.
fn limit_lengths(sorted: &[u16], fathers: &[u16], symbols: usize, root: usize, max_length: usize) -> [u8; MAX_SYMBOLS] {
    let mut depths = [0_u8; 2 * MAX_SYMBOLS];
    let mut counts = [0_u16; MAX_BITS + 1];
    let mut overflow = 0;
    depths[root] = 0;
    for &node in sorted.iter().rev() {
        let node = usize::from(node);
        let mut depth = usize::from(depths[usize::from(fathers[node])]) + 1;
        if depth > max_length {
            depth = max_length;
            overflow += 1;
        }
        depths[node] = depth as u8;
        if node < symbols {
            counts[depth] += 1;
        }
    }
    if overflow > 0 {
        shorten(&mut counts, overflow, max_length);
        let mut leaves = sorted
            .iter()
            .map(|&node| usize::from(node))
            .filter(|&node| node < symbols);
        for length in (1..=max_length).rev() {
            for leaf in leaves.by_ref().take(usize::from(counts[length])) {
                depths[leaf] = length as u8;
            }
        }
    }
    let mut lengths = [0; MAX_SYMBOLS];
    lengths[..symbols].copy_from_slice(&depths[..symbols]);
    lengths
}

/// Moves leaves down the tree until it has room for those that were too deep.
fn shorten(counts: &mut [u16; MAX_BITS + 1], mut overflow: i32, max_length: usize) {
    while overflow > 0 {
        let length = (1..max_length).rev().find(|&length| counts[length] != 0).unwrap_or(1);
        counts[length] -= 1;
        counts[length + 1] += 2;
        counts[max_length] -= 1;
        overflow -= 2;
    }
}

/// The codes that follow from their lengths.
pub(super) const fn codes(lengths: &[u8; MAX_SYMBOLS]) -> [u16; MAX_SYMBOLS] {
    let mut counts = [0_u16; MAX_BITS + 1];
    let mut symbol = 0;
    while symbol < MAX_SYMBOLS {
        counts[lengths[symbol] as usize] += 1;
        symbol += 1;
    }
    counts[0] = 0;
    let mut next = [0_u16; MAX_BITS + 1];
    let mut length = 1;
    while length <= MAX_BITS {
        next[length] = (next[length - 1] + counts[length - 1]) << 1;
        length += 1;
    }
    let mut codes = [0; MAX_SYMBOLS];
    let mut symbol = 0;
    while symbol < MAX_SYMBOLS {
        let length = lengths[symbol] as usize;
        if length != 0 {
            codes[symbol] = next[length].reverse_bits() >> (16 - length);
            next[length] += 1;
        }
        symbol += 1;
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of RFC 1951, section 3.2.2.
    #[test]
    fn codes_follow_from_lengths() {
        let mut lengths = [0; MAX_SYMBOLS];
        lengths[..8].copy_from_slice(&[3, 3, 3, 3, 3, 2, 4, 4]);
        let codes = codes(&lengths);
        let sent: Vec<u16> = (0..8)
            .map(|symbol| codes[symbol].reverse_bits() >> (16 - lengths[symbol]))
            .collect();
        assert_eq!(sent, [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111]);
    }

    #[test]
    fn there_are_two_codes_at_least() {
        for (frequencies, expected) in [
            ([0, 0, 0, 0], 2),
            ([5, 0, 0, 0], 2),
            ([0, 0, 5, 0], 3),
            ([0, 0, 0, 5], 4),
        ] {
            let code = Huffman::new(&frequencies, MAX_BITS);
            assert_eq!(code.count, expected);
            assert_eq!(code.lengths.iter().filter(|&&length| length == 1).count(), 2);
        }
    }

    proptest! {
        #[test]
        fn a_code_is_complete(
            // Powers, so that some codes come out too long.
            exponents in prop::collection::vec(0..12_u32, 2..40),
            max_length in 6..=MAX_BITS,
        ) {
            let frequencies: Vec<u16> = exponents.iter().map(|&exponent| 1 << exponent).collect();
            let code = Huffman::new(&frequencies, max_length);
            let used: u32 = code.lengths.iter().filter(|&&length| length != 0).map(|&length| 1 << (MAX_BITS as u8 - length)).sum();
            prop_assert_eq!(used, 1 << MAX_BITS);
            prop_assert!(code.lengths.iter().all(|&length| usize::from(length) <= max_length));
        }
    }
}
