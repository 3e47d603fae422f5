//! Full cache keys of Python strings.

use pyo3::exceptions::{PyAttributeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyMemoryView, PyString, PyTuple};

use crate::error::Result;
use crate::key;
use crate::memory::{collect, concat, grow, push};

/// The most characters of a wrong key that an error shows.
const MAX_SHOWN: usize = 200;

/// Makes a full cache key.
///
/// `prefix` is the site's domain, perhaps with its root, if there is a site. `key` is a string, or a sequence of strings;
/// two or more are escaped. With an `encryption_key`, the full key is an HMAC. `max_bytes` is the longest full key that
/// the cache takes, if it counts bytes.
#[pyfunction]
#[pyo3(signature = (prefix, key, encryption_key, max_bytes, /))]
pub(super) fn make_full_key<'py>(
    py: Python<'py>,
    prefix: Option<&Bound<'py, PyString>>,
    key: &Bound<'py, PyAny>,
    encryption_key: Option<&[u8]>,
    max_bytes: Option<usize>,
) -> PyResult<Bound<'py, PyString>> {
    let joined = join(prefix, key)?;
    PyString::from_bytes(py, full(joined, encryption_key, max_bytes)?.as_bytes())
}

/// Makes the full cache keys of an entry's chunks from the index `start` up to but without `end`.
#[pyfunction]
#[pyo3(signature = (prefix, key, encryption_key, max_bytes, start, end, /))]
pub(super) fn make_chunk_keys<'py>(
    py: Python<'py>,
    prefix: Option<&Bound<'py, PyString>>,
    key: &Bound<'py, PyAny>,
    encryption_key: Option<&[u8]>,
    max_bytes: Option<usize>,
    start: u64,
    end: u64,
) -> PyResult<Bound<'py, PyList>> {
    if !key.is_instance_of::<PyString>() && key.is_empty()? {
        return Err(PyValueError::new_err(
            "A cache key without parts has no place for chunks.",
        ));
    }
    // The index is appended to the last part. It has no characters to escape.
    let joined = join(prefix, key)?;
    let keys = PyList::empty(py);
    for index in start..end {
        let joined = concat(&[&joined, format!("-{index}").as_bytes()])?;
        keys.append(PyString::from_bytes(
            py,
            full(joined, encryption_key, max_bytes)?.as_bytes(),
        )?)?;
    }
    Ok(keys)
}

fn full(joined: Vec<u8>, encryption_key: Option<&[u8]>, max_bytes: Option<usize>) -> Result<String> {
    match encryption_key {
        Some(encryption_key) => key::keyed(&joined, encryption_key),
        None => key::plain(joined, max_bytes),
    }
}

fn join(prefix: Option<&Bound<'_, PyString>>, key: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let prefix = prefix.map(encode).transpose()?;
    let prefix = prefix.as_ref().map(Encoded::as_bytes);
    if let Ok(only) = key.cast::<PyString>() {
        return Ok(key::join(prefix, &[encode(only)?.as_bytes()])?);
    }
    let parts = split(key)?;
    let mut encoded = Vec::new();
    grow(&mut encoded, parts.len())?;
    for part in &parts {
        encoded.push(encode(part)?);
    }
    let parts = collect(encoded.iter().map(Encoded::as_bytes))?;
    Ok(key::join(prefix, &parts)?)
}

enum Encoded<'a, 'py> {
    Utf8(&'a str),
    /// As UTF-8, but with lone surrogates encoded like any other character.
    Surrogates(Bound<'py, PyBytes>),
}

impl Encoded<'_, '_> {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Utf8(text) => text.as_bytes(),
            Self::Surrogates(bytes) => bytes.as_bytes(),
        }
    }
}

/// The characters of a string, also where a subclass shows others: by those Djblets tells keys apart.
fn encode<'a, 'py>(text: &'a Bound<'py, PyString>) -> PyResult<Encoded<'a, 'py>> {
    if let Ok(text) = text.to_str() {
        return Ok(Encoded::Utf8(text));
    }
    let py = text.py();
    let encode = py.get_type::<PyString>().getattr(intern!(py, "encode"))?;
    let bytes = encode.call1((text, intern!(py, "utf-8"), intern!(py, "surrogatepass")))?;
    Ok(Encoded::Surrogates(bytes.cast_into()?))
}

fn split<'py>(key: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyString>>> {
    let is_plain = key.is_instance_of::<PyList>() || key.is_instance_of::<PyTuple>();
    if !is_plain && !is_sequence(key)? {
        return Err(PyTypeError::new_err(format!(
            "A cache key must be a string or a list or tuple of strings, but {} is of type {}.",
            shown(key),
            type_name(key)
        )));
    }
    let mut parts = Vec::new();
    for part in key.try_iter()? {
        push(&mut parts, part?)?;
    }
    let several = parts.len() > 1;
    let mut strings = Vec::new();
    grow(&mut strings, parts.len())?;
    for part in parts {
        strings.push(match part.cast_into::<PyString>() {
            Ok(part) => part,
            Err(error) => resolve(key, &error.into_inner(), several)?,
        });
    }
    Ok(strings)
}

/// Whether it has parts that can be read again, in an order that is the same in each process.
fn is_sequence(key: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = key.py();
    let is_bytes =
        key.is_instance_of::<PyBytes>() || key.is_instance_of::<PyByteArray>() || key.is_instance_of::<PyMemoryView>();
    if is_bytes || !key.hasattr("__len__")? {
        return Ok(false);
    }
    let abc = py.import("collections.abc")?;
    Ok(!key.is_instance(&abc.getattr("Set")?)? && !key.is_instance(&abc.getattr("Mapping")?)?)
}

/// A part that is no string. Lazily translated strings have all methods of a string, and this one makes one of them.
fn resolve<'py>(key: &Bound<'py, PyAny>, part: &Bound<'py, PyAny>, several: bool) -> PyResult<Bound<'py, PyString>> {
    let py = key.py();
    let refuse = |cause: Option<PyErr>| {
        let error = PyTypeError::new_err(format!(
            "Each part of a cache key must be a string, but {} in {} is of type {}.",
            shown(part),
            shown(key),
            type_name(part)
        ));
        error.set_cause(py, cause);
        error
    };
    if !several {
        return Err(refuse(None));
    }
    match part.call_method1("replace", ("%", "%")) {
        Ok(text) => text.cast_into().map_err(|_| refuse(None)),
        Err(error) if error.is_instance_of::<PyAttributeError>(py) => Err(refuse(None)),
        Err(error) if error.is_instance_of::<PyTypeError>(py) => Err(refuse(Some(error))),
        Err(error) => Err(error),
    }
}

fn type_name(object: &Bound<'_, PyAny>) -> String {
    object
        .get_type()
        .fully_qualified_name()
        .map_or_else(|_| "unknown".into(), |name| name.to_string_lossy().into_owned())
}

/// A key or part as an error names it.
fn shown(object: &Bound<'_, PyAny>) -> String {
    let Ok(repr) = object.repr() else {
        return "what can't be shown".into();
    };
    let text = repr.to_string_lossy();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.into_owned(),
    }
}
