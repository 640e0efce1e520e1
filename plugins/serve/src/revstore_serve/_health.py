"""gRPC's health service, for load balancers and probes."""

from __future__ import annotations

import asyncio
from typing import Any

from revstore_serve._proto import message
from revstore_serve._transport import Stream

__all__ = ["Health"]

_SERVING, _NOT_SERVING = 1, 2


class Health:
    """The health of the endpoint: it serves until it is about to stop."""

    def __init__(self) -> None:
        self._stopping = asyncio.Event()

    async def check(self, _: Any) -> Any:
        return self._answer()

    async def watch(self, _: Any, stream: Stream) -> None:
        await stream.write(self._answer())
        await self._stopping.wait()
        await stream.write(self._answer())

    @property
    def stopping(self) -> bool:
        """Whether the endpoint is about to stop."""
        return self._stopping.is_set()

    def stop(self) -> None:
        """Report from now on that the endpoint does not serve."""
        self._stopping.set()

    def _answer(self) -> Any:
        status = _NOT_SERVING if self.stopping else _SERVING
        return message("HealthCheckResponse", "grpc.health.v1")(status=status)
