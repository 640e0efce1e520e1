"""A restore ends equal, whenever it was interrupted, and old resource versions are never taken for
new ones."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from revstore.config import StorageConfig
from revstore.errors import (
    Compacted,
    InvalidBackup,
    OutcomeUnknown,
    StoreInUse,
    StoresDiffer,
    Timeout,
    Unreachable,
    Unsupported,
    ValueTooLarge,
)
from revstore.factory import StorageFactory
from revstore.memory import MemoryBackend
from revstore.operations import Merge, _leasing, _target, backup, copy, open_backup, restore, verify
from revstore.operations._file import Record
from revstore.operations._marker import (
    Marker,
    clear_marker,
    is_marker,
    marker_key,
    read_marker,
    set_marker,
)
from revstore.operations._target import check_fits
from revstore.plugins import open_backend
from revstore.testing._support import wait_until
from revstore.testing.seeds import SEED
from revstore.values import Capability

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))
MARKER = "/revstore.unfinished"


@pytest.fixture
def made(tmp_path):
    """The path of a backup of 700 keys, which are two batches, some with a ttl or a lease."""
    with MemoryBackend() as store:
        for number in range(700):
            ttl = 5000 + number if number % 50 == 0 else 0
            key = f"/registry/pods/ns/p{number:03}"
            store.put(key, b"v%d" % number, expected_revision=0, ttl=ttl)
        lease = store.leases().grant(6000).id
        for name in ("a", "b"):
            store.transaction(lambda seen, name=name: seen.put(f"/l/{name}", b"", lease=lease))
        backup(store, tmp_path / "b")
    return tmp_path / "b"


class Interrupted(MemoryBackend):
    """Fails at the call with the number ``fails_at``: before it does anything, or after it."""

    def __init__(self, fails_at, *, after):
        super().__init__()
        self.left = fails_at
        self.after = after

    def _call(self, name, *arguments, **options):
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Unreachable("gone")
        result = getattr(super(), name)(*arguments, **options)
        if self.left == 0:
            raise OutcomeUnknown("key", 0) if name in ("put", "transaction") else Unreachable("-")
        return result

    def __getattribute__(self, name):
        if name in ("put", "transaction", "delete", "raise_revision", "compact", "list", "status"):
            call = object.__getattribute__(self, "_call")
            return lambda *arguments, **options: call(name, *arguments, **options)
        return super().__getattribute__(name)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_failure_at_any_call(made, after):
    """The same call goes on, and the end is the same. Until then the store says what it is."""
    fails_at = failures = 0
    while True:
        fails_at += 1
        with Interrupted(fails_at, after=after) as target, open_backup(made) as source:
            failed = False
            try:
                result = restore(target, source)
            except (Unreachable, OutcomeUnknown):
                failed = True
            reached, target.left = target.left <= 0, -1
            if failed:
                failures += 1
                if target.count("").count and target.status().revision < 1_000_000_000:
                    assert target.get(MARKER).kv is not None
                result = restore(target, source)
            assert result.keys == 702
            assert verify(source, target).equal
            assert target.get(MARKER).kv is None
            assert result.old_versions_expire
            assert result.revision > 1_000_000_702
            if not reached:
                break
    assert failures > (5 if after else 12)


def test_a_store_with_keys_is_refused(store, made):
    store.put("/registry/pods/ns/p003", b"mine", expected_revision=0)
    revision = store.status().revision
    with open_backup(made) as source, pytest.raises(StoreInUse, match=r"not empty.*p003"):
        restore(store, source)
    assert store.status().revision == revision


@pytest.mark.parametrize("merge", Merge)
def test_merge(store, made, merge):
    store.put("/registry/pods/ns/p003", b"mine", expected_revision=0)
    store.put("/registry/pods/ns/p999", b"mine", expected_revision=0)
    with open_backup(made) as source:
        result = restore(store, source, merge=merge)
        differ = {each.key[-4:]: each.what for each in verify(source, store).differences}

    expected = {"p999": "extra"} | ({"p003": "value"} if merge is Merge.SKIP else {})
    assert differ == expected
    assert (result.keys, result.written) == (702, 701 if merge is Merge.SKIP else 702)
    # Once more, it has nothing to do but to set times to live.
    with open_backup(made) as source:
        assert restore(store, source, merge=merge).written == (0 if merge is Merge.SKIP else 16)


def test_another_unfinished_operation_is_not_mixed(made, tmp_path):
    with MemoryBackend() as store, MemoryBackend() as target:
        store.put("/other", b"x", expected_revision=0)
        backup(store, tmp_path / "other")
        set_marker(target, "", Marker("restore", "0" * 64, "2026-01-01", {"prefix": ""}))
        for merge in (None, Merge.SKIP):
            with (
                open_backup(tmp_path / "other") as source,
                pytest.raises(StoreInUse, match=r"is incomplete.*restore.*2026-01-01"),
            ):
                restore(target, source, merge=merge)
        assert target.count("").count == 1
        marker = read_marker(target, "")
        assert marker is not None
        assert "incomplete" in marker.text
        kv = target.get(MARKER).kv
        target.put(MARKER, b"?", expected_revision=kv.revision)
        with open_backup(tmp_path / "other") as source, pytest.raises(StoreInUse, match="which"):
            restore(target, source)


@pytest.mark.parametrize(
    ("unfinished", "prefix", "refused"),
    [
        ("", "/a/", True),
        ("/", "/a/", True),
        ("/a/", "", True),
        ("/a/", "/", True),
        ("/a/", "/a/", True),
        ("/a", "/ab/", True),
        ("/ab/", "/a", True),
        ("/a/x/", "/a/y/", True),  # one marker for both
        ("/b/", "/a/", False),
        ("/a/", "/ab/", False),
        ("/ab/", "/a/", False),
    ],
)
def test_an_unfinished_operation_bars_those_that_have_keys_in_common(
    unfinished, prefix, refused, tmp_path
):
    """It goes on as if nobody had written anything but itself."""
    name = f"{prefix or '/'}x"
    with MemoryBackend() as store, MemoryBackend() as target:
        store.put(name, b"x", expected_revision=0)
        backup(store, tmp_path / "a", prefix=prefix)
        marker = Marker("restore", "0" * 64, "2026-01-01", {"prefix": unfinished})
        set_marker(target, unfinished, marker)
        with open_backup(tmp_path / "a") as source, MemoryBackend() as third:
            for run in (
                lambda: restore(target, source, prefix=prefix, merge=Merge.SKIP),
                lambda: copy(store, target, prefix=prefix, replace=True),
                lambda: copy(target, third, prefix=prefix),
            ):
                if refused:
                    with pytest.raises(StoreInUse, match="2026-01-01"):
                        run()
                    assert target.get(name).kv is None
                    assert third.count("").count == 0
                else:
                    run()
        assert read_marker(target, unfinished) == marker


@pytest.mark.parametrize("prefixes", [("", "/a/b/"), ("", "")])
def test_of_two_that_begin_together_one_yields(store, prefixes, tmp_path):
    """Both find the store complete, and then both write their marker."""
    with MemoryBackend() as whole:
        for key in ("/a/b/x", "/c"):
            whole.put(key, b"x", expected_revision=0)
        backup(whole, tmp_path / "a")
    together, ended, refused = threading.Barrier(2, timeout=60), [], []
    put = store.put

    def after_both(key, value, *, expected_revision, **more):
        if is_marker(key) and not expected_revision:
            together.wait()
        return put(key, value, expected_revision=expected_revision, **more)

    def run(prefix):
        try:
            with open_backup(tmp_path / "a") as source:
                restore(store, source, prefix=prefix)
            ended.append(prefix)
        except StoreInUse:
            refused.append(prefix)

    store.put = after_both
    threads = [threading.Thread(target=run, args=(prefix,)) for prefix in prefixes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    (prefix,) = ended
    assert len(refused) == 1
    assert [kv.key for kv in store.list("").kvs] == (["/a/b/x"] if prefix else ["/a/b/x", "/c"])


def test_one_that_was_killed_before_it_could_yield_does_so_later(tmp_path):
    with MemoryBackend() as whole, MemoryBackend() as store:
        whole.put("/a/b/x", b"x", expected_revision=0)
        digest = backup(whole, tmp_path / "a").sha256
        for prefix in ("", "/a/b/"):
            details = {"prefix": prefix, "merge": ""}
            marker = Marker("restore", digest, "2026-01-01", details, checked=not prefix)
            value = msgspec.json.encode(marker)
            store.put(marker_key(prefix), value, expected_revision=0)
        with open_backup(tmp_path / "a") as source:
            with pytest.raises(StoreInUse, match="prefix ''"):
                restore(store, source, prefix="/a/b/")
            assert store.count("").count == 1
            assert restore(store, source).written == 1
        assert [kv.key for kv in store.list("").kvs] == ["/a/b/x"]


@pytest.mark.parametrize("slow", [0.0, 0.4, 10.0])
def test_each_key_expires_within_a_second(open_store, monkeypatch, slow):
    """Not before its ttl, and less than a second later, or what the server took to grant the lease
    if that is longer. Keys share a lease where this allows it."""
    store, now = open_store("etcd3"), [0.0]
    monkeypatch.setattr(_target, "monotonic", lambda: now[0])
    monkeypatch.setattr(_leasing, "monotonic", lambda: now[0])
    leases, ends = store.leases(), {}
    grant = leases.grant

    def granted(ttl, **more):
        now[0] += slow / 2
        info = grant(ttl, **more)
        ends[info.id] = now[0] + ttl
        now[0] += slow / 2
        return info

    monkeypatch.setattr(leases, "grant", granted)
    monkeypatch.setattr(store, "leases", lambda **_: leases)
    ttls = [100.0, 100.0, 100.3, 99.6, 101.2, 200.0, 300.7, 300.5, 400.0, 5.0, 0.2, -3.0]
    target = _target.Target(store)
    target.write([Record(f"/{number}", b"", ttl=ttl) for number, ttl in enumerate(ttls)])

    alive = [(number, ttl) for number, ttl in enumerate(ttls) if ttl > 90]
    for number, ttl in alive:
        end = ends[store.get(f"/{number}").kv.lease]
        assert 0 <= end - ttl < max(1, slow), (number, ttl, end)
    assert len({store.get(f"/{number}").kv.lease for number, _ in alive}) <= 6


def test_a_marker_is_found_among_many_keys(tmp_path):
    with MemoryBackend() as store, MemoryBackend() as target:
        for number in range(1200):
            store.put(f"/a/{number}", b"", expected_revision=0)
            store.put(f"/b{number}", b"", expected_revision=0)
        store.put("/a-/x", b"", expected_revision=0)
        for prefix in ("/a/", "/a-/", "/b7/", "/b999/", "/c/", "b/"):
            set_marker(store, prefix, Marker("restore", "", "2026-01-01", {"prefix": prefix}))
            with pytest.raises(StoreInUse, match=f"prefix '{prefix}'"):
                copy(store, target)
            clear_marker(store, prefix)
        assert copy(store, target).keys == 2401


@pytest.mark.parametrize("prefix", ["", "/registry/", "/registry", "/registry/pods/"])
def test_no_reader_of_objects_sees_the_mark(url_of, prefix):
    url = url_of("sqlite")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}}
    with StorageFactory(url) as factory:
        factory.registry("pods").create(pod)
        before = factory.stored_resources()
        set_marker(factory.backend(), prefix, Marker("restore", "", "", {}))
        assert factory.backend().count("").count == 2
        assert factory.stored_resources() == before
        assert [obj["metadata"]["name"] for obj in factory.registry("pods").list()] == ["p"]


def test_others_who_write_meanwhile_are_noticed(made):
    with MemoryBackend() as target, open_backup(made) as source:

        def disturb(progress):
            if progress.step == "comparing" and not target.get("/x").kv:
                target.put("/x", b"", expected_revision=0)

        with pytest.raises(StoresDiffer, match="'/x': extra") as caught:
            restore(target, source, on_progress=disturb)
        assert caught.value.key == "/x"
        assert target.get(MARKER).kv is not None


def test_old_resource_versions(store, kind, made):
    """A client of the old store gets Compacted for each revision up to that of the backup, or the
    result says that it may not."""
    with open_backup(made) as source:
        old = source.header.revision
        result = restore(store, source, bump_by_writes=True)
    assert result.revision > old
    assert result.old_versions_expire == (kind != "etcd2")
    if not result.old_versions_expire:
        return
    for revision in (1, old // 2, old - 1):
        with pytest.raises(Compacted):
            store.list("", revision=revision)
        with (
            store.watch("", recursive=True, after_revision=revision) as watch,
            pytest.raises(Compacted),
        ):
            watch.poll(20)
    assert store.put("/new", b"", expected_revision=0).revision > old


def test_a_revision_that_cannot_be_raised_is_reported(open_store, start_etcd, made):
    address = start_etcd().address
    with (
        open_backend(StorageConfig.from_url(f"etcd3://{address}")) as store,
        open_backup(made) as source,
    ):
        result = restore(store, source)
    assert result.revision < result.backup_revision
    assert not result.old_versions_expire


def test_values_beyond_a_transaction(open_store, start_etcd, tmp_path):
    """Batches fit the limits of the server: its size of a request, and of a transaction."""
    server = start_etcd(arguments=("--max-txn-ops", "16"))
    with MemoryBackend() as store:
        for number in range(8):
            store.put(f"/large/{number}", bytes([number]) * 1_300_000, expected_revision=0)
        for number in range(100):
            store.put(f"/small/{number}", b"x", expected_revision=0)
        backup(store, tmp_path / "b")
        store.put("/too-large", b"x" * 2_000_000, expected_revision=0)
        backup(store, tmp_path / "c")
    with open_backend(StorageConfig.from_url(f"etcd3://{server.address}")) as target:
        with open_backup(tmp_path / "b") as source:
            restore(target, source)
            assert verify(source, target).equal
        with open_backup(tmp_path / "c") as source, pytest.raises(ValueTooLarge):
            restore(target, source, merge=Merge.SKIP)


def test_leases_or_not(open_store, made):
    for leases in (True, False):
        with MemoryBackend() as target, open_backup(made) as source:
            restore(target, source, leases=leases)
            assert len(target.leases().list()) == leases
            for key in ("/l/a", "/l/b"):
                assert 5990 < target.remaining_ttl(key) <= 6000


def test_answers_that_come_late_make_no_expiry_later(tmp_path):
    """Of a ttl, and of a lease."""

    class Late(MemoryBackend):
        def remaining_ttl(self, key, **options):
            return late(super().remaining_ttl(key, **options))

        def leases(self, **options):
            leases = super().leases(**options)
            get = leases.get
            leases.get = lambda lease, **options: late(get(lease, **options))
            return leases

    def late(answer):
        end = time.monotonic() + 0.1
        wait_until(lambda: time.monotonic() > end, "a late answer")
        return answer

    for leased in (False, True):
        with Late() as store, MemoryBackend() as target:
            if leased:
                lease = store.leases().grant(100).id
                store.transaction(lambda seen, lease=lease: seen.put("/a", b"", lease=lease))
            else:
                store.put("/a", b"", expected_revision=0, ttl=100)
            backup(store, tmp_path / f"{leased}")
            with open_backup(tmp_path / f"{leased}") as source:
                restore(target, source)
            assert target.remaining_ttl("/a") <= 100


def test_what_a_store_cannot_hold(made):
    class NoTTL(MemoryBackend):
        @property
        def capabilities(self):
            return super().capabilities - {Capability.TTL}

    with NoTTL() as target, open_backup(made) as source:
        with pytest.raises(Unsupported, match="expires, and the store has no ttl"):
            restore(target, source)
        assert target.status().revision == 1


NAMES = st.lists(st.text("ab./", min_size=1, max_size=5), unique=True, max_size=8)


@given(names=NAMES)
def test_keys_below_others_are_found_before_anything_is_written(names):
    """For a store without NESTED_KEYS, as if each pair had been compared."""

    class Paths(MemoryBackend):
        @property
        def capabilities(self):
            return super().capabilities - {Capability.NESTED_KEYS}

    nested = any(key.startswith(f"{other}/") for key in names for other in names)
    with Paths() as store:
        try:
            check_fits((Record(name, b"") for name in sorted(names)), store)
        except Unsupported:
            assert nested
        else:
            assert not nested


def test_nested_keys_are_refused_as_a_whole(open_store, tmp_path):
    with MemoryBackend() as store:
        for key in ("/a", "/a.b", "/a/c"):
            store.put(key, b"", expected_revision=0)
        backup(store, tmp_path / "b")
    target = open_store("etcd2")
    with open_backup(tmp_path / "b") as source, pytest.raises(Unsupported, match="'/a/c' is below"):
        restore(target, source)
    assert target.count("").count == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["sqlite", "etcd3", "etcd2"])
def test_killed_at_any_moment(driver, kind, url_of, made):
    """By kill -9 or Ctrl-C, several times; the same command goes on, and the store ends equal."""
    choose = random.Random(SEED)
    began = threading.Event()
    resumed = 0
    taken = []  # the first time takes longer
    for number in range(4):
        url = url_of(kind, f"whole{number}")
        start = time.monotonic()
        driver.start("restore", made, url)
        assert driver.end() == 0
        taken.append(time.monotonic() - start)
    seconds = min(taken)
    for number in range(40 * LONG):
        if number >= 2 * LONG and resumed > 2 * LONG:
            break
        url = url_of(kind, f"to{number}")
        for turn in range(100):
            child = driver.start("restore", made, url)
            if turn < 3:
                began.wait(choose.uniform(0.1, 0.9) * seconds)
                os.kill(child, choose.choice([signal.SIGKILL, signal.SIGINT]))
            if driver.end() == 0:
                break
            resumed += 1
        else:
            pytest.fail(f"it never ended, REVSTORE_TEST_SEED={SEED}")
        with open_backend(StorageConfig.from_url(url)) as store, open_backup(made) as source:
            if store.count("").count < 703:
                assert verify(source, store).equal, SEED
            assert store.get(MARKER).kv is None
            for key in ("/registry/pods/ns/p000", "/registry/pods/ns/p050", "/l/a"):
                ttl = next(each.ttl for each in source.records() if each.key == key)
                assert ttl - 120 < store.remaining_ttl(key) <= ttl + 1.5
            # Once more, it finds that it has nothing to do.
            again = restore(store, source)
            assert (again.resumed, again.written) == (True, 0)
    assert resumed > 2 * LONG, "the kills came too late to matter"


def test_a_cut_file_does_not_touch_a_store(store, made):
    data = made.read_bytes()
    revision = store.status().revision
    for end in (0, 10, len(data) // 2, len(data) - 1):
        made.write_bytes(data[:end])
        with pytest.raises(InvalidBackup):
            restore(store, open_backup(made))
    assert store.status().revision == revision


@pytest.mark.slow
def test_a_server_that_dies_meanwhile(start_etcd, made):
    """The restore fails with an error of the backend; once the server is back, it goes on."""
    server = start_etcd()
    url = f"etcd3://{server.address}?timeout=1"

    def stop(progress):
        if progress.step == "comparing":
            server.kill()

    with open_backup(made) as source:
        with (
            open_backend(StorageConfig.from_url(url)) as store,
            pytest.raises((Unreachable, Timeout)),
        ):
            restore(store, source, on_progress=stop)
        server.start()
        with open_backend(StorageConfig.from_url(url)) as store:
            assert store.get(MARKER).kv is not None
            assert restore(store, source).resumed
            assert verify(source, store).equal
