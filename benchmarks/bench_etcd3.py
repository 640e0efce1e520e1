"""The etcd3 backend beside the bare protocol stubs, on one server on this machine."""

from __future__ import annotations

import itertools
import queue
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
import msgspec
from etcd3.etcdrpc import rpc_pb2, rpc_pb2_grpc

from benchmarks._figures import Figure
from benchmarks._measure import in_threads, in_turns, seconds
from benchmarks._pods import RESOURCE, Pod, cached, pod
from revstore.backend import Backend
from revstore.codec import json_codec
from revstore.config import StorageConfig
from revstore.plugins import open_backend
from revstore.resource_type import ResourceType
from revstore.testing.etcd import EtcdServer, find_etcd
from revstore.typed import TypedStorage

__all__ = ["figures"]

VALUE = b"x" * 1000
CALLS = 1_000
THREADS = 16
OBJECTS = 100_000
EVENTS = 200
ROUNDS = 3
#: Keys that nothing else has.
_numbers = itertools.count()


class Bare:
    """The stubs, as little as possible around them; each write is the transaction that a
    compare-and-put is."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(
            address, options=[("grpc.max_receive_message_length", -1)]
        )
        self.kv = rpc_pb2_grpc.KVStub(self.channel)
        self.watch = rpc_pb2_grpc.WatchStub(self.channel)

    def put(self, key: str) -> None:
        name = key.encode()
        compare = rpc_pb2.Compare(target=rpc_pb2.Compare.MOD, key=name, mod_revision=0)
        put = rpc_pb2.RequestOp(request_put=rpc_pb2.PutRequest(key=name, value=VALUE))
        read = rpc_pb2.RequestOp(request_range=rpc_pb2.RangeRequest(key=name))
        request = rpc_pb2.TxnRequest(compare=[compare], success=[put], failure=[read])
        assert self.kv.Txn(request, timeout=10).succeeded

    def get(self, key: str) -> None:
        assert self.kv.Range(rpc_pb2.RangeRequest(key=key.encode()), timeout=10).kvs

    def list(self, prefix: bytes) -> int:
        """In pages, each value decoded to a dict."""
        decode = msgspec.json.Decoder().decode
        start, end, at, found = prefix, prefix[:-1] + b"0", 0, 0
        while True:
            request = rpc_pb2.RangeRequest(key=start, range_end=end, limit=10_000, revision=at)
            page = self.kv.Range(request, timeout=30)
            at = at or page.header.revision
            found += len([decode(kv.value) for kv in page.kvs])
            if not page.more:
                return found
            start = page.kvs[-1].key + b"\0"


def figures() -> Iterator[Figure]:
    """All figures of this part, on a server for each kind of work."""
    found = find_etcd()
    binary = found[max(found)]
    with EtcdServer(binary) as server:
        address = server.start().address
        with open_backend(StorageConfig.from_url(f"etcd3://{address}")) as backend:
            yield from _calls(backend, Bare(address))
            yield _latency(backend, Bare(address))
    with EtcdServer(binary) as server:
        address = server.start().address
        with open_backend(StorageConfig.from_url(f"etcd3://{address}")) as backend:
            yield from _lists(backend, Bare(address))


def _calls(backend: Backend, bare: Bare) -> Iterator[Figure]:
    def put(key: str) -> None:
        assert backend.put(key, VALUE, expected_revision=0).succeeded

    def get(key: str) -> None:
        assert backend.get(key).kv is not None

    for threads in (1, THREADS):
        for name, ours, theirs in (("put", put, bare.put), ("get", get, bare.get)):
            keys = [f"/bench/{next(_numbers)}" for _ in range(CALLS)]
            if name == "get":
                for key in keys:
                    put(key)
            mine, its = in_turns(
                ROUNDS, partial(_time, ours, keys, threads), partial(_time, theirs, keys, threads)
            )
            yield Figure(
                name=f"etcd3 {name}, {threads} thread{'s' * (threads > 1)}",
                value=mine * 1e6,
                unit="us",
                bound=its * 1e6,
                bound_name="the bare stub, same request",
                relation="<=",
                target=1.25,
            )


def _time(call: Callable[[str], None], keys: list[str], threads: int) -> float:
    """Seconds a call; of a put each round takes keys of its own."""
    name = getattr(call, "__name__", "")
    mine = [f"/bench/{next(_numbers)}" for _ in keys] if name == "put" else keys
    share = len(mine) // threads

    def work(index: int) -> None:
        for key in mine[index * share : (index + 1) * share]:
            call(key)

    return seconds(lambda: in_threads(threads, work)) / (share * threads)


def _latency(backend: Backend, bare: Bare) -> Figure:
    """From the call of a put to its event, at the median."""
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    create = rpc_pb2.WatchCreateRequest(key=b"/lag/", range_end=b"/lag0", prev_kv=True)
    requests.put(rpc_pb2.WatchRequest(create_request=create))
    stream = bare.watch.Watch(iter(requests.get, None))
    next(stream)

    def theirs() -> float:
        start = time.perf_counter()
        bare.put(f"/lag/{next(_numbers)}")
        while not next(stream).events:
            pass
        return time.perf_counter() - start

    bare_lag = statistics.median(theirs() for _ in range(EVENTS))
    stream.cancel()
    start = backend.status().revision
    with backend.watch("/lag/", recursive=True, after_revision=start) as watch:

        def ours() -> float:
            began = time.perf_counter()
            backend.put(f"/lag/{next(_numbers)}", VALUE, expected_revision=0)
            batch = watch.poll(10)
            while batch is None or not batch.events:
                batch = watch.poll(10)
            return time.perf_counter() - began

        lag = statistics.median(ours() for _ in range(EVENTS))
    return Figure(
        name="etcd3 put to event",
        value=lag * 1e3,
        unit="ms",
        bound=bare_lag * 1e3,
        bound_name="a bare watch stream",
        relation="<=",
        target=1.5,
    )


def _lists(backend: Backend, bare: Bare) -> Iterator[Figure]:
    codec = json_codec(Pod)
    prefix = f"/registry{RESOURCE}/"

    def write(index: int) -> None:
        for number in range(index, OBJECTS, THREADS):
            obj = pod(number)
            key = f"{prefix}{obj.metadata.namespace}/{obj.metadata.name}"
            backend.put(key, codec.encode(obj), expected_revision=0)

    in_threads(THREADS, write)
    storage = TypedStorage(backend, ResourceType(dict, RESOURCE))
    typed = TypedStorage(backend, ResourceType(Pod, RESOURCE))
    ours, theirs = in_turns(
        ROUNDS,
        lambda: seconds(lambda: storage.list(RESOURCE)),
        lambda: seconds(lambda: bare.list(prefix.encode())),
    )
    yield Figure(
        name="etcd3 list of 100,000 dicts",
        value=ours,
        unit="s",
        bound=theirs,
        bound_name="bare Range in pages, and JSON decoding",
        relation="<=",
        target=1.5,
    )

    def ready() -> None:
        with cached(typed) as cacher:
            cacher.wait_ready(60)

    yield Figure(
        name="etcd3 cache ready, 100,000",
        value=seconds(ready),
        unit="s",
        bound=seconds(lambda: TypedStorage(backend, ResourceType(Pod, RESOURCE)).list(RESOURCE)),
        bound_name="reading and decoding them",
        relation="<=",
        target=2.0,
        go=1.95,
    )
