"""Docstrings for the reference: roles of Sphinx become links of Markdown, comments that begin with `#:` docstrings."""

from __future__ import annotations

import re
from itertools import takewhile
from pathlib import Path
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|data|func|meth|mod|exc|attr):`(~?)([\w.]+)`")


class Docstrings(griffe.Extension):
    """Makes and rewrites docstrings as they are loaded."""

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        """Take the comment above a constant as its docstring."""
        if attr.docstring is None and attr.lineno is not None and isinstance(attr.filepath, Path):
            lines = attr.filepath.read_text().splitlines()[: attr.lineno - 1]
            comment = list(takewhile(lambda line: line.strip().startswith("#:"), reversed(lines)))

            if comment:
                text = "\n".join(line.strip()[2:].strip() for line in reversed(comment))
                attr.docstring = griffe.Docstring(_ROLE.sub(lambda role: _link(attr, role[1], role[2]), text))

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object, if it has one."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(lambda role: _link(obj, role[1], role[2]), obj.docstring.value)


def _link(obj: griffe.Object, short: str, name: str) -> str:
    """Return a link to a name, which may be relative to the object's class or module."""
    text = name.rpartition(".")[2] if short else name

    if name.startswith("fastblets."):
        return f"[`{text}`][{name}]"

    # A name without dots is a neighbour: a method of the same class, or a name of the same module.
    scope = obj if obj.is_class or obj.is_module else obj.parent

    while scope is not None and "." not in name:
        if name in scope.members and not scope.members[name].is_alias:
            return f"[`{text}`][{scope.path}.{name}]"

        scope = scope.parent

    return f"`{text}`"
