"""The server's history: the last 1,000 changes, read one by one."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from typing import Protocol

from revstore.errors import CorruptStore, StorageError, Timeout, Unreachable
from revstore.threads import Wake, start_thread
from revstore_etcd2._client import Client
from revstore_etcd2._errors import BadAnswer, refusal
from revstore_etcd2._stream import Stream
from revstore_etcd2._wire import Action, decode_answer, event_of

__all__ = ["BROKEN", "History", "Memory", "Reader", "change_of"]

#: The errors of reading from a connection.
BROKEN = (OSError, http.client.HTTPException, ValueError, OverflowError)
_NEXT = "/v2/keys/?wait=true&recursive=true&waitIndex="
#: Seconds without a body after which the server is asked to end its answer.
_SILENCE = 0.5
#: Seconds without a byte after which an answer that has begun is given up.
_STALLED = 5.0
#: Seconds between two attempts.
_RETRY = 0.05


def change_of(line: bytes) -> Action:
    """Return the change in a line of an answer; raise the error if the line holds one."""
    answer = decode_answer(line)
    if answer.error_code:
        raise refusal(answer)
    return event_of(answer)


class Memory:
    """Asks for the change that follows an index. One thread uses it, except for ``cut``.

    A server that remembers no such change says nothing: it waits for one to happen. But its silence
    proves nothing, since what it sent may still be on its way. So after a while the client shuts
    down its half of the connection; the server then ends its answer, after anything that it had
    sent. It could miss a change only if it paused exactly between the head of its answer and the
    change, which it sends together; so two such answers have to agree. If something between us and
    the server treats half a connection as none, the next try waits until something happens.
    """

    def __init__(self, client: Client, check_cluster: Callable[[str], None]) -> None:
        self._client = client
        self._check_cluster = check_cluster
        self._patient = False
        self._stream: Stream | None = None
        self._stopped = False

    def next(self, after: int) -> tuple[Action | None, int]:
        """Return the first change after ``after`` that the server remembers, None if there is none,
        and the server's index.

        Raises:
            Compacted: some changes have been forgotten.
        """
        for _ in range(2):
            body, index, was_asked = self._ask(after + 1)
            if body:
                action = change_of(body)
                if action.index <= after:
                    raise CorruptStore(f"asked for {after + 1}, the server sent {action.index}")
                return action, index
            if not was_asked:
                raise Unreachable("the server ended a watch")
        return None, index

    def _ask(self, first: int) -> tuple[bytes, int, bool]:
        """Return the answer, the store's index, and whether the server was asked to end it."""
        options = self._client.options
        idle = max(_STALLED, options.idle_timeout)
        stream = self._client.open_stream(f"{_NEXT}{first}", idle)
        self._stream = stream
        try:
            if self._stopped:
                stream.cut()
            self._check_cluster(stream.cluster)
            stream.limit(options.timeout)
            body = stream.body(0.0 if self._patient else _SILENCE)
            if not body and not stream.is_chunked:
                raise Unreachable("the answer does not mark its end")
        except BadAnswer as error:
            raise CorruptStore(str(error)) from error
        except BROKEN as error:
            self._patient = stream.half_closed
            if isinstance(error, StorageError):
                raise
            raise self._client.failed(error) from error
        finally:
            self._stream = None
            stream.close()
        return body, stream.index, stream.half_closed

    def stop(self) -> None:
        """Wake the thread that reads, whose call then fails."""
        self._stopped = True
        stream = self._stream
        if stream is not None:
            stream.cut()


class Reader(Protocol):
    """The consumer of history; the thread of ``History`` calls it."""

    def remember(self, action: Action) -> None:
        """Receive the next change."""

    def caught_up(self) -> None:
        """Note that there are no more changes before the place where the hub goes on."""

    def end(self, error: StorageError) -> None:
        """Note that history cannot be read."""


class History:
    """A thread that reads every change after ``after`` and up to ``upto``."""

    def __init__(self, memory: Memory, reader: Reader, *, after: int, upto: int) -> None:
        self._memory = memory
        self._reader = reader
        self._position = after
        self._upto = upto
        self._stopped = False
        self._pause = Wake()
        start_thread(self._run, "revstore-etcd2-history")

    def stop(self) -> None:
        """End the thread; after that it reports nothing. Never call it in a child after a fork,
        where the connection belongs to the parent."""
        self._stopped = True
        self._pause.set()
        self._memory.stop()

    def _run(self) -> None:
        while not self._stopped:
            try:
                if self._read():
                    self._reader.caught_up()
                    return
            except (Unreachable, Timeout):
                self._pause.wait(_RETRY)
            except StorageError as error:
                self._reader.end(error)
                return
            except Exception as error:  # noqa: BLE001 - a thread that is dead would be silent
                self._reader.end(CorruptStore(f"the server's memory cannot be read: {error}"))
                return

    def _read(self) -> bool:
        """Report the next change; return whether it was the last."""
        action, index = self._memory.next(self._position)
        if action is None:
            if index < self._upto:
                raise Unreachable("the server lags behind")
            return True
        if action.index <= self._upto and not self._stopped:
            self._position = action.index
            self._reader.remember(action)
        return action.index >= self._upto
