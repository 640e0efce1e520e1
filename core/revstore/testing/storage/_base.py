"""The base of the parts of ``StorageTests`` and ``WatchTests``."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import attrs
import pytest

from revstore.backend import Backend
from revstore.codec import TypedCodec
from revstore.resource_type import ResourceType
from revstore.storage import ObjectList, Storage, Watch
from revstore.testing._support import clear, random_prefix, run_threads
from revstore.testing.backend._base import BackendSuite, OpenBackend
from revstore.testing.storage._parts import GARBAGE, Pod, name_of, on_node, pod
from revstore.typed import TypedStorage
from revstore.values import Capability, KeyValue

__all__ = ["FAR", "OpenStorage", "Pods", "Seed", "StorageSuite", "elsewhere"]

#: ``make_storage`` with the test's backend and resource prefix, ``Pod`` unless another type is
#: given; closed after the test.
OpenStorage = Callable[..., Storage[Any]]

#: No store takes so many revisions during a test.
FAR = 1 << 40

_ROOT = "/registry"

# Options of ``open_storage`` that are the resource type's; others are the storage's.
_OF_TYPE = [field.name for field in attrs.fields(ResourceType) if field.init]


def elsewhere(work: Callable[[], Any]) -> Any:
    """Call ``work`` in another thread and wait for its end. This shows that the calling thread
    holds no lock that ``work`` needs."""
    return run_threads(1, lambda _: work(), patience=20)[0]


class Pods:
    """Short names for the Pods of one storage: "a" or "namespace/a" below its resource prefix.

    ``start`` is the store's revision at the time this object was made.
    """

    def __init__(self, storage: Storage[Pod], backend: Backend, prefix: str) -> None:
        self.storage = storage
        self.backend = backend
        self.prefix = prefix
        self.start = storage.current_revision()

    def key(self, name: str = "") -> str:
        """Return the logical key."""
        return f"{self.prefix}/{name}"

    def physical(self, name: str = "") -> str:
        """Return the backend's key."""
        return _ROOT + self.key(name)

    def create(self, name: str, node: str = "", *, ttl: int = 0, **metadata: Any) -> Pod:
        """Create a Pod."""
        return self.storage.create(self.key(name), pod(name, node, **metadata), ttl=ttl)

    def create_many(self, names: Iterable[str]) -> None:
        """Create Pods from several threads, which is quicker on a store with slow commits."""
        wanted = builtins.list(names)
        run_threads(8, lambda index: [self.create(name) for name in wanted[index::8]])

    def update(self, name: str, node: str) -> Pod:
        """Put a Pod on another node."""
        return self.storage.guaranteed_update(self.key(name), lambda found, _: on_node(found, node))

    def delete(self, name: str) -> Pod:
        """Delete a Pod."""
        return self.storage.delete(self.key(name))

    def read(self, name: str) -> Pod:
        """Return the Pod, which must exist."""
        return self.storage.get(self.key(name))

    def find(self, name: str) -> Pod | None:
        """Return the Pod, or None if it does not exist."""
        return self.storage.get(self.key(name), ignore_not_found=True)

    def stored(self, name: str) -> KeyValue:
        """Return the backend's value of a key that must exist."""
        kv = self.backend.get(self.physical(name)).kv
        assert kv is not None, f"{name!r} is not stored"
        return kv

    def overwrite(self, name: str, value: bytes = GARBAGE) -> int:
        """Store other bytes without the storage; return the revision."""
        found = self.backend.get(self.physical(name)).kv
        expected = found.revision if found else 0
        result = self.backend.put(self.physical(name), value, expected_revision=expected)
        assert result.succeeded
        return result.revision

    def watch(self, name: str = "", **options: Any) -> Watch[Pod]:
        """Watch the Pods below ``name``, from ``start`` unless options name another version."""
        return self.storage.watch(
            self.key(name), **{"resource_version": str(self.start), **options}
        )

    def pages(self, name: str = "", **options: Any) -> builtins.list[ObjectList[Pod]]:
        """Return a list and all its further pages."""
        found = [self.list(name, **options)]
        for first in ("resource_version", "resource_version_match"):
            options.pop(first, None)
        while found[-1].continue_token:
            assert len(found) < 2000, "the pages have no end"
            found.append(self.list(name, **{**options, "continue_token": found[-1].continue_token}))
        return found

    def names(self, name: str = "", **options: Any) -> builtins.list[str]:
        """Return the names that a list shows."""
        return [name_of(item) for item in self.list(name, **options)]

    def list(self, name: str = "", **options: Any) -> ObjectList[Pod]:
        """Return the Pods below ``name``."""
        return self.storage.list(self.key(name), **options)


@attrs.frozen
class Seed:
    """FIX-1: six creates in three namespaces, an update and a delete; ``history`` has the
    revision and the whole state, in key order, after each."""

    history: Sequence[tuple[int, tuple[Pod, ...]]]

    @classmethod
    def sow(cls, pods: Pods) -> Seed:
        """Write the objects."""
        state: dict[str, Pod] = {}
        history: list[tuple[int, tuple[Pod, ...]]] = []

        def note(revision: str) -> None:
            history.append((int(revision), tuple(state[name] for name in sorted(state))))

        for name in (
            "first/bar",
            "second/bar",
            "second/foo",
            "third/barfoo",
            "third/foo",
            "second/baz",
        ):
            state[name] = pods.create(name)
            note(state[name].metadata.resource_version)
        state["first/bar"] = pods.update("first/bar", "fakeNode")
        note(state["first/bar"].metadata.resource_version)
        del state["second/baz"]
        note(pods.delete("second/baz").metadata.resource_version)
        return cls(history)

    @property
    def now(self) -> tuple[Pod, ...]:
        """Return the state at the end."""
        return self.history[-1][1]


class StorageSuite(BackendSuite):
    """Base of the parts. See ``StorageTests`` for how to use them."""

    #: The storage asks the backend at each read: its reads can be counted, and show the latest.
    raw: bool = True

    def make_storage(
        self, backend: Backend, resource_type: ResourceType[Any], **options: Any
    ) -> Storage[Any]:
        """Return a storage over ``backend``; ``options`` are those of ``TypedStorage``.

        Override it to test another storage; closing that must not close the backend.
        """
        return TypedStorage(backend, resource_type, **options)

    @pytest.fixture
    def resource_prefix(self, backend: Backend, open_backend: OpenBackend | None) -> Iterator[str]:
        """Return a random prefix, so that the suite disturbs nothing in a store that is in use."""
        prefix = random_prefix()
        yield prefix
        if not self.ephemeral:
            clear(backend, _ROOT + prefix, open_backend)

    @pytest.fixture(autouse=True)
    def _nothing_unknown_was_met(self) -> None:
        """Forget unknown fields that other tests of this process may have stored: they would keep
        storages from using suggestions."""
        TypedCodec(Pod).forget_unknown()

    @pytest.fixture
    def open_storage(self, backend: Backend, resource_prefix: str) -> Iterator[OpenStorage]:
        """Yield a function that opens storages, of other types or with other options than
        ``storage``."""
        with ExitStack() as stack:

            def open_storage(
                object_type: type[Any] = Pod, *, over: Backend = backend, **options: Any
            ) -> Storage[Any]:
                about = {name: options.pop(name) for name in _OF_TYPE if name in options}
                about.setdefault("resource_prefix", resource_prefix)
                resource_type = ResourceType(object_type, **about)
                return stack.enter_context(self.make_storage(over, resource_type, **options))

            yield open_storage

    @pytest.fixture
    def storage(self, open_storage: OpenStorage) -> Storage[Pod]:
        """Return the storage under test, of Pods."""
        return open_storage()

    @pytest.fixture
    def pods(self, storage: Storage[Pod], backend: Backend, resource_prefix: str) -> Pods:
        """Return short names for what is in ``storage``."""
        return Pods(storage, backend, resource_prefix)

    @pytest.fixture
    def undisturbed(self) -> None:
        """Skip tests about the store's own revision, which other writers raise as well."""
        if not self.ephemeral:
            pytest.skip("the store's revision is tested on stores that belong to the test")

    @pytest.fixture
    def reads_backend(self) -> None:
        """Skip tests that count, or interrupt, the backend's reads."""
        if not self.raw:
            pytest.skip("this storage reads from its cache")

    @pytest.fixture
    def ttl(self, backend: Backend) -> None:
        """Skip tests about expiry if nothing expires."""
        self.need(backend, Capability.TTL)

    @pytest.fixture
    def history(self, backend: Backend) -> None:
        """Skip tests that read old states if that is not possible."""
        self.need(backend, Capability.HISTORICAL_READS)

    @pytest.fixture
    def compactable(self, backend: Backend, history: None, alone: None) -> None:
        """Skip tests that compact old states that could be read, if that is not possible."""
        self.need(backend, Capability.COMPACTION)
