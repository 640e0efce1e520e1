"""A store that is full says so, has done nothing by halves, and goes on once there is room.

The tests of sqlite are in tests/sqlite/test_files.py; etcd's v2 store lies in memory, and has no
limit of its own.
"""

from __future__ import annotations

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from revstore.config import StorageConfig
from revstore.errors import NoSpace, OutcomeUnknown
from revstore.plugins import open_backend
from revstore.testing._support import collect, wait_until

QUOTA = 2 << 20
VALUE = b"x" * 200_000


@pytest.mark.parametrize("version", ["3.4", "3.5"])
def test_etcd_is_full(start_etcd, version):
    """NoSpace at etcd's quota, for updates and creates; nothing of a refused write
    is there, and no revision is taken; reads, watches and compaction go on. With room made and the
    alarm off, writes go on."""
    server = start_etcd(version, arguments=("--quota-backend-bytes", str(QUOTA)))
    with open_backend(StorageConfig.from_url(f"etcd3://{server.address}")) as backend:
        first = backend.put("/full/a", b"", expected_revision=0).revision
        watch = backend.watch("/full/", recursive=True, after_revision=first, progress=False)
        written = fill(backend, "/full/a", first)
        with pytest.raises(NoSpace):
            backend.put("/full/b", VALUE, expected_revision=0)
        assert [event.kv.revision for event in collect(watch, len(written))] == written
        kvs = backend.list("/full/").kvs
        assert [(kv.key, kv.revision, kv.version) for kv in kvs] == [
            ("/full/a", written[-1], len(written) + 1)
        ]
        assert backend.status().revision == written[-1]

        backend.compact(written[-1])
        wait_until(lambda: has_room(backend, server.client_url), "there is room again")
        assert backend.delete("/full/a", expected_revision=written[-1]).succeeded
        assert backend.put("/full/b", VALUE, expected_revision=0).succeeded
        assert [event.kv.key for event in collect(watch, 2)] == ["/full/a", "/full/b"]
        watch.close()


@pytest.mark.parametrize("version", ["3.4", "3.5"])
@pytest.mark.parametrize("method", ["put", "update", "transaction"])
def test_what_etcd_wrote_is_not_called_refused(start_etcd, version, method):
    """etcd writes, and returns that it has no space, when a request passes its first check and
    not its second. Writers that meet the quota together are such requests: what raises
    NoSpace is not there, what may be there raises OutcomeUnknown."""
    server = start_etcd(version, arguments=("--quota-backend-bytes", str(QUOTA)))
    with (
        open_backend(StorageConfig.from_url(f"etcd3://{server.address}")) as backend,
        ThreadPoolExecutor(24) as pool,
    ):
        lines = pool.map(lambda number: write_until_full(backend, f"/{number}", method), range(24))
        refused = {key: revision for key, revision, error in lines if error is NoSpace}
        stored = {kv.key: kv.revision for kv in backend.list("/").kvs}
        assert {key: stored.get(key, 0) for key in refused} == refused


@pytest.mark.parametrize("version", ["3.4", "3.5"])
def test_leases_that_etcd_granted_are_not_called_refused(start_etcd, version):
    """The same with leases whose id the caller has chosen."""
    server = start_etcd(version, arguments=("--quota-backend-bytes", str(QUOTA)))
    with (
        open_backend(StorageConfig.from_url(f"etcd3://{server.address}")) as backend,
        ThreadPoolExecutor(24) as pool,
    ):
        grants = [pool.submit(grant_until_full, backend, 1000 * n) for n in range(1, 21)]
        list(pool.map(lambda number: write_until_full(backend, f"/{number}", "put"), range(4)))
        refused = {each.result() for each in grants}
        assert not refused & set(backend.leases().list())


def grant_until_full(backend, first):
    """Grant leases until the store is full; return the one refused, 0 if that is unknown."""
    for lease in range(first, first + 1000):
        try:
            backend.leases().grant(100, lease=lease)
        except NoSpace:
            return lease
        except OutcomeUnknown:
            return 0
    raise AssertionError("it never gets full")


def write_until_full(backend, stem, method):
    """Write until the store is full; return the last key, the revision known of it, and the
    error."""
    revision = 0
    for number in range(200):
        key = stem if method == "update" else f"{stem}/{number}"
        expected = revision if method == "update" else 0
        try:
            if method == "transaction":
                backend.transaction(lambda view, key=key: view.put(key, VALUE))
            else:
                revision = backend.put(key, VALUE, expected_revision=expected).revision
        except (NoSpace, OutcomeUnknown) as error:
            return key, expected, type(error)
    raise AssertionError("it never gets full")


def fill(backend, key, revision):
    """Write ``key`` until the store is full; the revisions that it gave. Some go through beyond the
    quota, as etcd counts what it has committed to its file."""
    written = [revision]
    while len(written) < 200:
        try:
            put = backend.put(key, VALUE, expected_revision=written[-1])
        except OutcomeUnknown:  # see below
            revision = backend.get(key).kv.revision
            if revision > written[-1]:
                written.append(revision)
            continue
        except NoSpace:
            return written[1:]
        written.append(put.revision)
    raise AssertionError("it never gets full")


def has_room(backend, url):
    """Whether a write goes through after what an operator does upon compaction: give the space
    back, which compaction frees in the background, and end the alarm."""
    ask(url, "defragment", {})
    for alarm in ask(url, "alarm", {"action": "GET"}).get("alarms", ()):
        ask(url, "alarm", {"action": "DEACTIVATE", **alarm})
    try:
        return backend.put("/probe", VALUE, expected_revision=0).succeeded
    except NoSpace:
        return False


def ask(url, what, body):
    request = urllib.request.Request(f"{url}/v3/maintenance/{what}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)
