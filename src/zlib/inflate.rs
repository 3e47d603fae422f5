//! Inflate: every inflater reads stock zlib's bytes, so a fast one does.

use zlib_rs::{Inflate as ZlibInflate, InflateFlush, Status};

use crate::error::{Error, Result};

const WINDOW_BITS: u8 = 15;

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
            Err(_) => return Err(Error::Zlib(self.fault())),
        };
        self.ended = status == Status::StreamEnd;
        let read = usize::try_from(self.stream.total_in() - read).unwrap_or(input.len());
        let written = usize::try_from(self.stream.total_out() - written).unwrap_or(output.len());
        Ok((read, written))
    }

    fn fault(&self) -> &'static str {
        match self.stream.error_message() {
            Some("incorrect data check") => "its checksum is wrong",
            _ => "it is not a valid zlib stream",
        }
    }

    /// Whether the stream has ended and its checksum was right.
    pub fn ended(&self) -> bool {
        self.ended
    }
}
