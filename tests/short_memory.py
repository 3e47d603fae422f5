"""Huge values in a process that is short of memory: ``python -m tests.short_memory NAME``.

A process of its own, since it limits its memory, and since an allocation that can't fail would end it.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastblets import _native

MEGABYTE = 1 << 20
SIZE = 16 * MEGABYTE
KEY = bytes(16)


def text() -> str:
    """Return a text that doesn't fit into a little memory."""
    return "x" * SIZE


def write(item: object, *, compress: bool = False, key: bytes | None = None) -> None:
    """Write an item as a large entry."""
    writer = _native.LargeWriter(compress, key, key)
    writer.write(item)
    chunks = writer.take_full_chunks()
    writer.finish()
    chunks += writer.take_full_chunks()
    writer.last_chunk()


#: For each name, what makes the arguments, and what is called with them.
CALLS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "read items": (
        lambda: [pickle.dumps(text(), 0)],
        lambda chunks: next(_native.read_items(chunks, False, None)),
    ),
    "decrypt value": (
        lambda: _native.encrypt_value(text(), KEY, KEY, False, None),
        lambda stored: _native.decrypt_value(stored, KEY, False, None, False, None),
    ),
    "encrypt value": (
        text,
        lambda value: _native.encrypt_value(value, KEY, KEY, False, None),
    ),
    "encrypt and seal value": (
        lambda: (text(), _native.Sealer(KEY, b"full key")),
        lambda given: _native.encrypt_value(given[0], KEY, KEY, False, given[1]),
    ),
    "decrypt": (lambda: bytes(SIZE), lambda stored: _native.decrypt(stored, KEY)),
    "encrypt": (lambda: bytes(SIZE), lambda plain: _native.encrypt(plain, KEY, KEY)),
    "write": (lambda: [text()], lambda item: write(item)),
    "write compressed": (lambda: [text()], lambda item: write(item, compress=True)),
    "write encrypted": (lambda: [text()], lambda item: write(item, key=KEY)),
    "write compressed and encrypted": (lambda: [text()], lambda item: write(item, compress=True, key=KEY)),
    "write text beyond Latin-1": (lambda: text()[: SIZE // 4] + "€", lambda item: write(item)),
    "write text that is escaped": (lambda: "\\" * (SIZE // 6), lambda item: write(item)),
    "write bytes": (lambda: bytes(SIZE // 6), lambda item: write(item)),
    # What is in two places has to be remembered until the end.
    "write what is shared": (lambda: [list(map(str, range(600_000)))] * 2, lambda item: write([item[0], item[0][:]])),
    "seal": (
        lambda: (_native.Sealer(KEY, b"full key"), pickle.dumps(text(), 0)),
        lambda given: given[0].seal_pickle(given[1], False),
    ),
    "key": (text, lambda part: _native.make_full_key(part, ["a", part], None, None)),
    "key that is escaped": (text, lambda part: _native.make_full_key(None, part + " ", None, None)),
    "key that is encrypted": (text, lambda part: _native.make_full_key(part, ["a", part], KEY, None)),
    "inspect": (
        lambda: [pickle.dumps(text(), 0)],
        lambda chunks: _native.inspect_chunks(chunks, False, None, 1),
    ),
}

#: The options of calls that store a huge value.
MEMOIZED: dict[str, dict[str, Any]] = {
    "large": {"large_data": True, "compress_large_data": False},
    "large and compressed": {"large_data": True},
    "large and encrypted": {"large_data": True, "use_encryption": True},
    "small and encrypted": {"use_encryption": True},
    "iterable": {},
}


def limit_memory(more: int | None) -> None:
    """Let the process take so many bytes more than it has, or as many as there are."""
    # Windows has no such module.
    import resource

    most = resource.RLIM_INFINITY
    if more is not None:
        most = more + int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def call_until_there_is_enough(name: str) -> None:
    """Call with more and more memory, and print how many calls had too little."""
    prepare, call = CALLS[name]
    given = prepare()
    errors = 0
    for more in range(0, 20 * SIZE, SIZE // 5):
        limit_memory(more)
        try:
            call(given)
        except MemoryError:
            errors += 1
        else:
            limit_memory(None)
            print(errors)
            return
    sys.exit("it takes more than there ever is")


def memoize(name: str) -> None:
    """Print the levels of what is logged where there is no memory to store a value, and where there is."""
    import logging

    import django
    from django.conf import settings

    settings.configure(
        CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
        SECRET_KEY="a secret of the site, which is fifty bytes long....",
    )
    django.setup()
    from fastblets.cache.backend import cache_memoize, cache_memoize_iter

    levels: list[str] = []

    class Levels(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            levels.append(record.levelname)

    logging.getLogger("djblets.cache.backend").addHandler(Levels())
    options = MEMOIZED[name]
    value = text()

    def memoized() -> object:
        if name == "iterable":
            [item] = cache_memoize_iter("key", lambda: iter([value]), compress_large_data=False)
            return item
        return cache_memoize("key", lambda: value, **options)

    # So that what is made at the first call is there.
    cache_memoize("another key", lambda: 1, use_encryption=True, large_data=True)
    limit_memory(SIZE // 2)
    assert memoized() is value
    limit_memory(None)
    print(levels)
    levels.clear()
    assert memoized() is value
    again = memoized()
    assert again == value
    assert again is not value
    print(levels)


if __name__ == "__main__":
    name = sys.argv[1]
    if name in CALLS:
        call_until_there_is_enough(name)
    else:
        memoize(name)
