"""Every request that Kubernetes and etcdctl's get, put, del and watch send to etcd, over a
``Backend``: small adapters from the wire's field names to the contract, and tables of what goes
in and comes out (BASE-1). An etcd endpoint over any backend needs nothing beyond these.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from typing import Any

import pytest

from revstore.backend import Backend, BackendWatch
from revstore.errors import BackendError, Compacted, FutureRevision
from revstore.memory import MemoryBackend
from revstore.values import KeyValue, WatchEventType

TOP = "\0"  # as range_end: no upper end


class EtcdError(Exception):
    """The gRPC error that etcd answers with, by its text."""


# Adapters


def interval(key: str, range_end: str) -> tuple[str, str, str]:
    """(prefix, start, stop) of a range: a prefix comes as itself and itself plus one."""
    if range_end == TOP:
        return "", "" if key == "\0" else key, ""
    prefix = range_end[:-1] + chr(ord(range_end[-1]) - 1)
    if key.startswith(prefix):  # a prefix, or a later page of one
        return prefix, key, ""
    common = os.path.commonprefix([key, range_end])  # noqa: RUF071 - by characters is right
    return common, key, range_end


def etcd_range(backend: Backend, request: dict[str, Any]) -> dict[str, Any]:
    """Range: one key, a prefix, from a key on, any interval."""
    key, end, revision = request["key"], request.get("range_end", ""), request.get("revision", 0)
    linearizable = not request.get("serializable", False)
    try:
        if not end:
            one = backend.get(key, revision=revision, linearizable=linearizable)
            kvs = [one.kv] if one.kv else []
            return answer(one.revision, kvs, request, count=len(kvs))
        prefix, start, stop = interval(key, end)
        if request.get("count_only") and prefix == key:
            found = backend.count(prefix, revision=revision)
            return {"revision": found.revision, "kvs": [], "count": found.count, "more": False}
        page = backend.list(
            prefix,
            start=start,
            limit=0 if stop else request.get("limit", 0),
            revision=revision,
            keys_only=request.get("keys_only", False),
            remaining=True,
            linearizable=linearizable,
        )
    except FutureRevision as error:
        raise EtcdError("mvcc: required revision is a future revision") from error
    except Compacted as error:
        raise EtcdError("mvcc: required revision has been compacted") from error
    kvs = [kv for kv in page.kvs if not stop or kv.key < stop]
    return answer(page.revision, kvs, request, count=len(kvs) + (page.remaining or 0))


def answer(revision: int, kvs: list[KeyValue], request: dict[str, Any], count: int) -> dict:
    """A RangeResponse, cut and sorted as asked."""
    if request.get("sort_target"):
        field = {"MOD": "revision", "CREATE": "create_revision", "KEY": "key", "VALUE": "value"}
        kvs = sorted(kvs, key=lambda kv: getattr(kv, field[request["sort_target"]]))
        kvs = kvs[::-1] if request.get("sort_order") == "DESCEND" else kvs
    shown = kvs[: request.get("limit") or None]
    if request.get("count_only"):
        shown = []
    fields = [wire(kv, keys_only=request.get("keys_only", False)) for kv in shown]
    more = count > len(shown) and not request.get("count_only")
    return {"revision": revision, "kvs": fields, "count": count, "more": more}


def wire(kv: KeyValue, *, keys_only: bool = False) -> dict[str, Any]:
    """mvccpb.KeyValue without the fields that are zero, as protobuf's text shows it."""
    fields = {
        "key": kv.key,
        "value": "" if keys_only else kv.value.decode(),
        "mod": kv.revision,
        "create": kv.create_revision,
        "version": kv.version,
        "lease": kv.lease,
    }
    return {name: value for name, value in fields.items() if value}


def etcd_put(backend: Backend, request: dict[str, Any]) -> dict[str, Any]:
    """Put without a condition: compare-and-put until it wins. The lease's id is its ttl."""
    current = backend.get(request["key"]).kv
    while True:
        value = request.get("value", "").encode()
        ttl: int | None = request.get("lease", 0)
        if request.get("ignore_value") or request.get("ignore_lease"):
            if current is None:
                raise EtcdError("etcdserver: key not found")
            value = current.value if request.get("ignore_value") else value
            ttl = None if request.get("ignore_lease") else ttl
        expected = current.revision if current else 0
        result = backend.put(request["key"], value, expected_revision=expected, ttl=ttl)
        if result.succeeded:
            previous = {"prev_kv": wire(current)} if request.get("prev_kv") and current else {}
            return {"revision": result.revision, **previous}
        current = result.current


def etcd_delete(backend: Backend, request: dict[str, Any]) -> dict[str, Any]:
    """DeleteRange. Several keys take a revision each here, one for all in etcd; the answer has
    the last, which covers them all."""
    key, end = request["key"], request.get("range_end", "")
    prefix, start, stop = interval(key, end) if end else (key, key, key + "\0")
    removed = []
    for kv in backend.list(prefix, start=start, keys_only=True).kvs:
        expected = kv.revision
        while expected and (not stop or kv.key < stop):
            result = backend.delete(kv.key, expected_revision=expected)
            if result.succeeded and result.kv:
                removed.append(result.kv)
                break
            expected = result.kv.revision if result.kv else 0
    previous = {"prev_kvs": [wire(kv) for kv in removed]} if request.get("prev_kv") else {}
    return {"revision": backend.status().revision, "deleted": len(removed), **previous}


def etcd_txn(backend: Backend, request: dict[str, Any]) -> dict[str, Any]:
    """Txn in the shapes in use: one compare on one key, then put or delete that key, else get
    it. All compares become one on the revision, re-read while somebody else gets in between."""
    (target, key, wanted), then = request["compare"], request["then"]
    current = backend.get(key).kv
    while True:
        fields = {"mod": "revision", "create": "create_revision", "version": "version"}
        if (getattr(current, fields[target]) if current else 0) != wanted:
            shown = {"kvs": [wire(current)] if current else []} if "else" in request else {}
            return {"succeeded": False, "revision": backend.status().revision, **shown}
        expected = current.revision if current else 0
        if "put" in then:
            value, lease = then["put"].encode(), then.get("lease", 0)
            put = backend.put(key, value, expected_revision=expected, ttl=lease)
            if put.succeeded:
                return {"succeeded": True, "revision": put.revision}
            current = put.current
        elif not expected:  # a deletion of nothing succeeds in etcd and takes no revision
            return {"succeeded": True, "revision": backend.status().revision, "deleted": 0}
        else:
            deleted = backend.delete(key, expected_revision=expected)
            if deleted.succeeded:
                return {"succeeded": True, "revision": deleted.revision, "deleted": 1}
            current = deleted.kv


def etcd_compact(backend: Backend, request: dict[str, Any]) -> dict[str, Any]:
    """Compact, whose errors are the ranges' own."""
    try:
        backend.compact(request["revision"])
    except FutureRevision as error:
        raise EtcdError("mvcc: required revision is a future revision") from error
    except Compacted as error:
        raise EtcdError("mvcc: required revision has been compacted") from error
    return {"revision": backend.status().revision}


def etcd_watch(backend: Backend, request: dict[str, Any]) -> BackendWatch:
    """WatchCreate: start_revision is the first wanted, 0 what comes next."""
    key, end = request["key"], request.get("range_end", "")
    start = request.get("start_revision", 0)
    return backend.watch(
        interval(key, end)[0] if end else key,
        recursive=bool(end),
        after_revision=start - 1 if start else backend.status().revision,
        progress=request.get("progress_notify", False),
    )


def etcd_responses(
    backend: Backend, watch: BackendWatch, request: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """WatchResponses until there is nothing more: whole revisions, filtered as asked."""
    _prefix, start, stop = (
        interval(request["key"], request["range_end"]) if "range_end" in request else ("", "", "")
    )
    try:
        while batch := watch.poll(0):
            events = []
            for event in batch.events:
                put = event.type is WatchEventType.PUT
                if ("NOPUT" if put else "NODELETE") in request.get("filters", ()):
                    continue
                if event.kv.key < start or (stop and event.kv.key >= stop):
                    continue
                shown = {"type": "PUT" if put else "DELETE", "kv": wire(event.kv)}
                if request.get("prev_kv") and event.previous:
                    shown["prev_kv"] = wire(event.previous)
                events.append(shown)
            if events or not batch.events:
                yield {"revision": batch.revision, "events": events}
    except Compacted as error:
        yield {"canceled": True, "compact_revision": error.compacted}


CALLS = {
    "range": etcd_range,
    "put": etcd_put,
    "delete": etcd_delete,
    "txn": etcd_txn,
    "compact": etcd_compact,
}

# Tables: name -> steps of (call, request, what of the response must be so)

A, B, C = "/registry/pods/a", "/registry/pods/b", "/registry/pods/c"
PODS = {"key": "/registry/pods/", "range_end": "/registry/pods0"}


def kv(key: str, value: str, mod: int, create: int = 0, version: int = 1, lease: int = 0) -> dict:
    fields = {"key": key, "value": value, "mod": mod, "create": create or mod, "version": version}
    fields["lease"] = lease
    return {name: number for name, number in fields.items() if number}


def create(key: str, value: str, **then: Any) -> dict[str, Any]:
    return {"compare": ("mod", key, 0), "then": {"put": value, **then}}


THREE = [
    ("txn", create(A, "1"), {"succeeded": True, "revision": 2}),
    ("txn", create(B, "1"), {"succeeded": True, "revision": 3}),
    ("txn", create(C, "1"), {"succeeded": True, "revision": 4}),
]
FUTURE = "mvcc: required revision is a future revision"
COMPACTED = "mvcc: required revision has been compacted"

CASES: dict[str, list[tuple[str, dict[str, Any], Any]]] = {
    "kubernetes create": [
        ("txn", create(A, "1"), {"succeeded": True, "revision": 2}),
        ("txn", create(A, "2"), {"succeeded": False, "revision": 2}),
        ("range", {"key": A}, {"kvs": [kv(A, "1", 2)], "count": 1, "revision": 2}),
    ],
    "kubernetes update": [
        *THREE,
        (
            "txn",
            {"compare": ("mod", A, 2), "then": {"put": "2"}, "else": "get"},
            {"succeeded": True, "revision": 5},
        ),
        (
            "txn",
            {"compare": ("mod", A, 2), "then": {"put": "3"}, "else": "get"},
            {"succeeded": False, "revision": 5, "kvs": [kv(A, "2", 5, 2, 2)]},
        ),
        (
            "txn",
            {"compare": ("mod", "/none", 2), "then": {"put": "3"}, "else": "get"},
            {"succeeded": False, "revision": 5, "kvs": []},
        ),
    ],
    "kubernetes delete": [
        *THREE,
        (
            "txn",
            {"compare": ("mod", A, 9), "then": {"delete": A}, "else": "get"},
            {"succeeded": False, "kvs": [kv(A, "1", 2)]},
        ),
        (
            "txn",
            {"compare": ("mod", A, 2), "then": {"delete": A}, "else": "get"},
            {"succeeded": True, "revision": 5, "deleted": 1},
        ),
        (
            "txn",
            {"compare": ("mod", A, 2), "then": {"delete": A}, "else": "get"},
            {"succeeded": False, "revision": 5, "kvs": []},
        ),
        ("range", {"key": A}, {"kvs": [], "count": 0, "revision": 5}),
    ],
    "kubernetes create with a lease": [
        ("txn", create(A, "1", lease=3600), {"succeeded": True, "revision": 2}),
        ("range", {"key": A}, {"kvs": [kv(A, "1", 2, lease=3600)]}),
    ],
    "kubernetes list in pages at one revision": [
        *THREE,
        (
            "range",
            {**PODS, "limit": 2},
            {"kvs": [kv(A, "1", 2), kv(B, "1", 3)], "count": 3, "more": True, "revision": 4},
        ),
        ("put", {"key": C, "value": "2"}, {"revision": 5}),
        (
            "range",
            {"key": B + "\0", "range_end": "/registry/pods0", "limit": 2, "revision": 4},
            {"kvs": [kv(C, "1", 4)], "count": 1, "more": False, "revision": 4},
        ),
    ],
    "kubernetes count": [
        *THREE,
        ("put", {"key": "/registry/podsx", "value": ""}, {"revision": 5}),
        ("range", {**PODS, "count_only": True}, {"kvs": [], "count": 3, "more": False}),
    ],
    "kubernetes revision of an empty range": [
        ("range", {"key": "/registry/pods", "serializable": False}, {"kvs": [], "revision": 1}),
    ],
    "kubernetes compactor": [
        (
            "txn",
            {"compare": ("version", "compact_rev_key", 0), "then": {"put": "1"}, "else": "get"},
            {"succeeded": True, "revision": 2},
        ),
        (
            "txn",
            {"compare": ("version", "compact_rev_key", 0), "then": {"put": "2"}, "else": "get"},
            {"succeeded": False, "kvs": [kv("compact_rev_key", "1", 2)]},
        ),
        (
            "txn",
            {"compare": ("version", "compact_rev_key", 1), "then": {"put": "2"}, "else": "get"},
            {"succeeded": True, "revision": 3},
        ),
        ("range", {"key": "compact_rev_key"}, {"kvs": [kv("compact_rev_key", "2", 3, 2, 2)]}),
        ("compact", {"revision": 2}, {"revision": 3}),
    ],
    "compaction": [
        *THREE,
        ("put", {"key": A, "value": "2"}, {"revision": 5}),
        ("compact", {"revision": 4}, {"revision": 5}),
        ("compact", {"revision": 4}, COMPACTED),
        ("compact", {"revision": 6}, FUTURE),
        ("range", {"key": A, "revision": 3}, COMPACTED),
        ("range", {**PODS, "revision": 3}, COMPACTED),
        ("range", {**PODS, "revision": 6}, FUTURE),
        ("range", {"key": A, "revision": 4}, {"kvs": [kv(A, "1", 2)], "revision": 5}),
    ],
    "etcdctl get": [
        *THREE,
        ("put", {"key": A, "value": "2"}, {"revision": 5}),
        ("range", {"key": A}, {"kvs": [kv(A, "2", 5, 2, 2)]}),
        ("range", {"key": A, "serializable": True}, {"kvs": [kv(A, "2", 5, 2, 2)]}),
        ("range", {"key": A, "revision": 4}, {"kvs": [kv(A, "1", 2)]}),
        (
            "range",
            {**PODS, "keys_only": True, "limit": 1},
            {"kvs": [kv(A, "", 5, 2, 2)], "count": 3, "more": True},
        ),
        (
            "range",
            {"key": B, "range_end": TOP},
            {"kvs": [kv(B, "1", 3), kv(C, "1", 4)], "count": 2},
        ),
        ("range", {"key": "\0", "range_end": TOP, "count_only": True}, {"count": 3}),
        ("range", {"key": A, "range_end": C}, {"kvs": [kv(A, "2", 5, 2, 2), kv(B, "1", 3)]}),
        (
            "range",
            {"key": A, "range_end": C, "limit": 1},
            {"kvs": [kv(A, "2", 5, 2, 2)], "count": 2, "more": True},
        ),
        (
            "range",
            {**PODS, "sort_target": "MOD", "sort_order": "DESCEND", "keys_only": True},
            {"kvs": [kv(A, "", 5, 2, 2), kv(C, "", 4), kv(B, "", 3)]},
        ),
    ],
    "etcdctl put": [
        ("put", {"key": A, "value": "1", "prev_kv": True}, {"revision": 2}),
        (
            "put",
            {"key": A, "value": "2", "prev_kv": True},
            {"revision": 3, "prev_kv": kv(A, "1", 2)},
        ),
        ("put", {"key": A, "value": "3", "lease": 600}, {"revision": 4}),
        ("put", {"key": A, "value": "4", "ignore_lease": True}, {"revision": 5}),
        ("range", {"key": A}, {"kvs": [kv(A, "4", 5, 2, 4, 600)]}),
        ("put", {"key": A, "ignore_value": True}, {"revision": 6}),
        ("range", {"key": A}, {"kvs": [kv(A, "4", 6, 2, 5)]}),
        ("put", {"key": B, "value": "1", "ignore_lease": True}, "etcdserver: key not found"),
        ("put", {"key": B, "ignore_value": True}, "etcdserver: key not found"),
    ],
    "etcdctl del": [
        *THREE,
        ("delete", {"key": A, "prev_kv": True}, {"deleted": 1, "prev_kvs": [kv(A, "1", 2)]}),
        ("delete", {"key": A}, {"deleted": 0, "revision": 5}),
        ("delete", {"key": A, "range_end": C}, {"deleted": 1}),
        ("delete", {**PODS, "prev_kv": True}, {"deleted": 1, "prev_kvs": [kv(C, "1", 4)]}),
        ("range", {"key": "\0", "range_end": TOP}, {"kvs": [], "count": 0}),
    ],
    "etcdctl del --from-key": [
        *THREE,
        ("delete", {"key": B, "range_end": TOP}, {"deleted": 2}),
        ("range", PODS, {"kvs": [kv(A, "1", 2)]}),
    ],
    "etcdctl txn by create revision": [
        ("txn", {"compare": ("create", A, 0), "then": {"put": "1"}}, {"succeeded": True}),
        ("txn", {"compare": ("create", A, 2), "then": {"delete": A}}, {"succeeded": True}),
        ("txn", {"compare": ("create", A, 0), "then": {"delete": A}}, {"deleted": 0}),
    ],
}


@pytest.fixture
def backend() -> Iterator[Backend]:
    with MemoryBackend() as backend:
        yield backend


def play(backend: Backend, steps: list[tuple[str, dict[str, Any], Any]]) -> None:
    for call, request, expected in steps:
        if isinstance(expected, str):
            with pytest.raises(EtcdError) as caught:
                CALLS[call](backend, request)
            assert str(caught.value) == expected
            assert isinstance(caught.value.__cause__, BackendError | None)
            continue
        response = CALLS[call](backend, request)
        assert {name: response.get(name) for name in expected} == expected, (call, request)


@pytest.mark.parametrize("steps", CASES.values(), ids=CASES)
def test_requests(backend, steps):
    """Each request gets etcd's answer, from the contract alone (BASE-1, CMP-2, OLD-12)."""
    play(backend, steps)


HISTORY = [
    *THREE,
    ("put", {"key": A, "value": "2"}, {}),
    ("delete", {"key": B}, {}),
]
EVENTS = [
    {"revision": 2, "events": [{"type": "PUT", "kv": kv(A, "1", 2)}]},
    {"revision": 3, "events": [{"type": "PUT", "kv": kv(B, "1", 3)}]},
    {"revision": 4, "events": [{"type": "PUT", "kv": kv(C, "1", 4)}]},
    {"revision": 5, "events": [{"type": "PUT", "kv": kv(A, "2", 5, 2, 2)}]},
    {"revision": 6, "events": [{"type": "DELETE", "kv": {"key": B, "mod": 6}}]},
]
PREVIOUS = [
    {
        "revision": 5,
        "events": [{"type": "PUT", "kv": kv(A, "2", 5, 2, 2), "prev_kv": kv(A, "1", 2)}],
    },
    {
        "revision": 6,
        "events": [{"type": "DELETE", "kv": {"key": B, "mod": 6}, "prev_kv": kv(B, "1", 3)}],
    },
]
WATCHES = {
    "from the first revision": ({**PODS, "start_revision": 1}, EVENTS),
    "from a revision, with previous": ({**PODS, "start_revision": 5, "prev_kv": True}, PREVIOUS),
    "from now": (PODS, []),
    "from the future": ({**PODS, "start_revision": 100}, []),
    "one key": ({"key": A, "start_revision": 1}, [EVENTS[0], EVENTS[3]]),
    "from a key on": ({"key": B, "range_end": TOP, "start_revision": 1}, EVENTS[1:3] + EVENTS[4:]),
    "an interval": ({"key": A, "range_end": C, "start_revision": 4}, EVENTS[3:]),
    "everything": ({"key": "\0", "range_end": TOP, "start_revision": 6}, EVENTS[4:]),
    "no puts": ({**PODS, "start_revision": 1, "filters": ["NOPUT"]}, EVENTS[4:]),
    "no deletes": ({**PODS, "start_revision": 1, "filters": ["NODELETE"]}, EVENTS[:4]),
    "progress_notify": ({**PODS, "start_revision": 6, "progress_notify": True}, EVENTS[4:]),
}


@pytest.mark.parametrize(("request_", "expected"), WATCHES.values(), ids=WATCHES)
def test_watches(backend, request_, expected):
    """Each watch request gets etcd's responses (WATCH-2, WATCH-6, WATCH-10)."""
    play(backend, HISTORY)
    with etcd_watch(backend, request_) as watch:
        assert list(etcd_responses(backend, watch, request_)) == expected


def test_watch_of_what_comes(backend):
    """start_revision 0 begins after the revision at which the watch was created (WATCH-4)."""
    play(backend, HISTORY)
    with etcd_watch(backend, PODS) as watch:
        play(backend, [("put", {"key": A, "value": "3"}, {"revision": 7})])
        found = list(etcd_responses(backend, watch, PODS))

    assert found == [{"revision": 7, "events": [{"type": "PUT", "kv": kv(A, "3", 7, 2, 3)}]}]


def test_watch_progress_request(backend):
    """A WatchProgressRequest is answered by a response without events at the store's revision,
    after all events (CACHE-11)."""
    request = {**PODS, "start_revision": 6}
    with etcd_watch(backend, request) as watch:
        play(backend, HISTORY)
        play(backend, [("put", {"key": "/other", "value": ""}, {"revision": 7})])
        watch.request_progress()
        found = list(etcd_responses(backend, watch, request))

    assert found == [EVENTS[4], {"revision": 7, "events": []}]


def test_watch_compacted(backend):
    """A watch from below the compacted revision is created, then cancelled with it (ERR-8)."""
    play(backend, [*HISTORY, ("compact", {"revision": 4}, {})])
    request = {**PODS, "start_revision": 3}
    with etcd_watch(backend, request) as watch:
        found = list(etcd_responses(backend, watch, request))

    assert found == [{"canceled": True, "compact_revision": 4}]


def test_lease_expires(backend):
    """LeaseGrant with the ttl as id, a put with it, and in the end a DELETE event (TTL-1)."""
    request = {**PODS, "start_revision": 3, "prev_kv": True}
    play(backend, [("txn", create(A, "1", lease=1), {"revision": 2})])
    with etcd_watch(backend, request) as watch:
        batch = watch.poll(20)

    assert batch.revision == 3
    assert [wire(event.previous) for event in batch.events] == [kv(A, "1", 2, lease=1)]
