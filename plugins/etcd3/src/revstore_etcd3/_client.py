"""Calls to a cluster: deadlines, failover to the next server, tokens."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from revstore.backend_tools import OpenGuard, server_addresses, tls_files
from revstore.config import StorageConfig
from revstore.errors import (
    AccessDenied,
    BackendError,
    ConfigError,
    OutcomeUnknown,
    Timeout,
    Unreachable,
)
from revstore_etcd3._errors import Fate, fate_of, translate
from revstore_etcd3._forks import OpenStream, calling
from revstore_etcd3._identity import StoreIdentity
from revstore_etcd3._options import Etcd3Options
from revstore_etcd3._wire import RpcError, Server, code_of, details_of, rpc_pb2

__all__ = ["Client", "Method", "left_of"]

#: Picks the stub of a call from a server.
Method = Callable[[Server], Callable[..., Any]]

# Seconds between two rounds over the servers.
_PAUSE = 0.05
# How many times dial_timeout a call tries to connect before it gives up.
_DIALS = 2
_PORT = 2379


class Client:
    """The servers of one cluster. Every method may be called from many threads."""

    def __init__(self, config: StorageConfig, options: Etcd3Options) -> None:
        self._options = options
        #: That of the backend, which closes the client.
        self.guard = OpenGuard(self)
        if config.tls_enabled and config.insecure_skip_verify:
            raise ConfigError(
                "insecure_skip_verify", True, "false: grpc always verifies certificates"
            )
        tls = tls_files(config)
        password = config.read_password()
        self.user = config.username
        self._password = password.reveal() if password is not None else ""
        self.servers = [
            Server(
                str(address),
                tls,
                dial_timeout=options.dial_timeout,
                keepalive_time=options.keepalive_time,
                keepalive_timeout=options.keepalive_timeout,
            )
            for address in server_addresses(config, _PORT)
        ]
        self.stopping = threading.Event()
        self.identity = StoreIdentity()
        self._lock = threading.Lock()  # guards _current and _token
        self._current = 0
        self._token = ""

    @property
    def addresses(self) -> str:
        return ",".join(server.title for server in self.servers)

    def close(self) -> None:
        self.stopping.set()
        for server in self.servers:
            server.close()

    def check_open(self) -> None:
        """Check that the client may be used.

        Raises:
            Closed: after ``close``, and in a child after a fork.
            IncompatibleStore: the store has been replaced.
        """
        self.guard.check()
        self.identity.check()

    def read(self, method: Method, request: Any, timeout: float) -> Any:
        """Send a request that may be repeated: to each server in turn, until one answers."""
        deadline = time.monotonic() + timeout
        give_up = time.monotonic() + _DIALS * self._options.dial_timeout
        failed: BackendError | None = None
        refused: set[Server] = set()
        for server, share in self._turns(deadline):
            try:
                until = min(deadline, time.monotonic() + share)
                return self._call(server, method, request, until)
            except RpcError as error:
                fate, kind = fate_of(code_of(error), details_of(error))
                failed = translate(code_of(error), details_of(error), server.title)
                failed = self._with_user(
                    failed, error, getattr(request, "key", b"").decode(errors="replace")
                )
                failed.__cause__ = error
                if fate is Fate.STALE_TOKEN:
                    self._forget_token()
                elif fate is Fate.REFUSED or kind is BackendError:
                    raise failed from error
                else:
                    self._refuse(server, failed, refused)
                    self._leave(server)
                if fate is Fate.NEVER_SENT and time.monotonic() > give_up:
                    break  # nobody answers: the caller should know
        raise _too_late(failed, self.addresses)

    def write(
        self, method: Method, request: Any, timeout: float, *, key: str, expected: int
    ) -> Any:
        """Send a request that must be done only once: repeat it only if it certainly did
        nothing."""
        deadline = time.monotonic() + timeout
        give_up = time.monotonic() + _DIALS * self._options.dial_timeout
        failed: BackendError | None = None
        refused: set[Server] = set()
        for server, share in self._turns(deadline):
            with self._open_channel(server):
                trouble = server.connect(min(share, self._options.dial_timeout))
            if trouble is not None:
                failed = self._no_connection(server, trouble)
                self._refuse(server, failed, refused)
                self._leave(server)
                if time.monotonic() > give_up:
                    break
                continue
            metadata: list[tuple[str, str]] | None = None
            try:
                with self._open_channel(server):
                    metadata = self.credentials(server, left_of(deadline))
                    return method(server)(request, timeout=left_of(deadline), metadata=metadata)
            except RpcError as error:
                code, details = code_of(error), details_of(error)
                fate, _ = fate_of(code, details)
                if fate is Fate.UNKNOWN and metadata is not None:
                    self._leave(server)
                    self.check_open()
                    raise OutcomeUnknown(key, expected, details or code) from error
                # If the login fails, nothing was written.
                failed = self._with_user(translate(code, details, server.title), error, key)
                failed.__cause__ = error
                if fate is Fate.STALE_TOKEN:
                    self._forget_token()
                elif fate is Fate.REFUSED:
                    raise failed from error
                else:
                    self._leave(server)
        raise _too_late(failed, self.addresses)

    def stream(
        self, requests: Iterator[Any], timeout: float | None = None
    ) -> tuple[OpenStream, Server]:
        """Open a watch stream at the current server, which must have a leader.

        The stream ends after ``timeout`` seconds, if given.
        """
        server = self._server()
        with self._open_channel(server):
            token = self.credentials(server, self._options.dial_timeout)
            metadata = [("hasleader", "true"), *token]
            call = server.watch.Watch(requests, timeout=timeout, metadata=metadata)
            return OpenStream(call), server

    def stream_failed(self, server: Server, error: Exception) -> None:
        """Have the next stream go to another server, with another token."""
        self._leave(server)
        fate, _ = fate_of(code_of(error), details_of(error))
        if fate is Fate.STALE_TOKEN:
            self._forget_token()

    def _turns(self, deadline: float) -> Iterator[tuple[Server, float]]:
        """Yield the current server, again and again, with the seconds that it may take.

        A call that fails leaves its server, so that another one becomes the current one.
        """
        tries = 0
        while True:
            self.check_open()
            left = deadline - time.monotonic()
            if left <= 0 and tries:
                return
            others = len(self.servers) - 1
            share = max(0.001, left if not others else min(left, max(1.0, left / (others + 1))))
            yield self._server(), share
            tries += 1
            if tries % len(self.servers) == 0:
                self.stopping.wait(min(_PAUSE, max(0.0, deadline - time.monotonic())))

    def _call(self, server: Server, method: Method, request: Any, deadline: float) -> Any:
        with self._open_channel(server):
            metadata = self.credentials(server, left_of(deadline))
            return method(server)(request, timeout=left_of(deadline), metadata=metadata)

    @contextlib.contextmanager
    def _open_channel(self, server: Server) -> Iterator[None]:
        """Enter a block in which the process does not fork; if the channel is closed there, calls
        raise ``ValueError``."""
        try:
            with calling():
                yield
        except ValueError as error:
            self.check_open()
            raise BackendError(f"etcd at {server.title}: {error}") from error

    def _with_user(self, failed: BackendError, error: Exception, key: str) -> BackendError:
        """Return the error, with the user and the missing role if that is the reason."""
        if code_of(error) != "PERMISSION_DENIED" or not key:
            return failed
        return AccessDenied(f"{failed}: the roles of user {self.user!r} do not cover {key!r}")

    def _no_connection(self, server: Server, error: Exception) -> BackendError:
        """Return the error that says why there is no connection."""
        if code_of(error) == "UNAVAILABLE":
            failed = translate(code_of(error), details_of(error), server.title)
        else:
            failed = Unreachable(f"etcd at {server.title}: no connection")
        failed.__cause__ = error
        return failed

    def _refuse(self, server: Server, failed: BackendError, refused: set[Server]) -> None:
        """Raise ``failed`` if TLS has failed with every server, ``refused`` so far: then waiting
        does not help."""
        if isinstance(failed, AccessDenied):
            server.renew()
            refused.add(server)
            if len(refused) == len(self.servers):
                raise failed

    def _server(self) -> Server:
        with self._lock:
            return self.servers[self._current]

    def _leave(self, server: Server) -> None:
        server.lost()
        with self._lock:
            if self.servers[self._current] is server:
                self._current = (self._current + 1) % len(self.servers)

    def credentials(self, server: Server, timeout: float) -> list[tuple[str, str]]:
        """Return the metadata of each request: a token, if there is a user."""
        if not self.user:
            return []
        with self._lock:
            token = self._token
        if not token:
            try:
                token = self._authenticate(server, timeout)
            except RpcError as error:
                # The frames hold the password, which tools that record local variables would show.
                raise error.with_traceback(None) from None
            if not token:
                raise AccessDenied(f"etcd at {server.title} returned no token")
            with self._lock:
                self._token = token
        return [("token", token)]

    def _authenticate(self, server: Server, timeout: float) -> str:
        request = rpc_pb2.AuthenticateRequest(name=self.user, password=self._password)
        token: str = server.auth.Authenticate(request, timeout=timeout).token
        return token

    def _forget_token(self) -> None:
        with self._lock:
            self._token = ""


def left_of(deadline: float) -> float:
    """Return the seconds until ``deadline``; if it has passed, a short time, since grpc needs
    one."""
    return max(0.001, deadline - time.monotonic())


def _too_late(failed: BackendError | None, addresses: str) -> BackendError:
    if failed is None:
        return Timeout(f"etcd at {addresses}: the deadline passed")
    if isinstance(failed, (Timeout, AccessDenied)):
        return failed
    error = Unreachable(str(failed))
    error.__cause__ = failed
    return error
