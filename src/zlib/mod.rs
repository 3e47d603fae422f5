//! Deflate with stock zlib's exact bytes, and inflate.
//!
//! Djblets compresses with CPython's `zlib.compressobj()`, which is stock zlib at level 6. What is stored must be the
//! same bytes, so [`Deflate`] takes each of stock zlib's decisions, only faster.

mod deflate;
mod inflate;

pub use deflate::{Deflate, Sharing};
pub use inflate::Inflate;
