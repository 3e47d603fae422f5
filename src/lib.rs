//! Rust turns values into chunks and chunks into values; Python asks the cache.
//!
//! The crate in the order in which a value walks through it:
//!
//! - [`key`]: a base key becomes the full cache key under which everything is stored.
//! - [`pickle`]: an item becomes a protocol 0 pickle; back, a stream of pickles is cut into items.
//! - [`zlib`]: pickles are deflated with stock zlib's exact bytes, and inflated fast.
//! - [`cipher`]: AES-CFB8, as Djblets encrypts.
//! - [`chunk`]: the stream is cut into pieces that fit into a cache.
//! - [`seal`]: what tells that an entry is the one that was stored under its key.
//! - [`large`]: the pipe that joins the rooms, in both directions.
//! - [`inspect`]: what stands in a stored stream, shown to people. No pickle is executed.
//! - `memory`: vectors that report a shortage of memory.
//! - [`error`]: what can go wrong in any of them.
//! - `python`: the table of what Python sees, and the walk over Python's objects. Feature `python`.

pub mod chunk;
pub mod cipher;
pub mod error;
pub mod inspect;
pub mod key;
pub mod large;
mod memory;
pub mod pickle;
#[cfg(feature = "python")]
mod python;
pub mod seal;
pub mod zlib;
