"""The compactor: forgets history at intervals, one process at a time.

It needs only ``get``, ``put`` and ``compact``, so it works over any backend. It follows the
protocol of Kubernetes' apiservers, and on etcd takes turns with them. For each round the processes
that share a store elect one of them with a key that is their logical clock: each writes it with the
expectation that nobody has written it since it last looked. So only one succeeds, and may compact.
The key's value is the revision that the winner compacts. The losers look again an interval later,
so that one of them takes over within two intervals after the winner is gone. (CMP-1 to CMP-6)
"""

from __future__ import annotations

import threading

import attrs

from revstore.backend import Backend
from revstore.closing import Closing
from revstore.deadlines import check_seconds
from revstore.errors import Closed, Compacted
from revstore.forks import OpenGuard
from revstore.onlookers import Log
from revstore.threads import Wake, start_thread
from revstore.values import Capability, PutResult

__all__ = ["Compactor"]

_log = Log("revstore.compactor")

# How long `close` waits for a request under way. The thread ends with that request in any case,
# and closing the backend ends the request.
_PATIENCE = 1.0


@attrs.frozen
class _Election:
    """The data that one round passes on to the next.

    ``key_revision`` is the revision of the election key when last seen, 0 if it did not exist.
    ``noted`` is the store's revision at that moment, 0 before the first round. ``compacted`` is the
    highest revision known to be compacted.
    """

    key_revision: int = 0
    noted: int = 0
    compacted: int = 0


def _judge(known: _Election, result: PutResult) -> tuple[_Election, int]:
    """Return what is known after the write of the election key, and what to compact, 0: nothing.

    The winner compacts the revision that it noted a round before, so that history lives for at
    least one interval. The loser learns from the key what the winner has compacted. (CMP-2)
    """
    if result.succeeded:
        return attrs.evolve(known, key_revision=result.revision, noted=result.revision), known.noted
    if result.current is None:
        return attrs.evolve(known, key_revision=0, noted=result.revision), 0
    value = result.current.value
    # Anybody may write the key; a value that is not a number is ignored.
    remote = int(value) if value.isdigit() and len(value) < 20 else 0
    compacted = max(known.compacted, remote)
    return _Election(result.current.revision, result.revision, compacted), 0


class Compactor(Closing):
    """Compacts ``backend`` every ``interval`` seconds, in one daemon thread, until ``close``.

    The first round comes after one interval and only notes the revision. Each later round, if it
    wins the election, compacts what was noted a round before. So history lives between one and two
    intervals. A round that fails is logged, and the next one tries again. The thread ends by itself
    only if the backend is closed. With ``interval`` 0, and on a backend without
    ``Capability.COMPACTION``, nothing is done. ``key`` is the election key as it is in the backend,
    without a prefix; the default is that of Kubernetes.

    Raises:
        InvalidArgument: the interval is negative.
        BackendError: no thread can be started.
    """

    def __init__(
        self, backend: Backend, *, interval: float = 300.0, key: str = "compact_rev_key"
    ) -> None:
        check_seconds("compaction_interval", interval)
        self._backend = backend
        self._interval = min(interval, threading.TIMEOUT_MAX)
        self._key = key
        self._round = threading.Lock()  # held for a whole round; guards _election
        self._election = _Election()
        self._closing = Wake()
        self._guard = OpenGuard(self, what="compactor")
        self._thread: threading.Thread | None = None
        if interval and Capability.COMPACTION in backend.capabilities:
            try:
                self._thread = start_thread(self._run, "revstore-compactor")
            except BaseException:  # an interrupt came when it ran
                self._closing.set()
                raise

    @property
    def compact_revision(self) -> int:
        """The highest revision that this compactor knows to be compacted, by itself or by others.

        It is 0 at first and never falls. (CMP-4)
        """
        return self._election.compacted

    def run_once(self) -> int:
        """Do one round now; return the revision that it has compacted, 0 if none.

        It raises the errors of ``Backend.put`` and ``Backend.compact`` except ``Compacted`` and
        ``Unsupported``. After an error the next round starts from what is known for certain.
        """
        self._guard.check()
        if Capability.COMPACTION not in self._backend.capabilities:
            return 0
        with self._round:
            known = self._election
            result = self._backend.put(
                self._key, str(known.noted).encode(), expected_revision=known.key_revision
            )
            self._election, revision = _judge(known, result)
            if not revision:
                return 0
            try:
                self._backend.compact(revision)
            except Compacted as error:  # somebody did it by hand
                self._note_compacted(error.compacted)
                return 0
            self._note_compacted(revision)
            return revision

    def close(self) -> None:
        """End the thread. Idempotent.

        It waits for a request under way, but not for long: the request ends by its own deadline, or
        when the backend is closed.
        """
        if self._guard.inherited:  # the thread is the parent's
            return
        with self._guard.closing():
            pass
        self._closing.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        while not self._closing.wait(self._interval):
            try:
                self.run_once()
            except Closed:
                return
            except BaseException as error:  # noqa: BLE001 - a plugin's fault must not stop compaction
                _log.warning("compaction failed, next try in %g s: %s", self._interval, error)

    def _note_compacted(self, revision: int) -> None:
        compacted = max(self._election.compacted, revision)
        self._election = attrs.evolve(self._election, compacted=compacted)
