"""Who answers a list: DELEG-1 to DELEG-12 as a table."""

from __future__ import annotations

import pytest

from revstore.cacher._cache_or_store import CURRENT, Horizon, serve_list
from revstore.continue_token import encode_continue
from revstore.plans import plan_list

CACHE = 0
STORE = None

#: The log reaches back to revision 50, the cache shows 100. P: progress is supported.
P = Horizon(50, 100)
NO_P = Horizon(50, 100, progress=False)
NOT_READY = Horizon(0, 0, ready=False)

ROWS = [
    # row, horizon, arguments, decision
    ("DELEG-1", P, {}, CURRENT),
    ("DELEG-1", P, {"limit": 5}, CURRENT),
    ("DELEG-1", P, {"recursive": False}, CURRENT),
    ("DELEG-1", NO_P, {}, STORE),
    ("DELEG-2", NO_P, {"resource_version": "0"}, CACHE),
    ("DELEG-2", P, {"resource_version": "0", "limit": 5}, CACHE),
    ("DELEG-2", P, {"resource_version": "0", "resource_version_match": "NotOlderThan"}, CACHE),
    ("DELEG-3", NO_P, {"resource_version": "200"}, 200),
    ("DELEG-3", P, {"resource_version": "60"}, 60),
    (
        "DELEG-3",
        P,
        {"resource_version": "60", "resource_version_match": "NotOlderThan", "limit": 5},
        60,
    ),
    (
        "DELEG-4",
        P,
        {"resource_version": "60", "resource_version_match": "Exact", "recursive": False},
        STORE,
    ),
    ("DELEG-4", P, {"resource_version": "60", "limit": 5}, CACHE),
    ("DELEG-5", NO_P, {"resource_version": "60", "resource_version_match": "Exact"}, CACHE),
    ("DELEG-5", P, {"resource_version": "50", "resource_version_match": "Exact"}, CACHE),
    ("DELEG-5", P, {"resource_version": "49", "resource_version_match": "Exact"}, STORE),
    ("DELEG-6", P, {"resource_version": "200", "resource_version_match": "Exact"}, 200),
    ("DELEG-6", NO_P, {"resource_version": "200", "resource_version_match": "Exact"}, STORE),
    ("DELEG-7", P, {"token": 60}, CACHE),
    ("DELEG-7", P, {"token": 40}, STORE),
    ("DELEG-7", P, {"token": 200}, 200),
    ("DELEG-8", P, {"token": -1}, CURRENT),
    ("DELEG-8", NO_P, {"token": -1}, STORE),
    ("CACHE-9", NOT_READY, {"limit": 5}, STORE),
    ("CACHE-9", NOT_READY, {"limit": 5, "selector": True}, CURRENT),
    ("CACHE-9", NOT_READY, {}, CURRENT),
    ("CACHE-9", NOT_READY, {"resource_version": "0"}, CACHE),
    ("CACHE-9", NOT_READY, {"resource_version": "7"}, 7),
    (
        "CACHE-9",
        NOT_READY,
        {"resource_version": "7", "resource_version_match": "Exact"},
        7,
    ),
]


@pytest.mark.parametrize(("row", "horizon", "asked", "decision"), ROWS)
def test_who_answers(row, horizon, asked, decision):
    """DELEG-1 to DELEG-8, CACHE-9; DELEG-9 and DELEG-11 never come so far."""
    asked = dict(asked)
    token, selector = asked.pop("token", 0), asked.pop("selector", False)
    recursive = asked.pop("recursive", True)
    plan = plan_list(
        "/pods/" if recursive else "/pods/a",
        recursive=recursive,
        continue_token=encode_continue("/pods/x\0", "/pods/", token) if token else "",
        **{"resource_version": "", "resource_version_match": "", "limit": 0, **asked},
    )
    plain = asked.get("limit", 0) > 0 and not selector
    assert serve_list(plan, horizon, recursive=recursive, plain_page=plain) == decision, row
