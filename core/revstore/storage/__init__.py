"""The contract of typed storage, which raw and cached storages fulfil (storage.Interface).

Keys here are *logical*: "/pods/default/web". A storage adds the configured prefix by itself and
accepts only keys under its resource prefix. Every method may be called from many threads.

*Resource versions* are opaque decimal strings to users; "" means none. Compare them only for
equality, and only within one store. *Revisions*, where a name says so, are the integers behind
them.

*Objects* that are returned may be shared with other readers: frozen ones are shared, mutable ones
are copies that the caller owns (see ``revstore.copier``). An object passed in is never changed.

*Errors* of every method, besides those it lists: ``InvalidKey`` for a key that is empty, has a
segment "", "." or "..", or is not under the resource prefix, raised before any other argument is
checked; ``Closed``; and the backend's ``Unreachable``, ``Timeout``, ``AccessDenied``,
``IncompatibleStore`` and ``CorruptStore``, for writes also ``OutcomeUnknown``, ``NoSpace``,
``ReadOnly`` and ``ValueTooLarge``. A call that raises has changed nothing, except with
``OutcomeUnknown``. ``timeout`` is in seconds for the whole call; None is the backend's own default.
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
