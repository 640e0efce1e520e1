"""The only module that knows gRPC. Handlers get messages and return messages, or bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc

from revstore.backend_tools import Log
from revstore_serve._errors import STOPPED, Code, Refused, refusal
from revstore_serve._proto import METHODS, Method

__all__ = ["Stream", "StreamHandler", "Transport", "UnaryHandler"]

_log = Log("revstore.serve")

_LARGEST_MESSAGE = 2 << 20

_OPTIONS = [
    ("grpc.max_receive_message_length", _LARGEST_MESSAGE),
    ("grpc.max_send_message_length", -1),
    # A second server on one port would take half of the calls.
    ("grpc.so_reuseport", 0),
    # Clients ask idle connections whether they live, as etcd allows; by default gRPC would end
    # such a connection after a while.
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),
    ("grpc.keepalive_permit_without_calls", 1),
]


class Stream:
    """A call in which the server, and perhaps the client, sends many messages."""

    def __init__(self, context: Any) -> None:
        self._context = context
        # gRPC sends one message at a time.
        self._writing = asyncio.Lock()

    async def read(self) -> Any:
        """Return the client's next message; None if it sends no more."""
        found = await self._context.read()
        return None if found is grpc.aio.EOF else found

    async def write(self, response: Any) -> None:
        """Send a message, or the bytes of one. Wait while the client does not read."""
        async with self._writing:
            await self._context.write(response)


UnaryHandler = Callable[[Any], Awaitable[Any]]
#: It gets the first request, if the client sends only one, else None.
StreamHandler = Callable[[Any, Stream], Awaitable[None]]


class Transport:
    """A server of gRPC on the running loop."""

    def __init__(
        self,
        unary: Mapping[str, UnaryHandler],
        streams: Mapping[str, StreamHandler],
        refused: Callable[[Method], Refused],
    ) -> None:
        """Serve the methods that have handlers, by names as "KV/Range"; ``refused`` says what
        the methods answer that are not served."""
        self._server = grpc.aio.server(options=_OPTIONS)
        self._ending = asyncio.get_running_loop().create_future()
        services: dict[str, dict[str, Any]] = {}
        for method in METHODS:
            name = f"{method.service.rpartition('.')[2]}/{method.name}"
            if method.service.startswith("grpc."):
                name = method.service + "/" + method.name
            if name in streams:
                handler = self._stream_handler(method, streams[name])
            elif name in unary:
                handler = _unary_handler(method, unary[name])
            elif not method.served:
                handler = _unary_handler(method, _refuse(refused(method)))
            else:
                continue
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
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from error
        await self._server.start()
        return int(port)

    async def stop(self, grace: float) -> None:
        """Accept no more calls, end streams, and end other calls that run longer than ``grace``
        seconds."""
        if not self._ending.done():
            self._ending.set_result(None)
        await self._server.stop(grace)

    def _stream_handler(self, method: Method, handler: StreamHandler) -> Any:
        async def call(request: Any, context: Any) -> None:
            first = None if method.streams[0] else request
            task = asyncio.ensure_future(handler(first, Stream(context)))
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
            call, request_deserializer=method.request.FromString, response_serializer=_serialized
        )


def _unary_handler(method: Method, handler: UnaryHandler) -> Any:
    async def call(request: Any, context: Any) -> Any:
        try:
            return await handler(request)
        except Exception as error:  # noqa: BLE001 - every error has an answer
            await _abort(context, method, error)

    return grpc.unary_unary_rpc_method_handler(
        call,
        request_deserializer=method.request.FromString,
        response_serializer=_serialized,
    )


def _serialized(response: Any) -> bytes:
    return response if isinstance(response, bytes) else response.SerializeToString()


def _refuse(refused: Refused) -> UnaryHandler:
    async def refuse(_: Any) -> Any:
        raise refused

    return refuse


async def _abort(context: Any, method: Method, error: Exception) -> None:
    """End a call with the status that an error means to clients."""
    if isinstance(error, grpc.aio.AbortError | asyncio.CancelledError):
        raise error
    found = refusal(error)
    if found is None:
        if context.done():
            return  # the client has gone, and gRPC says so
        _log.error("%s/%s failed", method.service, method.name, exc_info=error)
        found = Refused(Code.INTERNAL, f"revstore: {type(error).__name__} in {method.name}")
    await context.abort(grpc.StatusCode[found.code.name], found.text)
