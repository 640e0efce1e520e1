"""The programs that are compared with etcd depend on no time, and failures of them are short."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from tests.serve.programs import LASTING, answer, programs, tried

from revstore.testing.seeds import SEED
from revstore_serve._proto import message


@pytest.mark.parametrize("ttl", [-5, 0, LASTING - 1])
def test_no_lease_ends_within_a_program(client, ttl):
    """However slow it is: a lease that could end is gone before the next request."""
    granted = answer(client, "Lease/LeaseGrant", message("LeaseGrantRequest")(ID=7, TTL=ttl), 0)
    assert "TTL: " in granted
    assert not client.call("Lease/LeaseLeases").leases
    answer(client, "Lease/LeaseGrant", message("LeaseGrantRequest")(ID=7, TTL=LASTING), 0)
    assert [each.ID for each in client.call("Lease/LeaseLeases").leases] == [7]


class Slow:
    """A client so slow that leases end before it revokes them."""

    def __init__(self, client):
        self._client = client

    def call(self, name, request=None, **fields):
        if name == "Lease/LeaseRevoke":
            self._client.call(name, request, **fields)
        return self._client.call(name, request, **fields)


def test_a_lease_may_end_by_itself(client):
    granted = answer(Slow(client), "Lease/LeaseGrant", message("LeaseGrantRequest")(ID=7), 0)
    assert "TTL: 2" in granted
    assert not client.call("Lease/LeaseLeases").leases


@pytest.mark.parametrize("limit", [0, 2, 3])
def test_the_order_of_equal_keys_is_open(client, limit):
    """Of keys that are equal by what a range is sorted by, neither their order is compared, nor
    which a limit leaves out; that of others is."""
    put = [{"request_put": {"key": key}} for key in (b"a", b"b", b"c")]
    client.call("KV/Txn", success=put)
    client.call("KV/Put", key=b"b")
    sent = message("RangeRequest")(key=b"a", range_end=b"d", limit=limit, sort_target=2)
    in_txn = message("TxnRequest")(success=[{"request_range": sent}])

    class Other:
        """A server that puts equal keys in another order."""

        def call(self, name, request):
            response = client.call(name, request)
            kvs = (response.responses[0].response_range if name == "KV/Txn" else response).kvs
            turned = [*kvs[1::-1], *kvs[2:]]
            del kvs[:]
            kvs.extend(turned)
            return response

    for name, request in [("KV/Range", sent), ("KV/Txn", in_txn)]:
        assert answer(client, name, request, 0) == answer(Other(), name, request, 0)
    by_version = message("RangeRequest")(key=b"a", range_end=b"c", sort_target=1)
    assert answer(client, "KV/Range", by_version, 0) != answer(Other(), "KV/Range", by_version, 0)


def test_a_failure_is_short_and_whole():
    """It has the seed, each request on a line, and what was found."""

    def check(program):
        if len(program) > 3:
            raise AssertionError("etcd answers\nthis, ours " + "x" * 10_000)

    with pytest.raises(AssertionError) as caught:
        tried(100, programs, check)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"REVSTORE_TEST_SEED={SEED}"
    assert lines[1:3] == ["first:", lines[2]]
    assert lines[2].startswith("0: ")
    assert sum(line.startswith("etcd answers this, ours xxx") for line in lines) == 2
    assert max(map(len, lines)) < 2000
    assert caught.value.__suppress_context__


def test_other_failures_are_raised_as_they_are():
    def check(program):
        raise ValueError(program)

    with pytest.raises(ValueError, match="7"):
        tried(1, st.just([7]), check)
