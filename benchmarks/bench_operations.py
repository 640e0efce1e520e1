"""Operations on whole stores, beside the backend's own lists and batches of writes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import zstandard

from benchmarks._figures import Figure
from benchmarks._measure import in_turns, seconds
from revstore import StorageConfig
from revstore.backend import Backend
from revstore.operations import backup, copy, open_backup, restore, rewrite, verify
from revstore.plugins import open_backend
from revstore.resource_type import ResourceType
from revstore.typed import TypedStorage

__all__ = ["figures"]

OBJECTS = 20_000
PAGE = 2_000
BATCH = 100
REWRITTEN = 2_000
SQUEEZED = 500_000


def open_store(path: Path) -> Backend:
    """The backend, as users open it."""
    return open_backend(StorageConfig.from_url(f"sqlite:///{path}"))


def objects() -> Iterator[tuple[str, bytes]]:
    """Objects of about a kilobyte, of which a compression saves about two thirds."""
    words = random.Random(1)
    for number in range(OBJECTS):
        labels = {f"label-{each}": f"{words.getrandbits(64):x}" for each in range(20)}
        obj = {"metadata": {"name": f"pod-{number}", "labels": labels}, "spec": {"x": "y" * 300}}
        yield f"/registry/pods/default/pod-{number:08d}", json.dumps(obj).encode()


def fill(backend: Backend) -> None:
    """Write the objects in batches, as the backend's users can."""
    wanted = list(objects())
    for start in range(0, OBJECTS, BATCH):
        batch = wanted[start : start + BATCH]
        backend.transaction(lambda seen, batch=batch: [seen.put(*each) for each in batch])  # type: ignore[misc]


def list_all(backend: Backend) -> None:
    """Read all objects, page by page."""
    start, revision = "", 0
    while True:
        page = backend.list("", start=start, limit=PAGE, revision=revision)
        if not page.more:
            return
        start, revision = page.kvs[-1].key + "\0", page.revision


def squeeze(plain: bytes) -> None:
    """Compress the bytes of a backup as it does, about a page at a time."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj()
    for start in range(0, len(plain), SQUEEZED):
        compressor.compress(plain[start : start + SQUEEZED])
    compressor.flush()


def keep(plain: bytes, path: Path) -> None:
    """Add up and write the bytes of a backup as it does, about a page at a time."""
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        for start in range(0, len(plain), SQUEEZED):
            part = plain[start : start + SQUEEZED]
            digest.update(part)
            stream.write(part)
        stream.flush()
        os.fsync(stream.fileno())


def figures() -> Iterator[Figure]:
    """All figures of this part."""
    with tempfile.TemporaryDirectory(prefix="bench-", dir=".") as name:
        folder = Path(name)
        with open_store(folder / "from.db") as store:
            fill(store)
            yield from _backup(folder, store)
            yield from _copy(folder, store)
            yield from _verify(folder, store)
        yield from _restore(folder)
        yield from _memory(folder)
        yield from _rewrite(folder)


def _backup(folder: Path, store: Backend) -> Iterator[Figure]:
    def run(compression: str) -> float:
        path = folder / compression
        return seconds(lambda: backup(store, path, compression=compression))

    backup(store, folder / "none", compression="none")
    plain = (folder / "none").read_bytes()
    listed, squeezed, kept, *found = in_turns(
        5,
        lambda: seconds(lambda: list_all(store)),
        lambda: seconds(lambda: squeeze(plain)),
        lambda: seconds(lambda: keep(plain, folder / "kept")),
        lambda: run("none"),
        lambda: run("zstd"),
        lambda: run("gzip"),
    )
    for compression, took in zip(("uncompressed", "zstd", "gzip"), found, strict=True):
        yield Figure(
            name=f"backup, {OBJECTS:,} objects, {compression}",
            value=took / OBJECTS * 1e6,
            unit="us",
            bound=listed / OBJECTS * 1e6,
            bound_name="the backend's own list, page by page",
            relation="<=",
            target=None if compression == "gzip" else 1.3,
        )
    # What no backup can do without, even if nothing else took any time. The threads of a backup do
    # it side by side, which helps where cores share nothing.
    parts = {
        "uncompressed": (kept, "SHA-256 and writing the same bytes to a new file"),
        "zstd": (squeezed, "zstandard alone with the same bytes"),
    }
    for (name, (alone, what)), took in zip(parts.items(), found, strict=False):
        yield Figure(
            name=f"backup, {OBJECTS:,} objects, {name}, beside its parts",
            value=took / OBJECTS * 1e6,
            unit="us",
            bound=(listed + alone) / OBJECTS * 1e6,
            bound_name=f"the backend's own list, and then {what}",
        )


def _restore(folder: Path) -> Iterator[Figure]:
    numbers = count()

    def restored() -> float:
        with open_store(folder / f"to{next(numbers)}.db") as store:

            def run() -> None:
                with open_backup(folder / "none") as source:
                    restore(store, source)

            return seconds(run)

    def bare() -> float:
        with open_store(folder / f"to{next(numbers)}.db") as store:
            return seconds(lambda: fill(store))

    took, bound = in_turns(3, restored, bare)
    yield Figure(
        name=f"restore, {OBJECTS:,} objects, checked before and after",
        value=took / OBJECTS * 1e6,
        unit="us",
        bound=bound / OBJECTS * 1e6,
        bound_name="the same writes in batches, unchecked",
        relation="<=",
        target=1.3,
    )


def _copy(folder: Path, store: Backend) -> Iterator[Figure]:
    numbers = count()

    def copied() -> float:
        with open_store(folder / f"copy{next(numbers)}.db") as target:
            return seconds(lambda: copy(store, target))

    def bare() -> float:
        with open_store(folder / f"copy{next(numbers)}.db") as target:
            return seconds(lambda: list_all(store)) + seconds(lambda: fill(target))

    took, bound = in_turns(3, copied, bare)
    yield Figure(
        name=f"copy, {OBJECTS:,} objects, into an empty store",
        value=took / OBJECTS * 1e6,
        unit="us",
        bound=bound / OBJECTS * 1e6,
        bound_name="a list page by page, and the same writes in batches",
        relation="<=",
        target=1.3,
    )


def _verify(folder: Path, store: Backend) -> Iterator[Figure]:
    with open_store(folder / "other.db") as other:
        fill(other)
        took, bound = in_turns(
            3,
            lambda: seconds(lambda: verify(store, other)),
            lambda: seconds(lambda: list_all(store)) + seconds(lambda: list_all(other)),
        )
    yield Figure(
        name=f"verify, {OBJECTS:,} objects, two equal stores",
        value=took / OBJECTS * 1e6,
        unit="us",
        bound=bound / OBJECTS * 1e6,
        bound_name="a list of each, page by page",
        relation="<=",
        target=1.3,
    )


def _rewrite(folder: Path) -> Iterator[Figure]:
    """Every object is stale; each is written by itself, since another writer may come first."""
    some = list(objects())[:REWRITTEN]
    with open_store(folder / "rewrite.db") as store:
        store.transaction(lambda seen: [seen.put(*each) for each in some])
        pods = TypedStorage(store, ResourceType(dict, "/pods"))

        def bare() -> None:
            for kv in store.list("/registry/pods/").kvs:
                store.put(kv.key, kv.value, expected_revision=kv.revision, ttl=None)

        took, bound = in_turns(
            3,
            lambda: seconds(lambda: rewrite(pods, everything=True)),
            lambda: seconds(bare),
        )
    yield Figure(
        name=f"rewrite, {REWRITTEN:,} objects, all of them stale",
        value=took / REWRITTEN * 1e6,
        unit="us",
        bound=bound / REWRITTEN * 1e6,
        bound_name="a list, and a put of each object",
        relation="<=",
        target=None,
    )


_PEAK = """
import resource, sys
from pathlib import Path
from benchmarks.bench_operations import list_all, open_store
from revstore.operations import backup
with open_store(Path(sys.argv[1])) as store:
    list_all(store) if sys.argv[2] == "list" else backup(store, sys.argv[3], compression="zstd")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def _memory(folder: Path) -> Iterator[Figure]:
    def peak(what: str) -> float:
        words = [sys.executable, "-c", _PEAK, f"{folder}/from.db", what, f"{folder}/peak"]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return int(done.stdout) / 1024

    listed, backed_up = peak("list"), peak("backup")
    yield Figure(
        name=f"peak of a backup, {OBJECTS:,} objects, zstd",
        value=backed_up,
        unit="MB",
        bound=listed,
        bound_name="the process that only lists",
        relation="<=",
        target=None,
    )
