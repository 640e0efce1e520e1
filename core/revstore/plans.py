"""Pure functions that interpret the arguments of a list or watch."""

from __future__ import annotations

import msgspec

from revstore.continue_token import decode_continue
from revstore.deadlines import check_count
from revstore.errors import InvalidArgument
from revstore.versioner import parse_resource_version

__all__ = ["ListPlan", "WatchPlan", "plan_list", "plan_watch"]


class ListPlan(msgspec.Struct, frozen=True):
    """A read to make: the state at ``revision`` (0: the latest), from the key ``start`` on ("": the
    first key). The read is refused if the store has not reached ``minimum``. ``any_state`` allows
    a state that lags."""

    revision: int = 0
    minimum: int = 0
    start: str = ""
    any_state: bool = False


def plan_list(
    prefix: str,
    *,
    recursive: bool,
    resource_version: str,
    resource_version_match: str,
    limit: int,
    continue_token: str,
) -> ListPlan:
    """Return the plan for these arguments of a list (storage.ValidateListOptions; LISTRV-1 to 16).

    Raises:
        InvalidArgument: ``limit`` is no whole number from 0 to 2^63 - 1, ``resource_version_match``
            is unknown, or ``resource_version`` is neither "" nor "0" beside a ``continue_token``.
        InvalidContinueToken: ``continue_token`` is not that of a list of ``prefix``.
        InvalidResourceVersion: ``resource_version`` is not a number.
    """
    check_count("limit", limit, 0)
    if recursive and continue_token:
        token = decode_continue(continue_token, prefix)
        if resource_version not in ("", "0"):
            raise InvalidArgument(
                "resourceVersion",
                resource_version,
                "none",
                message="specifying resource version is not allowed when using continue",
            )
        return ListPlan(revision=max(token.revision, 0), start=token.start)
    if not resource_version:
        return ListPlan()
    wanted = parse_resource_version(resource_version)
    latest = ListPlan(minimum=wanted, any_state=wanted == 0)
    exact = ListPlan(revision=wanted, minimum=wanted, any_state=wanted == 0)
    match resource_version_match:
        case "NotOlderThan":
            return latest
        case "Exact":
            return exact
        case "":
            return exact if recursive and limit else latest
    raise InvalidArgument(
        "resourceVersionMatch",
        resource_version_match,
        '"", "Exact" or "NotOlderThan"',
        message=f"unknown resourceVersionMatch value: {resource_version_match!r}",
    )


class WatchPlan(msgspec.Struct, frozen=True):
    """The plan for the beginning of a watch.

    With ``initial`` it begins with all objects of a state not older than ``revision``, else with
    the changes after ``revision``, where 0 is now. ``latest``: no resource version was given, and
    the watch begins at the revision that the store has at the time of the call. ``end_bookmark``: a
    bookmark ends the initial events. ``periodic``: later bookmarks may report the revision;
    ``progress``: they must.
    """

    revision: int
    initial: bool
    latest: bool = False
    end_bookmark: bool = False
    periodic: bool = False
    progress: bool = False

    @property
    def needs_empty_object(self) -> bool:
        """True if bookmarks are certain to come."""
        return self.end_bookmark or self.progress


def plan_watch(
    *,
    resource_version: str,
    send_initial_events: bool | None,
    allow_bookmarks: bool,
    progress_notify: bool,
) -> WatchPlan:
    """Return the plan for arguments of a watch (cacher.Watch, etcd3.Watch; WATCH-1 to WATCH-4).

    Raises:
        InvalidResourceVersion: ``resource_version`` is not a number.
    """
    revision = parse_resource_version(resource_version)
    return WatchPlan(
        revision,
        initial=not revision if send_initial_events is None else send_initial_events,
        latest=not resource_version,
        end_bookmark=bool(send_initial_events) and allow_bookmarks,
        periodic=allow_bookmarks,
        progress=progress_notify,
    )
