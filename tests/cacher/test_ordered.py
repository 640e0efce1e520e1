"""The trees that hold a cache's objects in order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revstore.cacher import _ordered
from revstore.cacher._ordered import Range, Tree, below, extend, put, remove

NAMES = ("", "d", "d/e", "f", "\xe9", "\U0001f600")
KEYS = [f"/{a}/{b}" for a in ("a", "b", "b0", "c") for b in NAMES]
PREFIXES = ["/", "/a/", "/b/", "/b/d/", "/c/", "/nobody/"]


@pytest.fixture(autouse=True)
def small_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ordered, "_MOST", 3)
    monkeypatch.setattr(_ordered, "_COPIED", 2)
    monkeypatch.setattr(_ordered, "_DENSE", 2)


def pairs(found: Range[Any]) -> list[tuple[str, Any]]:
    return list(zip(found.keys, found.objects, strict=True))


def expected(model: dict[str, Any], prefix: str, start: str = "") -> list[tuple[str, Any]]:
    return sorted(each for each in model.items() if each[0].startswith(prefix) and each[0] >= start)


def contents(tree: Tree[Any] | None) -> list[tuple[str, Any]]:
    return pairs(below(tree, "/"))


steps = st.lists(st.tuples(st.sampled_from(["put", "remove", "share"]), st.sampled_from(KEYS)))


@given(steps)
def test_a_tree_is_a_dict_in_order_and_what_was_shared_stays(steps: list[tuple[str, str]]) -> None:
    tree: Tree[int] | None = None
    model: dict[str, int] = {}
    owner = object()
    shared: list[tuple[Tree[int] | None, Range[int], list[tuple[str, int]]]] = []
    for number, (step, key) in enumerate(steps):
        if step == "put":
            tree = put(tree, key, number, owner)
            model[key] = number
        elif step == "remove" and tree is not None:
            tree = remove(tree, key, owner)
            model.pop(key, None)
        else:
            shared.append((tree, below(tree, "/"), sorted(model.items())))
            owner = object()
        assert contents(tree) == sorted(model.items())
    for before, found, then in shared:
        assert contents(before) == then
        assert pairs(found) == then


@given(
    st.dictionaries(st.sampled_from(KEYS), st.integers()),
    st.sampled_from(PREFIXES),
    st.sampled_from(["", *KEYS]),
    st.integers(0, 8),
    st.integers(1, 8),
)
def test_a_part_is_what_lies_below_a_prefix(
    model: dict[str, int], prefix: str, start: str, limit: int, at_once: int
) -> None:
    tree: Tree[int] | None = None
    keys = sorted(model)
    for begin in range(0, len(keys), at_once):
        some = keys[begin : begin + at_once]
        tree = extend(tree, some, [model[key] for key in some], None)
    wanted = expected(model, prefix, start)
    found = below(tree, prefix, start, limit)
    assert pairs(found) == (wanted[:limit] if limit else wanted)
    assert found.more == len(wanted) - len(found.objects)
    assert list(below(tree, prefix, start, limit, named=False).objects) == list(found.objects)


@given(st.dictionaries(st.sampled_from(KEYS), st.booleans()), st.sampled_from(PREFIXES))
def test_some_objects_are_picked_by_their_keys(model: dict[str, bool], prefix: str) -> None:
    everything: Tree[str] | None = None
    keys: Tree[None] | None = None
    for key, chosen in model.items():
        everything = put(everything, key, f"object at {key}", None)
        if chosen:
            keys = put(keys, key, None, None)
    picked = below(everything, prefix).pick(below(keys, prefix))
    chosen_ones = {key: f"object at {key}" for key, chosen in model.items() if chosen}
    assert pairs(picked) == expected(chosen_ones, prefix)
