"""The JSON gateway of etcd: methods by paths, messages as proto3 JSON."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor

from revstore.backend_tools import Log
from revstore_serve._errors import Code, Refused, refusal
from revstore_serve._kv import InThread
from revstore_serve._proto import METHODS
from revstore_serve._transport import StreamHandler, UnaryHandler
from revstore_serve._users import CALLER, Caller

if TYPE_CHECKING:
    from revstore_serve._http import Chunks, Reply, Request

__all__ = ["Gateway"]

_log = Log("revstore.serve")

_PATHS = {
    "/v3/kv/range": "KV/Range",
    "/v3/kv/put": "KV/Put",
    "/v3/kv/deleterange": "KV/DeleteRange",
    "/v3/kv/txn": "KV/Txn",
    "/v3/kv/compaction": "KV/Compact",
    "/v3/lease/grant": "Lease/LeaseGrant",
    "/v3/lease/revoke": "Lease/LeaseRevoke",
    "/v3/kv/lease/revoke": "Lease/LeaseRevoke",
    "/v3/lease/timetolive": "Lease/LeaseTimeToLive",
    "/v3/kv/lease/timetolive": "Lease/LeaseTimeToLive",
    "/v3/lease/leases": "Lease/LeaseLeases",
    "/v3/kv/lease/leases": "Lease/LeaseLeases",
    "/v3/lease/keepalive": "Lease/LeaseKeepAlive",
    "/v3/auth/authenticate": "Auth/Authenticate",
    "/v3/auth/status": "Auth/AuthStatus",
    "/v3/watch": "Watch/Watch",
    "/v3/lock/lock": "Lock/Lock",
    "/v3/lock/unlock": "Lock/Unlock",
    "/v3/election/campaign": "Election/Campaign",
    "/v3/election/proclaim": "Election/Proclaim",
    "/v3/election/leader": "Election/Leader",
    "/v3/election/observe": "Election/Observe",
    "/v3/election/resign": "Election/Resign",
    "/v3/cluster/member/list": "Cluster/MemberList",
    "/v3/maintenance/alarm": "Maintenance/Alarm",
    "/v3/maintenance/defragment": "Maintenance/Defragment",
    "/v3/maintenance/hash": "Maintenance/Hash",
    "/v3/maintenance/status": "Maintenance/Status",
}

_METHODS = {
    f"{each.service.rpartition('.')[2]}/{each.name}": each
    for each in METHODS
    if not each.service.startswith("grpc.")
}

#: gRPC's number of each code, and the HTTP status that etcd's gateway gives it since 3.5.
_CODES = {
    Code.UNKNOWN: (2, 500),
    Code.INVALID_ARGUMENT: (3, 400),
    Code.DEADLINE_EXCEEDED: (4, 504),
    Code.NOT_FOUND: (5, 404),
    Code.PERMISSION_DENIED: (7, 403),
    Code.RESOURCE_EXHAUSTED: (8, 429),
    Code.FAILED_PRECONDITION: (9, 400),
    Code.OUT_OF_RANGE: (11, 400),
    Code.UNIMPLEMENTED: (12, 501),
    Code.INTERNAL: (13, 500),
    Code.UNAVAILABLE: (14, 503),
    Code.DATA_LOSS: (15, 500),
    Code.UNAUTHENTICATED: (16, 401),
}

_NUMBER = re.compile("-?[0-9]+")
_WHOLE = {
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
    FieldDescriptor.CPPTYPE_ENUM,
}
_LINE_ENDS = dict.fromkeys(map(ord, "\r\n"))

# Larger messages are turned into JSON in a thread.
_LARGE = 64 << 10


class Gateway:
    """Answers requests by the handlers of gRPC."""

    def __init__(
        self,
        unary: Mapping[str, UnaryHandler],
        streams: Mapping[str, StreamHandler],
        work: InThread,
    ) -> None:
        self._unary = unary
        self._streams = streams
        self._work = work

    def __contains__(self, path: str) -> bool:
        return path in _PATHS

    async def answer(self, request: Request, chunks: Chunks) -> Reply | None:
        """Answer a request for one of the paths."""
        from revstore_serve._http import Reply

        CALLER.set(Caller(request.authorization))
        name = _PATHS[request.path]
        if name in self._streams:
            return await self._serve(name, request, chunks)
        try:
            response = await self._unary[name](_first(name, request.body))
            if isinstance(response, bytes):
                response = _METHODS[name].response.FromString(response)
            text = await self._json(response)
        except Exception as error:  # noqa: BLE001 - every error has an answer
            return _failure(_refused(name, error))
        return Reply(200, text)

    async def _serve(self, name: str, request: Request, chunks: Chunks) -> Reply | None:
        """Answer with a line for each message. The client's messages are all in the body."""
        from revstore_serve._http import Reply

        try:
            method = _METHODS[name]
            many = method.streams[0]
            requests = list(_messages(name, request.body)) if many else []
            stream = _JsonStream(requests, method.response, chunks, self._json)
            first = None if many else _first(name, request.body)
            await self._streams[name](first, stream)
        except ConnectionError:
            raise  # nobody is there to be answered
        except Exception as error:  # noqa: BLE001 - every error has an answer
            refused = _refused(name, error)
            if not chunks.begun:
                return _failure(refused)
            number, status = _CODES[refused.code]
            failure = {
                "grpc_code": number,
                "http_code": status,
                "message": refused.text,
                "http_status": HTTPStatus(status).phrase,
            }
            await chunks.write(_dumped({"error": failure}) + b"\n")
        return None if chunks.begun else Reply(200, b"")

    async def _json(self, response: Any) -> bytes:
        def convert() -> bytes:
            return _dumped(json_format.MessageToDict(response, preserving_proto_field_name=True))

        if response.ByteSize() < _LARGE:
            return convert()
        found: bytes = await self._work(convert)
        return found


class _JsonStream:
    """A stream whose answers are lines of JSON."""

    def __init__(
        self,
        requests: Iterable[Any],
        response: Any,
        chunks: Chunks,
        convert: Callable[[Any], Awaitable[bytes]],
    ) -> None:
        self._requests = iter(requests)
        self._response = response
        self._chunks = chunks
        self._convert = convert

    async def read(self) -> Any:
        return next(self._requests, None)

    async def write(self, response: Any) -> None:
        if isinstance(response, bytes):
            response = self._response.FromString(response)
        text = await self._convert(response)
        await self._chunks.write(b'{"result":' + text + b"}\n")


def _messages(name: str, body: bytes) -> Iterator[Any]:
    """Yield the messages of a body.

    Raises:
        Refused: a message cannot be read.
    """
    kind = _METHODS[name].request
    decoder = json.JSONDecoder()
    try:
        text = body.decode().strip()
        while text:
            found, end = decoder.raw_decode(text)
            text = text[end:].lstrip()
            if not isinstance(found, dict | None):
                raise TypeError(f"a message is an object, not {type(found).__name__}")
            yield json_format.ParseDict(_known(found or {}, kind.DESCRIPTOR), kind())
    except (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(Code.INVALID_ARGUMENT, " ".join(str(error).split())) from error


def _first(name: str, body: bytes) -> Any:
    """Return the only message of a body; without one, a message without fields.

    Raises:
        Refused: it cannot be read.
    """
    return next(_messages(name, body), None) or _METHODS[name].request()


def _known(found: Any, descriptor: Any) -> Any:
    """Return an object without fields that the message does not have. The parser could ignore
    these, but would then ignore unknown names of enums too.

    Raises:
        ValueError: a value is not of its field's type. The parser would leave out what is not
            base64, cut off what follows the point of a number, and take digits of any language.
    """
    if not isinstance(found, dict):
        return found
    known = {}
    for name, value in found.items():
        field = descriptor.fields_by_name.get(name) or descriptor.fields_by_camelcase_name.get(name)
        if field is None:
            continue
        if isinstance(value, list):
            known[name] = [_converted(field, each) for each in value]
        else:
            known[name] = _converted(field, value)
    return known


def _converted(field: Any, value: Any) -> Any:
    """Return a value of a field as the parser takes it."""
    if field.message_type is not None:
        return _known(value, field.message_type)
    if value is None:
        return None
    if field.type == field.TYPE_BYTES:
        if not isinstance(value, str):
            raise ValueError(f"{field.name} is text in base64, not {json.dumps(value)[:80]}")
        # As etcd does: lines of base64 may have ends.
        value = value.translate(_LINE_ENDS)
        try:
            base64.b64decode(value, validate=True)
        except ValueError as error:
            raise ValueError(f"{field.name} is not in base64: {error}") from error
    elif field.cpp_type in _WHOLE:
        number = _NUMBER.fullmatch(value) if isinstance(value, str) else type(value) is int
        if not number and not (field.enum_type is not None and isinstance(value, str)):
            raise ValueError(f"{field.name} is a whole number, not {json.dumps(value)[:80]}")
    return value


def _refused(name: str, error: Exception) -> Refused:
    """Return the error that a client gets."""
    found = refusal(error)
    if found is None:
        _log.error("%s failed", name, exc_info=error)
        method = name.rpartition("/")[2]
        found = Refused(Code.INTERNAL, f"revstore: {type(error).__name__} in {method}")
    return found


def _failure(refused: Refused) -> Reply:
    from revstore_serve._http import Reply

    number, status = _CODES[refused.code]
    failure = {"error": refused.text, "message": refused.text, "code": number}
    return Reply(status, _dumped(failure))


def _dumped(found: Any) -> bytes:
    return json.dumps(found, separators=(",", ":")).encode()
