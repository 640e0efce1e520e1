"""The pages of the second listener: health, version, metrics, and those of the gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import attrs

from revstore.errors import ConfigError, StorageError
from revstore_serve._cluster import Cluster
from revstore_serve._errors import STOPPED, Refused, refusal
from revstore_serve._gateway import Gateway
from revstore_serve._health import Health
from revstore_serve._kv import InThread
from revstore_serve._metrics import Metrics
from revstore_serve._proto import message
from revstore_serve._tls import Tls
from revstore_serve._transport import UnaryHandler

if TYPE_CHECKING:
    from revstore_serve._http import Chunks, HttpServer, Reply, Request

__all__ = ["Pages", "http_server"]

# Seconds that a probe waits for the store.
_PATIENCE = 5.0
_TEXT = "text/plain; charset=utf-8"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"


def http_server(
    address: str, pages: Pages, tls: Tls | None, most_connections: int
) -> tuple[HttpServer, str]:
    """Return a server of the pages that does not listen yet, and the host of the address.

    Raises:
        ConfigError: the address is none, or the library is not installed.
    """
    try:
        from revstore_serve._http import HttpServer, split
    except ImportError as error:
        if error.name != "h11":
            raise
        expected = "nothing without h11; try: pip install 'revstore-serve[http]'"
        raise ConfigError("http", address, expected) from error
    split(address)
    return HttpServer(pages.answer, tls, most_connections), address.rpartition(":")[0]


_Page = Callable[[], Awaitable[tuple[int, str, str]]]


def _json(found: dict[str, str]) -> str:
    # Without spaces, as etcd writes it: scripts look for the text.
    return json.dumps(found, separators=(",", ":"))


@attrs.frozen
class Pages:
    """The pages. ``range`` is the handler of ranges, which probes use."""

    cluster: Cluster
    health: Health
    range: UnaryHandler
    metrics: Metrics
    gateway: Gateway
    work: InThread

    async def answer(self, request: Request, chunks: Chunks) -> Reply | None:
        """Answer a request."""
        from revstore_serve._http import Reply

        if request.path.startswith("/v3/"):
            if request.path not in self.gateway:
                return Reply(404, b"Not Found\n", _TEXT)
            if request.method != "POST":
                return Reply(405, b"Method Not Allowed\n", _TEXT)
            return await self.gateway.answer(request, chunks)
        pages: dict[str, _Page] = {
            "/health": self._health,
            "/livez": self._live,
            "/readyz": self._ready,
            "/version": self._version,
            "/metrics": self._metrics,
        }
        page = pages.get(request.path)
        if page is None:
            return Reply(404, b"404 page not found\n", _TEXT)
        if request.method not in ("GET", "HEAD"):
            return Reply(405, b"Method Not Allowed\n", _TEXT)
        status, text, kind = await page()
        return Reply(status, text.encode(), kind)

    async def _problem(self) -> str:
        """Return why the endpoint does not serve; nothing if it does."""
        if self.health.stopping:
            return STOPPED[1]
        if alarms := self.cluster.alarms.names():
            return f"ALARM {alarms[0]}"
        try:
            async with asyncio.timeout(_PATIENCE):
                await self.range(message("RangeRequest")(key=b"health"))
        except TimeoutError:
            return "the store does not answer"
        except (StorageError, Refused) as error:
            found = refusal(error)
            return str(error) if found is None else found.text
        return ""

    async def _health(self) -> tuple[int, str, str]:
        problem = await self._problem()
        found = {"health": "false", "reason": problem} if problem else {"health": "true"}
        return 503 if problem else 200, _json(found), "application/json"

    async def _live(self) -> tuple[int, str, str]:
        return 200, "ok\n", _TEXT

    async def _ready(self) -> tuple[int, str, str]:
        problem = await self._problem()
        return (503, f"{problem}\n", _TEXT) if problem else (200, "ok\n", _TEXT)

    async def _version(self) -> tuple[int, str, str]:
        version = self.cluster.version
        cluster = ".".join([*version.split(".")[:2], "0"])
        text = _json({"etcdserver": version, "etcdcluster": cluster})
        return 200, text, "application/json"

    async def _metrics(self) -> tuple[int, str, str]:
        found: list[tuple[str, float]] | None = None
        try:
            async with asyncio.timeout(_PATIENCE):
                found = await self.work(self.metrics.of_store)
        except (TimeoutError, StorageError):
            pass  # the page says so
        return 200, self.metrics.text(found), _METRICS
