"""Functions generated for one class: a loop over its fields would cost several times as much."""

from __future__ import annotations

import keyword
import math
import types
from collections.abc import Callable
from typing import Any

import msgspec

from revstore.codec._class_shape import ClassShape, Field
from revstore.codec._classes import ABSENT, UNSET
from revstore.codec._json import Misfit, check_plain
from revstore.codec._models import make_model, validate_model, with_extras, with_private
from revstore.codec._own_code import again, copying, is_code, texts, with_code
from revstore.codec._shapes import ListShape, MapShape, Shape, UnionShape, changeable
from revstore.raising import text_of

__all__ = ["decoder", "encoder"]


class _Source:
    """The lines of a function and the values that they name."""

    def __init__(self, head: str) -> None:
        self.lines = [head]
        self.names: dict[str, Any] = {"Misfit": Misfit, "isfinite": math.isfinite}

    def add(self, indent: int, line: str, **names: Any) -> None:
        self.lines.append("    " * indent + line)
        self.names.update(names)

    def build(self, file: str) -> Any:
        code = compile("\n".join(self.lines), f"<revstore codec of {file}>", "exec")
        exec(code, self.names)  # noqa: S102 - our own lines; names of fields are quoted in them
        return self.names["made"]


def encoder(shape: ClassShape) -> Callable[[Any], Any]:
    """Return a function from an object to its JSON value."""
    info = shape.info
    source = _Source("def made(o):")
    source.names |= {"cls": info.cls, "shape": shape}
    is_dict = info.library == "typeddict"
    source.add(1, f"if type(o) is not {'dict' if is_dict else 'cls'}:")
    source.add(2, f"raise Misfit(o, {shape.name!r})")
    # Those that may change values get a copy that was read back, not the caller's object.
    if info.validate is not None and not info.changes:
        source.add(1, "validate(o, shape)", validate=_validated)
    if is_dict:
        source.names["plain"] = _typeddict_encoder(shape)
        source.add(1, "return plain(o)")
        return source.build(shape.name)  # type: ignore[no-any-return]
    source.add(1, "at = ''")
    source.add(1, "try:")
    fields = list(shape.fields.values())
    for index, field in enumerate(fields):
        _encode_field(source, index, field)
    if not fields:
        source.add(2, "pass")
    source.add(1, "except Misfit as error:")
    source.add(2, "raise error.under(at) from None")
    source.add(1, "except AttributeError as error:")
    source.add(2, "raise Misfit(o, f'a value for every field ({error})') from None")
    if info.omit_empty:
        _return_filled(source, fields)
    else:
        items = sorted((field.json_name, index) for index, field in enumerate(fields))
        source.add(1, "return {" + ", ".join(f"{name!r}: v{at}" for name, at in items) + "}")
    made: Callable[[Any], Any] = source.build(shape.name)
    if info.extras:
        made = with_extras(made)
    if info.library == "pydantic" and info.cls.__private_attributes__:
        made = with_private(made, shape)
    if info.library in ("attrs", "dataclass") and any(map(is_code, _slots(shape).values())):
        made = with_code(made, shape)
    return made


def _encode_field(source: _Source, index: int, field: Field) -> None:
    v, name = f"v{index}", field.json_name
    if field.constant:
        source.add(2, f"{v} = c{index}", **{f"c{index}": field.get(None)})
        return
    plain = field.name.isidentifier() and not keyword.iskeyword(field.name)
    source.add(2, f"{v} = o.{field.name}" if plain else f"{v} = getattr(o, {field.name!r})")
    shape, indent = field.shape, 2
    inner = _optional(shape)
    if inner is not None and not shape.check:
        source.add(indent, f"if {v} is not None:")
        shape, indent = inner, 3
    names = {f"e{index}": shape.encode if not isinstance(shape, ClassShape) else _late(shape)}
    slow = f"at = {name!r}; {v} = e{index}({v})"
    if shape.check:
        source.add(indent, f"if not ({shape.check.format(v=v)}): {slow}", **names)
    elif _plain_list(shape, tuple):
        source.add(indent, f"if type({v}) is not tuple: {slow}", **names)
        source.add(indent, "else:")
        source.add(indent + 1, f"for x in {v}:")
        source.add(indent + 2, f"if not ({shape.items[0].check.format(v='x')}):")  # type: ignore[attr-defined]
        source.add(indent + 3, f"{slow}; break")
    elif _text_map(shape):
        source.names |= {f"t{index}": shape.types}
        source.add(indent, f"if type({v}) not in t{index}: {slow}", **names)
        source.add(indent, "else:")
        source.add(indent + 1, f"for k, x in {v}.items():")
        source.add(indent + 2, "if type(k) is not str or type(x) is not str:")
        source.add(indent + 3, f"{slow}; break")
    elif isinstance(shape, ClassShape):
        source.add(indent, f"at = {name!r}; {v} = e{index}.encode({v})", **names)
    else:
        source.add(indent, slow, **names)


def _late(shape: ClassShape) -> ClassShape:
    """Return the shape, whose function may not exist yet: it is looked up when it is needed."""
    return shape


def _optional(shape: Shape) -> Shape | None:
    """Return X of ``X | None``."""
    if not isinstance(shape, UnionShape) or len(shape.members) != 2:
        return None
    rest = [each for each in shape.members if each.kinds != {"null"}]
    return rest[0] if len(rest) == 1 else None


def _plain_list(shape: Shape, cls: type) -> bool:
    return (
        isinstance(shape, ListShape)
        and shape.types == {cls}
        and not shape.fixed
        and bool(shape.items[0].check)
        and "float" not in shape.items[0].kinds
    )


def _text_map(shape: Shape) -> bool:
    return isinstance(shape, MapShape) and shape.plain_text


def _return_filled(source: _Source, fields: list[Field]) -> None:
    """Leave out empty values, as Kubernetes does."""
    source.add(1, "d = {}")
    for field_name, index in sorted((field.json_name, at) for at, field in enumerate(fields)):
        field = fields[index]
        if field.default is None:
            source.add(1, f"d[{field_name!r}] = v{index}")
            continue
        empty = f"v{index} is not None" if field.default(None) is None else f"v{index}"
        source.add(1, f"if {empty}: d[{field_name!r}] = v{index}")
    source.add(1, "return d")


def _validated(obj: Any, shape: ClassShape) -> None:
    try:
        shape.info.validate(obj)  # type: ignore[misc]
    except Exception as error:
        text = text_of(error)
        raise Misfit(obj, f"what the validators of {shape.name} accept ({text})") from error


def _typeddict_encoder(shape: ClassShape) -> Callable[[Any], Any]:
    def encode(obj: dict[str, Any]) -> dict[str, Any]:
        found = {}
        at: object = ""
        for name, field in shape.fields.items():
            if name not in obj and not field.optional:
                raise Misfit(obj, f"a dict with {name!r}")
        try:
            for at, value in obj.items():
                if type(at) is not str:
                    raise Misfit(at, "a key of type str")
                known = shape.fields.get(at)
                if known is None:
                    shape.allow(at, value)
                    check_plain(value)
                found[at] = value if known is None else known.shape.encode(value)
        except Misfit as error:
            raise error.under(at) from None
        return found

    return encode


def _slots(shape: ClassShape) -> dict[str, Any]:
    """Return the class attribute under the name of each field."""
    mro = shape.info.cls.__mro__
    return {
        field.name: next((vars(base)[field.name] for base in mro if field.name in vars(base)), None)
        for field in shape.fields.values()
    }


def decoder(shape: ClassShape) -> Callable[[Any], Any]:
    """Return a function from a JSON value, which it consumes, to an object."""
    info = shape.info
    source = _Source("def made(d):")
    source.names |= {"cls": info.cls, "new": object.__new__, "ABSENT": ABSENT, "shape": shape}
    source.add(1, "if type(d) is not dict:")
    source.add(2, f"raise Misfit(d, {shape.name!r})")
    if info.library == "typeddict":
        source.names["plain"] = _typeddict_decoder(shape)
        source.add(1, "return plain(d)")
        return source.build(shape.name)  # type: ignore[no-any-return]
    source.add(1, "pop = d.pop")
    source.add(1, "at = ''")
    own = info.library in ("attrs", "dataclass")
    source.add(1, "o = new(cls)" if own else "o = None")
    setter = _set_fields(source, shape)
    source.add(1, "try:")
    fields = list(shape.fields.values())
    for index, field in enumerate(fields):
        _decode_field(source, index, field, omit_empty=info.omit_empty)
        if own:
            setter(2, index, field)
    if not fields:
        source.add(2, "pass")
    source.add(1, "except Misfit as error:")
    source.add(2, "raise error.under(at) from None")
    if not info.extras:
        source.add(1, "if d: leftover(d)", leftover=shape.leftover)
    _FINISHERS[info.library](source, shape)
    source.add(1, "return o")
    return source.build(shape.name)  # type: ignore[no-any-return]


def _decode_field(source: _Source, index: int, field: Field, *, omit_empty: bool) -> None:
    v, name = f"v{index}", field.json_name
    source.add(2, f"{v} = pop({name!r}, ABSENT)")
    shape = field.shape
    null = omit_empty and "null" not in shape.kinds and field.default is not None
    inner = _optional(shape)
    condition = ""
    if inner is not None and not shape.check:
        shape, condition = inner, f"{v} is not None"
    late = isinstance(shape, ClassShape)
    source.names[f"e{index}"] = shape if late else shape.decode
    call = f"e{index}.decode({v})" if late else f"e{index}({v})"
    slow = f"at = {name!r}; {v} = {call}"
    fast = shape.check.format(v=v)
    if fast:
        source.add(2, f"if not ({fast}):")
        _absent(source, 3, index, field, null=null)
        source.add(3, f"else: {slow}")
        return
    _absent(source, 2, index, field, null=null)
    source.add(2, f"elif {condition or 'True'}:")
    if _plain_list(shape, tuple):
        source.add(3, f"if type({v}) is not list: {slow}")
        source.add(3, "else:")
        source.add(4, f"for x in {v}:")
        source.add(5, f"if not ({shape.items[0].check.format(v='x')}):")  # type: ignore[attr-defined]
        source.add(6, f"{slow}; break")
        source.add(4, f"else: {v} = tuple({v})")
    else:
        source.add(3, slow)


def _absent(source: _Source, indent: int, index: int, field: Field, *, null: bool) -> None:
    """Give an absent field its default; with ``null`` a null as well, which Kubernetes does not
    distinguish from an empty value."""
    source.add(indent, f"if v{index} is ABSENT{f' or v{index} is None' if null else ''}:")
    if field.default is None:
        missing = f"a field {field.json_name!r}, which is required"
        source.add(indent + 1, f"raise Misfit({{}}, {missing!r})")
        return
    plain = type(field.value) in (str, int, bool, float, type(None))
    if plain or (type(field.value) is tuple and not field.value):
        source.add(indent + 1, f"v{index} = f{index}", **{f"f{index}": field.value})
    else:
        make = field.default if field.value is ABSENT or field.unset else copying(field.value)
        source.add(indent + 1, f"v{index} = f{index}(o)", **{f"f{index}": make})


def _set_fields(source: _Source, shape: ClassShape) -> Callable[[int, int, Field], None]:
    """Return how to set the fields of an object, frozen or not.

    It bypasses ``__init__``, whose converters would change what was stored.
    """
    cls: Any = shape.info.cls
    plain = cls.__setattr__ is object.__setattr__
    slots = _slots(shape)

    def add(indent: int, index: int, field: Field) -> None:
        v, name = f"v{index}", field.name
        slot = slots[name]
        if field.unset:
            source.add(indent, f"if {v} is not UNSET:", UNSET=UNSET)
            indent += 1
        if isinstance(slot, types.MemberDescriptorType):
            source.add(indent, f"s{index}(o, {v})", **{f"s{index}": slot.__set__})
        elif plain and name.isidentifier() and not keyword.iskeyword(name):
            source.add(indent, f"o.{name} = {v}")
        else:
            source.add(indent, f"setfield(o, {name!r}, {v})", setfield=object.__setattr__)

    return add


def _finish_object(source: _Source, shape: ClassShape) -> None:
    """Do what ``__init__`` does once the fields are set; set fields again that ``__post_init__``
    changes."""
    info = shape.info
    if _caches_hash(info.cls):
        source.add(1, "setfield(o, '_attrs_cached_hash', None)", setfield=object.__setattr__)
    calls = _after(source, shape)
    if info.validate is not None:
        source.names["validate"] = info.validate
        calls.insert(0, "validate(o)")
    if info.changes or info.after:
        _run_own_code(source, shape, *calls)
        add = _set_fields(source, shape)
        for index, field in enumerate(shape.fields.values()):
            add(1, index, field)
    elif calls:
        _run(source, shape, *calls)


def _after(source: _Source, shape: ClassShape) -> list[str]:
    """Return the calls that ``__init__`` would make at its end."""
    functions = {f"after{at}": each for at, each in enumerate(shape.info.after)}
    source.names |= functions
    return [f"{name}(o)" for name in functions]


def _run(source: _Source, shape: ClassShape, *calls: str) -> None:
    """Run the class's own code; its errors become errors of the values."""
    source.add(1, "try:")
    for call in calls:
        source.add(2, call)
    source.add(1, "except Exception as error:")
    source.add(2, f"raise refused(o, {shape.name!r}, error) from error", refused=_refused)


def _refused(obj: Any, name: str, error: Exception) -> Misfit:
    if isinstance(error, Misfit):
        return error
    wanted = f"what the code of {name} accepts ({text_of(error)})"
    return Misfit("..." if obj is None else obj, wanted)


def _run_own_code(source: _Source, shape: ClassShape, *calls: str) -> None:
    """Run ``calls`` of code that may change values, and rebuild what it changed in place."""
    loose = {
        f"v{at}": field.shape
        for at, field in enumerate(shape.fields.values())
        if not field.constant and not field.unset and changeable(field.shape)
    }
    values = "".join(f"{name}, " for name in loose)
    if loose:
        source.add(1, f"before = texts(({values}))", texts=texts(tuple(loose.values())))
    _run(source, shape, *calls)
    if loose:
        made = again(tuple(loose.values()), source.names["texts"])
        source.add(1, f"{values}= again(before, ({values}))", again=made)


def _caches_hash(cls: type[Any]) -> bool:
    properties = getattr(cls, "__attrs_props__", None)
    return hasattr(cls, "_attrs_cached_hash") or "CACHED" in str(
        getattr(properties, "hashability", "")
    )


def _finish_struct(source: _Source, shape: ClassShape) -> None:
    fields = [(at, each) for at, each in enumerate(shape.fields.values()) if not each.constant]
    made = "o = cls(" + ", ".join(f"{each.name}=v{at}" for at, each in fields) + ")"
    if not shape.info.after:
        source.add(1, made)
        return
    # Its __post_init__ is called by cls().
    _run_own_code(source, shape, made)
    for at, each in fields:
        source.add(1, f"force(o, {each.name!r}, v{at})", force=msgspec.structs.force_setattr)


def _finish_tuple(source: _Source, shape: ClassShape) -> None:
    values = "".join(f"v{at}, " for at in range(len(shape.fields)))
    source.add(1, f"o = new(cls, ({values}))", new=tuple.__new__)


def _finish_model(source: _Source, shape: ClassShape) -> None:
    fields = list(enumerate(shape.fields.values()))
    values = "values = {" + ", ".join(f"{each.name!r}: v{at}" for at, each in fields) + "}"
    extra = "d" if shape.info.extras else "None"
    source.add(1, values)
    source.add(1, f"o = make(cls, values, {extra})", make=make_model)
    # Whatever they would change stays as it was stored.
    check = "check(shape, values)"
    source.names["check"] = validate_model
    for calls in (_after(source, shape), [check] if shape.info.changes else []):
        if calls:
            _run_own_code(source, shape, *calls)
            source.add(1, values)
            source.add(1, "o.__dict__.update(values)")
    if not shape.info.changes:
        source.add(1, check)


def _typeddict_decoder(shape: ClassShape) -> Callable[[Any], Any]:
    def decode(value: dict[str, Any]) -> dict[str, Any]:
        at = ""
        for name, field in shape.fields.items():
            if name not in value and not field.optional:
                raise Misfit({}, f"a field {name!r}, which is required")
        try:
            for at, item in value.items():
                known = shape.fields.get(at)
                if known is None:
                    shape.allow(at, item)
                else:
                    value[at] = known.shape.decode(item)
        except Misfit as error:
            raise error.under(at) from None
        return value

    return decode


_FINISHERS: dict[str, Callable[[_Source, ClassShape], None]] = {
    "attrs": _finish_object,
    "dataclass": _finish_object,
    "msgspec": _finish_struct,
    "namedtuple": _finish_tuple,
    "pydantic": _finish_model,
}
