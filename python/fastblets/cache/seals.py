"""The settings for seals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from typing import Any, Final, TypeAlias


#: Whether entries are sealed. ``True``: new entries get a seal, and seals that are found are checked. ``"require"``: in
#: addition, an entry without a seal is a miss. ``False``: neither; the stored bytes are those of Djblets.
Seal: TypeAlias = bool | Literal["require"]

#: The fewest bytes of a secret that can't be guessed.
_SHORTEST_SEAL_KEY: Final = 16


def resolve_seal(settings: Any, seal: Seal | None = None) -> Seal:
    """Return how a call's entry is sealed; the setting ``FASTBLETS_SEAL`` says it where the call doesn't.

    Raises:
        ImproperlyConfigured: The setting has none of these values.
        ValueError: The argument has none of these values.
    """
    if seal is None:
        seal = getattr(settings, "FASTBLETS_SEAL", False)

        if seal is not False and not _is_seal(seal):
            # Without its value, which may be the key that was meant for the other setting.
            raise ImproperlyConfigured('FASTBLETS_SEAL must be False, True or "require".')
    elif not _is_seal(seal):
        raise ValueError(f'seal must be False, True or "require", not {seal!r}.')

    return seal


def get_seal_key(settings: Any) -> bytes | None:
    """Return the secret for the seals of entries that are not encrypted: ``FASTBLETS_SEAL_KEY``, None without it.

    Raises:
        ImproperlyConfigured: The setting is too short, or neither text nor bytes.
    """
    key: object = getattr(settings, "FASTBLETS_SEAL_KEY", None)

    if key is None:
        return None

    if isinstance(key, str):
        key = key.encode("utf-8")

    if not isinstance(key, bytes) or len(key) < _SHORTEST_SEAL_KEY:
        raise ImproperlyConfigured(
            f"FASTBLETS_SEAL_KEY must be text or bytes, {_SHORTEST_SEAL_KEY} bytes or more, or None."
        )

    return key


def _is_seal(seal: object) -> bool:
    return seal is False or seal is True or seal == "require"
