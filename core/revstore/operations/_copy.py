"""One store made equal to another, and kept equal while the other changes."""

from __future__ import annotations

import contextlib
import datetime
import secrets
import threading
import time
from collections.abc import Callable, Sequence

import attrs
import msgspec

from revstore.backend import Backend, BackendWatch
from revstore.deadlines import check_count
from revstore.errors import (
    Compacted,
    CorruptObject,
    InvalidArgument,
    LeaseNotFound,
    StorageError,
    StoreInUse,
)
from revstore.operations._backup import denied
from revstore.operations._compare import differences, in_backup, in_store
from revstore.operations._expiry import Expiries, left_of
from revstore.operations._file import Record
from revstore.operations._marker import (
    Marker,
    check_complete,
    clear_marker,
    find_begun,
    first_key,
    is_marker,
    marker_key,
    marker_of,
    set_marker,
)
from revstore.operations._progress import Meter, OnProgress
from revstore.operations._revision import raise_above
from revstore.operations._target import Target, is_enough
from revstore.values import Capability, KeyValue, WatchEventType

__all__ = ["CopyResult", "Copying", "copy"]

_OPERATION = "copy"
# How often it begins again if the source compacts what is being read.
_TRIES = 5
# Seconds between two looks at the source's revision, and at most between two notes of the position.
_LOOK = 1.0
_NOTE = 5.0
# Seconds by which the end of a lease may differ while it is followed.
_TOLERANCE = 1.0
# What expires so soon is not written any more.
_DUE = 1.0


@attrs.frozen
class CopyResult:
    """What a copy did.

    The target has the source's ``keys`` as they were at ``source_revision``; to get there, this
    call wrote ``written`` and deleted ``deleted`` of its keys. ``resumed`` says that it went on
    with an earlier call. ``complete`` is false if ``follow`` was stopped: then the target is still
    marked as incomplete, and the same call goes on. ``revision`` is the target's.
    ``old_versions_expire`` says that a client of the source gets ``Expired`` from the target for
    each resource version that it has seen; otherwise the target may take one for its own.
    """

    keys: int
    written: int
    deleted: int
    resumed: bool
    complete: bool
    source_revision: int
    revision: int
    old_versions_expire: bool


def copy(
    source: Backend,
    target: Backend,
    *,
    prefix: str = "",
    follow: bool = False,
    stop: threading.Event | None = None,
    replace: bool = False,
    leases: bool = True,
    bump: int | None = None,
    bump_by_writes: bool = False,
    timeout: float | None = None,
    on_progress: OnProgress | None = None,
) -> CopyResult:
    """Make ``target`` equal to ``source``, which may be in use, in all keys with ``prefix``.

    Values are copied as they are stored, and keys expire when they do in the source. The target
    must have no keys with this prefix, unless an earlier call was interrupted, which this one then
    continues; with ``replace`` it may, and loses those that the source does not have. Without
    ``leases``, keys that share a lease get a ttl each. Until the copy is complete, a key that ends
    in "/revstore.unfinished", which no reader of objects sees, says so.

    With ``follow`` it goes on with the source's changes until ``stop`` is set. If the source has
    compacted changes that it needs, it compares the stores again. A call without ``follow``
    completes the copy: as in ``restore``, ``bump`` and ``bump_by_writes`` then say how the target's
    revision is raised above that of the source.

    Raises:
        StoreInUse: the target has keys, or another operation is unfinished in one of the stores.
        InvalidArgument: source and target are one store, or ``bump`` is no number from 0 on.
        Compacted: the source compacts faster than it can be read.
        AccessDenied: the user may not use all keys with ``prefix``.
        CorruptObject: the stored bytes of a key do not fit their checksum.
        Unsupported: the target cannot hold a key, such as one that expires.
        ValueTooLarge: the target does not take a value.
    """
    stop = threading.Event() if stop is None else stop
    if bump is not None:
        check_count("bump", bump, 0)
    with denied(prefix):
        work = Copying(source, target, prefix, timeout, on_progress, leases)
        work.begin(replace=replace)
        revision = work.synchronize("copying")
        expire = False
        if follow:
            revision = work.follow(revision, stop)
        else:
            expire = work.finish(revision, bump, by_writes=bump_by_writes)
        return work.result(revision, complete=not follow, expire=expire)


@attrs.define(eq=False)
class Copying:
    """A copy that is under way."""

    source: Backend
    target: Backend
    prefix: str
    timeout: float | None
    on_progress: OnProgress | None
    leases: bool
    keys: int = 0
    written: int = 0
    deleted: int = 0
    resumed: bool = False
    #: What the marker has while this call may write.
    _run: str = attrs.field(factory=lambda: secrets.token_hex(8))
    #: Whether the target may have keys.
    _filled: bool = True
    _marker: Marker | None = None
    #: The source's revision up to which the target has everything.
    _position: int = 0
    #: When the keys of each lease expire in the target, and when to look at it again.
    _ends: dict[int, float] = attrs.field(factory=dict)
    _looks: dict[int, float] = attrs.field(factory=dict)
    _writer: Target = attrs.field(init=False)

    def begin(self, *, replace: bool) -> None:
        """Mark the target as incomplete, or find that an earlier call has done so.

        Raises:
            StoreInUse: the target is not ours to fill, or the source is incomplete itself.
            InvalidArgument: source and target are one store.
        """
        self._writer = self._new_writer(force=True)
        check_complete(self.source, self.prefix, timeout=self.timeout)
        status = self.source.status(timeout=self.timeout)
        other = self.target.status(timeout=self.timeout)
        if (status.store_id, status.server) == (other.store_id, other.server):
            message = "the target is the source: a store cannot be copied into itself"
            raise InvalidArgument("target", other.server, "another store", message=message)
        found = find_begun(self.target, self.prefix, timeout=self.timeout)
        if found is not None:
            ours = (_OPERATION, status.store_id, self.prefix)
            if (found.operation, found.source, found.details.get("prefix")) != ours:
                message = (
                    f"the target is incomplete: the operation {found.operation!r} from "
                    f"{found.source}, begun at {found.began} with {found.details}, is unfinished; "
                    "run it again, or choose an empty store"
                )
                raise StoreInUse(message, key=marker_key(self.prefix))
            self.resumed = True
            # An earlier call that still runs notices this with its next write, and ends.
            self._save(found.details.get("run", ""), {"run": self._run})
            return
        check_complete(self.target, self.prefix, timeout=self.timeout)
        first = first_key(self.target, self.prefix, timeout=self.timeout)
        if first and not replace and not self._is_equal():
            message = (
                f"the target is not empty: it has {first!r}; choose an empty store, or "
                "replace what it has (replace)"
            )
            raise StoreInUse(message, key=first)
        self._filled = bool(first)
        now = datetime.datetime.fromtimestamp(time.time(), datetime.UTC)
        details = {"prefix": self.prefix, "revision": "0", "run": self._run}
        began = now.isoformat(timespec="seconds")
        self._marker = Marker(_OPERATION, status.store_id, began, details)
        empty = not self._filled
        set_marker(self.target, self.prefix, self._marker, empty=empty, timeout=self.timeout)

    def _new_writer(self, *, force: bool) -> Target:
        return Target(
            self.target,
            force=force,
            leases=self.leases,
            check=self._check,
            timeout=self.timeout,
        )

    def _is_equal(self) -> bool:
        """Return whether the target has all already, as after a copy whose end nobody saw."""
        left = in_store(self.source, self.prefix, ttl=False, timeout=self.timeout)
        right = in_store(self.target, self.prefix, ttl=False, timeout=self.timeout)
        return not any(what for what, _, _ in differences(left, right, ttl=False))

    def synchronize(self, step: str) -> int:
        """Write and delete in the target what differs; return a revision of the source that it then
        has everything of."""
        for tries in range(_TRIES):
            revision = self.source.status(timeout=self.timeout).revision
            try:
                if self.compare_once(step) is not None:
                    break
            except Compacted:
                if tries == _TRIES - 1:
                    raise
        self._note(revision)
        return revision

    def compare_once(self, step: str) -> int | None:
        """Read both stores, and write and delete in the target what differs.

        Return how many keys differed. None: keys of a lease did not end at the same time; they were
        deleted, and have to be written again.
        """
        total = self.source.count(self.prefix, timeout=self.timeout).count
        meter = Meter(self.on_progress, step, total)
        began = time.monotonic()
        left = in_store(self.source, self.prefix, timeout=self.timeout)
        right = in_backup(())
        # To create keys costs less than to write keys that may be there.
        self._writer = self._new_writer(force=self._filled)
        if self._filled:
            right = in_store(self.target, self.prefix, timeout=self.timeout)
        self._filled = True
        changed = size = 0
        stale: set[int] = set()
        puts: list[Record] = []
        gone: list[str] = []
        for found, ours, theirs in differences(left, right, on_equal=meter.add):
            if ours is not None:
                meter.add()
            what = found or self._lease_difference(ours, theirs)
            if ours is not None and ours.lease:
                self._ends[ours.lease] = began + (ours.ttl or 0.0)
                self._looks.setdefault(ours.lease, 0.0)
            if not what:
                continue
            if ours is None:
                assert theirs is not None
                gone.append(theirs.key)
            elif what == "missing" and _is_due(ours, began):
                continue
            elif what == "ttl" and self._is_shared(ours, theirs):
                stale.add(ours.lease)
            else:
                puts.append(ours)
                size += len(ours.value)
            changed += 1
            if is_enough(len(puts) + len(gone), size):
                self._write([left_of(each, began) for each in puts], gone)
                puts, gone, size = [], [], 0
        self._write([left_of(each, began) for each in puts], gone)
        self.keys = meter.done
        meter.finish()
        self._writer = self._new_writer(force=True)
        for lease in stale:
            self._writer.end_lease(lease)
        return None if stale else changed

    def follow(
        self, after: int, stop: threading.Event, *, until: int = 0, patience: float | None = None
    ) -> int:
        """Apply the source's changes after ``after``; return the revision reached.

        It ends when ``stop`` is set, when ``until`` is reached, or after ``patience`` seconds.
        """
        self._position = after
        try:
            while True:
                try:
                    with self.source.watch(
                        self.prefix, recursive=True, after_revision=self._position
                    ) as watch:
                        self._follow(watch, stop, until, patience)
                    return self._position
                except Compacted:
                    self._position = self.synchronize("comparing again")
        finally:
            # The position is for people, and the next call compares the stores in any case.
            with contextlib.suppress(StorageError):
                self._note(self._position)

    def _follow(
        self, watch: BackendWatch, stop: threading.Event, until: int, patience: float | None
    ) -> None:
        meter = Meter(self.on_progress, "following", done=self._position)
        began = time.monotonic()
        look = note = 0.0
        marks = Capability.PROGRESS in self.source.capabilities
        while not stop.is_set() and (not until or self._position < until):
            now = time.monotonic()
            if patience is not None and now - began > patience:
                break
            if now >= look:
                look = now + _LOOK
                current = self.source.status(timeout=self.timeout).revision
                meter.total = max(current, self._position)
                if marks and current > self._position:
                    watch.request_progress()
                meter.add(0)
            if now >= note:
                note = now + _NOTE
                self._note(self._position)
            self.tend_leases()
            latest: dict[str, KeyValue | None] = {}
            position, size = self._position, 0
            batch = watch.poll(0.2)
            while batch is not None:
                for event in batch.events:
                    put = event.type == WatchEventType.PUT
                    latest[event.kv.key] = event.kv if put else None
                    size += len(event.kv.value)
                position = max(position, batch.revision)
                batch = None if is_enough(len(latest), size) else watch.poll(0)
            self._apply(latest)
            self._position = meter.done = position
            meter.add(0)

    def _apply(self, latest: dict[str, KeyValue | None]) -> None:
        expiries = Expiries(self.source, timeout=self.timeout)
        puts: list[Record] = []
        gone: list[str] = []
        for key, kv in latest.items():
            if is_marker(key):
                continue
            if kv is None:
                gone.append(key)
                continue
            if kv.damaged:
                raise CorruptObject(key, "the stored value does not match its checksum")
            ttl, lease = expiries.of(kv)
            if lease and lease not in self._ends:
                self._ends[lease] = expiries.began + (ttl or 0.0)
                self._looks[lease] = 0.0
            puts.append(Record(key, kv.value, ttl=ttl, lease=lease))
        self._write([left_of(each, expiries.began) for each in puts], gone)

    def _write(self, puts: Sequence[Record], gone: Sequence[str]) -> None:
        if gone:
            self._writer.delete(gone)
            self.deleted += len(gone)
        if puts:
            self._writer.write(puts)
            self.written += len(puts)

    def _is_shared(self, ours: Record, theirs: Record | None) -> bool:
        """Return whether the key's lease is one that the target has with the same id."""
        if theirs is None or not self._writer.keeps_leases:
            return False
        return ours.lease == theirs.lease != 0

    def _lease_difference(self, ours: Record | None, theirs: Record | None) -> str:
        if ours is None or theirs is None or not self._writer.keeps_leases:
            return ""
        return "lease" if ours.lease and ours.lease != theirs.lease else ""

    def tend_leases(self, *, everyone: bool = False) -> None:
        """Extend leases that were kept alive in the source, which no watch shows.

        By default it looks at those that need it in time; with ``everyone`` at each.
        """
        now = time.monotonic()
        due = [lease for lease, at in self._looks.items() if everyone or at <= now]
        if not due:
            return
        leases = self.source.leases(timeout=self.timeout)
        for lease in due:
            try:
                found = leases.get(lease, timeout=self.timeout)
            except LeaseNotFound:
                # The watch shows that its keys are gone.
                del self._ends[lease], self._looks[lease]
                continue
            end = time.monotonic() + found.remaining
            if end - self._ends[lease] > _TOLERANCE:
                keys = leases.get(lease, keys=True, timeout=self.timeout).keys
                self._writer.end_lease(lease)
                self._ends[lease] = end
                self._copy_keys([key for key in keys if key.startswith(self.prefix)])
            left = self._ends[lease] - time.monotonic()
            self._looks[lease] = time.monotonic() + max(0.2, (left - _TOLERANCE) / 2)

    def _copy_keys(self, keys: Sequence[str]) -> None:
        found = {key: self.source.get(key, timeout=self.timeout).kv for key in keys}
        self._apply(found)

    def _note(self, revision: int) -> None:
        """Note in the target which revision of the source it has reached."""
        assert self._marker is not None
        details = {"revision": str(revision)}
        if not details.items() <= self._marker.details.items():
            self._save(self._run, details)

    def _save(self, run: str, details: dict[str, str]) -> None:
        """Change details of the marker, which must be that of ``run``."""
        key = marker_key(self.prefix)
        while True:
            kv = self.target.get(key, timeout=self.timeout).kv
            if kv is None or (marker := marker_of(kv)).details.get("run") != run:
                raise self._taken_over()
            marker = msgspec.structs.replace(marker, details=marker.details | details)
            value = msgspec.json.encode(marker)
            put = self.target.put(key, value, expected_revision=kv.revision, timeout=self.timeout)
            if put.succeeded:
                self._marker = marker
                return
            # The call of ``run`` has noted its position meanwhile.

    def _check(self, get: Callable[[str], KeyValue | None]) -> None:
        """Check that the target is still this call's to fill."""
        kv = get(marker_key(self.prefix))
        if kv is None or marker_of(kv).details.get("run") != self._run:
            raise self._taken_over()

    def _taken_over(self) -> StoreInUse:
        message = "another call has gone on with this copy, or completed it"
        return StoreInUse(message, key=marker_key(self.prefix))

    def finish(self, revision: int, bump: int | None, *, by_writes: bool) -> bool:
        """Raise the target's revision, and remove the marker; return whether old resource versions
        expire."""
        self._check(lambda key: self.target.get(key, timeout=self.timeout).kv)
        expire = raise_above(
            self.target,
            self.prefix,
            revision,
            bump,
            by_writes=by_writes,
            timeout=self.timeout,
            on_progress=self.on_progress,
        )
        clear_marker(self.target, self.prefix, timeout=self.timeout)
        return expire

    def result(self, revision: int, *, complete: bool, expire: bool) -> CopyResult:
        """Return the result, with the target's revision of now."""
        return CopyResult(
            self.keys,
            self.written,
            self.deleted,
            self.resumed,
            complete,
            revision,
            self.target.status(timeout=self.timeout).revision,
            expire,
        )


def _is_due(record: Record, began: float) -> bool:
    """Return whether the record expires so soon that its key may be gone."""
    left = left_of(record, began).ttl
    return left is not None and left <= _DUE
