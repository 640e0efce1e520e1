"""Several processes serve one store, and are killed."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serve.conftest import Client, etcd_binary
from tests.serve.processes import Served
from tests.serve.test_etcdctl import Etcdctl, etcdctl_of

from revstore.testing._support import wait_until
from revstore.testing.etcd import EtcdServer
from revstore_serve._proto import message

pytestmark = pytest.mark.slow

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))


@pytest.fixture(params=["sqlite", "etcd3"])
def store(request, tmp_path) -> Iterator[str]:
    """The URL of a store that several processes can have."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/shared.db"
        return
    with EtcdServer(etcd_binary("3.5")) as etcd:
        yield f"etcd3://{etcd.start().address}"


@pytest.fixture
def servers(store) -> Iterator[tuple[Served, Served]]:
    with Served(store) as one, Served(store) as other:
        yield one, other


@pytest.fixture
def etcdctl() -> Iterator[Etcdctl]:
    """Starts processes of etcdctl, which end with the test."""
    start_one = etcdctl_of("3.4")
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        started.append(start_one(*words))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def one_answer(client: Client, lease: int) -> int:
    """Renew a lease, and return its TTL; 0 if there is no such lease."""
    request = message("LeaseKeepAliveRequest")(ID=lease)
    (answer,) = client.stream("Lease/LeaseKeepAlive", iter([request]))
    return answer.TTL


def test_they_see_each_other_s_writes_leases_and_watches(servers, new_client):
    """A write through the one is in the next read and in the watches of the other, and a lease of
    the one can be used, renewed and revoked through the other."""
    one, other = (new_client(each.address) for each in servers)
    watch = other.watch()
    begin = watch.create(b"a", b"c", prev_kv=True).header.revision
    for number in range(1, 6):
        put = one.call("KV/Put", key=b"a", value=b"%d" % number)
        read = other.call("KV/Range", key=b"a")
        assert read.kvs[0].value == b"%d" % number
        assert read.header.revision == put.header.revision == begin + number
        # A mark that was requested after the write covers it.
        watch.send(progress_request={})
        assert watch.events(1) == [("PUT", b"a", b"%d" % number, begin + number)]
        assert watch.next().header.revision == begin + number

    lease = one.call("Lease/LeaseGrant", TTL=600).ID
    both = [{"request_put": {"key": key, "lease": lease}} for key in (b"a", b"b")]
    written = other.call("KV/Txn", success=both).header.revision
    assert [each.ID for each in other.call("Lease/LeaseLeases").leases] == [lease]
    assert list(one.call("Lease/LeaseTimeToLive", ID=lease, keys=True).keys) == [b"a", b"b"]
    assert one_answer(other, lease) == 600
    ended = one.call("Lease/LeaseRevoke", ID=lease).header.revision
    assert ended == written + 1
    assert watch.events(4) == [
        ("PUT", b"a", b"", written),
        ("PUT", b"b", b"", written),
        ("DELETE", b"a", b"", ended),
        ("DELETE", b"b", b"", ended),
    ]
    assert one_answer(other, lease) == 0
    watch.close()


def test_a_lease_ends_after_its_process_was_killed(servers, new_client):
    """Whichever process granted it, another one deletes its keys, and no earlier than promised."""
    one, other = (new_client(each.address) for each in servers)
    watch = other.watch()
    watch.create(b"a")
    lease = one.call("Lease/LeaseGrant", TTL=2).ID
    one.call("KV/Put", key=b"a", lease=lease)
    assert one_answer(one, lease) == 2
    renewed = time.monotonic()
    servers[0].kill()
    assert [each[0] for each in watch.events(2)] == ["PUT", "DELETE"]
    assert time.monotonic() - renewed > 1.9
    assert not other.call("Lease/LeaseLeases").leases
    watch.close()


def holders(client: Client, name: bytes) -> int:
    return client.call("KV/Range", key=name + b"/", range_end=name + b"0").count


def test_a_lock_survives_kill_9_of_the_server_and_ends_with_its_holder(
    servers, new_client, etcdctl
):
    """The holder keeps the lock while its server is killed and started again; the next one in line
    gets it, through another server, once the holder is killed."""
    one, other = servers
    watching = new_client(other.address)
    holder = etcdctl(one.address, "lock", "--ttl", "6", "name")
    held = holder.stdout.readline().strip()
    second = etcdctl(other.address, "lock", "name")
    wait_until(lambda: holders(watching, b"name") == 2, "the second one waits")
    one.restart()
    # Longer than the lease lives unless the holder renews it with the new process.
    until = time.monotonic() + 7
    while time.monotonic() < until:
        assert watching.call("KV/Range", key=held.encode()).count == 1
        assert holder.poll() is None
    assert holders(watching, b"name") == 2

    holder.kill()
    given = second.stdout.readline().strip()
    assert given.startswith("name/")
    assert given != held
    assert holders(watching, b"name") == 1
    second.send_signal(signal.SIGINT)
    assert second.wait(20) == 0
    assert holders(watching, b"name") == 0


# Runs while its lock is held: two at a time cannot both make the folder.
SECTION = """#!/bin/sh
mkdir "$1/inside" || { echo twice >> "$1/log"; exit 1; }
echo "$2" >> "$1/log"
rmdir "$1/inside"
"""


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_lock_is_never_granted_twice(servers, etcdctl, tmp_path, fault_seed):
    """Many processes of etcdctl compete for one lock at two servers of one file, while the servers
    are killed now and then."""
    script = tmp_path / "section"
    script.write_text(SECTION)
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    choose = random.Random(fault_seed)

    granted = rounds = 0
    while granted < 15 * LONG or rounds < 3:
        granted += run_section(etcdctl, servers, script, choose)
        rounds += 1
    found = (tmp_path / "log").read_text().split()
    assert "twice" not in found
    assert len(found) >= granted


def run_section(etcdctl: Etcdctl, servers, script: Path, choose: random.Random) -> int:
    """Let several processes of etcdctl take the lock while a server is killed, and return how many
    of them had it; those of the killed server may fail. A lease that nobody ends holds up others
    until it expires, which each start of a server puts off: so one server is killed once."""
    started = [
        etcdctl(
            *(choose.choice(servers).address, "lock", "--ttl", "10", "name"),
            *(str(script), str(script.parent), str(number)),
        )
        for number in range(6)
    ]
    time.sleep(choose.uniform(0, 0.5))  # the moment of the kill; nothing is waited for
    choose.choice(servers).restart()
    done = 0
    for process in started:
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        done += process.returncode == 0
    return done
