"""What is decided without a store: checks of transactions, comparisons, ttls, addresses."""

from __future__ import annotations

import pytest
from tests.serve.programs import deletes_what_it_put

from revstore.values import KeyValue
from revstore_serve._command import is_own
from revstore_serve._errors import Refused
from revstore_serve._leases import granted_ttl
from revstore_serve._proto import METHODS, message
from revstore_serve._txn import check_put, check_txn, compares

RANGE = {"request_range": {"key": b"a"}}


def put(key: bytes) -> dict:
    return {"request_put": {"key": key}}


def delete(key: bytes, end: bytes = b"") -> dict:
    return {"request_delete_range": {"key": key, "range_end": end}}


def nested(**branches: list) -> dict:
    return {"request_txn": branches}


def refusal(**fields) -> str:
    try:
        check_txn(message("TxnRequest")(**fields))
    except Refused as error:
        return error.text.removeprefix("etcdserver: ")
    return ""


TWICE = "duplicate key given in txn request"
TOO_MANY = "too many operations in txn request"


@pytest.mark.parametrize(
    ("branch", "text"),
    [
        ([], ""),
        ([put(b"a"), put(b"b"), RANGE], ""),
        ([put(b"a"), put(b"a")], TWICE),
        ([put(b"a"), delete(b"a")], TWICE),
        ([put(b"b"), delete(b"a", b"c")], TWICE),
        ([put(b"c"), delete(b"a", b"c")], ""),
        ([delete(b"a", b"c"), delete(b"b")], ""),
        ([put(b"a"), nested(success=[put(b"a")])], TWICE),
        ([nested(success=[put(b"a")], failure=[put(b"a")])], ""),
        ([nested(success=[put(b"a")]), nested(failure=[put(b"a")])], TWICE),
        ([nested(failure=[delete(b"a")]), put(b"a")], TWICE),
        ([{}], "key not found"),
        ([put(b"")], "key is not provided"),
        ([delete(b"")], "key is not provided"),
        ([{"request_range": {"key": b"a", "sort_order": 9}}], "invalid sort option"),
        ([RANGE] * 128, ""),
        ([RANGE] * 129, TOO_MANY),
        ([RANGE] * 100 + [nested(success=[RANGE] * 27)], ""),
        ([RANGE] * 100 + [nested(success=[RANGE] * 28)], TOO_MANY),
    ],
)
def test_what_a_transaction_may_hold(branch, text):
    assert refusal(success=branch) == text
    assert refusal(failure=branch) == text


#: Two transactions in one: the second deletes what the first puts. etcd does so.
IN_TURN = [nested(success=[put(b"a")]), nested(success=[delete(b"a")])]


def test_each_key_is_written_once(client):
    """Even if that shows only while the transaction runs; nothing of it is left then."""
    for deletion in (IN_TURN, [put(b"a"), delete(b"\0", b"\0")]):
        assert refusal(success=deletion) == ""
        found = client.error("KV/Txn", success=deletion)
        assert found == ("INVALID_ARGUMENT", f"etcdserver: {TWICE}")
        assert client.call("KV/Range", key=b"a").count == 0


@pytest.mark.parametrize(
    ("branch", "found"),
    [
        (IN_TURN, True),
        ([nested(failure=[nested(success=IN_TURN)])], True),
        ([IN_TURN[0], nested(failure=[RANGE, nested(success=[delete(b"\0", b"b")])])], True),
        (IN_TURN[::-1], False),
        ([nested(success=[put(b"a")], failure=[delete(b"a")])], False),
        ([IN_TURN[0], nested(success=[delete(b"b")])], False),
        ([put(b"a"), delete(b"a")], False),
    ],
)
def test_programs_have_no_such_transaction(branch, found):
    """Others that write a key twice are refused by etcd as well, so they are compared."""
    request = message("TxnRequest")(success=branch)
    assert deletes_what_it_put(request.success) is found


def test_each_comparison_has_a_key():
    assert refusal(compare=[{"target": 1}]) == "key is not provided"
    assert refusal(compare=[{"key": b"a"}] * 129) == TOO_MANY


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"key": b"a", "value": b"1", "lease": 3}, ""),
        ({"value": b"1"}, "key is not provided"),
        ({"key": b"a", "value": b"1", "ignore_value": True}, "value is provided"),
        ({"key": b"a", "lease": 1, "ignore_lease": True}, "lease is provided"),
    ],
)
def test_what_a_put_may_hold(fields, text):
    request = message("PutRequest")(**fields)
    if not text:
        return check_put(request)
    with pytest.raises(Refused, match=f"^etcdserver: {text}$"):
        check_put(request)
    return None


KV = KeyValue("a", b"v", 7, 5, 3, 9)


@pytest.mark.parametrize(
    ("target", "field", "value"),
    [
        (0, "version", 3),
        (1, "create_revision", 5),
        (2, "mod_revision", 7),
        (3, "value", b"v"),
        (4, "lease", 9),
    ],
)
def test_comparisons(target, field, value):
    """Each result for each target, of a key and of none."""
    lower = b"u" if field == "value" else value - 1
    holds = {0: (True, False), 1: (False, True), 2: (False, False), 3: (False, True)}
    for result, (same, below) in holds.items():
        for other, expected in ((value, same), (lower, below)):
            compare = message("Compare")(target=target, result=result, **{field: other})
            assert compares(compare, [KV]) is expected
    absent = message("Compare")(target=target, result=0)
    assert compares(absent, []) is (field != "value")


def test_ttls():
    assert [granted_ttl(ttl) for ttl in (-5, 0, 1, 2, 60)] == [2, 2, 2, 2, 60]
    with pytest.raises(Refused, match="too large lease TTL"):
        granted_ttl(9_000_000_001)


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("127.0.0.1:2379", True),
        ("localhost:1", True),
        ("[::1]:2379", True),
        ("unix:/run/etcd.sock", True),
        ("0.0.0.0:2379", False),
        ("[::]:2379", False),
        ("10.0.0.1:2379", False),
        ("example.com:2379", False),
        (":2379", False),
    ],
)
def test_whose_an_address_is(address, own):
    assert is_own(address) is own


def test_messages_are_those_that_clients_have():
    """Names, numbers and types are those of a client library that nobody here wrote."""
    rpc, kv = (__import__(f"etcd3.etcdrpc.{each}_pb2", fromlist=["x"]) for each in ("rpc", "kv"))
    compared = 0
    for file in (rpc.DESCRIPTOR, kv.DESCRIPTOR):
        for name, theirs in file.message_types_by_name.items():
            try:
                ours = message(name, file.package).DESCRIPTOR.fields_by_name
            except KeyError:
                continue  # it is not served
            compared += 1
            for field in theirs.fields:
                found = ours[field.name]
                assert (found.number, found.type) == (field.number, field.type), (name, field.name)
                assert bool(found.containing_oneof) == bool(field.containing_oneof)
    assert compared > 40
    assert {"/".join((each.service, each.name)) for each in METHODS} >= {
        f"etcdserverpb.{service.name}/{method.name}"
        for service in rpc.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if method.name != "Progress"
    }
