"""The contract between revstore and a storage backend: nine methods and a watch, and what is
optional since 1.1: transactions, leases, and three steps for operators.

To add a backend, subclass ``Backend`` and ``BackendWatch``, describe it by a ``BackendInfo``
that an entry point of the group ``revstore.backends`` leads to (see ``revstore.hooks``), and run
``revstore.testing.BackendTests`` over it. Nothing here asks for more than etcd v3 can do, and
every request that Kubernetes and etcdctl's get, put, del and watch send to etcd maps onto it.

Rules for all methods
---------------------
*Threads.* Every method may be called from many threads at once. ``close`` is idempotent, makes
every later call raise ``Closed``, and wakes calls and polls that are blocked, which then raise
``Closed`` as well. In a child after ``os.fork`` every call raises ``Closed``.

*Keys* are ``str``: not empty, valid UTF-8 (no surrogates), without NUL; anything else raises
``InvalidKey`` before the store is touched. They are physical: the caller has put every prefix on,
a backend adds and strips none. Order is that of their UTF-8 bytes, which is Python's order of
``str``. A ``prefix`` is matched as a plain string, not by path segments, and may be "". Keys of
1,024 bytes can be stored; a store that takes less, or a key beyond its limit, raises ``InvalidKey``
that names the limit.

*Arguments* that no store could serve raise ``InvalidArgument`` before the store is touched: a
number outside the range that ``revstore.arguments`` gives it, what is no whole number where one is
asked for, a deletion or a compaction with 0, a ``value`` that is not ``bytes``, a ``timeout`` that
is NaN. That module has the checks; a number within the range is served, whatever its size, and
never raises an error of the driver. ``revstore.backend_tools`` has what backends need besides.

*Revisions* are integers from 1, one counter for the whole store. An empty memory or sqlite store
answers 1, an empty store of another kind any number above 0. Each write that succeeds takes a
greater one; commit order is revision order; once any reader has seen revision n, no write at or
below n appears later; none is used twice, also not after a restart or a crash. Refused writes and
reads take none. Gaps are allowed. Several keys share one revision only if the store changes them
in one step by itself, as when they expire together, or if one transaction wrote them.

*Time.* ``timeout`` is in seconds; None means the backend's own default, which must be finite, and
infinity no limit; a call whose ``timeout`` is 0 or less may still answer at once.
A method that cannot finish in time raises ``Timeout``; a write that was sent and whose answer did
not come raises ``OutcomeUnknown``. A backend retries a write only if it provably never left.

*Reads* are linearizable: they show every write acknowledged before the call began.

*Errors* are those of ``BackendError`` in ``revstore.errors``, ``InvalidKey`` and ``Closed``,
nothing of the driver's own; chain its error as the cause. Any method may raise ``Unreachable``,
``Timeout``, ``AccessDenied``, ``IncompatibleStore``, ``CorruptStore``, ``Closed``; writes also
``OutcomeUnknown``, ``NoSpace``, ``ReadOnly``, ``ValueTooLarge``. A call that raises has changed
nothing (``OutcomeUnknown`` excepted).

*Optional methods.* What is not abstract raises ``Unsupported`` unless a backend overrides it, and
needs nothing from a backend that does not claim it: ``transactions``, ``leases``,
``remaining_ttl``, ``raise_revision``, ``fence`` and ``unfence``, each with a ``Capability`` of its
own. A backend that was written for 1.0 stays as it is.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import attrs

from revstore.closing import Closing
from revstore.errors import Closed, Unsupported
from revstore.values import (
    BackendStatus,
    Capability,
    CountResult,
    DeleteResult,
    GetResult,
    KeyValue,
    LeaseInfo,
    ListResult,
    PutResult,
    TransactionResult,
    WatchBatch,
)

if TYPE_CHECKING:
    from revstore.config import StorageConfig

__all__ = [
    "API_VERSION",
    "DEFAULT_TIMEOUT",
    "Backend",
    "BackendInfo",
    "BackendWatch",
    "Leases",
    "NoOptions",
    "Transaction",
]

T = TypeVar("T")

#: The version of this contract. A plugin written for the same major and any lower or equal minor
#: number is accepted; anything else is refused with ``BackendIncompatible``.
API_VERSION: tuple[int, int] = (1, 1)

#: Seconds that a call may take when it was given no timeout and the backend has no own default.
DEFAULT_TIMEOUT = 30.0


class BackendWatch(Closing):
    """A running watch: batches in revision order, nothing lost, nothing twice.

    It reconnects by itself and resumes after the last whole batch. It ends only by ``close`` or
    by an error that ``poll`` raises; after an error every later poll raises the same one.
    Errors: ``Compacted`` if events that were not yet delivered are gone; ``Closed`` after
    ``close``; ``Unreachable`` if reconnecting was given up; ``AccessDenied``; ``CorruptStore``;
    ``IncompatibleStore`` if the store was replaced by another, or its revision went back.

    One thread polls at a time; ``close`` and ``request_progress`` may come from any thread.
    """

    @abc.abstractmethod
    def poll(self, timeout: float | None = None) -> WatchBatch | None:
        """Wait for the next batch, at most ``timeout`` seconds, and return it; None if none came.

        ``timeout`` 0 does not wait; None waits until a batch, an error or ``close`` ends it.
        All events of a revision come in one batch. Batch revisions rise strictly, but for a
        progress mark, which may repeat the revision of the batch before it.
        """

    @property
    @abc.abstractmethod
    def position(self) -> int:
        """The revision up to which everything has been delivered by ``poll``: at first
        ``after_revision``, then that of the last batch. A new watch after it goes on without a
        gap and without a repetition."""

    @abc.abstractmethod
    def request_progress(self) -> None:
        """Ask for a progress mark soon, also of a watch that was opened with ``progress=False``.

        Its revision is at least that of any write acknowledged before this call, also by other
        processes, and it comes after every event up to it. On a watch that begins in the future
        it waits until the store is there: a mark below ``position`` is never delivered. Does not
        block. Raises ``Unsupported`` without ``Capability.PROGRESS``.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """End the watch and free what it holds; a poll that is blocked raises ``Closed`` at once.
        Idempotent, from any thread, never raises."""

    def __iter__(self) -> Iterator[WatchBatch]:
        """Yield batches until ``close``; errors other than ``Closed`` are raised."""
        while True:
            try:
                batch = self.poll()
            except Closed:
                return
            if batch is not None:
                yield batch


class Transaction(abc.ABC):
    """What the body of a transaction sees: the store at one revision, under the body's own writes.

    It belongs to the thread that runs the body, and raises ``Closed`` once the body has returned.
    ``revstore.backend_tools.Overlay`` is one that keeps the writes to itself, and leaves to a
    backend how to read and how to write them all at once.

    What is not known before the commit is 0 in a ``KeyValue`` that the body itself wrote: its
    ``revision``, its ``create_revision`` if it is new, and its ``lease`` if it was given a ttl;
    ``TransactionResult.revision`` stands for the first two.
    """

    @property
    @abc.abstractmethod
    def revision(self) -> int:
        """The store's revision before the body."""

    @abc.abstractmethod
    def get(self, key: str) -> KeyValue | None:
        """Read one key; None if it does not exist, or if the body has deleted it."""

    @abc.abstractmethod
    def list(
        self, prefix: str, *, start: str = "", limit: int = 0, keys_only: bool = False
    ) -> tuple[KeyValue, ...]:
        """Read keys as ``Backend.list`` does: of ``limit`` above 0 never more than that."""

    @abc.abstractmethod
    def put(
        self, key: str, value: bytes, *, ttl: int | None = 0, lease: int | None = 0
    ) -> KeyValue:
        """Write a key, whatever is there, and return it as it will be.

        ``ttl`` is as in ``Backend.put``. ``lease`` above or below 0 attaches the key to the lease
        of that id. 0 for both: it does not expire; None for one or both: it keeps its expiry or its
        lease.

        Raises:
            InvalidArgument: the body has put or deleted the key before, or gives it both a ttl and
                a lease.
            LeaseNotFound: there is no such lease.
            Unsupported: a ttl without TTL, a lease without LEASES, or a key that needs
                NESTED_KEYS.
            ReadOnly: the store is fenced, or takes no writes.
        """

    @abc.abstractmethod
    def delete(self, key: str) -> KeyValue | None:
        """Delete a key and return what it was; None, and no write, if it does not exist.

        Raises:
            InvalidArgument: the body has put the key.
            ReadOnly: as in ``put``.
        """


class Leases(abc.ABC):
    """The leases of an open store: time limits that many keys share, and that can be lifted.

    A lease lives in the store: it survives a restart, and is one for every process that has the
    store open. ``Transaction.put`` attaches keys to it. Once a lease is older than its ttl, counted
    from its grant or its last ``keep_alive``, all its keys are deleted in one revision, and it is
    gone; not before, and by itself, while any process has called ``Backend.leases``. Granting and
    keeping alive take no revision and show in no watch. It ends with its backend.
    """

    @abc.abstractmethod
    def grant(self, ttl: int, *, lease: int = 0, timeout: float | None = None) -> LeaseInfo:
        """Make a lease of at least ``ttl`` seconds with the id ``lease``; 0: the store chooses one.

        Raises:
            LeaseExists: a lease with that id is there.
        """

    @abc.abstractmethod
    def keep_alive(self, lease: int, *, timeout: float | None = None) -> LeaseInfo:
        """Start the lease's ttl again, and return it without its keys.

        Raises:
            LeaseNotFound: there is no such lease.
        """

    @abc.abstractmethod
    def revoke(self, lease: int, *, timeout: float | None = None) -> int:
        """End the lease, delete all its keys in one revision, and return that revision; if it had
        none, the store's.

        Raises:
            LeaseNotFound: there is no such lease.
        """

    @abc.abstractmethod
    def get(self, lease: int, *, keys: bool = False, timeout: float | None = None) -> LeaseInfo:
        """Read a lease, with ``keys`` also which keys are attached.

        Raises:
            LeaseNotFound: there is no such lease.
        """

    @abc.abstractmethod
    def list(self, *, timeout: float | None = None) -> tuple[int, ...]:
        """The ids of all leases, in order."""


class Backend(Closing):
    """An open store of bytes under keys, with revisions. The rules for all methods stand in this
    module's docstring; they are part of the contract."""

    @property
    @abc.abstractmethod
    def capabilities(self) -> frozenset[Capability]:
        """What this open store can do: a subset of ``BackendInfo.capabilities``, fixed while it is
        open. Needs no I/O and works after ``close``."""

    @abc.abstractmethod
    def status(self, *, timeout: float | None = None) -> BackendStatus:
        """The store's identity and revisions now, linearizably."""

    @abc.abstractmethod
    def get(
        self,
        key: str,
        *,
        revision: int = 0,
        linearizable: bool = True,
        timeout: float | None = None,
    ) -> GetResult:
        """Read one key, now (``revision`` 0) or as it was at ``revision``.

        ``Compacted`` if ``revision`` is below the compacted one (at it is fine),
        ``FutureRevision`` if it is above the current one, ``Unsupported`` if it is below the
        current one without HISTORICAL_READS. ``linearizable=False`` allows an answer that lags.
        """

    @abc.abstractmethod
    def list(
        self,
        prefix: str,
        *,
        start: str = "",
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        remaining: bool = False,
        linearizable: bool = True,
        timeout: float | None = None,
    ) -> ListResult:
        """Read the keys that start with ``prefix`` and are not below ``start``, in key order.

        All come from one state: that at ``revision`` if it is given (errors as ``get``), else the
        current one. ``limit`` above 0 bounds the answer; a backend that cannot page may return
        more, then with ``more`` False. ``keys_only`` leaves the values b"". ``remaining`` asks
        for the count of keys that follow. ``start`` is a whole key, not relative to the prefix,
        and may hold NUL at its end: to go on after a page, pass its last key + "\\0".
        """

    @abc.abstractmethod
    def count(self, prefix: str, *, revision: int = 0, timeout: float | None = None) -> CountResult:
        """Count the keys that start with ``prefix``, at ``revision`` or now; errors as ``get``."""

    @abc.abstractmethod
    def put(
        self,
        key: str,
        value: bytes,
        *,
        expected_revision: int,
        ttl: int | None = 0,
        timeout: float | None = None,
    ) -> PutResult:
        """Write ``value`` if the key's revision is ``expected_revision``; 0: if it does not exist.

        One atomic step: of two that expect the same revision at most one succeeds. Losing is a
        result, not an error, and brings the current KeyValue, so that no second read is needed.
        An equal value is written all the same. ``ttl`` in seconds: 0 for ever; n > 0: the key
        expires not before n seconds from now (later by rounding and the sweep's rhythm); None
        keeps the key's expiry as it is. ttl > 0, or None on a key that expires, raises
        ``Unsupported`` without TTL; so does, without NESTED_KEYS, the creation of a key where one
        above or below it exists ("a" and "a/b").

        An expired key exists, for every reader, until a deletion with a revision of its own
        removes it, by itself and with nobody looking; watches see that deletion.
        """

    @abc.abstractmethod
    def delete(
        self, key: str, *, expected_revision: int, timeout: float | None = None
    ) -> DeleteResult:
        """Delete the key if its revision is ``expected_revision``, which must be above 0.
        Atomicity and losing as in ``put``; an absent key is a loss."""

    @abc.abstractmethod
    def watch(
        self, key: str, *, recursive: bool, after_revision: int, progress: bool = True
    ) -> BackendWatch:
        """Watch one key, or with ``recursive`` every key that starts with ``key`` (may be "").

        Delivers every event with a revision above ``after_revision``, from history first; 0: all
        history, which is ``Compacted`` as soon as any of it is gone. A revision in the future opens
        silently and delivers once it has passed. Never blocks on the network; everything that goes
        wrong afterwards, ``Compacted`` for an ``after_revision`` below the compacted one included,
        is raised by ``poll``. With ``progress`` the backend may deliver progress marks of its own
        accord; without, only those asked for.
        """

    @abc.abstractmethod
    def compact(self, revision: int, *, timeout: float | None = None) -> None:
        """Forget the history below ``revision``: values overwritten at or below it, and deletions.

        The state at ``revision`` and after stays readable, current values are never touched, no
        key is written, no revision is taken. ``Compacted`` if ``revision`` is at or below the
        compacted one, ``FutureRevision`` if it is above the current one, ``Unsupported`` without
        COMPACTION. Open watches that have delivered up to ``revision`` go on undisturbed.
        """

    def size(self, *, timeout: float | None = None) -> int | None:
        """About how many bytes the store takes where it is kept, history and free space included;
        None from a backend that cannot tell, as it is without a method of its own."""
        return None

    def transactions(
        self, bodies: Sequence[Callable[[Transaction], T]], *, timeout: float | None = None
    ) -> Sequence[TransactionResult[T] | Exception]:
        """Run each body as one atomic, linearizable step; return a result for each, in order.

        All that a body writes takes one revision, and comes as one batch of a watch; each key at
        most once. What it reads is as it is when its writes land. Bodies are independent of each
        other and run in order, so that each sees what those before it wrote; they may share one
        commit. An exception that a body raises undoes its writes and stands in its place. A commit
        whose fate is not known gives ``OutcomeUnknown`` for each body that it held.

        A body does no I/O, waits for nothing, and does not call the backend: it may hold the
        store's lock. It may be run more than once, in any thread; the last run counts.

        Raises:
            TransactionTooLarge: (in a body's place) it reads or writes more keys than the store can
                compare or change in one step.
            Unsupported: without TRANSACTIONS.
        """
        raise Unsupported(Capability.TRANSACTIONS)

    def transaction(
        self, body: Callable[[Transaction], T], *, timeout: float | None = None
    ) -> TransactionResult[T]:
        """Run one body as ``transactions`` does; raise what stands in its place."""
        result = self.transactions([body], timeout=timeout)[0]
        if isinstance(result, Exception):
            raise result
        return result

    def leases(self, *, grace: float = 10.0, timeout: float | None = None) -> Leases:
        """Return the store's leases, and begin to delete those that expire.

        The first call of an open backend lifts each expiry to at least min(ttl, ``grace``) seconds
        from now, so that holders can come back after the store was closed; a lease that has more
        left is not changed, so that no ttl starts again at a restart. Later calls return the same
        object. ``Unsupported`` without LEASES.
        """
        raise Unsupported(Capability.LEASES)

    def remaining_ttl(self, key: str, *, timeout: float | None = None) -> float | None:
        """The seconds until the key expires, by its ttl or its lease, 0.0 if it is overdue; None if
        it does not expire or does not exist. ``Unsupported`` without REMAINING_TTL."""
        raise Unsupported(Capability.REMAINING_TTL)

    def raise_revision(self, revision: int, *, timeout: float | None = None) -> None:
        """Lift the store's revision to ``revision``, so that every later write is above it; do
        nothing if it is there already.

        For a store that is filled from a backup: no revision is used twice by its clients. The
        state at the revisions in between is that before them; ``compact`` at ``revision`` makes
        them unreadable, so that clients of the old store learn of the break. Open watches see
        nothing but a progress mark. ``Unsupported`` without RAISE_REVISION.
        """
        raise Unsupported(Capability.RAISE_REVISION)

    def fence(self, reason: str, *, timeout: float | None = None) -> None:
        """Let no key change any more, until ``unfence``: every later write, of any process, raises
        ``ReadOnly`` with ``reason``. It survives a restart.

        Writes are those of ``put``, ``delete`` and transactions, also where they would be lost, and
        granting, keeping alive and revoking leases. Nothing expires meanwhile. Reads, watches,
        ``compact`` and ``raise_revision`` work. Of a fenced store it changes the reason.
        ``Unsupported`` without FENCE.
        """
        raise Unsupported(Capability.FENCE)

    def unfence(self, *, timeout: float | None = None) -> None:
        """End what ``fence`` began; do nothing if the store is not fenced. ``Unsupported`` without
        FENCE."""
        raise Unsupported(Capability.FENCE)

    @abc.abstractmethod
    def close(self) -> None:
        """Close watches, end threads, release files and connections, within two seconds."""


@attrs.frozen
class NoOptions:
    """The options class of a backend that has no options of its own."""


@attrs.frozen(kw_only=True)
class BackendInfo:
    """What a plugin declares about its backend; making one must not import the driver.

    ``name`` is the config ``type``, the URL scheme and the entry point's name.
    ``capabilities`` is what the backend can have; an open store may have fewer.
    ``options_class`` is an attrs class with a default for each field and a type that TOML and URL
    values can be turned into (str, int, float, bool, tuple[str, ...], Secret, each optionally
    None); ``StorageConfig.options`` is validated against it.
    ``factory`` opens the store: called with the whole ``StorageConfig`` and the validated options;
    this is where the driver is imported. It raises the errors of ``Backend`` and, for values that
    do not fit the backend, ``ConfigError``.
    ``drivers`` names modules that the factory will import; ``revstore plugins check`` imports them
    to see whether they work.
    """

    name: str
    api_version: tuple[int, int]
    capabilities: frozenset[Capability]
    description: str
    factory: Callable[[StorageConfig, Any], Backend]
    options_class: type[Any] = NoOptions
    drivers: tuple[str, ...] = ()

    #: Names that only the distribution of the same project may provide.
    RESERVED: ClassVar[dict[str, str]] = {
        "memory": "revstore",
        "sqlite": "revstore-sqlite",
        "etcd3": "revstore-etcd3",
        "etcd2": "revstore-etcd2",
    }
