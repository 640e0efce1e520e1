"""A server whose store goes back: it is restored from an older snapshot."""

from __future__ import annotations

import pytest

import revstore
from revstore.config import StorageConfig
from revstore.errors import Expired, IncompatibleStore, NotReady, OutcomeUnknown
from revstore.plugins import open_backend
from revstore.testing._support import wait_until
from revstore.testing.proxy import FaultyProxy

OPTIONS = "?keepalive_time=1&keepalive_timeout=1&dial_timeout=1&timeout=5"


@pytest.fixture
def server(new_server):
    """``open_store`` opens the test's own server."""
    return new_server


def restore_older(server, tmp_path, backend, *, before):
    """Write, take a copy, write ten more, restore the copy, ``before`` having been called. The
    server is left stopped; returns the revision that was reached."""
    for number in range(3):
        backend.put(f"/t/{number}", b"before", expected_revision=0)
    server.snapshot(str(tmp_path / "copy"))
    for number in range(10):
        reached = backend.put(f"/t/more-{number}", b"lost", expected_revision=0).revision
    before()
    server.restore(str(tmp_path / "copy"))
    return reached


def wait_for(watch, events):
    """Poll until that many have come."""
    while events > 0:
        events -= len(watch.poll(10).events)


def write_beyond(server, revision):
    """By somebody else, until the store is above ``revision``."""
    last = 0
    with open_backend(StorageConfig.from_url(f"etcd3://{server.address}{OPTIONS}")) as other:
        while last <= revision:
            last = other.put("/t/new", b"x", expected_revision=last).revision


def test_every_call_and_watch_ends(server, open_store, tmp_path):
    """WATCH-15: the revision has gone back; what knew a higher one raises
    IncompatibleStore from then on, reads, writes and watches old and new, and not only until the
    revision has risen again; a new handle works."""
    backend = open_store(OPTIONS)
    watch = backend.watch("/t/", recursive=True, after_revision=backend.status().revision)
    reached = restore_older(server, tmp_path, backend, before=lambda: wait_for(watch, 13))
    server.start()
    with pytest.raises(IncompatibleStore):
        list(watch)
    write_beyond(server, reached)
    calls = [
        lambda: backend.get("/t/0"),
        lambda: backend.list("/t/"),
        lambda: backend.put("/t/0", b"x", expected_revision=2),
        lambda: backend.watch("/t/", recursive=True, after_revision=reached),
        backend.status,
        lambda: watch.poll(0),
    ]
    for call in calls:
        with pytest.raises(IncompatibleStore):
            call()
    fresh = open_store(OPTIONS)
    assert fresh.get("/t/0").kv.value == b"before"
    assert fresh.get("/t/more-0").kv is None


def test_a_handle_without_a_watch(server, open_store, tmp_path):
    """Nothing but the answers tell it: reads, and writes that lose, raise IncompatibleStore; a
    write that landed in the other store is OutcomeUnknown, never a success."""
    reader, loser, writer = open_store(OPTIONS), open_store(OPTIONS), open_store(OPTIONS)
    at = writer.put("/t/k", b"x", expected_revision=0).revision
    others = [reader, loser]
    restore_older(server, tmp_path, writer, before=lambda: [each.status() for each in others])
    server.start()
    with pytest.raises(IncompatibleStore):
        reader.get("/t/0", timeout=10)
    with pytest.raises(IncompatibleStore):
        loser.put("/t/k", b"x", expected_revision=at + 1000, timeout=10)
    with pytest.raises(OutcomeUnknown):
        writer.put("/t/k", b"y", expected_revision=at, timeout=10)
    with pytest.raises(IncompatibleStore):
        writer.get("/t/k")


@pytest.mark.parametrize("idle", [False, True], ids=["events", "idle"])
def test_written_beyond_before_anyone_looks(server, open_store, tmp_path, idle):
    """The revision is above the old one when the watch comes back, as if the store had only grown:
    what stands at the watch's position is another event, and the watch ends. Also if it had no
    event yet and knows only where it began."""
    writer = open_store(OPTIONS)
    with FaultyProxy(server.address) as proxy:
        config = StorageConfig.from_url(f"etcd3://{proxy.address}{OPTIONS}")
        with open_backend(config) as backend:
            start = backend.status().revision
            watch = None if idle else backend.watch("/", recursive=True, after_revision=start)
            for number in range(3):
                writer.put(f"/t/{number}", b"before", expected_revision=0)
            server.snapshot(str(tmp_path / "copy"))
            reached = writer.put("/t/lost", b"x", expected_revision=0).revision
            watch = watch or backend.watch("/", recursive=True, after_revision=reached)
            if not idle:
                wait_for(watch, 4)
            wait_until(lambda: backend._hub._stream and backend._hub._stream.last, "the stream")
            proxy.cut()
            server.restore(str(tmp_path / "copy"))
            server.start()
            write_beyond(server, reached)
            proxy.restore()
            with pytest.raises(IncompatibleStore):
                list(watch)


def test_under_the_cacher(server, tmp_path):
    """CACHE-1: the cache does not go on with what is no more: its watches end, and
    its reads raise, until the store is opened again."""
    where = f"etcd3://{server.address}{OPTIONS}"
    with revstore.open_storage(where, dict, cached=True, resource="t") as storage:
        storage.create("/t/kept", {"metadata": {"name": "kept"}})
        server.snapshot(str(tmp_path / "copy"))
        storage.create("/t/lost", {"metadata": {"name": "lost"}})
        found = storage.list("/t")
        assert len(found) == 2
        with storage.watch("/t", resource_version=found.resource_version) as watch:
            server.restore(str(tmp_path / "copy"))
            server.start()
            with pytest.raises((Expired, IncompatibleStore)):
                list(watch)
        for version in ("", "0"):
            with pytest.raises((IncompatibleStore, NotReady)):
                storage.list("/t", resource_version=version, timeout=2)
        with pytest.raises((IncompatibleStore, NotReady)):
            storage.get("/t/lost", timeout=2)
    with revstore.open_storage(where, dict, cached=True, resource="t") as storage:
        assert len(storage.list("/t")) == 1
