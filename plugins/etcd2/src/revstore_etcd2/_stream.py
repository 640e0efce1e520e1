"""An answer whose body arrives in parts and may never end."""

from __future__ import annotations

import http.client
import math
import time
from collections.abc import Callable, Iterator

from revstore.errors import BackendError
from revstore_etcd2._errors import BadAnswer, refusal
from revstore_etcd2._http import Connection, read_body
from revstore_etcd2._wire import decode_answer, index_of

__all__ = ["Stream"]

#: Bytes of one change: see KEY_LIMIT.
_LINE_LIMIT = 64 << 20
#: Seconds in which the whole of a change must arrive once it has begun.
_LINE_TIME = 30.0
_PIECE = 1 << 16


class Stream:
    """The answer to a watch. The thread that reads calls ``close``, any other calls ``cut``.

    Reading raises ``OSError``, ``HTTPException``, ``ValueError`` or ``OverflowError`` if the
    connection breaks, and ``BadAnswer``.
    """

    def __init__(
        self,
        connection: Connection,
        response: http.client.HTTPResponse,
        forget: Callable[[], object],
    ) -> None:
        self._connection = connection
        self._response = response
        self._forget = forget
        self.status = response.status
        self.headers = response.headers
        #: The store's index when the server answered.
        self.index = index_of(self.headers.get("X-Etcd-Index") or "")
        self.cluster = self.headers.get("X-Etcd-Cluster-Id") or ""

    def refusal(self, data: bytes) -> BackendError:
        """Return the error that is in the body of this answer."""
        return refusal(decode_answer(data))

    def body(self, silence: float = 0.0) -> bytes:
        """Return the whole body.

        After ``silence`` seconds without data, 0: never, the server is asked to end it; then
        ``half_closed`` is true.
        """
        self._connection.timed.silence = silence
        return read_body(self._response, _LINE_LIMIT)

    @property
    def half_closed(self) -> bool:
        """True if the server was asked to end the body, and so had nothing to send."""
        return self._connection.timed.half_closed

    @property
    def is_chunked(self) -> bool:
        """True if the body marks its end, and does not merely stop."""
        return bool(self._response.chunked)

    def limit(self, seconds: float) -> None:
        """Require that the whole body arrives within ``seconds``."""
        self._connection.timed.deadline = time.monotonic() + seconds

    def lines(self) -> Iterator[bytes]:
        """Yield the whole lines of the body, as they arrive."""
        timed = self._connection.timed
        rest: list[bytes] = []
        size = 0
        timed.deadline = math.inf
        while piece := self._response.read1(_PIECE):
            *lines, last = piece.split(b"\n")
            for line in lines:
                rest.append(line)
                if whole := b"".join(rest):
                    yield whole
                rest, size = [], 0
                timed.deadline = math.inf
            rest.append(last)
            size += len(last)
            if size > _LINE_LIMIT:
                raise BadAnswer(f"a change is over the limit of {_LINE_LIMIT} bytes")
            if size and timed.deadline == math.inf:
                timed.deadline = time.monotonic() + _LINE_TIME

    def cut(self) -> None:
        """Wake the thread that reads."""
        self._connection.cut()

    def close(self) -> None:
        self._forget()
        self._connection.drop()
