//! The errors of the codec. `Display` is the text a user sees.

use std::fmt;

/// An error of the codec. `python::error` turns it into an exception.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// An AES key of a wrong length, in bytes.
    KeySize(usize),
    /// An initialization vector that is not 16 bytes long: an encrypted entry cut off in its first bytes.
    IvSize(usize),
    /// A zlib stream that is damaged, incomplete or followed by something else.
    Zlib(&'static str),
    /// A pickle that is damaged or incomplete.
    Pickle {
        /// What is wrong.
        what: &'static str,
        /// Where it was noticed, in bytes from the beginning of the stream of pickles, if that is known.
        offset: Option<u64>,
    },
    /// A seal is missing, or does not fit the data.
    Seal(&'static str),
    /// There is not enough memory.
    Memory,
}

/// The text of [`Error::Memory`].
pub(crate) const NO_MEMORY: &str = "There is not enough memory.";

/// The codec's result.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A pickle in which `what` is wrong, at an offset that is not known yet.
    pub const fn pickle(what: &'static str) -> Self {
        Self::Pickle { what, offset: None }
    }

    /// The error `distance` bytes farther on: at that offset if it had none. Errors that are not a pickle's stay as they are.
    #[must_use]
    pub fn moved_by(mut self, distance: u64) -> Self {
        if let Self::Pickle { offset, .. } = &mut self {
            *offset = Some(offset.unwrap_or(0) + distance);
        }
        self
    }
}

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
            Self::Pickle { what, .. } => write!(f, "The pickled data is damaged: {what}."),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_add_up() {
        let error = Error::pickle("it is damaged");
        assert_eq!(
            error,
            Error::Pickle {
                what: "it is damaged",
                offset: None
            }
        );
        let moved = error.clone().moved_by(3).moved_by(4);
        assert_eq!(
            moved,
            Error::Pickle {
                what: "it is damaged",
                offset: Some(7)
            }
        );
        assert_eq!(moved.to_string(), error.to_string());
        assert_eq!(Error::Memory.moved_by(3), Error::Memory);
    }
}
