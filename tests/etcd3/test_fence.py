"""The fence: a key that each write compares, and that nothing else shows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.errors import OutcomeUnknown, ReadOnly
from revstore.plugins import open_backend, run_doctor
from revstore.testing._support import PATIENCE, collect, collect_to_mark, wait_until
from revstore.testing.etcd import EtcdServer
from revstore_etcd3._requests import FENCE
from revstore_etcd3._wire import rpc_pb2


@pytest.fixture
def server(new_server: EtcdServer) -> EtcdServer:
    return new_server


@pytest.fixture
def backend(open_store: Callable[..., Backend]) -> Iterator[Backend]:
    return open_store()


def test_nothing_shows_the_fence(backend: Backend) -> None:
    """Lists, counts and watches of all keys show it neither while it stands nor afterwards, and
    marks pass its revisions."""
    backend.put("\U0010ffff", b"", expected_revision=0)
    with backend.watch("", recursive=True, after_revision=1, progress=False) as watch:
        collect(watch, 1)
        for change in (lambda: backend.fence("why"), backend.unfence):
            change()
            upto = backend.status().revision
            watch.request_progress()
            assert collect_to_mark(watch, upto) == []
            assert [kv.key for kv in backend.list("", limit=5).kvs] == ["\U0010ffff"]
            found = backend.list("", limit=1, remaining=True)
            assert (found.more, found.remaining) == (False, 0)
            assert backend.count("").count == 1
            assert backend.status().foreign_keys == 0


def test_other_programs_are_not_stopped(server: EtcdServer, backend: Backend) -> None:
    """The fence is of revstore alone, and its revision shows what others write. Doctor warns."""
    backend.fence("moving")
    before = backend.status().revision
    backend._client.read(
        lambda each: each.kv.Put, rpc_pb2.PutRequest(key=b"/a", value=b"x"), PATIENCE
    )
    assert backend.status().revision == before + 1
    checks = run_doctor(StorageConfig.from_url(f"etcd3://{server.address}"))
    (found,) = [check for check in checks if check.name == "fence"]
    assert (found.result, "moving" in found.detail) == ("warning", True)


def test_a_fence_of_another_program(backend: Backend) -> None:
    """A value that is empty or not UTF-8 is a fence as well."""
    for value, shown in ((b"", "fenced"), (b"a\xffb", "a.b")):
        request = rpc_pb2.PutRequest(key=FENCE, value=value)
        backend._client.read(lambda each: each.kv.Put, request, PATIENCE)
        with pytest.raises(ReadOnly, match=shown):
            backend.put("/a", b"", expected_revision=0)


def test_no_write_passes_the_fence(server: EtcdServer, backend: Backend) -> None:
    """Of writes and lease calls by many threads, those acknowledged came before the fence; all
    later ones are refused."""
    url = f"etcd3://{server.address}"
    acknowledged: list[int] = []
    refused: list[str] = []
    begun = threading.Barrier(7)

    def write(number: int) -> None:
        with open_backend(StorageConfig.from_url(url)) as mine:
            leases = mine.leases()
            at = mine.put(f"/w{number}", b"", expected_revision=0).revision
            begun.wait(PATIENCE)
            while True:
                try:
                    if number % 3 == 0:
                        at = mine.put(f"/w{number}", b"", expected_revision=at).revision
                    elif number % 3 == 1:
                        key = f"/w{number}"
                        at = mine.transaction(lambda seen, key=key: seen.put(key, b"")).revision
                    else:
                        lease = leases.grant(1000).id
                        mine.transaction(
                            lambda seen, lease=lease: seen.put("/leased", b"", lease=lease)
                        )
                        at = leases.revoke(lease)
                    acknowledged.append(at)
                except OutcomeUnknown:
                    continue  # a lease, while the fence was set
                except ReadOnly as error:
                    refused.append(str(error))
                    return

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    begun.wait(PATIENCE)
    wait_until(lambda: len(acknowledged) > 100, "writes go on")
    backend.fence("moving")
    (fence,) = backend._reader.range(rpc_pb2.RangeRequest(key=FENCE), PATIENCE).kvs
    for thread in threads:
        thread.join(PATIENCE)
    assert refused == ["moving"] * 6
    assert max(acknowledged) < fence.mod_revision
