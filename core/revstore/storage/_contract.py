"""What a raw storage and a cached one both offer (storage.Interface)."""

from __future__ import annotations

import abc
import enum
from collections.abc import Callable, Iterator
from typing import Any, Generic, Literal, TypeAlias, TypeVar, overload

import attrs
import msgspec

from revstore.closing import Closing
from revstore.errors import Closed, CorruptObject, Unsupported
from revstore.objects import metadata_value
from revstore.preconditions import Preconditions
from revstore.selectors import FieldSelector, LabelSelector

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

T = TypeVar("T")

#: The annotation on the bookmark that ends the initial events of a watch.
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


class EventType(enum.StrEnum):
    """What happened to an object (watch.EventType). A BOOKMARK carries only a resource version.

    ERROR: the object cannot be read now. It comes only with ``even_if_corrupt``, and the watch
    goes on.
    """

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    ERROR = "ERROR"


# msgspec instead of attrs for what exists once per event and watcher: made four times as fast.
class Event(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """One thing a watch tells (watch.Event).

    ``object`` of a DELETED event is the last content, at the deletion's resource version, or, if an
    update made the object leave the selector, the content before, at the update's version; of a
    BOOKMARK it is an empty object with metadata only. ``resource_version`` is the object's.

    ``error`` is None but for an object that cannot be read, which a watch shows only if it was
    opened with ``even_if_corrupt``. ``object`` is None then: of an ERROR, and of a DELETED whose
    last content could not be read. ``error.key`` names the object.
    """

    type: EventType
    object: T
    resource_version: str
    error: CorruptObject | None = None

    @classmethod
    def unreadable(cls, kind: EventType, error: CorruptObject, revision: int) -> Event[T]:
        """Return the ERROR or DELETED event about an object that cannot, or could not, be read."""
        nothing: Any = None
        return cls(kind, nothing, str(revision), error)

    @property
    def initial_events_end(self) -> bool:
        """Whether this is the bookmark after the last initial event. (WATCH-16)"""
        if self.type is not EventType.BOOKMARK:
            return False
        annotations = metadata_value(self.object, "annotations") or {}
        return annotations.get(INITIAL_EVENTS_END) == "true"


@attrs.frozen(slots=True)
class ObjectList(Generic[T]):
    """An answer to ``list``: ``items`` in key order, all of the state at ``resource_version``.

    ``continue_token``, where not "", fetches the next page. ``remaining_item_count`` counts the
    objects after this page, readable or not; None on the last page and with selectors.

    ``errors`` has one ``CorruptObject`` for each object in the page's span of keys that cannot be
    read, in key order. Only a list with ``even_if_corrupt`` has any; others raise
    ``CorruptObjects``.
    """

    items: tuple[T, ...]
    resource_version: str
    continue_token: str = ""
    remaining_item_count: int | None = None
    errors: tuple[CorruptObject, ...] = ()

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> T:
        return self.items[index]


@attrs.frozen(slots=True)
class ResponseMeta:
    """What an update function learns about the stored object: its resource version, "" if there is
    none yet, and whether it expires (None: not known, as it is the suggestion)."""

    resource_version: str = ""
    expires: bool | None = False


@attrs.frozen(slots=True)
class WithTTL(Generic[T]):
    """What an update function returns to change the expiry too: 0 seconds removes it, n > 0
    restarts it."""

    object: T
    ttl: int


@attrs.frozen(slots=True)
class Stats:
    """``object_count`` is exact; ``average_size`` is the mean stored size in bytes of the first
    objects (up to 500), 0 if there are none."""

    object_count: int
    average_size: int


#: Makes the new object from the current one; see ``Storage.guaranteed_update``.
UpdateFunc: TypeAlias = Callable[[Any, ResponseMeta], Any]

#: Raises if the object it is given must not be deleted.
ValidateFunc: TypeAlias = Callable[[Any], None]


class Watch(Closing, Generic[T]):
    """A running watch.

    Events come in the order of their revisions, each once, none left out. Iteration ends normally
    only by ``close`` or when the watch's ``timeout`` has passed; any other end raises: ``Expired``
    (history needed for the rest is gone: list again), ``WatchClosed`` (nothing was lost: watch
    again from its ``resource_version``), ``CorruptObject`` (an object cannot be read; nothing
    after it is delivered; never with ``even_if_corrupt``), ``TooLargeResourceVersion``, or an error
    of the backend. After an error every later poll raises it again.

    One thread polls at a time; ``close`` may come from any.
    """

    __slots__ = ()

    @abc.abstractmethod
    def poll(self, timeout: float | None = None) -> tuple[Event[T], ...] | None:
        """Wait for the next events, at most ``timeout`` seconds; None if there were none.

        All events of one revision come in one answer, which may hold several revisions. 0 does not
        wait, None waits without end. Without a cache, None may also say that time was over among
        changes that a selector leaves out; ``resource_version`` tells how far the watch is. Raises
        ``Closed`` after ``close`` and once the watch's own ``timeout`` has passed. Without a cache
        the poll reads initial objects from the store, page by page, and that takes as long as it
        does for a list, whatever ``timeout`` says; ``close`` has its effect after it.
        """

    def on_readable(self, callback: Callable[[], None] | None) -> None:
        """Have ``callback`` called when a poll would find events, a due bookmark or the watch's
        end; so one thread serves many watches without polling each (see
        ``revstore.watch_selector`` and ``revstore.aio``).

        It is called once at once if a poll would find something now. After that every poll, also
        one that finds nothing, asks for another call: by the poll itself if it has left something
        behind, else when something comes. So one ``poll(0)`` a call misses nothing. It may be
        called once too often, never too seldom; bookmarks and the end of ``timeout`` may be told
        up to 1.5 s late. It comes from any thread, also from within ``poll``: it must return at
        once and call nothing of the storage; what it raises is logged. None takes it back.

        ``Unsupported`` where a watch cannot tell, as those of a storage without a cache: there,
        block a thread in ``poll``.
        """
        raise Unsupported("readable", "a watch without a cache cannot tell when it is readable")

    @property
    def callback(self) -> Callable[[], None] | None:
        """The callback that ``on_readable`` was given last, so that nobody takes the watch from
        another by mistake; None for a watch that cannot tell when it is readable."""
        return None

    @property
    @abc.abstractmethod
    def resource_version(self) -> str:
        """A watch from here goes on after all that ``poll`` has delivered, without gap and without
        repetition; "" while initial events are outstanding. Who leaves an iteration in the middle
        goes on from the version of the last event dealt with instead."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the watch; a poll that is blocked raises ``Closed`` at once. Idempotent, from any
        thread, never raises."""

    def __iter__(self) -> Iterator[Event[T]]:
        while True:
            try:
                events = self.poll()
            except Closed:
                return
            yield from events or ()


class Change(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """One change of one key, decoded when asked: ``load`` gives the new object, of a deletion the
    last one at the deletion's version; ``load_previous`` the one before, None if there was none.
    Both raise ``CorruptObject`` if the bytes cannot be read. ``size`` is that of the stored bytes.
    """

    type: EventType
    key: str
    revision: int
    size: int
    load: Callable[[], T]
    load_previous: Callable[[], T | None]


class ChangeBatch(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """All changes of one revision, in key order; without any it says that everything up to
    ``revision`` has been delivered.

    ``initial`` batches are pages of the state at ``revision`` that a feed begins with, in key
    order; the first batch that is not ``initial`` says that the state is whole.
    """

    revision: int
    changes: tuple[Change[T], ...] = ()
    initial: bool = False


class Changes(Closing, Generic[T]):
    """The feed of a cache: whole revisions in order, nothing filtered. Ends as ``Watch`` does, but
    an object that cannot be read does not end it."""

    @abc.abstractmethod
    def poll(self, timeout: float | None = None) -> ChangeBatch[T] | None:
        """The next batch within ``timeout`` seconds, else None; ``Closed`` after ``close``."""

    @property
    @abc.abstractmethod
    def revision(self) -> int:
        """Everything up to it has been delivered."""

    @abc.abstractmethod
    def request_progress(self) -> None:
        """Ask for a batch soon whose revision is at least that of every write acknowledged before
        this call. ``Unsupported`` where the backend cannot. (WATCH-20)"""

    @abc.abstractmethod
    def close(self) -> None:
        """As ``Watch.close``."""


class Storage(Closing, Generic[T]):
    """Objects of one type under one resource prefix. The rules for all methods stand in this
    module's docstring."""

    @abc.abstractmethod
    def create(self, key: str, obj: T, *, ttl: int = 0, timeout: float | None = None) -> T:
        """Store a new object; it comes back with its resource version.

        ``ttl`` in seconds, 0: for ever; the object is deleted some time after it has passed.
        Raises ``KeyExists``; ``ResourceVersionSet`` if ``obj`` has a resource version other than
        "" and "0"; ``InvalidObject`` if it has no metadata or cannot be encoded;
        ``Unsupported`` for a ttl on a backend without TTL; ``InternalError`` if the transformer
        fails. (CREATE-1 to CREATE-6; the caller's object is left alone, unlike CREATE-4)
        """

    @overload
    def get(
        self,
        key: str,
        *,
        resource_version: str = "",
        ignore_not_found: Literal[False] = False,
        timeout: float | None = None,
    ) -> T: ...

    @overload
    def get(
        self,
        key: str,
        *,
        resource_version: str = "",
        ignore_not_found: bool,
        timeout: float | None = None,
    ) -> T | None: ...

    @abc.abstractmethod
    def get(
        self,
        key: str,
        *,
        resource_version: str = "",
        ignore_not_found: bool = False,
        timeout: float | None = None,
    ) -> T | None:
        """The object under ``key``.

        ``resource_version`` "" asks for the latest; N for a state not older than N, never for N
        itself; "0" for any state. Raises ``KeyNotFound`` (None with ``ignore_not_found``),
        ``InvalidResourceVersion``, ``TooLargeResourceVersion`` if the store is not at N yet, which
        is looked at before the key is, and ``CorruptObject``. (GET-1 to GET-6)
        """

    @abc.abstractmethod
    def list(
        self,
        key: str,
        *,
        recursive: bool = True,
        resource_version: str = "",
        resource_version_match: str = "",
        label_selector: str | LabelSelector = "",
        field_selector: str | FieldSelector = "",
        limit: int = 0,
        continue_token: str = "",
        even_if_corrupt: bool = False,
        timeout: float | None = None,
    ) -> ObjectList[T]:
        """The objects below ``key``, or with ``recursive=False`` the one at ``key``, in key order.

        ==================  ==============  =====  ==============================================
        resource_version    match           limit  state shown
        ==================  ==============  =====  ==============================================
        ""                  any             any    the latest
        "0"                 any             any    any state
        N                   ""              0      not older than N
        N                   ""              > 0    exactly N (not recursive: not older than N)
        N                   "NotOlderThan"  any    not older than N
        N                   "Exact"         any    exactly N
        ==================  ==============  =====  ==============================================

        With ``limit`` the list comes in pages: pass ``continue_token`` of one for the next, with
        the same key and selectors and without a resource version; all pages show one state.
        Selectors are those of ``revstore.selectors``.

        ``even_if_corrupt`` lists what can be read, and gives the rest as ``errors`` of the answer:
        every unreadable object, whatever the selectors, as nobody knows whether they match it.

        Raises ``InvalidSelector``, ``InvalidResourceVersion``, ``InvalidContinueToken``,
        ``InvalidArgument`` (an unknown match, a negative limit, or a resource version with a
        token); ``TooLargeResourceVersion`` if the store is not at N yet; ``Expired`` if the state
        was compacted: its ``continue_token``, if there is one, gives the rest as it is now;
        ``CorruptObjects`` if objects cannot be read, unless ``even_if_corrupt``. (LISTRV-1 to 17,
        LIST-1 to LIST-25)
        """

    @overload
    def delete(
        self,
        key: str,
        *,
        preconditions: Preconditions | None = None,
        validate: ValidateFunc | None = None,
        suggestion: T | None = None,
        even_if_corrupt: Literal[False] = False,
        timeout: float | None = None,
    ) -> T: ...

    @overload
    def delete(
        self,
        key: str,
        *,
        preconditions: Preconditions | None = None,
        validate: ValidateFunc | None = None,
        suggestion: T | None = None,
        even_if_corrupt: bool,
        timeout: float | None = None,
    ) -> T | None: ...

    @abc.abstractmethod
    def delete(
        self,
        key: str,
        *,
        preconditions: Preconditions | None = None,
        validate: ValidateFunc | None = None,
        suggestion: T | None = None,
        even_if_corrupt: bool = False,
        timeout: float | None = None,
    ) -> T | None:
        """Delete the object; its last content comes back at the deletion's resource version.

        What is deleted is what ``preconditions`` and ``validate`` saw: if another write came
        between, both run again on the newer object. ``suggestion`` is a cached copy that may save
        a read; a stale one does no harm. ``validate`` may take its time and use the storage.
        Raises ``KeyNotFound``, ``PreconditionFailed``, whatever ``validate`` raises, and
        ``CorruptObject`` if the object cannot be read.

        ``even_if_corrupt`` deletes an object that cannot be read, and returns None; one that can
        be read raises ``PreconditionFailed``, and preconditions with it ``InvalidArgument``, since
        there is nothing to hold them against. (DEL-1 to DEL-13)
        """

    @abc.abstractmethod
    def guaranteed_update(
        self,
        key: str,
        update: UpdateFunc,
        *,
        ignore_not_found: bool = False,
        preconditions: Preconditions | None = None,
        suggestion: T | None = None,
        timeout: float | None = None,
    ) -> T:
        """Replace the object by what ``update(current, meta)`` makes of it, and return that.

        If another write came between, ``update`` is called again on the newer object, without a
        bound but ``timeout``; it must not rely on being called once, and may raise to give up.
        It returns the new object, or ``WithTTL`` to change the expiry too; else the expiry stays
        as it is. It may change the object it is given, if that is mutable. If neither stored
        bytes nor expiry would change, nothing is written. With ``ignore_not_found`` an absent
        object is passed as None, and what is returned is created.

        ``suggestion`` is a cached copy to begin with; a stale one costs a second call. Raises
        ``KeyNotFound``, ``PreconditionFailed``, whatever ``update`` raises, ``CorruptObject``,
        ``InvalidObject`` and ``InternalError`` as ``create``. (GU-1 to GU-18)
        """

    @abc.abstractmethod
    def watch(
        self,
        key: str,
        *,
        recursive: bool = True,
        resource_version: str = "",
        label_selector: str | LabelSelector = "",
        field_selector: str | FieldSelector = "",
        send_initial_events: bool | None = None,
        allow_bookmarks: bool = False,
        progress_notify: bool = False,
        even_if_corrupt: bool = False,
        timeout: float | None = None,
    ) -> Watch[T]:
        """Watch the objects below ``key``, or the one at ``key``.

        ================  ===================  ==================================================
        resource_version  send_initial_events  begins with
        ================  ===================  ==================================================
        "", "0"           None                 all objects as ADDED, in key order; then changes
        N                 None                 changes after N; a future N waits for them
        any               True                 all objects, of a state not older than N; changes
        "", "0"           False                changes from now on
        N                 False                changes after N
        ================  ===================  ==================================================

        With ``send_initial_events`` and ``allow_bookmarks`` a bookmark with the annotation
        ``k8s.io/initial-events-end`` follows the initial events; with ``progress_notify``
        bookmarks come from time to time while nothing changes. With a selector, an object that
        begins to match is ADDED, one that ceases to is DELETED. ``timeout`` is how long the watch
        runs, in seconds, None without end.

        With ``even_if_corrupt`` an object that cannot be read does not end the watch. It comes as
        an ERROR, whatever the selectors, each time that it is written so, and among the initial
        events. Once it can be read again it is ADDED if it matches. If it is deleted, or can be
        read again and does not match, it is DELETED, with ``error`` and without an object. So what
        events leave behind is what a list with ``even_if_corrupt`` shows.

        Raises ``InvalidSelector`` and ``InvalidResourceVersion``; all else is raised by the watch.
        (WATCH-1 to WATCH-29)
        """

    @abc.abstractmethod
    def changes(
        self, key: str, *, after: int | None = None, timeout: float | None = None
    ) -> Changes[T]:
        """The feed of a cache: every change below ``key`` with a revision above ``after``. With
        None it begins with the current state, in ``initial`` batches, which are there within
        ``timeout`` seconds, or a poll raises ``Timeout``."""

    @abc.abstractmethod
    def count(self, key: str, *, timeout: float | None = None) -> int:
        """How many keys there are below ``key``."""

    @abc.abstractmethod
    def stats(self, *, timeout: float | None = None) -> Stats:
        """Count and average size of the objects under the resource prefix. (STAT-1)"""

    @abc.abstractmethod
    def current_revision(self, *, timeout: float | None = None) -> int:
        """The revision of the whole store now, other resources' writes included: at least that of
        every write acknowledged before the call. (GET-9)"""

    @abc.abstractmethod
    def compact_revision(self, *, timeout: float | None = None) -> int:
        """The highest revision known to be compacted, 0 if none is; it never falls. May lag behind
        other processes' compactions. (CMP-4)"""

    @abc.abstractmethod
    def request_progress(self) -> None:
        """Ask that the watches and feeds of this storage show progress soon, as
        ``Changes.request_progress`` says. ``Unsupported`` where the backend cannot. (WATCH-20)"""

    @abc.abstractmethod
    def ready(self, *, timeout: float | None = None) -> None:
        """Return if requests can be served, else raise ``NotReady``."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the watches of this storage and release what it owns. Idempotent."""
