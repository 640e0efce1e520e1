"""What the tests run in other processes: ``worker.py TASK PATH ARGUMENT...``.

Lines on standard output tell the test what has been done; a write is told once it was
acknowledged. A line on standard input lets a task go on.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import sys
import threading
import time
import warnings

from revstore.errors import Compacted
from revstore.factory import open_storage
from revstore.storage import Storage
from revstore.testing._support import run_threads
from revstore_sqlite._backend import SQLiteBackend
from revstore_sqlite._options import SQLiteOptions

_telling = threading.Lock()


def tell(*words: object) -> None:
    # One write call a line, so that a kill never leaves half of an acknowledgement behind another;
    # and one thread at a time, as a full pipe takes a line in pieces.
    with _telling:
        sys.stdout.write("\t".join(map(str, words)) + "\n")
        sys.stdout.flush()


# Python 3.12 warns of forks with threads; that they work is what is tested.
warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)


def open_store(path: str) -> SQLiteBackend:
    return SQLiteBackend(SQLiteOptions(path=path, poll_interval=0.01))


def hammer(path: str, name: str, threads: str, rounds: str, total: str) -> None:
    """Write from many threads, and watch everything until ``total`` events have come."""
    with open_store(path) as backend, backend.watch("", recursive=True, after_revision=1) as watch:
        tell("ready")
        sys.stdin.readline()

        def write(index: int) -> None:
            key, revision = f"/{name}/{index}", 0
            for number in range(int(rounds)):
                value = f"{name} {index} {number}".encode()
                result = backend.put(key, value, expected_revision=revision)
                assert result.succeeded
                revision = result.revision
            assert backend.delete(key, expected_revision=revision).succeeded

        writers = threading.Thread(target=run_threads, args=(int(threads), write))
        writers.start()
        deadline = time.monotonic() + 60
        seen = 0
        while seen < int(total):
            batch = watch.poll(max(0.0, deadline - time.monotonic()))
            assert batch is not None, f"only {seen} of {total} events came"
            for event in batch.events:
                previous = "-" if event.previous is None else event.previous.value.decode()
                value = event.kv.value.decode()
                tell(batch.revision, event.type, event.kv.key, value, previous)
                seen += 1
        writers.join()


def count(path: str, threads: str, rounds: str) -> None:
    """Add one to a counter, again and again, from many threads."""
    with open_store(path) as backend:
        tell("ready")
        sys.stdin.readline()

        def add(_: int) -> None:
            done = 0
            current = backend.get("/counter").kv
            while done < int(rounds):
                assert current is not None
                value = str(int(current.value) + 1).encode()
                result = backend.put("/counter", value, expected_revision=current.revision)
                if result.succeeded:
                    done += 1
                    current = backend.get("/counter").kv
                else:
                    current = result.current

        run_threads(int(threads), add)


def open_pods(path: str) -> Storage[dict]:
    return open_storage(f"sqlite:///{path}?poll_interval=10ms", dict, resource="pods")


def typed_hammer(path: str, name: str, threads: str, rounds: str, total: str) -> None:
    """As ``hammer``, through typed storage: create, guaranteed_update, delete."""
    with open_pods(path) as storage, storage.changes("/pods", after=1) as changes:
        tell("ready")
        sys.stdin.readline()

        def change(index: int) -> None:
            key = f"/pods/{name}/{index}"
            storage.create(key, {"metadata": {"name": str(index)}, "data": f"{name} {index} 0"})
            for number in range(1, int(rounds)):
                storage.guaranteed_update(
                    key,
                    lambda pod, _, number=number: {**pod, "data": f"{name} {index} {number}"},
                )
            storage.delete(key)

        seen = []

        def follow() -> None:
            while len(seen) < int(total):
                batch = changes.poll(60)
                assert batch is not None, f"{len(seen)} events of {total}"
                for each in batch.changes:
                    previous = each.load_previous()
                    seen.append(
                        (
                            each.revision,
                            each.type,
                            each.key,
                            each.load()["data"],
                            previous["data"] if previous else "-",
                        )
                    )

        run_threads(
            int(threads) + 1, lambda index: follow() if index == int(threads) else change(index)
        )
        for row in seen:
            tell(*row)


def typed_count(path: str, threads: str, rounds: str) -> None:
    """Increment one counter by guaranteed_update, from many threads."""

    def increment(pod: dict, _: object) -> dict:
        return {**pod, "count": pod["count"] + 1}

    with open_pods(path) as storage:
        tell("ready")
        sys.stdin.readline()

        def work(_: int) -> None:
            for _ in range(int(rounds)):
                storage.guaranteed_update("/pods/a/counter", increment)

        run_threads(int(threads), work)


def write(path: str, seed: str) -> None:
    """Write and delete from four threads until killed, telling each acknowledged write."""
    with open_store(path) as backend:
        tell("ready")

        def work(index: int) -> None:
            dice = random.Random(f"{seed} {index}")
            while True:
                key = f"/{seed[-1]}{index}/{dice.randrange(20)}"  # nobody else's
                current = backend.get(key).kv
                revision = current.revision if current else 0
                if current and dice.random() < 0.2:
                    done = backend.delete(key, expected_revision=revision).revision
                    tell("deleted", done, key, "-")
                else:
                    value = f"{seed}-{index}-{dice.random()}" + "x" * dice.randrange(3000)
                    done = backend.put(key, value.encode(), expected_revision=revision).revision
                    tell("put", done, key, value)

        run_threads(4, work, patience=600)


def write_steps(path: str, name: str, keys: str) -> None:
    """Write many keys in one step, and give as many a lease and end it, again and again."""
    below = [f"/{name}/{number}" for number in range(int(keys))]
    leased = [f"/{name}/leased/{number}" for number in range(int(keys))]
    with open_store(path) as backend:
        leases = backend.leases()
        tell("ready")
        for number in range(1_000_000):
            value = b"%d" % number
            backend.transaction(lambda seen: [seen.put(key, value) for key in below])  # noqa: B023
            tell("wrote", number)
            lease = leases.grant(1000).id
            backend.transaction(
                lambda seen: [seen.put(key, b"", lease=lease) for key in leased]  # noqa: B023
            )
            tell("leased", lease)
            leases.revoke(lease)
            tell("ended", lease)


def forked_write(path: str, seed: str) -> None:
    """As ``write``, in a child that is forked, again and again, while a thread of the parent
    writes too; both are killed together. A signal's handler raises in the parent's main thread."""

    def interrupt(*_: object) -> None:
        raise InterruptedError

    signal.signal(signal.SIGALRM, interrupt)
    with open_store(path) as backend:
        tell("ready")
        threading.Thread(target=write_one, args=(backend, seed, "p"), daemon=True).start()
        for number in range(1_000_000):
            child = os.fork()
            if not child:
                with open_store(path) as mine:
                    write_one(mine, f"{seed}-{number}", "c", rounds=20)
                os._exit(0)
            with contextlib.suppress(InterruptedError):
                signal.setitimer(signal.ITIMER_REAL, 0.003)  # may strike at once on a busy machine
                while True:
                    backend.list("")
            assert os.waitpid(child, 0)[1] == 0


def write_one(backend: SQLiteBackend, seed: str, who: str, rounds: int = 1_000_000) -> None:
    """Write keys that nobody else writes, telling each acknowledged write."""
    for number in range(rounds):
        key, value = f"/{who}/{seed}/{number}", f"{seed}-{number}"
        done = backend.put(key, value.encode(), expected_revision=0, timeout=20)
        assert done.succeeded
        os.write(1, f"put\t{done.revision}\t{key}\t{value}\n".encode())


def compact(path: str) -> None:
    """Compact at each revision in turn until killed."""
    with open_store(path) as backend:
        tell("ready")
        while True:
            status = backend.status()
            wanted = min(status.compacted_revision + 700, status.revision)
            try:
                backend.compact(wanted)
            except Compacted:
                tell("done")
                return
            tell("compacted", wanted)


def hold(path: str) -> None:
    """Hold sqlite's write lock until told to let go."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    tell("held")
    sys.stdin.readline()
    connection.execute("ROLLBACK")
    connection.close()
    tell("released")


def put(path: str, key: str, ttl: str) -> None:
    """Write one key and end without closing anything, as if killed."""
    backend = open_store(path)
    tell(backend.put(key, b"value", expected_revision=0, ttl=int(ttl)).revision)
    sys.stdin.readline()


def attempt(path: str, user: str = "") -> None:
    """Open the store, read, and write, maybe as another user; tell what came of each."""
    if user:
        os.setuid(int(user))
    try:
        backend = open_store(path)
    except Exception as error:  # noqa: BLE001 - told to the test
        tell("open", type(error).__name__, error)
        return
    with backend:
        tell("open", "ok")
        tell("read", backend.count("").count)
        try:
            backend.put("/new", b"x" * 4096, expected_revision=0)
        except Exception as error:  # noqa: BLE001 - told to the test
            tell("write", type(error).__name__, error)
        else:
            tell("write", "ok")


def fill(path: str, size: str, ballast: str = "") -> None:
    """Write values until one is refused, tell why, then read everything back; then take the ballast
    from the disk, and go on."""
    with open_store(path) as backend:
        written = 0
        while True:
            try:
                backend.put(f"/{written}", b"x" * int(size), expected_revision=0)
            except Exception as error:  # noqa: BLE001 - told to the test
                tell("write", type(error).__name__, error)
                break
            written += 1
        tell("read", backend.count("").count, written)
        if ballast:
            os.remove(ballast)
            revision = backend.status().revision
            again = backend.put(f"/{written}", b"x" * int(size), expected_revision=0).revision
            with backend.watch("", recursive=True, after_revision=1, progress=False) as watch:
                keys = [
                    event.kv.key
                    for batch in iter(lambda: watch.poll(1), None)
                    for event in batch.events
                ]
            tell("again", again - revision, len(keys), keys[-1] == f"/{written}")


if __name__ == "__main__":
    task = globals()[sys.argv[1]]
    task(*sys.argv[2:])
