"""Two sequences of keys, compared page by page, however each is cut into pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from revstore.memory import MemoryBackend
from revstore.operations import Progress, verify
from revstore.operations._compare import Side, differences
from revstore.operations._file import Record

Content = dict[str, tuple[bytes, float | None]]

VALUES = st.tuples(st.sampled_from([b"", b"a", b"b"]), st.sampled_from([None, None, None, 9.0]))
STORES = st.dictionaries(st.sampled_from("abcdefghijkl"), VALUES)


def side(content: Content, cuts: list[int]) -> Side:
    """The content in pages whose sizes are ``cuts``, again and again."""
    records = [Record(key, value, ttl=ttl) for key, (value, ttl) in sorted(content.items())]

    def pages() -> Iterator[Sequence[Record]]:
        at = turn = 0
        while at < len(records):
            size = cuts[turn % len(cuts)]
            yield records[at : at + size]
            at, turn = at + size, turn + 1

    return in_pages(pages())


def in_pages(pages: Iterator[Sequence[Record]]) -> Side:
    return Side(pages, lambda each: each.ttl is not None, lambda each: each)


CUTS = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@given(STORES, STORES, st.booleans(), CUTS, CUTS)
def test_each_difference_is_found_once(ours, theirs, same, cuts, other_cuts):
    if same:
        theirs = {**ours, **dict(list(theirs.items())[:1])}
    equal: list[int] = []
    found = list(differences(side(ours, cuts), side(theirs, other_cuts), on_equal=equal.append))

    expected = {}
    for key in ours.keys() | theirs.keys():
        if key not in theirs:
            expected[key] = "missing"
        elif key not in ours:
            expected[key] = "extra"
        elif ours[key] != theirs[key]:
            expected[key] = "value" if ours[key][0] != theirs[key][0] else "ttl"
    keys = [(left or right).key for _, left, right in found]
    assert {key: what for key, (what, *_) in zip(keys, found, strict=True) if what} == expected
    assert len(keys) + sum(equal) == len(ours.keys() | theirs.keys())
    expiring = {key for one in (ours, theirs) for key, (_, ttl) in one.items() if ttl is not None}
    assert expiring <= set(keys)


def test_a_page_of_each_is_read_at_a_time():
    """So memory does not grow with the stores."""
    read = [0, 0]

    def pages(which: int) -> Iterator[Sequence[Record]]:
        for number in range(50):
            read[which] = number + 1
            assert abs(read[0] - read[1]) <= 1
            yield [Record(f"{number:02}", b"v" if which or number % 7 else b"w")]

    both = [
        Side(pages(which), lambda each: each.ttl is not None, lambda each: each) for which in (0, 1)
    ]
    assert [left.key for what, left, _ in differences(*both) if left and what == "value"] == [
        f"{number:02}" for number in range(0, 50, 7)
    ]


def test_every_key_is_counted():
    left, right = MemoryBackend(), MemoryBackend()
    for number in range(40):
        left.put(f"/{number:02}", b"v", expected_revision=0, ttl=100 * (number % 9 == 3))
        right.put(f"/{number:02}", b"v", expected_revision=0, ttl=100 * (number % 9 == 3))
    right.put("/40", b"v", expected_revision=0)
    seen: list[Progress] = []
    result = verify(left, right, on_progress=seen.append)

    assert (result.keys, result.different) == (41, 1)
    assert (seen[-1].done, seen[-1].total) == (41, 41)
