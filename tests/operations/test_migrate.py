"""A migration loses no write that was acknowledged, and stops the writers of the source."""

from __future__ import annotations

import threading

import pytest

from revstore.backend import Backend
from revstore.errors import Compacted, InvalidArgument, ReadOnly, StoreInUse, Unreachable
from revstore.memory import MemoryBackend
from revstore.operations import copy, migrate, verify
from revstore.testing._support import PATIENCE, wait_until
from revstore.values import Capability

MARKER = "/revstore.unfinished"


class Writers:
    """Threads that write until the store refuses; ``written`` has what was acknowledged."""

    def __init__(self, backend: Backend, count: int = 4) -> None:
        self.backend = backend
        self.written: dict[str, bytes | None] = {}
        self.refused: list[str] = []
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.write, args=(n,)) for n in range(count)]
        for thread in self.threads:
            thread.start()

    def write(self, number: int) -> None:
        turn = 0
        while not self.stopped.is_set():
            key, value = f"/registry/w{number}/{turn % 50}", b"%d" % turn
            kv = self.backend.get(key).kv
            try:
                if kv is not None and turn % 5 == 0:
                    assert self.backend.delete(key, expected_revision=kv.revision).succeeded
                    self.written[key] = None
                else:
                    at = kv.revision if kv else 0
                    assert self.backend.put(key, value, expected_revision=at).succeeded
                    self.written[key] = value
            except ReadOnly as error:
                self.refused.append(str(error))
                return
            turn += 1

    def join(self) -> None:
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_no_write_is_lost(open_store, kind):
    """Writers go on until the fence. All that was acknowledged is in the target."""
    source = open_store(kind, "from")
    for number in range(300):
        source.put(f"/registry/k{number}", b"value", expected_revision=0)
    fences = Capability.FENCE in source.capabilities
    writers = Writers(source)
    wait_until(lambda: len(writers.written) > 50, "writers are busy")
    if not fences:
        writers.stopped.set()
        writers.join()
        with pytest.raises(InvalidArgument) as caught:
            migrate(source, MemoryBackend())
        assert caught.value.field == "writers_stopped"
    with open_store("sqlite", "to") as target:
        result = migrate(source, target, reason="go away", writers_stopped=not fences)
        writers.join()
        assert writers.refused == ["go away"] * (4 * fences)
        assert (result.fenced, result.moved) == (fences, False)
        found = {kv.key: kv.value for kv in target.list("/registry/").kvs}
        for key, value in writers.written.items():
            assert found.get(key) == value
        assert verify(source, target).equal
        assert result.keys == len(found)
        assert target.get(MARKER).kv is None

        # Clients go on from the last revision of the source, and miss nothing.
        last = result.source_revision
        assert source.status().revision == last
        assert result.old_versions_expire
        with target.watch("/registry/", recursive=True, after_revision=last) as watch:
            target.put("/registry/new", b"", expected_revision=0)
            assert [event.kv.key for event in watch.poll(PATIENCE).events] == ["/registry/new"]
        with (
            target.watch("/registry/", recursive=True, after_revision=last - 1) as watch,
            pytest.raises(Compacted),
        ):
            watch.poll(PATIENCE)
    if fences:
        source.unfence()
        source.put("/registry/after", b"", expected_revision=0)


def test_into_a_store_that_cannot_raise_its_revision(open_store):
    """It says that clients may take an old version for a new one, unless it writes its way up."""
    source = MemoryBackend()
    for number in range(300):
        source.put(f"/registry/k{number}", b"value", expected_revision=0)
    target = open_store("etcd3")
    source.raise_revision(target.status().revision + 500)
    result = migrate(source, target)
    assert not result.old_versions_expire
    assert result.revision < result.source_revision
    # The same again: it finds that nothing is missing.
    result = migrate(source, target, bump_by_writes=True)
    assert result.old_versions_expire
    assert result.revision >= result.source_revision
    assert target.list(MARKER).kvs == ()


def test_it_goes_on_after_an_error():
    """An error after the fence leaves it; the same call completes the migration."""

    class Failing(MemoryBackend):
        fails = False
        fails_after_fence = True

        def list(self, *arguments, **options):
            if self.fails:
                raise Unreachable("a test")
            return super().list(*arguments, **options)

        def fence(self, *arguments, **options):
            super().fence(*arguments, **options)
            self.fails = self.fails_after_fence

    with Failing() as source, MemoryBackend() as target:
        source.put("/a", b"", expected_revision=0)
        with pytest.raises(Unreachable):
            migrate(source, target)
        assert target.get(MARKER).kv is not None
        with pytest.raises(ReadOnly):
            source.put("/b", b"", expected_revision=0)
        source.fails = source.fails_after_fence = False
        result = migrate(source, target)
        assert (result.resumed, result.keys) == (True, 1)
        assert target.get(MARKER).kv is None


def test_after_a_copy_that_followed():
    """What `copy --follow` has copied is not copied again."""
    with MemoryBackend() as source, MemoryBackend() as target:
        source.put("/a", b"", expected_revision=0)
        stop = threading.Event()
        stop.set()
        copy(source, target, follow=True, stop=stop)
        result = migrate(source, target)
        assert result.resumed
        assert target.get("/a").kv.version == 1


def test_something_that_goes_on_writing():
    """It is noticed by the revision, and the target stays marked."""

    class Written(MemoryBackend):
        def status(self, **options):
            self.unfence()
            self.put(f"/n{super().status().revision}", b"", expected_revision=0)
            return super().status(**options)

    with Written() as source, MemoryBackend() as target:
        with pytest.raises(StoreInUse, match="goes on writing"):
            migrate(source, target, writers_stopped=True)
        assert target.get(MARKER).kv is not None
    with MemoryBackend() as source, MemoryBackend() as target:
        lease = source.leases().grant(1000).id
        source.transaction(lambda seen: seen.put("/leased", b"", lease=lease))
        source.put("/due", b"", expected_revision=0, ttl=1)
        source.fence("before")
        wait_until(lambda: source.remaining_ttl("/due") == 0.0, "it is due")
        result = migrate(source, target)
        assert not result.moved
        assert target.get("/leased").kv.lease == lease
        assert target.get("/due").kv is None


def test_keys_that_expire_in_etcd_meanwhile(open_store):
    """etcd goes on to delete what is due; the migration takes this for no writer."""
    source = open_store("etcd3")
    for ttl in range(1, 9):
        source.put(f"/registry/dying{ttl}", b"", expected_revision=0, ttl=ttl)
    source.put("/registry/lasting", b"", expected_revision=0, ttl=1000)
    with MemoryBackend() as target:
        migrate(source, target)
        wait_until(lambda: source.count("/registry/").count == 1, "all are due")
        wait_until(lambda: target.count("/registry/").count == 1, "here too")
        assert verify(source, target).equal
