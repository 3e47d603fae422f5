"""Shows fastblets at work in a Django project: `python demo.py [file | memcached | redis]`."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from contextlib import ExitStack

CACHES = ("file", "memcached", "redis")


def main() -> None:
    kind = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("CACHE") or "file"
    if kind not in CACHES:
        raise SystemExit(f"CACHE is one of {', '.join(CACHES)}; {kind!r} is not.")
    leave_nothing_behind()
    from server import running

    with ExitStack() as at_the_end:
        folder = at_the_end.enter_context(tempfile.TemporaryDirectory(prefix="fastblets-demo-"))
        port = 0 if kind == "file" else at_the_end.enter_context(running(kind, folder))
        start_django(kind, folder, port)
        # Cache keys need Django's models, which are there only after the setup.
        import steps

        steps.run(kind)


def leave_nothing_behind() -> None:
    sys.dont_write_bytecode = True
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    # An exit closes the folder and the server; the signal by itself would not.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Terminated."))


def start_django(kind: str, folder: str, port: int) -> None:
    import django
    from django.core.management import call_command

    # In the environment, so that the demo's other processes see the same.
    os.environ.update(DJANGO_SETTINGS_MODULE="settings", CACHE=kind, DEMO_FOLDER=folder, DEMO_PORT=str(port))
    django.setup()
    call_command("migrate", verbosity=0)


# The demo's other processes import this file too.
if __name__ == "__main__":
    main()
