"""Faults: caches that fail on demand, and experiments on how the two libraries take what fails.

``python -m tests.faults`` runs the experiments.
"""

from __future__ import annotations

from tests.faults.injection import METHODS, CacheDownError, failing, replaced

__all__ = ["METHODS", "CacheDownError", "failing", "replaced"]
