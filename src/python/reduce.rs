//! Pickling by CPython's own pickler: in protocol 0, or in protocol 4 if protocol 0 refuses the item or would change it.
//!
//! The pickler shows each object that is not of a plain type to `reducer_override`. Most classes say themselves how their
//! instances are pickled, in any protocol. Three kinds of objects come back from protocol 0 with another value:
//!
//! - dates and times with `fold=1`, which protocol 0 does not store;
//! - instances of subclasses of `str`, `int`, `dict` and so on, which protocol 0 stores as what `str()`, `int()` or `dict()`
//!   makes of them, and so as what the class's own `__str__()`, `__int__()` or `__iter__()` returns;
//! - instances with a state that protocol 0 leaves out, such as a false one.
//!
//! A class that has a `__reduce__()` of its own pickles its instances alike in any protocol. One that has a `__reduce_ex__()`
//! of its own may call Python's, and loses the same.
//!
//! The class decides whether an object is looked at. Then its reduction for protocol 0, which the pickler asks for anyway, is
//! compared with the object.

use std::sync::Mutex;

use pyo3::exceptions::{PyAttributeError, PyNotImplementedError, PyRecursionError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBytes, PyCFunction, PyComplex, PyDateTime, PyDict, PyFloat, PyInt, PyList, PyNotImplemented, PyString, PyTime,
    PyTimeAccess, PyTuple, PyType,
};

use super::classes::Rules;
use super::cpython;
use crate::error::Result;
use crate::memory::{grow, push};
use crate::pickle::memo::{Entry, Memo};

/// The protocol in which Djblets writes.
const DJBLETS: u8 = 0;
/// The protocol of items that protocol 0 can't carry. Djblets reads any.
const WIDER: u8 = 4;

/// A pickler that has written more bytes than this at once is not kept: its memo does not shrink.
const LARGEST_KEPT: usize = 1 << 20;

/// Pickles items, one after the other, by CPython's pickler.
#[derive(Default)]
pub(super) struct CPickler {
    djblets: Option<Pickler>,
    wider: Option<Pickler>,
}

/// A pickler of protocol 0 that nothing uses: to make one takes longer than to pickle a small value.
static SPARE: Mutex<Option<Pickler>> = Mutex::new(None);

impl CPickler {
    /// Appends the item's pickle to `output`, which stays as it is if there is an error.
    pub(super) fn write(&mut self, item: &Bound<'_, PyAny>, output: &mut Vec<u8>) -> PyResult<()> {
        let py = item.py();
        if self.djblets.is_none() {
            self.djblets = SPARE.try_lock().ok().and_then(|mut spare| spare.take());
        }
        let Err(error) = write(&mut self.djblets, DJBLETS, item, output) else {
            return Ok(());
        };
        let changes = error.is_instance_of::<Changed>(py);
        if !changes && !is_refusal(py, &error)? {
            return Err(error);
        }
        match write(&mut self.wider, WIDER, item, output) {
            // Neither protocol takes the item: the error is the one that Djblets logs.
            Err(again) if !changes && is_refusal(py, &again)? => Err(error),
            result => result,
        }
    }

    /// Leaves a pickler for the next item that is pickled alone.
    pub(super) fn leave(self, py: Python<'_>) {
        let Some(pickler) = self.djblets else {
            return;
        };
        let hooks = pickler.hooks.try_borrow_mut(py).ok();
        if let Some(known) = hooks.and_then(|mut hooks| hooks.kinds.clear().ok()) {
            let former = SPARE.try_lock().ok().and_then(|mut spare| spare.replace(pickler));
            // Classes may end here, after the locks.
            drop((known, former));
        }
    }
}

fn write(kept: &mut Option<Pickler>, protocol: u8, item: &Bound<'_, PyAny>, output: &mut Vec<u8>) -> PyResult<()> {
    let pickler = match kept {
        Some(pickler) => pickler,
        None => kept.insert(Pickler::new(item.py(), protocol)?),
    };
    let written = pickler.write(item, output);
    if !matches!(written, Ok(size) if size <= LARGEST_KEPT) {
        *kept = None;
    }
    written.map(|_| ())
}

/// Whether this is how a pickler or a class refuses an object. What a signal handler raises most likely is not.
fn is_refusal(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    Ok(error.is_instance_of::<PyTypeError>(py)
        || error.is_instance_of::<PyValueError>(py)
        || error.is_instance_of::<PyAttributeError>(py)
        || error.is_instance_of::<PyRecursionError>(py)
        || error.is_instance_of::<PyNotImplementedError>(py)
        || error.is_instance(py, Names::get(py)?.pickle_error.bind(py)))
}

pyo3::create_exception!(
    fastblets._native,
    Changed,
    pyo3::exceptions::PyException,
    "Ends the pickling of an item that protocol 0 would change."
);

/// What is asked for again and again.
struct Names {
    pickler: Py<PyAny>,
    pickle_error: Py<PyAny>,
    slot_names: Py<PyAny>,
}

impl Names {
    fn get(py: Python<'_>) -> PyResult<&Self> {
        static NAMES: PyOnceLock<Names> = PyOnceLock::new();
        NAMES.get_or_try_init(py, || {
            let pickle = py.import("pickle")?;
            // `Pickler` itself has no place for `reducer_override`.
            let bases = (pickle.getattr("Pickler")?,);
            let pickler = py.get_type::<PyType>().call1(("ItemPickler", bases, PyDict::new(py)))?;
            Ok(Self {
                pickler: pickler.unbind(),
                pickle_error: pickle.getattr("PickleError")?.unbind(),
                slot_names: py.import("copyreg")?.getattr("_slotnames")?.unbind(),
            })
        })
    }
}

/// A pickler of one protocol.
struct Pickler {
    pickler: Py<PyAny>,
    hooks: Py<Hooks>,
}

impl Pickler {
    fn new(py: Python<'_>, protocol: u8) -> PyResult<Self> {
        let hooks = Bound::new(
            py,
            Hooks {
                protocol,
                kinds: Kinds::new()?,
                written: Vec::new(),
            },
        )?;
        let pickler = Names::get(py)?.pickler.bind(py).call1((&hooks, protocol))?;
        let name = intern!(py, "reducer_override");
        pickler.setattr(name, hooks.getattr(name)?)?;
        Ok(Self {
            pickler: pickler.unbind(),
            hooks: hooks.unbind(),
        })
    }

    /// Appends the item's pickle. Returns its size in bytes.
    fn write(&self, item: &Bound<'_, PyAny>, output: &mut Vec<u8>) -> PyResult<usize> {
        let py = item.py();
        let pickler = self.pickler.bind(py);
        let done = pickler.call_method1(intern!(py, "dump"), (item,));
        let written = std::mem::take(&mut self.hooks.try_borrow_mut(py)?.written);
        done?;
        // It holds every object of the item.
        pickler.call_method0(intern!(py, "clear_memo"))?;
        let size = written.iter().map(|piece| piece.as_bytes(py).len()).sum();
        grow(output, size)?;
        for piece in &written {
            output.extend_from_slice(piece.as_bytes(py));
        }
        Ok(size)
    }
}

/// The pickler's file, and what it asks about objects.
#[pyclass(module = "fastblets._native")]
struct Hooks {
    protocol: u8,
    kinds: Kinds,
    written: Vec<Py<PyBytes>>,
}

#[pymethods]
impl Hooks {
    fn write(&mut self, piece: Py<PyBytes>) -> PyResult<()> {
        Ok(push(&mut self.written, piece)?)
    }

    /// How an object is pickled. `NotImplemented` if it is as the pickler would do it.
    fn reducer_override<'py>(&mut self, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = object.py();
        let class = object.get_type();
        let reduction = match self.kinds.find(&class)? {
            Kind::Own => None,
            // It may have been registered since its first instance.
            _ if Rules::get(py)?.is_registered(&class)? => None,
            Kind::Time if self.protocol == DJBLETS => with_fold(object)?,
            Kind::Time => None,
            Kind::Default(defaults) if self.protocol == DJBLETS => Some(defaults.unchanged(object)?),
            Kind::Default(defaults) => defaults.widened(object)?,
        };
        Ok(reduction.unwrap_or_else(|| PyNotImplemented::get(py).to_owned().into_any()))
    }
}

/// The classes of which there were instances.
struct Kinds {
    /// Where each stands in `known`, by its address.
    places: Memo,
    known: Vec<(Py<PyType>, Kind)>,
}

impl Kinds {
    fn new() -> Result<Self> {
        let mut places = Memo::default();
        places.clear()?;
        Ok(Self {
            places,
            known: Vec::new(),
        })
    }

    /// Forgets all, and returns it.
    fn clear(&mut self) -> Result<Vec<(Py<PyType>, Kind)>> {
        self.places.clear()?;
        Ok(std::mem::take(&mut self.known))
    }

    fn find(&mut self, class: &Bound<'_, PyType>) -> PyResult<Kind> {
        let address = class.as_ptr() as usize;
        if let Entry::Number(place) = self.places.entry(address)
            && let Some((_, kind)) = self.known.get(place as usize)
        {
            return Ok(*kind);
        }
        let kind = Kind::of(class)?;
        // That may have run Python code, but none that comes here.
        if let Entry::Vacant(vacant) = self.places.entry(address) {
            // Room first, since what the memo holds must be there.
            grow(&mut self.known, 1)?;
            self.places.put(vacant, address, self.known.len() as u32)?;
            self.known.push((class.clone().unbind(), kind));
        }
        Ok(kind)
    }
}

/// What there is to find out about a class's instances.
#[derive(Clone, Copy)]
enum Kind {
    /// Nothing: how they are pickled is the class's own business, or nothing of them can get lost.
    Own,
    /// Whether they have `fold=1`.
    Time,
    /// Whether Python's defaults keep their value.
    Default(Defaults),
}

/// An instance that Python takes apart by its defaults: `copyreg` does it up to protocol 1, `object` since protocol 2.
#[derive(Clone, Copy)]
struct Defaults {
    base: Base,
    /// Whether `__setstate__()` may be given a false state, which protocol 0 leaves out.
    takes_false_state: bool,
    /// Whether protocol 0 leaves out slots.
    hides_slots: bool,
    /// Whether protocol 4 would call a `__new__()` without its arguments, or fill the instance by the class's own methods. In
    /// protocol 0 nothing but the built-in base makes and fills it.
    rebuild: bool,
    /// Whether protocol 4 would take the items from the class's own methods.
    own_items: bool,
}

/// The arguments of `copyreg._reconstructor`, and the state.
type Parts<'py> = (Bound<'py, PyTuple>, Option<Bound<'py, PyAny>>);

/// The built-in type that holds an instance's own value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Base {
    Object,
    Str,
    Int,
    Float,
    Complex,
    Bytes,
    Tuple,
    List,
    Dict,
}

impl Kind {
    fn of(class: &Bound<'_, PyType>) -> PyResult<Self> {
        let py = class.py();
        // Classes are pickled by their names, whatever their metaclass.
        if class.is_subclass_of::<PyType>()? || Rules::get(py)?.is_registered(class)? {
            return Ok(Self::Own);
        }
        if class.is_subclass_of::<PyDateTime>()? || class.is_subclass_of::<PyTime>()? {
            return Ok(Self::Time);
        }
        let object = py.get_type::<PyAny>();
        if differs(class, &object, intern!(py, "__reduce__"))? {
            return Ok(Self::Own);
        }
        let mut defaults = Defaults::of(class)?;
        // It is told the protocol, and may return what Python's own returns. What it returns for protocol 4 stays as it is.
        if differs(class, &object, intern!(py, "__reduce_ex__"))? {
            defaults.rebuild = false;
            defaults.own_items = false;
        }
        let looked_at =
            defaults.base != Base::Object || defaults.takes_false_state || defaults.hides_slots || defaults.rebuild;
        Ok(if looked_at { Self::Default(defaults) } else { Self::Own })
    }
}

impl Defaults {
    fn of(class: &Bound<'_, PyType>) -> PyResult<Self> {
        let py = class.py();
        let base = Base::of(class)?;
        let built_in = base.class(py);
        let own = |name: &Bound<'_, PyString>| differs(class, &built_in, name);
        let has_arguments = own(intern!(py, "__getnewargs__"))? || own(intern!(py, "__getnewargs_ex__"))?;
        let own_filling = match base {
            Base::List => own(intern!(py, "append"))? || own(intern!(py, "extend"))?,
            Base::Dict => own(intern!(py, "__setitem__"))?,
            // A named tuple's arguments are what iterating over it gives.
            Base::Tuple => has_arguments && own(intern!(py, "__iter__"))?,
            _ => false,
        };
        Ok(Self {
            base,
            takes_false_state: differs(class, &py.get_type::<PyAny>(), intern!(py, "__getstate__"))?
                && class.hasattr(intern!(py, "__setstate__"))?,
            hides_slots: has_hidden_slots(class)?,
            rebuild: own_filling || (has_own_new(class)? && !has_arguments),
            own_items: match base {
                Base::List => own(intern!(py, "__iter__"))?,
                Base::Dict => own(intern!(py, "items"))?,
                _ => false,
            },
        })
    }

    /// The reduction for protocol 0.
    fn unchanged<'py>(self, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = object.py();
        let reduction = reduce(object, DJBLETS)?;
        let Some((arguments, state)) = self.parts(object, &reduction)? else {
            return Ok(reduction);
        };
        if !self.base.carries(object, &arguments.get_item(2)?)? {
            return Err(changed());
        }
        // Asked alone, since the rest of protocol 4's reduction may be refused.
        let leaves_out_state = self.takes_false_state && state.is_none();
        if leaves_out_state && !object.call_method0(intern!(py, "__getstate__"))?.is_none() {
            return Err(changed());
        }
        if self.hides_slots {
            let wider = reduce(object, WIDER)?;
            let state = cpython::exact::<PyTuple>(&wider).and_then(|parts| item(parts, 2));
            // Slots stand beside the attributes, in a tuple.
            if state.is_some_and(|state| state.is_exact_instance_of::<PyTuple>()) {
                return Err(changed());
            }
        }
        Ok(reduction)
    }

    /// What Python takes the object apart into, if it does so by `copyreg._reconstructor`.
    fn parts<'py>(self, object: &Bound<'py, PyAny>, reduction: &Bound<'py, PyAny>) -> PyResult<Option<Parts<'py>>> {
        let py = object.py();
        let Some(reduction) = cpython::exact::<PyTuple>(reduction) else {
            return Ok(None);
        };
        let function = item(reduction, 0);
        let arguments = item(reduction, 1).and_then(|arguments| arguments.cast_into_exact::<PyTuple>().ok());
        let (Some(function), Some(arguments)) = (function, arguments) else {
            return Ok(None);
        };
        let class_and_base = item(&arguments, 0).zip(item(&arguments, 1));
        let by_default = function.is(&Rules::get(py)?.reconstructor)
            && arguments.len() == 3
            && class_and_base.is_some_and(|(class, base)| class.is(object.get_type()) && base.is(self.base.class(py)));
        Ok(by_default.then(|| (arguments, item(reduction, 2))))
    }

    /// The reduction for protocol 4, if Python's own might not give the object back.
    fn widened<'py>(self, object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = object.py();
        if !self.rebuild && !self.own_items {
            return Ok(None);
        }
        let reduction = reduce(object, WIDER)?;
        let Some(parts) = cpython::exact::<PyTuple>(&reduction).filter(|parts| parts.len() >= 2) else {
            return Ok(Some(reduction));
        };
        let none = || py.None().into_bound(py);
        let state = item(parts, 2).unwrap_or_else(none);
        let value = self.base.value(object)?;
        let parts = if self.rebuild {
            let arguments = (object.get_type(), self.base.class(py), value);
            (&Rules::get(py)?.reconstructor, arguments, state).into_pyobject(py)?
        } else if self.base == Base::List {
            (item(parts, 0), item(parts, 1), state, value.try_iter()?).into_pyobject(py)?
        } else {
            let items = value.call_method0(intern!(py, "items"))?.try_iter()?;
            (item(parts, 0), item(parts, 1), state, none(), items).into_pyobject(py)?
        };
        Ok(Some(parts.into_any()))
    }
}

impl Base {
    fn of(class: &Bound<'_, PyType>) -> PyResult<Self> {
        const ALL: [Base; 8] = [
            Base::Str,
            Base::Int,
            Base::Float,
            Base::Complex,
            Base::Bytes,
            Base::Tuple,
            Base::List,
            Base::Dict,
        ];
        for base in ALL {
            if class.is_subclass(base.class(class.py()).as_any())? {
                return Ok(base);
            }
        }
        Ok(Self::Object)
    }

    fn class(self, py: Python<'_>) -> Bound<'_, PyType> {
        match self {
            Self::Object => py.get_type::<PyAny>(),
            Self::Str => py.get_type::<PyString>(),
            Self::Int => py.get_type::<PyInt>(),
            Self::Float => py.get_type::<PyFloat>(),
            Self::Complex => py.get_type::<PyComplex>(),
            Self::Bytes => py.get_type::<PyBytes>(),
            Self::Tuple => py.get_type::<PyTuple>(),
            Self::List => py.get_type::<PyList>(),
            Self::Dict => py.get_type::<PyDict>(),
        }
    }

    /// The value that the built-in type holds, whatever the class's methods say; None of `object`.
    fn value<'py>(self, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = object.py();
        let arguments = || self.class(py).getattr(intern!(py, "__getnewargs__"))?.call1((object,));
        match self {
            Self::Object => Ok(py.None().into_bound(py)),
            Self::Str | Self::Int | Self::Float | Self::Bytes | Self::Tuple => arguments()?.get_item(0),
            Self::Complex => self.class(py).call1(arguments()?.cast_into::<PyTuple>()?),
            Self::List => {
                let list = object.cast::<PyList>()?;
                Ok(list.get_slice(0, list.len()).into_any())
            }
            Self::Dict => {
                let copy = PyDict::new(py);
                for (key, value) in object.cast::<PyDict>()? {
                    copy.set_item(key, value)?;
                }
                Ok(copy.into_any())
            }
        }
    }

    /// Whether `converted`, which protocol 0 stores in the object's place, has the object's value.
    fn carries<'py>(self, object: &Bound<'py, PyAny>, converted: &Bound<'py, PyAny>) -> PyResult<bool> {
        match self {
            Self::Object => return Ok(converted.is_none()),
            // What str() returns may be of a subclass, too. Then it is converted once more when it is read.
            Self::Str | Self::Bytes if !converted.get_type().is(self.class(object.py())) => {
                // One that is the object itself is converted without end.
                return Ok(!converted.is(object) && {
                    let again = self.class(object.py()).call1((converted,))?;
                    self.value(object)?.eq(self.value(&again)?)?
                });
            }
            _ => {}
        }
        let value = self.value(object)?;
        Ok(match self {
            Self::Float => same_float(value.extract()?, converted.extract()?),
            Self::Complex => {
                let of = |number: &Bound<'py, PyAny>, part| number.getattr(part)?.extract::<f64>();
                same_float(of(&value, "real")?, of(converted, "real")?)
                    && same_float(of(&value, "imag")?, of(converted, "imag")?)
            }
            Self::Tuple | Self::List => {
                value.len()? == converted.len()?
                    && value
                        .try_iter()?
                        .zip(converted.try_iter()?)
                        .all(|pair| matches!(pair, (Ok(one), Ok(other)) if same(&one, &other)))
            }
            Self::Dict => {
                let (value, converted) = (value.cast::<PyDict>()?, converted.cast::<PyDict>()?);
                value.len() == converted.len()
                    && value
                        .iter()
                        .zip(converted.iter())
                        .all(|(one, other)| same(&one.0, &other.0) && same(&one.1, &other.1))
            }
            _ => value.eq(converted)?,
        })
    }
}

/// Whether two items are one object, or equal and of one plain type. No code of a class runs.
fn same(one: &Bound<'_, PyAny>, other: &Bound<'_, PyAny>) -> bool {
    if one.is(other) {
        return true;
    }
    if let (Some(one), Some(other)) = (cpython::exact::<PyFloat>(one), cpython::exact::<PyFloat>(other)) {
        return same_float(one.value(), other.value());
    }
    let plain = cpython::exact::<PyString>(one).is_some()
        || cpython::exact::<PyInt>(one).is_some()
        || cpython::exact::<PyBytes>(one).is_some();
    plain && one.get_type().is(other.get_type()) && one.eq(other).is_ok_and(|equal| equal)
}

/// Zeros have signs, and NaN is NaN.
fn same_float(one: f64, other: f64) -> bool {
    one.to_bits() == other.to_bits() || (one.is_nan() && other.is_nan())
}

/// The reduction of a date with a time, or of a time, that has `fold=1`.
fn with_fold<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let fold = match object.cast::<PyDateTime>() {
        Ok(object) => object.get_fold(),
        Err(_) => object.cast::<PyTime>()?.get_fold(),
    };
    if !fold {
        return Ok(None);
    }
    let reduction = reduce(object, DJBLETS)?;
    if is_without_fold(&reduction) {
        return Err(changed());
    }
    Ok(Some(reduction))
}

/// Whether the reduction holds the bytes of the month or hour without the bit for `fold`. A class may have a reduction of its
/// own.
fn is_without_fold(reduction: &Bound<'_, PyAny>) -> bool {
    const FOLD: u8 = 0x80;
    let arguments = cpython::exact::<PyTuple>(reduction).and_then(|parts| item(parts, 1));
    let Some(state) = arguments.and_then(|arguments| item(cpython::exact::<PyTuple>(&arguments)?, 0)) else {
        return false;
    };
    let bit = match cpython::exact::<PyBytes>(&state).map(|state| state.as_bytes()) {
        Some(&[_, _, month, _, _, _, _, _, _, _]) => month,
        Some(&[hour, _, _, _, _, _]) => hour,
        _ => return false,
    };
    bit & FOLD == 0
}

/// What the pickler would ask the object for.
fn reduce<'py>(object: &Bound<'py, PyAny>, protocol: u8) -> PyResult<Bound<'py, PyAny>> {
    object.call_method1(intern!(object.py(), "__reduce_ex__"), (protocol,))
}

fn changed() -> PyErr {
    Changed::new_err("protocol 0 would change this object")
}

fn item<'py>(tuple: &Bound<'py, PyTuple>, index: usize) -> Option<Bound<'py, PyAny>> {
    tuple.get_item(index).ok()
}

/// Whether a class has another attribute than the built-in type, inherited or not.
fn differs(class: &Bound<'_, PyType>, built_in: &Bound<'_, PyType>, name: &Bound<'_, PyString>) -> PyResult<bool> {
    let (own, built_in) = (class.getattr_opt(name)?, built_in.getattr_opt(name)?);
    Ok(match (own, built_in) {
        (Some(own), Some(built_in)) => !own.is(&built_in),
        (own, built_in) => own.is_some() != built_in.is_some(),
    })
}

/// Whether the class has a `__new__()` in Python: a built-in type's own is not in the way.
fn has_own_new(class: &Bound<'_, PyType>) -> PyResult<bool> {
    let new = class.getattr_opt(intern!(class.py(), "__new__"))?;
    Ok(new.is_some_and(|new| !new.is_instance_of::<PyCFunction>()))
}

/// Whether a class has slots that protocol 0 takes for none, as those of a class above it with `__slots__ = ()` of its own. It
/// does so before Python 3.11.
fn has_hidden_slots(class: &Bound<'_, PyType>) -> PyResult<bool> {
    let py = class.py();
    if py.version_info() >= (3, 11) || class.hasattr(intern!(py, "__getstate__"))? {
        return Ok(false);
    }
    let slots = class.getattr_opt(intern!(py, "__slots__"))?;
    let seen = slots.map_or(Ok(false), |slots| slots.is_truthy())?;
    Ok(!seen && Names::get(py)?.slot_names.bind(py).call1((class,))?.is_truthy()?)
}
