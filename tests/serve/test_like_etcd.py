"""The endpoint answers as a real etcd does: the same program of requests goes to both.

``REVSTORE_TEST_SEED`` sets the programs, ``REVSTORE_TEST_LONG=50`` tries fifty times as many.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from tests.serve.conftest import STORES, Client, open_store
from tests.serve.programs import answer, programs

from revstore.testing.seeds import SEED
from revstore_serve import serve

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


@seed(SEED)
@settings(
    max_examples=50 * LONG,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
@given(program=programs)
def test_programs(real, ours, program):
    bases = {client: emptied(client) - 1 for client in (real, ours)}
    for number, (name, request) in enumerate(program):
        note(f"{number}: {name} {request}")
        have, want = (answer(client, name, request, bases[client]) for client in (ours, real))
        assert have == want, f"seed {SEED}"
