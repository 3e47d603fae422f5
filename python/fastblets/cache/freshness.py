"""When a value is served that is not fresh any more, and who computes the new one: a call that has a policy."""

from __future__ import annotations

import logging
import math
import os
import random
import time
from collections import deque
from concurrent.futures import wait
from copy import copy
from dataclasses import replace
from enum import Enum
from itertools import chain, islice
from typing import TYPE_CHECKING, cast

from fastblets.cache.computing import Computation, find_computing
from fastblets.cache.failures import let_pass, log_failure
from fastblets.cache.memoize import ITEMS, Memoize, compute_for, get_lease_secs, is_held_by_caller, log_miss
from fastblets.cache.options import UNSET, is_over
from fastblets.cache.policy import as_seconds
from fastblets.cache.sharing import Leader, Outcome, lead_or_follow
from fastblets.cache.stamped import StampedStorage, get_milliseconds
from fastblets.protect.locks import CacheLock
from fastblets.signals import cache_event, is_telling, tell_error

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from typing import Any, Final

    from fastblets.cache.memoize import Form, Lock, Waiting
    from fastblets.cache.policy import CachePolicy
    from fastblets.cache.storage import Storage


# Djblets' name, so that a project's logging settings go on to hold.
logger: logging.Logger = logging.getLogger("djblets.cache.backend")

#: How many full chunks of a refreshed entry wait until it is complete: 16 MB.
_MOST_HELD_BACK: Final = 16


class Age(Enum):
    """How old a value is."""

    #: It is served.
    FRESH = "fresh"

    #: It is fresh, and this caller was chosen to compute the next one.
    EARLY = "early"

    #: It is served while one caller computes the next one.
    STALE = "stale"

    #: It is served only if computing the next one fails.
    EXPIRED = "expired"

    #: It is not served any more.
    OVER = "over"


class Follow:
    """Another caller's computation to wait for.

    Attributes:
        leader: That caller.
        end: Until when to wait, on the monotonic clock.
        patience: For how many seconds to wait for each next item of a stream.
    """

    __slots__ = ("end", "leader", "patience")

    end: float
    leader: Leader
    patience: float

    def __init__(self, leader: Leader, end: float, patience: float) -> None:
        """Take the parts."""
        self.leader = leader
        self.end = end
        self.patience = patience

    def block(self) -> Outcome | None:
        """Wait for the end of the computation, blocking the thread. Return its outcome, None if it took too long."""
        done = self.leader.done

        while not done.done():
            timeout = self.get_timeout()

            if timeout <= 0:
                return None

            # Not done.result(): a TimeoutError of its own could not be told from one that a signal handler raises.
            wait([done], None if timeout == math.inf else timeout)

        return done.result()

    def get_timeout(self) -> float:
        """Return for how many seconds to wait before asking again. 0 or less: no longer."""
        end = self.end

        if self.leader.is_stream:
            end = min(end, self.leader.progress + self.patience)

        return end - time.monotonic()


class FreshMemoize(Memoize):
    """One call of a memoize function that has a policy."""

    __slots__ = (
        "_age",
        "_chosen",
        "_deadline",
        "_draws",
        "_has_computed",
        "_is_alone",
        "_is_own_lock",
        "_leader",
        "_older",
        "_policy",
        "_start",
        "_value",
    )

    storage: StampedStorage

    def __init__(
        self, storage: StampedStorage, policy: CachePolicy, form: Form, lock: Lock | None, overwrite: bool
    ) -> None:
        """Take the parts of the call.

        Args:
            storage: The entry in the cache.
            policy: The policy.
            form: How the entry's value is loaded and kept.
            lock: The lock that the caller gave. Without one, the call makes its own.
            overwrite: Whether to compute even if there is an entry.

        Raises:
            TypeError: The lock is none.
        """
        super().__init__(storage, form, lock, overwrite)
        self._policy = policy
        self._is_own_lock = lock is None
        #: A value that was found and is not fresh, or is to be computed early. UNSET without one.
        self._value: Any = UNSET
        self._age = Age.OVER
        #: Where that value was found, if it was under an older encryption key.
        self._older: StampedStorage | None = None
        #: Whether chance may choose this call to compute early.
        self._draws = bool(policy.early)
        #: The life of the value that was found when chance chose this call.
        self._chosen: tuple[int | None, int | None, int] | None = None
        #: What stands for this call where others of this process wait for it.
        self._leader: Leader | None = None
        #: Whether this call computes without a lock, and without anybody waiting for it.
        self._is_alone = False
        self._has_computed = False
        #: Until when this call waits, and when it began to compute, on the monotonic clock.
        self._deadline = self._start = 0.0

    def look(self) -> Any:
        """Return the stored value if it is fresh, UNSET if not. A value that is not fresh is kept in mind."""
        self._value = UNSET
        self._age = Age.OVER
        self._older = None

        return super().look()

    def find(self) -> Generator[Waiting, Any, Any]:
        """Return the value to serve, UNSET if it is to be computed.

        To be called after the first look found nothing fresh.

        Yields:
            As for :meth:`Memoize.find <fastblets.cache.memoize.Memoize.find>`.
        """
        if self._overwrite:
            return (yield from super().find())

        if self._value is UNSET and self._failure is None:
            value = self._migrate_from_older_key()

            if value is not UNSET:
                return value
        elif self._value is UNSET:
            # An unreadable entry is newer than any entry under an older key.
            self._discard_older()

        computing = find_computing()
        is_servable = self._value is not UNSET and self._age is not Age.EXPIRED

        if self.place in computing:
            # Whoever computes it waits for this call.
            self._is_alone = self._is_unstored = True
            value = self._serve() if is_servable else UNSET
        elif is_servable:
            value = self._try_to_refresh()
        else:
            value = yield from self._find_new(bool(computing) or is_telling())

        if value is UNSET:
            if self._age is Age.EARLY:
                self.storage.tell("early", -self._get_late_secs())
            else:
                log_miss(self.storage)

            self._stamp()
        else:
            # The value may be a stream, which its client reads for as long as it likes.
            self.end()

        return value

    def run(self, lookup_callable: Callable[[], Any]) -> Any:
        """Compute the value, store it if that is possible, and return it, or the old one if that is to be served.

        Raises:
            Exception: As for :meth:`Memoize.run <fastblets.cache.memoize.Memoize.run>`.
        """
        if self._is_for_runner:
            return self._hand_over(lambda call: call.run(lookup_callable))

        computation = self.begin()
        computation.begin()

        try:
            value = compute_for(self.storage, lookup_callable)
        except Exception as e:
            old = self.recover(e)

            if old is UNSET:
                raise

            return old
        else:
            # Storing may run a function given as ``expiration``, and code of the value that pickles it.
            return self.keep(value)
        finally:
            computation.end()

    def run_items(self, make_items: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        """Return an iterator over computed items, or over the old ones if the first can't be computed.

        Raises:
            Exception: What ``make_items``, or the first item, raised.
        """
        if self._is_for_runner:
            return cast("Iterator[Any]", self._hand_over(lambda call: deque(call.run_items(make_items), 0)))

        computation = self.begin()
        computation.begin_item()

        try:
            items = make_items()
            first = list(islice(items, 1))
        except Exception as e:
            old = self.recover(e)

            if old is UNSET:
                raise

            # Its client reads it for as long as it likes.
            self.end()

            return cast("Iterator[Any]", old)

        self.storage.cost = time.monotonic() - self._start
        self._value = UNSET

        # An iterator that has ended is not asked again.
        return cast("Iterator[Any]", super().keep(self._watch(chain(first, items) if first else first)))

    def begin(self) -> Computation:
        """Note that computing begins, and return what stands for it."""
        self._start = time.monotonic()

        if self._leader is not None:
            self._leader.progress = self._start

        if self._value is not UNSET:
            self.hold_back = _MOST_HELD_BACK

        self._computation = Computation(self.place, as_seconds(self._policy.lock_secs))

        return self._computation

    def keep(self, value: Any) -> Any:
        """Store a computed value, if that is possible, and return it."""
        self.storage.cost = time.monotonic() - self._start
        self._has_computed = True
        self._value = UNSET

        return super().keep(value)

    def recover(self, error: Exception) -> Any:
        """Return the old value if it is to be served although computing has failed, UNSET if not.

        Args:
            error: What computing raised. A task's time limit is raised again.
        """
        let_pass(error)

        if self._value is UNSET:
            return UNSET

        self.storage.tell("backoff", time.monotonic() - self._start)
        self._back_off()
        late = self._get_late_secs()

        if late > 0 and not late < as_seconds(self._policy.stale_if_error):
            return UNSET

        logger.warning(
            'Computing cache key "%s" failed. The value that is there is served, which %s: %s',
            self.storage.entry.full_key,
            f"expired {late:.1f} seconds ago" if late > 0 else "has not expired yet",
            error,
            exc_info=error,
        )

        return self._serve()

    def end(self) -> None:
        """End the call: release the lock, and let those go on that wait for this call."""
        try:
            # Otherwise it would be found again once the new one has expired.
            if self.is_stored:
                self.drop_older()
        finally:
            try:
                super().end()
            finally:
                leader, self._leader = self._leader, None

                if leader is not None:
                    leader.end(self._get_outcome())

    def drop_older(self) -> None:
        """Remove the entry under an older key, if the value was found there and is computed anew."""
        older, self._older = self._older, None

        if older is not None:
            self._discard(older)

    def _get_outcome(self) -> Outcome:
        # A cache takes it without keeping it if it has expired at once.
        if self.is_stored and not is_over(self.storage.options.get_timeout()):
            return Outcome.STORED

        return Outcome.NOT_STORED if self._has_computed else Outcome.FAILED

    # What was found

    def _judge(self, value: Any, storage: Any) -> Any:
        """Return a value if it is fresh, UNSET if not. One that may be served later is kept in mind."""
        self._age = self._find_age(storage)

        if self._age is Age.FRESH:
            return super()._judge(value, storage) if cache_event.receivers else value

        if self._age is not Age.OVER:
            self._value = value

        return UNSET

    def _find_age(self, storage: StampedStorage) -> Age:
        start, end, cost = life = storage.find_life()

        if end is None:
            return Age.FRESH

        left = end - get_milliseconds()

        if left > 0:
            if life == self._chosen:
                return Age.EARLY

            # Never in the first half of its life: with a short expiration it would be computed all the time.
            is_in_second_half = start is not None and left < (end - start) / 2

            # 1 - random() is never 0.
            if self._draws and is_in_second_half and left <= cost * self._policy.early * -math.log(1 - random.random()):
                return Age.EARLY

            return Age.FRESH

        late = -left / 1000

        if late < as_seconds(self._policy.stale_while_revalidate):
            return Age.STALE

        return Age.EXPIRED if late < as_seconds(self._policy.stale_if_error) else Age.OVER

    def _get_late_secs(self) -> float:
        return (self._older or self.storage).get_late_secs()

    def _take_over(self, value: Any, older: Storage) -> Any:
        if value is not UNSET:
            return super()._take_over(value, older)

        if self._value is not UNSET:
            assert isinstance(older, StampedStorage)
            self._older = older

        return UNSET

    def _look_again(self) -> Any:
        old, older, age = self._value, self._older, self._age
        value = self.look()

        # One under an older key is still there, as nothing has replaced it.
        if older is not None and value is UNSET and self._value is UNSET and self._failure is None:
            self._value, self._older, self._age = old, older, age

        return value

    def _look_while_waiting(self) -> Any:
        value = self._look_again()

        # If the owner of the lock has failed, so would this call.
        return self._serve() if value is UNSET and self._value is not UNSET and self._is_backed_off() else value

    def _serve(self) -> Any:
        value, self._value = self._value, UNSET

        if cache_event.receivers:
            late = self._get_late_secs()

            if late > 0:
                self.storage.tell("stale", late)
            else:
                self.storage.tell("hit")

        return value

    # Who computes

    def _try_to_refresh(self) -> Any:
        """Return a value that can be served, UNSET if this call is to compute the next one."""
        if self._age is Age.EARLY:
            self._chosen = (self._older or self.storage).find_life()

        if not self._try_lock():
            return self._serve()

        # Another call may have computed it meanwhile. Chance has chosen already.
        self._draws = False

        return self._look_again()

    def _find_new(self, is_nested: bool) -> Generator[Waiting, Any, Any]:
        """Return the value that another call computes, UNSET if this one is to compute it.

        Args:
            is_nested: Whether this call is made by the computation of another key, or by a receiver of an event. Then
                it waits for nobody: the one that it would wait for may be waiting for this one.
        """
        if self._is_cut_off:
            return UNSET

        wait = self._policy.wait
        self._deadline = math.inf if wait is None else time.monotonic() + as_seconds(wait)

        # Whoever leads may be waiting for a lock that this caller holds.
        if self._policy.share and not is_nested and not (self._lock is not None and is_held_by_caller(self._lock)):
            value = yield from self._follow()

            if value is not UNSET or self._is_alone:
                return value

        if self._try_lock():
            # Another process may have stored it meanwhile.
            return self._look_again()

        if self._is_alone:
            return UNSET

        if self._is_backed_off():
            if self._value is not UNSET:
                return self._serve()

            # There is nothing to serve until somebody tries again.
            self._ask_lock("end_backoff")

        if is_nested or self._lock is None:
            self._lock = None

            return UNSET

        return (yield from self._wait_for_lock(self._lock))

    def _follow(self) -> Generator[Waiting, Any, Any]:
        """Wait for the call of this process that computes. Return what there is then, UNSET to compute here."""
        lease = as_seconds(self._policy.lock_secs)

        while True:
            # Kept before it leads: an interrupt may arrive right after it.
            self._leader = mine = Leader(self.place, self._form is ITEMS)
            leader = lead_or_follow(mine, lease)

            if leader is mine:
                return UNSET

            self._leader = None
            start = time.monotonic()
            outcome: Outcome | None = yield Follow(leader, self._deadline, lease / 3)
            secs = time.monotonic() - start

            if outcome is None:
                self.storage.tell("lock_timeout", secs)
            else:
                self.storage.tell("lock_wait", secs)

            value = self._look_again()

            if value is not UNSET:
                return value

            if self._value is not UNSET and (self._age is not Age.EXPIRED or self._is_backed_off()):
                return self._serve()

            if outcome is None or outcome is Outcome.NOT_STORED or self._is_cut_off:
                # With a lock, all who wait would compute one after the other.
                self._is_alone = True

                if outcome is None:
                    self._log_timeout()
                    # A stream goes on as slowly as its client reads it. It is not to be overwritten meanwhile.
                    self._is_unstored = leader.is_stream

                return UNSET

    def _try_lock(self) -> bool:
        """Return whether this call has the lock, without waiting for it."""
        if self._lock is None:
            self._lock = self._make_lock()

        lock = cast("CacheLock", self._lock)

        if is_held_by_caller(lock):
            return True

        # Set before acquiring: an interrupt may arrive right after it.
        self._lock_pid = os.getpid()

        try:
            is_acquired = lock.acquire(blocking=False)
        except Exception as e:
            self._note(tell_error(e, self.storage.entry.name))
            log_failure(logger, e, "Error acquiring cache lock %r: %s", lock, e)
            self._lock = None
            self._is_alone = True

            return False

        if not is_acquired:
            # From here on, the caller may use the object, if it is the caller's.
            self._lock_pid = 0

        return is_acquired

    def _make_lock(self) -> CacheLock:
        options = self.storage.options
        lock = CacheLock(
            lock_expiration_secs=as_seconds(self._policy.lock_secs),
            # The lock of a stream is renewed when an item is asked for: a client that went away must not keep it.
            max_lock_secs=None if self._form is ITEMS else as_seconds(self._policy.max_lock_secs),
            cache=options.alias,
        )
        lock.full_cache_key = self.storage.entry.make_lock_key(options.max_key_bytes)

        return lock

    def _wait_for_lock(self, lock: Lock) -> Generator[Waiting, Any, Any]:
        # A lock that the caller gave has times of its own.
        if self._is_own_lock:
            left = self._deadline - time.monotonic()

            if left <= 0:
                self._log_timeout()
                self.storage.tell("lock_timeout", 0.0)
                self._lock = None

                return UNSET

            cast("CacheLock", lock).timeout_secs = -1 if left == math.inf else left

        return (yield from self._find_locked(lock))

    def _is_backed_off(self) -> bool:
        if self._lock is None and not self._is_cut_off and not self._is_alone:
            self._lock = self._make_lock()

        return bool(self._ask_lock("is_backed_off"))

    def _back_off(self) -> None:
        lock = self._lock
        secs = as_seconds(self._policy.retry_after)

        # Not a lock that the caller holds.
        if lock is not None and secs > 0 and self._lock_pid == os.getpid() and lock.locked():
            self._ask_lock("back_off", secs)

            if not lock.locked():
                # From here on, the caller may use the object.
                self._lock_pid = 0

    def _ask_lock(self, name: str, *args: object) -> Any:
        # Djblets' own class has none of these methods.
        method = getattr(self._lock, name, None)

        if method is None or self._is_cut_off:
            return None

        try:
            return method(*args)
        except Exception as e:
            self._note(tell_error(e, self.storage.entry.name))
            log_failure(logger, e, "Error using cache lock %r: %s", self._lock, e)

            return None

    def _log_timeout(self) -> None:
        logger.error(
            'Timeout waiting for another computation of cache key "%s". It is computed once more.',
            self.storage.entry.full_key,
        )

    # Computing

    @property
    def _is_for_runner(self) -> bool:
        return (
            self._policy.refresh != "inline"
            and self._is_own_lock
            and self._lock is not None
            and self._lock.locked()
            and self._value is not UNSET
            and self._age is not Age.EXPIRED
            and not self._is_unstored
        )

    def _hand_over(self, work: Callable[[FreshMemoize], object]) -> Any:
        """Let the policy's runner compute, and return the old value."""
        lock = cast("CacheLock", self._lock)
        call = copy(self)
        # A stream is read once, by the caller. So is a leader ended once.
        call._value = ()
        call._leader = None
        self._lock = None
        # A cache object belongs to its thread.
        self.storage.options.cache = None

        def job() -> None:
            try:
                # Another call may have it by now, if the job had to wait.
                if not lock.take_over():
                    return

                call._policy = replace(call._policy, refresh="inline")
                call._lock_pid = os.getpid()
                work(call)
            except Exception as e:
                log_failure(logger, e, 'Error computing cache key "%s" anew: %s', call.storage.entry.full_key, e)
            finally:
                call.end()

        try:
            lock.hand_over()
            runner = cast("Callable[[Callable[[], None]], object]", self._policy.refresh)
            runner(job)
        except Exception as e:
            log_failure(logger, e, 'Error letting cache key "%s" be computed anew: %s', self.storage.entry.full_key, e)

        return self._serve()

    def _watch(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield items, and note on the way what they cost. Renew the lock."""
        lease = as_seconds(self._policy.lock_secs) if self._lock is None else get_lease_secs(self._lock)
        renewal = self._start + lease / 3
        iterator = iter(items)
        asked = time.monotonic()

        for item in iterator:
            now = time.monotonic()
            self.storage.cost += now - asked

            if self._leader is not None:
                self._leader.progress = now

            if now >= renewal:
                renewal = now + lease / 3

                try:
                    self._extend_lock()
                except Exception as e:
                    # It has been logged. The items go on.
                    self._note(e)

            yield item
            asked = time.monotonic()

        self._has_computed = True
        self.storage.tell("computed", self.storage.cost)

    def _extend_lock(self) -> None:
        # Not for ever, if it is this call's own.
        if not self._is_own_lock or time.monotonic() - self._start < as_seconds(self._policy.max_lock_secs):
            super()._extend_lock()


def make_call(storage: Storage, form: Form, lock: Lock | None, overwrite: bool) -> Memoize:
    """Return one call of a memoize function, with or without a policy.

    For the arguments see :class:`~fastblets.cache.memoize.Memoize`.

    Raises:
        TypeError: The lock is none.
    """
    policy = storage.options.policy

    if policy is None:
        return Memoize(storage, form, lock, overwrite)

    assert isinstance(storage, StampedStorage)

    return FreshMemoize(storage, policy, form, lock, overwrite)
