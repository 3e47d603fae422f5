//! The stream: what is written of what the parser finds.

use zlib_rs::adler32::adler32;

use super::bits::BitWriter;
use super::block::{Block, Symbol};
use super::matcher::Match;
use super::parallel::{self, Plan};
use super::parser::{Parser, Pieces, Symbols};
use super::window::{self, Window};
use super::{WINDOW_SIZE, multiversion};
use crate::error::Result;
use crate::memory::{append, grow};

/// Deflate with a window of 32 KiB at zlib's default level (RFC 1950, section 2.2).
const HEADER: [u8; 2] = [0x78, 0x9c];

pub(super) struct Stream {
    parser: Parser,
    blocks: Blocks,
    /// What is yet to be written of it.
    header: &'static [u8],
    checksum: u32,
    /// Parsers for other threads.
    helpers: Vec<Parser>,
}

impl Stream {
    pub(super) fn new() -> Result<Self> {
        Ok(Self::begin(Parser::new()?, Blocks::new(Block::new()?)))
    }

    fn begin(parser: Parser, blocks: Blocks) -> Self {
        Self {
            parser,
            blocks,
            header: &HEADER,
            checksum: 1,
            helpers: Vec::new(),
        }
    }

    /// Another stream in the same memory.
    pub(super) fn restart(mut self) -> Self {
        self.blocks.block.clear();
        Self::begin(self.parser.restart(), Blocks::new(self.blocks.block))
    }

    /// Frees the memory that only long inputs need.
    pub(super) fn shrink(&mut self) {
        self.helpers = Vec::new();
    }

    /// Compresses the bytes, of which pieces end at `ends`, the last of them at the end. `written` is called when more of the
    /// output is there.
    pub(super) fn write(
        &mut self,
        bytes: &[u8],
        ends: &[usize],
        plan: Option<Plan>,
        output: &mut Vec<u8>,
        written: &mut dyn FnMut(&mut Vec<u8>),
    ) -> Result<()> {
        append(output, std::mem::take(&mut self.header))?;
        self.checksum = adler32(self.checksum, bytes);
        let start = self.parser.end();
        let pieces = Pieces { bytes, ends, start };
        let encoder = &mut Encoder {
            blocks: &mut self.blocks,
            output,
        };
        match plan {
            Some(plan) => parallel::parse(&pieces, plan, &mut self.parser, &mut self.helpers, encoder, written)?,
            None => multiversion::feed(&mut self.parser, &pieces, 0..bytes.len(), encoder)?,
        }
        written(output);
        Ok(())
    }

    pub(super) fn finish(&mut self, output: &mut Vec<u8>) -> Result<()> {
        append(output, std::mem::take(&mut self.header))?;
        let encoder = &mut Encoder {
            blocks: &mut self.blocks,
            output,
        };
        multiversion::finish(&mut self.parser, encoder)?;
        encoder.end_block(self.parser.window.range(encoder.blocks.start, self.parser.end()), true)?;
        grow(output, 1)?;
        self.blocks.bits.align(output);
        append(output, &self.checksum.to_be_bytes())
    }
}

/// The block that is being filled.
pub(super) struct Blocks {
    block: Block,
    bits: BitWriter,
    /// Where the block begins.
    start: u64,
}

impl Blocks {
    fn new(block: Block) -> Self {
        Self {
            block,
            bits: BitWriter::default(),
            start: WINDOW_SIZE,
        }
    }
}

/// Writes blocks.
pub(super) struct Encoder<'a> {
    blocks: &'a mut Blocks,
    pub(super) output: &'a mut Vec<u8>,
}

impl Encoder<'_> {
    /// Takes literals and matches of which the first begins at `position`, far behind the beginning of `pieces`.
    pub(super) fn take(&mut self, symbols: &[Symbol], mut position: u64, pieces: &Pieces<'_>) -> Result<()> {
        for &symbol in symbols {
            self.blocks.block.push(symbol);
            position += symbol.size();
            if self.is_full() {
                // A block that begins before the pieces is too long to be stored.
                let start = self.blocks.start.checked_sub(pieces.start);
                let stored = start.and_then(|start| {
                    let end = position - pieces.start;
                    (end - start <= window::MAX_RANGE).then(|| &pieces.bytes[start as usize..end as usize])
                });
                self.end_block(stored.map(|stored| [stored, &[]]), false)?;
                self.blocks.start = position;
            }
        }
        Ok(())
    }

    fn end_block(&mut self, stored: Option<[&[u8]; 2]>, last: bool) -> Result<()> {
        self.blocks.block.end(stored, last, &mut self.blocks.bits, self.output)
    }
}

impl Symbols for Encoder<'_> {
    #[inline(always)]
    fn literal(&mut self, byte: u8) {
        self.blocks.block.push(Symbol::literal(byte));
    }

    #[inline(always)]
    fn found(&mut self, found: Match) {
        self.blocks.block.push(Symbol::found(found));
    }

    #[inline(always)]
    fn is_full(&self) -> bool {
        self.blocks.block.is_full()
    }

    fn make_room(&mut self, window: &Window, position: u64) -> Result<()> {
        self.end_block(window.range(self.blocks.start, position), false)?;
        self.blocks.start = position;
        Ok(())
    }
}
