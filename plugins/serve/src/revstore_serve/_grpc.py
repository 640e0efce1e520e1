"""gRPC by its own library, the only module that knows it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc

from revstore_serve._errors import PERMISSION_DENIED, STOPPED, Refused, refusal
from revstore_serve._handshakes import PATIENCE
from revstore_serve._proto import Method
from revstore_serve._tls import Pem, Tls
from revstore_serve._transport import (
    StreamHandler,
    UnaryHandler,
    check_unused,
    handlers,
    parsed,
    path_of,
    refused_as,
    serialized,
)
from revstore_serve._users import CALLER, Caller

__all__ = ["Transport"]

_LARGEST_MESSAGE = 2 << 20
# Seconds that streams have to end with a reason, even if other calls have none.
_PATIENCE = 1.0


def _is_news(record: logging.LogRecord) -> bool:
    """Return False for a client that has gone while an answer was sent to it, which gRPC logs as
    an error with a traceback."""
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__name__ != "ExecuteBatchError"


logging.getLogger("grpc._cython.cygrpc").addFilter(_is_news)

_OPTIONS = [
    ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
    ("grpc.max_send_message_length", -1),
    # A second server on one port would take half of the calls.
    ("grpc.so_reuseport", 0),
    # Clients ask idle connections whether they live, as etcd allows; by default gRPC would end
    # such a connection after a while.
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A client that does not begin, with TLS or with its settings, is gone after this.
    ("grpc.server_handshake_timeout_ms", int(PATIENCE * 1000)),
    # A client that is gone without a word, as when a cable is pulled, is noticed by this.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
]


class _GrpcStream:
    def __init__(self, method: Method, context: Any) -> None:
        self._method = method
        self._context = context
        # gRPC sends one message at a time.
        self._writing = asyncio.Lock()

    async def read(self) -> Any:
        found = await self._context.read()
        return None if found is grpc.aio.EOF else parsed(self._method, found)

    async def write(self, response: Any) -> None:
        async with self._writing:
            await self._context.write(response)


_Call = Callable[[Any, Any], Awaitable[Any]]


class Transport:
    """A server of gRPC on the running loop."""

    def __init__(
        self,
        unary: Mapping[str, UnaryHandler],
        streams: Mapping[str, StreamHandler],
        refused: Callable[[Method], Refused],
        tls: Tls | None = None,
        *,
        most_connections: int,
        identify: bool = False,
    ) -> None:
        """Serve the methods that have handlers, by names as "KV/Range"; ``refused`` says what
        the methods answer that are not served. Without ``tls``, connections are plaintext. With
        ``identify``, handlers learn from ``CALLER`` who calls."""
        self._tls = tls
        self._identify = identify
        limit = ("grpc.max_allowed_incoming_connections", most_connections)
        self._server = grpc.aio.server(options=[*_OPTIONS, limit])
        self._ending = asyncio.get_running_loop().create_future()
        self._streams: set[asyncio.Task[Any]] = set()
        services: dict[str, dict[str, Any]] = {}
        for method, answer, follow in handlers(unary, streams, refused):
            if follow is not None:
                handler = self._stream_handler(method, follow)
            else:
                assert answer is not None
                handler = self._unary_handler(method, answer)
            services.setdefault(method.service, {})[method.name] = handler
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(*each) for each in services.items()]
        )

    async def start(self, address: str) -> int:
        """Listen on an address, and return the port, which is 0 for a socket of the file system.

        Raises:
            OSError: nobody can listen there.
        """
        try:
            if address.startswith("unix:"):
                check_unused(path_of(address))
            if self._tls is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, _credentials(self._tls))
        except (RuntimeError, OSError) as error:
            raise OSError(f"cannot listen on {address}: {error}") from error
        await self._server.start()
        return int(port)

    async def stop(self, grace: float) -> None:
        """End streams, accept no more calls, and end other calls that run longer than ``grace``
        seconds."""
        if not self._ending.done():
            self._ending.set_result(None)
        # Once gRPC has begun to stop, it may end a stream without the reason.
        loop = asyncio.get_running_loop()
        end = loop.time() + grace
        if self._streams:
            await asyncio.wait(self._streams, timeout=max(grace, _PATIENCE))
        await self._server.stop(max(end - loop.time(), 0))

    def _stream_handler(self, method: Method, handler: StreamHandler) -> Any:
        async def follow(request: Any, context: Any) -> None:
            first = None if method.streams[0] else parsed(method, request)
            await handler(first, _GrpcStream(method, context))

        async def call(request: Any, context: Any) -> None:
            own = asyncio.current_task()
            assert own is not None
            self._streams.add(own)
            own.add_done_callback(self._streams.discard)
            task = asyncio.ensure_future(follow(request, context))
            try:
                await asyncio.wait({task, self._ending}, return_when=asyncio.FIRST_COMPLETED)
                if not task.done():
                    raise Refused(*STOPPED)
                task.result()
            except Exception as error:  # noqa: BLE001 - every error has an answer
                await _abort(context, method, error)
            finally:
                task.cancel()
                await asyncio.wait({task})

        make = (
            grpc.stream_stream_rpc_method_handler
            if method.streams[0]
            else grpc.unary_stream_rpc_method_handler
        )
        return make(
            self._admitting(self._identifying(call)),
            response_serializer=serialized,
        )

    def _unary_handler(self, method: Method, handler: UnaryHandler) -> Any:
        async def call(request: Any, context: Any) -> Any:
            try:
                return await handler(parsed(method, request))
            except Exception as error:  # noqa: BLE001 - every error has an answer
                await _abort(context, method, error)

        return grpc.unary_unary_rpc_method_handler(
            self._admitting(self._identifying(call)),
            response_serializer=serialized,
        )

    def _identifying(self, call: _Call) -> _Call:
        """Return a call that notes who makes it."""
        if not self._identify:
            return call
        certified = self._tls is not None and self._tls.first.client_ca is not None

        async def identifying(request: Any, context: Any) -> Any:
            CALLER.set(_caller(context, certified=certified))
            return await call(request, context)

        return identifying

    def _admitting(self, call: _Call) -> _Call:
        """Return a call that refuses clients whose certificate has other names."""
        tls = self._tls
        if tls is None or not tls.selective:
            return call

        async def admitting(request: Any, context: Any) -> Any:
            found = context.auth_context()
            kinds = ("x509_common_name", "x509_subject_alternative_name")
            if not tls.admits(
                *([name.decode(errors="replace") for name in found.get(kind, ())] for kind in kinds)
            ):
                code, text = PERMISSION_DENIED
                await context.abort(grpc.StatusCode[code.name], text)
            return await call(request, context)

        return admitting


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    """Return credentials that each new connection takes from the files as they are then."""

    def configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(pem.key, pem.cert)], pem.client_ca)

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        pem = tls.changed()
        return None if pem is None else configuration(pem)

    return grpc.dynamic_ssl_server_credentials(
        configuration(tls.first), fetch, tls.first.client_ca is not None
    )


def _caller(context: Any, *, certified: bool) -> Caller:
    # Pairs come in the order in which they were sent, and the first of a name counts.
    found = dict(reversed(context.invocation_metadata() or ()))
    token = found.get("token", found.get("authorization"))
    names = context.auth_context().get("x509_common_name", ()) if certified else ()
    return Caller(token, next((name.decode(errors="replace") for name in names), None))


async def _abort(context: Any, method: Method, error: Exception) -> None:
    """End a call with the status that an error means to clients."""
    if isinstance(error, grpc.aio.AbortError | asyncio.CancelledError):
        raise error
    if refusal(error) is None and context.done():
        return  # the client has gone, and gRPC says so
    found = refused_as(method, error)
    await context.abort(grpc.StatusCode[found.code.name], found.text)
