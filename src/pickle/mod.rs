//! Pickles, as CPython's C implementation writes and reads them.
//!
//! - [`write`]: the opcodes of protocol 0, byte for byte.
//! - [`memo`]: which objects the pickle being written already holds.
//! - [`scan`]: where a pickle ends, for every protocol, and which globals it names.
//! - [`read`]: the opcodes that [`write`] writes, back into their arguments.

mod find;
mod mask;
pub mod memo;
pub mod read;
pub mod scan;
pub mod write;
