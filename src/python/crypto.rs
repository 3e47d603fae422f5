//! AES-CFB8 on Python's bytes.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use super::bytes::new_bytes;
use super::gil::detach_if_large;
use crate::cipher::{self, BLOCK_SIZE, Key};

/// Encrypts bytes under a key, with the initialization vector in front of the result.
#[pyfunction]
#[pyo3(signature = (data, key, iv, /))]
pub(super) fn encrypt<'py>(
    py: Python<'py>,
    data: PyBackedBytes,
    key: &[u8],
    iv: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let iv = new_iv(iv)?;
    let mut encryptor = cipher::Encryptor::new(new_key(key)?, iv);
    PyBytes::new_with(py, BLOCK_SIZE + data.len(), |output| {
        let (head, body) = output.split_at_mut(BLOCK_SIZE);
        head.copy_from_slice(&iv);
        update_into(py, &mut encryptor, &data, body);
        Ok(())
    })
}

/// Decrypts bytes that begin with their initialization vector.
#[pyfunction]
#[pyo3(signature = (data, key, /))]
pub(super) fn decrypt<'py>(py: Python<'py>, data: PyBackedBytes, key: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let key = new_key(key)?;
    let (head, body) = data.split_at(data.len().min(BLOCK_SIZE));
    let mut decryptor = cipher::Decryptor::new(key, new_iv(head)?);
    decrypted(py, &mut decryptor, body)
}

/// Encrypts a stream, piece by piece.
#[pyclass(module = "fastblets._native")]
pub(super) struct Encryptor(cipher::Encryptor);

#[pymethods]
impl Encryptor {
    #[new]
    #[pyo3(signature = (key, iv, /))]
    fn new(key: &[u8], iv: &[u8]) -> PyResult<Self> {
        Ok(Self(cipher::Encryptor::new(new_key(key)?, new_iv(iv)?)))
    }

    /// Encrypts the next piece.
    #[pyo3(signature = (data, /))]
    fn update<'py>(&mut self, py: Python<'py>, data: PyBackedBytes) -> PyResult<Bound<'py, PyBytes>> {
        PyBytes::new_with(py, data.len(), |output| {
            update_into(py, &mut self.0, &data, output);
            Ok(())
        })
    }
}

/// Decrypts a stream, piece by piece.
#[pyclass(module = "fastblets._native")]
pub(super) struct Decryptor(cipher::Decryptor);

#[pymethods]
impl Decryptor {
    #[new]
    #[pyo3(signature = (key, iv, /))]
    fn new(key: &[u8], iv: &[u8]) -> PyResult<Self> {
        Ok(Self(cipher::Decryptor::new(new_key(key)?, new_iv(iv)?)))
    }

    /// Decrypts the next piece.
    #[pyo3(signature = (data, /))]
    fn update<'py>(&mut self, py: Python<'py>, data: PyBackedBytes) -> PyResult<Bound<'py, PyBytes>> {
        decrypted(py, &mut self.0, &data)
    }
}

// pyca raises a ValueError here, and so does Djblets. An error of the codec is for those who read or store an entry.

fn new_key(key: &[u8]) -> PyResult<Key<'_>> {
    Key::new(key).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn new_iv(iv: &[u8]) -> PyResult<[u8; BLOCK_SIZE]> {
    cipher::iv(iv).map_err(|error| PyValueError::new_err(error.to_string()))
}

fn update_into(py: Python<'_>, encryptor: &mut cipher::Encryptor, data: &[u8], output: &mut [u8]) {
    detach_if_large(py, data.len(), || {
        output.copy_from_slice(data);
        encryptor.apply(output);
    });
}

fn decrypted<'py>(py: Python<'py>, decryptor: &mut cipher::Decryptor, data: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let mut plain = Vec::new();
    detach_if_large(py, data.len(), || decryptor.apply(data, &mut plain))?;
    new_bytes(py, &plain)
}
