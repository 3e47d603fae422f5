//! Full cache keys of Python strings.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::new_bytes;
use crate::error::{collect, grow, push};
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
        Ok(only) => collect(std::iter::once(only.clone()))?,
        Err(_) => split(key)?,
    };
    let mut joined = Joined::default();
    let prefix = prefix.map(|prefix| joined.encode(prefix)).transpose()?;
    let mut encoded = Vec::new();
    grow(&mut encoded, parts.len())?;
    for part in &parts {
        encoded.push(joined.encode(part)?);
    }
    let parts = collect(encoded.iter().map(Encoded::as_bytes))?;
    let bytes = key::join(prefix.as_ref().map(Encoded::as_bytes), &parts)?;

    let Some(encryption_key) = encryption_key else {
        let Some(full) = key::plain(bytes)? else {
            return Err(joined.into_error());
        };
        return decode(py, &full);
    };
    if joined.error.is_some() {
        return Err(joined.into_error());
    }
    decode(py, &key::keyed(&bytes, encryption_key)?)
}

fn split<'py>(key: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyString>>> {
    let py = key.py();
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
            // Lazily translated strings have all methods of a string, this one to become one.
            Err(error) if several => {
                let percent = intern!(py, "%");
                let part = error.into_inner();
                part.call_method1(intern!(py, "replace"), (percent, percent))?
                    .cast_into()?
            }
            Err(error) => return Err(error.into()),
        });
    }
    Ok(strings)
}

/// Keeps the error of a string that has no UTF-8, since only some keys need it.
#[derive(Default)]
struct Joined {
    error: Option<PyErr>,
}

enum Encoded<'a, 'py> {
    Utf8(&'a str),
    /// As UTF-8, but with lone surrogates encoded like any other character.
    Surrogates(Bound<'py, PyBytes>),
}

impl Joined {
    fn encode<'a, 'py>(&mut self, text: &'a Bound<'py, PyString>) -> PyResult<Encoded<'a, 'py>> {
        match text.to_str() {
            Ok(text) => Ok(Encoded::Utf8(text)),
            Err(error) => {
                let py = text.py();
                let how = (intern!(py, "utf-8"), intern!(py, "surrogatepass"));
                let bytes = text.call_method1(intern!(py, "encode"), how)?;
                self.error = Some(error);
                Ok(Encoded::Surrogates(bytes.cast_into()?))
            }
        }
    }

    fn into_error(self) -> PyErr {
        self.error
            .unwrap_or_else(|| pyo3::exceptions::PyValueError::new_err("The cache key has no digest."))
    }
}

impl Encoded<'_, '_> {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Utf8(text) => text.as_bytes(),
            Self::Surrogates(bytes) => bytes.as_bytes(),
        }
    }
}

fn decode<'py>(py: Python<'py>, key: &[u8]) -> PyResult<Bound<'py, PyString>> {
    match std::str::from_utf8(key) {
        Ok(key) => PyString::from_bytes(py, key.as_bytes()),
        Err(_) => {
            let how = (intern!(py, "utf-8"), intern!(py, "surrogatepass"));
            Ok(new_bytes(py, key)?
                .call_method1(intern!(py, "decode"), how)?
                .cast_into()?)
        }
    }
}
