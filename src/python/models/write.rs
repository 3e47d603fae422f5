//! An instance becomes what the framework's `__reduce__()` says of it, as CPython's pickler spells that in protocol 0.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType};

use super::{Models, Numbers, RECIPE, Recipe};
use crate::memory::push;
use crate::pickle::memo::Entry;
use crate::python::cpython::{self, Characters};
use crate::python::dump::walk::{DEEPEST, Walk, met_once, name};

impl Models {
    /// Finds out which of the classes that the walk stopped at are models. Returns whether it is worth another try; `None` if
    /// it did not stop because of a model.
    pub(in crate::python) fn learn(&mut self, py: Python<'_>, classes: &mut Vec<Py<PyType>>) -> PyResult<Option<bool>> {
        if std::mem::take(&mut self.met_unchecked) {
            return Ok(Some(true));
        }
        let Some(place) = classes.iter().position(|class| has_metaclass(class.bind(py))) else {
            return Ok(None);
        };
        let Some(recipe) = Recipe::get(py)? else {
            return Ok(None);
        };
        let class = classes.swap_remove(place).into_bound(py);
        if !class.get_type().is(&recipe.metaclass) {
            return Ok(Some(false));
        }
        let described = recipe.describe.bind(py).call1((&class,))?;
        self.add(recipe, class, described.extract()?).map(Some)
    }
}

/// Whether a class is one that `type` itself has not made.
pub(in crate::python) fn has_metaclass(class: &Bound<'_, PyType>) -> bool {
    cpython::exact::<PyType>(class).is_none()
}

impl<'py> Walk<'_, 'py> {
    /// Saves an instance of the model that stands there; `None` if the C pickler has to.
    pub(in crate::python) fn save_model(
        &mut self,
        place: usize,
        instance: &Bound<'py, PyAny>,
        once: bool,
        depth: usize,
    ) -> Option<()> {
        let py = instance.py();
        let known_as = self.models.known_as(place)?;
        let (label, model) = (known_as.label.clone_ref(py), known_as.name.clone_ref(py));
        let recipe = RECIPE.get(py)?;
        if let Entry::Number(number) = self.lookup(instance, once) {
            return self.get(number);
        }
        if depth > DEEPEST {
            return None;
        }
        let make = &recipe.make_name;
        name(
            &mut self.writer,
            &mut self.models.numbers.make,
            &make.module,
            &make.name,
        );
        self.writer.mark();
        self.writer.mark();
        self.save_str(label.bind(py), false)?;
        self.save_str(model.bind(py), false)?;
        self.writer.tuple();
        self.writer.put();
        self.writer.tuple();
        self.writer.put();
        self.writer.reduce();
        self.put_result(instance, once)?;
        self.save_model_attributes(recipe, &cpython::attributes(instance)?, depth + 1)?;
        self.writer.build();
        Some(())
    }

    fn save_model_attributes(&mut self, recipe: &Recipe, attributes: &Bound<'py, PyDict>, depth: usize) -> Option<()> {
        let py = attributes.py();
        let own_keys = belongs_to_one(attributes)?;
        let (mut has_state, mut has_version) = (false, false);
        self.writer.dict();
        self.writer.put();
        let mut position = 0;
        while let Some((key, value)) = cpython::next_item(attributes, &mut position) {
            let name = cpython::exact::<PyString>(&key)?;
            let special = Special::of(cpython::characters(name)?);
            self.save_str(name, own_keys && met_once(&key))?;
            match special {
                Special::No => self.save(&value, met_once(&value), depth + 1)?,
                Special::State => {
                    self.save_model_state(recipe, &value, depth + 1)?;
                    has_state = true;
                }
                Special::Version => {
                    self.save_str(recipe.version.bind(py), false)?;
                    has_version = true;
                }
                Special::Hook => return None,
            }
            self.writer.set_item();
        }
        if !has_version {
            self.save_str(recipe.version_key.bind(py), false)?;
            self.save_str(recipe.version.bind(py), false)?;
            self.writer.set_item();
        }
        has_state.then_some(())
    }

    fn save_model_state(&mut self, recipe: &Recipe, state: &Bound<'py, PyAny>, depth: usize) -> Option<()> {
        let py = state.py();
        if !state.get_type().is(&recipe.state) {
            return None;
        }
        let attributes = cpython::attributes(state)?;
        belongs_to_one(&attributes)?;
        // Two instances may have it in common, and each a copy of it.
        let own = met_once(state);
        self.open_instance();
        let own_name = &recipe.state_name;
        name(
            &mut self.writer,
            &mut self.models.numbers.state,
            &own_name.module,
            &own_name.name,
        );
        self.close_instance();
        self.writer.put();
        self.writer.dict();
        self.writer.put();
        let mut has_related = false;
        let mut position = 0;
        while let Some((key, value)) = cpython::next_item(&attributes, &mut position) {
            // In the copy there may be another object in the place of a name that is not interned.
            let is_one_of = |names: &[Py<PyString>]| names.iter().any(|name| name.is(&key));
            if is_one_of(&recipe.unpickled_attributes) {
                continue;
            }
            if !is_one_of(&recipe.state_attributes) {
                return None;
            }
            self.save_str(cpython::exact::<PyString>(&key)?, false)?;
            if key.is(&recipe.related) {
                has_related = true;
                self.save_copy(cpython::exact::<PyDict>(&value)?, own, depth + 2)?;
            } else if !self.save_constant(recipe, &value) {
                self.save(&value, own && met_once(&value), depth + 2)?;
            }
            self.writer.set_item();
        }
        if !has_related {
            self.save_str(recipe.related.bind(py), false)?;
            self.writer.dict();
            self.writer.put();
            self.writer.set_item();
        }
        self.writer.build();
        Some(())
    }

    /// Saves a copy of a dict, which nothing else can lead to.
    fn save_copy(&mut self, dict: &Bound<'py, PyDict>, own: bool, depth: usize) -> Option<()> {
        let own_keys = belongs_to_one(dict)? && own;
        self.writer.dict();
        self.writer.put();
        let mut position = 0;
        while let Some((key, value)) = cpython::next_item(dict, &mut position) {
            self.save(&key, own_keys && met_once(&key), depth + 1)?;
            self.save(&value, own && met_once(&value), depth + 1)?;
            self.writer.set_item();
        }
        Some(())
    }

    /// Saves an object that is pickled by its name, if it is one.
    fn save_constant(&mut self, recipe: &Recipe, object: &Bound<'py, PyAny>) -> bool {
        let Some(place) = recipe.constants.iter().position(|(constant, _)| constant.is(object)) else {
            return false;
        };
        let numbers: &mut Numbers = &mut self.models.numbers;
        while numbers.constants.len() <= place {
            if push(&mut numbers.constants, None).is_err() {
                return false;
            }
        }
        let (_, own) = &recipe.constants[place];
        name(&mut self.writer, &mut numbers.constants[place], &own.module, &own.name);
        true
    }
}

/// Whether a dict of which a copy is pickled holds keys that are met once. `None` if somebody else has the dict, too: then it may be
/// met as itself as well, so that what it holds is met twice.
fn belongs_to_one(dict: &Bound<'_, PyDict>) -> Option<bool> {
    met_once(dict).then(|| !cpython::shares_keys(dict))
}

/// What a name among an instance's attributes stands for.
enum Special {
    No,
    State,
    Version,
    /// What is looked up on an instance when it is pickled: `pickle` knows what comes of it.
    Hook,
}

impl Special {
    #[inline]
    fn of(name: Characters<'_>) -> Self {
        match name {
            Characters::Latin1([b'_', rest @ ..]) => match rest {
                b"state" => Self::State,
                b"django_version" => Self::Version,
                b"meta" => Self::Hook,
                [b'_', ..] => Self::Hook,
                _ => Self::No,
            },
            _ => Self::No,
        }
    }
}
