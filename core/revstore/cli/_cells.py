"""Cells of a table from the contents of an object of any shape."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from typing import Any

__all__ = [
    "NONE",
    "address",
    "claim",
    "count_at",
    "data",
    "dig",
    "endpoints",
    "external",
    "human_age",
    "involved",
    "items_at",
    "joined",
    "mapping_at",
    "modes",
    "names_at",
    "node_status",
    "pairs",
    "pod_ready",
    "ports",
    "restarts",
    "roles",
    "secret_data",
    "selector",
    "subjects",
    "text_of",
]

#: Shown if there is nothing.
NONE = "<none>"

Object = dict[str, Any]


def dig(value: Any, path: str) -> Any:
    """Return the value at a dotted path, None if there is none: a stored object may have any
    shape."""
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def items_at(value: Any, path: str) -> list[Any]:
    found = dig(value, path)
    return found if isinstance(found, list) else []


def mapping_at(value: Any, path: str) -> dict[str, Any]:
    found = dig(value, path)
    return found if isinstance(found, dict) else {}


def text_of(value: Any) -> str:
    if value is None or value in ("", [], {}):
        return NONE
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def joined(values: Iterable[Any], separator: str = ",") -> str:
    return separator.join(str(value) for value in values if value not in (None, "")) or NONE


def pairs(mapping: dict[str, Any]) -> str:
    return joined(f"{key}={value}" for key, value in sorted(mapping.items()))


def human_age(then: Any, now: datetime.datetime) -> str:
    """Return the time since ``then``, in RFC 3339, as kubectl shortens it: "45s", "5m12s",
    "3d4h"."""
    try:
        start = datetime.datetime.fromisoformat(then)
        seconds = int((now - start).total_seconds())
    except (TypeError, ValueError):
        return "<unknown>"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        # Clocks differ a little; a larger difference is worth showing.
        return f"{max(seconds, 0)}s" if seconds > -5 else "<invalid>"
    if minutes < 180:
        return _two(minutes, "m", seconds % 60, "s", short=minutes >= 10)
    if hours < 48:
        return _two(hours, "h", minutes % 60, "m", short=hours >= 8)
    if days < 730:
        return _two(days, "d", hours % 24, "h", short=days >= 8)
    return _two(days // 365, "y", days % 365, "d", short=days >= 8 * 365)


def _two(large: int, unit: str, small: int, small_unit: str, *, short: bool) -> str:
    return f"{large}{unit}" if short or not small else f"{large}{unit}{small}{small_unit}"


def names_at(path: str, field: str) -> Callable[[Object], str]:
    return lambda obj: joined(dig(item, field) for item in items_at(obj, path))


def count_at(obj: Object, *paths: str) -> str:
    return str(sum(len(items_at(obj, path)) for path in paths))


def data(obj: Object) -> str:
    return str(len(mapping_at(obj, "data")) + len(mapping_at(obj, "binaryData")))


def secret_data(obj: Object) -> str:
    return str(len({*mapping_at(obj, "data"), *mapping_at(obj, "stringData")}))


def modes(obj: Object) -> str:
    short = {
        "ReadWriteOnce": "RWO",
        "ReadOnlyMany": "ROX",
        "ReadWriteMany": "RWX",
        "ReadWriteOncePod": "RWOP",
    }
    return joined(short.get(str(mode), mode) for mode in items_at(obj, "spec.accessModes"))


def pod_ready(obj: Object) -> str:
    statuses = items_at(obj, "status.containerStatuses")
    ready = sum(1 for status in statuses if dig(status, "ready") is True)
    return f"{ready}/{len(items_at(obj, 'spec.containers'))}"


def restarts(obj: Object) -> str:
    counts = [dig(each, "restartCount") for each in items_at(obj, "status.containerStatuses")]
    return str(sum(count for count in counts if isinstance(count, int)))


def ports(obj: Object) -> str:
    cells = []
    for port in items_at(obj, "spec.ports"):
        node = dig(port, "nodePort")
        shown = f"{text_of(dig(port, 'port'))}{f':{node}' if node else ''}"
        cells.append(f"{shown}/{dig(port, 'protocol') or 'TCP'}")
    return joined(cells)


def external(obj: Object) -> str:
    ingress = items_at(obj, "status.loadBalancer.ingress")
    found = [dig(each, "ip") or dig(each, "hostname") for each in ingress]
    found += items_at(obj, "spec.externalIPs")
    if not any(found) and dig(obj, "spec.type") == "LoadBalancer":
        return "<pending>"
    return joined([dig(obj, "spec.externalName"), *found])


def node_status(obj: Object) -> str:
    ready = [each for each in items_at(obj, "status.conditions") if dig(each, "type") == "Ready"]
    known = "Ready" if ready and dig(ready[0], "status") == "True" else "NotReady"
    state = known if ready else "Unknown"
    return f"{state},SchedulingDisabled" if dig(obj, "spec.unschedulable") else state


def roles(obj: Object) -> str:
    start = "node-role.kubernetes.io/"
    labels = mapping_at(obj, "metadata.labels")
    return joined(sorted(key.removeprefix(start) for key in labels if key.startswith(start)))


def address(kind: str) -> Callable[[Object], str]:
    def cell(obj: Object) -> str:
        every = items_at(obj, "status.addresses")
        return joined(dig(each, "address") for each in every if dig(each, "type") == kind)

    return cell


def endpoints(obj: Object) -> str:
    return joined(
        f"{dig(address, 'ip')}:{dig(port, 'port')}"
        for subset in items_at(obj, "subsets")
        for address in items_at(subset, "addresses")
        for port in items_at(subset, "ports")
    )


def claim(obj: Object) -> str:
    claim = mapping_at(obj, "spec.claimRef")
    return joined((claim.get("namespace"), claim.get("name")), "/")


def selector(obj: Object) -> str:
    labels = mapping_at(obj, "spec.selector.matchLabels")
    plain = mapping_at(obj, "spec.selector")
    return pairs(labels or {k: v for k, v in plain.items() if isinstance(v, str)})


def involved(obj: Object) -> str:
    about = mapping_at(obj, "involvedObject") or mapping_at(obj, "regarding")
    return joined((str(about.get("kind", "")).lower(), about.get("name")), "/")


def subjects(obj: Object) -> str:
    return joined(dig(each, "name") for each in items_at(obj, "subjects"))
