"""Requests at the edges of what a message can say, compared with a real etcd, and messages that
cannot be read."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from tests.serve.conftest import STORES, find, open_store
from tests.serve.programs import answer, emptied, one_line

from revstore.memory import MemoryBackend
from revstore_serve import serve
from revstore_serve._endpoint import TRANSPORTS
from revstore_serve._proto import message

pytestmark = pytest.mark.slow

LEAST, MOST = -(1 << 63), (1 << 63) - 1
#: A revision that can be counted from any other.
FAR = 1 << 62
ALL = {"key": b"\0", "range_end": b"\0"}
NONE: dict[str, Any] = {"key": b"c", "range_end": b"a"}


def put(key: bytes) -> dict[str, Any]:
    return {"request_put": {"key": key}}


def ranged(**fields: Any) -> dict[str, Any]:
    return {"request_range": {"key": b"a", **fields}}


def nested(depth: int, **branches: list[Any]) -> dict[str, Any]:
    """A transaction in so many others."""
    for _ in range(depth):
        branches = {"success": [{"request_txn": branches}]}
    return branches


def several(count: int) -> list[Any]:
    return [put(b"many/%d" % number) for number in range(count)]


def compared(key: bytes = b"a", **fields: Any) -> dict[str, Any]:
    return {"compare": [{"key": key, **fields}]}


#: Methods and requests, in this order. Revisions other than these edges count from the first.
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    *(
        ("KV/Put", {"key": key, "value": value})
        for key, value in ((b"a", b"\xff"), (b"b", b"\0"), (b"c", b""), (b"d", b"\xff\0"))
    ),
    ("KV/Put", {"key": b"a", "value": b"\x7f"}),
    *(("KV/Range", ALL | {"sort_order": order, "sort_target": 4}) for order in (0, 1, 2)),
    *(("KV/Range", ALL | {"limit": limit}) for limit in (2, -1, LEAST, MOST, MOST - 1)),
    *(("KV/Range", {"key": b"a", "limit": limit}) for limit in (-1, LEAST, MOST)),
    ("KV/Range", {"key": b"\0", "limit": 1}),
    ("KV/Range", {"key": b"\0\0", "range_end": b"\0", "limit": 1}),
    ("KV/Range", {"key": b"", "range_end": b"\0"}),
    *(("KV/Range", {"key": b"c", "range_end": end}) for end in (b"a", b"c", b"c\0")),
    *(("KV/Range", NONE | {"revision": each}) for each in (FAR, -FAR)),
    *(
        ("KV/Range", ALL | {f"{edge}_{kind}_revision": bound})
        for edge in ("min", "max")
        for kind in ("mod", "create")
        for bound in (-FAR, FAR)
    ),
    ("KV/Range", ALL | {"count_only": True, "keys_only": True, "limit": 1, "sort_order": 1}),
    ("KV/DeleteRange", NONE),
    ("KV/DeleteRange", {"key": b"", "range_end": b"\0"}),
    *(("KV/Put", {"key": b"a", "lease": lease}) for lease in (MOST, LEAST, -1)),
    *(("Lease/LeaseGrant", {"TTL": ttl, "ID": 50}) for ttl in (MOST, 9_000_000_001)),
    *(("Lease/LeaseGrant", {"TTL": 600, "ID": lease}) for lease in (MOST, LEAST, -1, 1)),
    ("Lease/LeaseGrant", {"TTL": 9_000_000_000, "ID": 51}),
    *(("KV/Put", {"key": b"leased", "lease": lease}) for lease in (MOST, LEAST)),
    *(("Lease/LeaseTimeToLive", {"ID": lease, "keys": True}) for lease in (LEAST, 0, MOST)),
    *(("Lease/LeaseRevoke", {"ID": lease}) for lease in (0, LEAST, MOST, -1, 1, 51)),
    *(("KV/Compact", {"revision": revision}) for revision in (-FAR, FAR, 4, 4, 3)),
    *(("KV/Range", {"key": b"a", "revision": revision}) for revision in (3, 4)),
    ("KV/Txn", {}),
    *(("KV/Txn", {branch: [{}]}) for branch in ("compare", "success", "failure")),
    ("KV/Txn", compared(target=9)),
    ("KV/Txn", compared(result=9)),
    ("KV/Txn", compared(target=1, version=1)),
    ("KV/Txn", compared(target=3, version=1)),
    ("KV/Txn", compared(key=b"none", target=3)),
    ("KV/Txn", compared(target=2, mod_revision=FAR, result=2)),
    ("KV/Txn", compared(target=2, mod_revision=-FAR, result=1)),
    ("KV/Txn", compared(range_end=b"\0", result=1, version=LEAST)),
    ("KV/Txn", compared(key=b"c", range_end=b"a", version=77)),
    *(("KV/Txn", {"compare": [{"key": b"a"}] * count}) for count in (128, 129)),
    *(("KV/Txn", {"success": several(count)}) for count in (128, 129)),
    *(("KV/Txn", {"failure": several(count)}) for count in (128, 129)),
    *(("KV/Txn", nested(depth, success=[put(b"n")])) for depth in (1, 20, 49)),
    *(("KV/Txn", nested(1, success=several(count))) for count in (127, 128)),
    *(("KV/Txn", nested(2, success=several(count))) for count in (126, 127)),
    ("KV/Txn", {"success": [put(b"a"), ranged(limit=-1)]}),
    ("KV/Txn", {"success": [put(b"a"), ranged(limit=MOST)]}),
    ("KV/Txn", {"success": [put(b"a"), ranged(range_end=b"c", limit=MOST)]}),
    *(("KV/Txn", {"success": [put(b"a"), ranged(revision=revision)]}) for revision in (FAR, -FAR)),
    ("KV/Txn", {"success": [ranged(revision=-FAR)]}),
    ("KV/Txn", {"success": [ranged(revision=-FAR), ranged(revision=FAR)]}),
    ("KV/Range", {"key": b"a"}),
]


@pytest.mark.parametrize("store", STORES)
def test_edges_are_as_in_etcd(store, etcd, new_client, tmp_path):
    with open_store(store, tmp_path) as backend, serve(backend) as endpoint:
        ours, theirs = new_client(endpoint.address), new_client(etcd.address)
        bases = [emptied(each) - 1 for each in (ours, theirs)]
        for name, fields in REQUESTS:
            request = find(name).request(**fields)
            have, want = (
                answer(each, name, request, base)
                for each, base in zip((ours, theirs), bases, strict=True)
            )
            assert have == want, f"{name} {one_line(request)}"


@pytest.mark.parametrize("size", [(3 << 19) - 100, 3 << 19, (2 << 20) - 20])
@pytest.mark.parametrize("name", ["KV/Put", "KV/Range", "KV/DeleteRange", "KV/Txn"])
def test_large_requests_are_as_in_etcd(name, size, etcd, client, new_client):
    """Each limit holds for the same methods, with the same text."""
    fields: dict[str, Any] = {"key": b"x" * size}
    if name == "KV/Put":
        fields = {"key": b"x", "value": b"x" * size}
    if name == "KV/Txn":
        fields = {"compare": [fields]}
    request = find(name).request(**fields)
    theirs = new_client(etcd.address)
    bases = [emptied(each) - 1 for each in (client, theirs)]
    assert answer(client, name, request, bases[0]) == answer(theirs, name, request, bases[1])


def text_of(depth: int) -> bytes:
    """A transaction in so many others, encoded here: protobuf's library refuses to."""
    text: bytes = message("TxnRequest")(success=[put(b"deep")]).SerializeToString()
    for _ in range(depth):
        for tag in (b"\x22", b"\x12"):
            size = len(text)
            text = tag + bytes([size & 0x7F | 0x80, size >> 7]) + text
    return text


UNREADABLE = "grpc: error unmarshalling request: "
TOO_DEEP = "revstore: transactions are nested more than 49 deep"


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("method", "text", "code", "told"),
    [
        ("KV/Range", b"\n\x05a", "INTERNAL", UNREADABLE),
        ("KV/Put", b"\xff", "INTERNAL", UNREADABLE),
        ("KV/Txn", b"\x12\x07\n\x03\n\x01a", "INTERNAL", UNREADABLE),
        ("Lease/LeaseGrant", b"\x08\x80", "INTERNAL", UNREADABLE),
        ("Watch/Watch", b"\n\x05a", "INTERNAL", UNREADABLE),
        ("Lease/LeaseKeepAlive", b"\x08\x80", "INTERNAL", UNREADABLE),
        ("KV/Txn", text_of(50), "INVALID_ARGUMENT", TOO_DEEP),
        ("KV/Txn", text_of(100), "INVALID_ARGUMENT", TOO_DEEP),
    ],
)
def test_messages_that_cannot_be_read(transport, method, text, code, told, new_client, caplog):
    """The client learns why; it is no defect of the server, whose log stays empty."""
    found = find(method)
    kind = "stream_stream" if all(found.streams) else "unary_unary"
    with MemoryBackend() as backend, serve(backend, transport=transport) as endpoint:
        client = new_client(endpoint.address)
        call = getattr(client._channel, kind)(f"/{found.service}/{found.name}")
        with pytest.raises(grpc.RpcError) as caught:
            list(call(iter([text]) if found.streams[0] else text, timeout=20))
        assert caught.value.code().name == code
        assert caught.value.details().startswith(told)
        assert client.call("KV/Range", key=b"deep").count == 0
    assert caplog.text == ""
