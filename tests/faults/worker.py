"""The process in which one experiment takes place."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import traceback
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import django

from tests.faults.outcome import Finding, Outcome

# At import: the server that forks these processes does it once for all of them.
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from tests.faults.experiment import experiments  # noqa: E402
from tests.faults.lab import open_lab  # noqa: E402
from tests.faults.subject import SUBJECTS  # noqa: E402

EXPERIMENTS = experiments()
MEMORY_LIMIT = 2 << 30
# In case nobody is left to end a process that hangs.
GRACE = 10


@dataclass(frozen=True)
class Job:
    """One experiment with one subject on one backend."""

    experiment: str
    backend: str
    subject: str


def work(job: Job, directory: Path, pipe: Connection) -> None:
    """Conduct an experiment, and send what was found."""
    experiment = EXPERIMENTS[job.experiment]
    os.setsid()
    _limit(experiment.seconds + GRACE)
    tempfile.tempdir = str(directory)
    logging.getLogger().addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")
    try:
        with open_lab(SUBJECTS[job.subject], job.backend, directory, experiment.client) as lab:
            finding = experiment.conduct(lab)
    except BaseException:
        # The experiment itself is broken: what a library raises is an outcome of it.
        finding = Finding(Outcome.CRASH, "broken experiment: " + traceback.format_exc(limit=-4).replace("\n", " "))
    pipe.send(finding)


def _limit(seconds: float) -> None:
    # Windows has no such module, and this one is imported there, too.
    import resource

    signal.alarm(int(seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
