"""The objects of the storage suites, and parts of a storage that record their calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import attrs

from revstore.backend import Backend, BackendWatch, Leases, Transaction
from revstore.objects import ObjectMeta
from revstore.resource_type import ResourceType
from revstore.values import (
    BackendStatus,
    Capability,
    CountResult,
    DeleteResult,
    GetResult,
    ListResult,
    PutResult,
    TransactionResult,
)

R = TypeVar("R")

__all__ = [
    "GARBAGE",
    "PODS",
    "ForwardingBackend",
    "MarkingTransformer",
    "Pod",
    "PodSpec",
    "SpyBackend",
    "name_of",
    "on_node",
    "pod",
]

#: Bytes that no codec reads.
GARBAGE = b"\x00 no object"


@attrs.frozen(kw_only=True)
class PodSpec:
    """The fields of a Pod's spec that selectors need."""

    node_name: str = ""


@attrs.frozen(kw_only=True)
class Pod:
    """The suites' object, after the example Pod that Kubernetes' own suite stores."""

    metadata: ObjectMeta = attrs.field(factory=ObjectMeta)
    spec: PodSpec = attrs.field(factory=PodSpec)


#: Pods below "/pods".
PODS = ResourceType(Pod, "/pods")


def pod(name: str, node: str = "", **metadata: Any) -> Pod:
    """Return a Pod; ``name`` is "namespace/name", or a name alone."""
    namespace, _, short = name.rpartition("/")
    meta = ObjectMeta(name=short, namespace=namespace, **metadata)
    return Pod(metadata=meta, spec=PodSpec(node_name=node))


def on_node(obj: Pod, node: str) -> Pod:
    """Return the same Pod on another node."""
    return attrs.evolve(obj, spec=PodSpec(node_name=node))


def name_of(obj: Pod) -> str:
    """Return the name with which ``pod`` was called."""
    meta = obj.metadata
    return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name


class MarkingTransformer:
    """A transformer that puts a mark and the context before each value, so that a value can be read
    only under its own key.

    ``reads`` and ``writes`` are the contexts of its calls. ``stale`` is its answer about every
    value. While ``broken``, it fails.
    """

    def __init__(self, mark: bytes = b"mark") -> None:
        self._mark = mark
        self.reads: list[bytes] = []
        self.writes: list[bytes] = []
        self.stale = False
        self.broken = False

    def transform_from_storage(self, data: bytes, context: bytes) -> tuple[bytes, bool]:
        self.reads.append(context)
        head = self._head(context)
        if self.broken or not data.startswith(head):
            raise ValueError("the value does not open")
        return data[len(head) :], self.stale

    def transform_to_storage(self, data: bytes, context: bytes) -> bytes:
        self.writes.append(context)
        if self.broken:
            raise ValueError("the value does not close")
        return self._head(context) + data

    def _head(self, context: bytes) -> bytes:
        return self._mark + b"(" + context + b")"


class ForwardingBackend(Backend):
    """A backend that passes every call to another; subclasses override some of them."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner

    @property
    def capabilities(self) -> frozenset[Capability]:
        return self.inner.capabilities

    def status(self, **options: Any) -> BackendStatus:
        return self.inner.status(**options)

    def get(self, key: str, **options: Any) -> GetResult:
        return self.inner.get(key, **options)

    def list(self, prefix: str, **options: Any) -> ListResult:
        return self.inner.list(prefix, **options)

    def count(self, prefix: str, **options: Any) -> CountResult:
        return self.inner.count(prefix, **options)

    def put(self, key: str, value: bytes, **options: Any) -> PutResult:
        return self.inner.put(key, value, **options)

    def delete(self, key: str, **options: Any) -> DeleteResult:
        return self.inner.delete(key, **options)

    def watch(self, key: str, **options: Any) -> BackendWatch:
        return self.inner.watch(key, **options)

    def size(self, **options: Any) -> int | None:
        return self.inner.size(**options)

    def compact(self, revision: int, **options: Any) -> None:
        self.inner.compact(revision, **options)

    def transactions(
        self, bodies: Sequence[Callable[[Transaction], R]], **options: Any
    ) -> Sequence[TransactionResult[R] | Exception]:
        return self.inner.transactions(bodies, **options)

    def leases(self, **options: Any) -> Leases:
        return self.inner.leases(**options)

    def remaining_ttl(self, key: str, **options: Any) -> float | None:
        return self.inner.remaining_ttl(key, **options)

    def raise_revision(self, revision: int, **options: Any) -> None:
        self.inner.raise_revision(revision, **options)

    def fence(self, reason: str, **options: Any) -> None:
        self.inner.fence(reason, **options)

    def unfence(self, **options: Any) -> None:
        self.inner.unfence(**options)

    def close(self) -> None:
        self.inner.close()


def _nothing(_name: str, _turn: int) -> None:
    return None


class SpyBackend(ForwardingBackend):
    """A backend that notes the reads and writes of keys, each as name and options.

    ``before`` runs before each call, with the call's name and how many calls of that name there
    have been, this one included.
    """

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.before: Callable[[str, int], object] = _nothing

    def named(self, name: str) -> tuple[dict[str, Any], ...]:
        """Return the options of the calls of ``name``."""
        return tuple(options for called, options in self.calls if called == name)

    def get(self, key: str, **options: Any) -> GetResult:
        self._note("get", options)
        return super().get(key, **options)

    def list(self, prefix: str, **options: Any) -> ListResult:
        self._note("list", options)
        return super().list(prefix, **options)

    def put(self, key: str, value: bytes, **options: Any) -> PutResult:
        self._note("put", options)
        return super().put(key, value, **options)

    def delete(self, key: str, **options: Any) -> DeleteResult:
        self._note("delete", options)
        return super().delete(key, **options)

    def _note(self, name: str, options: dict[str, Any]) -> None:
        self.calls.append((name, options))
        self.before(name, len(self.named(name)))
