"""Options that are accepted as positional arguments, though deprecated."""

from __future__ import annotations

import warnings
from functools import wraps
from inspect import Parameter, signature
from types import FunctionType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec, TypeVar

    _P = ParamSpec("_P")
    _T = TypeVar("_T")


class RemovedInDjblets80Warning(DeprecationWarning):
    """Something that Djblets 8 will no longer accept."""


def keyword_only(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Let a function take its keyword-only arguments as positional ones too, with a warning."""
    parameters = signature(function).parameters
    names = list(parameters)
    most = function.__code__.co_argcount
    # The same code with all parameters by position: CPython looks up the default of each keyword-only one in a dict,
    # which takes longer than to read the settings.
    by_position: Callable[_P, _T] = FunctionType(
        function.__code__.replace(co_argcount=len(names), co_kwonlyargcount=0),
        function.__globals__,
        function.__name__,
        tuple(parameter.default for parameter in parameters.values() if parameter.default is not Parameter.empty),
        function.__closure__,
    )

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if len(args) > most:
            # As in Djblets: the values go, in order, to the parameters that have none by keyword.
            free = [name for name in names if name not in kwargs]

            if len(args) > len(free):
                raise TypeError(
                    f"{function.__qualname__}() takes {len(names)} arguments, but {len(args) + len(kwargs)} were given"
                )

            kwargs.update(zip(free, args, strict=False))
            moved = ", ".join(name for name in free[: len(args)] if name in names[most:])
            warnings.warn(
                f"{function.__qualname__}() was given {moved} by position. Djblets 8.0 will take "
                f"these arguments by keyword only.",
                RemovedInDjblets80Warning,
                stacklevel=2,
            )
            args = ()  # type: ignore[assignment]

        return by_position(*args, **kwargs)

    return call
