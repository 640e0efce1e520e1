"""The objects that are stored and watched here."""

from __future__ import annotations

from typing import Any

import attrs

from revstore import ObjectMeta
from revstore.cacher import Cacher, CacherConfig
from revstore.resource_type import ResourceType
from revstore.storage import Storage

__all__ = ["RESOURCE", "Pod", "PodSpec", "cached", "fill", "key_of", "pod", "rewrite"]

RESOURCE = "/pods"


@attrs.frozen(kw_only=True)
class PodSpec:
    """What a scheduler reads."""

    node_name: str = ""
    containers: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Pod:
    """About 1 KB encoded."""

    metadata: ObjectMeta
    spec: PodSpec = PodSpec()


def pod(number: int, *, nodes: int = 1000) -> Pod:
    """One of many pods in 50 namespaces, on one of the nodes."""
    return Pod(
        metadata=ObjectMeta(
            name=f"pod-{number}",
            namespace=f"ns-{number % 50}",
            uid=f"00000000-0000-4000-8000-{number:012}",
            labels={"app": f"app-{number % 100}", "tier": "web"},
            annotations={"note": "n" * 600},
            creation_timestamp="2026-01-01T00:00:00Z",
        ),
        spec=PodSpec(
            node_name=f"node-{number % nodes}",
            containers=("registry.example.com/team/app:1.2.3", "registry.example.com/log:4"),
        ),
    )


def key_of(obj: Pod) -> str:
    """Where a pod is stored."""
    return f"{RESOURCE}/{obj.metadata.namespace}/{obj.metadata.name}"


def fill(storage: Storage[Pod], count: int, *, nodes: int = 1000) -> None:
    """Store so many pods."""
    for number in range(count):
        obj = pod(number, nodes=nodes)
        storage.create(key_of(obj), obj)


def rewrite(storage: Storage[Pod], number: int, image: str) -> int:
    """Change one pod; the revision of that write."""

    def update(obj: Pod, _: Any) -> Pod:
        return attrs.evolve(obj, spec=attrs.evolve(obj.spec, containers=(image,)))

    changed = storage.guaranteed_update(f"{RESOURCE}/ns-{number % 50}/pod-{number}", update)
    return int(changed.metadata.resource_version)


def cached(storage: Storage[Pod]) -> Cacher[Pod]:
    """A cache over the storage, filled."""
    cacher = Cacher(
        CacherConfig(
            storage=storage,
            resource_type=ResourceType(Pod, RESOURCE),
            indexed_fields=("spec.nodeName",),
        )
    )
    cacher.wait_ready(120)
    return cacher
