"""The endpoint answers as a real etcd does: the same program of requests goes to both.

``REVSTORE_TEST_SEED`` sets the programs, ``REVSTORE_TEST_LONG=50`` tries fifty times as many.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from tests.serve.conftest import STORES, Client, open_store
from tests.serve.programs import answer, emptied, programs, shifted, told, watched

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


def watched_by(client: Client, program: list) -> list[list[str]]:
    """Run a program; return what each of its watches told, in the order of their creation."""
    base = emptied(client) - 1
    stream = client.watch()
    found: list[list[tuple[int, str]]] = []
    known = {}
    for name, request in program:
        if name != "watch":
            answer(client, name, request, base)
            continue
        moved = shifted(request, base)
        stream.send(create_request=moved)
        while not (created := stream.next()).created:
            found[known[created.watch_id][0]] += told(created, base)
        if not created.canceled:
            known[created.watch_id] = (len(found), moved)
        found.append(told(created, base))
    # Each watch sees one of these two events, unless it was cancelled or begins later. Nothing that
    # comes after them counts, as it may come too late.
    last = {}
    for watch_id, (_, request) in known.items():
        key = KeyRange.of(request.key or b"\0", request.range_end).first
        client.call("KV/Put", key=key, value=b"last")
        deleted = client.call("KV/DeleteRange", key=key).header.revision
        last[watch_id] = deleted - (1 in request.filters)
    open_ones = {
        watch_id
        for watch_id, (_, request) in known.items()
        if request.start_revision <= last[watch_id]
    }
    while open_ones:
        answered = stream.next()
        found[known[answered.watch_id][0]] += told(answered, base)
        revisions = [event.kv.mod_revision for event in answered.events]
        if answered.canceled or max(revisions) >= last[answered.watch_id]:
            open_ones.discard(answered.watch_id)
    stream.close()
    ends = {number: last[watch_id] - base for watch_id, (number, _) in known.items()}
    return [
        [text for revision, text in each if revision <= ends.get(number, 0)]
        for number, each in enumerate(found)
    ]


@tried(25)
@given(program=watched)
def test_watches(real, ours, program):
    """Each watch tells the same: its events in the order of revisions, its beginning and end."""
    assert watched_by(ours, program) == watched_by(real, program), f"seed {SEED}"
