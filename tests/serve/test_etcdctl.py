"""etcdctl prints the same of an endpoint as of a real etcd, and its locks and elections work."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.serve.conftest import STORES, etcd_binary, open_store

from revstore.config import StorageConfig
from revstore.plugins import open_backend
from revstore.testing.etcd import EtcdServer
from revstore_serve import serve

pytestmark = pytest.mark.slow

#: Commands, run one after the other; what follows "<" is the standard input, "|" a line's end.
TABLE = r"""
put a 1
put a 2 --prev-kv
put a/b x
put a/c y
put b z
get a
get a -w json
get a --rev 2
get a --rev 2 -w json
get a --rev 99
get nothing
get nothing -w json
get a --print-value-only
get a/ --prefix
get a/ --prefix --keys-only
get a/ --prefix --keys-only -w json
get a --prefix --limit 2 -w json
get a b
get a b -w fields
get a/c --from-key
get a/c --from-key -w json
get  --prefix
get  --prefix --limit 1 -w json
get  --prefix --sort-by MODIFY --order DESCEND
get  --prefix --sort-by VERSION --order DESCEND --limit 2
get  --prefix --sort-by CREATE
get  --prefix --sort-by VALUE --order ASCEND
get a --consistency s
get a --hex
put
put a --ignore-value
get a -w json
put nothing --ignore-value
put a 3 --ignore-value
put a 3 --ignore-lease
del a --prev-kv
del a
put c 1
txn < mod("c") > "0"||put d 1|get c||put e 1||
txn < value("c") = "2"||put d 2||get c|get d||
txn < create("nothing") = "0"|version("c") = "1"||del c|put f 1||get c||
txn < ||put g 1|put g 2||||
txn -w json < val("d") = "1"||get d --prefix||||
del a/ --prefix
del b d --prev-kv
del f --from-key
compaction 4
compaction 4
compaction 99
get a --rev 3
get a --rev 4
lease grant 60 --lease=7b
put leased 1 --lease=7b
get leased -w json
lease timetolive 7b --keys
lease timetolive 9
lease list
lease keep-alive --once 7b
lease keep-alive --once 9
put a 1 --lease=9
lease revoke 7b
lease revoke 7b
get leased
endpoint health
endpoint status
member list
alarm list
alarm disarm
defrag
"""


def commands() -> list[tuple[list[str], str]]:
    found = []
    for line in TABLE.strip().splitlines():
        words, _, text = line.partition(" < ")
        found.append((words.split(" "), text.replace("|", "\n")))
    return found


Etcdctl = Callable[..., subprocess.Popen[str]]


def etcdctl_of(version: str) -> Etcdctl:
    """Return what starts etcdctl of a version, at an address."""
    path = Path(etcd_binary(version)).with_name("etcdctl")
    if not path.exists():
        pytest.skip("no etcdctl: install etcd-client")

    def start(address: str, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [path, "--endpoints", address, *words],
            env={**os.environ, "ETCDCTL_API": "3"},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


@pytest.fixture(scope="module")
def etcdctl() -> Etcdctl:
    return etcdctl_of("3.4")


@contextlib.contextmanager
def real(version: str) -> Iterator[EtcdServer]:
    times = ("--heartbeat-interval", "100", "--election-timeout", "1000")
    with EtcdServer(etcd_binary(version), arguments=times) as server:
        yield server.start()


def outputs(etcdctl: Etcdctl, address: str) -> Iterator[str]:
    """What each command prints, without what may differ: ids, times, sizes, the version."""
    for words, text in commands():
        with etcdctl(address, *words) as process:
            out, err = process.communicate(text, timeout=20)
        told = "".join(line for line in err.splitlines(True) if not line.startswith('{"level'))
        found = f"{words} {text!r}: {process.returncode}\n{out}{told}"
        found = found.replace(address, "ADDRESS")
        found = re.sub(r'"(cluster_id|member_id)":\d+', r'"\1":0', found)
        found = re.sub(r'"(ClusterID|MemberID)" : \d+', r'"\1" : 0', found)
        found = re.sub(r'"raft_term":\d+|"RaftTerm" : \d+', "TERM", found)
        found = re.sub(r"took = \S+|remaining\(\d+s\)", "TIME", found)
        if words[:2] in (["endpoint", "status"], ["member", "list"]):
            found = str([words, found.count(",")])
        yield found


@functools.cache
def expected(version: str) -> list[str]:
    """What etcdctl prints of a real server of its version."""
    with real(version) as server:
        return list(outputs(etcdctl_of(version), server.address))


@pytest.mark.parametrize(
    ("version", "store"), [*(("3.4", store) for store in (*STORES, "etcd3")), ("3.5", "memory")]
)
def test_what_etcdctl_prints(version, store, tmp_path):
    """The store may be an etcd again."""
    with contextlib.ExitStack() as stack:
        if store == "etcd3":
            url = f"etcd3://{stack.enter_context(real(version)).address}"
            backend = stack.enter_context(open_backend(StorageConfig.from_url(url)))
        else:
            backend = stack.enter_context(open_store(store, tmp_path))
        endpoint = stack.enter_context(serve(backend))
        found = list(outputs(etcdctl_of(version), endpoint.address))

    pairs = zip(found, expected(version), strict=True)
    assert [(have, want) for have, want in pairs if have != want] == []


@pytest.mark.parametrize("store", STORES)
def test_locks(store, tmp_path, etcdctl):
    """The second to lock waits for the first, and has the lock when that is gone; a lock survives
    a restart of the server while its holder lives."""
    with open_store(store, tmp_path) as backend:
        with serve(backend) as endpoint:
            address = endpoint.address
            first = etcdctl(address, "lock", "--ttl", "10", "name")
            held = first.stdout.readline()
            second = etcdctl(address, "lock", "name")
        with serve(backend, listen=address):
            assert backend.get(held.strip()).kv is not None
            assert second.poll() is None
            first.send_signal(signal.SIGTERM)
            assert second.stdout.readline().startswith("name/")
            for process in (first, second):
                process.kill()
                process.communicate()


@pytest.mark.parametrize("store", STORES)
def test_elections(store, tmp_path, etcdctl):
    """One leads at a time; when it resigns the next does, and an observer sees both."""
    with open_store(store, tmp_path) as backend, serve(backend) as endpoint:
        observer = etcdctl(endpoint.address, "elect", "--listen", "room")
        first = etcdctl(endpoint.address, "elect", "room", "one")
        assert [first.stdout.readline(), first.stdout.readline()][1] == "one\n"
        second = etcdctl(endpoint.address, "elect", "room", "two")
        assert [observer.stdout.readline(), observer.stdout.readline()][1] == "one\n"
        while len(backend.list("room/").kvs) < 2:
            assert second.poll() is None
        first.send_signal(signal.SIGTERM)
        assert [second.stdout.readline(), second.stdout.readline()][1] == "two\n"
        assert [observer.stdout.readline(), observer.stdout.readline()][1] == "two\n"
        for process in (observer, first, second):
            process.kill()
            process.communicate()
