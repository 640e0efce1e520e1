"""What the arguments of a watch ask for, as a table."""

from __future__ import annotations

import pytest

from revstore.errors import InvalidResourceVersion
from revstore.plans import WatchPlan, plan_watch


@pytest.mark.parametrize(
    ("version", "send", "plan"),
    [
        ("", None, WatchPlan(0, initial=True, latest=True)),
        ("0", None, WatchPlan(0, initial=True)),
        ("00", None, WatchPlan(0, initial=True)),
        ("7", None, WatchPlan(7, initial=False)),
        ("", True, WatchPlan(0, initial=True, latest=True)),
        ("0", True, WatchPlan(0, initial=True)),
        ("7", True, WatchPlan(7, initial=True)),
        ("", False, WatchPlan(0, initial=False, latest=True)),
        ("0", False, WatchPlan(0, initial=False)),
        ("7", False, WatchPlan(7, initial=False)),
    ],
)
def test_how_a_watch_begins(version: str, send: bool | None, plan: WatchPlan) -> None:
    """WATCH-1 to WATCH-4: a version other than 0 begins with changes, unless initial events are
    asked for; without one, the store's revision at the time of the call counts."""
    assert plan == plan_watch(
        resource_version=version,
        send_initial_events=send,
        allow_bookmarks=False,
        progress_notify=False,
    )


@pytest.mark.parametrize("send", [None, False, True])
@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize("progress", [False, True])
@pytest.mark.parametrize("version", ["", "0", "7"])
def test_which_bookmarks_come(version: str, progress: bool, allow: bool, send: bool | None) -> None:
    """WATCH-16: the end of the initial events is marked only if both are asked for by name."""
    plan = plan_watch(
        resource_version=version,
        send_initial_events=send,
        allow_bookmarks=allow,
        progress_notify=progress,
    )

    assert plan.end_bookmark is (allow and send is True)
    assert (plan.periodic, plan.progress) == (allow, progress)
    assert plan.needs_empty_object is (plan.end_bookmark or progress)


@pytest.mark.parametrize("version", ["-1", "x", "1.0", " 1", str(2**64)])
def test_a_bad_version_of_a_watch(version: str) -> None:
    """WATCH-2: refused before anything is opened."""
    with pytest.raises(InvalidResourceVersion):
        plan_watch(
            resource_version=version,
            send_initial_events=None,
            allow_bookmarks=False,
            progress_notify=False,
        )
