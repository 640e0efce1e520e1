"""Is there an order of a key's operations that explains all answers? (Wing and Gong's search, with
Lowe's memory.)"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import attrs

from revstore.testing.history import Operation, OperationType

__all__ = ["Verdict", "linearizable", "linearizable_key"]

#: A key's revision and value; revision 0: there is none.
_State: TypeAlias = tuple[int, bytes]
_ABSENT: _State = (0, b"")


class Verdict(enum.StrEnum):
    """UNKNOWN: the search was given up, so that nothing is shown either way."""

    LEGAL = "legal"
    ILLEGAL = "illegal"
    UNKNOWN = "unknown"


@attrs.frozen
class _Call:
    operation: Operation
    #: The write's revision, also if its answer never came but its value was seen.
    revision: int


def linearizable(
    operations: Iterable[Operation],
    *,
    initial: dict[str, _State] | None = None,
    budget: int = 10**6,
) -> dict[str, Verdict]:
    """Return the verdict for each key.

    ``initial`` has the values of keys before the first operation; ``budget`` limits the steps of
    the search for one key.
    """
    keys: dict[str, list[Operation]] = {}
    for operation in operations:
        keys.setdefault(operation.key, []).append(operation)
    states = initial or {}
    return {
        key: linearizable_key(found, initial=states.get(key, _ABSENT), budget=budget)
        for key, found in sorted(keys.items())
    }


def linearizable_key(
    operations: Sequence[Operation], *, initial: _State = _ABSENT, budget: int = 10**6
) -> Verdict:
    """Return the verdict for the operations of one key. Each write must have a different value."""
    seen = _revisions_seen(operations)
    calls = [
        _Call(each, each.revision if each.succeeded else seen.get(each.value, 0))
        for each in operations
        if not _idle(each, seen)
    ]
    return _search(sorted(calls, key=lambda call: call.operation.start), initial, budget)


def _revisions_seen(operations: Iterable[Operation]) -> dict[bytes, int]:
    """Return the revisions of values that somebody has seen."""
    return {
        each.current.value: each.current.revision
        for each in operations
        if each.current is not None and each.current.value
    }


def _idle(operation: Operation, seen: dict[bytes, int]) -> bool:
    """Return whether this is a write that may have landed, but whose value nobody saw.

    It can only have been the last one, since a write over it must name its revision. It explains
    nothing.
    """
    is_put = operation.type is OperationType.PUT
    return is_put and operation.succeeded is None and operation.value not in seen


def _search(calls: Sequence[_Call], initial: _State, budget: int) -> Verdict:
    """Search depth first.

    The calls before ``base`` have taken effect or never will. From there on, ``done`` has a bit for
    each call that has taken effect.
    """
    must = sum(1 << at for at, call in enumerate(calls) if call.operation.end < math.inf)
    visited: set[tuple[int, int, _State]] = set()
    stack: list[tuple[int, int, _State]] = [(0, 0, initial)]
    while stack:
        base, done, state = stack.pop()
        while done & 1:
            base, done = base + 1, done >> 1
        if not (must >> base) & ~done:
            return Verdict.LEGAL
        if (base, done, state) in visited:
            continue
        visited.add((base, done, state))
        budget -= 1
        if budget < 0:
            return Verdict.UNKNOWN
        stack.extend(_steps(calls, base, done, state))
    return Verdict.ILLEGAL


def _steps(
    calls: Sequence[_Call], base: int, done: int, state: _State
) -> list[tuple[int, int, _State]]:
    """Return what may come next: a call that began before every outstanding one had ended."""
    found = []
    first_end = math.inf
    for at in range(base, len(calls)):
        call, bit = calls[at], 1 << (at - base)
        if done & bit:
            continue
        if call.operation.start > first_end:
            break
        first_end = min(first_end, call.operation.end)
        after = _apply(call, state)
        if after is not None:
            found.append((base, done | bit, after))
    # The operation that began first is the likeliest to come next; it is popped first.
    found.reverse()
    return found


def _apply(call: _Call, state: _State) -> _State | None:
    """Return the state after the call, None if its answer is impossible in this state."""
    operation = call.operation
    shown = _ABSENT if operation.current is None else _shown(operation)
    if operation.type is OperationType.GET or operation.succeeded is False:
        if shown != state:
            return None
        refused = operation.type is not OperationType.GET
        return None if refused and operation.expected_revision == state[0] else state
    if operation.expected_revision != state[0]:
        return None
    if operation.type is OperationType.PUT:
        return call.revision, operation.value
    if operation.succeeded and shown != state:
        return None
    return None if state == _ABSENT else _ABSENT


def _shown(operation: Operation) -> _State:
    assert operation.current is not None
    return operation.current.revision, operation.current.value
