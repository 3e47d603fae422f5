"""Options that are accepted as positional arguments, though deprecated."""

from __future__ import annotations

import warnings
from functools import wraps
from inspect import Parameter, signature
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
    names = [
        name
        for name, parameter in signature(function).parameters.items()
        if parameter.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    ]
    most = function.__code__.co_argcount

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

        return function(*args, **kwargs)

    return call
