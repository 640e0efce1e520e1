"""Label and field selectors: the grammar and meaning of Kubernetes' own."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from revstore.errors import InvalidSelector
from revstore.objects import ObjectMeta, field_value
from revstore.selectors import (
    SelectionPredicate,
    everything,
    parse_field_selector,
    parse_label_selector,
)


@pytest.mark.parametrize(
    ("text", "labels", "matches"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "b"}, True),
        ("a=b", {}, False),
        ("a=", {"a": ""}, True),
        ("a=", {}, False),
        ("a!=b", {"a": "c"}, True),
        ("a!=b", {}, True),
        ("a!=b", {"a": "b"}, False),
        ("a in (x,y)", {"a": "y"}, True),
        ("a in (x, y)", {"a": "z"}, False),
        ("a in (,x)", {"a": ""}, True),
        ("a notin (x,y)", {"a": "z"}, True),
        ("a notin (x,y)", {}, True),
        ("a notin (x,y)", {"a": "x"}, False),
        ("a", {"a": "anything"}, True),
        ("a", {}, False),
        ("!a", {}, True),
        ("!a", {"a": ""}, False),
        ("a>1", {"a": "2"}, True),
        ("a>1", {"a": "1"}, False),
        ("a>1", {"a": "two"}, False),
        ("a<5", {"a": "-3"}, True),
        ("a<5", {}, False),
        ("a=b,c!=d, e in (f)", {"a": "b", "e": "f"}, True),
        ("a=b,c!=d", {"a": "b", "c": "d"}, False),
        ("example.com/name=x", {"example.com/name": "x"}, True),
        (" a = b ", {"a": "b"}, True),
        ("in in (in)", {"in": "in"}, True),
    ],
)
def test_label_selectors(text, labels, matches):
    """LIST-10, VER-4: what selects what; notin and != also take objects without the label."""
    assert parse_label_selector(text).matches(labels) is matches


@pytest.mark.parametrize(
    "text",
    [
        ",", "a=b,", ",a", "a,,b", "a=b c=d", "a in", "a in x", "a in (x", "a in ()x", "a=b=c",
        "!a=b", "!", "=b", "a>x", "a>", "a in (x y)", "-a=b", "a=-b", "a=b-", "a/b/c=d", "/a=b",
        "A.com/x=y", "a" * 64, "a=" + "b" * 64, "ä=b", "a=(b)", "a ~ b",
    ],
)  # fmt: skip
def test_bad_label_selectors(text):
    """ERR-6: a selector that does not parse is refused with what was expected."""
    with pytest.raises(InvalidSelector, match="labelSelector") as caught:
        parse_label_selector(text)
    assert caught.value.value == text


@pytest.mark.parametrize(
    ("text", "fields", "matches"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "b"}, True),
        ("a!=b", {"a": "b"}, False),
        ("a!=b", {}, True),
        ("a=", {}, True),
        ("spec.nodeName=n1,metadata.name!=x", {"spec.nodeName": "n1"}, True),
        (r"a=b\,c", {"a": "b,c"}, True),
        (r"a=b\=c", {"a": "b=c"}, True),
        (r"a=b\\c", {"a": r"b\c"}, True),
        ("a=b c", {"a": "b c"}, True),
    ],
)
def test_field_selectors(text, fields, matches):
    """LIST-10, VER-4: only equality, with escapes in the value; absent is the empty string."""
    assert parse_field_selector(text).matches(lambda path: fields.get(path, "")) is matches


@pytest.mark.parametrize("text", ["a", "a>b", "=b", "!=b", r"a=b\c", "a=b\\", "a=b=c", "a in (b)"])
def test_bad_field_selectors(text):
    """ERR-6: as for labels."""
    with pytest.raises(InvalidSelector, match="fieldSelector"):
        parse_field_selector(text)


LABEL_KEYS = st.sampled_from(["a", "b", "example.com/c", "in", "notin"])
LABEL_VALUES = st.sampled_from(["", "x", "y", "1", "2"])


def _terms() -> st.SearchStrategy[str]:
    some = st.lists(LABEL_VALUES, min_size=1, max_size=3)
    return st.one_of(
        st.builds("{}={}".format, LABEL_KEYS, LABEL_VALUES),
        st.builds("{}!={}".format, LABEL_KEYS, LABEL_VALUES),
        st.builds("{} in ({})".format, LABEL_KEYS, some.map(",".join)),
        st.builds("{} notin ({})".format, LABEL_KEYS, some.map(",".join)),
        LABEL_KEYS,
        LABEL_KEYS.map("!{}".format),
        st.builds("{}>{}".format, LABEL_KEYS, st.sampled_from(["0", "1"])),
    )


@given(st.lists(_terms(), max_size=4).map(",".join), st.dictionaries(LABEL_KEYS, LABEL_VALUES))
def test_label_selectors_print_what_they_are(text, labels):
    """A selector's text parses back to one that means the same."""
    selector = parse_label_selector(text)
    again = parse_label_selector(str(selector))
    assert again == selector
    assert again.matches(labels) is selector.matches(labels)


@given(st.dictionaries(st.sampled_from(["a", "b.c"]), st.text(max_size=5), max_size=2))
def test_field_selectors_print_what_they_are(fields):
    """Any value can be written down, with escapes."""
    escape = str.maketrans({"\\": "\\\\", ",": "\\,", "=": "\\="})
    text = ",".join(f"{path}={value.translate(escape)}" for path, value in fields.items())
    selector = parse_field_selector(text)
    assert parse_field_selector(str(selector)) == selector
    assert selector.matches(lambda path: fields.get(path, ""))


@given(st.text(max_size=30))
def test_any_text_is_a_selector_or_refused(text):
    """One typed error, whatever is given."""
    for parse in (parse_label_selector, parse_field_selector):
        try:
            assert parse(str(parse(text))) == parse(text)
        except InvalidSelector as error:
            assert error.value == text  # noqa: PT017 - any text may also be valid


@attrs.frozen
class _Counting:
    metadata: ObjectMeta
    calls: list[str] = attrs.field(factory=list)


def test_attributes_are_computed_only_when_needed():
    """VER-4: an empty predicate never looks at the object; labels come before fields."""
    obj = _Counting(ObjectMeta(labels={"a": "b"}))

    def labels(obj):
        obj.calls.append("labels")
        return obj.metadata.labels

    def fields(obj):
        obj.calls.append("fields")
        return lambda path: field_value(obj, path)

    empty = SelectionPredicate(labels=labels, fields=fields)
    assert empty.empty
    assert empty.matches(obj)
    assert obj.calls == []
    both = SelectionPredicate(
        parse_label_selector("a=x"), parse_field_selector("b=c"), labels, fields
    )
    assert not both.empty
    assert not both.matches(obj)
    assert obj.calls == ["labels"]


def test_attribute_errors_surface():
    """VER-4: the predicate itself hides nothing."""

    def fail(_):
        raise LookupError("no labels")

    with pytest.raises(LookupError):
        SelectionPredicate(parse_label_selector("a"), labels=fail).matches(object())


def test_predicates_of_nothing_are_one():
    """CWATCH-9: the common case costs nothing."""
    assert SelectionPredicate.of() is everything()
    assert SelectionPredicate.of("", "").empty
    assert not SelectionPredicate.of("a").empty


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "x"),
        ("spec.nodeName", "n1"),
        ("spec.ready", "true"),
        ("spec.count", "3"),
        ("spec.list", ""),
        ("spec.nothing.below", ""),
        ("metadata", ""),
        ("spec.nodeName.deeper", ""),
    ],
)
def test_field_values_of_dicts(path, value):
    """VER-5: any dotted path in JSON spelling; what is no scalar is the empty string."""
    obj = {
        "metadata": {"name": "x"},
        "spec": {"nodeName": "n1", "ready": True, "count": 3, "list": [1]},
    }
    assert field_value(obj, path) == value


def test_field_values_of_typed_objects():
    """VER-5: the same paths on attrs classes, whose fields are in snake case."""
    obj = _Counting(ObjectMeta(name="x", resource_version="5"))
    assert field_value(obj, "metadata.name") == "x"
    assert field_value(obj, "metadata.resourceVersion") == "5"
    assert field_value(obj, "metadata.nothing") == ""
