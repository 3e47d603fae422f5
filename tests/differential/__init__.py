"""What the differential tests share: how many examples they run, what they draw, and what is declared to differ."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

#: How many examples a long run tries of each property. Without it the run is short and always the same.
CHOICE = "FASTBLETS_EXAMPLES"
_LONG = os.environ.get(CHOICE)

#: Decorates every differential test.
examples = settings(
    max_examples=int(_LONG or 25),
    derandomize=not _LONG,
    database=None,
    deadline=None,
    print_blob=True,
    # `both` empties its caches and restarts its IVs for each run of an action.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


#: All of Unicode and beyond, lone surrogates too, with what the codec treats in a way of its own more often.
characters = st.one_of(
    st.sampled_from("\\\n\r\0\x1a\x7f\x80\xa0\xff%: \u2028'\"\ud800\udfff🔑д"),
    st.characters(exclude_categories=()),
)
texts = st.text(characters, max_size=30)
#: In keys lone surrogates are escaped, so that every cache takes them, which is declared.
key_characters = characters.filter(lambda character: not "\ud800" <= character <= "\udfff")
key_texts = st.text(key_characters, max_size=30)

aes_keys = st.sampled_from([16, 24, 32]).flatmap(lambda size: st.binary(min_size=size, max_size=size))
wrong_aes_keys = st.binary(min_size=1, max_size=40).filter(lambda key: len(key) not in (16, 24, 32))


def is_storable(value: Any) -> bool:
    """Whether protocol 0 takes the value."""
    try:
        pickle.dumps(value, protocol=0)
    except Exception:
        return False
    return True


def declared_difference(
    values: Sequence[Any],
    *,
    large: bool,
    encryption_key: bytes | None = None,
) -> str | None:
    """What fastblets declares to do otherwise with those values, None where nobody may see a difference.

    This is the one place where differential tests are told to look away. What is to be seen instead, each such test
    says itself: the values arrive, and nothing is stored.
    """
    if large and encryption_key is not None and len(encryption_key) not in (16, 24, 32):
        return "Djblets loses a large value to an AES key of a wrong size"
    if large and not all(map(is_storable, values)):
        return "Djblets loses what can't be pickled, and all items behind it"
    return None
