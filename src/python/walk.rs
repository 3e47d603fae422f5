//! No Python code runs in a walk: neither in the walk over an item that is being written, nor while one is being built.
//!
//! The writer relies on it. Its memo knows objects by their addresses, so none may end during the walk; an object with a
//! single reference is taken for one that is met once, so no reference may come or go. The reader relies on it as well:
//! nobody may see, keep or change an object that is half-built, and nothing may change a class between the moment when it
//! was found to be ordinary and the last of its instances.
//!
//! This is the list of what may run Python code. None of it may be done in a walk, so it is done before or after:
//!
//! - A call of a Python object, an import, an attribute of anything but plain types and ordinary classes. So what is asked
//!   of a class, [`Rules`](super::classes::Rules), is asked before the walk, which stops at a class of which nothing is known.
//! - A signal. CPython looks for signals between the bytecodes of the main thread, and in a few functions of its own that
//!   may take long: `repr()` of an int is one of them. From 3.12 on they run the collector as well, and from 3.14 on the
//!   script of a debugger that attaches from another process.
//! - A look-up in a dict, if it has keys with a hash or comparison of their own: in any namespace and in `sys.modules`,
//!   where others may have put them. In dicts that a walk makes, all keys are plain.
//! - The end of an object that the walk has not made, or of an instance whose class has a finalizer or is not made by a
//!   class statement. A walk lets go of references that it has taken itself, and of nothing else.
//! - The collector, which runs finalizers and the callbacks of weak references. Before 3.12 any new container may start it.
//!   It is paused.
//! - The GIL given up. Only a free-threaded interpreter runs Python code of other threads meanwhile, so nothing is written
//!   in a walk there, and only plain types are read.
//!
//! In a debug build a profile function looks on: the walk panics if a Python function has begun.
#![allow(unsafe_code, reason = "the collector and the profile function are CPython's")]

use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(not(Py_GIL_DISABLED))]
use pyo3::ffi;
use pyo3::prelude::*;

/// How many walks have begun in this process.
pub(super) static BEGUN: AtomicUsize = AtomicUsize::new(0);

/// A walk, for as long as this lives.
///
/// Keeps the cyclic garbage collector from running. It would also run again and again over an item that is being built and
/// can't hold any garbage yet: over half of the time of loading.
pub(super) struct Walk {
    #[cfg(not(Py_GIL_DISABLED))]
    collector_was_enabled: bool,
    #[cfg(all(debug_assertions, not(Py_GIL_DISABLED)))]
    _watch: watch::Watch,
}

impl Walk {
    pub(super) fn new(_py: Python<'_>) -> Self {
        // The GIL is held, and a count that is wrong without one does no harm.
        BEGUN.store(BEGUN.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        Self {
            #[cfg(all(debug_assertions, not(Py_GIL_DISABLED)))]
            _watch: watch::Watch::new(_py),
            // SAFETY: the interpreter is attached. From 3.10 to 3.15 the call sets a flag and returns what it was.
            #[cfg(not(Py_GIL_DISABLED))]
            collector_was_enabled: unsafe { ffi::PyGC_Disable() } != 0,
        }
    }

    /// Asserts that no walk is active, in a debug build. Called before anything that may run Python code.
    pub(super) fn assert_none() {
        #[cfg(all(debug_assertions, not(Py_GIL_DISABLED)))]
        watch::assert_no_walk();
    }
}

#[cfg(not(Py_GIL_DISABLED))]
impl Drop for Walk {
    fn drop(&mut self) {
        if self.collector_was_enabled {
            // SAFETY: the interpreter is attached again wherever a walk goes on or ends. The call sets a flag; the
            // collector runs at the next allocation or bytecode, not here.
            unsafe { ffi::PyGC_Enable() };
        }
    }
}

/// Sees Python functions begin.
#[cfg(all(debug_assertions, not(Py_GIL_DISABLED)))]
mod watch {
    use std::cell::Cell;
    use std::ffi::c_int;
    use std::ptr;

    use pyo3::ffi;
    use pyo3::prelude::*;

    thread_local! {
        static WALKS: Cell<usize> = const { Cell::new(0) };
        static CALLS: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) struct Watch {
        /// A profiler of somebody else's stays.
        installed: bool,
    }

    impl Watch {
        pub(super) fn new(py: Python<'_>) -> Self {
            let profiler = py.import("sys").and_then(|sys| sys.call_method0("getprofile"));
            let installed = profiler.is_ok_and(|profiler| profiler.is_none());
            if installed {
                // SAFETY: the function has the signature that is asked for, and needs no object.
                unsafe { ffi::PyEval_SetProfile(Some(count), ptr::null_mut()) };
            }
            CALLS.set(0);
            WALKS.set(WALKS.get() + 1);
            Self { installed }
        }
    }

    impl Drop for Watch {
        fn drop(&mut self) {
            WALKS.set(WALKS.get() - 1);
            let calls = CALLS.get();
            if self.installed {
                // SAFETY: as above.
                unsafe { ffi::PyEval_SetProfile(None, ptr::null_mut()) };
            }
            assert!(calls == 0 || std::thread::panicking(), "Python code ran in a walk");
        }
    }

    pub(super) fn assert_no_walk() {
        assert_eq!(WALKS.get(), 0, "what may run Python code is done in a walk");
    }

    unsafe extern "C" fn count(
        _: *mut ffi::PyObject,
        _: *mut ffi::PyFrameObject,
        what: c_int,
        _: *mut ffi::PyObject,
    ) -> c_int {
        if what == ffi::PyTrace_CALL {
            CALLS.set(CALLS.get() + 1);
        }
        0
    }
}
