"""Stores that cannot do all: what one key needs works, and the rest says what is missing."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from tests.serve.conftest import Client

from revstore.errors import Unsupported
from revstore.memory import MemoryBackend
from revstore.values import Capability
from revstore_serve import serve

pytestmark = pytest.mark.slow


class Limited(MemoryBackend):
    """Without all that is not in version 1.0 of the contract."""

    capabilities = MemoryBackend().capabilities - {Capability.TRANSACTIONS, Capability.LEASES}

    def transactions(self, bodies, *, timeout=None):
        raise Unsupported(Capability.TRANSACTIONS)

    def leases(self, *, grace=10.0, timeout=None):
        raise Unsupported(Capability.LEASES)


@pytest.fixture
def limited(new_client) -> Iterator[Client]:
    with Limited() as backend, serve(backend) as endpoint:
        yield new_client(endpoint.address)


def refused(client: Client, name: str, /, **fields) -> str:
    code, text = client.error(name, **fields)
    assert code == "UNIMPLEMENTED"
    return text


SEVERAL = "revstore: this store cannot write several keys in one revision (capability transactions)"


def test_what_concerns_one_key_works(limited):
    """Puts, deletions and transactions of one key, and transactions that only read."""
    assert limited.call("KV/Put", key=b"a", value=b"1").header.revision == 2
    again = limited.call("KV/Put", key=b"a", value=b"2", prev_kv=True)
    assert (again.prev_kv.value, again.header.revision) == (b"1", 3)
    limited.call("KV/Put", key=b"b")
    created = limited.call(
        "KV/Txn",
        compare=[{"key": b"c", "target": 2}],
        success=[{"request_put": {"key": b"c", "value": b"3"}}, {"request_range": {"key": b"c"}}],
        failure=[{"request_range": {"key": b"c"}}],
    )
    assert (created.succeeded, created.header.revision) == (True, 5)
    (kv,) = created.responses[1].response_range.kvs
    assert (kv.value, kv.mod_revision, kv.create_revision, kv.version) == (b"3", 5, 5, 1)
    looked = limited.call(
        "KV/Txn",
        compare=[{"key": b"a", "range_end": b"z", "target": 2, "result": 1}],
        success=[{"request_range": {"key": b"a", "range_end": b"z"}}],
    )
    assert looked.succeeded
    assert looked.responses[0].response_range.count == 3
    assert limited.call("KV/DeleteRange", key=b"a", prev_kv=True).prev_kvs[0].value == b"2"
    assert limited.call("KV/DeleteRange", key=b"a").deleted == 0


def test_what_needs_more_says_so(limited):
    """Several keys are never written one after the other, and nothing is written."""
    for key in (b"a", b"b"):
        limited.call("KV/Put", key=key)
    put = {"request_put": {"key": b"a"}}
    assert refused(limited, "KV/DeleteRange", key=b"a", range_end=b"z") == SEVERAL
    assert refused(limited, "KV/Txn", success=[put, {"request_put": {"key": b"b"}}]) == SEVERAL
    compare = [{"key": b"b", "target": 2, "result": 1}]
    assert refused(limited, "KV/Txn", compare=compare, success=[put]) == SEVERAL
    assert "leases" in refused(limited, "Lease/LeaseGrant", TTL=60)
    assert "leases" in refused(limited, "KV/Put", key=b"a", lease=3)
    assert limited.call("KV/Range", key=b"a").header.revision == 3


def test_locks_and_elections_say_so(limited):
    """They need transactions and leases, and leave nothing behind; what needs neither works."""
    for name in ("Lock/Lock", "Election/Campaign"):
        for lease in (0, 5):
            assert refused(limited, name, name=b"l", lease=lease) == (
                "revstore: this backend does not support transactions"
            )
    assert "transactions" in refused(limited, "Election/Proclaim", leader={"key": b"l/1"})
    assert limited.call("KV/Range", key=b"\0", range_end=b"\0").header.revision == 1
    assert limited.error("Election/Leader", name=b"l") == ("UNKNOWN", "election: no leader")
    limited.call("KV/Put", key=b"l/1", value=b"me")
    assert limited.call("Election/Leader", name=b"l").kv.value == b"me"
    limited.call("Lock/Unlock", key=b"l/1")
    assert limited.call("KV/Range", key=b"l/1").count == 0


def test_writers_of_one_key_lose_nothing(limited):
    """A write that another came before is tried again, with what is there now."""
    limited.call("KV/Put", key=b"n", value=b"0")

    def put() -> None:
        mine = Client(limited.address)
        for _ in range(50):
            mine.call("KV/Put", key=b"n")
        mine.close()

    threads = [threading.Thread(target=put) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (kv,) = limited.call("KV/Range", key=b"n").kvs
    assert (kv.version, kv.mod_revision) == (201, 202)
