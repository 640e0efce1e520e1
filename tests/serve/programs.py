"""Programs of requests, for Hypothesis, and how two servers' answers to them are compared.

Revisions in a program count from the store's when the program begins.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from google.protobuf import text_format
from google.protobuf.message import Message
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st

from revstore.testing.seeds import SEED
from revstore_serve._keys import KeyRange
from revstore_serve._proto import message

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))
#: Codes with which a server, or the client for it, says that it did not come to answer.
SILENT = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}

KEYS = [
    b"a",
    b"a\0",
    b"a/",
    b"a/b",
    b"a0",
    b"a\xff",
    "ÿ".encode(),
    b"b",
    b"\0",
    b"\xff\xff",
    b"c" * 9,
]
ENDS = [*KEYS, b"\0", b"a0", b"b", b"\xc3\xc0"]
VALUES = [b"", b"1", b"2", b"\0\xff"]
SHIFTED = {
    "revision",
    "mod_revision",
    "create_revision",
    "min_mod_revision",
    "max_mod_revision",
    "min_create_revision",
    "max_create_revision",
    "start_revision",
    "compact_revision",
    "rev",
}
FUTURE = 10**6
#: The TTL of leases that outlive a program.
LASTING = 600

keys = st.sampled_from(KEYS)
ends = st.just(b"") | st.sampled_from(ENDS)
revisions = st.just(0) | st.integers(1, 8) | st.just(FUTURE)
bounds = st.just(0) | st.just(0) | st.integers(1, 6)
flags = st.booleans()
rarely = st.integers(0, 4).map(lambda number: number == 0)
LEASES = [0, 0, 0, 7, 8, -9, 77]


def built(name: str, **fields: Any) -> Any:
    return st.builds(message(name), **fields)


ranges = built(
    "RangeRequest",
    key=keys,
    range_end=ends,
    limit=st.integers(0, 3),
    revision=revisions,
    sort_order=st.integers(0, 2),
    sort_target=st.integers(0, 4),
    serializable=flags,
    keys_only=flags,
    count_only=rarely,
    min_mod_revision=bounds,
    max_mod_revision=bounds,
    min_create_revision=bounds,
    max_create_revision=bounds,
) | built("RangeRequest", key=keys | st.just(b""), range_end=ends, limit=st.integers(0, 3))
puts = built(
    "PutRequest",
    key=keys,
    value=st.sampled_from(VALUES),
    lease=st.sampled_from(LEASES),
    prev_kv=flags,
    ignore_value=rarely,
    ignore_lease=rarely,
) | built("PutRequest", key=keys, value=st.sampled_from(VALUES))
deletions = built("DeleteRangeRequest", key=keys, range_end=ends, prev_kv=flags)


@st.composite
def comparisons(draw: Any) -> Any:
    target = draw(st.integers(0, 4))
    field = ("version", "create_revision", "mod_revision", "value", "lease")[target]
    value = draw(st.sampled_from(VALUES) if field == "value" else st.integers(0, 4))
    return message("Compare")(
        result=draw(st.integers(0, 3)),
        target=target,
        key=draw(keys),
        range_end=draw(st.just(b"") | ends),
        **{field: value},
    )


def deletes_what_it_put(branch: Any) -> bool:
    """Whether one nested transaction may delete what another puts before it, which etcd does."""
    put: set[bytes] = set()
    for each in branch:
        if each.WhichOneof("request") != "request_txn":
            continue
        inner = (each.request_txn.success, each.request_txn.failure)
        operations = [found for one in inner for found in _flat(one)]
        deleted = [
            KeyRange.of(found.request_delete_range.key, found.request_delete_range.range_end)
            for found in operations
            if found.WhichOneof("request") == "request_delete_range"
        ]
        if any(key in keys for key in put for keys in deleted):
            return True
        if any(map(deletes_what_it_put, inner)):
            return True
        put |= {found.request_put.key for found in operations if found.HasField("request_put")}
    return False


def _flat(branch: Any) -> Iterator[Any]:
    """The operations of a branch that are no transactions, and those of the ones that are."""
    for each in branch:
        if each.WhichOneof("request") == "request_txn":
            yield from _flat(each.request_txn.success)
            yield from _flat(each.request_txn.failure)
        else:
            yield each


@st.composite
def transactions(draw: Any, depth: int = 2) -> Any:
    simple = (
        built("RequestOp", request_range=ranges)
        | built("RequestOp", request_put=puts)
        # etcd does a deletion without end even if it has a key that is put besides.
        | built(
            "RequestOp",
            request_delete_range=deletions.filter(lambda deletion: deletion.range_end != b"\0"),
        )
    )
    branch = simple
    if depth:
        branch = simple | simple | built("RequestOp", request_txn=transactions(depth - 1))
    found = message("TxnRequest")(
        compare=draw(st.lists(comparisons(), max_size=2)),
        success=draw(st.lists(branch, max_size=3)),
        failure=draw(st.lists(branch, max_size=2)),
    )
    assume(not any(map(deletes_what_it_put, (found.success, found.failure))))
    return found


leases = (
    st.tuples(
        st.just("Lease/LeaseGrant"),
        built(
            "LeaseGrantRequest",
            TTL=st.sampled_from([-5, 0, LASTING, LASTING, 9_000_000_001]),
            ID=st.sampled_from([7, 8, -9]),
        ),
    )
    | st.tuples(
        st.just("Lease/LeaseRevoke"), built("LeaseRevokeRequest", ID=st.sampled_from(LEASES))
    )
    | st.tuples(
        st.just("Lease/LeaseTimeToLive"),
        built("LeaseTimeToLiveRequest", ID=st.sampled_from(LEASES), keys=flags),
    )
    | st.tuples(st.just("Lease/LeaseLeases"), built("LeaseLeasesRequest"))
)
put = st.tuples(st.just("KV/Put"), puts)
steps = (
    put
    | put
    | put
    | st.tuples(st.just("KV/Range"), ranges)
    | st.tuples(st.just("KV/DeleteRange"), deletions)
    | st.tuples(st.just("KV/Txn"), transactions())
    | st.tuples(st.just("KV/Compact"), built("CompactionRequest", revision=revisions))
    | leases
)
programs = st.lists(steps, min_size=1, max_size=12)
long_programs = st.lists(steps, min_size=40, max_size=80)


def orders(program: list[Any], count: int) -> Iterator[list[Any]]:
    """Yield so many programs of the same requests: it takes longer to draw them than to answer."""
    yield program
    for number in range(1, count):
        yield random.Random(number).sample(program, len(program))


watches = built(
    "WatchCreateRequest",
    key=keys | st.just(b""),
    range_end=ends,
    start_revision=revisions,
    prev_kv=flags,
    filters=st.just([]) | st.just([0]) | st.just([1]),
    watch_id=st.sampled_from([0, 0, 0, 5]),
    fragment=flags,
)
watched = st.lists(
    put
    | st.tuples(st.just("KV/DeleteRange"), deletions)
    | st.tuples(st.just("KV/Txn"), transactions())
    | st.tuples(st.just("KV/Compact"), built("CompactionRequest", revision=revisions))
    | st.tuples(st.just("watch"), watches)
    | st.tuples(st.just("cancel"), st.integers(0, 5))
    | leases,
    min_size=2,
    max_size=14,
)


def emptied(client: Any) -> int:
    """Delete all keys and leases, and forget that they were; return the store's revision."""
    client.call("KV/DeleteRange", key=b"\0", range_end=b"\0")
    for lease in client.call("Lease/LeaseLeases").leases:
        client.call("Lease/LeaseRevoke", ID=lease.ID)
    revision = client.call("KV/Put", key=b"begin").header.revision
    client.call("KV/Compact", revision=revision)
    return revision


def _revoke(client: Any, lease: int) -> None:
    """Revoke a lease that may end at this moment."""
    try:
        client.call("Lease/LeaseRevoke", ID=lease)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise


def shifted(sent: Any, by: int) -> Any:
    """A copy of a message whose revisions other than 0 are moved."""
    copy = type(sent)()
    copy.CopyFrom(sent)
    _shift(copy, by)
    return copy


def _shift(sent: Any, by: int) -> None:
    for field, value in sent.ListFields():
        if field.name in SHIFTED and type(value) is int:
            setattr(sent, field.name, value + by)
        elif field.message_type is not None:
            for each in value if isinstance(value, _sequences()) else [value]:
                _shift(each, by)


def _sequences() -> tuple[type, ...]:
    return (type(message("TxnRequest")().compare), list)


def told(answer: Any, base: int) -> list[tuple[int, str]]:
    """What an answer tells a watch: each event with its revision; 0 for its beginning or end."""
    copy = shifted(answer, -base)
    if copy.events:
        return [(event.kv.mod_revision, str(event)) for event in copy.events]
    reason = "" if copy.compact_revision else copy.cancel_reason
    state = (copy.header.revision, copy.created, copy.canceled, copy.compact_revision, reason)
    return [(0, str(state))]


def answer(client: Any, name: str, request: Any, base: int) -> str:
    """A call's answer as text: without ids, and with revisions counted from ``base``.

    A lease that would end within a slow program is revoked at once.

    Raises:
        grpc.RpcError: the server did not come to answer.
    """
    try:
        response = client.call(name, shifted(request, base))
    except grpc.RpcError as error:
        if error.code() in SILENT:
            raise
        return f"{error.code().name} {error.details()}"
    if name == "Lease/LeaseGrant" and request.TTL < LASTING:
        # Nothing else of the program can find it, on a fast machine or on a slow one.
        _revoke(client, response.ID)
    response = shifted(response, -base)
    _settle(request, response)
    header = getattr(response, "header", None)
    if header is not None:
        header.cluster_id = header.member_id = header.raft_term = 0
    if name == "Lease/LeaseLeases":
        response.leases.sort(key=lambda lease: lease.ID)  # etcd's are in the order of their ends
    if name == "Lease/LeaseTimeToLive":
        response.TTL = min(response.TTL, 1)
        response.keys.sort()  # etcd's are in no order
    return str(response)


_TARGETS = ("key", "version", "create_revision", "mod_revision", "value")


def _settle(request: Any, response: Any) -> None:
    """Put keys that are equal by what a range is sorted by in order: etcd leaves that open, and
    with it which of them a limit cuts off."""
    kind = type(request).DESCRIPTOR.name
    if kind == "TxnRequest":
        operations = request.success if response.succeeded else request.failure
        for sent, got in zip(operations, response.responses, strict=True):
            which = sent.WhichOneof("request").removeprefix("request")
            _settle(getattr(sent, f"request{which}"), getattr(got, f"response{which}"))
    elif kind == "RangeRequest" and request.sort_target:
        target = _TARGETS[request.sort_target]
        kvs: list[Any] = []
        for _, equal in itertools.groupby(response.kvs, lambda kv: getattr(kv, target)):
            kvs += sorted(equal, key=lambda kv: kv.key)
        del response.kvs[:]
        response.kvs.extend(kvs)
        if response.more:
            last = getattr(kvs[-1], target)
            for kv in kvs:
                if getattr(kv, target) == last:
                    kv.Clear()


def tried(times: int, program: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Check so many programs of this run's seed; in a long run, of many seeds.

    Raises:
        AssertionError: a check failed. The text is short: the seed, and the first and the smallest
            program with their failures.
    """
    for turn in range(LONG):
        _tried(times, program, check, SEED + turn)


def _tried(
    times: int, program: st.SearchStrategy[Any], check: Callable[[Any], None], number: int
) -> None:
    failures: list[str] = []

    def kept(case: Any) -> None:
        try:
            check(case)
        except (AssertionError, grpc.RpcError) as failure:
            failures.append("\n".join([*_lines(case), _cut(str(failure))]))
            raise

    run = settings(
        max_examples=times,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, *([Phase.shrink] if LONG > 1 else [])],
    )(given(program)(kept))
    try:
        seed(number)(run)()
    except Exception:
        if not failures:
            raise
        both = [f"{word}:\n{failures[at]}" for word, at in (("first", 0), ("smallest", -1))]
        # Hypothesis' own message shows all of a program's messages, field by field.
        raise AssertionError("\n".join([f"REVSTORE_TEST_SEED={number}", *both])) from None


def _lines(case: Any) -> list[str]:
    """A program, each request on a line; of programs, one after the other."""
    if isinstance(case, list):
        return [f"{number}: {name} {one_line(sent)}" for number, (name, sent) in enumerate(case)]
    if isinstance(case, tuple):
        return [line for part in case for line in _lines(part)]
    return [one_line(case)]


def one_line(sent: Any) -> str:
    """A message on one line."""
    if isinstance(sent, Message):
        return _cut(text_format.MessageToString(sent, as_one_line=True))
    return str(sent)


def _cut(text: str, most: int = 1500) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[:most]}... ({len(text)} characters)"
