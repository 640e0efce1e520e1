"""What the fork tests run in a process of its own: ``forks.py TASK PATH ARGUMENT...``.

A task ends with status 0 if all went well; what did not is on standard error.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable

from revstore.errors import Closed, Unreachable
from revstore_sqlite._backend import SQLiteBackend
from revstore_sqlite._options import SQLiteOptions

# Python 3.12 warns of forks with threads; that they work is what is tested.
warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)


def open_store(path: str) -> SQLiteBackend:
    return SQLiteBackend(SQLiteOptions(path=path, poll_interval=0.01))


def fork(work: Callable[[], object]) -> int:
    """The process id of a child that does ``work``, and ends as a program ends or with status 1."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:  # noqa: BLE001 - told to the test
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def join(*children: int) -> None:
    for child in children:
        _, status = os.waitpid(child, 0)
        assert status == 0, f"a child ended with status {status}"


def put_many(path: str, name: str, count: int = 100) -> None:
    with open_store(path) as backend:
        for number in range(count):
            assert backend.put(f"/{name}/{number}", b"v", expected_revision=0, timeout=20).succeeded


def visit(path: str) -> None:
    """Open and close the store in a process that knows nothing of the others."""
    context = multiprocessing.get_context("spawn")
    visitor = context.Process(target=put_many, args=(path, f"visitor-{time.monotonic_ns()}", 1))
    visitor.start()
    visitor.join(60)
    assert visitor.exitcode == 0


def gate() -> tuple[Callable[[], None], Callable[[], None]]:
    """A function that waits, in whichever process, until the other one was called."""
    read, write = os.pipe()

    def open_gate() -> None:
        os.close(write)

    def wait() -> None:
        os.close(write)
        os.read(read, 1)

    return wait, open_gate


def recipe(path: str, end: str) -> None:
    """The parent opens and writes; three children open it again; the parent closes or is killed;
    the children write, while others come and go."""
    middle = os.fork()
    if middle:
        _, status = os.waitpid(middle, 0)
        assert status == (signal.SIGKILL if end == "killed" else 0), status
        visit(path)
        return
    backend = open_store(path)
    backend.put("/parent", b"", expected_revision=0)
    wait, open_gate = gate()
    opened, tell = os.pipe()

    def work(name: str) -> None:
        with open_store(path) as mine:
            os.write(tell, b".")
            wait()
            visit(path)
            for number in range(100):
                assert mine.put(f"/{name}/{number}", b"v", expected_revision=0).succeeded
            try:
                backend.get("/parent")
            except Closed:
                return
        raise AssertionError("the parent's handle works in a child")

    children = [fork(lambda name=name: work(name)) for name in "abc"]
    for _ in children:
        os.read(opened, 1)
    if end == "killed":
        guard = fork(lambda: join_others(children, open_gate))
        del guard
        os.kill(os.getpid(), signal.SIGKILL)
    backend.close()
    open_gate()
    join(*children)
    os._exit(0)


def join_others(children: list[int], open_gate: Callable[[], None]) -> None:
    open_gate()
    deadline = time.monotonic() + 60
    while any(map(alive, children)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def busy(path: str, count: str) -> None:
    """Children are forked while threads write, read for long and watch; every child can write,
    and the parent goes on without an error."""
    backend = open_store(path)
    for number in range(2000):
        backend.put(f"/old/{number}", b"x" * 500, expected_revision=0)
    stop = threading.Event()
    failed: list[BaseException] = []
    done = [0, 0, 0]

    def forever(index: int, work: Callable[[int], object]) -> None:
        try:
            while not stop.is_set():
                work(done[index])
                done[index] += 1
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    def write(number: int) -> None:
        assert backend.put(f"/parent/{number}", b"v", expected_revision=0).succeeded

    def read(_: int) -> None:
        assert len(backend.list("/old").kvs) == 2000

    watch = backend.watch("/parent", recursive=True, after_revision=2001)
    seen: list[int] = []

    def follow(_: int) -> None:
        batch = watch.poll(0.05)
        if batch is not None and batch.events:
            seen.append(batch.revision)

    works = [write, read, follow]
    threads = [threading.Thread(target=forever, args=each) for each in enumerate(works)]
    for thread in threads:
        thread.start()
    for number in range(int(count)):
        before = done[0]
        join(fork(lambda number=number: put_many(path, f"child-{number}", 3)))
        while done[0] == before and not failed:
            time.sleep(0.001)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert failed == []
    while len(seen) < done[0]:
        follow(0)
    assert seen == sorted(set(seen))
    assert done[1] > 0
    backend.close()
    with open_store(path) as again:
        assert again.count("/child").count == 3 * int(count)
        assert again.count("/parent").count == done[0]


def pool(path: str, method: str) -> None:
    """Workers of multiprocessing, while the parent has the store open."""
    backend = open_store(path)
    backend.put("/parent", b"", expected_revision=0)
    context = multiprocessing.get_context(method)
    workers = [context.Process(target=put_many, args=(path, str(index))) for index in range(3)]
    for worker in workers:
        worker.start()
    backend.close()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    visit(path)


def server(path: str) -> None:
    """A pre-forking server: the store is opened before the fork and used by the master too;
    workers open it again, one dies and is replaced, and children of children work as well."""
    backend = open_store(path)
    backend.put("/parent", b"", expected_revision=0)

    def serve(name: str) -> None:
        with open_store(path) as mine:
            for number in range(50):
                assert mine.put(f"/{name}/{number}", b"v", expected_revision=0).succeeded
            join(fork(lambda: put_many(path, f"{name}-child", 25)))
            for number in range(50, 75):
                assert mine.put(f"/{name}/{number}", b"v", expected_revision=0).succeeded

    def die() -> None:
        with open_store(path) as mine:
            mine.put("/dead/0", b"v", expected_revision=0)
            os.kill(os.getpid(), signal.SIGKILL)

    workers = [fork(lambda name=name: serve(name)) for name in "ab"]
    dead = fork(die)
    assert os.waitpid(dead, 0)[1] == signal.SIGKILL
    workers.append(fork(lambda: serve("c")))
    assert backend.put("/parent/2", b"", expected_revision=0).succeeded
    join(*workers)
    visit(path)
    assert backend.put("/parent/3", b"", expected_revision=0).succeeded
    backend.close()


def within(path: str) -> None:
    """A fork in the middle of a call of the forking thread: the child is told so, and harms
    nothing, however it ends; the parent's call goes on."""
    children: list[int] = []
    backend: SQLiteBackend

    def clock() -> float:
        if armed:
            armed.clear()
            child = os.fork()
            if not child:
                try:
                    open_store(path)
                except Unreachable:
                    sys.exit(0)  # the interpreter ends as usual, and frees what it has
                os._exit(1)
            children.append(child)
        return time.time()

    armed = [True]
    backend = SQLiteBackend(SQLiteOptions(path=path), clock=clock)
    assert backend.put("/ttl", b"v", expected_revision=0, ttl=1000).succeeded
    join(*children)
    assert len(children) == 1
    put_many(path, "parent")
    visit(path)
    backend.close()


if __name__ == "__main__":
    task = globals()[sys.argv[1]]
    task(*sys.argv[2:])
