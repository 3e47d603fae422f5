"""Runs experiments, each in a process with limits on its time and memory."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.faults.outcome import Finding, Outcome
from tests.faults.worker import EXPERIMENTS, Job, work

_context = get_context("forkserver")
_context.set_forkserver_preload(["tests.faults.worker"])


def run(job: Job) -> Finding:
    """Run one experiment. Whatever it does, this returns in time."""
    seconds = EXPERIMENTS[job.experiment].seconds
    with tempfile.TemporaryDirectory(prefix="fastblets-faults-", ignore_cleanup_errors=True) as directory:
        receiver, sender = _context.Pipe(duplex=False)
        process = _context.Process(target=work, args=(job, Path(directory), sender))
        process.start()
        sender.close()
        try:
            return _receive(receiver, process, seconds)
        finally:
            _end(process)


def run_all(jobs: Iterable[Job], workers: int) -> Iterator[tuple[Job, Finding]]:
    """Run many experiments, a few at a time."""
    with ThreadPoolExecutor(workers) as pool:
        # Only threads wait here: the processes are forked by a server that has none.
        results = [(job, pool.submit(run, job)) for job in jobs]
        for job, result in results:
            yield job, result.result()


def _receive(receiver: object, process: BaseProcess, seconds: float) -> Finding:
    if not receiver.poll(seconds):  # type: ignore[attr-defined]
        return Finding(Outcome.HANG)
    try:
        finding: Finding = receiver.recv()  # type: ignore[attr-defined]
        return finding
    except EOFError:
        process.join(5)
        return Finding(Outcome.CRASH, f"exit code {process.exitcode}")


def _end(process: BaseProcess) -> None:
    """End the process and those that it started."""
    process.join(1)
    with suppress(ProcessLookupError, PermissionError):
        if process.pid is not None:
            os.killpg(process.pid, signal.SIGKILL)
    process.join(5)
