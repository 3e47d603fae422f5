//! Pickles, as CPython's C implementation writes and reads them.
