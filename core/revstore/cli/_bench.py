"""The limits of a store: a measurement of a few seconds, under the store's real conditions."""

from __future__ import annotations

import os
import re
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from revstore.backend import Backend
from revstore.cacher import Cacher, CacherConfig
from revstore.codec import Codec
from revstore.deadlines import Deadline
from revstore.errors import (
    AccessDenied,
    Conflict,
    NotReady,
    ReadOnly,
    StorageError,
    Unsupported,
)
from revstore.factory import StorageFactory
from revstore.kinds import ResourceInfo, for_prefix
from revstore.plugins import open_transformer
from revstore.transform import Transformer
from revstore.values import KeyValue

__all__ = ["Bench", "Row", "milliseconds"]

# Its keys are "/revstore.bench/NAME" below the store's prefix. A segment with a dot is a group, and
# below it come a resource and then a name. So these keys belong to no resource, and no registry has
# them.
_INFO = ResourceInfo("bench", "Bench", "revstore.bench", namespaced=False)
_ROOT = "/revstore.bench"
_NAME = re.compile(r"[0-9a-f]{16}-[0-9]{5}")
# Seconds for everything, for one row, and for removing what was written.
_ALL, _ROW, _REMOVAL = 6.0, 0.4, 5.0
# A resource with more objects is not read as a whole, as the cache would read it.
_MANY = 2000
_PAGE = 100
# The most bytes that are written for an object.
_LARGEST = 100_000
# About what sqlite appends to its log for a write of an object of 1 KB.
_SYNCED = bytes(16 * 1024)
# What a store may refuse, or lack, while the other rows are still useful.
_REFUSALS = (AccessDenied, ReadOnly, Unsupported, NotReady)


@attrs.frozen
class Row:
    """The result of a measurement: the seconds that each of several attempts took, sorted; or in
    ``note`` why it could not be measured."""

    name: str
    about: str = ""
    seconds: tuple[float, ...] = ()
    note: str = ""

    @property
    def median(self) -> float:
        """The median of ``seconds``, which must not be empty."""
        return statistics.median(self.seconds)

    @property
    def slow(self) -> float:
        """The time within which nine of ten attempts finished."""
        return self.seconds[len(self.seconds) * 9 // 10]


@attrs.frozen
class _Sample:
    """A typical object: the one of median size of a resource, or an invented one."""

    obj: Any
    value: bytes
    about: str
    codec: Codec[Any]
    transformer: Transformer
    #: The resource, which has few enough objects to be read, and the object's key in it.
    info: ResourceInfo | None = None
    count: int = 0
    key: str = ""

    def encoded(self, key: str, obj: Any) -> bytes:
        """Return the bytes that are stored for ``obj`` at the backend's ``key``."""
        return self.transformer.transform_to_storage(self.codec.encode(obj), key.encode())

    def decoded(self, key: str, value: bytes) -> Any:
        """Return the object that is stored."""
        return self.codec.decode(self.transformer.transform_from_storage(value, key.encode())[0])


class Bench:
    """One measurement of a factory's main store, at most ``times`` attempts a row.

    It runs in this thread alone, sends about a hundred small requests, and ends by one deadline. It
    writes below its own prefix and removes that at its end, also after an interrupt. If a run was
    killed, the next one removes first what it left.
    """

    def __init__(self, factory: StorageFactory, *, times: int = 25) -> None:
        self._factory = factory
        self._backend: Backend = factory.backend()
        self._config = factory.config
        self._times = times
        self._deadline = Deadline(_ALL, _ROOT)
        self._physical = f"{self._config.prefix.rstrip('/')}{_ROOT}/"
        self._own = f"{self._physical}{secrets.token_hex(8)}-"
        self._began_writing = False
        self._written: dict[str, int] = {}
        #: In the order of measuring; an error ends it and leaves those before.
        self.rows: list[Row] = []

    def run(self) -> None:
        """Measure. It raises the store's errors, except refusals."""
        try:
            try:
                self._measure()
            finally:
                self._remove_own()
        except BaseException:
            # An interrupt may have come while it was removed.
            self._remove_own()
            raise

    @property
    def summary(self) -> str:
        """One sentence about the limit of writes, or of reads if no write was possible."""
        median = {row.name: row.median for row in self.rows if row.seconds}
        kind, request = ("Writes", "put") if "put" in median else ("Reads", "get")
        if request not in median:
            return "Neither writes nor reads could be measured."
        codec = median.get("decode", 0.0)
        if request == "put":  # what is written is read back first
            codec += median.get("encode", 0.0)
        parts = {"the codec": codec}
        left = median[request]
        for name, called, is_part in (
            ("disk sync", "disk sync", request == "put"),
            ("round trip", "the network", self._remote),
        ):
            if is_part and name in median:
                parts[called] = min(median[name], left)
                left -= parts[called]
        parts["the server, its disk included" if self._remote else "the store itself"] = left
        most = max(parts, key=parts.__getitem__)
        part, whole = milliseconds(parts[most]), milliseconds(median[request] + codec)
        return f"{kind} are limited by {most}: {part} of {whole} ms."

    @property
    def _remote(self) -> bool:
        return bool(self._config.server_list)

    # --- the rows ------------------------------------------------------------------------------

    def _measure(self) -> None:
        backend = self._backend
        absent = f"{self._own}absent"
        backend.get(absent, timeout=self._deadline.left())  # connects
        with self._row("round trip", "a read of nothing") as attempt:
            attempt(lambda: backend.get(absent, timeout=self._deadline.left()))
        sample = self._sample()
        with self._row("encode", sample.about) as attempt:
            attempt(lambda: sample.encoded(absent, sample.obj))
        with self._row("decode", sample.about) as attempt:
            attempt(lambda: sample.decoded(sample.key or absent, sample.value))
        with self._row("leftovers", ""):
            self._remove(self._physical)
        size = min(len(sample.value), _LARGEST)
        with self._row("put", f"a new object of {size} bytes") as attempt:
            attempt(lambda: self._put(sample, size))
        if self._written:
            self._measure_disk()
            self._measure_events(sample, size)
        self._measure_reads(sample)

    def _measure_disk(self) -> None:
        options = self._config.options
        if self._config.resolved_type != "sqlite" or options.get("synchronous", "FULL") != "FULL":
            return
        folder = Path(options.get("path", "revstore.db")).resolve().parent
        sync = getattr(os, "fdatasync", os.fsync)
        # Without a name, so that nothing remains of it.
        with (
            self._row("disk sync", f"{len(_SYNCED)} bytes to a file in {folder}") as attempt,
            tempfile.TemporaryFile(dir=folder, buffering=0) as file,
        ):
            attempt(lambda: (file.write(_SYNCED), sync(file.fileno())))

    def _measure_events(self, sample: _Sample, size: int) -> None:
        with (
            self._row("write to event", "a put, until a watch shows it") as attempt,
            self._backend.watch(
                self._own, recursive=True, after_revision=max(self._written.values())
            ) as watch,
        ):

            def written_and_seen() -> None:
                revision = self._put(sample, size)
                while watch.position < revision:
                    watch.poll(self._deadline.left())

            attempt(written_and_seen)

    def _measure_reads(self, sample: _Sample) -> None:
        backend = self._backend
        root = self._config.prefix.rstrip("/")
        prefix, info, count, about = self._physical, _INFO, len(self._written), "its own"
        key = next(iter(self._written), "")
        if sample.info is not None:
            info, count, key = sample.info, sample.count, sample.key
            about = info.qualified
            root = self._config.for_resource(info.qualified).prefix.rstrip("/")
            prefix = f"{root}{info.prefix}/"
        if not key:
            return
        with self._row("get", about) as attempt:
            attempt(lambda: backend.get(key, timeout=self._deadline.left()))
        with self._row("list page", f"{about}, {min(count, _PAGE)} objects") as attempt:
            attempt(lambda: backend.list(prefix, limit=_PAGE, timeout=self._deadline.left()))
        resource_type = attrs.evolve(
            self._factory.resource_type(dict, info),
            resource_prefix=_ROOT if sample.info is None else info.prefix,
        )
        storage = self._factory.storage(resource_type, resource=info)
        config = CacherConfig(storage=storage, resource_type=resource_type)
        start = time.perf_counter()
        with self._row("cache ready", f"{about}, {count} objects"), Cacher(config) as cache:
            cache.wait_ready(self._deadline.left() or 0.0)
            self._add("cache ready", f"{about}, {count} objects", [time.perf_counter() - start])
            logical = key[len(root) :]
            with self._row("cached get", about) as attempt:
                attempt(lambda: cache.get(logical, resource_version="0", ignore_not_found=True))
            with self._row("cached list", f"{about}, {count} objects") as attempt:
                attempt(
                    lambda: cache.list(
                        resource_type.root, resource_version="0", even_if_corrupt=True
                    )
                )

    # --- small things --------------------------------------------------------------------------

    def _sample(self) -> _Sample:
        """Return an object of the resource that has the most objects, up to a limit."""
        best: tuple[int, ResourceInfo, str] | None = None
        config = self._config
        with self._row("sample", "an object of the store"):
            for prefix in self._factory.stored_resources():
                info = for_prefix(prefix, config.resources)
                name = info.qualified
                if self._factory.backend(name) is not self._backend:
                    continue
                place = f"{config.for_resource(name).prefix.rstrip('/')}{prefix}/"
                count = self._backend.count(place, timeout=self._deadline.left()).count
                if 0 < count <= _MANY and (best is None or count > best[0]):
                    best = count, info, place
            if best is not None:
                sample = self._typical(*best)
                if sample is not None:
                    return sample
        return self._made_up()

    def _typical(self, count: int, info: ResourceInfo, place: str) -> _Sample | None:
        config = self._config.for_resource(info.qualified)
        page = self._backend.list(place, limit=_PAGE, timeout=self._deadline.left())
        kvs: list[KeyValue] = sorted(page.kvs, key=lambda kv: len(kv.value))
        if not kvs:
            return None
        typical = kvs[len(kvs) // 2]
        codec = self._factory.resource_type(dict, info).codec
        transformer = open_transformer(config, info.qualified)
        about = f"one of {info.qualified}, {len(typical.value)} bytes"
        made = _Sample(None, typical.value, about, codec, transformer, info, count, typical.key)
        try:
            return attrs.evolve(made, obj=made.decoded(typical.key, typical.value))
        except Exception:  # noqa: BLE001 - the codec's and the transformer's own
            return None

    def _made_up(self) -> _Sample:
        codec = self._factory.resource_type(dict, _INFO).codec
        config = self._config
        transformer = open_transformer(config, _INFO.qualified)
        obj = _padded(1000)
        made = _Sample(obj, b"", "", codec, transformer)
        value = made.encoded(f"{self._own}absent", obj)
        return attrs.evolve(made, value=value, about=f"one that is made up, {len(value)} bytes")

    def _put(self, sample: _Sample, size: int) -> int:
        """Write a new key, whose value has the size of a stored one but not its content. Return the
        revision."""
        key = f"{self._own}{len(self._written):05}"
        value = sample.encoded(key, _padded(size))
        self._began_writing = True
        done = self._backend.put(key, value, expected_revision=0, timeout=self._deadline.left())
        if not done.succeeded:
            raise Conflict(f"{key!r} was written by another client", key=key)
        self._written[key] = done.revision
        return done.revision

    def _remove_own(self) -> None:
        # A store that may not be written, and so is empty, may refuse the list too.
        if self._began_writing:
            with self._row("removal", ""):
                self._remove(self._own)

    def _remove(self, prefix: str) -> None:
        deadline = Deadline(_REMOVAL, prefix)
        kvs = self._backend.list(prefix, keys_only=True, timeout=deadline.left()).kvs
        for kv in kvs:
            if not _NAME.fullmatch(kv.key.removeprefix(self._physical)):
                continue  # of a resource, should there be such a group
            self._backend.delete(kv.key, expected_revision=kv.revision, timeout=deadline.left())

    @contextmanager
    def _row(self, name: str, about: str) -> Iterator[Callable[[Callable[[], object]], None]]:
        """Yield a function that makes attempts, and add their row; if the store refuses, add a
        note."""

        def attempt(call: Callable[[], object]) -> None:
            seconds: list[float] = []
            end = time.perf_counter() + _ROW
            while len(seconds) < self._times and (not seconds or time.perf_counter() < end):
                start = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - start)
            self._add(name, about, seconds)

        try:
            yield attempt
        except _REFUSALS as error:
            self.rows.append(Row(name, note=f"not measured: {error}"))
        except StorageError:
            raise  # some are errors of the system too
        except OSError as error:
            self.rows.append(Row(name, note=f"not measured: {error.strerror}"))

    def _add(self, name: str, about: str, seconds: list[float]) -> None:
        self.rows.append(Row(name, about, tuple(sorted(seconds))))


def _padded(size: int) -> dict[str, Any]:
    """Return an object of about ``size`` bytes."""
    padding = secrets.token_hex(max(0, size - 50) // 2)
    return {"metadata": {"name": "bench"}, "padding": padding}


def milliseconds(seconds: float) -> str:
    """Write ``seconds`` as milliseconds, with as many digits as are meaningful."""
    number = seconds * 1000
    return f"{number:.{0 if number >= 100 else 1 if number >= 1 else 3}f}"
