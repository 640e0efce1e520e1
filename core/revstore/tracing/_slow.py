"""The log of calls that took long."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from revstore.onlookers import Log
from revstore.selectors import FieldSelector, LabelSelector
from revstore.tracing._call import Call

__all__ = ["log_slow"]

_log = Log("revstore.slow")

# Characters of a key or selector that are shown.
_LONGEST = 300
# The arguments of a call that are shown.
_ARGUMENTS = (
    "resource_version",
    "resource_version_match",
    "label_selector",
    "field_selector",
    "limit",
    "continue_token",
    "send_initial_events",
    "timeout",
)
# The parts of a call's time, and their names.
_TIMES = {
    "backend": "backend",
    "encode": "encoding",
    "decode": "decoding",
    "transform": "transformer",
    "waiting": "waiting",
    "functions": "caller's functions",
}
_RESULTS = ("requests", "attempts", "count", "resource_version", "error")


def log_slow(call: Call, seconds: float, error: str) -> None:
    """Log a warning about a call that took ``seconds``."""
    fields = dict(_fields(call, seconds, error))
    _log.warning("%s", _line(fields), extra={f"revstore_{name}": fields[name] for name in fields})


def _fields(call: Call, seconds: float, error: str) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a call by name; times are in seconds."""
    yield "operation", f"backend {call.operation}" if call.is_request else call.operation
    yield "resource", call.trace.resource
    yield "key", _short(call.key)
    yield "arguments", dict(_arguments(call))
    yield "seconds", seconds
    for name in _TIMES:
        yield f"{name}_seconds", getattr(call, name)
    yield "requests", call.requests
    yield "attempts", call.attempts or None
    yield "error", error
    yield "count", call.count
    yield "resource_version", call.resource_version


def _arguments(call: Call) -> Iterator[tuple[str, Any]]:
    """Yield the arguments that were given; of a continue token only the name, since it contains a
    key."""
    for name in _ARGUMENTS:
        value = call.asked.get(name)
        if name == "continue_token":
            value = "..." if value else None
        if isinstance(value, LabelSelector | FieldSelector):
            value = str(value)
        if isinstance(value, str | int | float) and value != "":
            yield name, _short(value) if isinstance(value, str) else value


def _line(fields: Mapping[str, Any]) -> str:
    """Write ``fields`` as one line, whatever characters the key has."""
    text = f"slow {fields['operation']} of {fields['resource']} {fields['key']!r}"
    if fields["arguments"]:
        text += f" with {_listed(fields['arguments'])}"
    text += f": {_ms(fields['seconds'])}"
    times = {called: _ms(fields[f"{name}_seconds"]) for name, called in _TIMES.items()}
    parts = [f"{called} {time}" for called, time in times.items() if time != _ms(0)]
    if parts:
        text += f" ({', '.join(parts)})"
    results = {name: fields[name] for name in _RESULTS if fields[name] not in ("", None)}
    return f"{text}: {_listed(results)}"


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _short(text: Any) -> str:
    """Return a key or selector as it is shown; if it is not a text, and was refused, its type."""
    if not isinstance(text, str):
        return type(text).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
