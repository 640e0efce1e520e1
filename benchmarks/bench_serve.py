"""The etcd endpoint over memory and a sqlite file, beside a real etcd and a bare echo server of the
same transport, each in a process of its own, with one client in another."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import attrs

from benchmarks._figures import Figure
from benchmarks._serve_client import LISTED, VALUE
from revstore.config import StorageConfig
from revstore.plugins import open_backend
from revstore.testing.etcd import EtcdServer, find_etcd

__all__ = ["figures"]

ROUNDS = 3
CALLS = 600
CALLERS = 16
_TICK = os.sysconf("SC_CLK_TCK")
_SQLITE = "sqlite"

Result = dict[str, float]


@attrs.frozen
class Server:
    """Where a server listens, and its process, None if it is not known."""

    address: str
    pid: int | None = None

    def cpu(self) -> float:
        """The seconds of CPU that the process has used; 0 if that is not known."""
        if self.pid is None or not Path("/proc/self/stat").exists():
            return 0.0
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK


class Client:
    """The client's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def measure(self, server: Server, work: str, callers: int, calls: int) -> Result:
        """Let the client measure; "cpu" is what the server used for a call, in seconds."""
        before = server.cpu()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"address": server.address, "work": work, "callers": callers, "calls": calls}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        found: Result = json.loads(self._process.stdout.readline())
        return {**found, "cpu": (server.cpu() - before) / calls}


def figures() -> Iterator[Figure]:
    """All figures of this part."""
    # Beside the checkout, not in a temporary folder that may be memory: durability must cost.
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="bench-", dir=".") as name:
        folder = str(Path(name).resolve())

        def run(*words: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-m", *words],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        def serve(store: str) -> Server:
            listen = ("--listen", "127.0.0.1:0")
            process = run("revstore", "serve", *listen, "--store", store)
            assert process.stdout is not None
            line = process.stdout.readline()
            return Server(line.strip().removesuffix(".").rpartition(" ")[2], process.pid)

        found = find_etcd()
        etcd = stack.enter_context(EtcdServer(found[max(found)]))
        echo = run("benchmarks._serve_echo")
        assert echo.stdout is not None
        servers = {
            "etcd": Server(etcd.start().address),
            "echo": Server(echo.stdout.readline().strip(), echo.pid),
            "memory": serve("memory://"),
            _SQLITE: serve(f"sqlite:///{folder}/served.db?synchronous=FULL"),
        }
        client = Client(run("benchmarks._serve_client"))
        yield from _calls(client, servers)
        yield _alone(client, servers, folder)
        yield from _lists(client, servers)
        yield from _watches(client, servers)


def _measured(
    client: Client,
    servers: dict[str, Server],
    names: tuple[str, ...],
    work: str,
    callers: int,
    calls: int,
    rounds: int = ROUNDS,
) -> dict[str, Result]:
    """The medians of each server's measurements; the servers take turns."""
    results: dict[str, list[Result]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            results[name].append(client.measure(servers[name], work, callers, calls))
    return {
        name: {field: statistics.median(each[field] for each in of) for field in of[0]}
        for name, of in results.items()
    }


#: The least share of etcd's rate at 16 callers, on a file; and of the bare server's.
_OF_ETCD = {"create": 0.6, "get": 0.6, "update": 0.6, "delete": 0.6}
_OF_ECHO = {
    ("create", "memory"): 0.8,
    ("get", "memory"): 0.8,
    ("create", _SQLITE): 0.6,
    ("get", _SQLITE): 0.8,
}


def _calls(client: Client, servers: dict[str, Server]) -> Iterator[Figure]:
    for work in ("create", "get", "update", "delete", "event"):
        for callers in (1, CALLERS):
            # The bare server has no revisions and no watches.
            compared = ("echo",) if work in ("create", "get") else ()
            names = ("etcd", *compared, "memory", _SQLITE)
            found = _measured(client, servers, names, work, callers, CALLS)
            many = callers > 1
            title = "put to event" if work == "event" else work
            for store in ("memory", _SQLITE):
                name = f"serve {title}, {callers} caller{'s' * many}, {store}"
                target = _OF_ETCD.get(work) if many and store == _SQLITE else None
                yield Figure(
                    name=name,
                    value=found[store]["rate"],
                    unit="/s",
                    bound=found["etcd"]["rate"],
                    bound_name="etcd",
                    relation=">=",
                    target=target,
                )
                if "echo" not in found:
                    continue
                yield Figure(
                    name=name,
                    value=found[store]["rate"],
                    unit="/s",
                    bound=found["echo"]["rate"],
                    bound_name="a bare server",
                    relation=">=",
                    target=_OF_ECHO[work, store] if many else None,
                )
                if found[store]["cpu"]:
                    yield Figure(
                        name=f"{name}, CPU of the server",
                        value=found[store]["cpu"] * 1e6,
                        unit="us",
                        bound=found["echo"]["cpu"] * 1e6,
                        bound_name="a bare server",
                    )


def _alone(client: Client, servers: dict[str, Server], folder: str) -> Figure:
    """One create, beside a bare call and the store's own put."""
    url = f"sqlite:///{folder}/alone.db?synchronous=FULL"
    lags = []
    with open_backend(StorageConfig.from_url(url)) as backend:
        for number in range(CALLS):
            start = time.perf_counter()
            backend.put(f"/calls/{number}", VALUE, expected_revision=0)
            lags.append(time.perf_counter() - start)
    found = _measured(client, servers, ("echo", _SQLITE), "create", 1, CALLS)
    return Figure(
        name="serve create, 1 caller, sqlite, p50",
        value=found[_SQLITE]["p50"] * 1e3,
        unit="ms",
        bound=(found["echo"]["p50"] + statistics.median(lags)) * 1e3,
        bound_name="a bare call and the store's put",
        target=1.15,
    )


def _lists(client: Client, servers: dict[str, Server]) -> Iterator[Figure]:
    for work, title, target in (
        ("list", f"list of {LISTED:,} keys", 2.0),
        ("page", "page of 500", 1.5),
    ):
        found = _measured(client, servers, ("etcd", "echo", "memory", _SQLITE), work, 1, 10)
        for store in ("memory", _SQLITE):
            for bound, limit in (("etcd", target if store == _SQLITE else None), ("echo", None)):
                yield Figure(
                    name=f"serve {title}, {store}",
                    value=found[store]["p50"] * 1e3,
                    unit="ms",
                    bound=found[bound]["p50"] * 1e3,
                    bound_name="etcd" if bound == "etcd" else "a bare server",
                    target=limit,
                )


def _watches(client: Client, servers: dict[str, Server]) -> Iterator[Figure]:
    names = ("etcd", "memory", _SQLITE)

    def rates(
        title: str, work: str, callers: int, calls: int, target: Callable[[str], float | None]
    ) -> Iterator[Figure]:
        found = _measured(client, servers, names, work, callers, calls)
        for store in names[1:]:
            yield Figure(
                name=f"serve {title}, {store}",
                value=found[store]["rate"],
                unit="/s",
                bound=found["etcd"]["rate"],
                bound_name="etcd",
                relation=">=",
                target=target(store),
            )

    yield from rates("10,000 watches opened", "watches", 1, 10_000, lambda _: None)
    yield from rates("fan-out to 200", "fanout", 200, 200, lambda _: 0.5)
    found = _measured(client, servers, names[1:], "progress", 1, 200)
    for store in names[1:]:
        yield Figure(
            name=f"serve progress after a write, {store}, p99",
            value=found[store]["p99"] * 1e3,
            unit="ms",
            relation="<=",
            target=5.0,
            absolute=True,
        )
    found = _measured(client, servers, names, "lock", 1, 200)
    for store in names[1:]:
        yield Figure(
            name=f"serve lock and unlock, {store}",
            value=found[store]["p50"] * 1e3,
            unit="ms",
            bound=found["etcd"]["p50"] * 1e3,
            bound_name="etcd",
            target=1.5 if store == _SQLITE else None,
        )
