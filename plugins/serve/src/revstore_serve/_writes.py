"""The way of writes from the event loop to the backend: one thread that passes on many bodies in a
call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import attrs

from revstore.backend import Backend, Transaction
from revstore.errors import Closed
from revstore.threads import Wake, start_thread
from revstore.values import Capability, TransactionResult
from revstore_serve._one_key import run_one_by_one
from revstore_serve._txn import Answer

__all__ = ["Writes"]

#: The most bodies in one call. Bodies that come meanwhile go into the next.
_MOST = 256
# Seconds that the end waits for writes that nobody waits for any more.
_PATIENCE = 1.0

_Body = Callable[[Transaction], Answer]


@attrs.frozen
class _Waiting:
    body: _Body
    done: asyncio.Future[TransactionResult[Answer]]


class Writes:
    """Passes bodies to ``Backend.transactions``, all those together that came while a call was
    running. With ``at_once``, for a store that never waits, each runs on the loop: handing it to a
    thread would take longer."""

    def __init__(
        self, backend: Backend, loop: asyncio.AbstractEventLoop, *, at_once: bool = False
    ) -> None:
        self._backend = backend
        self._at_once = at_once
        self._together = Capability.TRANSACTIONS in backend.capabilities
        self._loop = loop
        self._waiting: deque[_Waiting] = deque()
        self._wake = Wake()
        # Whether the thread is to be woken at the end of this turn of the loop.
        self._waking = False
        self._closed = False
        self._thread = start_thread(self._run, "revstore-serve-writes")

    async def run(self, body: _Body) -> TransactionResult[Answer]:
        """Run a body, and return its result or raise its error. Call it on the loop."""
        if self._closed:
            raise Closed("the endpoint is closed")
        if self._at_once:
            (result,) = self._results([body])
            if isinstance(result, Exception):
                raise result
            return result
        waiting = _Waiting(body, self._loop.create_future())
        self._waiting.append(waiting)
        if not self._waking:
            # Once for all bodies that come together, so that they share a commit.
            self._waking = True
            self._loop.call_soon(self._go)
        return await waiting.done

    def _go(self) -> None:
        self._waking = False
        self._wake.set()

    def close(self) -> None:
        """End the thread once it has run the waiting bodies."""
        self._closed = True
        self._wake.set()
        self._thread.join(_PATIENCE)

    def _run(self) -> None:
        while not self._closed or self._waiting:
            if not self._waiting:
                self._wake.wait()
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST))]
            if batch:
                results = self._results([each.body for each in batch])
                self._loop.call_soon_threadsafe(_settle, batch, results)

    def _results(self, bodies: Sequence[_Body]) -> Sequence[TransactionResult[Answer] | Exception]:
        try:
            if self._together:
                return self._backend.transactions(bodies)
            return run_one_by_one(self._backend, bodies)
        except Exception as error:  # noqa: BLE001 - each caller gets it
            return [error] * len(bodies)


def _settle(
    batch: list[_Waiting], results: Sequence[TransactionResult[Answer] | Exception]
) -> None:
    for waiting, result in zip(batch, results, strict=True):
        if waiting.done.done():
            continue  # the caller has gone
        if isinstance(result, Exception):
            waiting.done.set_exception(result)
        else:
            waiting.done.set_result(result)
