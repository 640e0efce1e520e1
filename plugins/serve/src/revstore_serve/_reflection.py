"""gRPC's service of reflection, by which tools learn the services and messages of a server."""

from __future__ import annotations

from typing import Any

from revstore_serve._proto import METHODS, file_named, file_with, message
from revstore_serve._transport import Stream

__all__ = ["Reflection"]

_NOT_FOUND = 5


class Reflection:
    """The service in one of its packages, which differ in their names only."""

    def __init__(self, package: str) -> None:
        self._response = message("ServerReflectionResponse", package)

    async def serve(self, _: Any, stream: Stream) -> None:
        """Answer each request of a client's stream."""
        while (request := await stream.read()) is not None:
            response = self._response(valid_host=request.host, original_request=request)
            try:
                _answer(request, response)
            except KeyError:
                response.error_response.error_code = _NOT_FOUND
                response.error_response.error_message = "not found"
            await stream.write(response)


def _answer(request: Any, response: Any) -> None:
    """Fill in an answer. Raise ``KeyError`` if it is not known."""
    kind = request.WhichOneof("message_request")
    if kind == "list_services":
        for name in sorted({each.service for each in METHODS if each.served}):
            response.list_services_response.service.add(name=name)
    elif kind == "all_extension_numbers_of_type":
        # Messages of proto3 have no extensions.
        name = request.all_extension_numbers_of_type
        file_with(name)
        response.all_extension_numbers_response.base_type_name = name
    else:
        found = {
            "file_by_filename": file_named,
            "file_containing_symbol": file_with,
        }[kind](getattr(request, kind))
        for file in (*found.dependencies, found):
            response.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)
