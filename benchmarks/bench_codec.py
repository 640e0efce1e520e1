"""Objects to JSON and back, beside msgspec, which turns the same bytes into plain values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import attrs
import msgspec

from benchmarks._figures import Figure
from benchmarks._measure import in_turns, seconds
from benchmarks._pods import pod
from revstore import ObjectMeta
from revstore.codec import json_codec

__all__ = ["figures"]

CALLS = 20_000
TURNS = 15


@attrs.frozen(kw_only=True)
class Settings:
    """Twenty fields, most of which have their defaults, as in a real specification."""

    image: str = "registry.example.com/team/app:1.2.3"
    command: tuple[str, ...] = ()
    replicas: int = 3
    paused: bool = False
    priority: int = 0
    weight: float = 1.0
    node: str = ""
    zone: str = ""
    service_account: str = "default"
    restart_policy: str = "Always"
    dns_policy: str = "ClusterFirst"
    host_network: bool = False
    grace_period_seconds: int = 30
    active_deadline_seconds: int | None = None
    ports: tuple[int, ...] = (8080, 9090)
    environment: dict[str, str] = attrs.field(factory=dict)
    tolerations: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    note: str | None = None


@attrs.frozen(kw_only=True)
class Workload:
    """An object with a larger specification."""

    metadata: ObjectMeta
    spec: Settings = Settings()


def figures() -> Iterator[Figure]:
    """All figures of this part; Go's are of a Pod."""
    first = pod(5)
    yield from _both(first, "a pod of 1 KB", go=(3.8, 11.4))
    yield from _both(Workload(metadata=first.metadata), "an object with 20 more fields")


def _both(
    obj: Any, name: str, go: tuple[float | None, float | None] = (None, None)
) -> Iterator[Figure]:
    codec = json_codec(type(obj))
    data = codec.encode(obj)
    plain = msgspec.json.decode(data)
    pairs: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        ("encode", lambda: codec.encode(obj), lambda: msgspec.json.encode(plain)),
        ("decode", lambda: codec.decode(data), lambda: msgspec.json.decode(data)),
    ]
    for (work, ours, bare), took in zip(pairs, go, strict=True):
        value, bound = in_turns(TURNS, partial(_each, ours), partial(_each, bare))
        yield Figure(
            name=f"{work} {name}",
            value=value,
            unit="us",
            bound=bound,
            bound_name="msgspec, the same bytes, plain values",
            go=took,
        )


def _each(work: Callable[[], object]) -> float:
    def repeat() -> None:
        for _ in range(CALLS):
            work()

    return seconds(repeat) / CALLS * 1e6
