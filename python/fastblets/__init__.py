"""Djblets' caching, byte for byte, with a Rust core."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    #: The version, as ``pip`` shows it.
    __version__: str
else:

    def __getattr__(name: str) -> str:
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

        # Looked up only when it is asked for: the lookup takes longer than the import of this module.
        from importlib.metadata import version

        return version(__name__)


def replace_djblets() -> None:
    """Let Djblets' own import paths give fastblets' objects.

    From then on ``djblets.cache.backend``, ``djblets.cache.errors``, ``djblets.cache.synchronizer``,
    ``djblets.protect.locks`` and ``djblets.secrets.crypto`` are fastblets' modules, also for modules that had already
    imported functions or classes of theirs by name. Modules that the installed Djblets doesn't have are not added.

    Best called on the first line of ``settings.py``: it needs no Django that is set up. Calling it again does no harm.
    What was made before with Djblets' classes (instances, subclasses) stays as it is, and goes on to work.

    Raises:
        ImportError: Djblets is not installed, or is of a version that is not known: 5.2 to 7.x are.
    """
    from fastblets.replacement import replace

    replace()
