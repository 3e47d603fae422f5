//! Every way the codec can fail. `Display` is the text a user sees.

use std::fmt;

/// What went wrong. The Python side turns it into an exception in one place, `python::error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// An AES key of a length, in bytes, that AES does not have.
    KeySize(usize),
    /// An initialization vector that is not 16 bytes long: an encrypted entry cut off in its first bytes.
    IvSize(usize),
    /// A zlib stream that is damaged, incomplete or followed by something else.
    Zlib(&'static str),
    /// A pickle that is damaged or incomplete.
    Pickle(&'static str),
    /// Data without a seal where there must be one, or with one that is not theirs.
    Seal(&'static str),
    /// There is not enough memory.
    Memory,
}

/// The text of [`Error::Memory`].
pub(crate) const NO_MEMORY: &str = "There is not enough memory.";

/// The codec's result.
pub type Result<T> = std::result::Result<T, Error>;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeySize(bytes) => write!(
                f,
                "Invalid key size ({}) for AES. An AES encryption key must be 16, 24 or 32 bytes long.",
                bytes * 8
            ),
            Self::IvSize(bytes) => write!(f, "Invalid IV size ({bytes}) for CFB8."),
            Self::Zlib(what) => write!(f, "The compressed data is damaged: {what}."),
            Self::Seal(what) => write!(f, "The data's seal is not valid: {what}."),
            Self::Memory => f.write_str(NO_MEMORY),
            Self::Pickle(what) => write!(f, "The pickled data is damaged: {what}."),
        }
    }
}

impl std::error::Error for Error {}

// A `Vec` that can't grow by itself ends the process. So whatever grows with the data grows by one of these.

/// Makes room for `more` elements, or says that there is none.
#[inline]
pub(crate) fn grow<T>(list: &mut Vec<T>, more: usize) -> Result<()> {
    list.try_reserve(more).map_err(|_| Error::Memory)
}

/// Appends an element.
#[inline]
pub(crate) fn push<T>(list: &mut Vec<T>, element: T) -> Result<()> {
    grow(list, 1)?;
    list.push(element);
    Ok(())
}

/// Appends elements.
#[inline]
pub(crate) fn append<T: Copy>(list: &mut Vec<T>, elements: &[T]) -> Result<()> {
    grow(list, elements.len())?;
    list.extend_from_slice(elements);
    Ok(())
}

/// One vector of several pieces.
pub(crate) fn concat<T: Copy>(pieces: &[&[T]]) -> Result<Vec<T>> {
    let mut whole = Vec::new();
    grow(&mut whole, pieces.iter().map(|piece| piece.len()).sum())?;
    for piece in pieces {
        whole.extend_from_slice(piece);
    }
    Ok(whole)
}

/// What an iterator gives.
pub(crate) fn collect<T>(elements: impl Iterator<Item = T>) -> Result<Vec<T>> {
    let mut list = Vec::new();
    grow(&mut list, elements.size_hint().0)?;
    for element in elements {
        push(&mut list, element)?;
    }
    Ok(list)
}

/// Gives room beyond `most` elements back, once it isn't needed any more. It is kept where memory is short: a smaller
/// one has to be had first.
pub(crate) fn shrink<T: Copy>(list: &mut Vec<T>, most: usize) {
    let mut smaller = Vec::new();
    let size = most.max(list.len());
    if list.capacity() > size && smaller.try_reserve_exact(size).is_ok() {
        smaller.extend_from_slice(list);
        *list = smaller;
    }
}
