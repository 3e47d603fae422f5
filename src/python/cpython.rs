//! CPython's C API, for calls that PyO3 lacks or that are measurably slower through it.
//!
//! Each block says why it holds. All of them were read against the headers and sources of CPython 3.10 to 3.15, and `build.rs`
//! lets no other version through. What differs between these, and where it matters:
//!
//! - The word of the reference count is the count up to 3.11. On 3.12 and 3.13 all ones in its lower half mean immortal; on
//!   3.14 and 3.15 its lower half is the count and its upper half flags.
//! - An instance's `__dict__` is made when it is asked for from 3.11 on, and takes the values over; from 3.13 on it points to
//!   values that stay in the instance.
//! - The `tp_dict` of a built-in type may be null from 3.12 on, as each interpreter has its own.
//! - A str may be laid out late up to 3.11. From 3.14 on its bits are CPython's own business, and functions tell its layout.
//! - A tuple's items are behind its length, and from 3.14 on behind its hash.
//! - The collector runs when a container is allocated up to 3.11; from 3.12 on between bytecodes, and where CPython looks for
//!   signals.
//!
//! Free-threaded builds (3.13 on) count references in two words and may defer counting. Nothing here looks at a count there, and
//! nothing walks over a list or dict that other threads may change: see `dump.rs`.
#![allow(
    unsafe_code,
    reason = "each call is in the hot path of dump or load, and was measured to matter"
)]

use std::ffi::{c_int, c_ulong};
use std::mem::MaybeUninit;
use std::slice;

use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::type_object::PyTypeInfo;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple, PyType};

use crate::pickle::read::{self, Filled, Piece, Text};

/// The number of the interpreter that runs, which no other one of the process ever has.
pub(super) fn interpreter_id(py: Python<'_>) -> PyResult<i64> {
    // SAFETY: there is an interpreter, as this thread is attached to it.
    let id = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    if id < 0 { Err(PyErr::fetch(py)) } else { Ok(id) }
}

/// The object as a `T`, if its type is `T` itself and not a subclass.
#[inline]
pub(super) fn exact<'a, 'py, T: PyTypeInfo>(object: &'a Bound<'py, PyAny>) -> Option<&'a Bound<'py, T>> {
    if !object.is_exact_instance_of::<T>() {
        return None;
    }
    // SAFETY: the type has just been checked.
    Some(unsafe { object.cast_unchecked() })
}

/// How many references to the object there are, as far as that is few: an immortal object has a number that is none of a
/// count's, and so has one with flags from 3.14 on, as PyO3 reads the flags with the count.
///
/// Containers hold references that are counted, in every version. What is not counted is none of theirs: from 3.14 on the
/// interpreter's stack borrows from a local variable, which has a reference of its own; up to 3.11 the table of interned strs
/// keeps two that are not counted; and dicts that share a table of keys hold each key once together ([`shares_keys`]). So an
/// object with the reference of one container, and those that the caller knows of, is in no other container.
#[cfg(not(Py_GIL_DISABLED))]
#[inline]
pub(super) fn references(object: &Bound<'_, PyAny>) -> isize {
    // SAFETY: an object, which lives as long as this reference to it. The word stands where PyO3 says on 3.10 to 3.15.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) }
}

/// An item of a list.
#[cfg(not(Py_GIL_DISABLED))]
#[inline]
pub(super) fn list_item<'py>(list: &Bound<'py, PyList>, index: usize) -> Option<Bound<'py, PyAny>> {
    let items = list.as_ptr();
    // SAFETY: a list; its size is read here and now, and the GIL keeps it until the item's reference is taken. The items are
    // where they always were, and borrowed from the list, on 3.10 to 3.15.
    unsafe {
        let index = isize::try_from(index)
            .ok()
            .filter(|&index| index < ffi::PyList_GET_SIZE(items))?;
        Bound::from_borrowed_ptr_or_opt(list.py(), ffi::PyList_GET_ITEM(items, index))
    }
}

/// The dict's next key and value; `position` starts at 0 and means nothing else.
#[cfg(not(Py_GIL_DISABLED))]
#[inline]
pub(super) fn next_item<'py>(
    dict: &Bound<'py, PyDict>,
    position: &mut isize,
) -> Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    let (mut key, mut value) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: a dict (a frozendict, which 3.15 brings, is not one); the references are taken before anything can change it, as
    // the GIL is held. CPython looks at the position before it uses it, so that any is safe.
    unsafe {
        if ffi::PyDict_Next(dict.as_ptr(), position, &raw mut key, &raw mut value) == 0 {
            return None;
        }
        Some((
            Bound::from_borrowed_ptr_or_opt(dict.py(), key)?,
            Bound::from_borrowed_ptr_or_opt(dict.py(), value)?,
        ))
    }
}

/// Whether a condition, which runs no Python code, holds for each of a dict's keys and values.
pub(super) fn all_items<'py>(
    dict: &Bound<'py, PyDict>,
    mut holds: impl FnMut(&Bound<'py, PyAny>, &Bound<'py, PyAny>) -> bool,
) -> bool {
    dict.iter().all(|(key, value)| holds(&key, &value))
}

/// Whether the dict may share its keys with other dicts, which then hold one reference to each key together.
#[cfg(not(Py_GIL_DISABLED))]
#[inline]
pub(super) fn shares_keys(dict: &Bound<'_, PyDict>) -> bool {
    // SAFETY: a dict. On 3.10 to 3.15 it is its head, its size, a word of 64 bits that changed its name, its keys, and the
    // values if they stand apart from the keys, which alone can be shared. They do also where they stand in the instance.
    unsafe { !(*dict.as_ptr().cast::<ffi::PyDictObject>()).ma_values.is_null() }
}

/// Whether a class is a heap type: made at run time, as by a class statement. Built-in types are static.
#[inline]
fn is_heap_type(class: &Bound<'_, PyType>) -> bool {
    // SAFETY: a class.
    unsafe { ffi::PyType_HasFeature(class.as_type_ptr(), ffi::Py_TPFLAGS_HEAPTYPE) != 0 }
}

/// Whether the object's class is a heap type.
#[inline]
pub(super) fn has_heap_type(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: an object has a type, which lives at least as long.
    unsafe { ffi::PyType_HasFeature(ffi::Py_TYPE(object.as_ptr()), ffi::Py_TPFLAGS_HEAPTYPE) != 0 }
}

/// Whether no Python code can change the class, as it is built in or says so.
pub(super) fn is_immutable(class: &Bound<'_, PyType>) -> bool {
    // SAFETY: a class. The flag is 3.10's and later.
    let says_so = unsafe { ffi::PyType_HasFeature(class.as_type_ptr(), ffi::Py_TPFLAGS_IMMUTABLETYPE) != 0 };
    says_so || !is_heap_type(class)
}

/// Whether a descriptor is that of a slot which the class itself has.
pub(super) fn is_slot_of(descriptor: &Bound<'_, PyAny>, class: &Bound<'_, PyType>) -> bool {
    // SAFETY: an object, and a static of CPython's. A member descriptor begins as each descriptor does, with its class.
    unsafe {
        ffi::Py_TYPE(descriptor.as_ptr()) == &raw mut ffi::PyMemberDescr_Type
            && (*descriptor.as_ptr().cast::<ffi::PyDescrObject>()).d_type == class.as_type_ptr()
    }
}

/// What an instance has in a slot, of which this is the descriptor; `None` if it has nothing there.
#[inline]
pub(super) fn slot<'py>(descriptor: &Bound<'py, PyAny>, instance: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    let py = instance.py();
    // SAFETY: `tp_descr_get` takes a descriptor, an object and its class; the result is a new reference or, with an error set,
    // null. That of a member descriptor checks that the object has the slot, and runs no Python code.
    unsafe {
        let get = (*ffi::Py_TYPE(descriptor.as_ptr())).tp_descr_get?;
        let class = ffi::Py_TYPE(instance.as_ptr()).cast();
        new_object(py, get(descriptor.as_ptr(), instance.as_ptr(), class))
    }
}

/// Puts a value into an instance's slot. What was there before must be nothing that runs Python code when it ends.
#[inline]
pub(super) fn set_slot(
    descriptor: &Bound<'_, PyAny>,
    instance: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
) -> Option<()> {
    // SAFETY: `tp_descr_set` takes a descriptor, an object and a value, of which it takes its own reference. It returns 0 or,
    // with an error set, -1. That of a member descriptor checks that the object has the slot.
    unsafe {
        let set = (*ffi::Py_TYPE(descriptor.as_ptr())).tp_descr_set?;
        if set(descriptor.as_ptr(), instance.as_ptr(), value.as_ptr()) != 0 {
            drop(PyErr::take(instance.py()));
            return None;
        }
    }
    Some(())
}

/// What `str()` makes of an object whose type is built in and has its own, without the look for signals.
#[cfg(not(Py_GIL_DISABLED))]
#[inline]
pub(super) fn text_of<'py>(object: &Bound<'py, PyAny>) -> Option<Bound<'py, PyString>> {
    // SAFETY: an object, whose type has the slot where PyO3 says; the result is a new reference or, with an error set, null.
    let text = unsafe {
        let text = (*ffi::Py_TYPE(object.as_ptr())).tp_str?;
        new_object(object.py(), text(object.as_ptr()))?
    };
    text.cast_into_exact().ok()
}

/// The object's class, if it is a heap type.
#[inline]
pub(super) fn heap_type<'py>(object: &Bound<'py, PyAny>) -> Option<Bound<'py, PyType>> {
    has_heap_type(object).then(|| object.get_type())
}

/// The class's own attributes, without those of its bases. `None` for a static type.
pub(super) fn class_attributes<'py>(class: &Bound<'py, PyType>) -> Option<Bound<'py, PyDict>> {
    if !is_heap_type(class) {
        return None;
    }
    // SAFETY: a class, whose dict is where it says as it is not a built-in type: of those each interpreter has its own from
    // 3.12 on, of others none.
    unsafe {
        let attributes = (*class.as_type_ptr()).tp_dict;
        Some(Bound::from_borrowed_ptr_or_opt(class.py(), attributes)?.cast_into_unchecked())
    }
}

/// Whether the class creates and destroys its instances by the same functions as `model`, and finds their attributes by the
/// same one. Both are heap types.
pub(super) fn has_slots_of(class: &Bound<'_, PyType>, model: &Bound<'_, PyType>) -> bool {
    fn slots(class: &ffi::PyTypeObject) -> [Option<usize>; 6] {
        [
            class.tp_new.map(|slot| slot as usize),
            class.tp_alloc.map(|slot| slot as usize),
            class.tp_dealloc.map(|slot| slot as usize),
            class.tp_getattro.map(|slot| slot as usize),
            class.tp_finalize.map(|slot| slot as usize),
            class.tp_del.map(|slot| slot as usize),
        ]
    }
    // SAFETY: two classes, of which a type object stays where it is as long as it lives. The slots stand where PyO3 says on
    // 3.10 to 3.15: they are as old as `tp_finalize`, and only what is behind it has changed since.
    unsafe { slots(&*class.as_type_ptr()) == slots(&*model.as_type_ptr()) }
}

/// An instance's `__dict__`, made if it has none yet. `None` if it can't have any, or has one that is not quite a dict.
#[inline]
pub(super) fn attributes<'py>(instance: &Bound<'py, PyAny>) -> Option<Bound<'py, PyDict>> {
    // SAFETY: an object; the result is a new reference or, with an error set, null. The function is part of the stable ABI
    // from 3.10 on, and knows where this version keeps the attributes. It runs no Python code.
    let attributes = unsafe {
        let attributes = ffi::PyObject_GenericGetDict(instance.as_ptr(), std::ptr::null_mut());
        Bound::from_owned_ptr_or_err(instance.py(), attributes).ok()?
    };
    exact::<PyDict>(&attributes)?;
    // SAFETY: the type has just been checked.
    Some(unsafe { attributes.cast_into_unchecked() })
}

/// `object.__new__(class)`, if that is how CPython itself makes the class's instances. It is not where the class is built in,
/// takes its `__new__` from another base, has none (as the types of which Python code may make no instances), or is abstract.
#[inline]
pub(super) fn new_instance<'py>(class: &Bound<'py, PyType>) -> Option<Bound<'py, PyAny>> {
    const REFUSED: c_ulong = ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION | ffi::Py_TPFLAGS_IS_ABSTRACT;
    // SAFETY: a static of CPython's, of which the slot never changes.
    let new = unsafe { ffi::PyBaseObject_Type.tp_new? };
    let arguments = PyTuple::empty(class.py());
    let class = class.as_type_ptr();
    // SAFETY: `tp_new` of `object` makes instances of any class that has it as its own: that is the check by which CPython
    // lets `object.__new__(class)` through ("is not safe, use ..." otherwise). It allocates by the class's `tp_alloc`,
    // and what is beyond an object's head stays zero, as every class with that `tp_new` expects. It takes a class, an
    // empty tuple and no keywords; the result is a new reference or, with an error set, null. For an abstract class it
    // would sort the names of methods, which may run Python code. All of this holds on 3.10 to 3.15.
    unsafe {
        if ffi::PyType_HasFeature(class, ffi::Py_TPFLAGS_HEAPTYPE) == 0
            || ffi::PyType_HasFeature(class, REFUSED) != 0
            || (*class).tp_new.map(|own| own as usize) != Some(new as usize)
        {
            return None;
        }
        new_object(arguments.py(), new(class, arguments.as_ptr(), std::ptr::null_mut()))
    }
}

/// The interned str that is equal to this one, which becomes it if there is none.
#[inline]
pub(super) fn interned(text: Bound<'_, PyString>) -> Bound<'_, PyString> {
    let py = text.py();
    let mut text = text.into_ptr();
    // SAFETY: an exact str, of which the reference is given away and another one taken in its place, on 3.10 to 3.15.
    unsafe {
        ffi::PyUnicode_InternInPlace(&raw mut text);
        Bound::from_owned_ptr(py, text).cast_into_unchecked()
    }
}

/// A str's characters, in the width in which CPython keeps them.
pub(super) enum Characters<'a> {
    Latin1(&'a [u8]),
    Ucs2(&'a [u16]),
    Ucs4(&'a [u32]),
}

/// A str's characters; `None` if CPython has not laid them out yet, which it does late only before 3.12.
#[inline]
pub(super) fn characters<'a>(text: &'a Bound<'_, PyString>) -> Option<Characters<'a>> {
    let text = text.as_ptr();
    // SAFETY: a str, and one that is laid out; strs don't change, and this one lives as long as the slice. Kind and data come
    // from bits that PyO3 knows up to 3.13, and from functions of CPython's from 3.14 on.
    unsafe {
        #[cfg(not(Py_3_12))]
        if ffi::PyUnicode_IS_READY(text) == 0 {
            return None;
        }
        let length = usize::try_from(ffi::PyUnicode_GET_LENGTH(text)).ok()?;
        let data = ffi::PyUnicode_DATA(text);
        match ffi::PyUnicode_KIND(text) {
            ffi::PyUnicode_1BYTE_KIND => Some(Characters::Latin1(slice::from_raw_parts(data.cast(), length))),
            ffi::PyUnicode_2BYTE_KIND => Some(Characters::Ucs2(slice::from_raw_parts(data.cast(), length))),
            ffi::PyUnicode_4BYTE_KIND => Some(Characters::Ucs4(slice::from_raw_parts(data.cast(), length))),
            _ => None,
        }
    }
}

/// An int's value, if it has 64 bits.
#[inline]
pub(super) fn int(int: &Bound<'_, PyInt>) -> Option<i64> {
    let mut overflow = 0;
    // SAFETY: an int, of which 3.12 changed the layout, but not this function; an int runs no code and doesn't fail here.
    let value = unsafe { ffi::PyLong_AsLongLongAndOverflow(int.as_ptr(), &raw mut overflow) };
    (overflow == 0).then_some(value)
}

/// The bytes of an int of more than 64 bits in two's complement, the lowest first. `None` if there is no room for them.
pub(super) fn long_bytes<'a>(int: &Bound<'_, PyInt>, room: &'a mut [u8]) -> Option<&'a [u8]> {
    let bits: usize = int.call_method0(intern!(int.py(), "bit_length")).ok()?.extract().ok()?;
    let bytes = room.get_mut(..bits / 8 + 1)?;
    if as_bytes(int, bytes) < 0 {
        drop(PyErr::take(int.py()));
        return None;
    }
    Some(bytes)
}

#[cfg(Py_3_13)]
fn as_bytes(int: &Bound<'_, PyInt>, bytes: &mut [u8]) -> isize {
    let Ok(length) = isize::try_from(bytes.len()) else {
        return -1;
    };
    const LITTLE_ENDIAN: c_int = ffi::Py_ASNATIVEBYTES_LITTLE_ENDIAN;
    // SAFETY: an int, and as many bytes as are said. CPython calls an object's `__index__` only if it is not an int.
    unsafe { ffi::PyLong_AsNativeBytes(int.as_ptr(), bytes.as_mut_ptr().cast(), length, LITTLE_ENDIAN) }
}

#[cfg(not(Py_3_13))]
fn as_bytes(int: &Bound<'_, PyInt>, bytes: &mut [u8]) -> isize {
    let (little_endian, signed) = (1, 1);
    // SAFETY: an int, and as many bytes as are said. The function has this signature on 3.10 to 3.12, and another on 3.13.
    let result: c_int = unsafe {
        ffi::_PyLong_AsByteArray(
            int.as_ptr().cast(),
            bytes.as_mut_ptr(),
            bytes.len(),
            little_endian,
            signed,
        )
    };
    result as isize
}

/// The str of one byte or none in Latin-1, of which CPython has one each. `None` if memory is short.
pub(super) fn singleton<'py>(py: Python<'py>, latin1: &[u8]) -> Option<Bound<'py, PyString>> {
    let length = isize::try_from(latin1.len()).ok()?;
    // SAFETY: the pointer goes with the length, and the result is a new reference to a str.
    unsafe {
        let text = ffi::PyUnicode_DecodeLatin1(latin1.as_ptr().cast(), length, std::ptr::null());
        Some(new_object(py, text)?.cast_into_unchecked())
    }
}

/// A new str. `None` if memory is short or the text was not measured well.
#[inline]
pub(super) fn new_str<'py>(py: Python<'py>, text: &Text<'_>) -> Option<Bound<'py, PyString>> {
    if let Some(latin1) = text.unescaped() {
        return new_latin1(py, latin1, text.bits);
    }
    if text.length == 1 && text.bits <= 0xff {
        let Piece::Character(code) = text.pieces().next()?? else {
            return None;
        };
        return singleton(py, &[code as u8]);
    }
    new_filled(py, text, |fill| fill())
}

/// The same of a long line, while other threads run. `None` also if it is shorter than two characters.
pub(super) fn new_long_str<'py>(py: Python<'py>, line: &[u8]) -> Option<Bound<'py, PyString>> {
    new_cut(py, line).or_else(|| {
        let text = py.detach(|| Text::measure(line))?;
        (text.length > 1).then(|| new_filled(py, &text, |fill| py.detach(fill)))?
    })
}

/// A new str of a line that is not measured, which would take as long as to fill it in: the str is made as long as the line,
/// and cut. `None` also if characters are escaped that are wider than those that are spelled out.
fn new_cut<'py>(py: Python<'py>, line: &[u8]) -> Option<Bound<'py, PyString>> {
    let bits = py.detach(|| read::raw_bits(line));
    let room = isize::try_from(line.len()).ok()?;
    // SAFETY: the new str has room for `room` characters of one byte, and nobody else sees them before those that it is
    // cut to have been written. It is not cut to what CPython has one of, and it has one reference and no hash, without which
    // no version cuts.
    unsafe {
        let text = new_object(py, ffi::PyUnicode_New(room, bits))?;
        let data = ffi::PyUnicode_DATA(text.as_ptr()).cast::<MaybeUninit<u8>>();
        let place = slice::from_raw_parts_mut(data, line.len());
        let filled = py.detach(|| read::fill(line, place))?;
        if filled.length < 2 || filled.escaped_bits > bits {
            return None;
        }
        let length = isize::try_from(filled.length).ok()?;
        let mut text = text.into_ptr();
        let error = ffi::PyUnicode_Resize(&raw mut text, length);
        // What could not be cut is an error, and still to be dropped.
        let text = Bound::from_owned_ptr_or_err(py, text).ok()?;
        if error != 0 {
            drop(PyErr::take(py));
            return None;
        }
        Some(text.cast_into_unchecked())
    }
}

/// A new str of characters of which the widest has the bits 0x7f or 0xff.
#[inline]
pub(super) fn new_latin1<'py>(py: Python<'py>, latin1: &[u8], bits: u32) -> Option<Bound<'py, PyString>> {
    if latin1.len() <= 1 {
        return singleton(py, latin1);
    }
    debug_assert!(bits <= 0xff && (bits > 0x7f) != latin1.is_ascii());
    let length = isize::try_from(latin1.len()).ok()?;
    // SAFETY: the new str has room for `length` characters of one byte, and nobody else has seen it yet.
    unsafe {
        let text = new_object(py, ffi::PyUnicode_New(length, bits))?;
        let data = ffi::PyUnicode_DATA(text.as_ptr()).cast::<u8>();
        std::ptr::copy_nonoverlapping(latin1.as_ptr(), data, latin1.len());
        Some(text.cast_into_unchecked())
    }
}

fn new_filled<'py>(
    py: Python<'py>,
    text: &Text<'_>,
    run: impl FnOnce(&mut (dyn FnMut() -> Option<Filled> + Send)) -> Option<Filled>,
) -> Option<Bound<'py, PyString>> {
    let length = isize::try_from(text.length).ok()?;
    // Bits of several characters together may make more than the last character there is.
    let widest = text.bits.min(u32::from(char::MAX));
    // SAFETY: the new str has room for `length` characters of the width that it says itself, and nobody else sees them
    // before all have been written.
    unsafe {
        let new = new_object(py, ffi::PyUnicode_New(length, widest))?;
        let data = ffi::PyUnicode_DATA(new.as_ptr());
        let filled = match widest {
            0..=0xff => {
                let place = slice::from_raw_parts_mut(data.cast::<MaybeUninit<u8>>(), text.length);
                run(&mut || read::fill(text.line(), &mut *place))
            }
            0x100..=0xffff => {
                let place = slice::from_raw_parts_mut(data.cast::<MaybeUninit<u16>>(), text.length);
                run(&mut || read::fill(text.line(), &mut *place))
            }
            _ => {
                let place = slice::from_raw_parts_mut(data.cast::<MaybeUninit<u32>>(), text.length);
                run(&mut || read::fill(text.line(), &mut *place))
            }
        };
        (filled?.length == text.length).then(|| new.cast_into_unchecked())
    }
}

/// New bytes; of none or one there is one object each. `None` if memory is short, where PyO3 would panic.
pub(super) fn new_bytes<'py>(py: Python<'py>, bytes: &[u8]) -> Option<Bound<'py, PyBytes>> {
    let length = isize::try_from(bytes.len()).ok()?;
    // SAFETY: the pointer goes with the length, and the result is a new reference to bytes.
    unsafe {
        let new = ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), length);
        Some(new_object(py, new)?.cast_into_unchecked())
    }
}

/// A new int. `None` if memory is short, as below.
#[inline]
pub(super) fn new_int(py: Python<'_>, value: i64) -> Option<Bound<'_, PyInt>> {
    // SAFETY: the result is a new reference to an int.
    unsafe { Some(new_object(py, ffi::PyLong_FromLongLong(value))?.cast_into_unchecked()) }
}

/// A new float.
#[inline]
pub(super) fn new_float(py: Python<'_>, value: f64) -> Option<Bound<'_, PyFloat>> {
    // SAFETY: the result is a new reference to a float.
    unsafe { Some(new_object(py, ffi::PyFloat_FromDouble(value))?.cast_into_unchecked()) }
}

/// A new, empty list.
#[inline]
pub(super) fn new_list(py: Python<'_>) -> Option<Bound<'_, PyList>> {
    // SAFETY: the result is a new reference to a list.
    unsafe { Some(new_object(py, ffi::PyList_New(0))?.cast_into_unchecked()) }
}

/// A new, empty dict.
#[inline]
pub(super) fn new_dict(py: Python<'_>) -> Option<Bound<'_, PyDict>> {
    // SAFETY: the result is a new reference to a dict.
    unsafe { Some(new_object(py, ffi::PyDict_New())?.cast_into_unchecked()) }
}

/// A tuple of objects; the empty one if there are none.
#[inline]
pub(super) fn new_tuple<'py>(
    py: Python<'py>,
    items: impl ExactSizeIterator<Item = Bound<'py, PyAny>>,
) -> Option<Bound<'py, PyTuple>> {
    let length = isize::try_from(items.len()).ok()?;
    // SAFETY: the result is a new reference to a tuple, which has room for `length` references, and nobody else has seen it
    // yet. Each is given away. Where there are fewer, the others are null, which a tuple can be dropped with.
    unsafe {
        let tuple = new_object(py, ffi::PyTuple_New(length))?;
        let mut filled = 0;
        for (index, item) in (0..length).zip(items) {
            ffi::PyTuple_SET_ITEM(tuple.as_ptr(), index, item.into_ptr());
            filled += 1;
        }
        (filled == length).then(|| tuple.cast_into_unchecked())
    }
}

/// What a call of CPython's has made. If it couldn't, its error is dropped, which would come up in whatever runs next.
///
/// # Safety
///
/// The pointer is a new reference or, with an error set, null.
#[inline]
unsafe fn new_object(py: Python<'_>, pointer: *mut ffi::PyObject) -> Option<Bound<'_, PyAny>> {
    #[cold]
    #[inline(never)]
    fn drop_error(py: Python<'_>) {
        drop(PyErr::take(py));
    }
    // SAFETY: as above.
    let object = unsafe { Bound::from_owned_ptr_or_opt(py, pointer) };
    if object.is_none() {
        drop_error(py);
    }
    object
}
