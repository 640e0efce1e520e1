"""The interface that a raw storage and a cached one share (storage.Interface)."""

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
    """The kind of a change to an object (watch.EventType). A BOOKMARK carries only a resource
    version.

    ERROR: the object cannot be read now. It comes only with ``even_if_corrupt``, and the watch goes
    on.
    """

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    ERROR = "ERROR"


# msgspec instead of attrs for what exists once per event and watcher: creating one is four times as
# fast.
class Event(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """One event of a watch (watch.Event).

    The ``object`` of a DELETED event is the last content, at the deletion's resource version; or,
    if an update made the object leave the selector, the content before, at the update's version.
    The ``object`` of a BOOKMARK is empty, with metadata only. ``resource_version`` is the object's.

    ``error`` is None except for an object that cannot be read, which a watch shows only if it was
    opened with ``even_if_corrupt``. Then ``object`` is None: in an ERROR, and in a DELETED whose
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
        """True if this is the bookmark after the last initial event. (WATCH-16)"""
        if self.type is not EventType.BOOKMARK:
            return False
        annotations = metadata_value(self.object, "annotations") or {}
        return annotations.get(INITIAL_EVENTS_END) == "true"


@attrs.frozen(slots=True)
class ObjectList(Generic[T]):
    """The answer to ``list``: ``items`` in key order, all from the state at ``resource_version``.

    ``continue_token``, if not "", fetches the next page. ``remaining_item_count`` counts the
    objects after this page, readable or not; it is None on the last page and with selectors.

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
    """Facts about the stored object for an update function: its resource version, "" if there is
    none yet, and whether it expires. None: this is unknown, since the object is the suggestion."""

    resource_version: str = ""
    expires: bool | None = False


@attrs.frozen(slots=True)
class WithTTL(Generic[T]):
    """The result of an update function that also changes the expiry: 0 seconds removes it, n > 0
    restarts it."""

    object: T
    ttl: int


@attrs.frozen(slots=True)
class Stats:
    """``object_count`` is exact; ``average_size`` is the mean stored size in bytes of the first
    objects (up to 500), 0 if there are none."""

    object_count: int
    average_size: int


#: Returns the new object for the current one; see ``Storage.guaranteed_update``.
UpdateFunc: TypeAlias = Callable[[Any, ResponseMeta], Any]

#: Raises if the object that it receives must not be deleted.
ValidateFunc: TypeAlias = Callable[[Any], None]


class Watch(Closing, Generic[T]):
    """A running watch.

    Events come in the order of their revisions, each once, and none is left out. Iteration ends
    normally only by ``close`` or when the watch's ``timeout`` has passed. Otherwise it raises the
    error that ended the watch; after an error every later poll raises it again.

    One thread polls at a time; any thread may call ``close``.
    """

    __slots__ = ()

    @abc.abstractmethod
    def poll(self, timeout: float | None = None) -> tuple[Event[T], ...] | None:
        """Wait for the next events, at most ``timeout`` seconds; return None if there were none.

        0 does not wait, None waits without end. All events of one revision come in one answer,
        which may hold several revisions. Without a cache, None may also mean that the time passed
        while a selector left out all changes; ``resource_version`` shows the watch's progress.
        Without a cache the poll reads initial objects from the store, page by page. This takes as
        long as for a list, whatever ``timeout`` is, and ``close`` takes effect after it.

        Raises:
            Closed: after ``close``, or once the watch's own ``timeout`` has passed.
            Expired: history that the watch still needs is gone; list again.
            WatchClosed: the watch ended, but nothing was lost; watch again from its
                ``resource_version``.
            CorruptObject: an object cannot be read, and nothing after it is delivered; never with
                ``even_if_corrupt``.
            TooLargeResourceVersion: the store has not reached the version where the watch begins.
            BackendError: an error of the backend.
        """

    def on_readable(self, callback: Callable[[], None] | None) -> None:
        """Call ``callback`` when a poll would find events, a due bookmark or the watch's end.

        So one thread can serve many watches without polling each (see ``revstore.watch_selector``
        and ``revstore.aio``). If a poll would find something now, the callback is called once at
        once. After that every poll, even one that finds nothing, requests another call: from within
        the poll if something is left, else when something comes. So if you call ``poll(0)`` once
        per call, you miss nothing. There may be one call too many, but never one too few. Calls for
        bookmarks and the end of ``timeout`` may be up to 1.5 s late.

        The callback may run in any thread: with a cache in the cache's own, in the thread that
        closes the watch or the storage, and within ``on_readable`` and ``poll``. It must return at
        once and must not use the storage; its errors are logged. None removes the callback.

        Raises:
            Unsupported: the watch cannot report when it is readable, as those of a storage without
                a cache. Block a thread in ``poll`` instead.
        """
        raise Unsupported("readable", "a watch without a cache cannot tell when it is readable")

    @property
    def callback(self) -> Callable[[], None] | None:
        """The callback that was last given to ``on_readable``.

        It shows whether the watch is in use, so that nobody takes it from another by mistake. It is
        None for a watch that cannot report when it is readable.
        """
        return None

    @property
    @abc.abstractmethod
    def resource_version(self) -> str:
        """The version from which a new watch goes on after all that ``poll`` has delivered, without
        a gap and without a repetition; "" while initial events are outstanding.

        If you leave an iteration in the middle, go on from the version of the last event that you
        have handled instead.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """End the watch; a poll that is blocked raises ``Closed`` at once.

        It is idempotent, may be called from any thread, and never raises.
        """

    def __iter__(self) -> Iterator[Event[T]]:
        while True:
            try:
                events = self.poll()
            except Closed:
                return
            yield from events or ()


class Change(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """One change of one key, decoded on request: ``load`` returns the new object, for a deletion
    the last one at the deletion's version; ``load_previous`` returns the one before, None if there
    was none. Both raise ``CorruptObject`` if the bytes cannot be read. ``size`` is that of the
    stored bytes."""

    type: EventType
    key: str
    revision: int
    size: int
    load: Callable[[], T]
    load_previous: Callable[[], T | None]


class ChangeBatch(msgspec.Struct, Generic[T], frozen=True, gc=False):
    """All changes of one revision, in key order. A batch without changes says that everything up to
    ``revision`` has been delivered.

    ``initial`` batches are pages of the state at ``revision`` with which a feed begins, in key
    order; the first batch that is not ``initial`` says that the state is complete.
    """

    revision: int
    changes: tuple[Change[T], ...] = ()
    initial: bool = False


class Changes(Closing, Generic[T]):
    """The feed of a cache: whole revisions in order, nothing filtered. It ends as ``Watch`` does,
    except that an object that cannot be read does not end it."""

    @abc.abstractmethod
    def poll(self, timeout: float | None = None) -> ChangeBatch[T] | None:
        """Return the next batch within ``timeout`` seconds, else None.

        Raises:
            Closed: after ``close``.
        """

    @property
    @abc.abstractmethod
    def revision(self) -> int:
        """The revision up to which everything has been delivered."""

    @abc.abstractmethod
    def request_progress(self) -> None:
        """Ask for a batch soon whose revision is at least that of every write acknowledged before
        this call. (WATCH-20)

        Raises:
            Unsupported: the backend cannot report progress.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """End the feed, as ``Watch.close`` does."""


class Storage(Closing, Generic[T]):
    """Objects of one type under one resource prefix.

    The rules for all methods are in this module's docstring.
    """

    @abc.abstractmethod
    def create(self, key: str, obj: T, *, ttl: int = 0, timeout: float | None = None) -> T:
        """Store a new object, and return it with its resource version.

        ``ttl`` is in seconds, 0: for ever; the object is deleted some time after it has passed. The
        caller's object is not changed, unlike CREATE-4. (CREATE-1 to CREATE-6)

        Raises:
            KeyExists: there is an object under the key.
            ResourceVersionSet: ``obj`` has a resource version other than "" and "0".
            InvalidObject: ``obj`` has no metadata or cannot be encoded.
            Unsupported: there is a ttl, and the backend lacks TTL.
            InternalError: the transformer fails.
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
        """Return the object under ``key``.

        ``resource_version`` "" asks for the latest state, N for a state not older than N, "0" for
        any state. Whether the store has reached N is checked before the key is read. (GET-1 to
        GET-6)

        Raises:
            KeyNotFound: there is no object; with ``ignore_not_found`` None is returned instead.
            InvalidResourceVersion: ``resource_version`` is not a number.
            TooLargeResourceVersion: the store has not reached N.
            CorruptObject: the object cannot be read.
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
        """Return the objects below ``key``, or with ``recursive=False`` the one at ``key``, in key
        order.

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

        With ``limit`` the list comes in pages: pass the ``continue_token`` of one page to get the
        next, with the same key and selectors and without a resource version. All pages show one
        state. Selectors are those of ``revstore.selectors``.

        ``even_if_corrupt`` lists the objects that can be read, and returns the rest as ``errors``
        of the answer: every unreadable object, whatever the selectors, since nobody knows whether
        they match it. (LISTRV-1 to 17, LIST-1 to LIST-25)

        Raises:
            InvalidSelector: a selector does not parse.
            InvalidResourceVersion: ``resource_version`` is not a number.
            InvalidContinueToken: ``continue_token`` is not from a list of this key.
            InvalidArgument: the match is unknown, the limit is negative, or there is a resource
                version beside a token.
            TooLargeResourceVersion: the store has not reached N.
            Expired: the state was compacted. The error's ``continue_token``, if there is one,
                returns the rest of the list as it is now.
            CorruptObjects: objects cannot be read, without ``even_if_corrupt``.
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
        """Delete the object; return its last content at the deletion's resource version.

        It deletes exactly what ``preconditions`` and ``validate`` have checked: if another write
        comes between, both run again on the newer object. ``suggestion`` is a cached copy that may
        save a read; a stale one does no harm. ``validate`` may take its time, use the storage, and
        raise any error to give up.

        ``even_if_corrupt`` deletes an object that cannot be read, and returns None. (DEL-1 to
        DEL-13)

        Raises:
            KeyNotFound: there is no object.
            PreconditionFailed: a precondition does not hold, or with ``even_if_corrupt`` the object
                can be read.
            CorruptObject: the object cannot be read, without ``even_if_corrupt``.
            InvalidArgument: there are preconditions with ``even_if_corrupt``, and nothing to
                compare them with.
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
        """Replace the object by what ``update(current, meta)`` returns, and return that.

        If another write comes between, ``update`` is called again on the newer object, as often as
        needed until ``timeout``. So it must not rely on being called once. It may raise any error
        to give up. It returns the new object, or ``WithTTL`` to change the expiry too; else the
        expiry does not change. It may change the object that it is given, if that is mutable. If
        neither stored bytes nor expiry would change, nothing is written. With ``ignore_not_found``
        it is called with None for an absent object, and what it returns is created.

        ``suggestion`` is a cached copy to begin with; a stale one costs a second call. (GU-1 to
        GU-18)

        Raises:
            KeyNotFound: there is no object, without ``ignore_not_found``.
            PreconditionFailed: a precondition does not hold.
            CorruptObject: the object cannot be read.
            InvalidObject: the new object has no metadata or cannot be encoded.
            InternalError: the transformer fails.
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
        ``k8s.io/initial-events-end`` follows the initial events. With ``progress_notify`` bookmarks
        come from time to time while nothing changes. With a selector, an object that begins to
        match is ADDED, and one that ceases to match is DELETED. ``timeout`` is how long the watch
        runs, in seconds, None without end.

        With ``even_if_corrupt`` an object that cannot be read does not end the watch. It is an
        ERROR event, whatever the selectors, each time that such bytes are written, and among the
        initial events. Once it can be read again it is ADDED if it matches. If it is deleted, or
        can be read again and does not match, it is DELETED, with ``error`` and without an object.
        So the events lead to what a list with ``even_if_corrupt`` shows.

        All errors other than those below are raised by the watch, not by this call. (WATCH-1 to
        WATCH-29)

        Raises:
            InvalidSelector: a selector does not parse.
            InvalidResourceVersion: ``resource_version`` is not a number.
        """

    @abc.abstractmethod
    def changes(
        self, key: str, *, after: int | None = None, timeout: float | None = None
    ) -> Changes[T]:
        """Open the feed of a cache: every change below ``key`` with a revision above ``after``.

        With None it begins with the current state, in ``initial`` batches. They come within
        ``timeout`` seconds, or a poll raises ``Timeout``.
        """

    @abc.abstractmethod
    def count(self, key: str, *, timeout: float | None = None) -> int:
        """Return the number of keys below ``key``."""

    @abc.abstractmethod
    def stats(self, *, timeout: float | None = None) -> Stats:
        """Return the number and average size of the objects under the resource prefix. (STAT-1)"""

    @abc.abstractmethod
    def current_revision(self, *, timeout: float | None = None) -> int:
        """Return the current revision of the whole store, which other resources' writes also raise.

        It is at least that of every write acknowledged before the call. (GET-9)
        """

    @abc.abstractmethod
    def compact_revision(self, *, timeout: float | None = None) -> int:
        """Return the highest revision known to be compacted, 0 if none is; it never falls.

        It may lag behind other processes' compactions. (CMP-4)
        """

    @abc.abstractmethod
    def request_progress(self) -> None:
        """Ask that the watches and feeds of this storage show progress soon, as
        ``Changes.request_progress`` does. (WATCH-20)

        Raises:
            Unsupported: the backend cannot report progress.
        """

    @abc.abstractmethod
    def ready(self, *, timeout: float | None = None) -> None:
        """Return if requests can be served.

        Raises:
            NotReady: they cannot.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """End the watches of this storage and release what it owns. Idempotent."""
