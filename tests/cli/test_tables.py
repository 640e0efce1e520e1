"""Columns: short ages, and cells for objects of any shape."""

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revstore.cli._cells import human_age
from revstore.cli._columns import columns_of
from revstore.cli._table import plain_lines, printable
from revstore.kinds import KINDS, ResourceInfo, lookup

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("seconds", "age"),
    [
        (-60, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (312, "5m12s"),
        (601, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 90, "3h1m"),
        (9 * 3600 + 90, "9h"),
        (49 * 3600, "2d1h"),
        (10 * 86400, "10d"),
        (800 * 86400, "2y70d"),
        (3000 * 86400, "8y"),
    ],
)
def test_ages_are_short(seconds, age):
    """As kubectl shortens them: two units while the larger is small."""
    then = (NOW - datetime.timedelta(seconds=seconds)).isoformat()

    assert age == human_age(then, NOW)
    assert human_age(then.replace("+00:00", "Z"), NOW) == age


@pytest.mark.parametrize("then", [None, "", "yesterday", 5, [], "2026-01-01T00:00:00"])
def test_an_age_that_is_not_known(then):
    """Whatever stands in creationTimestamp does not break a table."""
    assert human_age(then, NOW) == "<unknown>"


NAMES = [
    *("containers", "ports", "port", "selector", "matchLabels", "template", "spec", "name"),
    *("conditions", "containerStatuses", "type", "ready", "loadBalancer", "ingress", "active"),
]
FIELDS = [
    *("spec", "status", "data", "roleRef", "subjects", "subsets", "secrets", "type"),
    "stringData",
]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), values))
def test_every_kind_has_cells_for_any_object(info, obj):
    """Objects are stored as they come: no shape of theirs makes a column fail."""
    for column in columns_of(info, wide=True, labels=True):
        assert isinstance(column.cell(obj, NOW), str)


def test_columns_of_kinds():
    """Known kinds have columns of their own, foreign ones of the same name have not."""

    def titles(info, **options):
        return [
            column.title
            for column in columns_of(info, **{"wide": False, "labels": False} | options)
        ]

    assert titles(lookup("svc")) == ["TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]
    assert titles(lookup("svc"), wide=True)[-2:] == ["SELECTOR", "LABELS"]
    assert titles(lookup("pods"), labels=True)[-2:] == ["AGE", "LABELS"]
    assert titles(ResourceInfo("services", "Service", "serving.knative.dev")) == ["AGE"]


@given(st.lists(st.lists(st.text(max_size=5), min_size=3, max_size=3), min_size=1, max_size=5))
def test_rows_are_one_line_each_and_aligned(rows):
    """Printable cells, whatever was stored, give one line a row."""
    lines = plain_lines([[printable(cell) for cell in row] for row in rows])

    assert len(lines) == len(rows)
    assert all(line.isprintable() for line in lines)
