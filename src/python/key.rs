//! Full cache keys of Python strings.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::key;

/// Makes a full cache key.
///
/// `prefix` is the site's domain, perhaps with its root, if there is a site. `key` is a string, or a sequence of strings;
/// two or more are escaped. With an `encryption_key`, the full key is an HMAC.
#[pyfunction]
#[pyo3(signature = (prefix, key, encryption_key, /))]
pub(super) fn make_full_key<'py>(
    py: Python<'py>,
    prefix: Option<&Bound<'py, PyString>>,
    key: &Bound<'py, PyAny>,
    encryption_key: Option<&[u8]>,
) -> PyResult<Bound<'py, PyString>> {
    let parts = match key.cast::<PyString>() {
        Ok(only) => vec![only.clone()],
        Err(_) => split(key)?,
    };
    let mut joined = Joined::default();
    let prefix = prefix.map(|prefix| joined.encode(prefix)).transpose()?;
    let parts = parts
        .iter()
        .map(|part| joined.encode(part))
        .collect::<PyResult<Vec<_>>>()?;
    let parts: Vec<&[u8]> = parts.iter().map(Encoded::as_bytes).collect();
    let bytes = key::join(prefix.as_ref().map(Encoded::as_bytes), &parts);

    let Some(encryption_key) = encryption_key else {
        let Some(full) = key::plain(bytes) else {
            return Err(joined.into_error());
        };
        return decode(py, &full);
    };
    if joined.error.is_some() {
        return Err(joined.into_error());
    }
    decode(py, &key::keyed(&bytes, encryption_key))
}

fn split<'py>(key: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyString>>> {
    let parts = key.try_iter()?.collect::<PyResult<Vec<_>>>()?;
    let several = parts.len() > 1;
    parts
        .into_iter()
        .map(|part| match part.cast_into::<PyString>() {
            Ok(part) => Ok(part),
            // Lazily translated strings have all methods of a string, this one to become one.
            Err(error) if several => Ok(error.into_inner().call_method1("replace", ("%", "%"))?.cast_into()?),
            Err(error) => Err(error.into()),
        })
        .collect()
}

/// Keeps the error of a string that has no UTF-8, since only some keys need it.
#[derive(Default)]
struct Joined {
    error: Option<PyErr>,
}

enum Encoded<'a> {
    Utf8(&'a str),
    /// As UTF-8, but with lone surrogates encoded like any other character.
    Surrogates(Vec<u8>),
}

impl Joined {
    fn encode<'a>(&mut self, text: &'a Bound<'_, PyString>) -> PyResult<Encoded<'a>> {
        match text.to_str() {
            Ok(text) => Ok(Encoded::Utf8(text)),
            Err(error) => {
                let bytes = text.call_method1("encode", ("utf-8", "surrogatepass"))?;
                self.error = Some(error);
                Ok(Encoded::Surrogates(bytes.extract()?))
            }
        }
    }

    fn into_error(self) -> PyErr {
        self.error
            .unwrap_or_else(|| pyo3::exceptions::PyValueError::new_err("The cache key has no digest."))
    }
}

impl Encoded<'_> {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Utf8(text) => text.as_bytes(),
            Self::Surrogates(bytes) => bytes,
        }
    }
}

fn decode<'py>(py: Python<'py>, key: &[u8]) -> PyResult<Bound<'py, PyString>> {
    match std::str::from_utf8(key) {
        Ok(key) => Ok(PyString::new(py, key)),
        Err(_) => Ok(PyBytes::new(py, key)
            .call_method1("decode", ("utf-8", "surrogatepass"))?
            .cast_into()?),
    }
}
