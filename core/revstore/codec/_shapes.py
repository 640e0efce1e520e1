"""The JSON form of the values of one annotation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from revstore.codec._frozen import FrozenDict
from revstore.codec._json import Misfit, check_plain, encode_json
from revstore.codec._unknown import merge_items

__all__ = [
    "ListShape",
    "MapShape",
    "PlainShape",
    "Shape",
    "UnionShape",
    "ValuesShape",
    "changeable",
]

NoneType = type(None)


class Shape:
    """The values of one annotation.

    ``kinds`` are the JSON kinds they have, ``types`` the exact Python types. ``values`` are their
    JSON values if there are few, as (kind, value). ``check`` is an expression of ``{v}`` that is
    true for values that are the same in Python and in JSON; "" if there is no such test.
    ``levels`` are the levels of nesting that it adds to those of its parts.
    """

    kinds: frozenset[str]
    types: frozenset[type]
    values: Mapping[tuple[str, Any], Any] | None = None
    check = ""
    mutable = False
    levels: float = 0

    def __init__(self, name: str, kind: str, *types: type, check: str = "") -> None:
        self.name = name
        self.kinds = frozenset([kind])
        self.types = frozenset(types)
        self.check = check

    def encode(self, value: Any) -> Any:
        """Return the JSON value of ``value``.

        Raises:
            Misfit: ``value`` does not have this shape.
        """
        if type(value) not in self.types:
            raise Misfit(value, self.name)
        return value

    def decode(self, value: Any) -> Any:
        """Return the value that a JSON value encodes; raise any exception if it encodes none."""
        if type(value) not in self.types:
            raise Misfit(value, self.name)
        return value

    def parts(self) -> Iterator[Shape]:
        """Yield the shapes that it consists of."""
        return iter(())

    def step(self, value: Any, name: str) -> tuple[Shape, Any] | None:
        """Return the member ``name`` of ``value``, in JSON spelling; None if there is none."""
        return None

    def merge(self, old: Any, new: Any) -> Any:
        """Return ``new`` with those fields of ``old`` that no class here knows; both are JSON."""
        return new


class PlainShape(Shape):
    """``Any``: the values that JSON preserves unchanged."""

    mutable = True
    levels = math.inf

    def __init__(self) -> None:
        super().__init__("a JSON value", "")
        self.kinds = frozenset(["null", "bool", "int", "float", "str", "list", "object"])
        self.types = frozenset([NoneType, bool, int, float, str, list, dict, FrozenDict])

    def encode(self, value: Any) -> Any:
        check_plain(value)
        return value

    def decode(self, value: Any) -> Any:
        return value

    def step(self, value: Any, name: str) -> tuple[Shape, Any] | None:
        return (self, value[name]) if isinstance(value, dict) and name in value else None


class ScalarShape(Shape):
    """A type that JSON stores as a text or a number. ``read`` undoes ``write``."""

    def __init__(
        self,
        cls: type,
        write: Callable[[Any], Any],
        read: Callable[[Any], Any],
        *,
        kind: str = "str",
        name: str = "",
    ) -> None:
        super().__init__(name or cls.__name__, kind, cls)
        self._cls, self._write, self._read = cls, write, read
        self._json = {"str": str, "int": int}[kind]

    def encode(self, value: Any) -> Any:
        if type(value) is not self._cls:
            raise Misfit(value, self.name)
        return self._write(value)

    def decode(self, value: Any) -> Any:
        if type(value) is not self._json:
            raise Misfit(value, self.name)
        try:
            found = self._read(value)
        except (ValueError, ArithmeticError) as error:
            raise Misfit(value, self.name) from error
        if type(found) is not self._cls:
            raise Misfit(value, self.name)
        return found


class FloatShape(Shape):
    """``float``: an int that a float represents exactly is stored as a float."""

    def __init__(self) -> None:
        super().__init__("float", "float", float, check="type({v}) is float and {v} - {v} == 0.0")
        self.kinds = frozenset(["float", "int"])

    def encode(self, value: Any) -> Any:
        if type(value) is float and value - value == 0.0:  # finite
            return value
        if type(value) is int:
            try:
                if float(value) == value:
                    return float(value)
            except OverflowError:
                pass
        raise Misfit(
            value,
            "a float, or an int that equals one exactly (NaN and infinity cannot be stored)",
        )

    decode = encode


class ValuesShape(Shape):
    """A fixed set of values: a Literal, the members of an Enum."""

    values: Mapping[tuple[str, Any], Any]

    def __init__(
        self, name: str, members: Mapping[tuple[str, Any], Any], *, literal: bool = False
    ) -> None:
        super().__init__(name, "")
        self.values = members
        self.literal = literal
        self.kinds = frozenset(kind for kind, _ in members)
        self.types = frozenset(type(value) for value in members.values())
        # By type as well: 1 and True are the same key of a dict.
        self._json = {(type(value), value): json for (_, json), value in members.items()}
        self._values = {(type(json), json): value for (_, json), value in members.items()}

    def encode(self, value: Any) -> Any:
        if type(value) not in self.types:  # whose hash may be anything
            raise Misfit(value, self.name)
        try:
            return self._json[type(value), value]
        except KeyError:
            raise Misfit(value, self.name) from None

    def decode(self, value: Any) -> Any:
        try:
            return self._values[type(value), value]
        except (KeyError, TypeError):
            raise Misfit(value, self.name) from None


class ListShape(Shape):
    """A list in JSON: ``make`` builds the container from decoded items. ``items`` are the shapes of
    a tuple of that length, or one shape for all items."""

    levels = 1

    def __init__(
        self,
        name: str,
        cls: type,
        make: Callable[[Any], Any],
        items: tuple[Shape, ...],
        *,
        fixed: bool = False,
        unordered: bool = False,
        key: str = "",
    ) -> None:
        super().__init__(name, "list", cls)
        self._cls, self._make, self.items = cls, make, items
        self.fixed, self.unordered, self.key = fixed, unordered, key
        self.mutable = cls not in (tuple, frozenset)
        self._plain = items[0].check if items and not fixed else ""

    def encode(self, value: Any) -> list[Any]:
        if type(value) is not self._cls:
            raise Misfit(value, self.name)
        if getattr(value, "maxlen", None) is not None:
            raise Misfit(value, "a deque without maxlen, which is not stored")
        found = self._each(value, "encode")
        if self.unordered:
            found.sort(key=_sort_key)
        return found

    def decode(self, value: Any) -> Any:
        if type(value) is not list:
            raise Misfit(value, self.name)
        return self._make(self._each(value, "decode"))

    def _each(self, value: Any, way: str) -> list[Any]:
        at = 0
        try:
            if self.fixed:
                if len(value) != len(self.items):
                    raise Misfit(value, f"{len(self.items)} items")
                found = []
                for at, (shape, item) in enumerate(zip(self.items, value, strict=True)):  # noqa: B007
                    found.append(getattr(shape, way)(item))
                return found
            items = iter(value)
            change = getattr(self.items[0], way)
            return [change(item) for item in items]
        except Misfit as error:
            if not self.fixed:
                at = len(value) - items.__length_hint__() - 1
            raise error.under(at) from None

    def parts(self) -> Iterator[Shape]:
        return iter(self.items)

    def merge(self, old: Any, new: Any) -> Any:
        if self.fixed:
            return [
                shape.merge(before, after)
                for shape, before, after in zip(self.items, old, new, strict=True)
            ]
        merged = merge_items(self.items[0], old, new, key=self.key, unordered=self.unordered)
        if self.unordered:  # sorted as by the program that knows their fields
            merged.sort(key=_sort_key)
        return merged


class MapShape(Shape):
    """An object in JSON without fixed names. ``keys`` is None for keys of type str."""

    levels = 1

    def __init__(
        self,
        name: str,
        types: tuple[type, ...],
        make: Callable[[Any], Any] | None,
        keys: Shape | None,
        values: Shape,
        *,
        mutable: bool,
    ) -> None:
        super().__init__(name, "object", *types)
        self._make, self._keys, self.items = make, keys, values
        self.mutable = mutable
        self.plain_text = keys is None and values.check == "type({v}) is str"

    def encode(self, value: Any) -> dict[str, Any]:
        if type(value) not in self.types:
            raise Misfit(value, self.name)
        at: object = ""
        found = {}
        change = self.items.encode
        try:
            for at, item in value.items():
                if self._keys is not None:
                    name = key_text(self._keys.encode(at))
                elif type(at) is str:
                    name = at
                else:
                    raise Misfit(at, "a key of type str")
                found[name] = item if self.plain_text and type(item) is str else change(item)
        except Misfit as error:
            raise error.under(at) from None
        return found

    def decode(self, value: Any) -> Any:
        if type(value) is not dict:
            raise Misfit(value, self.name)
        change = self.items.decode
        at: Any = ""
        try:
            if self.plain_text:
                for at, item in value.items():  # noqa: B007 - names the place of a Misfit
                    if type(item) is not str:
                        raise Misfit(item, "str")
                found = value
            elif self._keys is None:
                found = {}
                for at, item in value.items():
                    found[at] = change(item)
            else:
                found = {}
                for at, item in value.items():
                    found[key_value(self._keys, at)] = change(item)
                if len(found) < len(value):
                    raise Misfit(value, "keys that decode to different values")
        except Misfit as error:
            raise error.under(at) from None
        return found if self._make is None else self._make(found)

    def parts(self) -> Iterator[Shape]:
        yield self.items
        if self._keys is not None:
            yield self._keys

    def step(self, value: Any, name: str) -> tuple[Shape, Any] | None:
        if self._keys is None:
            return (self.items, value[name]) if name in value else None
        for key, item in value.items():
            if key_text(self._keys.encode(key)) == name:
                return self.items, item
        return None

    def merge(self, old: Any, new: Any) -> Any:
        merge = self.items.merge
        for name, value in new.items():
            if name in old:
                new[name] = merge(old[name], value)
        return new


class UnionShape(Shape):
    """One of several shapes, distinguished by their Python type and by their JSON."""

    def __init__(
        self, name: str, members: tuple[Shape, ...], choose: Callable[[Any], Shape | None]
    ) -> None:
        super().__init__(name, "")
        self.members = members
        self.kinds = frozenset().union(*(each.kinds for each in members))
        self.types = frozenset().union(*(each.types for each in members))
        self._by_type = {cls: each for each in members for cls in each.types}
        self._by_type |= {cls: each for each in members for cls in each.types if each.values}
        for each in members:
            if isinstance(each, FloatShape) and int not in self._by_type:
                self._by_type[int] = each
        self._choose = choose
        checks = [f"({each.check})" for each in members if each.check]
        self.check = " or ".join(checks) if len(checks) == len(members) else ""

    def member_of(self, value: Any) -> Shape | None:
        """Return the member that a Python value belongs to."""
        found = self._by_type.get(type(value))
        if type(value) is dict and sum(dict in each.types for each in self.members) > 1:
            # TypedDicts: the same dict in JSON, except for the values
            return self._choose(value) or self._by_encoding(value)
        return found

    def _by_encoding(self, value: Any) -> Shape | None:
        """Return the member for a dict whose tag has another value in JSON, for example an Enum."""
        for each in self.members:
            if dict in each.types:
                try:
                    if self._choose(each.encode(value)) is each:
                        return each
                except Misfit:
                    pass
        return None

    def encode(self, value: Any) -> Any:
        found = self.member_of(value)
        if found is None:
            raise Misfit(value, self.name)
        return found.encode(value)

    def decode(self, value: Any) -> Any:
        found = self._choose(value)
        if found is None:
            raise Misfit(value, self.name)
        return found.decode(value)

    def parts(self) -> Iterator[Shape]:
        return iter(self.members)

    def step(self, value: Any, name: str) -> tuple[Shape, Any] | None:
        found = self.member_of(value)
        return None if found is None else found.step(value, name)

    def merge(self, old: Any, new: Any) -> Any:
        before, after = self._choose(old), self._choose(new)
        return new if before is None or before is not after else before.merge(old, new)


def changeable(shape: Shape, above: set[int] | None = None) -> bool:
    """Return whether a value, or anything that it holds, can be changed."""
    above = set() if above is None else above
    if id(shape) in above:
        return False  # a class that contains itself is as frozen as its other fields
    above.add(id(shape))
    return shape.mutable or any(changeable(each, above) for each in shape.parts())


def depth(shape: Shape, known: dict[int, float] | None = None) -> float:
    """Return the most levels of nesting that the JSON of a value may have; infinity without such a
    limit, as of a class that contains itself."""
    known = {} if known is None else known
    if id(shape) not in known:
        known[id(shape)] = math.inf  # for a part that contains the shape itself
        below = max((depth(each, known) for each in shape.parts()), default=0)
        known[id(shape)] = shape.levels + below
    return known[id(shape)]


def key_text(value: Any) -> str:
    """Convert a scalar of JSON to a key."""
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    try:
        return str(value)
    except ValueError:  # more digits than Python writes
        raise Misfit(value, "a key of fewer digits") from None


def key_value(shape: Shape, text: str) -> Any:
    """Return the key that ``text`` encodes.

    Raises:
        Misfit: it encodes none.
    """
    value: Any = text
    if "int" in shape.kinds:
        try:
            value = int(text)
        except ValueError:
            raise Misfit(text, "a key that is a whole number") from None
        if str(value) != text:
            raise Misfit(text, "a key that is a whole number")
    elif "bool" in shape.kinds:
        value = {"true": True, "false": False}.get(text, text)
    return shape.decode(value)


def _sort_key(value: Any) -> tuple[str, Any]:
    """Return a key that sorts JSON values in the same order in every run."""
    if isinstance(value, str):
        return "s", value
    if isinstance(value, (int, float)):
        return "n", value
    return "z", encode_json([value])
