"""``BackendTests``, part: the machine's clock is wrong, and changes while the store is open."""

from __future__ import annotations

import sys
import threading
import time
from types import SimpleNamespace

import pytest

from revstore.backend import Backend
from revstore.errors import OutcomeUnknown, Timeout, Unreachable
from revstore.testing._support import Keyspace, collect, wait_until
from revstore.testing.backend._base import BackendSuite, Stall
from revstore.values import Capability, WatchBatch

__all__ = ["ClockTests"]


_SHIFTS = pytest.mark.parametrize("shift", [-1e6, 1e6], ids=["back", "forward"])


class ClockTests(BackendSuite):
    """Waits and deadlines do not depend on the machine's clock."""

    @pytest.fixture
    def wall_clock(self, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        """Return an object whose ``shift``, in seconds, is added to ``time.time`` for the backend
        and revstore.

        Only these see the shift: drivers pass the time to the system, whose clock cannot be set
        here.
        """
        clock = SimpleNamespace(shift=0.0)
        wrong = SimpleNamespace(**vars(time))
        wrong.time = lambda: time.time() + clock.shift
        wrong.time_ns = lambda: time.time_ns() + int(clock.shift * 1e9)
        swaps = [(time, wrong), (time.time, wrong.time), (time.time_ns, wrong.time_ns)]
        ours = ("revstore", type(backend).__module__.partition(".")[0])
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] not in ours or name.startswith("revstore.testing"):
                continue
            for attribute, value in list(vars(module).items()):
                for right, other in swaps:
                    if value is right:
                        monkeypatch.setattr(module, attribute, other)
        return clock

    @_SHIFTS
    def test_the_clock_is_set_in_a_wait(
        self, backend: Backend, space: Keyspace, wall_clock: SimpleNamespace, shift: float
    ) -> None:
        """If the clock is set while a poll waits, the poll still waits as long as requested. Events
        meanwhile and afterwards are delivered."""
        found: list[WatchBatch | None] = []
        with space.watch(progress=False) as watch:
            waiter = threading.Thread(target=lambda: found.append(watch.poll(0.5)), daemon=True)
            began = time.monotonic()
            waiter.start()
            waiter.join(0.1)
            wall_clock.shift = shift
            waiter.join(5)
            assert found == [None], "the poll waits on"
            assert time.monotonic() - began > 0.45
            revision = space.create("a")
            assert collect(watch, 1)[0].kv.revision == revision

    @_SHIFTS
    def test_deadlines_by_a_wrong_clock(
        self,
        backend: Backend,
        space: Keyspace,
        stall: Stall | None,
        wall_clock: SimpleNamespace,
        shift: float,
    ) -> None:
        """With a wrong clock calls succeed, and calls that get no answer end at their deadlines."""
        wall_clock.shift = shift
        created = space.create("a", b"1")
        assert backend.get(space.key("a"), timeout=5).revision >= created
        if stall is None:
            return
        began = time.monotonic()
        with stall(), pytest.raises((Timeout, OutcomeUnknown, Unreachable)):
            backend.put(space.key("b"), b"", expected_revision=0, timeout=0.5)
        assert 0.45 < time.monotonic() - began < 5

    @_SHIFTS
    def test_expiry_by_a_wrong_clock(
        self, backend: Backend, space: Keyspace, wall_clock: SimpleNamespace, shift: float
    ) -> None:
        """A key that is written after the clock was set lives as long as its TTL (TTL-1)."""
        self.need(backend, Capability.TTL)
        space.create("before", ttl=1000)
        wall_clock.shift = shift
        began = time.monotonic()
        space.create("a", ttl=1)
        wait_until(lambda: space.find("a") is None, "the key expires")
        assert time.monotonic() - began >= 0.95
