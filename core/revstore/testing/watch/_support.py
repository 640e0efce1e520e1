"""Helper functions of the watch suites."""

from __future__ import annotations

import time
from collections.abc import Callable

from revstore.storage import ChangeBatch, Changes, Event, EventType, Watch
from revstore.testing._support import PATIENCE
from revstore.testing.storage._parts import Pod, name_of

__all__ = ["Short", "gather", "gather_changes", "gather_until", "short"]

#: type, name, node
Short = tuple[str, str, str]


def gather_until(
    watch: Watch[Pod],
    done: Callable[[list[Event[Pod]]], bool],
    patience: float = PATIENCE,
) -> list[Event[Pod]]:
    """Poll until ``done(all events so far)``, and check that each event has its object's
    version."""
    deadline = time.monotonic() + patience
    events: list[Event[Pod]] = []
    while not done(events):
        found = watch.poll(max(0.0, deadline - time.monotonic()))
        assert found is not None, f"not within {patience} s; so far {short(events)}"
        for event in found:
            if event.error is None:
                assert event.resource_version == event.object.metadata.resource_version
        events += found
    return events


def gather(watch: Watch[Pod], count: int, patience: float = PATIENCE) -> list[Event[Pod]]:
    """Poll until there are ``count`` events. More than that in the last answer are an error."""
    events = gather_until(watch, lambda found: len(found) >= count, patience)
    assert len(events) == count, f"more than {count}: {short(events)}"
    return events


def short(events: list[Event[Pod]]) -> list[Short]:
    """Return the parts of an event that most tests compare. For an unreadable object the node is
    "?"."""
    return [
        (
            event.type.value,
            "" if event.type is EventType.BOOKMARK else name_of(event.object),
            event.object.spec.node_name,
        )
        if event.error is None
        else (event.type.value, event.error.key.rsplit("/", 1)[-1], "?")
        for event in events
    ]


def gather_changes(
    changes: Changes[Pod],
    done: Callable[[list[ChangeBatch[Pod]]], bool],
    patience: float = PATIENCE,
) -> list[ChangeBatch[Pod]]:
    """Poll a feed until ``done(all batches so far)``, and check that revisions never fall."""
    deadline = time.monotonic() + patience
    batches: list[ChangeBatch[Pod]] = []
    while not done(batches):
        batch = changes.poll(max(0.0, deadline - time.monotonic()))
        assert batch is not None, f"not within {patience} s; so far {batches}"
        assert not batches or batch.revision >= batches[-1].revision
        assert all(change.revision <= batch.revision for change in batch.changes)
        batches.append(batch)
    return batches
