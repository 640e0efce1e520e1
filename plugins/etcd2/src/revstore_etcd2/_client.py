"""Requests to the servers of a cluster: failover, deadlines, credentials, and their end.

A request goes to the server that answered last. One that provably did not leave goes to the next
server; one that may have left only if it is a read.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any

import attrs
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ReadTimeoutError,
    SSLError,
)

from revstore.backend_tools import server_addresses, tls_files
from revstore.config import StorageConfig
from revstore.errors import AccessDenied, Closed, ConfigError, Timeout, Unreachable
from revstore_etcd2._errors import MaybeSent, check_reply, is_passing
from revstore_etcd2._options import Etcd2Options

__all__ = ["Client", "Reply"]

_POOL = 100


@attrs.frozen(slots=True)
class Reply:
    """An answer of the keys API: HTTP status, the store's index, the cluster, the body."""

    status: int
    index: int
    cluster: str
    body: bytes


class Client:
    """The servers, and a pool of connections to each.

    ``_first`` is read and set without a lock: any value of it will do.
    """

    def __init__(self, config: StorageConfig, options: Etcd2Options) -> None:
        self.options = options
        self.closed = threading.Event()
        # Not the connections: of an answer that ends with its connection, only the answer has it.
        self._opened: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._opened_lock = threading.Lock()
        self._headers = _headers(config)
        self._pools = _pools(config, self._track)
        self._first = 0

    @property
    def servers(self) -> int:
        """How many servers there are."""
        return len(self._pools)

    def _track(self, sock: socket.socket) -> None:
        with self._opened_lock:
            self._opened.add(sock)
        if self.closed.is_set():
            _cut(sock)

    def call(
        self,
        method: str,
        url: str,
        *,
        body: str | None = None,
        timeout: float | None = None,
        idempotent: bool = True,
    ) -> Reply:
        """Send a request and return what was answered, an error of the keys API included.

        ``Unreachable``, ``AccessDenied``, ``IncompatibleStore``; ``Timeout``; ``MaybeSent`` if it
        is not ``idempotent`` and nobody knows what became of it; ``Closed``.
        """
        seconds = self.options.timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        count = len(self._pools)
        failure: Exception | None = None
        for attempt in range(2 * count):
            number = self._first
            left = deadline - time.monotonic()
            if left <= 0:
                break
            share = left if not idempotent else left / max(1, min(count, 2 * count - attempt))
            try:
                reply = self._send(number, method, url, body, left=left, share=share)
                if idempotent and is_passing(reply.body, reply.status):
                    raise Unreachable(f"{self._pools[number].host}: {reply.body[:200]!r}")
                return reply
            except AccessDenied:  # an OSError, too
                raise
            except (HTTPError, OSError, Unreachable) as error:
                failure = error
                self._first = (number + 1) % count
                self._judge(error, idempotent)
        self._check_open()
        if failure is None or deadline - time.monotonic() <= 0:
            raise Timeout(f"no answer within {seconds:g} s") from failure
        raise Unreachable(f"no server could be reached: {_text(failure)}") from failure

    def _judge(self, error: Exception, idempotent: bool) -> None:
        """Raise if ``error`` must not be followed by another attempt."""
        self._check_open()
        if isinstance(error, SSLError) and _refused(error):
            raise AccessDenied(f"{_tls_advice(str(error))}: {_text(error)}") from error
        never_sent = isinstance(error, NewConnectionError | ConnectTimeoutError | SSLError)
        if not idempotent and not never_sent:
            raise MaybeSent(_text(error)) from error

    def _send(
        self, number: int, method: str, url: str, body: str | None, *, left: float, share: float
    ) -> Reply:
        self._check_open()
        response = self._pools[number].urlopen(
            method,
            url,
            body=body,
            headers=self._headers,
            retries=False,
            redirect=False,
            timeout=urllib3.Timeout(connect=min(left, self.options.dial_timeout), read=share),
        )
        headers = response.headers
        reply = Reply(
            response.status,
            int(headers.get("X-Etcd-Index") or 0),
            headers.get("X-Etcd-Cluster-Id") or "",
            response.data,
        )
        check_reply(reply.status, reply.body, headers.get("Content-Type") or "", self.version)
        return reply

    def open_stream(self, url: str, idle: float) -> urllib3.BaseHTTPResponse:
        """A response whose body is still to come: of the first server that gives one. Reading
        fails after ``idle`` seconds without anything. Errors as ``call``, and what reading it
        raises is urllib3's; ``failed`` turns it into one of ours."""
        failure: Exception | None = None
        for _ in self._pools:
            number = self._first
            try:
                self._check_open()
                response = self._pools[number].urlopen(
                    "GET",
                    url,
                    headers=self._headers,
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    timeout=urllib3.Timeout(connect=self.options.dial_timeout, read=idle),
                )
                if response.status != 200:
                    kind = response.headers.get("Content-Type") or ""
                    check_reply(response.status, response.data, kind, self.version)
                return response
            except AccessDenied:  # an OSError, too
                raise
            except (HTTPError, OSError) as error:
                failure = error
                self._first = (number + 1) % len(self._pools)
                self._judge(error, True)
        self._check_open()
        raise Unreachable(f"no server could be reached: {_text(failure)}") from failure

    def failed(self, error: Exception) -> Unreachable:
        """The error for one that came while a stream was read; the next server's turn it is,
        unless the stream was merely silent."""
        self._check_open()
        if not isinstance(error, ReadTimeoutError):
            self._first = (self._first + 1) % len(self._pools)
        return Unreachable(f"the stream broke: {_text(error)}")

    def version(self) -> str:
        """The server's own word for its version, "" if it does not say."""
        try:
            response = self._pools[self._first].urlopen(
                "GET", "/version", headers=self._headers, retries=False, timeout=2.0
            )
        except (HTTPError, OSError):
            return ""
        return response.data.decode(errors="replace") if response.status == 200 else ""

    def _check_open(self) -> None:
        if self.closed.is_set():
            raise Closed("the backend is closed")

    def close(self) -> None:
        """Close idle connections, and cut those that calls wait on."""
        self.closed.set()
        for pool in self._pools:
            pool.close()
        with self._opened_lock:
            opened = list(self._opened)
        for sock in opened:
            _cut(sock)


def _cut(sock: socket.socket) -> None:
    # Not SSLSocket.shutdown: it takes TLS away from under the thread that reads.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _text(error: Exception | None) -> str:
    return " ".join(str(error).split())[:300]


def _refused(error: SSLError) -> bool:
    text = str(error).lower()
    return "certificate" in text or "alert" in text or "handshake" in text


def _tls_advice(text: str) -> str:
    if "mismatch" in text:
        return "the server's certificate is for another host: check server_list and ca_file"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "the server's certificate is not trusted: check ca_file"
    if "ALERT" in text:
        return "the client's certificate is missing or not accepted: check cert_file and key_file"
    return "TLS failed"


def _headers(config: StorageConfig) -> Mapping[str, str]:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if config.username:
        password = config.read_password()
        secret = password.reveal() if password else ""
        headers |= urllib3.make_headers(basic_auth=f"{config.username}:{secret}")
    return headers


def _context(config: StorageConfig) -> ssl.SSLContext | None:
    if tls_files(config) is None:
        return None
    try:
        context = ssl.create_default_context(cafile=config.ca_file or None)
        if config.cert_file:
            context.load_cert_chain(config.cert_file, config.key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            "ca_file", config.ca_file or config.cert_file, f"usable PEM files: {error}"
        ) from error
    # Python 3.13 verifies more strictly by default. A cluster's CA is not the client's choice: what
    # etcd and its clients accept is accepted on every version, such as a CA without key usage, or
    # an intermediate CA alone in ca_file. Chain and host name are always verified.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if config.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _pools(config: StorageConfig, track: Any) -> list[urllib3.HTTPConnectionPool]:
    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            track(self.sock)

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            # Warned of once, at opening, and not with each request.
            self.is_verified = self.is_verified or config.insecure_skip_verify
            track(self.sock)

    context = _context(config)
    pools = []
    for address in server_addresses(config, 2379):
        pool: urllib3.HTTPConnectionPool
        if context is not None:
            pool = urllib3.HTTPSConnectionPool(
                address.host, address.port, maxsize=_POOL, ssl_context=context
            )
            pool.ConnectionCls = Secure
        else:
            pool = urllib3.HTTPConnectionPool(address.host, address.port, maxsize=_POOL)
            pool.ConnectionCls = Plain
        pools.append(pool)
    return pools
