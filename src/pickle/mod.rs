//! Pickles, as CPython's C implementation writes and reads them.
//!
//! - [`write`]: the opcodes of protocol 0, byte for byte.
//! - `decimal`: the digits of long ints.
//! - `byte_mask`: where in a block certain bytes are, a bit for each.
//! - [`expected_line`]: lines that are known before they are read or written, as most are.
//! - [`opcode`]: the opcodes by their names.
//! - [`key_cache`]: the strings that were keys of dicts lately.
//! - [`memo`]: which objects the pickle being written already holds.
//! - [`scan`]: where a pickle ends, for every protocol, and which globals it names.
//! - [`read`]: the opcodes that [`write`] writes, back into their arguments.

mod byte_mask;
mod decimal;
pub mod expected_line;
mod find;
pub mod key_cache;
pub mod memo;
pub mod opcode;
pub mod read;
pub mod scan;
pub mod write;
