"""How entries are sealed: the settings, and what is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from django.core.exceptions import ImproperlyConfigured

from fastblets import _native
from fastblets.conf import get_settings

if TYPE_CHECKING:
    from typing import Any, Final, TypeAlias


#: Whether entries are sealed. ``True``: what is stored gets a seal, and one that is found is checked. ``"require"``: in
#: addition, an entry without one is a miss. ``False``: neither; what is stored is exactly what Djblets stores.
Seal: TypeAlias = bool | Literal["require"]

#: The fewest bytes of a secret from which nobody can guess it.
_SHORTEST_SEAL_KEY: Final = 16


def resolve_seal(settings: Any, seal: Seal | None = None) -> Seal:
    """Return how a call's entry is sealed; the setting ``FASTBLETS_SEAL`` says it where the call doesn't.

    Raises:
        ImproperlyConfigured: The setting is none of the values there are.
        ValueError: The argument is none of them.
    """
    if seal is None:
        seal = getattr(settings, "FASTBLETS_SEAL", False)

        if seal is not False and not _is_seal(seal):
            # Without its value, which may be the key that was meant for the other setting.
            raise ImproperlyConfigured('FASTBLETS_SEAL must be False, True or "require".')
    elif not _is_seal(seal):
        raise ValueError(f'seal must be False, True or "require", not {seal!r}.')

    return seal


def make_sealer(full_key: str, encryption_key: bytes | None) -> _native.Sealer:
    """Return what makes and checks the seals of an entry.

    They are made with a secret, so that they prove who stored the entry, if there is one: the AES key of an encrypted
    entry, ``FASTBLETS_SEAL_KEY`` for any other.

    Raises:
        ImproperlyConfigured: ``FASTBLETS_SEAL_KEY`` is too short, or neither text nor bytes.
    """
    return _native.Sealer(encryption_key or _get_seal_key(), full_key.encode("utf-8"))


def _is_seal(seal: object) -> bool:
    return seal is False or seal is True or seal == "require"


def _get_seal_key() -> bytes | None:
    key: object = getattr(get_settings(), "FASTBLETS_SEAL_KEY", None)

    if key is None:
        return None

    if isinstance(key, str):
        key = key.encode("utf-8")

    if not isinstance(key, bytes) or len(key) < _SHORTEST_SEAL_KEY:
        raise ImproperlyConfigured(
            f"FASTBLETS_SEAL_KEY must be text or bytes, {_SHORTEST_SEAL_KEY} bytes or more, or None."
        )

    return key
