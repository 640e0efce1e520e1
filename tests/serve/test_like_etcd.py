"""The endpoint answers as a real etcd does: the same program of requests goes to both.

``REVSTORE_TEST_SEED`` sets the programs, ``REVSTORE_TEST_LONG=50`` tries fifty times as many.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from tests.serve.conftest import STORES, Client, open_store
from tests.serve.programs import answer, programs, shifted, told, watched

from revstore.testing.seeds import SEED
from revstore_serve import serve
from revstore_serve._keys import KeyRange

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600 * LONG)]


@pytest.fixture(scope="module")
def real(etcd):
    client = Client(etcd.address)
    yield client
    client.close()


@pytest.fixture(scope="module", params=STORES)
def ours(request, tmp_path_factory):
    backend = open_store(request.param, tmp_path_factory.mktemp("like-etcd"))
    with backend, serve(backend) as endpoint:
        client = Client(endpoint.address)
        yield client
        client.close()


def emptied(client: Client) -> int:
    """Delete all keys and leases, and forget that they were; return the store's revision."""
    client.call("KV/DeleteRange", key=b"\0", range_end=b"\0")
    for lease in client.call("Lease/LeaseLeases").leases:
        client.call("Lease/LeaseRevoke", ID=lease.ID)
    revision = client.call("KV/Put", key=b"begin").header.revision
    client.call("KV/Compact", revision=revision)
    return revision


def tried(times: int):
    """Run a test with so many programs, of this run's seed."""
    return lambda test: seed(SEED)(
        settings(
            max_examples=times * LONG,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, *([Phase.shrink] if LONG > 1 else [])],
        )(test)
    )


@tried(50)
@given(program=programs)
def test_programs(real, ours, program):
    bases = {client: emptied(client) - 1 for client in (real, ours)}
    for number, (name, request) in enumerate(program):
        note(f"{number}: {name} {request}")
        have, want = (answer(client, name, request, bases[client]) for client in (ours, real))
        assert have == want, f"seed {SEED}"


def watched_by(client: Client, program: list) -> dict[int, list[str]]:
    """Run a program; return what each of its watches told, sorted within a revision."""
    base = emptied(client) - 1
    stream = client.watch()
    found: dict[int, list[str]] = {}
    ranges = {}
    number = 0
    for name, request in program:
        if name != "watch":
            answer(client, name, request, base)
            continue
        moved = shifted(request, base)
        stream.send(create_request=moved)
        # Each watch is known by the order of its creation: an id may be refused.
        while not (created := stream.next()).created:
            found[ranges[created.watch_id][0]] += told(created, base)
        found[number] = told(created, base)
        if not created.canceled:
            ranges[created.watch_id] = (number, moved)
        number += 1
    # An event that each watch sees is its last one, unless it was cancelled, or begins later.
    last = {}
    for watch_id, (_, request) in ranges.items():
        key = KeyRange.of(request.key or b"\0", request.range_end).first
        client.call("KV/Put", key=key, value=b"last")
        last[watch_id] = client.call("KV/DeleteRange", key=key).header.revision
    ends = {
        watch_id: revision - (1 in ranges[watch_id][1].filters)
        for watch_id, revision in last.items()
        if ranges[watch_id][1].start_revision < revision
    }
    while ends:
        told_now = stream.next()
        number, _ = ranges[told_now.watch_id]
        if number in found:
            found[number] += told(told_now, base)
        seen = max((event.kv.mod_revision for event in told_now.events), default=0)
        if told_now.canceled or seen >= ends.get(told_now.watch_id, 1 << 62):
            ends.pop(told_now.watch_id, None)
    stream.close()
    return found


@tried(25)
@given(program=watched)
def test_watches(real, ours, program):
    """Each watch tells the same: its events in the order of revisions, its beginning and end."""
    assert watched_by(ours, program) == watched_by(real, program), f"seed {SEED}"
