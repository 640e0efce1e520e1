"""What carries calls between clients and handlers. Handlers get messages and return messages, or
bytes."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from revstore.backend_tools import Log
from revstore_serve._errors import Code, Refused, refusal
from revstore_serve._proto import METHODS, Method

__all__ = [
    "AT_ONCE",
    "Stream",
    "StreamHandler",
    "UnaryHandler",
    "cannot_listen",
    "check_unused",
    "handlers",
    "let_wait",
    "parsed",
    "path_of",
    "refused_as",
    "serialized",
]

_log = Log("revstore.serve")

#: How many connections a listener accepts in a turn of the loop.
AT_ONCE = 2
_WAITING = 1024

# Messages may be nested 100 deep, which is the limit of protobuf's library, and a transaction
# within another one is two messages deeper.
_DEEPEST = 49


class Stream(Protocol):
    """A call in which the server, and perhaps the client, sends many messages."""

    async def read(self) -> Any:
        """Return the client's next message; None if it sends no more."""

    async def write(self, response: Any) -> None:
        """Send a message, or the bytes of one. Wait while the client does not read."""


UnaryHandler = Callable[[Any], Awaitable[Any]]
#: It gets the first request, if the client sends only one, else None.
StreamHandler = Callable[[Any, Stream], Awaitable[None]]


def handlers(
    unary: Mapping[str, UnaryHandler],
    streams: Mapping[str, StreamHandler],
    refused: Callable[[Method], Refused],
) -> Iterator[tuple[Method, UnaryHandler | None, StreamHandler | None]]:
    """Yield each method with the handler that it has in one of the mappings, by names as
    "KV/Range"; ``refused`` says what the methods answer that are not served."""
    for method in METHODS:
        name = f"{method.service.rpartition('.')[2]}/{method.name}"
        if method.service.startswith("grpc."):
            name = method.service + "/" + method.name
        if name in streams:
            yield method, None, streams[name]
        elif name in unary:
            yield method, unary[name], None
        elif not method.served:
            yield method, _refuse(refused(method)), None


def _refuse(refused: Refused) -> UnaryHandler:
    async def refuse(_: Any) -> Any:
        raise refused

    return refuse


def refused_as(method: Method, error: Exception) -> Refused:
    """Return the error that a client gets; one that is a defect is logged."""
    found = refusal(error)
    if found is None:
        _log.error("%s/%s failed", method.service, method.name, exc_info=error)
        found = Refused(Code.INTERNAL, f"revstore: {type(error).__name__} in {method.name}")
    return found


def parsed(method: Method, data: bytes) -> Any:
    """Return a client's message.

    Raises:
        Refused: it cannot be read.
    """
    try:
        return method.request.FromString(data)
    except DecodeError as error:
        if "depth" in str(error).lower():
            text = f"revstore: transactions are nested more than {_DEEPEST} deep"
            raise Refused(Code.INVALID_ARGUMENT, text) from error
        text = f"grpc: error unmarshalling request: {error}"
        raise Refused(Code.INTERNAL, text) from error


def serialized(response: Any) -> bytes:
    """Return the bytes of a message."""
    found: bytes = response if isinstance(response, bytes) else response.SerializeToString()
    return found


def cannot_listen(address: str, error: OSError | OverflowError) -> OSError:
    """Return the error for an address at which nobody can listen."""
    number = getattr(error, "errno", None) or 0
    # The loop's own text has the address once more. Numbers of name servers are negative.
    reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error
    return OSError(f"cannot listen on {address}: {reason}")


def let_wait(server: asyncio.Server) -> None:
    """Let many clients wait until a listener accepts them, ``AT_ONCE`` in a turn of the loop.

    By itself the loop accepts as many in one turn as may wait. All of them take files, before
    anybody can count or close them.
    """
    for each in server.sockets:
        with socket.fromfd(each.fileno(), each.family, each.type) as copy:
            copy.listen(_WAITING)


def path_of(address: str) -> str:
    """Return the path of an address "unix:PATH" or "unix:///PATH"."""
    path = address.removeprefix("unix:")
    return "/" + path.lstrip("/") if path.startswith("//") else path


def check_unused(path: str) -> None:
    """Check that nobody listens at ``path``.

    A socket that is there, as a server that was killed leaves it, is removed without a look.

    Raises:
        OSError: somebody does.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(path)
        except TimeoutError:
            pass
        except OSError:
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
