"""Which state a list asks for."""

from __future__ import annotations

import attrs

from revstore.errors import InvalidArgument
from revstore.paging import decode_continue
from revstore.versioner import parse_resource_version

__all__ = ["ListPlan", "plan_list"]


@attrs.frozen
class ListPlan:
    """What to read: the state at ``revision`` (0: the latest), refused if the store is not at
    ``minimum`` yet, from the key ``start`` on ("" for the first). ``any_state`` allows one that
    lags."""

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
    """What the arguments of a list ask for (storage.ValidateListOptions; LISTRV-1 to 16)."""
    if limit < 0:
        raise InvalidArgument("limit", limit, "0 or more")
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
