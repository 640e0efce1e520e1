"""The file: its mode, its layout, and every way in which it can be unusable."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from revstore.errors import (
    ConfigError,
    CorruptStore,
    IncompatibleStore,
    OutcomeUnknown,
)
from revstore.values import Capability
from revstore_sqlite._backend import SQLiteBackend
from revstore_sqlite._options import SQLiteOptions
from revstore_sqlite._schema import APPLICATION_ID, SCHEMA_VERSION, metadata

Start = Callable[..., subprocess.Popen[str]]
Open = Callable[..., SQLiteBackend]

#: A user that may do nothing special.
NOBODY = 65534


def test_new_files_are_for_the_owner_alone(open_store: Open, path: str) -> None:
    """Store, -wal and -shm are made with mode 0600, whatever the umask."""
    before = os.umask(0)
    try:
        open_store().put("/a", b"", expected_revision=0)
    finally:
        os.umask(before)
    for end in ("", "-wal", "-shm"):
        assert stat.S_IMODE(os.stat(path + end).st_mode) == 0o600


def test_a_file_that_must_exist(tmp_path: Path) -> None:
    """``create=false`` opens what is there, and makes nothing."""
    path = tmp_path / "a.db"
    with pytest.raises(ConfigError, match="expected a file that exists"):
        SQLiteBackend(SQLiteOptions(path=str(path), create=False))
    with pytest.raises(ConfigError, match="a folder that exists"):
        SQLiteBackend(SQLiteOptions(path=str(tmp_path / "no" / "a.db"), create=False))
    assert os.listdir(tmp_path) == []
    SQLiteBackend(SQLiteOptions(path=str(path))).close()
    SQLiteBackend(SQLiteOptions(path=str(path), create=False)).close()


def test_a_working_folder_that_was_deleted() -> None:
    """A relative path leads nowhere then, which is no fault of the plugin."""
    code = """
import os, tempfile
from revstore.config import StorageConfig
from revstore.errors import ConfigError
from revstore.plugins import open_backend
os.chdir(tempfile.mkdtemp()); os.rmdir(os.getcwd())
try:
    open_backend(StorageConfig.from_url("sqlite:///a.db"))
except ConfigError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "the working folder was deleted" in done.stdout


def test_a_wider_mode_is_kept(open_store: Open, path: str) -> None:
    """A file that is there keeps its mode; an empty one becomes a store."""
    Path(path).touch(mode=0o640)
    os.chmod(path, 0o640)
    assert open_store().status().revision == 1
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640


def test_store_id_and_state_outlive_closing(open_store: Open) -> None:
    """DURABLE: what was written is there when the file is opened again, revisions go on."""
    with open_store() as backend:
        backend.put("/a", b"1", expected_revision=0)
        before = backend.status()
    again = open_store()
    assert again.status() == before
    assert again.put("/b", b"", expected_revision=0).revision == 3


def test_synchronous_normal_is_not_durable(open_store: Open) -> None:
    """DURABLE is claimed only where each commit is synced."""
    assert Capability.DURABLE in open_store().capabilities
    assert Capability.DURABLE not in open_store(synchronous="NORMAL").capabilities


def test_a_new_file_has_the_declared_tables(open_store: Open, path: str) -> None:
    """What a new file gets is what the statements are built on."""
    open_store()
    engine = create_engine(f"sqlite:///{path}")
    found = inspect(engine)
    assert set(found.get_table_names()) == set(metadata.tables)
    for name, table in metadata.tables.items():
        columns = {column["name"]: str(column["type"]) for column in found.get_columns(name)}
        assert columns == {c.name: str(c.type) for c in table.columns}
        indexes = {index["name"] for index in found.get_indexes(name)}
        assert indexes == {index.name for index in table.indexes}
    engine.dispose()


def test_a_newer_schema_is_refused(open_store: Open, path: str) -> None:
    """IncompatibleStore names the file and both versions, and leaves the file as it is."""
    open_store().close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(IncompatibleStore, match=r"store\.db: .*version 99.*upgrade"):
        open_store()


@pytest.mark.parametrize("content", [b"no database\n" * 100, b"x"])
def test_a_file_that_is_no_database(open_store: Open, path: str, content: bytes) -> None:
    """IncompatibleStore names the file and leaves it untouched."""
    Path(path).write_bytes(content)
    with pytest.raises(IncompatibleStore, match=r"store\.db"):
        open_store()
    assert Path(path).read_bytes() == content


def test_another_programs_database(open_store: Open, path: str) -> None:
    """A sqlite file of another program is refused and not changed in any way."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = Path(path).read_bytes()
    with pytest.raises(IncompatibleStore, match=r"store\.db: not a revstore store"):
        open_store()
    assert Path(path).read_bytes() == before


def test_a_damaged_file(open_store: Open, path: str) -> None:
    """CorruptStore from whatever meets the damage: here opening or the first list."""
    with open_store() as backend:
        for number in range(300):
            backend.put(f"/{number}", b"x" * 500, expected_revision=0)
    content = bytearray(Path(path).read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    Path(path).write_bytes(content)
    with pytest.raises(CorruptStore, match=r"store\.db"):
        open_store().list("")


def test_a_truncated_file(open_store: Open, path: str) -> None:
    """CorruptStore for a file whose end is missing."""
    with open_store() as backend:
        for number in range(300):
            backend.put(f"/{number}", b"x" * 500, expected_revision=0)
    os.truncate(path, 3 * 4096)
    with pytest.raises(CorruptStore, match=r"store\.db"):
        open_store().list("")


def test_tables_that_are_missing(open_store: Open, path: str) -> None:
    """CorruptStore for a file that says it is a store and is none."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    with pytest.raises(CorruptStore, match=r"store\.db"):
        open_store()


def test_paths_that_cannot_be(tmp_path: Path) -> None:
    """ConfigError names the option, what was given and what would do."""
    (tmp_path / "file").touch()
    for wrong, words in [
        (str(tmp_path / "missing" / "store.db"), "folder that exists"),
        (str(tmp_path / "file" / "store.db"), "folder that exists"),
        (str(tmp_path), "not of a folder"),
    ]:
        with pytest.raises(ConfigError, match=words) as caught:
            SQLiteBackend(SQLiteOptions(path=wrong))
        assert (caught.value.field, caught.value.value) == ("options.path", wrong)


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("path", ""),
        ("path", ":memory:"),
        ("path", "file:store.db?mode=rwc"),
        ("path", "a\0b"),
        ("path", 3),
        ("synchronous", "OFF"),
        ("synchronous", None),
        ("poll_interval", 0),
        ("poll_interval", 10.5),
        ("poll_interval", float("nan")),
        ("poll_interval", True),
        ("poll_interval", "1"),
    ],
)
def test_options_that_cannot_be(field: str, wrong: object) -> None:
    """ConfigError names the option, what was given and what would do."""
    with pytest.raises(ConfigError, match=f"options.{field}") as caught:
        SQLiteOptions(**{field: wrong})
    assert caught.value.field == f"options.{field}"


@pytest.mark.skipif(os.geteuid() != 0, reason="must be root, to start a process of another user")
class TestAnotherUser:
    @pytest.fixture
    def path(self) -> Iterator[str]:
        """A file in a folder that others may enter. Not in one of pytest's: each run of pytest
        closes those to others, also one that a test starts meanwhile."""
        with tempfile.TemporaryDirectory(prefix="revstore-") as folder:
            os.chmod(folder, 0o755)
            yield os.path.join(folder, "store.db")

    def test_permission_denied(self, start: Start, open_store: Open, path: str) -> None:
        """AccessDenied for a file that may not be read, or not be made."""
        open_store().close()
        os.chmod(path, 0)
        assert attempt(start, NOBODY)[0][:2] == ["open", "AccessDenied"]
        os.unlink(path)
        assert attempt(start, NOBODY)[0][:2] == ["open", "AccessDenied"]

    def test_a_file_that_may_only_be_read(self, start: Start, open_store: Open, path: str) -> None:
        """ReadOnly for writes; reads work while somebody who may write has the store open."""
        backend = open_store()
        backend.put("/a", b"", expected_revision=0)
        for end in ("", "-wal", "-shm"):
            os.chmod(path + end, 0o644)
        found = attempt(start, NOBODY)

        assert found[:2] == [["open", "ok"], ["read", "1"]]
        assert found[2][:2] == ["write", "ReadOnly"]


def test_a_read_only_file_system(start: Start, open_store: Open, tmp_path: Path) -> None:
    """A store on a read-only mount can be read; writes raise ReadOnly."""
    with open_store() as backend:
        backend.put("/a", b"", expected_revision=0)
    script = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path}"
    found = attempt(start, prefix=mounted(script))

    assert found[:2] == [["open", "ok"], ["read", "1"]]
    assert found[2][:2] == ["write", "ReadOnly"]


def test_a_link_to_a_read_only_file_system(start: Start, path: str, tmp_path: Path) -> None:
    """A symbolic link to a store on a read-only mount shows what its log holds: the log lies
    beside the file that the link leads to, not beside the link."""
    far = tmp_path / "far"
    far.mkdir()
    store = str(far / "store.db")
    writer = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("worker.py")), "put", store, "/a", "0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout.readline().strip() == "2"
    writer.kill()  # so that the write is in the log alone
    writer.communicate()
    assert os.path.getsize(store + "-wal")
    os.symlink(store, path)
    script = f"mount --bind {far} {far} && mount -o remount,ro,bind {far}"
    found = attempt(start, prefix=mounted(script))

    # Without -shm, which cannot be made there, sqlite refuses; with it, it reads the log.
    assert found[0][1] in ("ok", "ReadOnly", "AccessDenied")
    if found[0][1] == "ok":
        assert found[1:2] == [["read", "1"]]
        assert found[2][:2] == ["write", "ReadOnly"]


def test_a_full_disk(start: Start, tmp_path: Path) -> None:
    """NoSpace on a full file system; what was acknowledged is there, the rest is not, also not in
    watches. Once there is room, the same store writes on, with the next revision."""
    ballast = tmp_path / "ballast"
    script = f"mount -t tmpfs -o size=1m none {tmp_path}; head -c 300k /dev/zero > {ballast}"
    process = start("fill", 5000, ballast, prefix=mounted(script))
    output, errors = process.communicate(timeout=60)
    lines = [line.split("\t") for line in output.splitlines()]

    assert lines[0][:2] == ["write", "NoSpace"], (lines, errors)
    _, found, written = lines[1]
    assert found == written
    assert int(written) > 10
    assert lines[2] == ["again", "1", str(int(written) + 1), "True"], (lines, errors)


def test_a_commit_that_fails_is_unknown(start: Start, open_store: Open) -> None:
    """OutcomeUnknown if sqlite cannot tell whether a commit is in the file: here the process may
    not write any further, which the disk answers like a defect."""
    open_store()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    process = start("fill", 5000, preexec_fn=limit)
    output, errors = process.communicate(timeout=60)
    lines = [line.split("\t") for line in output.splitlines()]

    assert lines[0][:2] == ["write", OutcomeUnknown.__name__], (lines, errors)
    assert lines[1][1] == lines[1][2]


def attempt(start: Start, *arguments: object, **options: object) -> list[list[str]]:
    """What opening, reading and writing came to in another process."""
    output, errors = start("attempt", *arguments, **options).communicate(timeout=60)
    assert errors == ""
    return [line.split("\t") for line in output.splitlines()]


def mounted(script: str) -> tuple[str, ...]:
    """A command prefix that runs the rest with a mount of its own."""
    if not shutil.which("unshare"):
        pytest.skip("needs unshare, to mount a small file system")
    prefix = ("unshare", "-rm", "sh", "-ec", f'{script}; exec "$@"', "sh")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("may not mount a file system of its own")
    return prefix


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    """A dangling link, and links in a circle, are named as such; nothing is made where they
    lead."""
    for name, target in (("dangling.db", "gone/x.db"), ("beside.db", "gone.db"), ("loop", "loop")):
        link = tmp_path / name
        link.symlink_to(target)
        with pytest.raises(ConfigError, match="does not exist") as caught:
            SQLiteBackend(SQLiteOptions(path=str(link)))
        assert repr(target) in str(caught.value)
        assert caught.value.field == "options.path"
    with pytest.raises(ConfigError, match="links"):
        SQLiteBackend(SQLiteOptions(path=str(tmp_path / "loop" / "x.db")))

    assert not (tmp_path / "gone.db").exists()


def test_a_link_to_a_store_is_the_store(open_store: Open, path: str, tmp_path: Path) -> None:
    """A link that leads somewhere is as good as the file."""
    open_store().put("/a", b"1", expected_revision=0)
    link = tmp_path / "link.db"
    link.symlink_to(path)

    with SQLiteBackend(SQLiteOptions(path=str(link))) as backend:
        assert backend.get("/a").kv is not None


def test_a_path_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    """By the option, and nothing is made there; sqlite takes names in UTF-8 only."""
    folder = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(folder)
    os.symlink(folder, tmp_path / "link")
    for path in (
        f"{os.fsdecode(folder)}.db",
        f"{os.fsdecode(folder)}/x.db",
        f"{tmp_path}/link/x.db",
    ):
        with pytest.raises(ConfigError, match=r"options\.path.* UTF-8"):
            SQLiteBackend(SQLiteOptions(path=path))
    assert (os.listdir(folder), sorted(os.listdir(os.fsencode(tmp_path)))) == (
        [],
        [b"link", b"\xff"],
    )


def test_what_is_no_file(tmp_path: Path) -> None:
    """A pipe, a device and a name that is too long are refused at once, by the option."""
    os.mkfifo(tmp_path / "pipe")
    for path in (str(tmp_path / "pipe"), "/dev/null", "/dev/full", f"{tmp_path}/{'x' * 300}"):
        with pytest.raises(ConfigError, match=r"options\.path"):
            SQLiteBackend(SQLiteOptions(path=path))
