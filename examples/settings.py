"""The demo's Django settings; demo.py says which cache, and where, by the environment."""

import os
from pathlib import Path

FOLDER = Path(os.environ["DEMO_FOLDER"])
PORT = os.environ["DEMO_PORT"]

CACHES = {
    "default": {
        "file": {
            "BACKEND": "filecache.LockableFileCache",
            "LOCATION": str(FOLDER / "cache"),
        },
        "memcached": {
            "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
            "LOCATION": f"127.0.0.1:{PORT}",
        },
        "redis": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{PORT}",
        },
    }[os.environ["CACHE"]],
}

# Every cache key begins with the domain of the current site.
INSTALLED_APPS = ["django.contrib.sites"]
SITE_ID = 1
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(FOLDER / "sites.sqlite3")},
}

# Its first 16 characters are the AES key, unless DJBLETS_CACHE_DEFAULT_ENCRYPTION_KEY is set.
SECRET_KEY = "a demo needs no well-kept secret"
USE_TZ = True
