"""The choice between cache and store for a list. (delegator.ShouldDelegateList; DELEG-1 to
DELEG-9)"""

from __future__ import annotations

import msgspec

from revstore.plans import ListPlan

__all__ = ["CURRENT", "Horizon", "serve_list"]

#: A revision to wait for: that of the store at the time of the call.
CURRENT = -1


class Horizon(msgspec.Struct, frozen=True):
    """The states that a cache can show: those from ``floor`` to ``revision``, once it is ``ready``.
    With ``progress`` it soon reaches newer ones, even if nothing changes."""

    floor: int
    revision: int
    ready: bool = True
    progress: bool = True


def serve_list(
    plan: ListPlan, horizon: Horizon, *, recursive: bool, plain_page: bool
) -> int | None:
    """Return the revision that the cache must show before it may answer a list.

    0 means any revision, ``CURRENT`` the store's own, and None that the store must answer.
    ``plain_page``: the list has a limit and no selector.
    """
    if not horizon.ready and plain_page:
        return None  # CACHE-9
    if plan.revision:
        return _serve_exact(plan.revision, horizon, recursive=recursive)
    if plan.any_state:
        return 0  # DELEG-2
    if plan.minimum:
        return plan.minimum  # DELEG-3
    if horizon.progress or not horizon.ready:
        return CURRENT  # DELEG-1, DELEG-8
    return None


def _serve_exact(revision: int, horizon: Horizon, *, recursive: bool) -> int | None:
    """Decide for a list at an exact revision, and for further pages. (DELEG-4 to DELEG-7,
    DELEG-9)"""
    if not recursive or (horizon.ready and revision < horizon.floor):
        return None
    if revision <= horizon.revision:
        return 0
    if horizon.progress or not horizon.ready:
        return revision
    return None
