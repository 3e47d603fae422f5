"""All orders in which processes may call one cache, with the real code.

A process does nothing but compute from what its cache calls return. So what it does next depends on those answers
alone, and there is no need for threads that stop and go on: a process is run from its beginning with the answers that
it has had so far, and ends at the first call that has none yet. That call is its next step.

A state is what the cache holds, and for each process the answers that it has had. From each state, each process may
take its next step. All states that can be reached that way are visited, each once: two orders of steps that lead to the
same state have the same future. So a few thousand states stand for millions of orders.

The cache is the simplest possible. Each step is on one key, or on several at once if calls for many keys are to be
atomic. What it holds is pickled. Random bytes are the process's name and a number, so that a process does the same
whenever it is run again.
"""

from __future__ import annotations

import logging
import os
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, ClassVar, NamedTuple
from unittest.mock import patch

from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from django.test import override_settings

#: By key, what the cache holds, and two keys of the test itself: see :func:`read_database` and :func:`promise`.
Contents = Mapping[str, Any]
Answer = Any
#: What a process has seen: the version that was promised when it began, and the one it got, None for none.
Seen = list[tuple[int, int | None]]

_DATABASE, _PROMISED = "the database", "the promise"


class Step(NamedTuple):
    """One call: what is done to which keys, and with what."""

    name: str
    keys: tuple[str, ...]
    values: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.name, *(key.removeprefix("example.com:")[:24] for key in self.keys)])


class StoppedError(BaseException):
    """A process has come to a step whose answer isn't known. Not an Exception: those are caught on the way."""


class ViolationError(AssertionError):
    """An order of steps with a result that must not be."""


@dataclass
class Process:
    """Something that runs beside others.

    Attributes:
        name: Its name, unlike any other's.
        work: What it does. It returns the versions that it has seen, each with the one that was promised before.
        after: The process that has to end before this one begins.
        may_die: Whether it may be killed between any two steps.
        settings: Its Django settings, where they are other than the test's.
    """

    name: str
    work: Callable[[], Seen]
    after: str = ""
    may_die: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


class Tape:
    """One run of a process: the answers that it gets, and the step at which it stops."""

    def __init__(self, process: Process, answers: Sequence[tuple[Step, Answer]], *, atomic: bool) -> None:
        self.process = process
        self.answers = answers
        self.atomic = atomic
        self.position = 0
        self.random_count = 0
        self.next: Step | None = None
        self.result: Seen = []

    def run(self) -> None:
        with ExitStack() as stack:
            stack.enter_context(patch.object(os, "urandom", self.make_random))
            stack.enter_context(patch.object(time, "sleep", self.sleep))
            if self.process.settings:
                stack.enter_context(override_settings(**self.process.settings))
            SteppedCache.tape = self
            try:
                self.result = self.process.work()
            except StoppedError:
                pass
            finally:
                SteppedCache.tape = None

    def take(self, step: Step) -> Answer:
        """Take a step, if its answer is known."""
        if self.position == len(self.answers):
            # Calls of `finally` blocks come after the one that stopped it.
            self.next = self.next or step
            raise StoppedError
        known, answer = self.answers[self.position]
        assert step == known, f"{self.process.name} does not do the same again: {step}, not {known}"
        self.position += 1
        return answer

    def make_random(self, size: int) -> bytes:
        self.random_count += 1
        return f"{self.process.name}{self.random_count}".encode().ljust(size, b"-")[:size]

    def sleep(self, _: float) -> None:
        """Wait for a lock: until it is another's than the one that was seen last, or nobody's."""
        key = self.answers[self.position - 1][0].keys[0]
        seen = [answer for step, answer in self.answers[: self.position] if step == Step("get", (key,))]
        self.take(Step("wait", (key,), tuple(seen[-1:])))


class SteppedCache(BaseCache):
    """A cache of which each call is a step."""

    # As of Django: what it didn't store, it would say.
    __module__ = "django.core.cache.backends.stepped"

    tape: ClassVar[Tape | None] = None

    def __init__(self, _: str, params: dict[str, Any]) -> None:
        super().__init__(params)

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        stored = _take("get", key)
        return default if stored is None else pickle.loads(stored)

    def set(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        assert timeout != 0
        _take("set", key, pickle.dumps(value))

    def add(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        return bool(_take("add", key, pickle.dumps(value)))

    def touch(self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        return bool(_take("touch", key))

    def delete(self, key: str, version: int | None = None) -> bool:
        return bool(_take("delete", key))

    def has_key(self, key: str, version: int | None = None) -> bool:
        return bool(_take("touch", key))

    def get_many(self, keys: Any, version: int | None = None) -> dict[str, Any]:
        keys = list(keys)
        stored = _take_many("get", keys)
        return {key: pickle.loads(each) for key, each in zip(keys, stored, strict=True) if each is not None}

    def set_many(self, data: dict[str, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> list[str]:
        assert timeout != 0
        _take_many("set", list(data), [pickle.dumps(value) for value in data.values()])
        return []

    def delete_many(self, keys: Any, version: int | None = None) -> None:
        _take_many("delete", list(keys))


class DoubtfulCache(SteppedCache):
    """One that may not have stored everything, and doesn't say so, as Django's on a database."""


def _take(name: str, key: str, *values: Any) -> Answer:
    assert SteppedCache.tape is not None, "not within a process"
    return SteppedCache.tape.take(Step(name, (key,), values))


def _take_many(name: str, keys: list[str], values: Sequence[Any] = ()) -> list[Answer]:
    assert SteppedCache.tape is not None, "not within a process"
    if SteppedCache.tape.atomic and len(keys) > 1:
        return list(SteppedCache.tape.take(Step(f"{name}_many", tuple(keys), tuple(values))))
    return [_take(name, key, *values[index : index + 1]) for index, key in enumerate(keys)]


# What the processes of a test do beside their cache calls


def read_database() -> int:
    """The version of the data now: a step of its own."""
    return int(_take("read", _DATABASE))


def raise_database() -> None:
    """Store the next version of the data: a step of its own."""
    _take("raise", _DATABASE)


def get_promised() -> int:
    """The version whose invalidation has returned. It is looked up in the moment of the next step."""
    return int(_take("begin", _PROMISED))


def promise(version: int) -> None:
    """Say that the invalidation of what was before this version has returned. It takes no time."""
    _take("promise", _PROMISED, version)


def evict(key: str) -> None:
    """Remove a key, as a cache may do it at any time."""
    _take("delete", key)


# The exploration


class Node:
    """A process with the answers that it has had so far."""

    def __init__(self, process: Process, answers: tuple[tuple[Step, Answer], ...], *, atomic: bool) -> None:
        self.process = process
        self.answers = answers
        self._atomic = atomic
        self._children: dict[Answer, Node] = {}
        tape = Tape(process, answers, atomic=atomic)
        tape.run()
        self.next = tape.next
        self.result = tape.result

    @property
    def ended(self) -> bool:
        return self.next is None

    @property
    def is_about_to_begin(self) -> bool:
        return not self.answers

    def has_done(self, name: str, key: str) -> bool:
        """Whether the process has done that to a key."""
        return any(step.name == name and step.keys == (key,) for step, _ in self.answers)

    def answer(self, answer: Answer) -> Node:
        """The process with one answer more. It is always the same object for the same answers."""
        child = self._children.get(answer)
        if child is None:
            assert self.next is not None
            child = Node(self.process, (*self.answers, (self.next, answer)), atomic=self._atomic)
            self._children[answer] = child
        return child


#: In the place of a process that was killed.
DEAD = None

Nodes = tuple[Node | None, ...]


@dataclass
class Findings:
    """How much was visited.

    Attributes:
        states: How many states there are.
        orders: In how many orders the steps may come.
        ends: What the cache holds when all have ended, each once, with one order of steps that leads there.
    """

    states: int
    orders: int
    ends: list[tuple[Contents, str]]


class Exploration:
    """All states of some processes on one cache."""

    def __init__(
        self,
        processes: Sequence[Process],
        contents: Contents,
        *,
        atomic: bool = True,
        is_excused: Callable[[Nodes], bool] = lambda _: False,
    ) -> None:
        """Take the processes.

        Args:
            processes: The processes.
            contents: What the cache holds at first.
            atomic: Whether a call for many keys is one step, else one for each key, in their order.
            is_excused: Whether a process may see an old version at this moment.
        """
        self._nodes = tuple(Node(process, (), atomic=atomic) for process in processes)
        self._is_excused = is_excused
        #: What the cache may hold, and by the place in here, what a process makes of it.
        self._contents: list[Contents] = []
        self._places: dict[frozenset[tuple[str, Any]], int] = {}
        self._moves: dict[tuple[int, Node], tuple[int, Node, str]] = {}
        self._start = self._find_place(contents)
        #: By state, in how many orders it may go on.
        self._orders: dict[tuple[int, Nodes], int] = {}
        self._ends: dict[int, str] = {}
        self._path: list[str] = []

    def run(self) -> Findings:
        """Visit all states.

        Raises:
            ViolationError: A process saw an old version.
        """
        orders = self._visit(self._start, self._nodes)
        return Findings(
            len(self._orders), orders, [(self._contents[place], path) for place, path in self._ends.items()]
        )

    def _find_place(self, contents: Contents) -> int:
        place = self._places.setdefault(frozenset(contents.items()), len(self._contents))
        if place == len(self._contents):
            self._contents.append(contents)
        return place

    def _visit(self, place: int, nodes: Nodes) -> int:
        """Visit all states from here on. Return in how many orders the steps may come."""
        if (known := self._orders.get((place, nodes))) is not None:
            return known
        orders = 0
        for index, node in enumerate(nodes):
            if node is None or not self._can_go(node, place, nodes):
                continue
            before, after = nodes[:index], nodes[index + 1 :]
            new_place, moved, text = self._move(place, node)
            self._path.append(text)
            new_nodes = (*before, moved, *after)
            if moved.ended and _saw_an_old_version(moved) and not self._is_excused(new_nodes):
                raise ViolationError(f"{node.process.name} saw an old version: {moved.result}\n{self._describe()}")
            orders += self._visit(new_place, new_nodes)
            if node.process.may_die and not node.is_about_to_begin:
                self._path[-1] = f"{node.process.name} is killed"
                orders += self._visit(place, (*before, DEAD, *after))
            self._path.pop()
        if not orders:
            waiting = [node.process.name for node in nodes if node is not None and not node.ended]
            assert not waiting or DEAD in nodes, f"wait for ever: {waiting}\n{self._describe()}"
            self._ends.setdefault(place, self._describe())
            orders = 1
        self._orders[place, nodes] = orders
        return orders

    def _can_go(self, node: Node, place: int, nodes: Nodes) -> bool:
        step = node.next
        if step is None:
            return False
        if node.is_about_to_begin and node.process.after:
            return any(
                other is not None and other.ended and other.process.name == node.process.after for other in nodes
            )
        if step.name == "wait":
            stored = self._contents[place].get(step.keys[0])
            return stored is None or (stored,) != step.values
        return True

    def _move(self, place: int, node: Node) -> tuple[int, Node, str]:
        """Let a process take its next step, and what takes no time before and after it."""
        move = self._moves.get((place, node))
        if move is None:
            contents, moved = _take_step(self._contents[place], node)
            text = f"{node.process.name} {moved.answers[-1][0]}"
            if moved.answers[-1][0].name == "begin":
                contents, moved = _take_step(contents, moved)
                text = f"{node.process.name} begins: {moved.answers[-1][0]}"
            while moved.next is not None and moved.next.name == "promise":
                contents, moved = _take_step(contents, moved)
                text += ", and promises"
            self._moves[place, node] = move = self._find_place(contents), moved, text
        return move

    def _describe(self) -> str:
        return "\n".join(f"  {number:2}. {line}" for number, line in enumerate(self._path, 1))


def run_alone(process: Process, contents: Contents) -> tuple[Seen, Contents]:
    """Run a process to its end with no other beside it. Return its result, and what the cache holds then."""
    node = Node(process, (), atomic=True)
    while not node.ended:
        contents, node = _take_step(contents, node)
    return node.result, contents


def _saw_an_old_version(node: Node) -> bool:
    return any(version is not None and version < promised for promised, version in node.result)


def _take_step(contents: Contents, node: Node) -> tuple[Contents, Node]:
    step = node.next
    assert step is not None
    answers = []
    contents = dict(contents)
    for key, value in zip_longest(step.keys, () if step.name == "wait" else step.values):
        answers.append(_apply(contents, step.name.removesuffix("_many"), key, value))
    return contents, node.answer(tuple(answers) if step.name.endswith("_many") else answers[0])


def _apply(contents: dict[str, Any], name: str, key: str, value: Any) -> Answer:
    stored = contents.get(key)
    match name:
        case "get" | "read" | "begin":
            return stored
        case "touch":
            return stored is not None
        case "add" if stored is not None:
            return False
        case "set" | "add" | "promise":
            contents[key] = value
        case "raise":
            contents[key] = stored + 1
        case "delete":
            return contents.pop(key, None) is not None
        case _:
            assert name == "wait", name
    return True


def start() -> Contents:
    """What an empty cache holds, and the data in its first version."""
    return {_DATABASE: 0, _PROMISED: 0}


def get_version(contents: Contents) -> int:
    """The version of the data at last."""
    version: int = contents[_DATABASE]
    return version


@contextmanager
def stepped_cache(name: str = "SteppedCache") -> Iterator[None]:
    """Make that Django's default cache."""
    logging.disable(logging.CRITICAL)
    try:
        with override_settings(CACHES={"default": {"BACKEND": f"tests.interleavings.{name}"}}):
            yield
    finally:
        logging.disable(logging.NOTSET)
