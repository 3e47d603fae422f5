"""The package on systems that lack a part of POSIX, such as Windows."""

from __future__ import annotations

import subprocess
import sys

#: Takes away what Windows lacks, then imports and uses all modules of the package. Django and the standard library's
#: modules that look at these names are imported before: they have branches of their own for Windows.
WITHOUT_POSIX = """
import asyncio, multiprocessing, os, signal, socket, subprocess, sys, threading

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="a-key-for-tests-only-of-at-least-32-characters",
    INSTALLED_APPS=["fastblets"],
    CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}},
)
import django.core.management, django.core.cache, django.core.checks, django.utils.autoreload

for name in ("fork", "register_at_fork", "waitpid", "killpg", "getuid", "geteuid", "setsid", "getppid", "uname"):
    vars(os).pop(name, None)
for name in ("SIGALRM", "SIGKILL", "SIGSTOP", "SIGUSR1", "alarm", "setitimer", "pthread_kill", "pthread_sigmask"):
    vars(signal).pop(name, None)
vars(socket).pop("AF_UNIX", None)
for name in ("fcntl", "grp", "posix", "pwd", "resource", "termios"):
    sys.modules[name] = None

django.setup()

import importlib, pkgutil
import fastblets

for module in pkgutil.walk_packages(fastblets.__path__, "fastblets."):
    importlib.import_module(module.name)

from fastblets.cache.backend import cache_memoize, cache_memoize_iter
from fastblets.cache.synchronizer import GenerationSynchronizer
from fastblets.protect.locks import CacheLock

for options in ({}, {"use_encryption": True}, {"large_data": True, "lock": CacheLock()}):
    key = f"key {sorted(options)}"
    assert cache_memoize(key, lambda: 5, **options) == cache_memoize(key, lambda: 6, **options) == 5
assert list(cache_memoize_iter("items", lambda: [1])) == list(cache_memoize_iter("items", lambda: [2])) == [1]
synchronizer = GenerationSynchronizer("state")
synchronizer.mark_updated()
assert not synchronizer.is_expired()

django.core.management.call_command("check", deploy=True, fail_level="CRITICAL")
django.core.management.call_command("fastblets", "verify", "items")
"""


def test_the_package_needs_nothing_that_windows_lacks() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_POSIX], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("items: whole, large: 1 chunk, 1 item\n")
