"""A client of etcd's API in a process of its own: ``python -m benchmarks._serve_client``.

It reads lines of JSON, ``{"address": ..., "work": ..., "callers": ..., "calls": ...}``, and answers
each with the measurement, a line of JSON too. Requests are encoded before the clock starts, and
answers decoded after it has stopped, so that little of what is measured is the client's.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc

from revstore_serve._proto import message

__all__ = ["LISTED", "VALUE"]

VALUE = b"x" * 1000
#: How many keys the list has.
LISTED = 10_000
_PAGE = 500
_WINDOW = 8
_STREAMS = 20

_TxnResponse = message("TxnResponse")
_WatchRequest = message("WatchRequest")
_WatchResponse = message("WatchResponse")
_LeaseGrantResponse = message("LeaseGrantResponse")

_numbers = itertools.count()
_Result = dict[str, float]


def _new_keys(count: int, folder: str = "calls") -> list[bytes]:
    return [b"/%s/%d-%d" % (folder.encode(), os.getpid(), next(_numbers)) for _ in range(count)]


def _txn(key: bytes, revision: int, operation: dict[str, Any]) -> bytes:
    """A write as Kubernetes makes it: if the key is at that revision."""
    request = message("TxnRequest")(
        compare=[{"key": key, "target": 2, "mod_revision": revision}],
        success=[operation],
        failure=[{"request_range": {"key": key}}],
    )
    found: bytes = request.SerializeToString()
    return found


def _put(key: bytes, revision: int = 0, **fields: Any) -> bytes:
    return _txn(key, revision, {"request_put": {"key": key, "value": VALUE, **fields}})


class _Client:
    """The calls at one address; requests and answers are bytes."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(
            address, options=[("grpc.max_receive_message_length", -1)]
        )
        unary = self._channel.unary_unary
        self.txn = unary("/etcdserverpb.KV/Txn")
        self.range = unary("/etcdserverpb.KV/Range")
        self.delete = unary("/etcdserverpb.KV/DeleteRange")
        self.grant = unary("/etcdserverpb.Lease/LeaseGrant")
        self.revoke = unary("/etcdserverpb.Lease/LeaseRevoke")
        self.watch = self._channel.stream_stream("/etcdserverpb.Watch/Watch")
        self._listed = False

    async def measure(self, work: str, callers: int, calls: int) -> _Result:
        found: _Result = await getattr(self, f"measure_{work}")(callers, calls)
        return found

    async def _calls(
        self, call: Callable[[bytes], Awaitable[bytes]], requests: Sequence[bytes], callers: int
    ) -> tuple[_Result, list[bytes]]:
        """Make calls from as many callers, each with its share, one after the other."""
        lags: list[float] = []
        answers: dict[int, bytes] = {}

        async def caller(first: int) -> None:
            for number in range(first, len(requests), callers):
                start = time.perf_counter()
                answers[number] = await call(requests[number])
                lags.append(time.perf_counter() - start)

        start = time.perf_counter()
        await asyncio.gather(*map(caller, range(callers)))
        spent = time.perf_counter() - start
        rate = len(requests) / spent
        return _result(rate, lags), [answers[number] for number in range(len(requests))]

    async def _writes(self, requests: Sequence[bytes], callers: int) -> tuple[_Result, list[int]]:
        result, answers = await self._calls(self.txn, requests, callers)
        decoded = list(map(_TxnResponse.FromString, answers))
        assert all(each.succeeded for each in decoded)
        return result, [each.header.revision for each in decoded]

    async def measure_create(self, callers: int, calls: int) -> _Result:
        return (await self._writes(list(map(_put, _new_keys(calls))), callers))[0]

    async def measure_update(self, callers: int, calls: int) -> _Result:
        keys = _new_keys(calls)
        _, revisions = await self._writes(list(map(_put, keys)), 16)
        return (await self._writes(list(map(_put, keys, revisions)), callers))[0]

    async def measure_delete(self, callers: int, calls: int) -> _Result:
        keys = _new_keys(calls)
        _, revisions = await self._writes(list(map(_put, keys)), 16)
        requests = [
            _txn(key, revision, {"request_delete_range": {"key": key}})
            for key, revision in zip(keys, revisions, strict=True)
        ]
        return (await self._writes(requests, callers))[0]

    async def measure_get(self, callers: int, calls: int) -> _Result:
        keys = _new_keys(100)
        await self._writes(list(map(_put, keys)), 16)
        requests = [
            message("RangeRequest")(key=keys[number % len(keys)]).SerializeToString()
            for number in range(calls)
        ]
        return (await self._calls(self.range, requests, callers))[0]

    async def _list(self, calls: int, limit: int) -> _Result:
        if not self._listed:
            keys = [b"/listed/%06d" % number for number in range(LISTED)]
            await self._writes(list(map(_put, keys)), 64)
            self._listed = True
        request = message("RangeRequest")(key=b"/listed/", range_end=b"/listed0", limit=limit)
        requests = [request.SerializeToString()] * calls
        return (await self._calls(self.range, requests, 1))[0]

    async def measure_list(self, _: int, calls: int) -> _Result:
        return await self._list(calls, 0)

    async def measure_page(self, _: int, calls: int) -> _Result:
        return await self._list(calls, _PAGE)

    async def _open(self, creates: Sequence[dict[str, Any]]) -> Any:
        """Open a stream with watches, and return it once all are there."""
        stream = self.watch()
        for each in creates:
            await stream.write(_WatchRequest(create_request=each).SerializeToString())
        for _ in creates:
            assert _WatchResponse.FromString(await stream.read()).created
        return stream

    async def measure_event(self, callers: int, calls: int) -> _Result:
        """Put, and wait for the event."""
        lags: list[float] = []

        async def caller(number: int) -> None:
            folder = f"event-{number}"
            prefix = b"/" + folder.encode()
            stream = await self._open([{"key": prefix + b"/", "range_end": prefix + b"0"}])
            for key in _new_keys(calls // callers, folder):
                request = _put(key)
                start = time.perf_counter()
                await self.txn(request)
                await stream.read()
                lags.append(time.perf_counter() - start)
            stream.cancel()

        start = time.perf_counter()
        await asyncio.gather(*map(caller, range(callers)))
        return _result(len(lags) / (time.perf_counter() - start), lags)

    async def measure_watches(self, _: int, calls: int) -> _Result:
        """Open so many watches on a few streams."""
        keys = _new_keys(calls)
        groups = [[{"key": key} for key in keys[first::_STREAMS]] for first in range(_STREAMS)]
        start = time.perf_counter()
        streams = await asyncio.gather(*map(self._open, groups))
        spent = time.perf_counter() - start
        for stream in streams:
            stream.cancel()
        return _result(calls / spent, [])

    async def measure_fanout(self, watches: int, calls: int) -> _Result:
        """Puts to one prefix, a few at a time, each to all watches: deliveries a second."""
        each = {"key": b"/fan/", "range_end": b"/fan0"}
        share = watches // _STREAMS
        streams = await asyncio.gather(*(self._open([each] * share) for _ in range(_STREAMS)))

        async def receive(stream: Any) -> None:
            seen = 0
            while seen < share * calls:
                seen += len(_WatchResponse.FromString(await stream.read()).events)

        async def write() -> None:
            requests = list(map(_put, _new_keys(calls, "fan")))
            await self._writes(requests, _WINDOW)

        start = time.perf_counter()
        await asyncio.gather(write(), *map(receive, streams))
        spent = time.perf_counter() - start
        for stream in streams:
            stream.cancel()
        return _result(watches * calls / spent, [])

    async def measure_progress(self, _: int, calls: int) -> _Result:
        """Write, request progress, and wait for a revision that covers the write."""
        stream = await self._open([{"key": b"/none/"}])
        request = _WatchRequest(progress_request={}).SerializeToString()
        lags = []
        for key in _new_keys(calls):
            wanted = _TxnResponse.FromString(await self.txn(_put(key))).header.revision
            start = time.perf_counter()
            at = 0
            while at < wanted:
                await stream.write(request)
                at = _WatchResponse.FromString(await stream.read()).header.revision
            lags.append(time.perf_counter() - start)
        stream.cancel()
        return _result(calls / sum(lags), lags)

    async def measure_lock(self, _: int, calls: int) -> _Result:
        """What ``etcdctl lock`` asks: a lease, a key with it, its deletion, the lease's end."""
        lags = []
        prefix = {"key": b"/lock/", "range_end": b"/lock0", "limit": 1, "sort_target": 2}
        for key in _new_keys(calls, "lock"):
            start = time.perf_counter()
            grant = message("LeaseGrantRequest")(TTL=60).SerializeToString()
            lease = _LeaseGrantResponse.FromString(await self.grant(grant)).ID
            take = message("TxnRequest")(
                compare=[{"key": key, "target": 1, "create_revision": 0}],
                success=[
                    {"request_put": {"key": key, "lease": lease}},
                    {"request_range": {**prefix, "sort_order": 1}},
                ],
            )
            assert _TxnResponse.FromString(await self.txn(take.SerializeToString())).succeeded
            await self.delete(message("DeleteRangeRequest")(key=key).SerializeToString())
            await self.revoke(message("LeaseRevokeRequest")(ID=lease).SerializeToString())
            lags.append(time.perf_counter() - start)
        return _result(calls / sum(lags), lags)


def _result(rate: float, lags: Sequence[float]) -> _Result:
    if not lags:
        return {"rate": rate}
    ordered = sorted(lags)
    return {
        "rate": rate,
        "p50": statistics.median(ordered),
        "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
    }


async def _main() -> None:
    clients: dict[str, _Client] = {}
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked = json.loads(line)
        client = clients.setdefault(asked["address"], _Client(asked["address"]))
        result = await client.measure(asked["work"], asked["callers"], asked["calls"])
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
