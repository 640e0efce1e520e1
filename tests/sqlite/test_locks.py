"""A store is three files: what others do to them in this process, and beneath it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from revstore.errors import IncompatibleStore, OutcomeUnknown
from revstore.testing._support import wait_until
from revstore_sqlite import _connect, _locks
from revstore_sqlite._backend import SQLiteBackend

Start = Callable[..., subprocess.Popen[str]]
Open = Callable[..., SQLiteBackend]

needs_locks = pytest.mark.skipif(
    sys.platform != "linux", reason="locks of a descriptor are there on Linux only"
)


def visit(path: str) -> None:
    """Have another process open the file, read it and close it, as any program may."""
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]);"
        "c.execute('SELECT * FROM meta').fetchall(); c.close()"
    )
    subprocess.run([sys.executable, "-c", script, path], check=True, timeout=60)


def touch(path: str) -> None:
    """Open and close the files in this process, which drops SQLite's own locks on them."""
    for end in ("", "-wal"):
        with open(path + end, "rb") as file:
            file.read(1)


def refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except IncompatibleStore:
        return True
    return False


def revisions_of(path: str) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT id >> 20 FROM log ORDER BY 1")]


@needs_locks
@pytest.mark.parametrize("handles", [1, 2])
def test_a_close_of_the_file_loses_nothing(open_store: Open, path: str, handles: int) -> None:
    """DURABLE: after somebody in this process opened and closed the file, another process may
    come and go: the log that is written to stays, and no revision is given twice."""
    backends = [open_store() for _ in range(handles)]
    given = []
    for number in range(20):
        touch(path)
        visit(path)
        backend = backends[number % handles]
        given.append(backend.put(f"/{number}", b"", expected_revision=0).revision)
    touch(path)
    with open_store() as again:
        assert again.count("").count == 20
    for backend in backends:
        backend.close()

    assert given == list(range(2, 22))
    assert revisions_of(path) == given
    assert not os.path.exists(path + "-wal")


@needs_locks
def test_a_close_of_shm_truncates_nothing(open_store: Open, path: str) -> None:
    """The same of -shm: the next process that opens the store must not create it again beneath
    us."""
    backend = open_store()
    for number in range(5):
        with open(path + "-shm", "rb"):
            pass
        visit(path)
        assert backend.put(f"/{number}", b"", expected_revision=0).succeeded
    visit(path)
    assert backend.count("").count == 5


@needs_locks
def test_a_handle_that_closes_leaves_the_others_locked(open_store: Open, path: str) -> None:
    """Several handles on one file share the locks: they go with the last connection, not before,
    and closing one handle drops nothing that the other needs."""
    first, second = open_store(), open_store()
    first.put("/a", b"", expected_revision=0)
    first.close()
    touch(path)
    visit(path)
    assert second.put("/b", b"", expected_revision=0).revision == 3
    second.close()
    assert not os.path.exists(path + "-wal")
    assert open_store().count("").count == 2


def test_the_last_to_close_leaves_one_file(open_store: Open, path: str) -> None:
    """Once no process has the store open, -wal and -shm are gone, whichever was the last; no
    descriptor stays behind."""
    for _ in range(3):
        with open_store() as backend, open_store():
            backend.put("/a", b"", expected_revision=backend.get("/a").revision - 1 or 0)
    assert os.listdir(os.path.dirname(path)) == ["store.db"]
    # Others' descriptors may go meanwhile, with garbage of tests before.
    left = [os.readlink(each.path) for each in os.scandir("/proc/self/fd") if each.is_symlink()]
    assert [each for each in left if each.startswith(path)] == []


def test_a_symbolic_link_is_another_name(open_store: Open, path: str, tmp_path: Path) -> None:
    """Through a symbolic link the same store opens, with the same log and watches; a link that
    leads elsewhere later is a file that was replaced."""
    link = str(tmp_path / "link.db")
    os.symlink("store.db", link)
    straight = open_store()
    through = open_store(path=link)
    assert through.put("/a", b"1", expected_revision=0).succeeded
    assert straight.get("/a").kv is not None
    assert not os.path.exists(link + "-wal")

    (tmp_path / "other").mkdir()
    open_store(path=str(tmp_path / "other" / "store.db"))
    os.unlink(link)
    os.symlink("other/store.db", link)
    with pytest.raises((OutcomeUnknown, IncompatibleStore)):
        through.put("/b", b"", expected_revision=0)
    wait_until(lambda: refused(lambda: through.get("/a")), "reads are refused")


def test_a_file_with_two_names_is_refused(open_store: Open, path: str, tmp_path: Path) -> None:
    """A hard link has a log of its own beside it, so both would go apart: refused by either name,
    and in a process that has the store open by the first."""
    other = str(tmp_path / "other.db")
    with open_store() as backend:
        backend.put("/a", b"", expected_revision=0)
        os.link(path, other)
        for name in (path, other):
            with pytest.raises(IncompatibleStore, match="2 names"):
                open_store(path=name)
        assert backend.put("/b", b"", expected_revision=0).succeeded
    os.unlink(path)
    assert open_store(path=other).count("").count == 2


@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
@pytest.mark.parametrize("how", ["removed", "replaced", "renamed"])
def test_a_file_that_goes_is_noticed(open_store: Open, path: str, end: str, how: str) -> None:
    """A write after one of the files was removed or replaced is OutcomeUnknown or refused, never
    acknowledged; reads are refused too, within 50 ms."""
    backend = open_store()
    backend.put("/a", b"", expected_revision=0)
    if how == "replaced":
        shutil.copy(path + end, path + end + ".new")
        os.replace(path + end + ".new", path + end)
    elif how == "renamed":
        os.rename(path + end, path + end + ".away")
    else:
        os.unlink(path + end)

    with pytest.raises((OutcomeUnknown, IncompatibleStore)):
        backend.put("/b", b"", expected_revision=0)
    wait_until(lambda: refused(lambda: backend.get("/a")), "reads are refused")
    with pytest.raises(IncompatibleStore, match="removed or replaced"):
        backend.put("/c", b"", expected_revision=0)


def test_a_file_that_goes_while_a_thread_looks(open_store: Open, path: str) -> None:
    """A look that began before the file went, and ends after another thread was refused, does not
    have the store used again."""
    backend = open_store()
    store = backend._store

    def at_return(_frame: object, event: str, argument: object) -> object:
        if event == "return" and argument == "" and os.path.exists(path):
            os.unlink(path)
            store.check_at = 0.0
            with pytest.raises(IncompatibleStore):
                store.check()
        return at_return

    before = sys.gettrace()
    sys.settrace(lambda frame, *_: at_return if frame.f_code.co_name == "lost" else None)
    try:
        store.check()
    finally:
        sys.settrace(before)
    with pytest.raises(IncompatibleStore, match="removed or replaced"):
        backend.put("/a", b"", expected_revision=0)


def test_without_locks_of_a_descriptor(
    open_store: Open, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other systems than Linux have no such locks: there the identities alone are watched, and a
    write to a log that is gone is not acknowledged."""
    monkeypatch.setattr(_locks, "_OFD_SETLK", None)
    backend = open_store()
    backend.put("/a", b"", expected_revision=0)
    touch(path)
    visit(path)
    with pytest.raises((OutcomeUnknown, IncompatibleStore)):
        backend.put("/b", b"", expected_revision=0)


def test_copies_of_a_store_in_use(open_store: Open, path: str, tmp_path: Path) -> None:
    """As the README says: ``VACUUM INTO`` and sqlite's backup copy a store that is in use, with
    all that was acknowledged, and lose nothing of it."""
    backend = open_store()
    for number in range(50):
        backend.put(f"/{number}", b"x" * 1000, expected_revision=0)
    into, backup = str(tmp_path / "into.db"), str(tmp_path / "backup.db")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.execute("VACUUM INTO ?", (into,))
        source.backup(target)
    visit(path)
    backend.put("/last", b"", expected_revision=0)

    for copy in (into, backup):
        assert open_store(path=copy).count("").count == 50
    assert backend.count("").count == 51


def test_locks_are_kept_out_of_the_standard_streams(path: str) -> None:
    """A daemon that closed its standard streams and points them elsewhere later closes none of
    our descriptors with them."""
    script = f"""
import os
os.close(0); os.close(1)
from revstore_sqlite._backend import SQLiteBackend
from revstore_sqlite._options import SQLiteOptions
from revstore_sqlite._locks import process
backend = SQLiteBackend(SQLiteOptions(path={path!r}))
assert all(d > 2 for held in process._held.values() for d in held.descriptors)
backend.close()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_modes_of_an_earlier_open(start: Start, open_store: Open, path: str) -> None:
    """-wal and -shm that a crash left with the mode that the file had then do not decide who may
    write now."""
    process = start("put", "/a", 0)
    assert process.stdout.readline().strip() == "2"
    process.kill()
    process.wait()
    for end in ("-wal", "-shm"):
        os.chmod(path + end, 0o400)
    with open_store() as backend:
        for end in ("-wal", "-shm"):
            assert os.stat(path + end).st_mode & 0o777 == 0o600
        assert backend.put("/b", b"", expected_revision=0).revision == 3


def test_the_check_is_cheap_for_reads(open_store: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads look at the files at most every 50 ms."""
    backend = open_store()
    backend.get("/a")
    looks: list[int] = []
    real = _connect.identity_of

    def counted(path: str) -> object:
        looks.append(threading.get_ident())  # the hub looks too, in a thread of its own
        return real(path)

    monkeypatch.setattr(_connect, "identity_of", counted)
    backend._store.check_at = float("inf")
    for _ in range(100):
        backend.get("/a")
    assert threading.get_ident() not in looks
