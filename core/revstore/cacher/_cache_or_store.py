"""May the cache answer? (delegator.ShouldDelegateList; catalogue section 9.3)"""

from __future__ import annotations

import enum

import attrs

from revstore.plans import ListPlan

__all__ = ["CURRENT", "Decision", "Horizon", "Source", "serve_list"]

#: A revision to wait for: that of the store at the time of the call.
CURRENT = -1


class Source(enum.Enum):
    """Who answers."""

    CACHE = "cache"
    STORE = "store"


@attrs.frozen
class Decision:
    """``wait_for``: the revision that the cache must show first; 0: none, or ``CURRENT``."""

    source: Source
    wait_for: int = 0


@attrs.frozen
class Horizon:
    """What a cache can show: states from ``floor`` to ``revision``, once it is ``ready``; with
    ``progress`` it gets to newer ones in a moment, also if nothing changes."""

    floor: int
    revision: int
    ready: bool = True
    progress: bool = True


_STORE = Decision(Source.STORE)


def serve_list(plan: ListPlan, horizon: Horizon, *, recursive: bool, plain_page: bool) -> Decision:
    """Who answers a list; ``plain_page``: it has a limit and no selector."""
    if not horizon.ready and plain_page:
        return _STORE  # CACHE-9
    if plan.revision:
        return _serve_exact(plan.revision, horizon, recursive=recursive)
    if plan.any_state:
        return Decision(Source.CACHE)  # DELEG-2
    if plan.minimum:
        return Decision(Source.CACHE, plan.minimum)  # DELEG-3
    if horizon.progress or not horizon.ready:
        return Decision(Source.CACHE, CURRENT)  # DELEG-1, DELEG-8
    return _STORE


def _serve_exact(revision: int, horizon: Horizon, *, recursive: bool) -> Decision:
    """Also for the pages of a list that goes on. (DELEG-4 to DELEG-7, DELEG-9)"""
    if not recursive or (horizon.ready and revision < horizon.floor):
        return _STORE
    if revision <= horizon.revision:
        return Decision(Source.CACHE)
    if horizon.progress or not horizon.ready:
        return Decision(Source.CACHE, revision)
    return _STORE
