"""The endpoint answers as real etcds do: the same program of requests goes to all.

``REVSTORE_TEST_SEED`` sets the programs. With ``REVSTORE_TEST_LONG=50`` more than 1,000,000
requests are compared.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st
from tests.serve.conftest import STORES, Client, etcd_binary, open_store
from tests.serve.programs import answer, emptied, programs, shifted, told, watched

from revstore.testing.etcd import EtcdServer
from revstore.testing.seeds import SEED
from revstore_serve import serve
from revstore_serve._keys import KeyRange

LONG = int(os.environ.get("REVSTORE_TEST_LONG", "1"))
# So many times as long a program of requests is tried as others: it costs least.
_MORE = 16 if LONG > 1 else 1

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


def tried(times: int, program: st.SearchStrategy[Any], check: Callable[[Any], None]) -> None:
    """Check so many programs of this run's seed; in a long run, of many seeds."""
    turns = LONG if LONG > 1 else 1
    for turn in range(turns):
        run = settings(
            max_examples=times,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, *([Phase.shrink] if LONG > 1 else [])],
        )(given(program)(check))
        seed(SEED + turn)(run)()


def run_program(servers: list[Served], bases: list[int], program: list[Any]) -> None:
    """Send each request to all servers, and compare the answers."""
    for number, (name, request) in enumerate(program):
        note(f"{number}: {name} {request}")
        want, *others = (
            answer(each.client, name, request, base)
            for each, base in zip(servers, bases, strict=True)
        )
        for each, have in zip(servers[1:], others, strict=True):
            assert have == want, f"{each.name} differs from {servers[0].name}, seed {SEED}"


def test_programs(servers):
    def check(program: list[Any]) -> None:
        run_program(servers, [emptied(each.client) - 1 for each in servers], program)

    tried(100 * _MORE, programs, check)


def lasting(program: list[Any]) -> list[Any]:
    """The program with leases that do not expire while servers restart, and without those whose ids
    are negative, which etcd forgets at a restart."""
    found = []
    for name, request in program:
        if name == "Lease/LeaseGrant":
            if request.ID < 0:
                continue
            request.TTL = max(request.TTL, 600)
        found.append((name, request))
    return found


def test_restarts(servers):
    """What was there before all servers were restarted is there afterwards: revisions, histories,
    leases and their keys."""

    def check(parts: tuple[list[Any], list[Any]]) -> None:
        bases = [emptied(each.client) - 1 for each in servers]
        run_program(servers, bases, parts[0])
        for each in servers:
            each.close()
            each.open()
        note("all restarted")
        run_program(servers, bases, parts[1])

    tried(3, st.tuples(programs.map(lasting), programs.map(lasting)), check)


def watched_by(client: Client, program: list[Any]) -> list[list[str]]:
    """Run a program, its watches in turn on several streams; return what each of them told, in the
    order of their creation."""
    base = emptied(client) - 1
    streams = [client.watch() for _ in range(3)]
    found: list[list[tuple[int, str]]] = []
    known = {}
    for name, request in program:
        if name != "watch":
            answer(client, name, request, base)
            continue
        which = len(found) % len(streams)
        moved = shifted(request, base)
        streams[which].send(create_request=moved)
        while not (created := streams[which].next()).created:
            found[known[which, created.watch_id][0]] += told(created, base)
        if not created.canceled:
            known[which, created.watch_id] = (len(found), moved)
        found.append(told(created, base))
    # Each watch sees one of these two events, unless it was cancelled or begins later. Nothing that
    # comes after them counts, as it may come too late.
    last = {}
    for watch, (_, request) in known.items():
        key = KeyRange.of(request.key or b"\0", request.range_end).first
        client.call("KV/Put", key=key, value=b"last")
        deleted = client.call("KV/DeleteRange", key=key).header.revision
        last[watch] = deleted - (1 in request.filters)
    open_ones = {
        watch for watch, (_, request) in known.items() if request.start_revision <= last[watch]
    }
    while open_ones:
        which = next(iter(open_ones))[0]
        answered = streams[which].next()
        watch = (which, answered.watch_id)
        found[known[watch][0]] += told(answered, base)
        revisions = [event.kv.mod_revision for event in answered.events]
        if answered.canceled or max(revisions) >= last[watch]:
            open_ones.discard(watch)
    for stream in streams:
        stream.close()
    ends = {number: last[watch] - base for watch, (number, _) in known.items()}
    return [
        # The events of one revision may come in any order.
        [
            text
            for revision, events in itertools.groupby(each, lambda event: event[0])
            for _, text in sorted(events)
            if revision <= ends.get(number, 0)
        ]
        for number, each in enumerate(found)
    ]


def test_watches(servers):
    """Each watch tells the same: its events in the order of revisions, its beginning and end."""

    def check(program: list[Any]) -> None:
        want, *others = (watched_by(each.client, program) for each in servers)
        for each, have in zip(servers[1:], others, strict=True):
            assert have == want, f"{each.name} differs from {servers[0].name}, seed {SEED}"

    tried(40, watched, check)
