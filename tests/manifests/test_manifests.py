"""The manifest reader: what kubectl reads, read alike; everything else refused in one line."""

import datetime
import json
import math
import os
import re
import shutil
import subprocess

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from revstore.codec import FrozenDict
from revstore.errors import InvalidArgument
from revstore.manifests import (
    MAX_BYTES,
    ManifestError,
    find_sources,
    parse,
    read,
    to_yaml,
)

HEAD = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n"


def value_of(text):
    (manifest,) = parse(f"{HEAD}value: {text}\n".encode(), "a.yaml")
    return manifest.object["value"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("y", True),
        ("On", True),
        ("TRUE", True),
        ("no", False),
        ("n", False),
        ("off", False),
        ("yEs", "yEs"),
        ("'yes'", "yes"),
        ("~", None),
        ("", None),
        ("null", None),
        ("12", 12),
        ("+12", 12),
        ("-0x1F", -31),
        ("0644", 420),
        ("0o17", 15),
        ("0b101", 5),
        ("089", 89),
        ("1_000", 1000),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", 2**64),
        ("-9223372036854775809", -(2**63) - 1),
        ("1" * 4300, int("1" * 4300)),
        ("0X1f", 31),
        ("0B1", 1),
        ("0O17", 15),
        ("0b-101", -5),
        ("0x_F_F", 255),
        ("0xFFFFFFFFFFFFFFFF", 2**64 - 1),
        ("-0x8000000000000000", -(2**63)),
        ("0x10000000000000000", "0x10000000000000000"),
        ("+0x8000000000000000", "+0x8000000000000000"),
        ("0b" + "1" * 65, "0b" + "1" * 65),
        ("0o7777777777777777777777", "0o7777777777777777777777"),
        # Not octal any more, as kubectl has it, but not rounded either.
        ("07777777777777777777777", 7777777777777777777777),
        ("0x", "0x"),
        ("0X", "0X"),
        ("0_", 0),
        ("1_", 1),
        ("_1", "_1"),
        (".5_0", 0.5),
        (".5__0", ".5__0"),
        ("._5", "._5"),
        ("+.5", 0.5),
        ("-0", 0),
        ("-0.0", -0.0),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("1.5e-3", 0.0015),
        ("22:22", "22:22"),
        ("1.2.3", "1.2.3"),
        ("2020-01-01", "2020-01-01"),
        ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
        ("!!str 5", "5"),
        ("!!int '7'", 7),
        ("!!float 7", 7.0),
        ("! 7", "7"),
        ("=", "="),
        ("|\n  a\n  b\n", "a\nb\n"),
        ("[a, {b: c}]", ["a", {"b": "c"}]),
    ],
)
def test_scalars_are_read_as_kubectl_reads_them(text, value):
    """YAML 1.1 booleans and numbers, dates and base 60 as strings, quoted text as it is."""
    read_value = value_of(text)

    assert value == read_value
    assert type(value) is type(read_value)
    assert str(value) == str(read_value)  # -0.0


@pytest.mark.parametrize(
    ("text", "reason", "line"),
    [
        ("value: .inf", "cannot be represented in JSON", 4),
        ("value: .NaN", "cannot be represented in JSON", 4),
        ("value: 1e999", "out of range", 4),
        ("value: " + "1" * 4301, "4301 digits: too many", 4),
        ("value: !!float " + "1" * 400, "out of range", 4),
        ("value: !!python/object:os.x {}", "tag", 4),
        ("value: !!binary aGk=", "tag", 4),
        ("value: !Ref x", "tag", 4),
        ("value: !!int x", "no int", 4),
        ("value: !!set {a}", "tag", 4),
        ("kind: Pod", "twice", 4),
        ("value: {a: 1, b: 2, a: 3}", "twice", 4),
        ("value:\n  1: a", "must be a string", 5),
        ("value:\n  on: a", "put it in quotes", 5),
        ("value:\n  ~: a", "must be a string", 5),
        ("value: {{name}}", "template", 4),
        ("? [a]\n: b", "must be a string", 4),
        ("value: *nope", "no anchor", 4),
        ("value: &a [*a]", "refers to itself", 4),
        ("value: {<<: 1}", "<< takes a mapping", 4),
        ("value: ]", "did not find expected node", 4),
        ("value: 'open", "unexpected end of stream", 5),
        ("  bad indent: 1", "did not find", 4),
        ("value: " + "[" * 102, "nested more than 100", 4),
    ],
)
def test_what_is_refused_names_file_document_and_line(text, reason, line):
    """Each malformation is one ManifestError, of one line, that says where it is."""
    with pytest.raises(ManifestError, match=reason) as caught:
        parse(f"# first\n---\n{HEAD}{text}\n".encode(), "dir/a.yaml")

    assert (caught.value.document, caught.value.line) == (1, line + 2)
    assert str(caught.value).startswith(f"dir/a.yaml: document 1, line {line + 2}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("just text", "not an object: a string"),
        ("- a", "not an object: a list"),
        ("kind: Pod\nmetadata: {name: a}", "apiVersion is missing"),
        ("apiVersion: v1\nmetadata: {name: a}", "kind is missing"),
        ("apiVersion: 1\nkind: Pod\nmetadata: {name: a}", "apiVersion is a number, not a string"),
        ("apiVersion: v1\nkind: Pod", "metadata is missing"),
        ("apiVersion: v1\nkind: Pod\nmetadata: []", "metadata is a list"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {generateName: a}", "metadata.name is missing"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: 1}", "metadata.name is a number"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: 0x1F}",
            "metadata.name is a number, not a string: put it in quotes, it is read as 31",
        ),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: }", "name is null, not a string: write "),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: ''}", "metadata.name is empty"),
        ("apiVersion: v1\nkind: Pod\nmetadata:", "metadata is null, not a mapping"),
        ("apiVersion:\nkind: Pod\nmetadata: {name: a}", "apiVersion is null, not a string"),
        ("apiVersion: v1\nkind: [Pod]\nmetadata: {name: a}", "kind is a list, not a string"),
        ("apiVersion: v1\nkind: yes\nmetadata: {name: a}", "kind is a boolean, not a string"),
        ("true", "not an object: a boolean"),
        ("12", "not an object: a number"),
        ("apiVersion: v1\nkind: List", "items is missing"),
        ("apiVersion: v1\nkind: List\nitems: {a: 1}", "items is a mapping, not a list"),
        ("apiVersion: v1\nkind: List\nitems: [null]", "items.0.: not an object: null"),
        (
            "apiVersion: v1\nkind: List\nitems: [{kind: PodList, items: [{metadata: {}}]}]",
            "items.0.\\.items.0.: apiVersion is null",
        ),
        (
            "apiVersion: v1\nkind: PodList\nitems: [{metadata: {name: a}}, {metadata: {}}]",
            "items.1.: metadata.name is missing",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: {bar: }}",
            "annotations\\['bar'\\] is null, not a string: write \"\" for an empty string",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {on: 'x', b: yes}}",
            "a key must be a string",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {b: yes}}",
            "labels\\['b'\\] is a boolean, not a string: put it in quotes, it is read as true",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {b: {c: d}}}",
            "labels\\['b'\\] is a mapping, not a string$",
        ),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: 1}", "metadata.namespace is"),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {v: 1}}",
            "labels\\['v'\\] is a num",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: [x]}",
            "annotations is a list",
        ),
    ],
)
def test_documents_that_are_no_objects(text, reason):
    """A document that could not be stored is refused with its number."""
    with pytest.raises(ManifestError, match=reason) as caught:
        parse(f"{HEAD}---\n{text}\n".encode())

    assert caught.value.document == 2
    assert isinstance(caught.value, InvalidArgument)


@pytest.mark.parametrize("bad", ['{"kind": "Pod"}', "[1]", "x", '{"kind": "List", "items": [7]}'])
def test_documents_are_named_by_the_line_that_they_begin_in(bad):
    """Whether YAML or JSON, however the documents are parted, and for good ones too."""
    good = '{"apiVersion": "v1",\n"kind": "Pod",\n"metadata": {"name": "a"}}'
    parted = ("---\n# a comment\n\n", "\n...\n---\n", "---\n\n---\n", "--- # this is\n")
    for name, between in (*(("a.yaml", f"\n{each}") for each in parted), ("a.json", " \n\n")):
        text = f"\n{good}{between}{bad if name == 'a.yaml' or bad != 'x' else '7'}\n"
        with pytest.raises(ManifestError) as caught:
            parse(text.encode(), name)
        assert caught.value.line == text.count("\n")
        assert caught.value.document == (3 if "---\n\n---" in between else 2)
        assert str(caught.value).startswith(f"{name}: document {caught.value.document}, line ")
        (only,) = parse(f"\n\n{good}\n".encode(), name)
        assert only.where == f"{name} (document 1, line 3)"


def test_aliases_and_merges_are_expanded():
    """An alias gives its anchor's value; a merge yields to own keys and to earlier merges."""
    value = value_of("[&a {x: 1, w: 1z}, &b {x: 2, z: 2}, {x: 0, <<: [*a, *b]}, *a]")

    assert value[2] == {"x": 0, "w": "1z", "z": 2}
    assert value[0] == value[3]


def test_alias_bombs_are_refused_at_once():
    """Aliases are counted as what they expand to, in size and in depth, before they are built."""
    wide = "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30))
    deep = "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 200))
    for text, reason in ((wide, "MiB with aliases"), (deep, "levels deep")):
        with pytest.raises(ManifestError, match=reason):
            parse(f"{HEAD}a0: &a0 [x]\n{text}".encode())


def test_a_hundred_levels_are_allowed():
    """The bound on nesting is 100 levels, the object's own among them."""
    assert value_of("[" * 99 + "]" * 99)


def test_documents_lists_and_empty_ones():
    """Empty documents count but give nothing; a List gives its items, a PodList with their type."""
    item = '{"metadata": {"name": "c"}}'
    text = (
        f"---\n---\n{HEAD}---\napiVersion: v1\nkind: List\nitems:\n"
        f"- {{apiVersion: v1, kind: Service, metadata: {{name: b}}}}\n"
        f"---\napiVersion: v1\nkind: PodList\nitems: [{item}]\n"
    )
    found = [
        (m.document, m.object["kind"], m.object["metadata"]["name"]) for m in parse(text.encode())
    ]

    assert found == [(2, "Pod", "a"), (3, "Service", "b"), (4, "Pod", "c")]
    assert [] == parse(b"") == parse(b"# nothing\n---\n")


@pytest.mark.parametrize(
    ("items", "names"),
    [
        ("", []),
        ("null", []),
        ("[]", []),
        ("[{kind: List, items: [{kind: Pod, apiVersion: v1, metadata: {name: a}}]}]", ["a"]),
        ("[{kind: List, items: [{kind: List, items: [{kind: List, items: }]}]}]", []),
        ("[{kind: PodList, apiVersion: v1, items: [{metadata: {name: a}}]}]", ["a"]),
        (
            (
                "[{kind: List, items: []}, {kind: PodList, apiVersion: v1, items: "
                "[{metadata: {name: a}}, {metadata: {name: b}}]}]"
            ),
            ["a", "b"],
        ),
    ],
)
def test_lists_without_items_and_lists_in_lists(items, names):
    """No items give nothing, and keep nothing else of the file out; inner lists are flattened."""
    text = f"apiVersion: v1\nkind: List\nitems: {items}\n---\n{HEAD}"
    found = [manifest.object["metadata"]["name"] for manifest in parse(text.encode())]

    assert [*names, "a"] == found


def test_a_kind_that_ends_like_a_list_is_none_without_a_list_of_items():
    """A kind of one's own may be called so: without a list of items it is an object."""
    for more in ("", "items: {a: 1}", "spec: {items: [1]}"):
        text = f"apiVersion: x.io/v1\nkind: AllowList\nmetadata: {{name: a}}\n{more}"

        assert [manifest.object["kind"] for manifest in parse(text.encode())] == ["AllowList"]


def test_byte_order_marks_and_line_ends():
    """A BOM and the line ends of other systems are no part of what is read."""
    text = f"\ufeff{HEAD}---\n{HEAD}".replace("\n", "\r\n").encode()

    assert [manifest.document for manifest in parse(text)] == [1, 2]
    assert parse(text)[1].object["metadata"]["name"] == "a"
    (manifest,) = parse(b'\xef\xbb\xbf{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}\r\n')
    assert manifest.object["kind"] == "Pod"


def test_json_is_read_as_json():
    """JSON files may have tabs and several documents, and are as strict about keys and depth."""
    text = '{\t"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "n": 1.0, "i": 10}\n'
    first, second = parse((text * 2).encode(), "a.json")

    assert (first.document, second.document) == (1, 2)
    assert {"n": 1.0, "i": 10}.items() <= first.object.items()
    for bad in (
        '{"a": 1, "a": 2}',
        "{'a': 1}",
        '{"a": NaN}',
        "[" * 5000,
        '{"a": "\\ud800"}',
        '{"a"',
    ):
        with pytest.raises(ManifestError):
            parse((text + bad).encode(), "a.json")


def test_bytes_that_are_no_text_are_refused():
    """Wrong encodings and control characters are a ManifestError as well."""
    for data in (b"\xff\xfe\x00", b"a: \xff", b"a: \x00", b'{"a": "\xff"}'):
        for name in ("a.yaml", "a.json"):
            with pytest.raises(ManifestError):
                parse(data, name)


def test_too_large_files_are_refused(tmp_path):
    """A file over the bound is refused without being read as a whole."""
    path = tmp_path / "a.yaml"
    with path.open("wb") as file:
        os.ftruncate(file.fileno(), MAX_BYTES + 1)
    with pytest.raises(ManifestError, match="larger than 64 MiB"):
        read(str(path))


def test_folders_are_walked_in_the_order_of_paths(tmp_path):
    """A folder gives its manifests, sorted by path, and nothing else; files are taken as named."""
    for name in ("b.yaml", "a/z.json", "a/b/c.yml", "a-b/c.yaml", "notes.txt", ".git/x.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    root = str(tmp_path)
    wanted = ["a/b/c.yml", "a/z.json", "a-b/c.yaml", "b.yaml"]

    assert [f"{root}/{name}" for name in wanted] == find_sources([root])
    assert [f"{root}/notes.txt", "-"] == find_sources([f"{root}/notes.txt", "-"])
    for bad in (f"{root}/nope", f"{root}/.git"):
        with pytest.raises(ManifestError, match=r"no (such|\*)"):
            find_sources([bad])


# Strings that some reader takes for something else, unless they are in quotes.
NUMBERISH = """
    y n on off ~ null Null = << true .inf -.INF .nan - --- ... 1e3 1e999 12e03 22:22 1:30.5 0644 08
    0o7 0x1F 0X1F 0B1 0O17 0x 0X 0b-1 1_0 1_000 0_ .5 +.5 ._5 .5_0 1. +1 -0 2020-01-01
    2020-01-01T00:00:00Z 18446744073709551616 0x1FFFFFFFFFFFFFFFFF 0b0
""".split()  # noqa: SIM905

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 4300).map(lambda digits: 10**digits - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.text("\0\t\n\r\x85\u2028\ufeff\U0001f600 :#-?!&*{}[],|>'\"%@`\\=<~", max_size=8)
    | st.sampled_from(NUMBERISH)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.text("abc01y-.:#\n", max_size=4) | st.text() | st.sampled_from(NUMBERISH), inner
        )
    ),
)


def exactly(value):
    """Text that differs if value or type differs anywhere: 1, 1.0, True, 0.0 and -0.0."""
    return json.dumps(value, sort_keys=True)


@settings(max_examples=200, deadline=None)
@given(values)
def test_what_is_written_reads_back_the_same(value):
    """-o yaml and -o json round trip through the reader: no value changes its type."""
    obj = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "value": value}

    for text in (to_yaml(obj), json.dumps(obj), json.dumps(obj, ensure_ascii=False, indent=4)):
        (manifest,) = parse(text.encode(), "x")

        assert exactly(obj) == exactly(manifest.object)


class _Loader(yaml.CSafeLoader):
    """PyYAML's own rules."""


TEXTS = st.text("abynoxXBO01e_:.-+~=<'2T\n ", max_size=12) | st.text() | st.sampled_from(NUMBERISH)


@settings(max_examples=400, deadline=None)
@given(TEXTS)
def test_other_readers_see_strings_in_what_is_written(text):
    """Text that looks like a number, date or boolean to some reader is written in quotes."""
    assert {"a": text, text: "b"} == yaml.load(to_yaml({"a": text, text: "b"}), _Loader)


def _kubectl(text):
    """The values that kubectl reads in a manifest, without asking any server."""
    command = ["kubectl", "label", "--local", "-f", "-", "a=b", "-o", "json"]
    done = subprocess.run(command, input=text.encode(), capture_output=True, check=True)
    return json.loads(done.stdout)["values"]


needs_kubectl = pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not there")


@needs_kubectl
@settings(max_examples=25, deadline=None)
@given(st.lists(TEXTS, max_size=100))
def test_kubectl_sees_strings_in_what_is_written(texts):
    """The real kubectl reads the same strings, as values and as keys."""
    values = [*texts, *({text: text} for text in texts)]

    assert values == _kubectl(HEAD + to_yaml({"values": values}))


@needs_kubectl
@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.from_regex(r"\A[-+]?(0[xXoObB]?)?[-+0-9a-fA-F_.e]{1,66}\Z") | st.sampled_from(NUMBERISH),
        max_size=100,
    )
)
def test_plain_scalars_are_what_kubectl_reads(texts):
    """Every plain scalar is to us what it is to the real kubectl, but that it rounds to 64 bits."""
    ours, plain = [], []
    for text in texts:
        try:
            value = value_of(text)
        except ManifestError:  # infinite, or "- ", "---": no scalar
            continue
        if not isinstance(value, (dict, list)):
            ours.append(value)
            plain.append(text)
    theirs = _kubectl(f"{HEAD}values:\n" + "".join(f"  - {text}\n" for text in plain)) or []

    assert list(map(_rounded, ours)) == list(map(_rounded, theirs)), plain


def _rounded(value):
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number else value


@settings(max_examples=300, deadline=None)
@given(st.text("{}[]&*!|>'\"%@`-:?, \n\t#abk1.<~", max_size=60) | st.binary(max_size=40))
def test_any_input_gives_objects_or_one_manifest_error(data):
    """No bytes make the reader raise anything but a ManifestError of one line."""
    raw = data.encode() if isinstance(data, str) else data
    for name, text in (("a.yaml", HEAD.encode() + raw), ("a.json", raw)):
        manifests, message = _parsed(text, name)

        assert "\n" not in message
        assert not message or message.startswith(f"{name}: ")
        for manifest in manifests:
            json.dumps(manifest.object, allow_nan=False).encode()
            assert _plain(manifest.object)


def _parsed(text, name):
    try:
        return parse(text, name), ""
    except ManifestError as error:
        return [], str(error)


def _plain(value):
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(each) for key, each in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    assert not isinstance(value, (datetime.date, bytes))
    return not isinstance(value, float) or math.isfinite(value)


_CYCLE: dict = {}
_CYCLE["a"] = _CYCLE


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "a[0].b: nan cannot be represented in JSON"),
        (float("-inf"), "a[0].b: -inf cannot be represented in JSON"),
        ("\ud800", "a[0].b: a string has half a character"),
        ({"\ud800": 1}, "a[0].b: a string has half a character"),
        pytest.param(10**5000, "a[0].b: an integer has more digits", id="huge"),
        (b"x", "a[0].b: a value of type bytes"),
        (datetime.date(2020, 1, 1), "a[0].b: a value of type date"),
        ((1, 2), "a[0].b: a value of type tuple"),
        ({1: 2}, "a[0].b.1: a key of type int"),
        ({None: 2}, "a[0].b.None: a key of type NoneType"),
        (_CYCLE, "nested more than 100 levels deep"),
    ],
)
def test_to_yaml_refuses_what_json_does_not_carry(value: object, message: str) -> None:
    """What no reader takes for the same value is one typed error that names its place."""
    with pytest.raises(InvalidArgument, match=re.escape(message)):
        to_yaml({"a": [{"b": value}]})


def test_to_yaml_takes_frozen_dicts() -> None:
    """Objects that a codec shares are written as any mapping."""
    assert to_yaml(FrozenDict(a=FrozenDict(b=1))) == "a:\n  b: 1\n"
