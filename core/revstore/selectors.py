"""Label and field selectors, and the predicate by which storages filter.

Grammar and meaning are Kubernetes' own (apimachinery labels and fields). For labels: ``a=b``,
``a==b``, ``a!=b``, ``a in (x,y)``, ``a notin (x,y)``, ``a``, ``!a``, ``a>1``, ``a<1``, joined by
commas, which mean AND. For fields only: ``=``, ``==`` and ``!=``, with backslash escapes in the
value.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Generic, TypeVar

import attrs

from revstore.errors import InvalidSelector
from revstore.objects import field_value, labels_of
from revstore.raising import let_out

__all__ = [
    "FieldRequirement",
    "FieldSelector",
    "LabelRequirement",
    "LabelSelector",
    "SelectionPredicate",
    "everything",
    "parse_field_selector",
    "parse_label_selector",
]

T = TypeVar("T")

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_LABEL_KEY = re.compile(rf"(?:(?=.{{1,253}}/)[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?/)?{_NAME}", re.ASCII)
_LABEL_VALUE = re.compile(rf"(?:{_NAME})?", re.ASCII)
_TOKEN = re.compile(r"\s*(==|!=|=|!|<|>|\(|\)|,|[^\s=!<>(),]+)")
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
# How many parsed selectors are remembered: as many as are used in turn, one for each node.
_PARSED = 4096
_OPERATORS = {"=": "=", "==": "=", "!=": "!=", ">": ">", "<": "<", "in": "in", "notin": "notin"}


def _values(values: Iterable[str]) -> Collection[str]:
    """Return many values as a set and one as a tuple, which takes a quarter of the memory."""
    found = frozenset(values)
    return found if len(found) > 1 else tuple(found)


@attrs.frozen
class LabelRequirement:
    """One condition on one label. ``operator``: in, notin, exists, !, >, <."""

    key: str
    operator: str
    values: Collection[str] = attrs.field(default=(), converter=_values)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether the labels match; ``notin`` also matches an absent label, as in
        Kubernetes."""
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value in self.values
            case "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
        if value is None or not _INTEGER.fullmatch(value):
            return False
        (bound,) = self.values
        return int(value) > int(bound) if self.operator == ">" else int(value) < int(bound)

    def __str__(self) -> str:
        values = ",".join(sorted(self.values))
        match self.operator:
            case "in" if len(self.values) == 1:
                return f"{self.key}={values}"
            case "notin" if len(self.values) == 1:
                return f"{self.key}!={values}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({values})"
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
        return f"{self.key}{self.operator}{values}"


@attrs.frozen
class LabelSelector:
    """All requirements must match; a selector without any matches everything."""

    requirements: tuple[LabelRequirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)

    @property
    def empty(self) -> bool:
        return not self.requirements

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


@attrs.frozen
class FieldRequirement:
    """``field`` is a dotted path; ``operator`` is = or !=."""

    field: str
    operator: str
    value: str

    def matches(self, fields: Callable[[str], str]) -> bool:
        return (fields(self.field) == self.value) is (self.operator == "=")

    def __str__(self) -> str:
        escaped = re.sub(r"([\\,=])", r"\\\1", self.value)
        return f"{self.field}{self.operator}{escaped}"


@attrs.frozen
class FieldSelector:
    """All requirements must match; a selector without any matches everything."""

    requirements: tuple[FieldRequirement, ...] = ()

    def matches(self, fields: Callable[[str], str]) -> bool:
        """Return whether an object matches; ``fields`` returns its value at a path, "" if it has
        none."""
        return all(requirement.matches(fields) for requirement in self.requirements)

    @property
    def empty(self) -> bool:
        return not self.requirements

    def exact(self, field: str) -> str | None:
        """Return the value that ``field`` must equal, None if the selector does not require one."""
        for requirement in self.requirements:
            if requirement.field == field and requirement.operator == "=":
                return requirement.value
        return None

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


class _LabelParser:
    """A recursive-descent parser over the tokens of one label selector."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[str] = []
        position = 0
        while text[position:].strip():
            found = _TOKEN.match(text, position)
            if found is None:  # only possible on a lone delimiter that no alternative takes
                raise self._fail(f"a selector without {text[position:]!r}")
            self._tokens.append(found[1])
            position = found.end()
        self._next = 0

    def parse(self) -> LabelSelector:
        requirements = []
        if self._tokens:
            requirements.append(self._requirement())
        while self._next < len(self._tokens):
            if self._take() != ",":
                raise self._fail(f"',' before {self._tokens[self._next - 1]!r}")
            requirements.append(self._requirement())
        return LabelSelector(tuple(requirements))

    def _fail(self, expected: str) -> InvalidSelector:
        return InvalidSelector("labelSelector", self._text, expected)

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._next += 1
        return token

    def _requirement(self) -> LabelRequirement:
        if self._peek() == "!":
            self._take()
            return LabelRequirement(self._key(), "!")
        key = self._key()
        if self._peek() in ("", ","):
            return LabelRequirement(key, "exists")
        word = self._take()
        operator = _OPERATORS.get(word)
        if operator is None:
            raise self._fail(f"one of =, ==, !=, in, notin, >, < after {key!r}, not {word!r}")
        if operator in ("in", "notin"):
            return LabelRequirement(key, operator, self._values())
        value = self._value() if self._peek() not in ("", ",") else ""
        if operator in "<>":
            if not _INTEGER.fullmatch(value):
                raise self._fail(f"a whole number after {key}{operator}, not {value!r}")
            return LabelRequirement(key, operator, frozenset({value}))
        return LabelRequirement(key, "in" if operator == "=" else "notin", frozenset({value}))

    def _key(self) -> str:
        key = self._take()
        if not _LABEL_KEY.fullmatch(key):
            raise self._fail(f"a label key, not {key!r}")
        return key

    def _value(self) -> str:
        value = self._take()
        if not _LABEL_VALUE.fullmatch(value):
            raise self._fail(f"a label value, not {value!r}")
        return value

    def _values(self) -> frozenset[str]:
        if self._take() != "(":
            raise self._fail("'(' after in or notin")
        values = set()
        while True:
            values.add("" if self._peek() in (",", ")") else self._value())
            closing = self._take()
            if closing == ")":
                return frozenset(values)
            if closing != ",":
                raise self._fail("')' at the end of the values")


@functools.lru_cache(maxsize=_PARSED)
def parse_label_selector(text: str) -> LabelSelector:
    """Parse ``text``; "" selects everything.

    Raises:
        InvalidSelector: it does not parse; the error says what was expected.
    """
    return _LabelParser(text).parse()


@functools.lru_cache(maxsize=_PARSED)
def parse_field_selector(text: str) -> FieldSelector:
    """Parse ``text``; "" selects everything.

    In a value, comma, equals sign and backslash have a backslash before them.

    Raises:
        InvalidSelector: it does not parse; the error says what was expected.
    """
    return FieldSelector(
        tuple(_field_requirement(term, text) for term in _split_terms(text) if term)
    )


def _split_terms(text: str) -> list[str]:
    return re.findall(r"(?:\\.|[^,\\]|\\$)+", text, re.DOTALL)


def _field_requirement(term: str, text: str) -> FieldRequirement:
    found = re.fullmatch(r"([^=!\\]+)(==|!=|=)(.*)", term, re.DOTALL)
    if found is None or not found[1].strip():
        raise InvalidSelector("fieldSelector", text, f"path=value or path!=value, not {term!r}")
    if re.fullmatch(r"(?:\\[\\,=]|[^\\,=])*", found[3], re.DOTALL) is None:
        raise InvalidSelector(
            "fieldSelector", text, f"a backslash before each of \\ , = in {found[3]!r}"
        )
    value = re.sub(r"\\(.)", r"\1", found[3])
    return FieldRequirement(found[1].strip(), "!=" if found[2] == "!=" else "=", value)


def _default_fields(obj: Any) -> Callable[[str], str]:
    return lambda path: field_value(obj, path)


@attrs.frozen
class SelectionPredicate(Generic[T]):
    """The objects that a list or watch has: label AND field selector (storage.SelectionPredicate).
    Attributes are computed only for selectors that are not empty. ``fields`` returns an object's
    value at a field path, by default at any dotted path in it."""

    label: LabelSelector = LabelSelector()
    field: FieldSelector = FieldSelector()
    labels: Callable[[T], Mapping[str, str]] = labels_of
    fields: Callable[[T], Callable[[str], str]] = _default_fields

    @classmethod
    def of(
        cls,
        label: str | LabelSelector = "",
        field: str | FieldSelector = "",
        labels: Callable[[T], Mapping[str, str]] = labels_of,
        fields: Callable[[T], Callable[[str], str]] = _default_fields,
    ) -> SelectionPredicate[T]:
        """Create a predicate from selectors, parsed or not."""
        if not label and not field:
            return everything()
        return cls(
            parse_label_selector(label) if isinstance(label, str) else label,
            parse_field_selector(field) if isinstance(field, str) else field,
            labels,
            fields,
        )

    @property
    def empty(self) -> bool:
        """True if every object matches."""
        return self.label.empty and self.field.empty

    def matches(self, obj: T) -> bool:
        """Return whether ``obj`` is selected. Errors of the attribute functions come out."""
        if not self.label.empty and not self.label.matches(self.labels(obj)):
            return False
        return self.field.empty or self.field.matches(self.fields(obj))

    def selects(self, obj: T) -> bool:
        """Return whether ``obj`` matches; one whose attributes cannot be computed does not.
        (LIST-6)"""
        try:
            return self.matches(obj)
        except Exception as error:  # noqa: BLE001 - attribute functions are the user's
            let_out(error)
            return False


_EVERYTHING: SelectionPredicate[Any] = SelectionPredicate()


def everything() -> SelectionPredicate[Any]:
    """Return the predicate without conditions."""
    return _EVERYTHING
