//! Inflate: every inflater reads stock zlib's bytes, so a fast one does.
#![allow(
    unsafe_code,
    reason = "zlib-rs' own API panics where memory is short; its C API, which is none for safe Rust, returns an error"
)]

use std::ffi::{CStr, c_int};

use libz_rs_sys::{
    Z_BUF_ERROR, Z_MEM_ERROR, Z_NEED_DICT, Z_NO_FLUSH, Z_OK, Z_STREAM_END, inflate, inflateEnd, inflateInit_, z_stream,
    zlibVersion,
};

use crate::error::{Error, Result};

/// One zlib stream being read.
#[derive(Default)]
pub struct Inflate {
    /// There is none before the first input.
    stream: Option<Stream>,
    ended: bool,
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
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(Stream::new()?),
        };
        let (status, read, written) = stream.inflate(input, output);
        match status {
            Z_OK | Z_BUF_ERROR => {}
            Z_STREAM_END => self.ended = true,
            Z_NEED_DICT => return Err(Error::Zlib("it asks for a dictionary")),
            Z_MEM_ERROR => return Err(Error::Memory),
            _ => return Err(Error::Zlib(stream.fault())),
        }
        Ok((read, written))
    }

    /// Whether the stream has ended and its checksum was right.
    pub fn ended(&self) -> bool {
        self.ended
    }
}

/// A stream of zlib's, which has been initialized.
struct Stream(z_stream);

// SAFETY: all that its pointers point to is its own; input and output are only looked at during a call.
unsafe impl Send for Stream {}
// SAFETY: a shared reference to it gives nothing but its message.
unsafe impl Sync for Stream {}

impl Stream {
    fn new() -> Result<Self> {
        let mut stream = z_stream::default();
        let size = size_of::<z_stream>() as c_int;
        // SAFETY: the default has an allocator. Once initialized it may be moved, as nothing of zlib-rs points back to it.
        let status = unsafe { inflateInit_(&raw mut stream, zlibVersion(), size) };
        // Version and size are right, so that nothing else can be wrong.
        if status == Z_OK {
            Ok(Self(stream))
        } else {
            Err(Error::Memory)
        }
    }

    /// What came of it, and how many bytes were read and written.
    fn inflate(&mut self, input: &[u8], output: &mut [u8]) -> (c_int, usize, usize) {
        let stream = &mut self.0;
        stream.next_in = input.as_ptr();
        stream.avail_in = input.len().try_into().unwrap_or(u32::MAX);
        stream.next_out = output.as_mut_ptr();
        stream.avail_out = output.len().try_into().unwrap_or(u32::MAX);
        let (offered, room) = (stream.avail_in, stream.avail_out);
        // SAFETY: the stream has been initialized; the pointers go with the lengths.
        let status = unsafe { inflate(stream, Z_NO_FLUSH) };
        let read = (offered - stream.avail_in) as usize;
        let written = (room - stream.avail_out) as usize;
        (status, read, written)
    }

    fn fault(&self) -> &'static str {
        // SAFETY: null, or one of zlib's constant texts.
        let message = (!self.0.msg.is_null()).then(|| unsafe { CStr::from_ptr(self.0.msg) });
        match message.map(CStr::to_bytes) {
            Some(b"incorrect data check") => "its checksum is wrong",
            _ => "it is not a valid zlib stream",
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: the stream has been initialized, and is not used any more.
        unsafe { inflateEnd(&raw mut self.0) };
    }
}
