"""Requests to the servers of a cluster: failover, deadlines, credentials, and their end.

A request goes to the server that answered last. If it was certainly not sent, it goes to the next
server. If it may have been sent, it does so only if it is a read.
"""

from __future__ import annotations

import http.client
import ssl
import time
import weakref
from functools import partial

import attrs

from revstore.backend_tools import let_out
from revstore.config import StorageConfig
from revstore.errors import (
    AccessDenied,
    Closed,
    CorruptStore,
    StorageError,
    Timeout,
    Unreachable,
)
from revstore.threads import Wake
from revstore_etcd2._errors import (
    BadAnswer,
    MaybeSent,
    check_reply,
    is_passing,
    refused_by_tls,
    tls_advice,
)
from revstore_etcd2._http import Connection, HandshakeFailed, read_body
from revstore_etcd2._options import Etcd2Options
from revstore_etcd2._servers import Server, headers_of, servers_of
from revstore_etcd2._stream import Stream
from revstore_etcd2._wire import index_of

__all__ = ["KEY_LIMIT", "Client", "Reply"]

_POOL = 100
#: Bytes of an answer about one key. A value of 10 MiB, the most that the server accepts, becomes 20
#: if each character is escaped, and the value before it may be there too.
KEY_LIMIT = 64 << 20
_VERSION_LIMIT = 64 << 10
_VERSION_TIMEOUT = 2.0
#: The errors of a connection; the last two come from invalid sizes in an answer.
_BROKEN = (OSError, http.client.HTTPException, ValueError, OverflowError)


@attrs.frozen(slots=True)
class Reply:
    """An answer of the keys API: HTTP status, the store's index (0: none was given), the cluster,
    the body."""

    status: int
    index: int
    cluster: str
    body: bytes


@attrs.frozen(slots=True)
class _Request:
    """A request that must finish by ``deadline``, with an answer of at most ``limit`` bytes."""

    method: str
    url: str
    body: bytes | None
    deadline: float
    limit: int


class _NotSent(Exception):
    """There was no connection, so nothing was sent."""


class Client:
    """The servers, and the connections to each.

    It has no lock, so that an exception from a signal handler cannot leave one locked: ``_first``
    is a hint, and ``_active`` is changed and copied in single steps of the interpreter.
    """

    def __init__(self, config: StorageConfig, options: Etcd2Options) -> None:
        self.options = options
        self.closed = Wake()
        # Weakly: if a call was interrupted twice, nobody is left to remove its connection.
        self._active: set[weakref.ref[Connection]] = set()
        self._headers = headers_of(config)
        self._servers = servers_of(config)
        self._first = 0

    @property
    def servers(self) -> int:
        """The number of servers."""
        return len(self._servers)

    def call(
        self,
        method: str,
        url: str,
        *,
        body: str | None = None,
        timeout: float | None = None,
        idempotent: bool = True,
        limit: int = KEY_LIMIT,
    ) -> Reply:
        """Send a request and return the answer, even if it is an error of the keys API.

        Raises:
            Unreachable: nothing was done.
            AccessDenied: nothing was done.
            IncompatibleStore: nothing was done.
            Timeout: nothing was done.
            Closed: nothing was done.
            CorruptStore: the answer does not come from etcd, or has more than ``limit`` bytes.
            MaybeSent: instead of these, if the request is not ``idempotent`` and may have been
                done.
        """
        seconds = self.options.timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        count = len(self._servers)
        failure: Exception | None = None
        for attempt in range(2 * count):
            number = self._first
            left = deadline - time.monotonic()
            if left <= 0:
                break
            share = left if not idempotent else left / max(1, min(count, 2 * count - attempt))
            data = body.encode() if body is not None else None
            request = _Request(method, url, data, time.monotonic() + share, limit)
            found = self._attempt(self._servers[number], request, idempotent)
            if isinstance(found, Reply):
                return found
            failure = found
            self._first = (number + 1) % count
            self._check_open()
        if failure is None or deadline - time.monotonic() <= 0:
            raise Timeout(f"no answer within {seconds:g} s") from failure
        raise Unreachable(f"no server could be reached: {_text(failure)}") from failure

    def _attempt(self, server: Server, request: _Request, idempotent: bool) -> Reply | Exception:
        """Return the answer of one server, or an error if another server may be asked."""
        try:
            reply = self._send(server, request)
        except _NotSent as error:
            return error
        except Unreachable as error:
            let_out(error)
            return self._again(error, idempotent)
        except StorageError:  # AccessDenied is an OSError as well
            raise
        except BadAnswer as error:
            self._again(error, idempotent)
            raise CorruptStore(f"{server}: {error}") from error
        except _BROKEN as error:
            let_out(error)
            return self._again(error, idempotent)
        if idempotent and is_passing(reply.body, reply.status):
            return Unreachable(f"{server}: {reply.body[:200]!r}")
        return reply

    def _again(self, error: Exception, idempotent: bool) -> Exception:
        """Return ``error`` if the request may be sent again.

        Raises:
            MaybeSent: it must not be.
        """
        self._check_open()
        if not idempotent:
            raise MaybeSent(_text(error)) from error
        return error

    def _send(self, server: Server, request: _Request) -> Reply:
        status, headers, data = self._exchange(server, request)
        kind = headers.get("Content-Type") or ""
        check_reply(status, data, kind, lambda: self._version(server, request.deadline))
        index = index_of(headers.get("X-Etcd-Index") or "")
        return Reply(status, index, headers.get("X-Etcd-Cluster-Id") or "", data)

    def _exchange(
        self, server: Server, request: _Request
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Send one request and return its whole answer.

        Only after that is its connection used again: whatever is raised, by a signal handler too,
        closes it.
        """
        connection, fresh = self._connection(server, request.deadline)
        whole = False
        handle = self._enter(connection)
        try:
            self._check_open()
            connection.timed.deadline = request.deadline
            connection.request(
                request.method, request.url, body=request.body, headers=self._headers
            )
            response = connection.getresponse()
            data = read_body(response, request.limit)
            whole = not response.will_close
        except ssl.SSLError as error:
            # A server that refuses the client's certificate says so after the handshake.
            if fresh and refused_by_tls(error):
                raise AccessDenied(f"{server}: {tls_advice(error)}: {_text(error)}") from error
            raise
        finally:
            self._active.discard(handle)
            if not whole:
                connection.drop()
        self._keep(server, connection)
        return response.status, response.headers, data

    def _connection(self, server: Server, deadline: float) -> tuple[Connection, bool]:
        """Return a connection that nobody else uses, and whether it is new."""
        while server.idle:
            try:
                connection = server.idle.pop()
            except IndexError as error:  # another thread took it
                let_out(error)
                break
            if not connection.is_stale:
                return connection, False
            connection.drop()
        return self._dial(server, deadline), True

    def _enter(self, connection: Connection) -> weakref.ref[Connection]:
        """Let ``close`` cut the connection as long as it exists and the returned handle is in
        ``_active``."""
        handle = weakref.ref(connection, self._active.discard)
        self._active.add(handle)
        return handle

    def _dial(self, server: Server, deadline: float) -> Connection:
        self._check_open()
        dial = min(deadline, time.monotonic() + self.options.dial_timeout)
        address = server.address
        try:
            return Connection(address.host, address.port, server.context, deadline=dial)
        except (ssl.SSLError, HandshakeFailed) as error:
            if isinstance(error, ssl.SSLError) and refused_by_tls(error):
                raise AccessDenied(f"{server}: {tls_advice(error)}: {_text(error)}") from error
            raise _NotSent(f"TLS to {server} failed: {_text(error)}") from error
        except (OSError, ValueError) as error:
            let_out(error)
            raise _NotSent(f"{server}: {_text(error)}") from error

    def _keep(self, server: Server, connection: Connection) -> None:
        if connection.sock is None or len(server.idle) >= _POOL:
            connection.drop()
            return
        server.idle.append(connection)
        if self.closed.is_set():
            self._drop_idle()

    def open_stream(self, url: str, idle: float) -> Stream:
        """Open an answer whose body is still to come, from the first server that gives one.

        Reading it fails after ``idle`` seconds without data. It raises the errors of ``call``, and
        those of ``refusal`` if the server refuses.
        """
        failure: Exception | None = None
        for _ in self._servers:
            number = self._first
            server = self._servers[number]
            connection = None
            try:
                connection = self._dial(server, time.monotonic() + self.options.timeout)
                return self._begin(server, connection, url, idle)
            except BaseException as error:
                if connection is not None:
                    connection.drop()
                self._check_open()
                if isinstance(error, StorageError) and not isinstance(error, Unreachable):
                    raise
                if isinstance(error, BadAnswer):
                    raise CorruptStore(f"{server}: {error}") from error
                if not isinstance(error, (_NotSent, Unreachable, *_BROKEN)):
                    raise
                failure = error
                self._first = (number + 1) % len(self._servers)
        raise Unreachable(f"no server could be reached: {_text(failure)}") from failure

    def _begin(self, server: Server, connection: Connection, url: str, idle: float) -> Stream:
        handle = self._enter(connection)
        self._check_open()
        timed = connection.timed
        timed.deadline = time.monotonic() + self.options.timeout
        timed.idle = idle
        connection.request("GET", url, headers=self._headers)
        stream = Stream(connection, connection.getresponse(), partial(self._active.discard, handle))
        if stream.status != 200:
            kind = stream.headers.get("Content-Type") or ""
            data = stream.body()
            check_reply(stream.status, data, kind, lambda: self._version(server, timed.deadline))
            raise stream.refusal(data)
        return stream

    def failed(self, error: Exception) -> Unreachable:
        """Return the error for one that came while a stream was read.

        It makes the next server the current one, unless the stream was merely silent.
        """
        self._check_open()
        if not isinstance(error, TimeoutError):
            self._first = (self._first + 1) % len(self._servers)
        return Unreachable(f"the stream broke: {_text(error)}")

    def version(self) -> str:
        """Return the version that the server reports, "" if it reports none."""
        return self._version(self._servers[self._first], time.monotonic() + self.options.timeout)

    def _version(self, server: Server, deadline: float) -> str:
        deadline = min(deadline, time.monotonic() + _VERSION_TIMEOUT)
        try:
            request = _Request("GET", "/version", None, deadline, _VERSION_LIMIT)
            status, _, data = self._exchange(server, request)
        except (_NotSent, BadAnswer, *_BROKEN) as error:
            let_out(error)
            return ""
        return data.decode(errors="replace") if status == 200 else ""

    def _check_open(self) -> None:
        if self.closed.is_set():
            raise Closed("the backend is closed")

    def close(self) -> None:
        """Close idle connections, and cut those that calls wait on."""
        self.closed.set()
        for handle in list(self._active):
            connection = handle()
            if connection is not None:
                connection.cut()
        self._drop_idle()

    def _drop_idle(self) -> None:
        for server in self._servers:
            while server.idle:
                try:
                    server.idle.pop().drop()
                except IndexError as error:
                    let_out(error)
                    break


def _text(error: Exception | None) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:300]
