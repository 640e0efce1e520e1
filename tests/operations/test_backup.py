"""A backup holds exactly what the store held, and a damaged one is refused as a whole."""

from __future__ import annotations

import errno
import gc
import gzip
import hashlib
import io
import json
import os
import random
import resource
import signal
import threading
import tracemalloc

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from revstore.config import StorageConfig
from revstore.errors import (
    Compacted,
    InvalidArgument,
    InvalidBackup,
    StoreInUse,
    Unsupported,
)
from revstore.factory import StorageFactory
from revstore.memory import MemoryBackend
from revstore.operations import (
    _new_file,
    backup,
    backup_to,
    copy,
    export_objects,
    open_backup,
    restore,
    verify,
)
from revstore.operations._file import BackupReader, BackupWriter, Header, Record
from revstore.plugins import open_backend
from revstore.testing.seeds import SEED
from revstore.values import Capability, KeyValue

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))
COMPRESSIONS = ("none", "gzip", "zstd")


def fill(backend, count=50, ttl=500):
    """Keys of every sort that the store takes."""
    for number in range(count):
        value = bytes(range(256)) if number % 7 == 0 else b"value %d" % number
        lives = ttl if number % 10 == 0 else 0
        backend.put(f"/registry/pods/ns/p{number:03}", value, expected_revision=0, ttl=lives)
    key = "/registry/pods/ns/p001"
    kv = backend.get(key).kv
    backend.put(key, b"", expected_revision=kv.revision)


def share(backend, *names, ttl=700):
    """Attach keys to a lease that they share; its id."""
    lease = backend.leases().grant(ttl).id
    backend.transaction(lambda seen: [seen.put(name, b"leased", lease=lease) for name in names])
    return lease


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_every_store_to_every_other(store, kind, open_store, tmp_path, compression):
    fill(store)
    leased = Capability.LEASES in store.capabilities
    if leased:
        share(store, "/registry/leased/a", "/registry/leased/b")
    result = backup(store, tmp_path / "b", compression=compression)
    assert result.keys == store.count("").count
    before = {kv.key: kv for kv in store.list("").kvs}
    ends = {key: store.remaining_ttl(key) for key, kv in before.items() if kv.lease}
    for other in ("memory", "sqlite", "etcd3", "etcd2"):
        with open_backup(tmp_path / "b") as source:
            # All of etcd are one server, which is emptied here.
            target = open_store(other, "target")
            restored = restore(target, source)
        assert restored.keys == restored.written == len(before)
        after = {kv.key: kv for kv in target.list("").kvs}
        assert {key: kv.value for key, kv in after.items()} == {
            key: kv.value for key, kv in before.items()
        }
        assert {key for key, kv in after.items() if kv.lease} == set(ends)
        for key, end in ends.items():
            left = target.remaining_ttl(key)
            assert end - 10 < left < end + 1.5, (other, key)
        if leased and Capability.LEASES in target.capabilities:
            assert len({after[f"/registry/leased/{name}"].lease for name in "ab"}) == 1


def test_what_a_record_holds(tmp_path):
    with MemoryBackend() as store:
        fill(store)
        lease = share(store, "/a", "/b")
        backup(store, tmp_path / "b", compression="none")
        kvs = {kv.key: kv for kv in store.list("").kvs}
        status = store.status()
    with open_backup(tmp_path / "b") as source:
        records = list(source.records())
        header = source.header

    assert [each.key for each in records] == sorted(kvs)
    for each in records:
        kv = kvs[each.key]
        assert (each.value, each.revision, each.create_revision, each.version) == (
            kv.value,
            kv.revision,
            kv.create_revision,
            kv.version,
        )
        assert (each.ttl is None) == (kv.lease == 0)
        assert each.lease == (lease if each.key in ("/a", "/b") else 0)
    assert (header.store_id, header.revision, header.prefix) == (
        status.store_id,
        status.revision,
        "",
    )


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_readable_without_revstore(tmp_path, compression):
    """The few lines that docs/operations.md has, and a standard tool."""
    with MemoryBackend() as store:
        store.put("/a", b"one\n{", expected_revision=0)
        store.put("/b", b"\x00\xff", expected_revision=0)
        backup(store, tmp_path / "b", compression=compression)
    if compression == "gzip":
        content = gzip.decompress((tmp_path / "b").read_bytes())
    elif compression == "zstd":
        import zstandard

        with (tmp_path / "b").open("rb") as file:
            content = (
                zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True).read()
            )
    else:
        content = (tmp_path / "b").read_bytes()
        # The sum is of all that comes before the last line.
        assert json.loads(content[-128:])["sha256"] == hashlib.sha256(content[:-128]).hexdigest()
    stream = io.BytesIO(content)
    header = json.loads(stream.readline())
    records = {}
    while "count" not in (line := json.loads(stream.readline())):
        records[line["key"]] = stream.read(line["size"])
        assert stream.read(1) == b"\n"

    assert header["format"] == "revstore-backup"
    assert records == {"/a": b"one\n{", "/b": b"\x00\xff"}
    assert line["count"] == 2
    assert stream.read() == b""


keys = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6)
contents = st.dictionaries(keys, st.tuples(st.binary(max_size=300), st.sampled_from([0, 0, 900])))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=contents, compression=st.sampled_from(COMPRESSIONS))
def test_any_content_comes_back(tmp_path, content, compression):
    with MemoryBackend() as store, MemoryBackend() as target:
        for key, (value, ttl) in content.items():
            store.put(key, value, expected_revision=0, ttl=ttl)
        backup(store, tmp_path / "b", compression=compression)
        with open_backup(tmp_path / "b") as source:
            restore(target, source)
            assert verify(source, target).equal
        assert verify(store, target).equal
        assert {kv.key: kv.value for kv in target.list("").kvs} == {
            key: value for key, (value, _) in content.items()
        }


@pytest.fixture(scope="module", params=COMPRESSIONS)
def small(request, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("small") / "b"
    with MemoryBackend() as store:
        fill(store, 3)
        backup(store, path, compression=request.param)
    return path.read_bytes()


def is_refused(data: bytes) -> bool:
    try:
        BackupReader(io.BytesIO(data), "b")
    except InvalidBackup:
        return True
    return False


def test_every_flipped_bit_is_refused(small):
    assert not is_refused(small)
    for at in range(len(small)):
        for bit in range(8):
            altered = bytearray(small)
            altered[at] ^= 1 << bit
            assert is_refused(bytes(altered)), (at, bit)


def test_every_cut_is_refused(small):
    for end in range(len(small)):
        assert is_refused(small[:end])
        assert is_refused(small[end + 1 :])


@given(data=st.data())
def test_other_damage_is_refused(small, data):
    """Bytes that are inserted, removed, replaced or appended."""
    start = data.draw(st.integers(0, len(small)))
    end = data.draw(st.integers(start, len(small)))
    new = data.draw(st.binary(max_size=20))
    altered = small[:start] + new + small[end:]
    assert is_refused(altered) or altered == small


def test_a_damaged_backup_writes_nothing(small, tmp_path):
    (tmp_path / "b").write_bytes(small[:-1])
    with MemoryBackend() as target:
        before = target.status().revision
        with pytest.raises(InvalidBackup, match=f"{tmp_path}/b: .*cut"):
            open_backup(tmp_path / "b")
        assert target.status().revision == before


HEADER = Header("revstore-backup", 1, "id", "memory", 5, "/a", "2026-01-01T00:00:00.000Z", "none")


def written(records, header=HEADER, count=None):
    stream = io.BytesIO()
    writer = BackupWriter(stream, header)
    writer.write([KeyValue(each.key, each.value, 1) for each in records], lambda _: (None, 0))
    if count is not None:
        writer.count = count
    writer.finish()
    return stream.getvalue()


def replaced(**fields):
    return Header(
        **{**{name: getattr(HEADER, name) for name in HEADER.__struct_fields__}, **fields}
    )


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (written([Record("/a/2", b""), Record("/a/1", b"")]), "order"),
        (written([Record("/a/2", b""), Record("/a/2", b"")]), "order"),
        (written([Record("/a/2", b"")], count=2), "1 records, and its end says 2"),
        (written([Record("/b", b"")]), "outside its prefix"),
        (written([Record("", b"")]), "cannot be read"),
        *(
            (written([], replaced(revision=wrong)), "header cannot be read.*revision")
            for wrong in (-1, 1 << 63, 1.5, True, "5", None)
        ),
        (written([], replaced(version=2)), "version 2, and this revstore reads 1"),
        (written([], replaced(format="other")), "not a backup"),
        (b"", "not a backup"),
        (b"apiVersion: v1\n", "not a backup"),
        (b"{}\n", "its end is missing"),
    ],
)
def test_a_whole_file_that_is_no_backup_is_refused(data, why):
    """Its sum is right, but what it says is not."""
    with pytest.raises(InvalidBackup, match=why):
        BackupReader(io.BytesIO(data), "b")


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        *((name, wrong) for name in ("revision", "version") for wrong in (-1, 1 << 63)),
        *(("ttl", wrong) for wrong in (-0.5, 1e11, 1e300)),
        *(("lease", wrong) for wrong in (-(1 << 63) - 1, 1 << 63)),
    ],
)
def test_numbers_that_no_store_has_are_refused(field, wrong):
    kv = KeyValue("/a/1", b"", 1, lease=7)
    expiry = (wrong, 7) if field == "ttl" else (1.0, wrong if field == "lease" else 7)
    if field in ("revision", "version"):
        kv = msgspec.structs.replace(kv, **{field: wrong})
    stream = io.BytesIO()
    writer = BackupWriter(stream, HEADER)
    writer.write([kv], lambda _: expiry)
    writer.finish()
    with pytest.raises(InvalidBackup, match=f"a record cannot be read.*{field}"):
        BackupReader(stream, "b")


def test_only_the_owner_can_read_it_from_the_beginning(tmp_path):
    """Also while it is written, and if a file of that name was open to all."""
    (tmp_path / "b").write_bytes(b"before")
    (tmp_path / "b").chmod(0o644)
    seen = []

    def look(_):
        seen.extend(oct(path.stat().st_mode) for path in tmp_path.iterdir() if path.name != "b")
        assert (tmp_path / "b").read_bytes() == b"before"

    with MemoryBackend() as store:
        fill(store)
        backup(store, tmp_path / "b", on_progress=look)

    assert set(seen) == {"0o100600"}
    assert oct((tmp_path / "b").stat().st_mode) == "0o100600"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("full", [0, 1, 3])
def test_a_full_disk_leaves_no_file(tmp_path, monkeypatch, full):
    """Whichever write fails, in whichever thread."""

    class Full(io.FileIO):
        left = full

        def write(self, data):
            Full.left -= 1
            if Full.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(
        _new_file, "open", lambda file, mode: io.BufferedWriter(Full(file, mode)), raising=False
    )
    with MemoryBackend() as store:
        for number in range(600):
            store.put(f"/k/{number}", os.urandom(5000), expected_revision=0)
        with pytest.raises(OSError, match="No space"):
            backup(store, tmp_path / "b", compression="none")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["backup", "tree", "jsonl"])
def test_the_error_of_a_full_disk_names_the_file(tmp_path, what):
    """That of the user, not one that is named in between."""
    path = tmp_path / "it"
    name = path if what != "tree" else path / "configmaps" / "default" / "a.yaml"

    def write(factory):
        if what == "backup":
            return backup(factory.backend(), path)
        return export_objects(factory, path, format=what)

    with StorageFactory("memory://") as factory:
        obj = {
            "metadata": {"name": "a", "namespace": "default"},
            "data": {"x": os.urandom(9000).hex()},
        }
        factory.registry("configmaps").create(obj)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        try:
            with pytest.raises(OSError, match="too large") as caught:
                write(factory)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(name)


def test_a_backup_that_fails_leaves_no_file(tmp_path):
    def fail(progress):
        if progress.done:
            raise KeyboardInterrupt

    with MemoryBackend() as store:
        fill(store)
        with pytest.raises(KeyboardInterrupt):
            backup(store, tmp_path / "b", on_progress=fail)

    assert list(tmp_path.iterdir()) == []


def test_writers_do_not_disturb(store):
    """The backup is of one revision, however many writes come meanwhile."""
    if Capability.HISTORICAL_READS not in store.capabilities:
        pytest.skip("the store is read at once")
    fill(store, 300)
    before = {kv.key: kv.value for kv in store.list("").kvs}

    class Disturbing(io.BytesIO):
        def write(self, data):
            """After the first page was read, delete everything."""
            for kv in store.list("", keys_only=True).kvs:
                store.delete(kv.key, expected_revision=kv.revision)
            return super().write(data)

    stream = Disturbing()
    assert backup_to(store, stream, compression="none").keys == 300
    assert {each.key: each.value for each in BackupReader(stream, "b").records()} == before


def test_a_compacted_backup_begins_again(tmp_path):
    compactions = []

    class Compacting(MemoryBackend):
        def list(self, prefix, **options):
            page = super().list(prefix, **options)
            if page.more and len(compactions) < limit:
                new = f"/registry/pods/ns/q{len(compactions)}"
                self.compact(self.put(new, b"", expected_revision=0).revision)
                compactions.append(new)
            return page

    limit = 2
    with Compacting() as store:
        fill(store, 200)
        assert backup(store, tmp_path / "b").keys == 202
        limit = 100
        with pytest.raises(Compacted):
            backup(store, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_prefix(tmp_path):
    with MemoryBackend() as store, MemoryBackend() as target:
        fill(store)
        store.put("/other", b"x", expected_revision=0)
        assert backup(store, tmp_path / "b", prefix="/registry/").keys == 50
        with open_backup(tmp_path / "b") as source:
            with pytest.raises(InvalidArgument, match="prefix"):
                restore(target, source, prefix="/")
            restored = restore(target, source, prefix="/registry/pods/ns/p00")
        assert restored.keys == target.count("").count == 10


def test_arguments(tmp_path, monkeypatch):
    with MemoryBackend() as store:
        with pytest.raises(InvalidArgument, match="compression"):
            backup(store, tmp_path / "b", compression="lzma")
        with pytest.raises(FileNotFoundError):
            backup(store, tmp_path / "missing" / "b")
        backup(store, tmp_path / "b", compression="zstd")
        monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
        assert backup(store, tmp_path / "c").compression == "gzip"
        with pytest.raises(Unsupported, match=r"revstore\[zstd\]"):
            backup(store, tmp_path / "b", compression="zstd")
        with pytest.raises(Unsupported, match=r"revstore\[zstd\]"):
            open_backup(tmp_path / "b")


def peaks(store, restored, copied, path):
    """The most memory that each operation takes, in bytes."""
    found = {}
    tracemalloc.start()
    try:

        def note(what):
            found[what] = tracemalloc.get_traced_memory()[1]
            gc.collect()
            tracemalloc.reset_peak()

        for compression in COMPRESSIONS:
            backup(store, path, compression=compression)
            note(f"backup, {compression}")
            with open_backup(path) as source:
                note(f"open, {compression}")
                assert verify(source, store).equal
                note(f"verify, {compression}")
        with open_backup(path) as source:
            restore(restored, source)
            note("restore")
        assert verify(store, restored).equal
        note("verify")
        copy(store, copied)
        note("copy")
    finally:
        tracemalloc.stop()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("size", [40_000, 400_000])
def test_memory_does_not_grow_with_the_number_of_keys(open_store, tmp_path, size):
    """What is held at a time has a bound, in keys and in bytes."""
    found = []
    for name, total in ("few", 16_000_000), ("many", 32_000_000):
        store, *targets = (open_store("sqlite", f"{name}{number}") for number in range(3))
        for start in range(0, total, 4_000_000):
            keys = [f"/{start + at}" for at in range(0, 4_000_000, size)]
            store.transaction(lambda seen, keys=keys: [seen.put(key, bytes(size)) for key in keys])
        found.append(peaks(store, *targets, tmp_path / name))
    few, many = found
    more = {what: many[what] - few[what] for what in few}
    assert {what: size for what, size in more.items() if size > 8 << 20} == {}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_at_any_moment(driver, url_of, tmp_path):
    """By kill -9 or Ctrl-C: there is the backup of before, or a whole new one."""
    url = url_of("sqlite")
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "b"
    with open_backend(StorageConfig.from_url(url)) as store:
        for start in range(0, 5_000, 1000):
            store.transaction(
                lambda seen, start=start: [
                    None for each in range(1000) if not seen.put(f"/{start + each}", bytes(2000))
                ]
            )
        backup(store, path)
    choose = random.Random(SEED)
    began = threading.Event()
    killed = 0
    for _ in range(10 * LONG):
        before = path.stat().st_ino
        child = driver.start("backup", path, url)
        began.wait(choose.uniform(0.01, 0.4))
        number = choose.choice([signal.SIGKILL, signal.SIGINT])
        os.kill(child, number)
        status = driver.end()
        killed += status != 0
        with open_backup(path) as source:
            assert source.count == 5_000, SEED
        if path.stat().st_ino == before:
            assert status != 0, SEED
        left = {each.name for each in path.parent.iterdir()} - {"b"}
        if number == signal.SIGINT:
            assert not left, SEED
        assert all(name.endswith(".part") for name in left)
        for name in left:
            assert (path.parent / name).stat().st_mode & 0o777 == 0o600
            (path.parent / name).unlink()
    assert killed


def test_an_incomplete_store_is_not_backed_up(tmp_path):
    with MemoryBackend() as store:
        store.put("/registry/revstore.unfinished", b"{}", expected_revision=0)
        with pytest.raises(StoreInUse, match="incomplete"):
            backup_to(store, io.BytesIO())
