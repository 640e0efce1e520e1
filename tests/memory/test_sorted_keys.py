"""The memory backend's keys in order, and how many of them expire at a time."""

from __future__ import annotations

import threading
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revstore.memory import MemoryBackend, _sorted_keys
from revstore.memory._sorted_keys import SortedKeys

_names = st.text("ab/\uffff\U0010ffff", max_size=4)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sorted_keys, "_MOST", 3)


@given(
    st.lists(st.tuples(st.booleans(), _names)),
    _names,
    _names,
    st.integers(1, 5),
)
def test_they_are_a_sorted_set(
    steps: list[tuple[bool, str]], prefix: str, start: str, limit: int
) -> None:
    keys = SortedKeys()
    model: set[str] = set()
    for adds, key in steps:
        if adds:
            keys.add(key)
            model.add(key)
        else:
            keys.remove(key)
            model.discard(key)
    wanted = sorted(key for key in model if key.startswith(prefix) and key >= start)
    lists = list(keys.among(prefix, start, limit))
    assert list(chain.from_iterable(lists)) == wanted
    assert all(1 <= len(each) <= limit for each in lists)
    assert keys.count(prefix, start) == len(wanted)


def test_others_are_let_in_between_keys_that_expire() -> None:
    """However many expire at once, no hold of the lock is for more than 500 of them."""
    now = 0.0
    with MemoryBackend(clock=lambda: now) as backend:
        for number in range(1_200):
            backend.put(f"/{number}", b"", expected_revision=0, ttl=10)
        before = backend.status().revision
        now = 10.0
        swept: list[int] = []
        sweeper = threading.Thread(target=lambda: swept.append(backend.sweep()))
        sweeper.start()
        sweeper.join(20)
        assert swept == [1_200]
        assert backend.status().revision == before + 3
        with backend.watch("/", recursive=True, after_revision=before) as watch:
            sizes = []
            while (batch := watch.poll(0)) is not None:
                sizes.append(len(batch.events))
        assert sizes == [500, 500, 200]
