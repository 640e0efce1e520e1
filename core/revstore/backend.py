"""The contract between revstore and a storage backend.

It has nine methods and a watch. Since 1.1 it also has optional parts: transactions, leases, and
three steps for operators.

To add a backend, subclass ``Backend`` and ``BackendWatch``, describe it with a ``BackendInfo``,
point an entry point of the group ``revstore.backends`` at that (see ``revstore.hooks``), and run
``revstore.testing.BackendTests`` over it. Nothing here needs more than etcd v3 can do, and
every request that Kubernetes and etcdctl's get, put, del and watch send to etcd maps onto it.

Rules for all methods
---------------------
*Threads.* Every method may be called from many threads at once. ``close`` is idempotent, makes
every later call raise ``Closed``, and wakes calls and polls that are blocked, which then raise
``Closed`` as well. In a child after ``os.fork`` every call raises ``Closed``.

*Keys* are ``str``: not empty, valid UTF-8 (no surrogates), without NUL. Anything else raises
``InvalidKey`` before the store is touched. Keys are physical: the caller has added every prefix,
and a backend adds and strips none. Their order is that of their UTF-8 bytes, which is Python's
order of ``str``. A ``prefix`` is matched as a plain string, not by path segments, and may be "".
Keys of 1,024 bytes can be stored. A key beyond a store's limit, even a lower one, raises
``InvalidKey``, which names the limit.

*Arguments* that no store could serve raise ``InvalidArgument`` before the store is touched: a
number outside the range that ``revstore.arguments`` gives it, a value of another type where a whole
number is asked for, a deletion or a compaction with 0, a ``value`` that is not ``bytes``, a
``timeout`` that is NaN. That module has the checks. Every number within the range is served and
never raises an error of the driver. ``revstore.backend_tools`` has other parts for backends.

*Revisions* are integers from 1, one counter for the whole store. An empty memory or sqlite store
answers 1, an empty store of another kind any number above 0. Each write that succeeds takes a
greater one, and commit order is revision order. Once any reader has seen revision n, no write at or
below n appears later. No revision is used twice, even after a restart or a crash. Refused writes
and reads take none. Gaps are allowed. Several keys share one revision only if the store itself
changes them in one step, as when they expire together, or if one transaction wrote them.

*Time.* ``timeout`` is in seconds. None means the backend's own default, which must be finite;
infinity means no limit. A call whose ``timeout`` is 0 or less may still answer at once.
A method that cannot finish in time raises ``Timeout``; a write that was sent but not answered in
time raises ``OutcomeUnknown``. A backend retries a write only if it was certainly never sent.

*Reads* are linearizable: they show every write acknowledged before the call began.

*Errors* are those of ``BackendError`` in ``revstore.errors``, ``InvalidKey``, ``InvalidArgument``
and ``Closed``, never the driver's own: chain that as the cause. Any method may raise
``Unreachable``, ``Timeout``, ``AccessDenied``, ``IncompatibleStore``, ``CorruptStore`` or
``Closed``; writes also ``OutcomeUnknown``, ``NoSpace``, ``ReadOnly`` or ``ValueTooLarge``. A call
that raises has changed nothing, except with ``OutcomeUnknown``. A method's ``Raises:`` list has the
errors that it may raise besides.

*Optional methods* are not abstract. ``transactions``, ``leases``, ``remaining_ttl``,
``raise_revision``, ``fence`` and ``unfence`` raise ``Unsupported`` unless a backend overrides them;
each has its own ``Capability``. A backend that does not claim one has nothing to do for it, so a
backend that was written for 1.0 needs no change.
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

#: Seconds that a call may take if it has no timeout and the backend has no default of its own.
DEFAULT_TIMEOUT = 30.0


class BackendWatch(Closing):
    """A running watch: batches in revision order, nothing lost, nothing twice.

    It reconnects by itself and resumes after the last whole batch. It ends only by ``close`` or
    by an error that ``poll`` raises. After an error every later poll raises the same one.

    One thread polls at a time; any thread may call ``close`` and ``request_progress``.
    """

    @abc.abstractmethod
    def poll(self, timeout: float | None = None) -> WatchBatch | None:
        """Wait for the next batch, at most ``timeout`` seconds, and return it; None if none came.

        ``timeout`` 0 does not wait; None waits until a batch, an error or ``close`` ends it.
        All events of a revision come in one batch. Each batch has a greater revision than the one
        before it, except that a progress mark may repeat that revision.

        Raises:
            Compacted: events that were not yet delivered are gone.
            Closed: the watch or its backend is closed.
            Unreachable: the backend gave up reconnecting.
            AccessDenied: the store refuses access.
            CorruptStore: the store has data that cannot be read.
            IncompatibleStore: the store was replaced by another, or its revision went back.
        """

    @property
    @abc.abstractmethod
    def position(self) -> int:
        """The revision up to which ``poll`` has delivered everything.

        At first it is ``after_revision``, then that of the last batch. A new watch with this
        ``after_revision`` goes on without a gap and without a repetition.
        """

    @abc.abstractmethod
    def request_progress(self) -> None:
        """Ask for a progress mark soon, even if the watch was opened with ``progress=False``.

        The mark's revision is at least that of any write acknowledged before this call, by this or
        another process. It comes after every event up to that revision. On a watch that begins in
        the future it comes once the store is there: a mark below ``position`` is never delivered.
        This call does not block.

        Raises:
            Unsupported: without ``Capability.PROGRESS``.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """End the watch and free what it holds; a poll that is blocked raises ``Closed`` at once.

        It is idempotent, may be called from any thread, and never raises.
        """

    def __iter__(self) -> Iterator[WatchBatch]:
        """Yield batches until ``close``; raise the errors of ``poll`` other than ``Closed``."""
        while True:
            try:
                batch = self.poll()
            except Closed:
                return
            if batch is not None:
                yield batch


class Transaction(abc.ABC):
    """The view of a transaction's body: the store at one revision, plus the body's own writes.

    It belongs to the thread that runs the body, and raises ``Closed`` once the body has returned.
    ``revstore.backend_tools.Overlay`` is an implementation that collects the writes; a backend adds
    how to read, and how to write them all at once.

    In a ``KeyValue`` that the body itself wrote, 0 means that a field is not known before the
    commit: its ``revision``, its ``create_revision`` if the key is new, and its ``lease`` if it was
    given a ttl. The first two will be ``TransactionResult.revision``.
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
        """Write a key, whether it exists or not, and return it as the commit will leave it.

        ``ttl`` is as in ``Backend.put``. A ``lease`` other than 0 attaches the key to the lease
        with that id. If both are 0, the key does not expire. If one or both are None, it keeps its
        expiry or its lease.

        Raises:
            InvalidArgument: the body has put or deleted the key before, or gives it both a ttl and
                a lease.
            LeaseNotFound: there is no such lease.
            Unsupported: ``ttl`` is used without TTL, ``lease`` without LEASES, or the key needs
                NESTED_KEYS.
            ReadOnly: the store is fenced or takes no writes.
        """

    @abc.abstractmethod
    def delete(self, key: str) -> KeyValue | None:
        """Delete a key and return its last KeyValue, or None, without a write, if it is missing.

        Raises:
            InvalidArgument: the body has put the key.
            ReadOnly: as in ``put``.
        """


class Leases(abc.ABC):
    """The leases of an open store: time limits that many keys share and that can be extended.

    A lease lives in the store: it survives a restart, and all processes that have the store open
    share it. ``Transaction.put`` attaches keys to it. A lease expires once its ttl has passed since
    its grant or its last ``keep_alive``, and never before: then all its keys are deleted in one
    revision, and the lease is removed. This happens by itself while any process has called
    ``Backend.leases``. ``grant`` and ``keep_alive`` take no revision, and no watch sees them. This
    object ends with its backend.
    """

    @abc.abstractmethod
    def grant(self, ttl: int, *, lease: int = 0, timeout: float | None = None) -> LeaseInfo:
        """Create a lease of at least ``ttl`` seconds with the id ``lease``; 0: the store chooses.

        Raises:
            LeaseExists: there is a lease with that id.
        """

    @abc.abstractmethod
    def keep_alive(self, lease: int, *, timeout: float | None = None) -> LeaseInfo:
        """Start the lease's ttl again, and return it without its keys.

        Raises:
            LeaseNotFound: there is no such lease.
        """

    @abc.abstractmethod
    def revoke(self, lease: int, *, timeout: float | None = None) -> int:
        """End the lease, delete all its keys in one revision, and return that revision.

        If it has no keys, return the store's revision.

        Raises:
            LeaseNotFound: there is no such lease.
        """

    @abc.abstractmethod
    def get(self, lease: int, *, keys: bool = False, timeout: float | None = None) -> LeaseInfo:
        """Read a lease; with ``keys`` also read which keys are attached to it.

        Raises:
            LeaseNotFound: there is no such lease.
        """

    @abc.abstractmethod
    def list(self, *, timeout: float | None = None) -> tuple[int, ...]:
        """Return the ids of all leases, in order."""


class Backend(Closing):
    """An open store of bytes under keys, with revisions.

    The rules for all methods are in this module's docstring; they are part of the contract.
    """

    @property
    @abc.abstractmethod
    def capabilities(self) -> frozenset[Capability]:
        """The abilities of this open store: a subset of ``BackendInfo.capabilities``.

        It does not change while the store is open, needs no I/O, and works after ``close``.
        """

    @abc.abstractmethod
    def status(self, *, timeout: float | None = None) -> BackendStatus:
        """Read the store's identity and revisions; the answer is linearizable."""

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

        ``linearizable=False`` allows an answer that lags.

        Raises:
            Compacted: ``revision`` is below the compacted one; equal to it is served.
            FutureRevision: ``revision`` is above the current one.
            Unsupported: ``revision`` is below the current one, without HISTORICAL_READS.
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
        """Read the keys that start with ``prefix`` and are not before ``start``, in key order.

        All come from one state: that at ``revision`` if it is given, else the current one.
        A ``limit`` above 0 is the most keys to return; a backend that cannot page may return all
        instead, with ``more`` False. With ``keys_only`` the values are b"". ``remaining`` asks
        for the number of keys that follow. ``start`` is a whole key, not relative to the prefix,
        and may end with NUL: to go on after a page, pass its last key + "\\0".

        Raises:
            Compacted: as in ``get``.
            FutureRevision: as in ``get``.
            Unsupported: as in ``get``.
        """

    @abc.abstractmethod
    def count(self, prefix: str, *, revision: int = 0, timeout: float | None = None) -> CountResult:
        """Count the keys that start with ``prefix``, at ``revision`` or now (0).

        Raises:
            Compacted: as in ``get``.
            FutureRevision: as in ``get``.
            Unsupported: as in ``get``.
        """

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
        """Write ``value`` if the key's revision is ``expected_revision``, 0 for no key.

        The step is atomic: of two writes that expect the same revision at most one succeeds. The
        other loses. This is a result, not an error, and holds the current KeyValue, so that no
        second read is needed. A value equal to the stored one is written too.

        ``ttl`` is in seconds. 0: the key never expires. n > 0: it expires n seconds from now or
        somewhat later, because of rounding and the time between sweeps, but never earlier. None:
        it keeps its expiry.

        An expired key exists, for every reader, until the store deletes it by itself, at its own
        revision, even if nobody reads it. Watches see that deletion.

        Raises:
            Unsupported: ``ttl`` is above 0, or None on a key that expires, without TTL; or a key
                is created above or below an existing one ("a" and "a/b"), without NESTED_KEYS.
        """

    @abc.abstractmethod
    def delete(
        self, key: str, *, expected_revision: int, timeout: float | None = None
    ) -> DeleteResult:
        """Delete the key if its revision is ``expected_revision``, which must be above 0.

        The step is atomic and may lose, as in ``put``; it also loses if the key does not exist.
        """

    @abc.abstractmethod
    def watch(
        self, key: str, *, recursive: bool, after_revision: int, progress: bool = True
    ) -> BackendWatch:
        """Watch one key, or with ``recursive`` every key that starts with ``key`` (may be "").

        It delivers every event with a revision above ``after_revision``, from history first.
        0 means all history, which fails with ``Compacted`` as soon as any of it is gone. If
        ``after_revision`` is in the future, the watch delivers nothing until the store has passed
        it. This call never waits for the network: ``poll`` raises all later errors, such as
        ``Compacted`` if ``after_revision`` is below the compacted one. With ``progress`` the
        backend may deliver progress marks without being asked; without it, only those asked for.
        """

    @abc.abstractmethod
    def compact(self, revision: int, *, timeout: float | None = None) -> None:
        """Forget the history below ``revision``: values overwritten at or below it, and deletions.

        The states at ``revision`` and after it stay readable. Current values are never touched, no
        key is written, and no revision is taken. An open watch that has delivered up to
        ``revision`` goes on unaffected.

        Raises:
            Compacted: ``revision`` is at or below the compacted one.
            FutureRevision: ``revision`` is above the current one.
            Unsupported: without COMPACTION.
        """

    def size(self, *, timeout: float | None = None) -> int | None:
        """Return about how many bytes the store takes on disk or in memory; None if unknown.

        History and free space count too. A backend that does not override this returns None.
        """
        return None

    def transactions(
        self, bodies: Sequence[Callable[[Transaction], T]], *, timeout: float | None = None
    ) -> Sequence[TransactionResult[T] | Exception]:
        """Run each body as one atomic, linearizable step; return a result for each, in order.

        All writes of a body have one revision and reach a watch in one batch; a body writes each
        key at most once. What a body reads is still true when its writes are committed. Bodies are
        independent of each other and run in order, so that each sees what those before it wrote;
        they may share one commit. If a body raises an exception, its writes are undone, and the
        exception is its result. If it is unknown whether a commit succeeded, ``OutcomeUnknown`` is
        the result of each body in it. If a body reads or writes more keys than the store can
        compare or change in one step, its result is ``TransactionTooLarge``.

        A body must do no I/O, must not wait, and must not call the backend, since it may run under
        the store's lock. It may run more than once, in any thread; the last run counts.

        Raises:
            Unsupported: without TRANSACTIONS.
        """
        raise Unsupported(Capability.TRANSACTIONS)

    def transaction(
        self, body: Callable[[Transaction], T], *, timeout: float | None = None
    ) -> TransactionResult[T]:
        """Run one body as ``transactions`` does, and return its result.

        Raises:
            Exception: the exception that ``transactions`` gives as the body's result: the body's
                own, ``OutcomeUnknown`` or ``TransactionTooLarge``.
            Unsupported: without TRANSACTIONS.
        """
        result = self.transactions([body], timeout=timeout)[0]
        if isinstance(result, Exception):
            raise result
        return result

    def leases(self, *, grace: float = 10.0, timeout: float | None = None) -> Leases:
        """Return the store's leases, and begin to delete those that expire.

        The first call on an open backend gives each lease at least min(ttl, ``grace``) seconds from
        now, so that its holder can come back after the store was closed. A lease that has more time
        left is not changed, so that no ttl starts again at a restart. A store that is a server of
        its own changes none, as it was not closed. Later calls return the same object.

        Raises:
            Unsupported: without LEASES.
        """
        raise Unsupported(Capability.LEASES)

    def remaining_ttl(self, key: str, *, timeout: float | None = None) -> float | None:
        """Return the seconds until the key expires, because of its ttl or its lease.

        The answer is 0.0 if the key is overdue, None if it does not expire or does not exist.

        Raises:
            Unsupported: without REMAINING_TTL.
        """
        raise Unsupported(Capability.REMAINING_TTL)

    def raise_revision(self, revision: int, *, timeout: float | None = None) -> None:
        """Raise the store's revision to ``revision``; do nothing if it is already there or above.

        Every later write has a greater revision. Use it after a store was filled from a backup, so
        that its clients never see a revision twice. The state at each skipped revision is that
        before the call. Call ``compact`` at ``revision`` to make the skipped ones unreadable, so
        that clients of the old store notice the gap. Open watches see at most a progress mark.

        Raises:
            Unsupported: without RAISE_REVISION.
        """
        raise Unsupported(Capability.RAISE_REVISION)

    def fence(self, reason: str, *, timeout: float | None = None) -> None:
        """Refuse all writes until ``unfence``: in every process they raise ``ReadOnly``.

        The error's message holds ``reason``. On a store that is fenced already this changes the
        reason. A fence survives a restart. Refused are ``put``, ``delete`` and the writes of
        transactions, even those that would lose, and ``grant``, ``keep_alive`` and ``revoke`` of
        leases. Reads, watches, ``compact`` and ``raise_revision`` work. Nothing expires meanwhile,
        except in a store whose own server counts the time, such as etcd. Setting the fence may take
        a revision. A call that changes a lease while the fence is being set may raise
        ``OutcomeUnknown``.

        Raises:
            Unsupported: without FENCE.
        """
        raise Unsupported(Capability.FENCE)

    def unfence(self, *, timeout: float | None = None) -> None:
        """Allow writes again after ``fence``; do nothing if the store is not fenced.

        Raises:
            Unsupported: without FENCE.
        """
        raise Unsupported(Capability.FENCE)

    @abc.abstractmethod
    def close(self) -> None:
        """Close watches, end threads, and release files and connections, within two seconds."""


@attrs.frozen
class NoOptions:
    """The options class of a backend that has no options."""


@attrs.frozen(kw_only=True)
class BackendInfo:
    """A plugin's declaration of its backend; creating one must not import the driver.

    ``name`` is the ``type`` in the configuration, the URL scheme and the name of the entry point.
    ``capabilities`` is what the backend can do; an open store may do less.
    ``options_class`` is an attrs class. Each field has a default, and a type into which values from
    TOML and URLs can be converted (str, int, float, bool, tuple[str, ...], Secret, each optionally
    None). ``StorageConfig.options`` is validated against it. If opening a store can create one,
    declare ``create: bool = True``, and refuse a store that does not exist where it is false:
    commands that read a whole store open it so, since a mistyped name must not look like an empty
    store.
    ``factory`` opens the store and imports the driver. It is called with the whole
    ``StorageConfig`` and the validated options. It raises the errors of ``Backend``, and
    ``ConfigError`` for values that do not fit the backend.
    ``drivers`` names modules that the factory will import; ``revstore plugins check`` imports them
    to find out whether they work.
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
