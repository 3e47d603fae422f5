//! Ordinary classes: those whose instances `pickle` takes apart and puts together by its defaults alone.
//!
//! Protocol 0 spells an instance as `copyreg._reconstructor(cls, object, None)` and its `__dict__`. Classes with pickling hooks,
//! and those that no class statement has made, are left to `pickle`. To ask for an ordinary class may run Python code, so it
//! is done before the walk: what was found holds as long as no Python code runs.

use pyo3::exceptions::PyAttributeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyDict, PyList, PyModule, PyString, PyTuple, PyType};

use super::cpython::{self, Characters};
use super::walk::Walk;

/// What there is one of in an interpreter.
pub(super) struct Rules {
    /// The type of the descriptor by which a class gives its instances a `__dict__`.
    descriptor: Py<PyAny>,
    /// `copyreg.dispatch_table`: what to do with instances of a class instead.
    registered: Py<PyDict>,
    modules: Py<PyDict>,
    /// The errors by which `pickle` refuses to name an ordinary class.
    pub(super) not_pickled: Py<PyTuple>,
    /// What a class statement makes that says nothing but the name.
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
                // Python code in its place would run in the walk.
                digits_limit: (sys.getattr_opt("get_int_max_str_digits")?)
                    .filter(|function| function.is_exact_instance_of::<PyCFunction>())
                    .map(Bound::unbind),
                reconstructor: copyreg.getattr("_reconstructor")?.unbind(),
            })
        })
    }

    /// Whether `copyreg` has been told how the class's instances are pickled.
    pub(super) fn is_registered(&self, class: &Bound<'_, PyType>) -> PyResult<bool> {
        self.registered.bind(class.py()).contains(class)
    }

    /// Whether the class makes and ends its instances as ordinary ones do. Runs no Python code.
    pub(super) fn has_default_slots(&self, class: &Bound<'_, PyType>) -> bool {
        cpython::has_slots_of(class, self.model.bind(class.py()))
    }

    /// Whether nothing but the defaults holds for the class's instances.
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

    /// Whether one of a class's bases, or the class itself, leaves the defaults alone. To go through all that it holds takes less
    /// than to look up each hook, and compares nothing by code of a name's own.
    fn base_uses_defaults(&self, base: &Bound<'_, PyAny>) -> bool {
        // A metaclass may answer anything to anybody who asks for an attribute.
        let Some(base) = cpython::exact::<PyType>(base) else {
            return false;
        };
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

    /// Whether an attribute of a class leaves the defaults alone.
    #[inline]
    fn keeps_defaults(&self, name: &[u8], value: &Bound<'_, PyAny>) -> bool {
        match name {
            b"__reduce_ex__" | b"__reduce__" | b"__getstate__" | b"__setstate__" | b"__slots__" | b"__new__"
            | b"__class__" | b"__del__" => false,
            b"__dict__" => value.get_type().is(&self.descriptor),
            // What `copyreg` leaves on a class that it has looked at.
            b"__slotnames__" => cpython::exact::<PyList>(value).is_some_and(PyListMethods::is_empty),
            _ => true,
        }
    }

    /// What a module that has been imported holds under a name.
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

    /// How many digits an int may have to be spelled; 0 if that is not limited. Runs no Python code.
    pub(super) fn digits_limit(&self, py: Python<'_>) -> PyResult<usize> {
        match &self.digits_limit {
            Some(limit) => limit.bind(py).call0()?.extract(),
            None => Ok(0),
        }
    }
}
