"""Watches over restarts, churn, forgotten history and folders that go."""

from __future__ import annotations

import os
import threading
import time

import pytest

from revstore.errors import Compacted, IncompatibleStore
from revstore.testing._support import PATIENCE, collect, run_threads
from revstore.testing.etcd import EtcdServer, _free_port
from revstore.testing.proxy import FaultyProxy
from revstore_etcd2._names import url_of

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))


def write(backend, key, value=b"x"):
    """Write it, whatever there is, as soon as the server answers."""
    current = backend.get(key).kv
    result = backend.put(key, value, expected_revision=current.revision if current else 0)
    assert result.succeeded
    return result.revision


def follow(watch, upto):
    """The revisions of events up to ``upto``, a revision or a function."""
    found = []
    deadline = time.monotonic() + 2 * PATIENCE
    while watch.position < upto:
        assert time.monotonic() < deadline, f"at {watch.position}, not at {upto}"
        batch = watch.poll(1)
        if batch is not None and batch.events:
            found.append(batch.revision)
    return found


def churn(backend, count, threads=4):
    def work(index):
        revision = 0
        for _ in range(count // threads):
            result = backend.put(f"/noise/{index}", b"", expected_revision=revision)
            revision = result.revision if result.succeeded else result.current.revision

    run_threads(threads, work)


def test_survives_restarts(new_server, opened):
    """WATCH-2: the server is stopped, and killed; what was written before, between and after
    comes once and in order."""
    backend = opened(new_server.address, "?idle_timeout=0.5")
    start = backend.status().revision
    written = []
    with backend.watch("/k", recursive=True, after_revision=start) as watch:
        for end in (new_server.stop, new_server.kill, new_server.stop):
            written += [write(backend, f"/k{number}") for number in range(5)]
            end()
            new_server.start()
            written += [write(backend, f"/k{number}") for number in range(5)]
        assert follow(watch, written[-1]) == written


def test_progress_after_a_restart_without_writes(new_server, opened):
    """CACHE-11: the server's own changes move the index too; a watch learns of it by itself."""
    backend = opened(new_server.address, "?idle_timeout=0.5")
    start = write(backend, "/k")
    with backend.watch("/other", recursive=True, after_revision=start) as watch:
        write(backend, "/k")
        follow(watch, start + 1)
        new_server.stop()
        new_server.start()
        assert follow(watch, backend.status().revision) == []


def test_quiet_keys_do_not_fall_out_of_the_window(new_server, opened):
    """Thousands of writes to other keys move the watches on, one that polls and one
    that does not; then its own event comes to each."""
    backend = opened(new_server.address)
    start = write(backend, "/first")
    with (
        backend.watch("/quiet", recursive=True, after_revision=start) as watch,
        backend.watch("/quiet", recursive=False, after_revision=start) as idle,
    ):
        assert idle.poll(0) is None
        follow(watch, write(backend, "/noise/0"))
        churn(backend, 3000)
        assert follow(watch, backend.status().revision) == []
        written = write(backend, "/quiet")
        for each in (watch, idle):
            assert follow(each, written) == [written]


@pytest.mark.timeout(900)
def test_a_long_way(new_server, opened):
    """Restarts, broken connections, and writes to other keys beyond counting (in
    `make soak` 100,000) lie between a watch's own events, which come once, in order."""
    foreign = 100_000 if LONG > 1 else 5_000
    with FaultyProxy(new_server.address) as proxy:
        backend, other = opened(proxy.address, "?idle_timeout=0.5"), opened(new_server.address)
        start = write(other, "/own")
        with backend.watch("/own", recursive=True, after_revision=start) as watch:
            follow(watch, write(other, "/own"))  # from here on it follows
            for turn in range(5):
                for _ in range(foreign // 2500):  # less at once than the server remembers
                    churn(other, 500)
                    assert follow(watch, other.status().revision) == []
                written = [write(other, "/own")]
                if turn % 2:
                    proxy.cut()
                    proxy.restore()
                else:
                    new_server.kill()
                    new_server.start()
                written.append(write(other, "/own"))
                assert follow(watch, written[-1]) == written
        assert other.status().revision > 0.9 * foreign


def test_a_break_longer_than_the_window(new_server, opened):
    """ERR-8, OLD-25: more changes than the server remembers, while the stream stood still or was
    never open, end a watch with Compacted, and always again."""
    backend, other = opened(new_server.address), opened(new_server.address)
    start = write(backend, "/k")
    churn(other, 1200)
    for _ in range(2):
        with backend.watch("/", recursive=True, after_revision=start) as watch:
            for _ in range(2):
                with pytest.raises(Compacted) as caught:
                    watch.poll(PATIENCE)
                assert start < caught.value.compacted < caught.value.current
    recent = other.status().revision - 500
    with backend.watch("/", recursive=True, after_revision=recent) as watch:
        assert follow(watch, recent + 400) == [*range(recent + 1, recent + 401)]


def test_overtaken_while_the_stream_is_down(new_server, opened, monkeypatch):
    """Never silently: what a stream that broke has missed is Compacted."""
    backend, other = opened(new_server.address, "?idle_timeout=0.2"), opened(new_server.address)
    start = write(backend, "/k")
    with backend.watch("/", recursive=True, after_revision=start) as watch:
        written = write(backend, "/k")
        assert follow(watch, written) == [written]
        down, held = threading.Event(), threading.Event()
        follows = backend._hub._follow

        def late():
            down.set()
            assert held.wait(PATIENCE)
            follows()

        monkeypatch.setattr(backend._hub, "_follow", late)
        assert down.wait(PATIENCE), "the stream ends by its own silence"
        churn(other, 1200)
        held.set()
        with pytest.raises(Compacted):
            follow(watch, other.status().revision)


@pytest.mark.parametrize("late", [False, True])
def test_a_folder_that_is_removed(open_store, late):
    """`etcdctl rm -r` is one change without a word of the keys; the watches that may
    have had some end with Compacted, the others go on."""
    backend = open_store()
    root = f"/folder-{id(backend)}-{late}"
    start = write(backend, f"{root}/a/1")
    write(backend, f"{root}/ab")

    def watch(key, recursive=True):
        return backend.watch(key, recursive=recursive, after_revision=start)

    def remove():
        url = f"{url_of(f'{root}/a')}?recursive=true&dir=true"
        assert backend._client.call("DELETE", url).status == 200
        return write(backend, f"{root}/ab")

    last = remove() if late else 0
    hit = [watch(root), watch(f"{root}/a/"), watch(f"{root}/a/1", False)]
    spared = [watch(f"{root}/ab"), watch(f"{root}/a", False), watch(f"{root}/b/")]
    last = last or remove()
    for each in hit:
        with pytest.raises(Compacted):
            follow(each, last)
    assert [len(follow(each, last)) for each in spared] == [2, 0, 0]
    for each in (*hit, *spared):
        each.close()


def test_a_folder_in_place_of_a_key(open_store):
    """A key that another client turns into a folder is deleted."""
    backend = open_store()
    key = f"/turned-{id(backend)}"
    start = write(backend, key)
    with backend.watch(key, recursive=False, after_revision=start, progress=False) as watch:
        reply = backend._client.call("PUT", url_of(key), body="dir=true")
        assert reply.status in (200, 201)
        (event,) = collect(watch, 1)
    assert (event.type, event.previous.revision) == ("DELETED", start)


def test_another_store_in_its_place(etcd_binary, opened):
    """The same address with other data ends a watch, and refuses calls, for good."""
    with EtcdServer(etcd_binary, enable_v2=True) as first:
        first.start()
        port = int(first.address.split(":")[1])
        backend = opened(first.address, "?idle_timeout=0.5")
        for number in range(20):
            last = write(backend, f"/{number}")
        watch = backend.watch("/", recursive=True, after_revision=last)
        write(backend, "/0")
        follow(watch, last + 1)
    with EtcdServer(etcd_binary, enable_v2=True, ports=(port, _free_port())) as second:
        second.start()
        with pytest.raises(IncompatibleStore):
            follow(watch, last + 100)
        with pytest.raises(IncompatibleStore):
            backend.get("/0")
        watch.close()


def test_no_room_for_a_thread(new_server, opened, watch_without_threads):
    """WATCH-7: told by who asks for the watch; with room again there are watches again."""
    watch_without_threads(opened(new_server.address))


class _Closed(threading.Event):
    """The backend is closed at the worst moment: just before this is cleared."""

    def __init__(self, closed):
        super().__init__()
        self._closed = closed

    def clear(self):
        self._closed.set()
        self.set()
        super().clear()


def test_close_while_the_hub_goes_to_rest(server, open_store):
    """No thread stays when the backend is closed just as its stream is not wanted any more."""
    backend, other = open_store(), open_store()
    watch = backend.watch("/", recursive=True, after_revision=backend.status().revision)
    assert follow(watch, write(other, "/rest"))
    backend._hub._wanted = _Closed(backend._client.closed)
    watch.close()
    write(other, "/rest")
    backend._hub._thread.join(PATIENCE)
    assert not backend._hub._thread.is_alive()
    backend._client.close()


def test_close_ends_a_stream_without_keep_alive(server, open_store):
    """Where each answer ends with its connection, as behind some proxies, close cuts the stream
    as well, and does not wait until it has been silent for long."""
    backend = open_store("?idle_timeout=60")
    backend._client._headers = {**backend._client._headers, "Connection": "close"}
    watch = backend.watch("/", recursive=True, after_revision=backend.status().revision)
    assert follow(watch, write(backend, "/closing"))
    backend.close()
    backend._hub._thread.join(PATIENCE)
    assert not backend._hub._thread.is_alive()
