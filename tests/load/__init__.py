"""Load: many callers of few keys, whose values take long to compute and soon expire, on real servers.

``python -m tests.load`` lets them call, and writes what came of it into docs/reliability.md. `tests/test_load.py` does
the same for a few seconds.
"""
