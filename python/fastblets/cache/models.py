"""How Django pickles instances of models: what the codec is told, so that it does the same without calling Python.

Django's own functions, which it does the work of, are found here and never changed. They are known as they are from
Django 4.2 to 6.1; with any other version, and where somebody has replaced one of them, it is Python that pickles.
"""

from __future__ import annotations

import copy
import sys
from types import FunctionType
from typing import TYPE_CHECKING, NamedTuple

import django
from django.core.exceptions import AppRegistryNotReady

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Final

    #: A namespace, which is a dict or a class, a name in it, and what stands there. Nothing may, if there is no third.
    Fact = tuple[Any, str] | tuple[Any, str, Any]

#: The first and the last Django whose code this follows.
_VERSIONS: Final = ((4, 2), (6, 1))

_HOME: Final = "django.db.models.base"

#: What decides how an instance is taken apart and put together.
_HOOKS: Final = (
    "__class__",
    "__copy__",
    "__del__",
    "__getattr__",
    "__getattribute__",
    "__getstate__",
    "__new__",
    "__reduce__",
    "__reduce_ex__",
    "__setstate__",
    "__slots__",
)


class Recipe(NamedTuple):
    """How instances of models are pickled as long as the facts hold."""

    #: The class of all models' classes, the model that all inherit from, and the class of ``_state``.
    metaclass: type
    root: type
    state: type
    #: Makes an instance when it is unpickled; the names by which both are pickled.
    make: Any
    make_name: tuple[str, str]
    state_name: tuple[str, str]
    #: Django's version, which is pickled among the attributes, and under which name.
    version: str
    version_key: str
    #: The attributes of a ``_state``: those that are pickled, and those that are left out.
    state_attributes: tuple[str, ...]
    unpickled_attributes: tuple[str, ...]
    #: The attribute of a ``_state`` that is there in any case when it is pickled: the related objects.
    related: str
    #: The name, in a pickle, of attributes that can't be pickled as they are.
    changed: str
    #: Whether a ``_state`` runs Python code when it ends.
    has_finalizer: bool
    #: Objects that are pickled by their names.
    constants: tuple[tuple[Any, str, str], ...]
    facts: tuple[Fact, ...]
    describe: Callable[[Any], tuple[str, str, tuple[Fact, ...]] | None]
    find: Callable[[str, str], tuple[type, tuple[Fact, ...]] | None]


def get_recipe() -> Recipe | None:
    """Return the recipe; None as long as nobody has imported Django's models, or if they aren't as they should be."""
    base = sys.modules.get(_HOME)

    if base is None or not _VERSIONS[0] <= django.VERSION[:2] <= _VERSIONS[1]:
        return None

    # The last name that the module defines: another thread may be importing it.
    if "model_unpickle" not in vars(base):
        return None

    model, state, namespace = base.Model, base.ModelState, vars(base)
    functions = [
        *(function for name in _HOOKS if (function := vars(model).get(name))),
        *(function for name in _HOOKS if (function := vars(state).get(name))),
        base.model_unpickle,
    ]

    # A wrapper may show the attributes of the function in it.
    if any(type(function) is not FunctionType or function.__globals__ is not namespace for function in functions):
        return None

    related = vars(state)["fields_cache"]
    constants = tuple(_get_constants(namespace))

    return Recipe(
        metaclass=base.ModelBase,
        root=model,
        state=state,
        make=base.model_unpickle,
        make_name=(_HOME, "model_unpickle"),
        state_name=(_HOME, "ModelState"),
        version=django.__version__,
        version_key=base.DJANGO_VERSION_PICKLE_KEY,
        state_attributes=("db", "adding", "fields_cache", *(("fetch_mode",) if constants else ())),
        unpickled_attributes=("peers",) if "__getstate__" in vars(state) else (),
        related="fields_cache",
        changed="_memoryview_attrs",
        has_finalizer=hasattr(state, "__del__"),
        constants=constants,
        facts=(
            (sys.modules, _HOME, base),
            *((namespace, name, namespace[name]) for name in ("Model", "ModelState", "apps", "copy", "django")),
            *((namespace, name, namespace[name]) for name in ("model_unpickle", "DJANGO_VERSION_PICKLE_KEY")),
            (vars(django), "__version__", django.__version__),
            (vars(copy), "copy", copy.copy),
            *((vars(sys.modules[module]), name, constant) for constant, module, name in constants),
            *_get_hooks(model),
            *_get_hooks(state),
            (state, "fields_cache", related),
            (type(related), "__get__", vars(type(related))["__get__"]),
            (state, "__setattr__"),
            (state, "__module__", vars(state)["__module__"]),
        ),
        describe=_describe,
        find=_find,
    )


def _get_constants(namespace: dict[str, Any]) -> Iterator[tuple[Any, str, str]]:
    """Yield what says how deferred fields are fetched, with its module and name: Django 6.1 and later have it."""
    if "FETCH_ONE" in namespace:
        from django.db.models import fetch_modes

        for name in ("FETCH_ONE", "FETCH_PEERS", "FETCH_RAISE"):
            constant = vars(fetch_modes)[name]

            if constant.__reduce__() == name:
                yield constant, fetch_modes.__name__, name


def _get_hooks(owner: type) -> Iterator[Fact]:
    for name in _HOOKS:
        yield (owner, name, vars(owner)[name]) if name in vars(owner) else (owner, name)


def _describe(model: Any) -> tuple[str, str, tuple[Fact, ...]] | None:
    """Return the label and the name by which Django pickles a model, and what that rests on."""
    from django.db.models.options import Options

    options = vars(model).get("_meta")

    if type(options) is not Options:
        return None

    label, name = options.app_label, options.object_name

    if type(label) is not str or type(name) is not str:
        return None

    return (
        label,
        name,
        ((model, "_meta", options), (vars(options), "app_label", label), (vars(options), "object_name", name)),
    )


def _find(label: str, name: str) -> tuple[type, tuple[Fact, ...]] | None:
    """Return the model that Django finds by that label and name, and what that rests on. None if only Django knows."""
    from django.apps.config import AppConfig
    from django.apps.registry import Apps

    apps = sys.modules[_HOME].apps

    try:
        config = apps.get_app_config(label)
        model = apps.get_model(label, name)
    except (AppRegistryNotReady, LookupError, ValueError):
        return None

    if type(apps) is not Apps or not isinstance(config, AppConfig):
        return None

    return model, (
        # Where the model stands.
        (vars(apps), "apps_ready", True),
        (vars(apps), "models_ready", True),
        (vars(apps), "app_configs", apps.app_configs),
        (apps.app_configs, label, config),
        (vars(config), "apps", apps),
        (vars(config), "models", config.models),
        (config.models, name.lower(), model),
        # Who looks there.
        *((Apps, method, vars(Apps)[method]) for method in ("get_model", "get_app_config", "check_models_ready")),
        *((vars(apps), method) for method in ("get_model", "get_app_config", "check_models_ready")),
        (AppConfig, "get_model", vars(AppConfig)["get_model"]),
        (vars(config), "get_model"),
        *((owner, "get_model") for owner in type(config).__mro__ if owner not in (AppConfig, object)),
    )
