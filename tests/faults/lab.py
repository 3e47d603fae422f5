"""Where an experiment takes place: one library on one cache, with all that can be broken in reach."""

from __future__ import annotations

import logging
import os
import pickle
import random
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

from django.contrib.sites.models import Site
from django.core.cache import cache as default_cache
from django.core.cache import caches
from django.core.cache.backends.base import BaseCache
from django.db import connection, connections
from django.test import override_settings

from fastblets.cache.backend import CACHE_CHUNK_SIZE as CHUNK_SIZE
from tests.backends import BACKENDS, Config, Needs, use_cache
from tests.faults.outcome import Finding, Outcome, judge
from tests.faults.subject import Subject
from tests.parity import Library
from tools.servers import AnyServer, Memcached, Redis, Server

Options = dict[str, Any]
Damage = Callable[["Stored"], None]

ENCRYPTION_KEY = b"sixteen bytes..."
OLD = ["old", 1, ("old", None)]
NEW = ["new", 2, ("new", None), "more"]

# What each client needs in order not to wait for ever, or to keep its errors to itself.
CLIENTS: dict[str, dict[str, Config]] = {
    "impatient": {
        "pymemcache": {"timeout": 0.5, "connect_timeout": 0.5},
        "pylibmc": {"behaviors": {"connect_timeout": 500, "receive_timeout": 500_000, "send_timeout": 500_000}},
        "redis": {"socket_timeout": 0.5, "socket_connect_timeout": 0.5},
    },
    # It is the server that is.
    "starved": {},
    "silent": {"pymemcache": {"ignore_exc": True, "timeout": 0.5, "connect_timeout": 0.5}},
}


def mode(compress: bool, encrypt: bool) -> Options:
    options: Options = {"compress_large_data": compress, "use_encryption": encrypt}
    if encrypt:
        options["encryption_key"] = ENCRYPTION_KEY
    return options


MODES = [mode(compress, encrypt) for compress, encrypt in product((False, True), repeat=2)]
PLAIN, PLAIN_ENCRYPTED, COMPRESSED, COMPRESSED_ENCRYPTED = MODES


def noise(size: int, seed: str = "noise") -> str:
    """Text that deflate can make little of, the same in each run."""
    return random.Random(seed).randbytes(size // 2 + 1).hex()[:size]


def generation(name: str, items: int = 6, size: int = 500_000) -> list[tuple[str, int, str]]:
    """Items of several chunks, compressed or not, that tell which generation they are of."""
    text = noise(size, name)
    return [(name, number, text) for number in range(items)]


class Logs(logging.Handler):
    """Keeps what the libraries log."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def count(self, text: str = "", level: int = logging.DEBUG) -> int:
        return sum(record.levelno >= level and text in record.getMessage() for record in self.records)


@dataclass
class Lab:
    """One library on one cache."""

    library: Library
    backend: str
    cache: BaseCache
    directory: Path
    server: Server | None = None
    logs: Logs = field(default_factory=Logs)

    def memoize(self, key: Any, lookup: Callable[[], Any], **options: Any) -> Any:
        return self.library.backend.cache_memoize(key, lookup, **options)

    def iterate(self, key: Any, items: Any, **options: Any) -> Iterator[Any]:
        items_of: Iterator[Any] = self.library.backend.cache_memoize_iter(key, items, **options)
        return items_of

    def value(self, key: Any, lookup: Callable[[], Any], **options: Any) -> Iterator[Any]:
        """One value as an iterable, for which as little happens ahead of time as for items."""
        yield self.memoize(key, lookup, **options)

    def store(self, key: Any, items: Iterable[Any], **options: Any) -> Stored:
        """Store a large entry as this library does."""
        for _ in self.iterate(key, list(items), force_overwrite=True, **options):
            pass
        return Stored(self, key, options)

    def lock(self, key: Any = "", **options: Any) -> Any:
        return self.library.locks.CacheLock(key, **options)

    def holds(self, key: Any, **options: Any) -> bool:
        """Whether there is an entry."""
        return self.full_key(key, **options) in self.cache

    def full_key(self, key: Any, **options: Any) -> str:
        encryption = {name: options[name] for name in ("use_encryption", "encryption_key") if name in options}
        full_key: str = self.library.backend.make_cache_key(key, **encryption)
        return full_key

    def survives(
        self, damage: Damage, options: Options, old: list[Any] = OLD, new: list[Any] = NEW, key: str = "key"
    ) -> Finding:
        """Store items, damage them, and read them twice: what isn't right must have been replaced for good."""
        damage(self.store(key, old, **options))
        finding = judge(self.iterate(key, lambda: iter(new), **options), old, new)
        return _replaced(finding, judge(self.iterate(key, ["third"], **options), new, None))

    def survives_alone(self, damage: Damage, options: Options, old: Any = "old", new: Any = "new") -> Finding:
        """The same for a single large value."""
        damage(self.store("value", [old], **options))
        options = {**options, "large_data": True}
        finding = judge(self.value("value", lambda: new, **options), [old], [new])
        return _replaced(finding, judge(self.value("value", lambda: "third", **options), [new], None))

    def fork(self, function: Callable[[], Any]) -> int:
        """Run a function in a process of its own, with connections of its own. Returns its id."""
        self.disconnect()
        child = os.fork()
        if child:
            return child
        try:
            function()
        finally:
            os._exit(0)

    def disconnect(self) -> None:
        connections.close_all()
        caches.close_all()
        # pylibmc's sockets can't be shared with another process.
        del caches["default"]
        self.cache = caches["default"]

    def together(self, functions: list[Callable[[], Any]]) -> None:
        """Run functions at the same time: in processes, or in threads where the cache is in memory."""
        if self.backend == "locmem":
            threads = [threading.Thread(target=function) for function in functions]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return
        for child in [self.fork(function) for function in functions]:
            os.waitpid(child, 0)

    def kill_while(self, function: Callable[[], Any]) -> None:
        """Run a function in a process of its own, which is to kill itself."""
        os.waitpid(self.fork(function), 0)


def _replaced(finding: Finding, again: Finding) -> Finding:
    if finding.outcome is Outcome.REBUILT and again.outcome is not Outcome.RIGHT:
        return Finding(Outcome.WRONG, "not replaced")
    return finding


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Stored:
    """A large entry as it lies in the cache."""

    def __init__(self, lab: Lab, key: str, options: Options) -> None:
        self.lab = lab
        self.key = key
        self.options = options
        self.main = lab.full_key(key, **options)
        self.encrypted = bool(options.get("use_encryption"))
        self.compressed = bool(options.get("compress_large_data", True))

    def chunk_key(self, index: int) -> str:
        return self.lab.full_key(f"{self.key}-{index}", **self.options)

    @property
    def count(self) -> int:
        stored = self.stored_count
        return int(pickle.loads(self._decrypt(stored)) if self.encrypted else stored)

    def set_count(self, value: Any) -> None:
        """Put another count in the place of the one that is there, if there is one, in front of its seal."""
        if self.encrypted:
            value = self._encrypt(pickle.dumps(value, 0) + self._count_seal())
        default_cache.set(self.main, value)

    def _count_seal(self) -> bytes:
        stored = self.stored_count
        if stored is None:
            return b""
        file = BytesIO(self._decrypt(stored))
        pickle.load(file)
        return file.read()

    @property
    def stored_chunks(self) -> list[list[bytes]]:
        """The chunks as they are stored, perhaps with their seals."""
        return [default_cache.get(self.chunk_key(index)) for index in range(self.count)]

    @property
    def chunks(self) -> list[bytes]:
        return [chunk[0] for chunk in self.stored_chunks]

    def set_chunk(self, index: int, value: Any) -> None:
        """Put anything in the place of a chunk, list and all."""
        default_cache.set(self.chunk_key(index), value)

    def set_bytes(self, index: int, data: bytes) -> None:
        """Put other bytes in the place of a chunk's. Its seal stays, if it has one."""
        stored = default_cache.get(self.chunk_key(index))
        self.set_chunk(index, [data, *stored[1:]] if isinstance(stored, list) else [data])

    def delete_chunk(self, index: int) -> None:
        default_cache.delete(self.chunk_key(index))

    @property
    def stored_count(self) -> Any:
        """The count as it is stored, perhaps encrypted and sealed."""
        return default_cache.get(self.main)

    def put(self, chunks: Iterable[Any], stored_count: Any) -> None:
        """Put chunks and a count there as another entry has stored them."""
        for index, chunk in enumerate(chunks):
            self.set_chunk(index, chunk)
        default_cache.set(self.main, stored_count)

    def set_chunks(self, chunks: list[bytes]) -> None:
        for index, chunk in enumerate(chunks):
            self.set_bytes(index, chunk)
        self.set_count(str(len(chunks)))

    @property
    def stream(self) -> bytes:
        """What is in the chunks, decrypted."""
        data = b"".join(self.chunks)
        return self._decrypt(data) if self.encrypted else data

    def set_stream(self, data: bytes) -> None:
        if self.encrypted:
            data = self._encrypt(data)
        self.set_chunks([data[at : at + CHUNK_SIZE] for at in range(0, len(data), CHUNK_SIZE)])

    def set_pickles(self, data: bytes) -> None:
        self.set_stream(zlib.compress(data) if self.compressed else data)

    def _encrypt(self, data: bytes) -> bytes:
        encrypted: bytes = self.lab.library.crypto.aes_encrypt(data, key=self.options["encryption_key"])
        return encrypted

    def _decrypt(self, data: bytes) -> bytes:
        decrypted: bytes = self.lab.library.crypto.aes_decrypt(data, key=self.options["encryption_key"])
        return decrypted


@contextmanager
def open_lab(subject: Subject, backend: str, directory: Path, client: str = "") -> Iterator[Lab]:
    """Set up a database, a server if one is needed, and the cache; all are this process' own."""
    _make_database(directory / "database.sqlite3")
    servers: list[Server] = []
    with ExitStack() as stack:

        def start(server: AnyServer) -> AnyServer:
            servers.append(stack.enter_context(server))
            return server

        needs = Needs(
            directory / "cache",
            lambda: start(Memcached(memory=2 if client == "starved" else 64)),
            lambda: start(Redis()),
        )
        config = next(each for each in BACKENDS if each.name == backend).config(needs)
        options = CLIENTS[client].get(backend, {}) if client else {}
        config["OPTIONS"] = {**config.get("OPTIONS", {}), **options}
        cache = stack.enter_context(use_cache(config))
        stack.enter_context(override_settings(**subject.settings))
        yield Lab(Library(subject.library), backend, cache, directory, *servers, logs=_keep_logs())


def _make_database(path: Path) -> None:
    connections.databases["default"]["NAME"] = str(path)
    with connection.schema_editor() as editor:
        editor.create_model(Site)
    Site.objects.create(pk=1, domain="example.com", name="example.com")


def _keep_logs() -> Logs:
    logs = Logs()
    logger = logging.getLogger("djblets")
    logger.addHandler(logs)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    return logs


class Source:
    """A callable that counts its calls, and may fail behind its items."""

    def __init__(self, *items: Any, error: BaseException | None = None) -> None:
        self.items = items
        self.error = error
        self.calls = 0

    def __call__(self) -> Iterator[Any]:
        self.calls += 1
        yield from self.items
        if self.error is not None:
            raise self.error


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
