"""YAML text to plain values, as kubectl reads it, within limits.

PyYAML's parser produces the events; the values are built here, without recursion. So nesting and
the size of expanded aliases are counted before the values are built, duplicate keys are found, and
each error has its line. Scalars follow YAML 1.1 as in go-yaml, which kubectl uses: yes, no, on,
off, y and n are booleans, dates are strings, 22:22 is a string.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import attrs
import yaml

from revstore.nesting import MAX_LIST_DEPTH, TOO_DEEP

__all__ = [
    "MAX_WEIGHT",
    "YamlFault",
    "read_documents",
    "read_number",
    "reads_as_string",
]

#: The most characters that a document may have with its aliases expanded, 16 counted for each
#: value.
MAX_WEIGHT = 64 * 2**20


class YamlFault(ValueError):
    """An error, and in which document (from 1) and line (from 1; 0 if unknown)."""

    def __init__(self, document: int, line: int, reason: str) -> None:
        super().__init__(reason)
        self.document = document
        self.line = line
        self.reason = reason


# Without libyaml PyYAML has the same parser in Python, only slower.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_TRUE = ("y", "yes", "true", "on")
_FALSE = ("n", "no", "false", "off")
_WORDS: dict[str, Any] = {
    spelt: value
    for words, value in ((_TRUE, True), (_FALSE, False), (("", "~", "null"), None))
    for word in words
    for spelt in (word, word.capitalize(), word.upper())
}
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# Go's number syntax: underscores are removed from what begins with a digit or a sign, and may only
# be between digits in what begins with a dot.
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"[-+]?0([oO]?[0-7]+|[xX][0-9a-fA-F]+|[bB][01]+)")
_SIGN_INSIDE = re.compile(r"0b[-+][01]+")  # -5 also allows 0b-101, by an accident of go-yaml
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_DOTTED = re.compile(r"\.[0-9]+(_[0-9]+)*([eE][-+]?[0-9]+(_[0-9]+)*)?")
# YAML 1.1's numbers of base 60, or of another base if too large, its dates, and its value and merge
# signs: strings here, but not everywhere.
_ELSEWHERE = re.compile(
    r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?|[0-9]{4}-[0-9].*|=|<<|[-+]?0[xXoObB][-+0-9a-fA-F_]*"
)
_TAG = "tag:yaml.org,2002:"
_MERGE = object()


def read_documents(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the line (from 1) and value of each document; an empty one is None.

    Raises:
        YamlFault: the text is not YAML, or exceeds a limit.
    """
    number = 0
    loader = None
    try:
        loader = _Loader(data)
        while True:
            event = loader.get_event()
            if isinstance(event, yaml.DocumentStartEvent):
                number += 1
                builder = _Builder(number)
                value = builder.build(loader)
                yield builder.line, value
            elif isinstance(event, yaml.StreamEndEvent) or event is None:
                return
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = error.problem or error.context or "not YAML"
        raise YamlFault(max(number, 1), mark.line + 1 if mark else 0, reason) from error
    except (yaml.YAMLError, UnicodeError) as error:
        raise YamlFault(max(number, 1), 0, " ".join(str(error).split())) from error
    finally:
        if loader is not None:
            loader.dispose()


def read_number(text: str) -> int | float:
    """Return the number that ``text``, a decimal one, denotes; an integer may have any size.

    Raises:
        ValueError: it is not finite as a float, or has more digits than Python reads.
    """
    if _DECIMAL.fullmatch(text):
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"{text[:20]}... has {len(text)} digits: too many") from None
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is out of range")
    return number


def _scalar(text: str) -> Any:
    """Return the value of a plain scalar.

    Raises:
        ValueError: JSON has no such value.
    """
    if text in _WORDS:
        return _WORDS[text]
    # Only these can start a number: most scalars end here.
    if text[0] not in "+-.0123456789":
        return text
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} cannot be represented in JSON")
    plain = text.replace("_", "")
    if text[0] == ".":
        return read_number(plain) if _DOTTED.fullmatch(text) else text
    if _BASED.fullmatch(plain) or _SIGN_INSIDE.fullmatch(plain):
        value = _of_base(plain)
        if value is not None:
            return value
    return read_number(plain) if _FLOAT.fullmatch(plain) else text


def _of_base(plain: str) -> int | None:
    """Return an octal, hexadecimal or binary integer; None if it exceeds 64 bits, as only decimal
    ones may."""
    digits = plain.lstrip("+-")
    if len(digits) > 66:  # int() of such text may take long
        return None
    if digits[1].isdigit():
        value = int(digits, 8)
    elif digits[2] in "+-":
        value = int(digits[2:], 2)
    else:
        value = int(digits, 0)
    if plain[0] == "-":
        value = -value
    # As Go parses them: unsigned ones have no sign.
    return value if -(2**63) <= value < (2**63 if plain[0] in "+-" else 2**64) else None


def _tagged(tag: str, text: str) -> Any:
    """Return the value of a scalar with an explicit tag.

    Raises:
        ValueError: the text does not fit the tag.
    """
    name = tag.removeprefix(_TAG)
    if name in ("str", "timestamp", "!"):
        return text
    kinds = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}
    if name not in kinds:
        raise ValueError(f"the tag {tag} is not supported")
    value = _scalar(text)
    if not isinstance(value, kinds[name]) or (isinstance(value, bool) and name != "bool"):  # type: ignore[arg-type]
        raise ValueError(f"{text[:40]!r} is no {name}")
    if name != "float":
        return value
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{text[:40]} is out of range") from None


@attrs.define
class _Open:
    """A collection that is being read. ``weight`` and ``height`` are those of its content so far,
    with aliases expanded; ``key`` is the one that waits for its value."""

    value: Any
    line: int
    anchor: str | None
    weight: int = 16
    height: int = 1
    key: Any = None
    has_key: bool = False
    merges: list[Any] = attrs.field(factory=list)


@attrs.frozen
class _Anchored:
    value: Any
    weight: int
    height: int


class _Builder:
    """Builds the value of one document; ``line`` is where its content begins."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.line = 0
        self._stack: list[_Open] = []
        # None marks an anchor whose collection is not finished.
        self._anchors: dict[str, _Anchored | None] = {}

    def build(self, loader: Any) -> Any:
        result = None
        while True:
            event = loader.get_event()
            if isinstance(event, yaml.DocumentEndEvent):
                return result
            line = event.start_mark.line + 1
            self.line = self.line or line
            done = self._take(event, line)
            if done is not None and not self._stack:
                result = done.value

    def _fault(self, line: int, reason: str) -> YamlFault:
        return YamlFault(self._number, line, reason)

    def _take(self, event: Any, line: int) -> _Anchored | None:
        """Process one event; return the value that it completes, if any."""
        if isinstance(event, yaml.ScalarEvent):
            done = self._scalar_of(event, line)
        elif isinstance(event, yaml.AliasEvent):
            done = self._alias(event.anchor or "", line)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            self._start(event, line)
            return None
        else:
            done = self._end(self._stack.pop())
        if self._stack:
            self._add(self._stack[-1], done, line)
        return done

    def _scalar_of(self, event: Any, line: int) -> _Anchored:
        text, plain = event.value, event.implicit[0]
        try:
            if event.tag not in (None, "!"):
                value = _tagged(event.tag, text)
            elif not plain or event.tag == "!":
                value = text
            else:
                value = _MERGE if text == "<<" and self._wants_key() else _scalar(text)
        except ValueError as error:
            raise self._fault(line, str(error)) from error
        done = _Anchored(value, 16 + len(text), 0)
        if event.anchor:
            self._anchors[event.anchor] = done
        return done

    def _wants_key(self) -> bool:
        top = self._stack[-1] if self._stack else None
        return top is not None and isinstance(top.value, dict) and not top.has_key

    def _alias(self, name: str, line: int) -> _Anchored:
        if name not in self._anchors:
            raise self._fault(line, f"the alias *{name} has no anchor")
        found = self._anchors[name]
        if found is None:
            raise self._fault(line, f"the alias *{name} refers to itself")
        return found

    def _start(self, event: Any, line: int) -> None:
        mapping = isinstance(event, yaml.MappingStartEvent)
        if event.tag not in (None, "!", f"{_TAG}{'map' if mapping else 'seq'}"):
            raise self._fault(line, f"the tag {event.tag} is not supported")
        if len(self._stack) >= MAX_LIST_DEPTH:
            raise self._fault(line, TOO_DEEP)
        if self._wants_key():
            raise self._bad_key("a mapping" if mapping else "a list", line)
        if event.anchor:
            self._anchors[event.anchor] = None
        self._stack.append(_Open({} if mapping else [], line, event.anchor))

    def _end(self, ended: _Open) -> _Anchored:
        # Merged keys yield to the mapping's own keys, and to those merged before.
        for merged in ended.merges:
            for key, value in merged.items():
                ended.value.setdefault(key, value)
        done = _Anchored(ended.value, ended.weight, ended.height)
        if ended.anchor:
            self._anchors[ended.anchor] = done
        return done

    def _add(self, top: _Open, done: _Anchored, line: int) -> None:
        top.weight += done.weight
        top.height = max(top.height, done.height + 1)
        if top.weight > MAX_WEIGHT:
            raise self._fault(line, f"more than {MAX_WEIGHT >> 20} MiB with aliases expanded")
        if len(self._stack) + done.height > MAX_LIST_DEPTH:
            raise self._fault(line, TOO_DEEP)
        if isinstance(top.value, list):
            top.value.append(done.value)
        elif not top.has_key:
            self._add_key(top, done.value, line)
        else:
            top.has_key = False
            if top.key is _MERGE:
                self._merge(top, done.value, line)
            else:
                top.value[top.key] = done.value

    def _add_key(self, top: _Open, key: Any, line: int) -> None:
        if key is not _MERGE:
            if not isinstance(key, str):
                raise self._bad_key(_shown(key), line)
            if key in top.value:
                raise self._fault(line, f"the key {key!r} occurs twice")
        top.key, top.has_key = key, True

    def _bad_key(self, what: str, line: int) -> YamlFault:
        hint = (
            "a template must be filled in first"
            if what in ("a mapping", "a list")
            else "put it in quotes"
        )
        return self._fault(line, f"a key must be a string, not {what}: {hint}")

    def _merge(self, top: _Open, value: Any, line: int) -> None:
        merged = value if isinstance(value, list) else [value]
        if not all(isinstance(each, dict) for each in merged):
            raise self._fault(line, "<< takes a mapping, or a list of mappings")
        top.merges.extend(merged)


def _shown(key: Any) -> str:
    if isinstance(key, (dict, list)):
        return "a mapping" if isinstance(key, dict) else "a list"
    words = {None: "null", True: "a boolean", False: "a boolean"}
    return words[key] if key is None or isinstance(key, bool) else f"{key}"


def reads_as_string(text: str) -> bool:
    """Return whether YAML readers of any kind read ``text``, written without quotes, as a
    string."""
    try:
        return isinstance(_scalar(text), str) and not _ELSEWHERE.fullmatch(text)
    except ValueError:
        return False
