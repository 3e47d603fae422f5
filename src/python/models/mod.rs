//! Instances of models: written and read here as the framework's own Python code does it, by a recipe that Python hands over.
//!
//! An instance is a call of a function with the label and the name of its class, and then its attributes: a copy of its
//! `__dict__`, in which its state, an object, is a copy too, and the framework's version is added. The copies can't be met
//! again, and take memo numbers all the same. What they hold is the instance's own, and can be met again.
//!
//! The recipe says what that rests on: facts, each of which is what stands in a namespace under a name. They are looked at before
//! each walk, as are the classes. Whatever the recipe doesn't speak of is left to `pickle`: classes with hooks of their own,
//! attributes that the framework changes, another version.
//!
//! - `read`: what the pickle says of an instance becomes it.
//! - `write`: an instance becomes what the pickle says of it.

pub(super) mod read;
#[cfg(not(Py_GIL_DISABLED))]
pub(super) mod write;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyTuple, PyType};

use super::classes::Rules;
use super::cpython;
use super::walk::Walk;
use crate::memory::{concat, push};

/// What returns the recipe.
static PROVIDER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static RECIPE: PyOnceLock<Recipe> = PyOnceLock::new();

/// Takes a function that returns how instances of models are pickled, or None as long as there are no models. It is called when a
/// class has a metaclass, or a pickle names something that is not known.
#[pyfunction]
#[pyo3(signature = (provide, /))]
pub(super) fn use_models(py: Python<'_>, provide: Py<PyAny>) {
    // What was there first stays: a module may be imported again.
    let _ = PROVIDER.set(py, provide);
}

/// Whether it is the class of instances' states, which has a memo number of its own here.
pub(super) fn is_state(class: &Bound<'_, PyType>) -> bool {
    RECIPE.get(class.py()).is_some_and(|recipe| recipe.state.is(class))
}

/// How instances of models are pickled.
#[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "the walk needs the GIL"))]
pub(super) struct Recipe {
    metaclass: Py<PyType>,
    root: Py<PyType>,
    state: Py<PyType>,
    make: Py<PyAny>,
    make_name: Name,
    state_name: Name,
    version: Py<PyString>,
    version_key: Py<PyString>,
    state_attributes: Vec<Py<PyString>>,
    unpickled_attributes: Vec<Py<PyString>>,
    related: Py<PyString>,
    /// The name of attributes that the framework changes when it reads them.
    changed: Py<PyString>,
    has_finalizer: bool,
    constants: Vec<(Py<PyAny>, Name)>,
    facts: Vec<Fact>,
    describe: Py<PyAny>,
    find: Py<PyAny>,
}

/// How `pickle` spells a global.
#[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "the walk needs the GIL"))]
struct Name {
    module: Vec<u8>,
    name: Vec<u8>,
}

/// What stands in a namespace under a name; `None` if nothing does.
struct Fact {
    namespace: Py<PyAny>,
    name: Py<PyString>,
    object: Option<Py<PyAny>>,
}

impl Recipe {
    /// The recipe, if there is one yet. Runs Python code.
    pub(super) fn get(py: Python<'_>) -> PyResult<Option<&'static Self>> {
        Walk::assert_none();
        if let (None, Some(provide)) = (RECIPE.get(py), PROVIDER.get(py)) {
            let provided = provide.bind(py).call0()?;
            if !provided.is_none()
                && let Some(recipe) = Self::new(&provided)?
            {
                // Another thread may have been faster.
                let _ = RECIPE.set(py, recipe);
            }
        }
        Ok(RECIPE.get(py))
    }

    fn new(provided: &Bound<'_, PyAny>) -> PyResult<Option<Self>> {
        let py = provided.py();
        let part = |name: &str| provided.getattr(name);
        let class = |name| Ok::<_, PyErr>(part(name)?.cast_into::<PyType>()?.unbind());
        let text = |name| Ok::<_, PyErr>(part(name)?.cast_into_exact::<PyString>()?.unbind());
        // As the names of attributes are.
        let interned = |text: String| PyString::intern(py, &text).unbind();
        let names = |name| {
            Ok::<_, PyErr>(
                part(name)?
                    .extract::<Vec<String>>()?
                    .into_iter()
                    .map(interned)
                    .collect(),
            )
        };
        let name = |name| {
            let (module, name): (String, String) = part(name)?.extract()?;
            Name::new(&module, &name)
        };
        let mut constants = Vec::new();
        for constant in part("constants")?.try_iter()? {
            let (object, module, name): (Py<PyAny>, String, String) = constant?.extract()?;
            push(&mut constants, (object, Name::new(&module, &name)?))?;
        }
        let Some(facts) = Fact::all(&part("facts")?)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            metaclass: class("metaclass")?,
            root: class("root")?,
            state: class("state")?,
            make: part("make")?.unbind(),
            make_name: name("make_name")?,
            state_name: name("state_name")?,
            version: text("version")?,
            version_key: text("version_key")?,
            state_attributes: names("state_attributes")?,
            unpickled_attributes: names("unpickled_attributes")?,
            related: interned(part("related")?.extract()?),
            changed: text("changed")?,
            has_finalizer: part("has_finalizer")?.extract()?,
            constants,
            facts,
            describe: part("describe")?.unbind(),
            find: part("find")?.unbind(),
        }))
    }

    /// Whether what the framework does with all models is what it did.
    pub(super) fn holds(&self, py: Python<'_>) -> PyResult<bool> {
        Walk::assert_none();
        Ok(hold(py, &self.facts)? && !Rules::get(py)?.is_registered(self.state.bind(py))?)
    }

    /// Whether the class is a model of which the framework pickles the instances, with nothing of the class's own.
    fn treats(&self, class: &Bound<'_, PyType>) -> PyResult<bool> {
        let py = class.py();
        let rules = Rules::get(py)?;
        let root = self.root.bind(py);
        if !class.get_type().is(&self.metaclass) || !rules.has_default_slots(class) {
            return Ok(false);
        }
        let mro = class.mro();
        let mut has_root = false;
        for base in mro.iter_borrowed().take(mro.len() - 1) {
            if base.is(root) {
                has_root = true;
            } else if !self.is_treated_base(rules, &base) {
                return Ok(false);
            }
        }
        Ok(has_root && !rules.is_registered(class)?)
    }

    /// Whether one of a model's bases, or the model itself, changes nothing of what the framework does.
    fn is_treated_base(&self, rules: &Rules, base: &Bound<'_, PyAny>) -> bool {
        let usual = cpython::exact::<PyType>(base).is_some() || base.get_type().is(&self.metaclass);
        usual && base.cast::<PyType>().is_ok_and(|base| rules.base_keeps_defaults(base))
    }
}

impl Name {
    fn new(module: &str, name: &str) -> PyResult<Self> {
        Ok(Self {
            module: concat(&[module.as_bytes()])?,
            name: concat(&[name.as_bytes()])?,
        })
    }
}

impl Fact {
    /// `None` if one is about a namespace that is neither a dict nor a class, in which anything may be found.
    fn all(facts: &Bound<'_, PyAny>) -> PyResult<Option<Vec<Self>>> {
        let mut all = Vec::new();
        for fact in facts.try_iter()? {
            let fact = fact?.cast_into::<PyTuple>()?;
            let namespace = fact.get_item(0)?;
            if namespace_of(&namespace).is_none() {
                return Ok(None);
            }
            let fact = Self {
                namespace: namespace.unbind(),
                name: fact.get_item(1)?.cast_into_exact::<PyString>()?.unbind(),
                object: fact.get_item(2).ok().map(Bound::unbind),
            };
            push(&mut all, fact)?;
        }
        Ok(Some(all))
    }

    fn holds(&self, py: Python<'_>) -> PyResult<bool> {
        let Some(namespace) = namespace_of(self.namespace.bind(py)) else {
            return Ok(false);
        };
        let now = namespace.get_item(&self.name)?;
        Ok(now.as_ref().map(|now| now.as_ptr()) == self.object.as_ref().map(|then| then.as_ptr()))
    }
}

fn namespace_of<'py>(namespace: &Bound<'py, PyAny>) -> Option<Bound<'py, PyDict>> {
    match namespace.cast::<PyType>() {
        Ok(class) => cpython::class_attributes(class),
        Err(_) => cpython::exact::<PyDict>(namespace).cloned(),
    }
}

fn hold(py: Python<'_>, facts: &[Fact]) -> PyResult<bool> {
    for fact in facts {
        if !fact.holds(py)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The models of which there were instances in a stream.
#[derive(Default)]
pub(super) struct Models {
    known: Vec<Model>,
    /// The names that the walk met without knowing their classes. Then it was in vain.
    unknown: Vec<(Py<PyString>, Py<PyString>)>,
    /// Whether the walk met an instance of a model that was not looked at before it, so that it was in vain.
    met_unchecked: bool,
    /// Whether the recipe's own facts hold, if they were looked at.
    holds: Option<bool>,
    #[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "the walk needs the GIL"))]
    numbers: Numbers,
}

/// The memo numbers of what the recipe names, in this pickle.
#[derive(Default)]
#[cfg_attr(Py_GIL_DISABLED, allow(dead_code, reason = "the walk needs the GIL"))]
struct Numbers {
    make: Option<u32>,
    state: Option<u32>,
    constants: Vec<Option<u32>>,
}

struct Model {
    /// The address of the class.
    address: usize,
    class: Py<PyType>,
    /// How it is named; `None` if nobody knows.
    known_as: Option<KnownAs>,
    /// Whether its instances are not for `pickle`.
    is_treated: bool,
    /// Whether the recipe holds for it, as was found before this pickle. `None` if it was not looked at.
    holds: Option<bool>,
    /// In how many items before this one there was no instance.
    unused: u8,
}

struct KnownAs {
    label: Py<PyString>,
    name: Py<PyString>,
    facts: Vec<Fact>,
}

impl Models {
    /// They are looked through one by one, and few streams have more.
    const MOST: usize = 64;
    /// A model that was not met within so many items is no longer looked at before each.
    const UNUSED: u8 = 8;

    /// Begins an item: looks again at the models that there were instances of lately.
    pub(super) fn look(&mut self, py: Python<'_>) -> PyResult<()> {
        self.met_unchecked = false;
        self.holds = None;
        self.unknown.clear();
        if self.known.is_empty() {
            return Ok(());
        }
        self.numbers = Numbers::default();
        for place in 0..self.known.len() {
            let known = &mut self.known[place];
            known.holds = None;
            if let (true, Some(known_as)) = (known.is_treated, &known.known_as) {
                let expected = known.unused < Self::UNUSED;
                known.unused += u8::from(expected);
                if let (true, Some(recipe)) = (expected, RECIPE.get(py)) {
                    let holds = hold(py, &known_as.facts)? && recipe.treats(known.class.bind(py))?;
                    known.holds = Some(holds);
                    if holds && !self.recipe_holds(recipe, py)? {
                        self.known[place].holds = Some(false);
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether what the recipe says of all models holds; looked at once for each item.
    fn recipe_holds(&mut self, recipe: &Recipe, py: Python<'_>) -> PyResult<bool> {
        match self.holds {
            Some(holds) => Ok(holds),
            None => Ok(*self.holds.insert(recipe.holds(py)?)),
        }
    }

    /// Where the object's class stands, if it is a model's instance.
    #[inline]
    pub(super) fn of(&self, object: &Bound<'_, PyAny>) -> Option<usize> {
        let address = object.get_type_ptr() as usize;
        self.known.iter().position(|known| known.address == address)
    }

    /// How the model at that place is named. `None` if the instance is one for `pickle`, or the walk was in vain.
    #[inline]
    fn known_as(&mut self, place: usize) -> Option<&KnownAs> {
        let known = self.known.get_mut(place)?;
        known.unused = 0;
        let known_as = known.known_as.as_ref().filter(|_| known.is_treated)?;
        match known.holds {
            Some(holds) => holds.then_some(known_as),
            None => {
                self.met_unchecked = true;
                None
            }
        }
    }

    /// Notes a model for all walks to come.
    fn add(
        &mut self,
        recipe: &Recipe,
        class: Bound<'_, PyType>,
        described: Option<(Py<PyString>, Py<PyString>, Bound<'_, PyAny>)>,
    ) -> PyResult<bool> {
        if self.known.len() == Self::MOST {
            return Ok(false);
        }
        let known_as = match described {
            Some((label, name, facts)) => Fact::all(&facts)?.map(|facts| KnownAs { label, name, facts }),
            None => None,
        };
        let is_treated = known_as.is_some() && recipe.treats(&class)?;
        let model = Model {
            address: class.as_ptr() as usize,
            class: class.unbind(),
            known_as,
            is_treated,
            holds: None,
            unused: 0,
        };
        push(&mut self.known, model)?;
        Ok(is_treated)
    }
}
