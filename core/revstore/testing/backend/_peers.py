"""``BackendTests``, part: a server that is slow, silent or away, for backends with a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import attrs
import pytest

from revstore.backend import Backend, BackendWatch
from revstore.errors import OutcomeUnknown, Timeout, Unreachable
from revstore.testing._support import PATIENCE, Keyspace, collect, run_threads
from revstore.testing.backend._base import BackendSuite
from revstore.testing.proxy import FaultyProxy

__all__ = ["Peer", "PeerTests"]

# How many seconds the calls of a test may take, and how many they may be late.
_TIMEOUT, _LATE = 1.0, 2.0


@attrs.frozen
class Peer:
    """The server of the store of ``backend``: its host and port, and a function that opens a
    handle on the store at another address."""

    address: str
    open: Callable[[str], Backend]


class PeerTests(BackendSuite):
    """One deadline holds for a whole call, whatever the server does. A write without an
    acknowledgement is reported as such. Afterwards everything works again, and watches miss
    nothing."""

    @pytest.fixture
    def peer(self, backend: Backend) -> Peer | None:
        """Return the store's server, None if it has none; override it if there is one."""
        return None

    @pytest.fixture
    def proxy(self, peer: Peer | None) -> Iterator[FaultyProxy]:
        """Yield a proxy between the handles of these tests and the server."""
        if peer is None:
            pytest.skip("needs the fixture `peer`")
        with FaultyProxy(peer.address) as proxy:
            yield proxy

    @pytest.fixture
    def far(self, peer: Peer, proxy: FaultyProxy) -> Iterator[Backend]:
        """Yield a handle on the store behind ``proxy``."""
        with peer.open(proxy.address) as far:
            yield far

    def test_a_slow_peer(self, space: Keyspace, far: Backend, proxy: FaultyProxy) -> None:
        """Answers that arrive late or in pieces are read correctly."""
        value = bytes(range(256)) * 400
        with _watch(space, far) as watch:
            proxy.delay = 0.05
            put = far.put(space.key("a"), value, expected_revision=0, timeout=PATIENCE)
            assert put.succeeded
            found = far.get(space.key("a"), timeout=PATIENCE).kv
            assert found is not None
            assert (found.value, found.revision) == (value, put.revision)
            assert far.list(space.prefix, timeout=PATIENCE).kvs == (found,)
            assert far.count(space.prefix, timeout=PATIENCE).count == 1
            assert far.status(timeout=PATIENCE).revision >= put.revision
            (event,) = collect(watch, 1)
            assert event.kv == found

    @pytest.mark.parametrize("fault", ["drips", "is silent", "is away"])
    def test_a_bad_peer(
        self, space: Keyspace, far: Backend, proxy: FaultyProxy, fault: str
    ) -> None:
        """Every call ends at its deadline, even from many threads at once, and a write reports its
        outcome. Once the server works again, so do the calls, and no watch lacks an event."""
        space.create("before")
        far.get(space.key("before"))
        written: dict[str, bool | None] = {}
        with _watch(space, far) as watch:
            collect(watch, 1)
            _break(proxy, fault)

            def work(index: int) -> None:
                name = f"during-{index}"
                if index % 2:
                    _in_time(lambda: far.list(space.prefix, timeout=_TIMEOUT))
                    _in_time(lambda: far.status(timeout=_TIMEOUT))
                else:
                    written[name] = _in_time(
                        lambda: far.put(
                            space.key(name), b"x" * 3000, expected_revision=0, timeout=_TIMEOUT
                        )
                    )

            run_threads(6, work)
            proxy.restore()
            last = far.put(space.key("last"), b"", expected_revision=0, timeout=PATIENCE)
            assert last.succeeded
            _check(space, written)
            kvs = [kv for kv in space.list().kvs if kv.key != space.key("before")]
            seen = [event.kv for event in collect(watch, len(kvs))]
            assert sorted(kv.key for kv in seen) == [kv.key for kv in kvs]


def _watch(space: Keyspace, far: Backend) -> BackendWatch:
    return far.watch(space.prefix, recursive=True, after_revision=space.start)


def _break(proxy: FaultyProxy, fault: str) -> None:
    match fault:
        case "drips":
            proxy.throttle = 20
        case "is silent":
            proxy.halt()
        case _:
            proxy.cut()


def _in_time(call: Callable[[], object]) -> bool | None:
    """Return whether the call succeeded, or None if that is unknown; fail if it took much longer
    than allowed."""
    start = time.monotonic()
    done: bool | None = False
    try:
        call()
        done = True
    except OutcomeUnknown:
        done = None
    except (Timeout, Unreachable):
        pass
    took = time.monotonic() - start
    assert took < _TIMEOUT + _LATE, f"took {took:.1f} s of {_TIMEOUT}"
    return done


def _check(space: Keyspace, written: dict[str, bool | None]) -> None:
    """Check that acknowledged writes exist, and refused ones do not."""
    for name, done in written.items():
        if done is not None:
            assert (space.find(name) is not None) is done, f"{name}: told {done}"
