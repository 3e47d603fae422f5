//! Types of the standard library that rows are made of: written and read here as `pickle` does, without calling Python.
//!
//! The rule: the bytes are those of CPython's pickler in protocol 0, and what is read is what its unpickler makes of them. So
//! a type is in the table only as it comes from CPython, in C, or as the standard library's own code treats it; an instance of
//! a subclass is never one of it. A type is used here only as long as nobody has changed how `pickle` treats it:
//!
//! - its name leads to it: tests put another class in the place of `datetime`;
//! - nothing is registered for it with `copyreg` but what the standard library registers, which it does for `complex` alone;
//! - what its reduction is made of in Python is the library's own. That is true of `UUID` alone: its hooks, its slots, and the
//!   enumeration of how safe it is. All others are in C and can't be changed.
//!
//! To find that out may run Python code, so it is done before a walk: `Checks`. Whatever else is unusual, such as a damaged
//! state, is left to `pickle`, which makes of it what it will.
//!
//! What a reduction is made of takes memo numbers, also where it is made anew each time and can't be met again: the bytes of a
//! date, the text of a Decimal, all tuples. What can be met again is looked up in the memo: the interned names in the state of
//! a `UUID`, the offset and name of a `timezone`, the key of a `ZoneInfo`, and the text of one character that CPython has only
//! one of.
//!
//! - `read`: a type's arguments or state become its instance.
//! - `write`: an instance becomes a call of its type.

pub(super) mod read;
#[cfg(not(Py_GIL_DISABLED))]
pub(super) mod write;
mod zones;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDelta, PyFunction, PyString, PyTuple, PyType};

pub(super) use self::zones::{FoundZones, ReducedZones};
use super::classes::Rules;
use super::cpython;
use crate::memory::push;

/// A type that is written and read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Native {
    DateTime,
    Decimal,
    Uuid,
    Date,
    TimeZone,
    TimeDelta,
    Time,
    ZoneInfo,
    Set,
    FrozenSet,
    Complex,
    DefaultDict,
    OrderedDict,
    Deque,
}

/// Each type: where it is, and how protocol 0 names it.
const TYPES: [(Native, &str, &str, &str); 14] = [
    (Native::DateTime, "datetime", "datetime", "datetime"),
    (Native::Decimal, "decimal", "decimal", "Decimal"),
    (Native::Uuid, "uuid", "uuid", "UUID"),
    (Native::Date, "datetime", "datetime", "date"),
    (Native::TimeZone, "datetime", "datetime", "timezone"),
    (Native::TimeDelta, "datetime", "datetime", "timedelta"),
    (Native::Time, "datetime", "datetime", "time"),
    (Native::ZoneInfo, "zoneinfo", "zoneinfo", "ZoneInfo"),
    (Native::Set, "builtins", "__builtin__", "set"),
    (Native::FrozenSet, "builtins", "__builtin__", "frozenset"),
    (Native::Complex, "builtins", "__builtin__", "complex"),
    (Native::DefaultDict, "collections", "collections", "defaultdict"),
    (Native::OrderedDict, "collections", "collections", "OrderedDict"),
    (Native::Deque, "collections", "collections", "deque"),
];

/// The built-in types by which most `defaultdict`s make what they lack, and how protocol 0 names them.
const FACTORIES: [(&str, &str); 7] = [
    ("list", "list"),
    ("int", "long"),
    ("dict", "dict"),
    ("str", "unicode"),
    ("float", "float"),
    ("tuple", "tuple"),
    ("bool", "bool"),
];

const COUNT: usize = TYPES.len();

/// The types, as they were when this module was loaded. There is one table in an interpreter.
pub(super) struct Natives {
    /// The types' addresses; of none, if it is not the standard library's own.
    addresses: [usize; COUNT],
    types: [Option<Type>; COUNT],
    /// `getattr`, by which a `ZoneInfo` names the function that makes it.
    pub(super) getattr: Py<PyAny>,
    /// `ZoneInfo._unpickle`.
    pub(super) unpickle_zone: Option<Py<PyAny>>,
    /// What the standard library has registered with `copyreg` for `complex`.
    pickle_complex: Option<Py<PyAny>>,
    pub(super) uuid: Option<Uuid>,
    factories: Vec<Type>,
    pub(super) default_factory: Py<PyString>,
    pub(super) int: Py<PyString>,
    pub(super) is_safe: Py<PyString>,
}

struct Type {
    class: Py<PyType>,
    module: Py<PyString>,
    name: Py<PyString>,
}

impl Type {
    /// Whether its name leads to it.
    fn is_found(&self, py: Python<'_>, rules: &Rules) -> PyResult<bool> {
        let found = rules.find(self.module.bind(py), self.name.bind(py))?;
        Ok(found.is_some_and(|found| found.is(&self.class)))
    }
}

/// What Python code says of `UUID`.
pub(super) struct Uuid {
    /// What its class has under the names that matter.
    attributes: Vec<(Py<PyString>, Option<Py<PyAny>>)>,
    /// The descriptors of its slots.
    pub(super) int: Py<PyAny>,
    pub(super) is_safe: Py<PyAny>,
    enumeration: Py<PyAny>,
    /// The members of `SafeUUID`: safe, unsafe, unknown.
    pub(super) safe: [Py<PyAny>; 3],
}

impl Natives {
    pub(super) fn get(py: Python<'_>) -> PyResult<&'static Self> {
        static NATIVES: PyOnceLock<Natives> = PyOnceLock::new();
        NATIVES.get_or_try_init(py, || Self::new(py))
    }

    fn new(py: Python<'_>) -> PyResult<Self> {
        let rules = Rules::get(py)?;
        // Here it fails if the C interface of `datetime` can't be had. Later it would be looked for in the middle of a walk, and
        // PyO3 relies on it.
        PyDelta::new(py, 0, 0, 0, false)?;
        let uuid = Uuid::new(py)?;
        let mut addresses = [0; COUNT];
        let mut types = [const { None }; COUNT];
        for (index, (native, home, _, name)) in TYPES.into_iter().enumerate() {
            let (module, name) = (PyString::intern(py, home), PyString::intern(py, name));
            let Ok(class) = py.import(&module)?.getattr(&name)?.cast_into_exact::<PyType>() else {
                continue;
            };
            let own = match native {
                Native::Uuid => uuid.is_some() && rules.has_default_slots(&class),
                // Elsewhere there may be one in Python.
                _ => cpython::is_immutable(&class),
            };
            if own {
                addresses[index] = class.as_ptr() as usize;
                types[index] = Some(Type {
                    class: class.unbind(),
                    module: module.unbind(),
                    name: name.unbind(),
                });
            }
        }
        let mut factories = Vec::new();
        for (name, _) in FACTORIES {
            let (module, name) = (PyString::intern(py, "builtins"), PyString::intern(py, name));
            let factory = Type {
                class: py.import(&module)?.getattr(&name)?.cast_into::<PyType>()?.unbind(),
                module: module.unbind(),
                name: name.unbind(),
            };
            push(&mut factories, factory)?;
        }
        let zone = types[Native::ZoneInfo as usize].as_ref();
        let unpickle = zone.map(|zone| zone.class.bind(py).getattr("_unpickle"));
        Ok(Self {
            addresses,
            getattr: py.import("builtins")?.getattr("getattr")?.unbind(),
            pickle_complex: py.import("copyreg")?.getattr_opt("pickle_complex")?.map(Bound::unbind),
            unpickle_zone: unpickle.transpose()?.map(Bound::unbind),
            types,
            uuid,
            factories,
            default_factory: PyString::intern(py, "default_factory").unbind(),
            int: PyString::intern(py, "int").unbind(),
            is_safe: PyString::intern(py, "is_safe").unbind(),
        })
    }

    /// Which of the types this object is.
    #[inline]
    pub(super) fn find<T>(&self, class: &Bound<'_, T>) -> Option<Native> {
        self.at(class.as_ptr() as usize)
    }

    /// Which of the types the object is an instance of.
    #[inline]
    pub(super) fn of(&self, object: &Bound<'_, PyAny>) -> Option<Native> {
        self.at(object.get_type_ptr() as usize)
    }

    /// Whether the object is an instance of this type.
    #[inline]
    pub(super) fn is(&self, native: Native, object: &Bound<'_, PyAny>) -> bool {
        self.addresses[native as usize] == object.get_type_ptr() as usize
    }

    #[inline]
    fn at(&self, address: usize) -> Option<Native> {
        let index = self.addresses.iter().position(|&own| own == address)?;
        Some(TYPES[index].0)
    }

    /// Where a class stands among the factories.
    pub(super) fn factory(&self, class: &Bound<'_, PyAny>) -> Option<usize> {
        self.factories.iter().position(|factory| factory.class.is(class))
    }

    /// Whether the type's instances are made of what their pickle says as they were when this module was loaded.
    pub(super) fn is_read_here(&self, py: Python<'_>, native: Native) -> PyResult<bool> {
        match (native, &self.uuid) {
            (Native::Uuid, Some(uuid)) => uuid.is_unchanged(py, self.types[Native::Uuid as usize].as_ref()),
            _ => Ok(true),
        }
    }

    /// Whether `pickle` treats the type's instances as it did when this module was loaded.
    fn is_written_here(&self, py: Python<'_>, native: Native) -> PyResult<bool> {
        let Some(own) = &self.types[native as usize] else {
            return Ok(false);
        };
        let rules = Rules::get(py)?;
        let class = own.class.bind(py);
        if !own.is_found(py, rules)? {
            return Ok(false);
        }
        if native == Native::DefaultDict {
            for factory in &self.factories {
                if !factory.is_found(py, rules)? {
                    return Ok(false);
                }
            }
        }
        // The pickler knows these two before it asks what is registered.
        if !matches!(native, Native::Set | Native::FrozenSet) {
            let usual = self.pickle_complex.as_ref().filter(|_| native == Native::Complex);
            if rules.registered(class)?.map(|now| now.as_ptr()) != usual.map(|usual| usual.as_ptr()) {
                return Ok(false);
            }
        }
        if native == Native::ZoneInfo {
            let builtins = PyString::intern(py, "builtins");
            let found = rules.find(&builtins, &PyString::intern(py, "getattr"))?;
            return Ok(found.is_some_and(|found| found.is(&self.getattr)));
        }
        self.is_read_here(py, native)
    }
}

impl Uuid {
    /// What decides how `pickle` treats a UUID, by the class and by `object`, whose own is in place of what the class lacks.
    const HOOKS: [&str; 12] = [
        "__getstate__",
        "__setstate__",
        "int",
        "is_safe",
        "__module__",
        "__slots__",
        "__reduce_ex__",
        "__reduce__",
        "__new__",
        "__class__",
        "__getattribute__",
        "__getattr__",
    ];

    /// `None` if it is not as it is in the standard library.
    fn new(py: Python<'_>) -> PyResult<Option<Self>> {
        let module = py.import("uuid")?;
        let Ok(class) = module.getattr("UUID")?.cast_into_exact::<PyType>() else {
            return Ok(None);
        };
        let Some(namespace) = cpython::class_attributes(&class) else {
            return Ok(None);
        };
        let mut attributes = Vec::new();
        for (index, name) in Self::HOOKS.into_iter().enumerate() {
            let name = PyString::intern(py, name);
            let value = namespace.get_item(&name)?;
            let own = match (index, &value) {
                // Functions of that module.
                (0 | 1, Some(hook)) => {
                    hook.cast_exact::<PyFunction>().is_ok()
                        && hook
                            .getattr_opt("__globals__")?
                            .is_some_and(|home| home.is(module.dict()))
                }
                (2..6, Some(_)) | (6.., None) => true,
                _ => false,
            };
            if !own {
                return Ok(None);
            }
            attributes.push((name.unbind(), value.map(Bound::unbind)));
        }
        let (int, is_safe) = (namespace.get_item("int")?, namespace.get_item("is_safe")?);
        let slots = int
            .zip(is_safe)
            .filter(|(int, is_safe)| cpython::is_slot_of(int, &class) && cpython::is_slot_of(is_safe, &class));
        let Some((int, is_safe)) = slots else {
            return Ok(None);
        };
        let enumeration = module.getattr("SafeUUID")?;
        let member = |name| enumeration.getattr(name).map(Bound::unbind);
        Ok(Some(Self {
            attributes,
            int: int.unbind(),
            is_safe: is_safe.unbind(),
            safe: [member("safe")?, member("unsafe")?, member("unknown")?],
            enumeration: enumeration.unbind(),
        }))
    }

    fn is_unchanged(&self, py: Python<'_>, own: Option<&Type>) -> PyResult<bool> {
        let Some(own) = own else {
            return Ok(false);
        };
        let rules = Rules::get(py)?;
        let found = rules.find(own.module.bind(py), &PyString::intern(py, "SafeUUID"))?;
        if !found.is_some_and(|found| found.is(&self.enumeration)) {
            return Ok(false);
        }
        let class = own.class.bind(py);
        let Some(namespace) = cpython::class_attributes(class).filter(|_| rules.has_default_slots(class)) else {
            return Ok(false);
        };
        for (name, then) in &self.attributes {
            let now = namespace.get_item(name)?;
            if now.as_ref().map(|now| now.as_ptr()) != then.as_ref().map(|then| then.as_ptr()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// How deep tuples may be nested in a key.
const MAX_KEY_DEPTH: usize = 16;

/// Whether a key can be hashed safely: an instance may have a hash method in Python, and CPython hashes nested tuples without
/// checking the depth of its stack. Beside something else with the same hash, a Decimal asks an abstract class what that is.
#[inline]
pub(super) fn is_plain_key(natives: &Natives, key: &Bound<'_, PyAny>) -> bool {
    is_plain_to(natives, key, MAX_KEY_DEPTH)
}

fn is_plain_to(natives: &Natives, key: &Bound<'_, PyAny>, depth: usize) -> bool {
    match cpython::exact::<PyTuple>(key) {
        Some(tuple) => depth > 0 && tuple.iter_borrowed().all(|item| is_plain_to(natives, &item, depth - 1)),
        None => !cpython::has_heap_type(key) && !natives.is(Native::Decimal, key),
    }
}

/// Which types are written here, as was found before a walk.
pub(super) struct Checks {
    pub(super) natives: &'static Natives,
    /// Whether there is a result for this walk, and which.
    results: [Option<bool>; COUNT],
    /// In how many items before this one there was no instance.
    unused: [u8; COUNT],
    /// Whether there was one lately. If not, there are no results and no numbers, and an item of plain types costs nothing.
    is_in_use: bool,
    /// Whether the walk met an instance of a type that is not checked, so that it was in vain.
    met_unchecked: bool,
    /// The memo numbers of the types, and of functions, in this pickle.
    #[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "the walk needs the GIL"))]
    numbers: [Option<u32>; COUNT],
    #[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "the walk needs the GIL"))]
    factory_numbers: [Option<u32>; FACTORIES.len()],
    pub(super) zones: ReducedZones,
}

impl Checks {
    /// A type that was not met within so many items is no longer looked at before each.
    const UNUSED: u8 = 8;

    pub(super) fn new(natives: &'static Natives) -> Self {
        Self {
            natives,
            results: [None; COUNT],
            unused: [Self::UNUSED; COUNT],
            is_in_use: false,
            met_unchecked: false,
            numbers: [None; COUNT],
            factory_numbers: [None; FACTORIES.len()],
            zones: ReducedZones::default(),
        }
    }

    /// Begins an item: looks again at the types that there were instances of lately.
    pub(super) fn look(&mut self, py: Python<'_>) -> PyResult<()> {
        if !self.is_in_use {
            return Ok(());
        }
        self.is_in_use = false;
        self.met_unchecked = false;
        self.zones.look();
        self.numbers = [None; COUNT];
        self.factory_numbers = [None; FACTORIES.len()];
        self.results = [None; COUNT];
        for (native, ..) in TYPES {
            let index = native as usize;
            if self.unused[index] < Self::UNUSED {
                self.unused[index] += 1;
                self.is_in_use = true;
                self.results[index] = Some(self.natives.is_written_here(py, native)?);
            }
        }
        Ok(())
    }

    /// Whether the walk met only what was known, so that what it has written is right.
    pub(super) fn met_all(&self) -> bool {
        !self.zones.met_unknown()
    }

    /// Finds out what the walk has lacked. Returns whether it is worth another try; `None` if it lacked nothing.
    pub(super) fn learn(&mut self, py: Python<'_>) -> PyResult<Option<bool>> {
        if self.met_unchecked {
            // All types are looked at once: of the others there may be instances, too.
            for unused in &mut self.unused {
                *unused = (*unused).min(Self::UNUSED - 1);
            }
            return Ok(Some(true));
        }
        if self.zones.met_unknown() {
            return self.zones.learn(py, self.natives).map(Some);
        }
        Ok(None)
    }

    /// Whether instances of the type may be written in this walk.
    #[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "the walk needs the GIL"))]
    #[inline]
    fn allow(&mut self, native: Native) -> Option<()> {
        let index = native as usize;
        self.unused[index] = 0;
        self.is_in_use = true;
        match self.results[index] {
            Some(holds) => holds.then_some(()),
            None => {
                self.met_unchecked = true;
                None
            }
        }
    }
}
