"""An object that leaves a trace when it is unpickled."""

from __future__ import annotations

from typing import Any

songs: list[str] = []


def sing() -> str:
    songs.append("unpickled")
    return "planted"


class Canary:
    def __reduce__(self) -> Any:
        return sing, ()
