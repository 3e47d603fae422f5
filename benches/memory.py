"""Peak memory of reading and writing records one by one, each in a process of its own.

What is stored is in a memcached, so that only the libraries' own needs are seen, and the client's.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

from benches.data import Record, records
from benches.jobs import KEY, MODES, CheckError
from benches.libraries import LIBRARIES, Library, set_up_django, use_cache
from benches.limits import Limit
from tools.servers import Memcached

RECORDS = 2_000_000
STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
#: Megabytes above the start. What is read is fetched whole; of what is written, nothing is kept.
AT_MOST = {"read": 60.0, "write": 20.0}
BACKEND = "django.core.cache.backends.memcached.PyMemcacheCache"
JOBS = (("write", "plain"), ("write", "compressed"), ("read", "compressed"))


def measure_memory(job: tuple[str, str], count: int) -> Limit:
    """Measure one of the jobs with both libraries. Reading needs that the same was written before."""
    action, mode = job
    with Memcached(memory=1024) as server:
        if action == "read":
            _peak_in_process("fastblets", "write", mode, count, server.address)
        djblets, fastblets = (_peak_in_process(name, action, mode, count, server.address) for name in LIBRARIES)
    # A tenth of the records is a try.
    at_most = AT_MOST[action] if count == RECORDS else None
    return Limit("Peak memory", f"{action} {count:,} records, {mode}", "MB", at_most, djblets, fastblets)


def can_measure() -> bool:
    """Whether the system tells how much memory a process took at most since a moment."""
    return CLEAR_REFS.exists()


def _peak_in_process(library: str, action: str, mode: str, count: int, address: str) -> float:
    command = [sys.executable, "-m", __name__, library, action, mode, str(count), address]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


def _main(library: str, action: str, mode: str, count: str, address: str) -> None:
    set_up_django()
    use_cache(
        {"BACKEND": BACKEND, "LOCATION": address},
        empty=action == "write",
    )
    memoize = partial(Library(library).backend.cache_memoize_iter, **MODES[mode])
    # The first call imports and connects.
    list(memoize(f"{KEY}-first", lambda: [1]))

    makes = records if action == "write" else _nothing
    CLEAR_REFS.write_text("5")
    start = _megabytes("VmRSS")
    # One by one, and nothing is kept.
    items = memoize(KEY, lambda: islice(makes(), int(count)))
    equal = sum(item == record for item, record in zip(items, records(), strict=False))
    peak = _megabytes("VmHWM") - start

    if equal != int(count):
        raise CheckError(f"{equal} records of {count} came back")
    print(peak)


def _nothing() -> Iterator[Record]:
    raise CheckError("an entry that should be there isn't")
    yield


def _megabytes(field: str) -> float:
    found = re.search(rf"^{field}:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise OSError(f"{STATUS} has no {field}")
    return int(found[1]) * 1024 / 1e6


if __name__ == "__main__":
    _main(*sys.argv[1:])
