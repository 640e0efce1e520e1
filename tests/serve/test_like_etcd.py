"""The endpoint answers as real etcds do: the same program of requests goes to all.

``REVSTORE_TEST_SEED`` sets the programs. With ``REVSTORE_TEST_LONG=50`` more than 1,000,000
requests are sent to each server.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import grpc
import pytest
from hypothesis import reject
from hypothesis import strategies as st
from tests.serve.conftest import STORES, Client, etcd_binary, open_store
from tests.serve.programs import (
    FUTURE,
    LASTING,
    LONG,
    SILENT,
    answer,
    emptied,
    long_programs,
    one_line,
    orders,
    programs,
    shifted,
    told,
    tried,
    watched,
)

from revstore.testing.etcd import EtcdServer
from revstore_serve import serve
from revstore_serve._keys import KeyRange
from revstore_serve._proto import message

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600 * LONG)]


class Served:
    """A server with a client. ``open`` starts it on the data there is, and returns its address."""

    def __init__(self, name: str, start: Callable[[contextlib.ExitStack], str]) -> None:
        self.name = name
        self._start = start
        self._stack = contextlib.ExitStack()
        self.open()

    def open(self) -> None:
        self.client = Client(self._start(self._stack))
        self._stack.callback(self.client.close)

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module", params=["3.4", "3.5"])
def servers(request, tmp_path_factory) -> Iterator[list[Served]]:
    """A real etcd, then endpoints over each kind of store."""
    with contextlib.ExitStack() as stack:
        # With etcd's own times of an election, by which it grants leases.
        times = ("--heartbeat-interval", "100", "--election-timeout", "1000")
        etcd = stack.enter_context(EtcdServer(etcd_binary(request.param), arguments=times))
        memory = stack.enter_context(open_store("memory", None))
        folder = tmp_path_factory.mktemp("like-etcd")

        def start_etcd(stack: contextlib.ExitStack) -> str:
            etcd.start()
            stack.callback(etcd.stop)
            return etcd.address

        def start_memory(stack: contextlib.ExitStack) -> str:
            return stack.enter_context(serve(memory)).address

        def start_sqlite(stack: contextlib.ExitStack) -> str:
            backend = stack.enter_context(open_store("sqlite", folder))
            return stack.enter_context(serve(backend)).address

        starts = (start_etcd, start_memory, start_sqlite)
        found = [
            Served(*each) for each in zip((f"etcd {request.param}", *STORES), starts, strict=True)
        ]
        for each in found:
            stack.callback(each.close)
        yield found


@contextlib.contextmanager
def unless_silent() -> Iterator[None]:
    """Abandon a program if etcd does not come to answer, as on a machine that is too busy."""
    try:
        yield
    except grpc.RpcError as error:
        if error.code() in SILENT:
            reject()
        raise


def begun(servers: list[Served]) -> list[int]:
    """Empty all servers, and return their revisions before a program."""
    with unless_silent():
        first = emptied(servers[0].client)
    return [revision - 1 for revision in (first, *(emptied(each.client) for each in servers[1:]))]


def differ(what: str, theirs: Served, want: Any, ours: Served, have: Any) -> NoReturn:
    raise AssertionError(f"{what}: {theirs.name} answers {want}, {ours.name} answers {have}")


def run_program(servers: list[Served], bases: list[int], program: list[Any]) -> None:
    """Send each request to all servers, and compare the answers."""
    for number, (name, request) in enumerate(program):
        with unless_silent():
            want = answer(servers[0].client, name, request, bases[0])
        for each, base in zip(servers[1:], bases[1:], strict=True):
            have = answer(each.client, name, request, base)
            if have != want:
                what = f"request {number}, {name} {one_line(request)}"
                differ(what, servers[0], want, each, have)


def test_programs(servers):
    def check(program: list[Any]) -> None:
        run_program(servers, begun(servers), program)

    tried(100, programs, check)


def test_which_error_of_a_transaction_counts(servers):
    """Of several that its operations would give: a put's before a range's, else the first."""
    bases = begun(servers)
    run_program(servers, bases, [("KV/Put", message("PutRequest")(key=b"a"))] * 3)
    run_program(servers, bases, [("KV/Compact", message("CompactionRequest")(revision=3))])
    simple = [
        {"request_range": {"key": b"a", "revision": 1}},
        {"request_range": {"key": b"a", "revision": 3}},
        {"request_range": {"key": b"a", "revision": FUTURE}},
        {"request_put": {"key": b"b", "lease": 77}},
        {"request_put": {"key": b"c", "ignore_value": True}},
    ]
    nested = [{"request_txn": {"success": [each]}} for each in simple]
    program = [
        ("KV/Txn", message("TxnRequest")(success=each))
        for count in (2, 3)
        for each in itertools.permutations([*simple, *nested], count)
    ]
    run_program(servers, bases, program)


@pytest.mark.skipif(LONG == 1, reason="for a long run")
def test_long_programs(servers):
    def check(program: list[Any]) -> None:
        for each in orders(program, 10):
            run_program(servers, begun(servers), each)

    tried(20, long_programs, check)


def lasting(program: list[Any]) -> list[Any]:
    """The program with leases that do not expire while servers restart, and without those whose ids
    are negative, which etcd forgets at a restart."""
    found = []
    for name, request in program:
        if name == "Lease/LeaseGrant":
            if request.ID < 0:
                continue
            request.TTL = max(request.TTL, LASTING)
        found.append((name, request))
    return found


def test_restarts(servers):
    """What was there before all servers were restarted is there afterwards: revisions, histories,
    leases and their keys."""

    def check(parts: tuple[list[Any], list[Any]]) -> None:
        bases = begun(servers)
        run_program(servers, bases, parts[0])
        for each in servers:
            each.close()
            each.open()
        run_program(servers, bases, parts[1])

    tried(3, st.tuples(programs.map(lasting), programs.map(lasting)), check)


class Watched:
    """The watches of a program, in turn on several streams, and what each of them told, in the
    order of their creation."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._base = emptied(client) - 1
        self._streams = [client.watch() for _ in range(3)]
        self._found: list[list[tuple[int, str]]] = []
        # The open ones, by stream and id: their numbers and requests.
        self._open: dict[tuple[int, int], tuple[int, Any]] = {}
        # What comes after these revisions may come too late to be seen.
        self._ends: dict[int, int] = {}

    def run(self, program: list[Any]) -> list[list[str]]:
        for name, request in program:
            if name == "watch":
                self._create(shifted(request, self._base))
            elif name == "cancel":
                if self._open:
                    self._cancel([*self._open][request % len(self._open)])
            else:
                answer(self._client, name, request, self._base)
        for watch in [*self._open]:
            self._drain(watch)
        for stream in self._streams:
            stream.close()
        return [
            # The events of one revision may come in any order.
            [
                text
                for revision, events in itertools.groupby(each, lambda event: event[0])
                for _, text in sorted(events)
                if revision <= self._ends.get(number, 0)
            ]
            for number, each in enumerate(self._found)
        ]

    def _create(self, request: Any) -> None:
        which = len(self._found) % len(self._streams)
        self._streams[which].send(create_request=request)
        while not (created := self._streams[which].next()).created:
            self._note(which, created)
        if not created.canceled:
            self._open[which, created.watch_id] = (len(self._found), request)
        self._found.append(told(created, self._base))

    def _note(self, which: int, answered: Any) -> None:
        """Note what a stream says of one of its watches."""
        watch = (which, answered.watch_id)
        self._found[self._open[watch][0]] += told(answered, self._base)
        if answered.canceled:
            del self._open[watch]

    def _drain(self, watch: tuple[int, int]) -> None:
        """Wait until a watch has seen the last event, unless it ends before or begins later."""
        if watch not in self._open:
            return
        number, request = self._open[watch]
        key = KeyRange.of(request.key or b"\0", request.range_end).first
        self._client.call("KV/Put", key=key, value=b"last")
        deleted = self._client.call("KV/DeleteRange", key=key).header.revision
        last = deleted - (1 in request.filters)
        self._ends[number] = last - self._base
        seen = last if request.start_revision > last else 0
        while watch in self._open and seen < last:
            answered = self._streams[watch[0]].next()
            if answered.watch_id == watch[1] and answered.events:
                seen = max(event.kv.mod_revision for event in answered.events)
            self._note(watch[0], answered)

    def _cancel(self, watch: tuple[int, int]) -> None:
        self._drain(watch)
        self._streams[watch[0]].send(cancel_request={"watch_id": watch[1]})
        while watch in self._open:
            self._note(watch[0], self._streams[watch[0]].next())


def test_watches(servers):
    """Each watch tells the same: its events in the order of revisions, its beginning and end."""

    def check(program: list[Any]) -> None:
        with unless_silent():
            want = Watched(servers[0].client).run(program)
        for each in servers[1:]:
            have = Watched(each.client).run(program)
            for number, (theirs, ours) in enumerate(zip(want, have, strict=True)):
                if theirs != ours:
                    differ(f"watch {number}", servers[0], theirs, each, ours)

    tried(40, watched, check)
