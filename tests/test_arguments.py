"""The checks of arguments that every backend shares."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from revstore import arguments
from revstore.errors import InvalidArgument

MOST = (1 << 63) - 1
EDGES = st.sampled_from([-1, 0, 1, 2**32 - 1, 2**32, 2**43, MOST, MOST + 1, 2**64, 10**5000])
ANYTHING = EDGES | st.integers() | st.booleans() | st.floats() | st.text() | st.none()


@pytest.mark.parametrize(
    ("check", "low", "high"),
    [
        (lambda value: arguments.check_get("a", value), 0, MOST),
        (lambda value: arguments.check_list("a", value), 0, MOST),
        (lambda value: arguments.check_list("a", 0, limit=value), 0, MOST),
        (lambda value: arguments.check_put("a", b"", value, 0), 0, MOST),
        (lambda value: arguments.check_put("a", b"", 0, value), 0, (1 << 32) - 1),
        (lambda value: arguments.check_delete("a", value), 1, MOST),
        (arguments.check_compact, 1, MOST),
        (
            lambda value: arguments.check_watch("a", recursive=False, after_revision=value),
            0,
            MOST,
        ),
    ],
    ids=["get", "list", "limit", "put", "ttl", "delete", "compact", "watch"],
)
@given(ANYTHING)
def test_whole_numbers(check, low, high, value):
    """A whole number within the range passes; everything else is InvalidArgument, and nothing but
    that, however long it is. A ttl may be None."""
    if (type(value) is int and low <= value <= high) or (value is None and high == (1 << 32) - 1):
        check(value)
    else:
        with pytest.raises(InvalidArgument):
            check(value)


@given(ANYTHING)
@example(math.inf)
@example(math.nan)
def test_timeouts(value):
    """Every wait can take what comes back; NaN and what is no number are refused."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    if value is None or number:
        assert arguments.check_timeout(value, 5.0) == (
            5.0 if value is None else max(0.0, min(value, 1e6))
        )
        assert (arguments.check_poll(value) is None) is (value is None or value == math.inf)
    else:
        for check in (
            lambda: arguments.check_timeout(value, 5.0),
            lambda: arguments.check_poll(value),
        ):
            with pytest.raises(InvalidArgument):
                check()
