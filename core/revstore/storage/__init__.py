"""The contract of typed storage: what a raw store and a cached one both offer (storage.Interface).

Keys here are *logical*: "/pods/default/web". A storage adds the configured prefix by itself and
accepts only keys under its resource prefix. Every method may be called from many threads.

*Resource versions* are opaque decimal strings to users, "" standing for none. They compare by
equality only, and only within one store. *Revisions*, where a name says so, are the integers
behind them.

*Objects* that come back may be shared with other readers: frozen ones are, mutable ones are copies
that the caller owns (see ``revstore.copier``). An object passed in is never changed.

*Errors* of every method, besides those it lists: ``InvalidKey`` for a key that is empty, has a
segment "", "." or "..", or lies outside the resource prefix, raised before any other argument is
looked at; ``Closed``; and the backend's ``Unreachable``, ``Timeout``, ``AccessDenied``,
``IncompatibleStore`` and ``CorruptStore``, of writes also ``OutcomeUnknown``, ``NoSpace``,
``ReadOnly`` and ``ValueTooLarge``. A call that raises has changed nothing, ``OutcomeUnknown``
excepted. ``timeout`` is in seconds for the whole call; None is the backend's own default.
"""

from __future__ import annotations

from revstore.storage._contract import (
    INITIAL_EVENTS_END,
    Change,
    ChangeBatch,
    Changes,
    Event,
    EventType,
    ObjectList,
    ResponseMeta,
    Stats,
    Storage,
    UpdateFunc,
    ValidateFunc,
    Watch,
    WithTTL,
)

__all__ = [
    "INITIAL_EVENTS_END",
    "Change",
    "ChangeBatch",
    "Changes",
    "Event",
    "EventType",
    "ObjectList",
    "ResponseMeta",
    "Stats",
    "Storage",
    "UpdateFunc",
    "ValidateFunc",
    "Watch",
    "WithTTL",
]
