//! Ordinary classes: those whose instances `pickle` takes apart and puts together by its defaults alone.
//!
//! Protocol 0 spells an instance as `copyreg._reconstructor(cls, object, None)` and its `__dict__`. Which hooks a class
//! may have instead is a long list, and all of them are for `pickle` itself. Nothing here runs Python code, so that what
//! was found holds as long as none is run.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PyModule, PyString, PyType};

use super::raw;

/// What the defaults go by, wherever in the class it stands.
const HOOKS: [&str; 8] = [
    "__reduce_ex__",
    "__reduce__",
    "__getstate__",
    "__setstate__",
    "__slots__",
    "__new__",
    "__class__",
    "__del__",
];

/// What there is one of in an interpreter.
pub(super) struct Rules {
    hooks: [Py<PyString>; HOOKS.len()],
    dict: Py<PyString>,
    slot_names: Py<PyString>,
    /// The type of the descriptor by which a class gives its instances a `__dict__`.
    descriptor: Py<PyAny>,
    /// `copyreg.dispatch_table`: what to do with instances of a class instead.
    registered: Py<PyDict>,
    modules: Py<PyDict>,
    /// What had another name in Python 2, which protocols 0 to 2 go by: names in modules, and whole modules.
    older_names: Py<PyDict>,
    older_modules: Py<PyDict>,
    /// `copyreg._reconstructor`.
    pub(super) reconstructor: Py<PyAny>,
}

impl Rules {
    pub(super) fn get(py: Python<'_>) -> PyResult<&Self> {
        static RULES: PyOnceLock<Rules> = PyOnceLock::new();
        RULES.get_or_try_init(py, || {
            let copyreg = py.import("copyreg")?;
            let older = py.import("_compat_pickle")?;
            let dict = |module: &Bound<'_, PyModule>, name| -> PyResult<Py<PyDict>> {
                Ok(module.getattr(name)?.cast_into::<PyDict>()?.unbind())
            };
            Ok(Self {
                hooks: HOOKS.map(|hook| PyString::intern(py, hook).unbind()),
                dict: PyString::intern(py, "__dict__").unbind(),
                slot_names: PyString::intern(py, "__slotnames__").unbind(),
                descriptor: py.import("types")?.getattr("GetSetDescriptorType")?.unbind(),
                registered: dict(&copyreg, "dispatch_table")?,
                modules: dict(&py.import("sys")?, "modules")?,
                older_names: dict(&older, "REVERSE_NAME_MAPPING")?,
                older_modules: dict(&older, "REVERSE_IMPORT_MAPPING")?,
                reconstructor: copyreg.getattr("_reconstructor")?.unbind(),
            })
        })
    }

    /// Whether `copyreg` has been told how the class's instances are pickled.
    pub(super) fn is_registered(&self, class: &Bound<'_, PyType>) -> PyResult<bool> {
        self.registered.bind(class.py()).contains(class)
    }

    /// Whether nothing but the defaults holds for the class's instances.
    pub(super) fn are_all_for(&self, class: &Bound<'_, PyType>) -> bool {
        let py = class.py();
        let mro = class.mro();
        let classes = mro.len().saturating_sub(1);
        raw::has_default_behaviour(class)
            && mro.get_item(classes).is_ok_and(|root| root.is(py.get_type::<PyAny>()))
            && matches!(self.is_registered(class), Ok(false))
            && mro
                .iter_borrowed()
                .take(classes)
                .all(|base| self.hold_in(&base).is_some())
    }

    /// Whether one of a class's bases, or the class itself, leaves the defaults alone.
    fn hold_in(&self, base: &Bound<'_, PyAny>) -> Option<()> {
        // A metaclass may answer anything to anybody who asks for an attribute.
        let attributes = raw::class_attributes(raw::exact::<PyType>(base)?)?;
        for hook in &self.hooks {
            if attributes.contains(hook).ok()? {
                return None;
            }
        }
        if let Some(descriptor) = attributes.get_item(&self.dict).ok()?
            && !descriptor.get_type().is(&self.descriptor)
        {
            return None;
        }
        // What `copyreg` leaves on a class that it has looked at.
        if let Some(names) = attributes.get_item(&self.slot_names).ok()?
            && !raw::exact::<PyList>(&names)?.is_empty()
        {
            return None;
        }
        Some(())
    }

    /// What a module that has been imported holds under a name.
    pub(super) fn find<'py>(
        &self,
        module: &Bound<'py, PyString>,
        name: &Bound<'py, PyString>,
    ) -> Option<Bound<'py, PyAny>> {
        let module = self.modules.bind(module.py()).get_item(module).ok()??;
        raw::exact::<PyModule>(&module)?.dict().get_item(name).ok()?
    }

    /// How protocol 0 spells a class that a module holds under its name. `None` if the module doesn't, or the class is not
    /// spelled by its name alone: for one inside of a class protocol 0 calls `getattr()`, and it refuses what is not ASCII.
    pub(super) fn spell(&self, module: &Bound<'_, PyString>, name: &Bound<'_, PyString>) -> Option<(Vec<u8>, Vec<u8>)> {
        let py = module.py();
        if name.to_str().ok()?.contains('.') {
            return None;
        }
        let older_name = self.older_names.bind(py).get_item((module, name)).ok()?;
        let (module, name) = match older_name {
            Some(older) => older.extract::<(Bound<'_, PyString>, Bound<'_, PyString>)>().ok()?,
            None => {
                let older = self.older_modules.bind(py).get_item(module).ok()?;
                let module = older.map_or_else(|| Some(module.clone()), |older| older.cast_into().ok())?;
                (module, name.clone())
            }
        };
        let line = |text: &Bound<'_, PyString>| {
            let text = text.to_str().ok()?;
            (text.is_ascii() && !text.contains('\n')).then(|| text.as_bytes().to_vec())
        };
        Some((line(&module)?, line(&name)?))
    }
}
