"""What Djblets' own tests expect of a project, for running them from the installed package."""

# ruff: noqa: E402 - nothing of Djblets may be imported before it is replaced

import os

REPLACE = os.environ.get("FASTBLETS_REPLACE") == "1"
if REPLACE:
    # Before anything has imported a Djblets module, as a project would do it.
    import fastblets

    fastblets.replace_djblets()

import pkgutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import djblets
from djblets.pipeline.settings import build_pipeline_settings

_SCRATCH = Path(tempfile.gettempdir(), "fastblets-upstream")
# Djblets installs without these, and can't load the apps that want them.
_OPTIONAL = {"djblets.markdown": "markdown"}
_DJBLETS_APPS = [f"djblets.{app.name}" for app in pkgutil.iter_modules(djblets.__path__) if app.ispkg]


def _installed(*names: str) -> list[str]:
    return [name for name in names if find_spec(_OPTIONAL.get(name, name)) is not None]


DEBUG = True
PRODUCTION = False
# Keys and AES results that those tests expect were computed from this very string.
SECRET_KEY = "af=y9ydd51a0g#bevy0+p#(7ime@m#k)$4$9imoz*!rl97w0j0"
SITE_ID = 1
TIME_ZONE = "America/Chicago"
USE_TZ = True
ROOT_URLCONF = "djblets.testing.urls"
INTERNAL_IPS = ["127.0.0.1", "::1"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}

# Two templates are asked for that the package doesn't bring along.
_TEMPLATES = {
    "base.html": "<title>{% block title %}{% endblock %}</title>{% block content %}{% endblock %}",
    "testing/foo.html": "{{foo}} {{bar}}\n",
}
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            # Extensions append theirs, and a test looks into the cached loader.
            "context_processors": [],
            "loaders": [
                (
                    "django.template.loaders.cached.Loader",
                    [
                        ("django.template.loaders.locmem.Loader", _TEMPLATES),
                        "django.template.loaders.app_directories.Loader",
                    ],
                )
            ],
        },
    }
]
MIDDLEWARE = [
    "django.middleware.common.CommonMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]

STATIC_URL = "/"
STATIC_ROOT = str(_SCRATCH / "static")
MEDIA_URL = "/media/"
MEDIA_ROOT = str(_SCRATCH / "media")
STATICFILES_FINDERS = [
    "django.contrib.staticfiles.finders.AppDirectoriesFinder",
    "djblets.extensions.staticfiles.ExtensionFinder",
]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "djblets.pipeline.storage.PipelineStorage"},
}
PIPELINE = build_pipeline_settings(
    pipeline_enabled=True,
    node_modules_path=str(_SCRATCH / "node_modules"),
    static_root=STATIC_ROOT,
    validate_paths=False,
)
OAUTH2_PROVIDER = {"DEFAULT_SCOPES": "root:read", "SCOPES": {"root:read": "Read"}}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.sites",
    "django.contrib.staticfiles",
    *_installed("oauth2_provider", "pipeline"),
    *_installed(*_DJBLETS_APPS),
    *_installed("django_evolution"),
]
