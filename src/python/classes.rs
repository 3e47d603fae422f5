//! Ordinary classes: those whose instances `pickle` takes apart and puts together by its defaults alone.
//!
//! Protocol 0 spells an instance as `copyreg._reconstructor(cls, object, None)` and its `__dict__`. Classes with pickling hooks
//! are left to `pickle`, and so are classes that no class statement has made. Checking a class may run Python code, so it is
//! done before the walk. The result holds as long as no Python code runs.

use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyDict, PyList, PyModule, PyString, PyTuple, PyType};

use super::cpython::{self, Characters};
use super::walk::Walk;

/// The objects that decide how `pickle` treats a class. There is one of each in an interpreter.
pub(super) struct Rules {
    /// The type of the descriptor by which a class gives its instances a `__dict__`.
    descriptor: Py<PyAny>,
    /// `copyreg.dispatch_table`: the functions that pickle instances of a class instead of the defaults.
    registered: Py<PyDict>,
    modules: Py<PyDict>,
    /// The exceptions with which `pickle` refuses to name an ordinary class.
    pub(super) not_pickled: Py<PyTuple>,
    /// An empty class.
    model: Py<PyType>,
    /// `sys.get_int_max_str_digits`, where there is one.
    digits_limit: Option<Py<PyAny>>,
    /// `copyreg._reconstructor`.
    pub(super) reconstructor: Py<PyAny>,
}

impl Rules {
    pub(super) fn get(py: Python<'_>) -> PyResult<&'static Self> {
        static RULES: PyOnceLock<Rules> = PyOnceLock::new();
        RULES.get_or_try_init(py, || {
            let copyreg = py.import("copyreg")?;
            let sys = py.import("sys")?;
            Ok(Self {
                descriptor: py.import("types")?.getattr("GetSetDescriptorType")?.unbind(),
                registered: copyreg.getattr("dispatch_table")?.cast_into::<PyDict>()?.unbind(),
                modules: sys.getattr("modules")?.cast_into::<PyDict>()?.unbind(),
                not_pickled: PyTuple::new(
                    py,
                    [
                        py.import("pickle")?.getattr("PicklingError")?,
                        py.get_type::<PyAttributeError>().into_any(),
                    ],
                )?
                .unbind(),
                model: (py.get_type::<PyType>().call1(("Ordinary", (), PyDict::new(py)))?)
                    .cast_into::<PyType>()?
                    .unbind(),
                // A replacement in Python would run in the walk.
                digits_limit: (sys.getattr_opt("get_int_max_str_digits")?)
                    .filter(|function| function.is_exact_instance_of::<PyCFunction>())
                    .map(Bound::unbind),
                reconstructor: copyreg.getattr("_reconstructor")?.unbind(),
            })
        })
    }

    /// Whether a function for pickling the class's instances is registered with `copyreg`.
    pub(super) fn is_registered(&self, class: &Bound<'_, PyType>) -> PyResult<bool> {
        self.registered.bind(class.py()).contains(class)
    }

    /// What is registered for it.
    pub(super) fn registered<'py>(&self, class: &Bound<'py, PyType>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.registered.bind(class.py()).get_item(class)
    }

    /// Whether the class creates and destroys its instances as ordinary classes do. Runs no Python code.
    pub(super) fn has_default_slots(&self, class: &Bound<'_, PyType>) -> bool {
        cpython::has_slots_of(class, self.model.bind(class.py()))
    }

    /// Whether `pickle` treats the class's instances by its defaults alone.
    pub(super) fn uses_default_pickling(&self, class: &Bound<'_, PyType>) -> PyResult<bool> {
        Walk::assert_none();
        let py = class.py();
        let mro = class.mro();
        let classes = mro.len().saturating_sub(1);
        if !mro.get_item(classes).is_ok_and(|root| root.is(py.get_type::<PyAny>())) {
            return Ok(false);
        }
        if !mro
            .iter_borrowed()
            .take(classes)
            .all(|base| self.base_uses_defaults(&base))
        {
            return Ok(false);
        }
        Ok(!self.is_registered(class)?)
    }

    fn base_uses_defaults(&self, base: &Bound<'_, PyAny>) -> bool {
        // With a metaclass, looking up an attribute may return anything.
        cpython::exact::<PyType>(base).is_some_and(|base| self.base_keeps_defaults(base))
    }

    /// Whether one of a class's bases, or the class itself, changes none of the defaults. Going through all its attributes is
    /// cheaper than looking up each hook, and runs no comparison of an attribute's name in Python.
    pub(super) fn base_keeps_defaults(&self, base: &Bound<'_, PyType>) -> bool {
        self.has_default_slots(base)
            && cpython::class_attributes(base).is_some_and(|attributes| {
                cpython::all_items(&attributes, |name, value| {
                    match cpython::exact(name).and_then(cpython::characters) {
                        Some(Characters::Latin1(name)) => self.keeps_defaults(name, value),
                        Some(Characters::Ucs2(_) | Characters::Ucs4(_)) => true,
                        None => false,
                    }
                })
            })
    }

    /// Whether an attribute of a class changes none of the defaults.
    #[inline]
    fn keeps_defaults(&self, name: &[u8], value: &Bound<'_, PyAny>) -> bool {
        match name {
            b"__reduce_ex__" | b"__reduce__" | b"__getstate__" | b"__setstate__" | b"__slots__" | b"__new__"
            | b"__class__" | b"__del__" => false,
            b"__dict__" => value.get_type().is(&self.descriptor),
            // `copyreg` sets it on the classes that it has seen.
            b"__slotnames__" => cpython::exact::<PyList>(value).is_some_and(PyListMethods::is_empty),
            _ => true,
        }
    }

    /// The object of this name in a module that has been imported.
    pub(super) fn find<'py>(
        &self,
        module: &Bound<'py, PyString>,
        name: &Bound<'py, PyString>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        Walk::assert_none();
        let Some(module) = self.modules.bind(module.py()).get_item(module)? else {
            return Ok(None);
        };
        match cpython::exact::<PyModule>(&module) {
            Some(module) => module.dict().get_item(name),
            None => Ok(None),
        }
    }

    /// The most digits of an int that Python converts to a str, or 0 if there is no limit. Runs no Python code.
    pub(super) fn digits_limit(&self, py: Python<'_>) -> PyResult<usize> {
        match &self.digits_limit {
            Some(limit) => limit.bind(py).call0()?.extract(),
            None => Ok(0),
        }
    }
}
