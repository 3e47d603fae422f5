//! The GIL, released while Rust works on bytes.

use pyo3::prelude::*;

/// Below this many bytes the GIL is kept: releasing and acquiring it costs more than the work that other threads could do
/// meanwhile.
const RELEASE_SIZE: usize = 2048;

/// Runs work that touches no Python object, with the GIL released if `size`, in bytes, is worth it.
pub(super) fn detach_if_large<T: Send>(py: Python<'_>, size: usize, work: impl FnOnce() -> T + Send) -> T {
    if size < RELEASE_SIZE { work() } else { py.detach(work) }
}
