"""No program of a user's requests evades his rights: he learns nothing of other keys, and changes
none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import strategies as st
from tests.serve.conftest import Client
from tests.serve.programs import (
    KEYS,
    LASTING,
    answer,
    deletions,
    emptied,
    leases,
    puts,
    ranges,
    shifted,
    told,
    transactions,
    tried,
    watches,
)
from tests.serve.test_users import RIGHTS, as_user, served, users_text, write_file

READ, WRITE = (tuple(each.encode() for each in prefixes) for prefixes in RIGHTS["some"])
#: Of others: what the user may neither read nor write.
OTHERS = [key for key in KEYS if not key.startswith(READ + WRITE)]
#: Leases of others, with a key that he may not write, and with ones that he may.
LEASES = {7: [OTHERS[0], b"a/b"], 8: [b"a", b"a0"]}
TXN_WITH_LEASE = [
    {"request_put": {"key": b"a/", "lease": 7}},
    {"request_txn": {"failure": [{"request_put": {"key": b"a/", "lease": 7}}]}},
]


class Store:
    """An endpoint with a user's client, and that of the user root."""

    def __init__(self, address: str, changed: bytes) -> None:
        self.root, self.user = (as_user(address, name) for name in ("root", "some"))
        self._changed = changed

    def fill(self) -> int:
        """Let others write; return the revision before. Stores differ in what the user may not
        read, and in nothing else."""
        base = emptied(self.root) - 1
        for lease in LEASES:
            self.root.call("Lease/LeaseGrant", ID=lease, TTL=LASTING)
        held = {key: lease for lease, keys in LEASES.items() for key in keys}
        for key in [*KEYS, self._changed, self._changed]:
            value = b"known" if key.startswith(READ) else self._changed
            self.root.call("KV/Put", key=key, value=value, lease=held.get(key, 0))
        return base

    def of_others(self) -> list[Any]:
        """What the user may not change."""
        everything = self.root.call("KV/Range", key=b"\0", range_end=b"\0").kvs
        return [kv for kv in everything if not kv.key.startswith(WRITE)]

    def lease_keys(self, lease: int) -> set[bytes]:
        return {*self.root.call("Lease/LeaseTimeToLive", ID=lease, keys=True).keys}

    def run(self, program: list[Any]) -> list[str]:
        """Let the user send requests; return the answers."""
        base = self.fill()
        before = self.of_others()
        answers = [answer(self.user, name, request, base) for name, request in program]
        assert self.of_others() == before
        # Else their holders could not revoke them.
        assert self.lease_keys(7) <= {*LEASES[7]}
        return answers

    def watch(self, request: Any) -> list[str]:
        """Let the user watch while others write all keys; return what he sees."""
        base = self.fill()
        stream = self.user.watch()
        stream.send(create_request=shifted(request, base))
        created = stream.next()
        seen = [str((created.canceled, created.cancel_reason))]
        if not created.canceled:
            for key in KEYS:
                self.root.call("KV/Put", key=key, value=b"later")
            stream.send(cancel_request={"watch_id": created.watch_id})
            while not (found := stream.next()).canceled:
                assert all(event.kv.key.startswith(READ) for event in found.events)
                seen += [text for _, text in told(found, base)]
        stream.close()
        return seen

    def close(self) -> None:
        self.root.close()
        self.user.close()


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> Iterator[list[Store]]:
    path = tmp_path_factory.mktemp("rights") / "users.toml"
    write_file(path, users_text())
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                contextlib.closing(Store(stack.enter_context(served(path)).address, changed))
            )
            for changed in OTHERS[:2]
        ]


def parts(sent: Any) -> Iterator[Any]:
    """The parts of a request that have a key."""
    if hasattr(sent, "key"):
        yield sent
    for field, value in sent.ListFields():
        if field.message_type is not None:
            for each in [value] if isinstance(value, Message) else value:
                yield from parts(each)


def with_one_foreign(step: tuple[str, Any, int]) -> tuple[str, Any]:
    """A request of which one part only may lie outside of the user's rights, so that nothing else
    refuses it."""
    name, request, number = step
    keyed = [*parts(request)]
    for at, part in enumerate(keyed):
        if at != number % len(keyed):
            part.key = b"a/%d" % at
            if hasattr(part, "range_end"):
                part.range_end = b""
    return name, request


requests = (
    st.tuples(st.just("KV/Range"), ranges, st.just(0))
    | st.tuples(st.just("KV/Put"), puts, st.just(0))
    | st.tuples(st.just("KV/DeleteRange"), deletions, st.just(0))
    | st.tuples(st.just("KV/Txn"), transactions(), st.integers(0, 20))
).map(with_one_foreign)
programs = st.lists(requests | leases, min_size=1, max_size=12)


def compare(first: list[str], second: list[str]) -> None:
    for number, (one, other) in enumerate(zip(first, second, strict=True)):
        assert one == other, f"answer {number}: {one} or {other}"


def test_programs(stores):
    """What the user is answered is the same whatever others' keys hold."""
    tried(10, programs, lambda program: compare(*(store.run(program) for store in stores)))


def test_watches(stores):
    tried(10, watches, lambda request: compare(*(store.watch(request) for store in stores)))


#: Keys at all boundaries of the user's rights, and between them.
PROBES = [
    b"\0", b"Z", b"`\xff", b"a", b"a\0", b"a.\xff", b"a/", b"a/\0", b"a/~", b"a/\xff\xff", b"a0",
    b"a\xff", b"b", b"b\0", b"b/", b"b\xff\xff", b"c", b"c\xff", b"d", b"\xff\xff\xff",
]  # fmt: skip
BOUNDS = [b"a", b"a/", b"a/~", b"a0", b"b", b"b/", b"c", b"d"]
RANGES = [
    *((key, b"") for key in PROBES),
    *((key, key + b"\0") for key in (b"a", b"a/", b"b")),
    *((key, end) for key in BOUNDS for end in BOUNDS if key < end),
    *((key, b"\0") for key in (b"\0", b"a/", b"b", b"d")),
]


def covers(prefixes: tuple[bytes, ...], key: bytes, end: bytes) -> bool:
    """Whether all keys of a range have one of the prefixes."""
    keys = [key, *(each for each in PROBES if each > key and (end == b"\0" or each < end))]
    return all(each.startswith(prefixes) for each in (keys if end else [key]))


def operations() -> Iterator[tuple[dict[str, Any], bool]]:
    """Operations on each range, and whether the user may do them."""
    for key, end in RANGES:
        of = {"key": key, "range_end": end}
        may_read, may_write = covers(READ, key, end), covers(WRITE, key, end)
        yield {"request_range": of}, may_read
        yield {"request_delete_range": of}, may_write
        yield {"request_delete_range": {**of, "prev_kv": True}}, may_read and may_write
        if not end:
            yield {"request_put": {"key": key}}, may_write
            yield {"request_put": {"key": key, "prev_kv": True}}, may_read and may_write


CALLS = {"request_range": "Range", "request_delete_range": "DeleteRange", "request_put": "Put"}


def nested(**branches: list[Any]) -> dict[str, Any]:
    return {"request_txn": branches}


#: Where an operation may be in a transaction.
PLACES: list[Callable[[Any], dict[str, Any]]] = [
    lambda each: {"success": [each]},
    lambda each: {"failure": [{"request_range": {"key": b"a/"}}, each]},
    lambda each: {"failure": [nested(failure=[each])]},
    lambda each: {"success": [nested(success=[nested(failure=[each])])]},
]


def permitted(user: Client, name: str, **fields: Any) -> bool:
    try:
        user.call(name, **fields)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED  # noqa: PT017 - not always there
        return False
    return True


def test_operations_at_all_boundaries(stores):
    user = stores[0].user
    for operation, allowed in operations():
        ((kind, fields),) = operation.items()
        assert permitted(user, f"KV/{CALLS[kind]}", **fields) is allowed, operation


@pytest.mark.parametrize("place", range(len(PLACES)))
def test_operations_of_transactions(stores, place):
    user = stores[0].user
    for operation, allowed in operations():
        found = permitted(user, "KV/Txn", **PLACES[place](operation))
        assert found is allowed, operation


def test_comparisons(stores):
    user = stores[0].user
    for key, end in RANGES:
        compare, allowed = {"key": key, "range_end": end}, covers(READ, key, end)
        inner = nested(compare=[compare])
        for txn in (inner["request_txn"], *(place(inner) for place in PLACES)):
            assert permitted(user, "KV/Txn", **txn) is allowed, txn


def test_watches_at_all_boundaries(stores):
    stream = stores[0].user.watch()
    for key, end in RANGES:
        assert stream.create(key, end).canceled is not covers(READ, key, end), (key, end)
    stream.close()


@pytest.mark.parametrize("branch", ["success", "failure"])
@pytest.mark.parametrize("operation", TXN_WITH_LEASE)
def test_leases_of_others_in_a_transaction(stores, branch, operation):
    """Nobody attaches a key to a lease that he could not revoke."""
    stores[0].fill()
    with pytest.raises(grpc.RpcError) as caught:
        stores[0].user.call("KV/Txn", **{branch: [operation]})
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert stores[0].lease_keys(7) == {*LEASES[7]}
    allowed = {branch: [{"request_put": {"key": b"a/", "lease": 8}}]}
    stores[0].user.call("KV/Txn", **allowed)
    assert b"a/" in stores[0].lease_keys(8) or branch == "failure"
