//! Deflate with stock zlib's exact bytes, and inflate.
//!
//! Djblets compresses with CPython's `zlib.compressobj()`, which is stock zlib at level 6. Only stock zlib makes stock
//! zlib's bytes, so it is compiled in. Every inflater reads them, so a faster one does that.

use flate2::{Compress, Compression, FlushCompress};
use zlib_rs::{Inflate as ZlibInflate, InflateFlush, Status};

use crate::error::{Error, Result};

const LEVEL: Compression = Compression::new(6);
const WINDOW_BITS: u8 = 15;

/// The room that a call to zlib is given for its output, in bytes.
const OUTPUT_STEP: usize = 64 * 1024;

/// One zlib stream being written.
pub struct Deflate(Compress);

impl Default for Deflate {
    fn default() -> Self {
        Self(Compress::new(LEVEL, true))
    }
}

impl Deflate {
    /// Compresses one piece, appending to `output` what zlib gives out so far, which may be nothing.
    ///
    /// The pieces must be those that Djblets passes to `compress()`, one an item: where a call ends, zlib may slide its
    /// window a little earlier, and then find another match (seen at positions 65274 + 32768 k of a stream).
    pub fn write(&mut self, piece: &[u8], output: &mut Vec<u8>) -> Result<()> {
        self.run(piece, FlushCompress::None, output)
    }

    /// Ends the stream.
    pub fn finish(&mut self, output: &mut Vec<u8>) -> Result<()> {
        self.run(&[], FlushCompress::Finish, output)
    }

    fn run(&mut self, mut piece: &[u8], flush: FlushCompress, output: &mut Vec<u8>) -> Result<()> {
        loop {
            output.reserve(OUTPUT_STEP);
            let before = self.0.total_in();
            let status = self
                .0
                .compress_vec(piece, output, flush)
                .map_err(|_| Error::Zlib("deflate failed"))?;
            let taken = usize::try_from(self.0.total_in() - before).unwrap_or(piece.len());
            piece = piece.get(taken..).unwrap_or_default();
            let ended = match flush {
                FlushCompress::Finish => status == flate2::Status::StreamEnd,
                // Room left over means that zlib has nothing more to give for now.
                _ => piece.is_empty() && output.len() < output.capacity(),
            };
            if ended {
                return Ok(());
            }
        }
    }
}

/// One zlib stream being read.
pub struct Inflate {
    stream: ZlibInflate,
    ended: bool,
}

impl Default for Inflate {
    fn default() -> Self {
        Self {
            stream: ZlibInflate::new(true, WINDOW_BITS),
            ended: false,
        }
    }
}

impl Inflate {
    /// Inflates the beginning of `input` into the spare part of `output`. Returns how many bytes were read and written.
    ///
    /// Fails where the stream is damaged, and on input behind its end: nothing that Djblets wrote has any.
    pub fn read(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize)> {
        if self.ended {
            return if input.is_empty() {
                Ok((0, 0))
            } else {
                Err(Error::Zlib("data follows its end"))
            };
        }
        let (read, written) = (self.stream.total_in(), self.stream.total_out());
        let status = match self.stream.decompress(input, output, InflateFlush::NoFlush) {
            Ok(status) => status,
            Err(zlib_rs::InflateError::NeedDict { .. }) => return Err(Error::Zlib("it asks for a dictionary")),
            Err(_) => return Err(Error::Zlib("it is not a valid zlib stream")),
        };
        self.ended = status == Status::StreamEnd;
        let read = usize::try_from(self.stream.total_in() - read).unwrap_or(input.len());
        let written = usize::try_from(self.stream.total_out() - written).unwrap_or(output.len());
        Ok((read, written))
    }

    /// Whether the stream has ended and its checksum was right.
    pub fn ended(&self) -> bool {
        self.ended
    }
}
