"""fastblets.replace_djblets(), each time in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent

import pytest

needs_djblets = pytest.mark.skipif(find_spec("djblets") is None, reason="Djblets isn't installed")

CONFIGURE = """
import sys
import fastblets
from django.conf import settings

settings.configure(
    SECRET_KEY="a-key-for-tests-only-of-at-least-32-characters",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.sites"],
    SITE_ID=1,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
"""

SETUP = """
import django

django.setup()
"""

NAMES = """
NAMES = {
    "cache.backend": ["cache_memoize", "cache_memoize_iter", "make_cache_key", "_get_default_encryption_key"],
    "cache.errors": ["MissingChunkError"],
    "cache.synchronizer": ["GenerationSynchronizer"],
    "protect.locks": ["CacheLock"],
    "secrets.crypto": ["aes_encrypt", "aes_decrypt", "aes_encrypt_iter", "aes_decrypt_iter"],
}
"""

CHECK = """
from importlib import import_module

for module, names in NAMES.items():
    ours = import_module(f"fastblets.{module}")
    scope = {}
    exec(f"import djblets.{module}; from djblets.{module} import {', '.join(names)}", scope)
    package, _, last = module.rpartition(".")
    exec(f"from djblets.{package} import {last} as by_package", scope)
    assert scope["by_package"] is ours, module
    for name in names:
        assert scope[name] is getattr(ours, name), name
        assert getattr(eval(f"djblets.{module}", scope), name) is getattr(ours, name)
"""


def run(*parts: str, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    script = "\n".join(dedent(part) for part in parts)
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=directory,
    )


def check(*parts: str, directory: Path | None = None) -> None:
    done = run(*parts, directory=directory)
    assert done.returncode == 0, done.stderr


@needs_djblets
def test_before_django_is_set_up() -> None:
    check(CONFIGURE, NAMES, "fastblets.replace_djblets()", SETUP, CHECK)


@needs_djblets
def test_from_the_first_line_of_the_settings(tmp_path: Path) -> None:
    (tmp_path / "site_settings.py").write_text(
        "import fastblets; fastblets.replace_djblets()\n"
        "import sys\n"
        "assert 'django.contrib.sites.models' not in sys.modules\n"
        "SECRET_KEY = 'a-key-for-tests-only-of-at-least-32-characters'\n"
        "CACHE_EXPIRATION_TIME = 5\n"
    )
    check(
        "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'site_settings'",
        SETUP,
        NAMES,
        CHECK,
        "from djblets.cache.backend import cache_memoize",
        "assert cache_memoize('key', lambda: 1) == 1",
        directory=tmp_path,
    )


@needs_djblets
def test_names_that_were_imported_before_are_changed() -> None:
    check(
        CONFIGURE,
        SETUP,
        NAMES,
        """
        from types import ModuleType

        # A module of the project that has imported everything by name, also under other names, and the modules.
        project = ModuleType("project")
        sys.modules["project"] = project
        for module, names in NAMES.items():
            package, _, last = module.rpartition(".")
            exec(f"from djblets.{module} import {', '.join(names)}", vars(project))
            exec(f"from djblets.{package} import {last}", vars(project))
        exec("from djblets.cache.backend import cache_memoize as memoize, CACHE_CHUNK_SIZE", vars(project))
        from djblets.protect.locks import CacheLock
        from djblets.protect import ratelimit

        class OwnLock(CacheLock):
            pass

        fastblets.replace_djblets()

        import fastblets.cache.backend
        for module, names in NAMES.items():
            ours = sys.modules[f"fastblets.{module}"]
            assert getattr(project, module.rpartition(".")[2]) is ours
            for name in names:
                assert getattr(project, name) is getattr(ours, name), name
        assert project.memoize is fastblets.cache.backend.cache_memoize
        assert ratelimit.make_cache_key is fastblets.cache.backend.make_cache_key
        assert CacheLock is sys.modules["fastblets.protect.locks"].CacheLock
        # What was derived before goes on to work.
        with OwnLock("key") as lock:
            assert lock.locked()
        assert project.memoize("key", lambda: 1, lock=OwnLock()) == 1
        """,
        CHECK,
    )


@needs_djblets
def test_calling_it_again_does_no_harm() -> None:
    check(
        CONFIGURE,
        NAMES,
        """
        fastblets.replace_djblets()
        before = {name: id(module) for name, module in sys.modules.items()}
        fastblets.replace_djblets()
        assert before.items() <= {name: id(module) for name, module in sys.modules.items()}.items()
        """,
        SETUP,
        "fastblets.replace_djblets()",
        CHECK,
    )


@needs_djblets
def test_logs_go_to_djblets_loggers() -> None:
    done = run(
        CONFIGURE,
        "fastblets.replace_djblets()",
        SETUP,
        """
        import logging

        logging.basicConfig(format="%(name)s %(message)s")
        from djblets.cache.backend import cache_memoize
        assert cache_memoize("key", lambda: 1, use_encryption=True, encryption_key=b"short") == 1
        """,
    )
    assert done.returncode == 0
    assert "djblets.cache.backend Failed to encrypt data" in done.stderr


@needs_djblets
@pytest.mark.parametrize("version", [(5, 1, 3), (8, 0, 0), (4, 0, 0), (10, 0, 0)], ids=str)
def test_an_unknown_version_is_refused(version: tuple[int, ...]) -> None:
    done = run(
        CONFIGURE,
        f"""
        import djblets

        djblets.VERSION = {version}
        fastblets.replace_djblets()
        """,
    )
    assert "ImportError: fastblets.replace_djblets() knows Djblets 5.2 to 7.x" in done.stderr


@needs_djblets
@pytest.mark.parametrize("version", [(5, 2, 0), (5, 3, 0), (6, 1, 0), (7, 9, 1)], ids=str)
def test_known_versions_are_taken(version: tuple[int, ...]) -> None:
    check(CONFIGURE, f"import djblets; djblets.VERSION = {version}", "fastblets.replace_djblets()")


def test_without_djblets_it_says_so() -> None:
    done = run(CONFIGURE, "sys.modules['djblets'] = None", "fastblets.replace_djblets()")
    assert "ImportError: fastblets.replace_djblets() needs Djblets, which is not installed" in done.stderr


def test_nothing_but_django_is_needed() -> None:
    check(
        """
        import sys

        for absent in ("djblets", "cryptography", "housekeeping", "typelets", "typing_extensions", "pip"):
            sys.modules[absent] = None
        """,
        CONFIGURE.replace('"django.contrib.contenttypes", "django.contrib.sites"', ""),
        """
        # Importable before Django is set up, too.
        import fastblets.cache.backend, fastblets.cache.errors, fastblets.cache.synchronizer
        import fastblets.protect.locks, fastblets.secrets.crypto
        """,
        SETUP,
        """
        from fastblets.cache.backend import cache_memoize, cache_memoize_iter, make_cache_key
        from fastblets.protect.locks import CacheLock

        assert make_cache_key(("key", "a:b")) == "key:a%3Ab"
        for large in (False, True):
            for encrypt in (False, True):
                for _ in range(2):
                    assert cache_memoize(
                        f"{large}{encrypt}", lambda: 1, large_data=large, use_encryption=encrypt, lock=CacheLock()
                    ) == 1
        assert "django.contrib.sites.models" not in sys.modules
        """,
    )
