//! What stands in stored chunks, for people to look at.

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;

use super::run;
use crate::cipher::Key;
use crate::inspect;

/// What was found in a stream of pickles.
#[pyclass(module = "fastblets._native", frozen, get_all)]
pub(super) struct Inspection {
    compressed: bool,
    /// The bytes of all pickles.
    pickled: u64,
    /// The number of whole items.
    count: u64,
    /// The first items: the size of the pickle, and how the item looks.
    items: Vec<(usize, String)>,
    /// The classes and functions that the pickles name, sorted.
    names: Vec<String>,
    more_names: bool,
    /// What is wrong, and the number of the chunk where it was noticed.
    damage: Option<(String, usize)>,
}

/// Looks at a stream, without executing any of its pickles. Without a word on compression, the stream says it itself.
#[pyfunction]
#[pyo3(signature = (chunks, compressed, key, show, /))]
pub(super) fn inspect_chunks(
    py: Python<'_>,
    chunks: Vec<PyBackedBytes>,
    compressed: Option<bool>,
    key: Option<&[u8]>,
    show: usize,
) -> PyResult<Inspection> {
    let key = key.map(Key::new).transpose()?;
    let stored = chunks.iter().map(|chunk| chunk.len()).sum();
    let stream = run(py, stored, || inspect::inspect(&chunks, compressed, key, show));
    Ok(Inspection {
        compressed: stream.compressed,
        pickled: stream.pickled,
        count: stream.count,
        items: stream.items.into_iter().map(|item| (item.size, item.text)).collect(),
        names: stream.globals.into_iter().collect(),
        more_names: stream.more_globals,
        damage: stream.damage.map(|damage| (damage.error.to_string(), damage.chunk)),
    })
}
