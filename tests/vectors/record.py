"""Records what Djblets stores: ``python -m tests.vectors.record``.

The vectors are Djblets' word, on which fastblets is held without it. They were recorded once, with the version that
they name, and are recorded again only for more cases.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import django
from django.conf import settings as django_settings

from tests.randomness import CountingIVs
from tests.vectors import cases

HERE = Path(__file__).parent
#: Larger pickles and chunks stand as their sizes and digests.
LARGEST = 1200


def encode(value: Any) -> Any:
    """JSON has no bytes: they are written in hexadecimal."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, dict):
        return {name: encode(item) for name, item in value.items()}
    return value


def digested(data: bytes) -> dict[str, Any]:
    if len(data) <= LARGEST:
        return {"hex": data.hex()}
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def described(value: Any, *, large: bool) -> dict[str, Any]:
    """An object as it is given to the backend. A small value is that object itself."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], bytes):
        return {"chunk": digested(value[0])}
    if isinstance(value, bytes):
        return {"bytes": digested(value)}
    return {"count": value} if large else {}


@contextmanager
def recorded() -> Iterator[list[tuple[str, Any]]]:
    """What is stored meanwhile, in order, with IVs from the first one on."""
    from django.core.cache import caches

    cache = caches["default"]
    cache.clear()
    stored: list[tuple[str, Any]] = []

    def set_one(key: str, value: Any, **_: Any) -> None:
        stored.append((key, value))

    def set_many(values: dict[str, Any], **_: Any) -> list[str]:
        stored.extend(values.items())
        return []

    with (
        patch.object(cache, "set", set_one),
        patch.object(cache, "set_many", set_many),
        patch.object(os, "urandom", CountingIVs()),
    ):
        yield stored


def prefix() -> str | None:
    from django.contrib.sites.models import Site

    try:
        domain = Site.objects.get_current().domain
    except Site.DoesNotExist:
        return None
    root = getattr(django_settings, "SITE_ROOT", None)
    return f"{domain}:{root}" if root else domain


def secret(options: dict[str, Any]) -> bytes | None:
    """The AES key that these options come to."""
    from djblets.cache import backend

    encrypted = options.get("use_encryption")
    if encrypted is None:
        encrypted = getattr(django_settings, "DJBLETS_CACHE_FORCE_ENCRYPTION", False)
    return (options.get("encryption_key") or backend._get_default_encryption_key()) if encrypted else None


def record_keys() -> Iterator[dict[str, Any]]:
    from django.test import override_settings
    from djblets.cache import backend

    for key, settings, options in cases.keyed_calls():
        with override_settings(**settings):
            yield {
                "key": key,
                "settings": encode(settings),
                "options": encode(options),
                "prefix": prefix(),
                "secret": encode(secret(options)),
                "full": backend.make_cache_key(key, **options),
            }


def record_entries() -> Iterator[dict[str, Any]]:
    yield from record_calls(cases.memoize_calls())


def record_wider() -> Iterator[dict[str, Any]]:
    """What Djblets would store if it wrote in protocol 4 what protocol 0 can't carry. It reads that as it is."""
    yield from record_calls(cases.wider_calls())


def record_calls(calls: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    from djblets.cache import backend

    for case in calls:
        key, items, options = case["key"], case["items"], case["options"]
        large = case["is_iter"] or options.get("large_data", False)
        protocols = case.get("protocols", [0] * len(items))
        wider = {id(item) for item, protocol in zip(items, protocols, strict=True) if protocol == 4}

        def dumps(item: Any, protocol: int, wider: set[int] = wider) -> bytes:
            return pickle.dumps(item, protocol=4 if id(item) in wider else protocol)

        with recorded() as stored, patch.object(backend, "pickle", SimpleNamespace(dumps=dumps)):
            if case["is_iter"]:
                list(backend.cache_memoize_iter(key, items, **options))
            else:
                backend.cache_memoize(key, lambda items=items: items[0], **options)
        yield {
            "name": case["name"],
            "large": large,
            "compress": options.get("compress_large_data", True),
            "secret": encode(secret(options)),
            "pickles": list(map(described_pickle, items, protocols)),
            "stored": [{"key": full} | described(value, large=large) for full, value in stored],
        }


def described_pickle(item: Any, protocol: int) -> dict[str, Any]:
    """A pickle, or what to make it from: as text it is noise of that length."""
    pickled = digested(pickle.dumps(item, protocol=protocol))
    return pickled | {"noise": len(item)} if "size" in pickled and isinstance(item, str) else pickled


def record_crypto() -> Iterator[dict[str, Any]]:
    from djblets.secrets import crypto

    for key, plain in cases.aes_inputs():
        with patch.object(os, "urandom", CountingIVs()):
            encrypted = crypto.aes_encrypt(plain, key=key)
        yield {"key": key.hex(), "plain": plain.hex(), "encrypted": encrypted.hex()}


def main() -> None:
    warnings.simplefilter("ignore")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()

    import djblets
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    for name, record in (
        ("keys", record_keys),
        ("entries", record_entries),
        ("wider", record_wider),
        ("crypto", record_crypto),
    ):
        lines = ",\n".join(json.dumps(vector) for vector in record())
        text = f'{{"recorded_with": "Djblets {djblets.__version__}", "vectors": [\n{lines}\n]}}\n'
        (HERE / f"{name}.json").write_text(text)


if __name__ == "__main__":
    main()
