//! What the pickle says of an instance becomes it, as the framework's own function and `__setstate__()` do it.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

use super::{Models, RECIPE, Recipe};
use crate::memory::push;
use crate::python::cpython;
use crate::python::walk::Walk;

impl Models {
    /// Whether it is the function that makes instances.
    #[inline]
    pub(in crate::python) fn is_maker(&self, function: &Bound<'_, PyAny>) -> bool {
        RECIPE.get(function.py()).is_some_and(|recipe| recipe.make.is(function))
    }

    /// Whether an instance of the class has to live until the walk ends, as it runs Python code at its end.
    #[inline]
    pub(in crate::python) fn must_stay(&self, class: &Bound<'_, PyType>) -> bool {
        RECIPE
            .get(class.py())
            .is_some_and(|recipe| recipe.has_finalizer && recipe.state.is(class))
    }

    /// A new instance of the model that the arguments name. `None` if it is one for `pickle`, or if that has to be found out
    /// after the walk.
    pub(in crate::python) fn made<'py>(&mut self, arguments: &Bound<'py, PyTuple>) -> Option<Bound<'py, PyAny>> {
        let py = arguments.py();
        let id = arguments.get_item(0).ok().filter(|_| arguments.len() == 1)?;
        let id = cpython::exact::<PyTuple>(&id).filter(|id| id.len() == 2)?;
        let (label, name) = (id.get_item(0).ok()?, id.get_item(1).ok()?);
        let (label, name) = (cpython::exact::<PyString>(&label)?, cpython::exact::<PyString>(&name)?);
        let same = |one: &Py<PyString>, other: &Bound<'py, PyString>| one.bind(py).as_any().eq(other).unwrap_or(false);
        let place = self.known.iter().position(|known| {
            let known_as = known.known_as.as_ref();
            known_as.is_some_and(|known_as| same(&known_as.label, label) && same(&known_as.name, name))
        });
        let Some(place) = place else {
            push(&mut self.unknown, (label.clone().unbind(), name.clone().unbind())).ok()?;
            return None;
        };
        self.known_as(place)?;
        cpython::new_instance(self.known[place].class.bind(py))
    }

    /// Does what the model's `__setstate__` does, unless it would warn.
    pub(in crate::python) fn set(
        &mut self,
        place: usize,
        instance: &Bound<'_, PyAny>,
        state: &Bound<'_, PyDict>,
    ) -> Option<()> {
        let py = instance.py();
        self.known_as(place)?;
        let recipe = RECIPE.get(py)?;
        let version = state.get_item(&recipe.version_key).ok()??;
        let is_the_same = cpython::exact::<PyString>(&version)?
            .as_any()
            .eq(&recipe.version)
            .ok()?;
        if !is_the_same || state.contains(&recipe.changed).ok()? {
            return None;
        }
        let attributes = cpython::attributes(instance)?;
        // It may have got a hook of pickling, by a state before this one.
        attributes
            .is_empty()
            .then(|| attributes.update(state.as_mapping()).ok())?
    }

    /// Whether the last walk lacked a model.
    pub(in crate::python) fn lacked(&self) -> bool {
        self.met_unchecked || !self.unknown.is_empty()
    }

    /// Finds the models that the walk did not know. `false` if one is for `pickle`.
    pub(in crate::python) fn find(&mut self, py: Python<'_>) -> PyResult<bool> {
        Walk::assert_none();
        self.met_unchecked = false;
        for (label, name) in std::mem::take(&mut self.unknown) {
            let Some(recipe) = Recipe::get(py)? else {
                return Ok(false);
            };
            let found = recipe.find.bind(py).call1((&label, &name))?;
            let Some((class, facts)) = found.extract::<Option<(Bound<'_, PyType>, Bound<'_, PyAny>)>>()? else {
                return Ok(false);
            };
            if !self.add(recipe, class, Some((label, name, facts)))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a global that a pickle names is one of the recipe's, and may be used. `None` if it is not one.
    pub(in crate::python) fn is_usable(&mut self, object: &Bound<'_, PyAny>) -> PyResult<Option<bool>> {
        let py = object.py();
        let Some(recipe) = RECIPE.get(py) else {
            return Ok(None);
        };
        let is_named = recipe.make.is(object)
            || recipe.state.is(object)
            || recipe.constants.iter().any(|(constant, _)| constant.is(object));
        if is_named {
            self.recipe_holds(recipe, py).map(Some)
        } else {
            Ok(None)
        }
    }
}
