"""What `make test` leaves out of a table of parameters, as the rest of it shows the same."""

from __future__ import annotations

from typing import Any

import pytest


def one_on(modes: list[Any]) -> list[Any]:
    """Return four modes of two options, marked slow where neither is on or both are.

    The other two have each option on, and each off. To be used where a mode takes long and options don't meet.
    """
    neither, first, second, both = modes
    return [
        pytest.param(*neither.values, id=neither.id, marks=pytest.mark.slow),
        first,
        second,
        pytest.param(*both.values, id=both.id, marks=pytest.mark.slow),
    ]
