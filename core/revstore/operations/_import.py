"""Objects from manifests into a store, as an export wrote them."""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from revstore import kinds
from revstore.backend import Transaction
from revstore.errors import (
    ConfigError,
    Conflict,
    CorruptObject,
    InvalidArgument,
    InvalidObject,
    KeyExists,
    KeyNotFound,
    LeaseNotFound,
    StorageError,
    TransactionTooLarge,
    Unsupported,
    ValueTooLarge,
)
from revstore.factory import StorageFactory
from revstore.kinds import ResourceInfo
from revstore.manifests import Manifest
from revstore.objects import metadata_value, with_metadata
from revstore.operations._export import NAMED, TTL_ANNOTATION, key_of
from revstore.operations._leasing import Leasing
from revstore.operations._manifest_streams import manifests_of
from revstore.operations._marker import check_complete
from revstore.operations._progress import Meter, OnProgress
from revstore.operations._target import TRANSACTION_BYTES, TRANSACTION_KEYS, keys_in
from revstore.plugins import open_transformer
from revstore.registry import Registry
from revstore.storage import ResponseMeta, Storage, WithTTL
from revstore.typed import TypedStorage
from revstore.values import Capability

__all__ = ["BrokenReference", "Failure", "ImportResult", "import_objects"]

_MAX_TTL = (1 << 31) - 1
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")
# Seconds by which the same expiry may be read differently, and the part of a ttl by which a store
# may let several objects expire together, later than asked.
_TOLERANCE, _LATER = 2.0, 0.05
_MOMENT = "expires at another moment"
# Other objects may succeed.
_OF_OBJECTS = (InvalidArgument, Conflict, CorruptObject, KeyExists, ValueTooLarge)
# One of a transaction's objects may be to blame.
_OF_SOME = (*_OF_OBJECTS, LeaseNotFound, TransactionTooLarge, Unsupported)
# Seconds for finding out what an interrupted transaction has written.
_LAST = 2.0


@attrs.frozen
class Failure:
    """An object that was not stored; ``where`` is its place in the source."""

    where: str
    key: str
    reason: str


@attrs.frozen
class BrokenReference:
    """An owner reference of the object ``key`` to a uid that its owner no longer has."""

    key: str
    owner: str
    uid: str


@attrs.frozen
class ImportResult:
    """How many objects were created, replaced, and found unchanged.

    ``failed`` were not stored; ``failures`` are the first 100 of them. ``broken`` owner references
    name uids of before the import; ``references`` are the first 100 of them. ``other_expiry`` of
    the unchanged objects expire, but at another moment than their manifests say. ``complete`` is
    false if an exception ended the import.
    """

    created: int
    replaced: int
    unchanged: int
    failed: int
    failures: tuple[Failure, ...]
    broken: int
    references: tuple[BrokenReference, ...]
    other_expiry: int
    complete: bool


def import_objects(
    factory: StorageFactory,
    sources: Iterable[str | os.PathLike[str]],
    *,
    preserve_uids: bool = False,
    overwrite: bool = False,
    timeout: float | None = None,
    on_progress: OnProgress | None = None,
    on_end: Callable[[ImportResult], object] | None = None,
) -> ImportResult:
    """Store the objects of manifests: of files, of folders, or of "-", standard input.

    With ``preserve_uids`` they are stored as they are, with uid, creation time, generation and
    status. Without, they are new objects: uid, creation time and generation are fresh, and owner
    references to imported objects break. An object that the store has is left alone; if it differs,
    that is a failure, or with ``overwrite`` it is replaced. So a repetition goes on after an
    interruption. If the manifests have an object twice and differ, the second one is a failure.

    The annotation "revstore/ttl-seconds" becomes the object's expiry, counted from this call. An
    object of which the store or the manifest alone says that it expires differs. If both do, but
    not at the same moment, only ``overwrite`` changes the moment.

    A store with TRANSACTIONS gets up to 100 objects in one. ``timeout`` is in seconds, for each
    request. ``on_end`` is called with the result, even if an exception ends the import.

    Raises:
        ManifestError: a source cannot be read, or a document in it is not an object.
        InvalidArgument: a folder has an export that is incomplete.
        StoreInUse: an operation that fills the store is unfinished.
    """
    run = _Import(factory, preserve_uids=preserve_uids, overwrite=overwrite, timeout=timeout)
    meter = Meter(on_progress, "importing")
    try:
        for manifest in manifests_of(sources):
            run.take(manifest)
            meter.add()
        run.flush()
        meter.finish()
        run.complete = True
    except BaseException as error:
        run.end_early()
        if isinstance(error, InvalidArgument):  # of a source: what came before it is stored
            run.flush()
        raise
    finally:
        if on_end is not None:
            on_end(run.result())
    return run.result()


class _Places:
    """Where the objects were in the input. Millions fit into memory."""

    def __init__(self) -> None:
        self._sources: list[str] = []
        self._places: dict[str, int] = {}

    def earlier(self, key: str, manifest: Manifest) -> str:
        """Return the place of an earlier object with the same key, "" if this is the first."""
        if not self._sources or self._sources[-1] != manifest.source:
            self._sources.append(manifest.source)
        place = len(self._sources) - 1 << 64 | manifest.document << 32 | manifest.line
        first = self._places.get(key)
        if first is None:  # not by comparing places: items of a list may be on one line
            self._places[key] = place
            return ""
        source, document, line = first >> 64, first >> 32 & 0xFFFFFFFF, first & 0xFFFFFFFF
        return attrs.evolve(
            manifest, source=self._sources[source], document=document, line=line
        ).where


@attrs.frozen(eq=False)
class _Item:
    """An object of a manifest. Once it is ready to be written, ``value`` is for the backend's key
    ``physical``, and ``stored`` is what readers will get."""

    manifest: Manifest
    target: _Target
    key: str
    obj: Any
    ttl: float
    physical: str = ""
    value: bytes = b""
    stored: Any = None


class _Import:
    def __init__(
        self,
        factory: StorageFactory,
        *,
        preserve_uids: bool,
        overwrite: bool,
        timeout: float | None,
    ) -> None:
        self._factory = factory
        self._preserve = preserve_uids
        self._overwrite = overwrite
        self._timeout = timeout
        self._began = time.monotonic()
        self._targets: dict[ResourceInfo, _Target] = {}
        self._leasings: dict[int, Leasing] = {}
        self._kinds = {each.prefix: each.kind for each in kinds.known(factory.config.resources)}
        self._created = self._replaced = self._unchanged = self._failed = 0
        self._other_expiry = 0
        self.complete = False
        self._places = _Places()
        #: Different objects of one store.
        self._staged: list[_Item] = []
        self._bytes = 0
        #: What a transaction writes while it is not known whether it has.
        self._unsure: list[_Item] = []
        self._failures: list[Failure] = []
        #: The uids of before that are no longer those of their objects.
        self._gone: set[str] = set()
        self._references: list[BrokenReference] = []

    def take(self, manifest: Manifest) -> None:
        """Store one object now or with the next ``flush``, or count why not."""
        key = ""
        try:
            info = kinds.for_object(manifest.object, self._factory.config.resources)
            obj, ttl = _without_ttl(manifest.object)
            namespace, key = key_of(info, obj)
            if namespace:
                obj = with_metadata(obj, namespace=namespace)
            target = self._targets.get(info)
            if target is None:
                target = self._targets[info] = self._open(info)
            self._check_kind(info)
            earlier = self._places.earlier(key, manifest)
            leasing = self._leasing_of(target)
            if earlier or not target.together or (ttl and leasing.ttl_is_lease is None):
                self.flush()
                self._take_alone(_Item(manifest, target, key, obj, ttl), earlier)
                return
            item = _Item(manifest, target, key, obj, ttl, *target.unstored(key, obj))
        except _OF_OBJECTS as error:
            self.flush()
            self._fail(manifest, key, error)
            return
        size = len(item.physical) + len(item.value)
        staged = self._staged
        if staged and (
            len(staged) == TRANSACTION_KEYS
            or self._bytes + size > TRANSACTION_BYTES
            or staged[0].target.backend is not target.backend
        ):
            self.flush()
        self._staged.append(item)
        self._bytes += size

    def flush(self) -> None:
        """Store what ``take`` has left to be stored."""
        staged, self._staged, self._bytes = self._staged, [], 0
        self._write(staged)

    def end_early(self) -> None:
        """Count what an interrupted transaction has written."""
        end = time.monotonic() + _LAST
        unsure, self._unsure = self._unsure, []
        with contextlib.suppress(StorageError):
            for each in unsure:
                left = end - time.monotonic()
                kv = each.target.backend.get(each.physical, timeout=left).kv
                self._created += kv is not None and kv.value == each.value

    def _write(self, staged: list[_Item]) -> None:
        """Create what the store does not have in one transaction, and the rest one by one."""
        new: list[_Item] = []
        known = True
        try:
            if staged:
                new = self._create(staged)
        except _OF_SOME as error:
            self._unsure = []
            half = len(staged) // 2
            if half and isinstance(error, TransactionTooLarge):
                self._write(staged[:half])
                self._write(staged[half:])
                return
            known = False
        # At once, so that not even a signal comes between the two.
        self._created, self._unsure = self._created + len(new), []
        created = set(new)
        for each in staged:
            if each in created:
                self._note(each.key, each.obj, each.stored)
            else:
                self._take_alone(each, there=known)

    def _create(self, staged: list[_Item]) -> list[_Item]:
        """Create the objects that the store does not have, and return them."""
        ordered = sorted(staged, key=lambda each: each.physical)
        keys = [each.physical for each in ordered]
        leasing = self._leasing_of(staged[0].target)
        ends = [
            leasing.choose(self._began + each.ttl, 0) if each.ttl else (0, 0) for each in ordered
        ]

        def body(transaction: Transaction) -> list[_Item]:
            read = keys_in(transaction, keys, keys_only=True)
            new = []
            for each, (ttl, lease) in zip(ordered, ends, strict=True):
                if read(each.physical) is None:
                    transaction.put(each.physical, each.value, ttl=ttl, lease=lease)
                    new.append(each)
            self._unsure = new
            return new

        return staged[0].target.backend.transaction(body, timeout=self._timeout).value

    def _leasing_of(self, target: _Target) -> Leasing:
        key = id(target.backend)
        if key not in self._leasings:
            self._leasings[key] = Leasing(target.backend, keep=False, timeout=self._timeout)
        return self._leasings[key]

    def _correct(self, item: _Item) -> None:
        """Give an object that was just stored a lease that ends with it, where ttls are leases: the
        store may have let it share one that ends later."""
        leasing, backend = self._leasing_of(item.target), item.target.backend
        if not item.ttl or leasing.ttl_is_lease is False:
            return
        key = item.target.physical(item.key)
        kv = backend.get(key, timeout=self._timeout).kv
        if leasing.ttl_is_lease is None:
            leasing.find_out(kv)
        if kv is None or not leasing.ttl_is_lease:
            return
        _, lease = leasing.choose(self._began + item.ttl, 0)

        def body(transaction: Transaction) -> None:
            now = transaction.get(key)
            if now is not None and now.revision == kv.revision:
                transaction.put(key, kv.value, lease=lease)

        with contextlib.suppress(LeaseNotFound):  # it ends at this moment
            backend.transaction(body, timeout=self._timeout)

    def _take_alone(self, item: _Item, earlier: str = "", *, there: bool = False) -> None:
        try:
            stored = self._store(item, earlier, there=there)
        except _OF_OBJECTS as error:
            self._fail(item.manifest, item.key, error)
            return
        self._note(item.key, item.obj, stored)

    def _fail(self, manifest: Manifest, key: str, error: StorageError) -> None:
        if isinstance(error, ConfigError):
            raise error  # no object is to blame
        self._failed += 1
        if len(self._failures) < NAMED:
            self._failures.append(Failure(manifest.where, key, str(error)))

    def _left(self, ttl: float) -> int:
        """Return the seconds that are left of ``ttl``, counted from the beginning of the import."""
        return max(1, math.ceil(ttl - (time.monotonic() - self._began))) if ttl else 0

    def _open(self, info: ResourceInfo) -> _Target:
        config = self._factory.config.for_resource(info.qualified)
        backend = self._factory.backend(info.qualified)
        check_complete(backend, config.prefix, timeout=self._timeout)
        return _Target(self._factory, info, preserve=self._preserve)

    def _store(self, item: _Item, earlier: str, *, there: bool) -> Any:
        """Create the object, unless it is ``there``; then compare it, and maybe replace it."""
        target, key, obj = item.target, item.key, item.obj
        while True:
            left = self._left(item.ttl)
            if not there:
                try:
                    stored = target.create(key, obj, left, self._timeout)
                except KeyExists:
                    pass
                else:
                    self._created += 1
                    self._correct(item)
                    return stored
            try:
                current = target.get(key, self._timeout)
                differs = "differs"
                if target.equal(key, obj, current):
                    differs = target.other_expiry(key, left, self._timeout)
                    if not differs or (differs == _MOMENT and not (self._overwrite or earlier)):
                        self._unchanged += 1
                        self._other_expiry += bool(differs)
                        return current
                if earlier:
                    message = f"{key!r} is already in {earlier}, and this one {differs}"
                    raise Conflict(message, key=key)
                if not self._overwrite:
                    message = f"the object under {key!r} exists and {differs}"
                    raise Conflict(message, key=key)
                stored = target.replace(key, obj, left, self._timeout)
            except KeyNotFound:  # it was deleted meanwhile
                there = False
                continue
            self._replaced += 1
            self._correct(item)
            return stored

    def _check_kind(self, info: ResourceInfo) -> None:
        """Refuse a kind if objects of another one have its keys."""
        known = self._kinds.get(info.prefix)
        if known is None:
            found = self._factory.registry(info, namespaced=True).list(limit=1)
            kind = found[0].get("kind") if len(found) else None
            known = self._kinds[info.prefix] = kind if isinstance(kind, str) else info.kind
        if known != info.kind:
            raise InvalidObject("kind", info.kind, f"{known!r}, which has the same plural")

    def _note(self, key: str, obj: Any, stored: Any) -> None:
        """Remember what breaks if the object has another uid now."""
        if self._preserve:
            return
        uid = metadata_value(obj, "uid")
        if isinstance(uid, str) and uid and uid != metadata_value(stored, "uid"):
            self._gone.add(uid)
        references = metadata_value(obj, "owner_references")
        for each in references if isinstance(references, list) else ():
            if isinstance(each, Mapping) and isinstance(each.get("uid"), str):
                owner = f"{each.get('kind')}/{each.get('name')}"
                self._references.append(BrokenReference(key, owner, each["uid"]))

    def result(self) -> ImportResult:
        broken = [each for each in self._references if each.uid in self._gone]
        return ImportResult(
            self._created,
            self._replaced,
            self._unchanged,
            self._failed,
            tuple(self._failures),
            len(broken),
            tuple(broken[:NAMED]),
            self._other_expiry,
            self.complete,
        )


class _Unstored(TypedStorage[Any]):
    """A storage that creates nothing, but has in ``last`` what it would have written."""

    last: tuple[str, bytes, Any]

    def create(self, key: str, obj: Any, *, ttl: int = 0, timeout: float | None = None) -> Any:
        self.last = self.unstored(key, obj, ttl=ttl)
        return self.last[2]


class _Target:
    """Where the objects of one resource go: as they are into the storage, or as new ones into the
    registry."""

    def __init__(self, factory: StorageFactory, info: ResourceInfo, *, preserve: bool) -> None:
        config = factory.config.for_resource(info.qualified)
        resource_type = factory.resource_type(dict, info)
        self._preserve = preserve
        self._registry: Registry[Any] = factory.registry(info)
        self._storage: Storage[Any] = factory.storage(dict, resource=info)
        self._encode = resource_type.codec.encode
        self._prefix = config.prefix.rstrip("/")
        self.backend = factory.backend(info.qualified)
        self.together = Capability.TRANSACTIONS in self.backend.capabilities
        self._unstored = _Unstored(
            self.backend,
            resource_type,
            prefix=config.prefix,
            transformer=open_transformer(config, info.qualified),
        )
        self._new: Registry[Any] = Registry(
            self._unstored, resource_prefix=info.prefix, namespaced=info.namespaced
        )

    def unstored(self, key: str, obj: Any) -> tuple[str, bytes, Any]:
        """Return the backend's key and the bytes that ``create`` would write, and what it would
        return, without a resource version."""
        if self._preserve:
            self._unstored.create(key, _bare(obj))
        else:
            self._new.create(obj)
        return self._unstored.last

    def physical(self, key: str) -> str:
        """Return the backend's key."""
        return self._prefix + key

    def create(self, key: str, obj: Any, ttl: int, timeout: float | None) -> Any:
        if self._preserve:
            return self._storage.create(key, _bare(obj), ttl=ttl, timeout=timeout)
        return self._registry.create(obj, ttl=ttl, timeout=timeout)

    def get(self, key: str, timeout: float | None) -> Any:
        return self._storage.get(key, timeout=timeout)

    def equal(self, key: str, obj: Any, current: Any) -> bool:
        """Return whether the store has the object already, apart from what ``create`` makes."""
        if not self._preserve:
            fields = ("uid", "creation_timestamp", "generation")
            same = {name: metadata_value(current, name) or None for name in fields}
            obj = with_metadata(obj, **same)
        return self._encode(_bare(obj)) == self._encode(_bare(current))

    def other_expiry(self, key: str, ttl: int, timeout: float | None) -> str:
        """Return in which way the stored object expires differently, "" if it does not; ``ttl`` is
        the seconds that are left according to the manifest, 0 for ever."""
        physical = self.physical(key)
        kv = self.backend.get(physical, timeout=timeout).kv
        expires = kv is not None and kv.lease != 0
        if expires != bool(ttl):
            return "differs in whether it expires"
        if not ttl or Capability.REMAINING_TTL not in self.backend.capabilities:
            return ""
        left = self.backend.remaining_ttl(physical, timeout=timeout)
        same = left is None or -_TOLERANCE <= left - ttl <= _TOLERANCE + ttl * _LATER
        return "" if same else _MOMENT

    def replace(self, key: str, obj: Any, ttl: int, timeout: float | None) -> Any:
        if self._preserve:
            new = WithTTL(_bare(obj), ttl)
            return self._storage.guaranteed_update(key, lambda *_: new, timeout=timeout)
        name, namespace = obj["metadata"]["name"], obj["metadata"].get("namespace")

        def update(current: Any, _: ResponseMeta) -> Any:
            uid = metadata_value(current, "uid") or None
            return WithTTL(with_metadata(_bare(obj), uid=uid), ttl)

        return self._registry.guaranteed_update(name, update, namespace, timeout=timeout)


def _bare(obj: Any) -> Any:
    return with_metadata(obj, resource_version=None, self_link=None)


def _without_ttl(obj: Any) -> tuple[Any, float]:
    """Return the object without the annotation of an export, and the seconds that it says."""
    annotations = dict(obj["metadata"].get("annotations") or {})
    text = annotations.pop(TTL_ANNOTATION, None)
    if text is None:
        return obj, 0.0
    if not (_SECONDS.fullmatch(text) and 0 < float(text) <= _MAX_TTL):
        field = f"metadata.annotations[{TTL_ANNOTATION!r}]"
        raise InvalidObject(field, text, f"seconds, above 0 and up to {_MAX_TTL}")
    return with_metadata(obj, annotations=annotations or None), float(text)
