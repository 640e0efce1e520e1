"""A copy is equal to its source, whatever happens meanwhile."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from revstore.errors import (
    Compacted,
    CorruptObject,
    InvalidArgument,
    StoreInUse,
    Unreachable,
)
from revstore.memory import MemoryBackend
from revstore.operations import copy, verify
from revstore.testing._support import PATIENCE, wait_until
from revstore.values import Capability

MARKER = "/revstore.unfinished"


def write(backend, key, value=b"value", ttl=0):
    kv = backend.get(key).kv
    put = backend.put(key, value, expected_revision=kv.revision if kv else 0, ttl=ttl)
    assert put.succeeded
    return put.revision


def delete(backend, key):
    deleted = backend.delete(key, expected_revision=backend.get(key).kv.revision)
    assert deleted.succeeded
    return deleted.revision


def attach(backend, lease, *names):
    backend.transaction(lambda seen: [seen.put(name, b"leased", lease=lease) for name in names])


def contents(backend):
    """Keys, values and whether they expire, without the marker."""
    return {kv.key: (kv.value, bool(kv.lease)) for kv in backend.list("").kvs if kv.key != MARKER}


@contextmanager
def following(source, target, **options):
    """A copy that follows in another thread."""
    stop, results = threading.Event(), []

    def run():
        try:
            results.append(copy(source, target, follow=True, stop=stop, **options))
        except Exception as error:  # noqa: BLE001 - the test looks at it
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield results
    finally:
        stop.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_every_store_to_every_other(store, kind, open_store):
    for number in range(250):
        ttl = 500 if number % 50 == 0 else 0
        write(store, f"/registry/pods/ns/p{number:03}", bytes([number]) * number, ttl)
    leased = Capability.LEASES in store.capabilities
    if leased:
        lease = store.leases().grant(700).id
        attach(store, lease, "/registry/leased/a", "/registry/leased/b")
    before = contents(store)
    ends = {kv.key: store.remaining_ttl(kv.key) for kv in store.list("").kvs if kv.lease}
    last = store.status().revision
    for other in ("memory", "sqlite", "etcd3", "etcd2"):
        if other == kind == "etcd3" or other == kind == "etcd2":
            continue  # there is one server for all
        target = open_store(other, "target")
        result = copy(store, target)
        assert (result.keys, result.written, result.deleted) == (len(before), len(before), 0)
        assert (result.resumed, result.complete) == (False, True)
        assert result.source_revision == last
        assert contents(target) == before
        for key, end in ends.items():
            assert end - 10 < target.remaining_ttl(key) < end + 1.5, (other, key)
        if leased and Capability.LEASES in target.capabilities:
            assert target.get("/registry/leased/a").kv.lease == lease
            assert target.get("/registry/leased/b").kv.lease == lease
        assert target.get(MARKER).kv is None
        if Capability.RAISE_REVISION in target.capabilities:
            assert result.old_versions_expire
            with (
                target.watch("/", recursive=True, after_revision=last) as watch,
                pytest.raises(Compacted),
            ):
                watch.poll(PATIENCE)


names = st.text("abc/é", min_size=1, max_size=3).map("/k".__add__)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("put"), names, st.binary(max_size=9), st.sampled_from([0, 0, 800, 900])),
        st.tuples(st.just("delete"), names),
        st.tuples(st.just("lease"), names, st.integers(1 << 40, (1 << 40) + 3)),
        st.tuples(st.just("compact")),
    ),
    max_size=30,
)


def change(backend, step):
    what, *rest = step
    if what == "put":
        write(backend, *rest)
    elif what == "delete" and backend.get(rest[0]).kv:
        delete(backend, rest[0])
    elif what == "lease":
        leases = backend.leases()
        if rest[1] not in leases.list():
            leases.grant(1000, lease=rest[1])
        attach(backend, rest[1], rest[0])
    elif what == "compact" and backend.status().compacted_revision < backend.status().revision:
        backend.compact(backend.status().revision)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=changes, target_has=changes, later=changes)
def test_any_content_any_changes(first, target_has, later):
    """Whatever the source has, the target had, and happens during the copy and between two: the
    next copy makes them equal."""
    with MemoryBackend() as source, MemoryBackend() as target:
        for step in first:
            change(source, step)
        for step in target_has:
            change(target, step)
        copy(source, target, replace=True)
        assert verify(source, target).equal
        assert contents(source) == contents(target)
        with following(source, target, replace=True) as results:
            for step in later:
                change(source, step)
        assert not isinstance(results[0], Exception)
        result = copy(source, target)
        assert result.resumed
        assert verify(source, target).equal
        assert contents(source) == contents(target)


def test_it_follows(store, open_store):
    """Writes, deletions and expiries arrive, the position is noted, and the same call goes on."""
    write(store, "/registry/a")
    write(store, "/registry/b")
    reports = []
    with MemoryBackend() as target:
        with following(store, target, on_progress=reports.append) as results:
            wait_until(lambda: contents(target).keys() == {"/registry/a", "/registry/b"}, "copied")
            write(store, "/registry/a", b"new")
            write(store, "/registry/dying", ttl=1)
            delete(store, "/registry/b")
            last = write(store, "/registry/c")
            wait_until(
                lambda: (
                    contents(target)
                    == {"/registry/a": (b"new", False), "/registry/c": (b"value", False)}
                ),
                "the same",
            )
            assert '"prefix":""' in target.get(MARKER).kv.value.decode()
        assert results[0].complete is False
        assert results[0].source_revision >= last
        assert f'"revision":"{results[0].source_revision}"' in target.get(MARKER).kv.value.decode()
        assert {"copying", "following"} <= {each.step for each in reports}
        wait_until(lambda: store.get("/registry/dying").kv is None, "it expires there too")
        write(store, "/registry/d")
        done = copy(store, target)
        assert (done.resumed, done.complete, done.written) == (True, True, 1)
        assert contents(target) == contents(store)
        assert target.get(MARKER).kv is None


@pytest.mark.parametrize("other", ["memory", "sqlite"])
def test_a_lease_that_is_kept_alive(open_store, other):
    """Its keys live on in the target, and end there when it ends."""
    source, target = MemoryBackend(), open_store(other, "target")
    leases = source.leases()
    lease = leases.grant(2).id
    attach(source, lease, "/a", "/b")
    with following(source, target):
        wait_until(lambda: len(contents(target)) == 2, "copied")
        began = time.monotonic()
        lost = []
        while time.monotonic() - began < 5:
            leases.keep_alive(lease)
            lost.append(not contents(target))
            time.sleep(0.1)
        # While a lease is granted again, its keys are away for a moment.
        assert sum(lost) < len(lost) / 4
        leases.revoke(lease)
        wait_until(lambda: not contents(target), "gone")


def test_a_key_that_is_kept_alive():
    """A write of the same value with a new ttl is a change."""
    with MemoryBackend() as source, MemoryBackend() as target:
        write(source, "/a", ttl=100)
        with following(source, target):
            wait_until(lambda: contents(target), "copied")
            write(source, "/a", ttl=5000)
            wait_until(lambda: (target.remaining_ttl("/a") or 0) > 4000, "it lives longer")


def test_a_source_that_compacts_too_much():
    """Changes that are gone are found by a comparison: also deletions."""

    class Forgetful(MemoryBackend):
        forget = False

        def watch(self, key, *, recursive, after_revision, progress=True):
            if self.forget:
                self.forget = False
                delete(self, "/b")
                write(self, "/c")
                self.compact(self.status().revision)
            return super().watch(
                key, recursive=recursive, after_revision=after_revision, progress=progress
            )

    with Forgetful() as source, MemoryBackend() as target:
        write(source, "/a")
        write(source, "/b")
        source.forget = True
        steps = []
        with following(source, target, on_progress=lambda each: steps.append(each.step)):
            wait_until(lambda: contents(target).keys() == {"/a", "/c"}, "repaired")
        assert "comparing again" in steps


def test_refusals(open_store):
    source, target = MemoryBackend(), open_store("sqlite")
    write(source, "/a")
    write(target, "/mine")
    with pytest.raises(StoreInUse) as caught:
        copy(source, target)
    assert caught.value.key == "/mine"
    assert contents(target).keys() == {"/mine"}

    copy(source, target, prefix="/a")  # nothing is there
    assert contents(target).keys() == {"/a", "/mine"}
    copy(source, target, replace=True)
    assert contents(target).keys() == {"/a"}
    copy(source, target)  # it is equal
    with pytest.raises(InvalidArgument):
        copy(target, target)


def test_an_unfinished_copy_is_of_one_source():
    """Another source, and a copy of the copy, are refused."""
    with MemoryBackend() as source, MemoryBackend() as target, MemoryBackend() as other:
        write(source, "/a")
        stop = threading.Event()
        stop.set()
        copy(source, target, follow=True, stop=stop)
        for arguments in ((other, target), (target, other)):
            with pytest.raises(StoreInUse) as caught:
                copy(*arguments)
            assert caught.value.key == MARKER
        assert copy(source, target).resumed


def test_a_damaged_value():
    class Damaged(MemoryBackend):
        def list(self, *arguments, **options):
            found = super().list(*arguments, **options)
            return type(found)(
                found.revision, tuple(type(kv)(kv.key, b"", 1, damaged=True) for kv in found.kvs)
            )

    with Damaged() as source, MemoryBackend() as target:
        write(source, "/a")
        with pytest.raises(CorruptObject):
            copy(source, target)


@pytest.mark.parametrize("fails", range(1, 14))
def test_it_goes_on_after_an_error(fails):
    """After an error at any request of source or target, the same call ends equal."""

    class Failing(MemoryBackend):
        def transaction(self, *arguments, **options):
            self.fail()
            return super().transaction(*arguments, **options)

        def list(self, *arguments, **options):
            self.fail()
            return super().list(*arguments, **options)

        def get(self, *arguments, **options):
            self.fail()
            return super().get(*arguments, **options)

        def fail(self):
            nonlocal left
            left -= 1
            if left == 0:
                raise Unreachable("a test")

    left = 0
    with Failing() as source, Failing() as target:
        for number in range(300):
            write(source, f"/k{number}", ttl=900 if number % 7 == 0 else 0)
        source.leases().grant(1000, lease=1 << 40)
        attach(source, 1 << 40, "/x", "/y")
        left = fails
        try:
            copy(source, target)
        except Unreachable:
            write(source, "/k1", b"other")
            delete(source, "/k2")
        left = 0
        copy(source, target)
        assert verify(source, target).equal


def test_the_later_call_takes_over(open_store, kind):
    """A copy that still runs ends with its next write, so that nothing old is written behind a
    copy that is complete."""
    target = open_store(kind, "to")
    with MemoryBackend() as source:
        write(source, "/a")
        with following(source, target) as results:
            wait_until(lambda: contents(target), "copied")
            assert copy(source, target).complete
            write(source, "/b")
            wait_until(lambda: results, "it ends")
        assert isinstance(results[0], StoreInUse)
        assert contents(target).keys() == {"/a"}


def test_the_former_call_notes_its_position_while_it_is_taken_over():
    """The call that fills the target may note how far it is at any moment, also at this one."""

    class Noting(MemoryBackend):
        def put(self, key, value, **options):
            if key == MARKER and notes:
                notes.pop()
                marker = msgspec.json.decode(self.get(MARKER).kv.value)
                marker["details"]["revision"] = str(1000 + len(notes))
                super().put(key, msgspec.json.encode(marker), **options)
            return super().put(key, value, **options)

    notes = []
    with MemoryBackend() as source, Noting() as target:
        write(source, "/a")
        stop = threading.Event()
        stop.set()
        assert not copy(source, target, follow=True, stop=stop).complete
        notes += [1, 2, 3]
        result = copy(source, target)
        assert (result.complete, result.resumed, notes) == (True, True, [])
        assert contents(target).keys() == {"/a"}


def test_a_slow_store_makes_no_difference_of_expiry(monkeypatch):
    """However long the first page takes, what expires at one moment is equal."""

    class Slow(MemoryBackend):
        def list(self, *arguments, **options):
            end = time.monotonic() + 0.6
            wait_until(lambda: time.monotonic() > end, "a slow answer")
            return super().list(*arguments, **options)

    monkeypatch.setattr("revstore.operations._compare._TOLERANCE", 0.3)
    with Slow() as source, MemoryBackend() as target:
        for store in (source, target):
            write(store, "/a", ttl=1000)
        assert verify(source, target).equal
        assert verify(target, source).equal


def test_without_leases(open_store):
    """Each ttl of etcd is a lease. Without leases the keys expire by themselves in sqlite."""
    source, target = open_store("etcd3"), open_store("sqlite", "to")
    write(source, "/a", ttl=3)
    with following(source, target, leases=False):
        wait_until(lambda: contents(target) == {"/a": (b"value", True)}, "copied")
        assert target.leases().list() == ()
        wait_until(lambda: not contents(target), "expired")
