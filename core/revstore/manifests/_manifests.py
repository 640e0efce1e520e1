"""Manifests: Kubernetes-shaped objects from YAML and JSON, as people write them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from revstore.errors import InvalidArgument
from revstore.nesting import MAX_DEPTH, MAX_LIST_DEPTH, TOO_DEEP

__all__ = [
    "MAX_BYTES",
    "STDIN",
    "Manifest",
    "ManifestError",
    "find_sources",
    "parse",
    "read",
    "reads_as_string",
    "refusal",
    "to_yaml",
]

#: The most bytes that a file may have.
MAX_BYTES = 64 * 2**20
#: The source that means standard input.
STDIN = "-"

_MISSING: Any = object()
_SUFFIXES = (".yaml", ".yml", ".json")


class ManifestError(InvalidArgument):
    """A source that cannot be read, or a document in it that is not an object.

    ``source`` names the file; ``document`` (from 1) and ``line`` (from 1) are the place in it, 0 if
    unknown. The message has all of them, in one line.
    """

    def __init__(self, source: str, reason: str, *, document: int = 0, line: int = 0) -> None:
        where = ", ".join(
            f"{word} {number}"
            for word, number in (("document", document), ("line", line))
            if number
        )
        message = " ".join(f"{source}: {where + ': ' if where else ''}{reason}".split())
        super().__init__("manifest", source, "a Kubernetes object", message=message)
        self.source = source
        self.document = document
        self.line = line
        self.reason = reason


@attrs.frozen
class Manifest:
    """An object, and the source and document (from 1) that it came from. ``line`` (from 1) is where
    that document begins."""

    source: str
    document: int
    object: dict[str, Any]
    line: int

    @property
    def where(self) -> str:
        """The place for messages: "web.yaml (document 2, line 14)"."""
        return f"{self.source} (document {self.document}, line {self.line})"


def find_sources(paths: Iterable[str]) -> list[str]:
    """Return the files that ``paths`` name: for a folder those below it, sorted by path.

    Links to folders are not followed.

    Raises:
        ManifestError: a path does not exist, or a folder holds no manifest or cannot be read.
    """
    sources = []
    for path in paths:
        if path == STDIN or not os.path.isdir(path):
            if path != STDIN and not os.path.exists(path):
                raise ManifestError(path, "no such file or folder")
            sources.append(path)
            continue
        found = sorted(_below(path), key=lambda name: Path(name).parts)
        if not found:
            raise ManifestError(path, f"no {', '.join('*' + end for end in _SUFFIXES)} below it")
        sources.extend(found)
    return sources


def _below(folder: str) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise ManifestError(error.filename or folder, error.strerror or str(error)) from error

    for root, _, names in os.walk(folder, onerror=refuse):
        for name in names:
            if name.lower().endswith(_SUFFIXES):
                yield os.path.join(root, name)


def read(source: str, *, empty: bool = True) -> list[Manifest]:
    """Return the objects of one file, or of standard input.

    Unless ``empty``, a source must hold a document, even if it is a list without items.

    Raises:
        ManifestError: the source cannot be read, or a document in it is not an object.
    """
    try:
        if source == STDIN:
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with open(source, "rb") as file:
                data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ManifestError(source, f"cannot be read: {error.strerror or error}") from error
    name = "standard input" if source == STDIN else source
    documents = _documents(data, name)
    if not documents and not empty:
        raise ManifestError(name, "empty: there is no object in it")
    return _manifests(documents, name)


def parse(data: bytes, source: str = "manifest") -> list[Manifest]:
    """Return the objects that ``data`` holds; ``source`` is its name in errors.

    Raises:
        ManifestError: a document is not an object.
    """
    return _manifests(_documents(data, source), source)


def _documents(data: bytes, source: str) -> list[tuple[int, int, Any]]:
    """Return the numbers, first lines and values of all documents that are not empty."""
    if len(data) > MAX_BYTES:
        raise ManifestError(source, f"larger than {MAX_BYTES >> 20} MiB")
    values = enumerate(_values(data, source), 1)
    return [(document, line, value) for document, (line, value) in values if value is not None]


def _manifests(documents: list[tuple[int, int, Any]], source: str) -> list[Manifest]:
    manifests = []
    for document, line, value in documents:
        for place, obj in _objects(value):
            reason = _reason_against(obj)
            if reason:
                where = f"{place}: " if place else ""
                raise ManifestError(source, where + reason, document=document, line=line)
            manifests.append(Manifest(source, document, obj, line))
    return manifests


def refusal(obj: Any) -> str:
    """Return why ``obj``, written as a manifest, would not be read back as itself; "" if it
    would."""
    found = list(_objects(obj))
    if len(found) != 1 or found[0][1] is not obj:
        return f"a manifest of kind {obj['kind']!r} with items is read as a list of them"
    return _reason_against(obj)


def to_yaml(value: Any) -> str:
    """Write plain JSON values as one YAML document, keys sorted, that every YAML reader reads as
    the same values.

    Raises:
        InvalidArgument: ``value`` is or holds something that JSON lacks; the message names its
            place.
    """
    # Importing PyYAML takes time.
    from revstore.manifests._yaml_writer import write

    return write(value)


def reads_as_string(text: str) -> bool:
    """Return whether every YAML reader reads ``text``, written without quotes, as a string."""
    # Importing PyYAML takes time.
    from revstore.manifests import _yaml_reader

    return _yaml_reader.reads_as_string(text)


def _values(data: bytes, source: str) -> Iterator[tuple[int, Any]]:
    """Yield the first line and value of each document."""
    # Importing PyYAML takes time.
    from revstore.manifests._yaml_reader import YamlFault, read_documents

    strict = source.lower().endswith(".json")
    if strict or data.lstrip()[:1] == b"{":
        try:
            yield from _json_values(data)
        except YamlFault as fault:
            if strict:
                raise _located(source, fault) from fault
        else:
            return
    try:
        yield from read_documents(data)
    except YamlFault as fault:
        raise _located(source, fault) from fault


def _located(source: str, fault: Any) -> ManifestError:
    return ManifestError(source, fault.reason, document=fault.document, line=fault.line)


def _json_values(data: bytes) -> list[tuple[int, Any]]:
    """Return JSON documents, one after the other, with their first lines.

    Raises:
        YamlFault: the text is not JSON.
    """
    from revstore.manifests._yaml_reader import YamlFault, read_number

    def refuse(text: str) -> Any:
        raise ValueError(f"{text} cannot be represented in JSON")

    decoder = json.JSONDecoder(
        object_pairs_hook=_unique,
        parse_float=read_number,
        parse_int=read_number,
        parse_constant=refuse,
    )
    values: list[tuple[int, Any]] = []
    text, at, line = "", 0, 1
    try:
        text = data.decode("utf-8-sig")
        at = _skip_space(text, 0)
        line += text.count("\n", 0, at)
        while at < len(text):
            value, end = decoder.raw_decode(text, at)
            if _depth(value) > MAX_LIST_DEPTH:
                raise RecursionError
            if "\\u" in text and not _encodable(value):
                raise ValueError("a \\u escape encodes half a character")
            values.append((line, value))
            start, at = at, _skip_space(text, end)
            line += text.count("\n", start, at)
    except json.JSONDecodeError as error:
        raise YamlFault(len(values) + 1, error.lineno, error.msg) from error
    except RecursionError as error:
        raise YamlFault(len(values) + 1, line, TOO_DEEP) from error
    except UnicodeDecodeError as error:
        raise YamlFault(1, data.count(b"\n", 0, error.start) + 1, "not UTF-8") from error
    except ValueError as error:
        raise YamlFault(len(values) + 1, line, str(error)) from error
    return values


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key {key!r} occurs twice")
            seen.add(key)
    return result


def _encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, (dict, list))]:
        depth += 1
        level = [
            child for each in level for child in (each.values() if isinstance(each, dict) else each)
        ]
    return depth


def _objects(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the value itself, or the items of a ``List`` and of lists among them, each with its
    place, such as "items[0]".

    An item without apiVersion or kind gets it from the list ("PodList" holds Pods). A ``List``
    whose items are not a list is left for ``_reason_against``.
    """
    kind = value.get("kind") if isinstance(value, dict) else None
    items = value.get("items", _MISSING) if isinstance(value, dict) else _MISSING
    if not (isinstance(kind, str) and kind.endswith("List") and isinstance(items, list | None)):
        yield place, value
        return
    for at, item in enumerate(items or ()):
        if isinstance(item, dict) and kind != "List":
            item = {"apiVersion": value.get("apiVersion"), "kind": kind[:-4], **item}  # noqa: PLW2901
        yield from _objects(item, f"{place}.items[{at}]".lstrip("."))


def _reason_against(obj: Any) -> str:
    """Return why ``obj`` is not an object that could be stored; "" if it is one."""
    if not isinstance(obj, dict):
        return f"not an object: {_named(obj)}"
    if obj.get("kind") == "List":
        return _wrong(obj.get("items", _MISSING), "items", "a list")
    if _depth(obj) > MAX_DEPTH:
        return TOO_DEEP
    metadata = obj.get("metadata", _MISSING)
    return (
        _reason_against_name(obj.get("apiVersion", _MISSING), "apiVersion")
        or _reason_against_name(obj.get("kind", _MISSING), "kind")
        or ("" if isinstance(metadata, dict) else _wrong(metadata, "metadata", "a mapping"))
        or _reason_against_metadata(metadata)
    )


def _reason_against_metadata(metadata: Any) -> str:
    namespace = metadata.get("namespace")
    if "name" not in metadata and metadata.get("generateName"):
        return "metadata.name is missing: generateName would create a new object each time"
    return (
        _reason_against_name(metadata.get("name", _MISSING), "metadata.name")
        or ("" if namespace is None else _reason_against_string(namespace, "metadata.namespace"))
        or _reason_against_strings(metadata.get("labels"), "metadata.labels")
        or _reason_against_strings(metadata.get("annotations"), "metadata.annotations")
    )


def _reason_against_name(value: Any, field: str) -> str:
    return f"{field} is empty" if value == "" else _reason_against_string(value, field)


def _reason_against_strings(value: Any, field: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, Mapping):
        return _wrong(value, field, "a mapping")
    reasons = (_reason_against_string(each, f"{field}[{key!r}]") for key, each in value.items())
    return next(filter(None, reasons), "")


def _reason_against_string(value: Any, field: str) -> str:
    if isinstance(value, str):
        return ""
    wrong = _wrong(value, field, "a string")
    if value is None:
        return f'{wrong}: write "" for an empty string'
    if isinstance(value, (bool, int, float)):
        return f"{wrong}: put it in quotes, it is read as {json.dumps(value)[:40]}"
    return wrong


def _wrong(value: Any, field: str, expected: str) -> str:
    if value is _MISSING:
        return f"{field} is missing"
    return f"{field} is {_named(value)}, not {expected}"


def _named(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "a string", bool: "a boolean"}
    return "null" if value is None else names.get(type(value), "a number")
