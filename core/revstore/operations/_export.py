"""Objects of a store as manifests, for people, review and other programs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import attrs

from revstore import kinds
from revstore.backend import Backend
from revstore.codec import Codec
from revstore.errors import (
    Compacted,
    CorruptObject,
    InvalidArgument,
    InvalidObject,
    StorageError,
    Unreachable,
)
from revstore.factory import StorageFactory
from revstore.keys import is_segment
from revstore.kinds import ResourceInfo
from revstore.manifests import refusal, to_yaml
from revstore.objects import labels_of, metadata_value
from revstore.operations._expiry import Expiries
from revstore.operations._marker import check_complete
from revstore.operations._new_file import new_file
from revstore.operations._pages import pages
from revstore.operations._progress import Meter, OnProgress
from revstore.operations._tree import Tree
from revstore.plugins import open_transformer
from revstore.raising import let_out, text_of
from revstore.selectors import LabelSelector, parse_label_selector
from revstore.transform import IdentityTransformer, Transformer, concealed
from revstore.values import Capability, KeyValue

__all__ = ["NAMED", "TTL_ANNOTATION", "ExportResult", "export_objects", "format_of", "key_of"]

#: The annotation of an exported object that expires: the seconds that are left.
TTL_ANNOTATION = "revstore/ttl-seconds"
#: How many failures a result names; all are counted.
NAMED = 100
# A store that compacts every few minutes may do so while a long export runs.
_TRIES = 3
_SUFFIXES = {".yaml": "yaml", ".yml": "yaml", ".json": "jsonl", ".jsonl": "jsonl"}
_SUFFIXES[".ndjson"] = "jsonl"
FORMATS = ("tree", "yaml", "jsonl")


@attrs.frozen
class ExportResult:
    """What was exported: ``objects`` at ``revision`` of the main store, by resource.

    ``failed`` objects were left out; ``errors`` are those of the first 100.
    """

    objects: int
    revision: int
    resources: Mapping[str, int]
    failed: int
    errors: tuple[StorageError, ...]


def format_of(path: str | os.PathLike[str]) -> str:
    """Return the format of a path: "yaml" or "jsonl" by its suffix, else "tree"."""
    return _SUFFIXES.get(Path(path).suffix.lower(), "tree")


def export_objects(
    factory: StorageFactory,
    target: str | os.PathLike[str] | IO[bytes],
    *,
    format: str = "",  # noqa: A002 - the natural name
    resources: Sequence[str | ResourceInfo] = (),
    exclude: Sequence[str | ResourceInfo] = (),
    namespace: str | None = None,
    label_selector: str = "",
    plain_text: bool = False,
    even_if_corrupt: bool = False,
    timeout: float | None = None,
    on_progress: OnProgress | None = None,
) -> ExportResult:
    """Write objects as manifests, all as they are at one revision, to a folder, file or stream.

    ``format``: "tree", a folder with one YAML file for each object; "yaml", one file of documents;
    "jsonl", one object a line. By default the target's suffix says which. The files can be read
    only by their owner. A file gets its name once it is complete, and replaces one of that name. A
    folder is brought up to date if it has an export of the same selection.

    ``resources`` are those to export, by default all that are stored, without ``exclude``.
    ``namespace`` leaves out the objects of other namespaces, and those of none.
    With ``even_if_corrupt``, objects that cannot be read, or that no manifest can show, are left
    out and counted. An object that expires gets the annotation "revstore/ttl-seconds".
    ``timeout`` is in seconds, for each request.

    Raises:
        InvalidArgument: an argument is not valid; a resource is encrypted in the store, and
            ``plain_text`` is not given; or the folder has other manifests.
        CorruptObject: an object cannot be read.
        InvalidObject: no manifest can show an object.
        Compacted: the store compacts faster than it can be read.
        StoreInUse: an operation that fills the store is unfinished.
        OSError: a file cannot be written.
    """
    to_path = isinstance(target, (str, os.PathLike))
    format = format or (format_of(target) if to_path else "jsonl")  # type: ignore[arg-type]  # noqa: A001
    if format not in FORMATS or (format == "tree" and not to_path):
        raise InvalidArgument("format", format, "'tree', 'yaml' or 'jsonl'; no tree for a stream")
    selector = parse_label_selector(label_selector)
    if namespace is not None and not is_segment(namespace):
        raise InvalidArgument("namespace", namespace, "a name that can be part of a key")
    named = [_info(factory, each).qualified for each in resources]
    without = [_info(factory, each).qualified for each in exclude]
    selection = {
        "resources": sorted(named),
        "exclude": sorted(without),
        "namespace": namespace,
        "labels": label_selector,
    }
    sources = [
        source
        for source in _sources(factory)
        if (not named or source.info.qualified in named) and source.info.qualified not in without
    ]
    _check_plain(sources, plain_text=plain_text)
    for tries in range(_TRIES):
        run = _Run(
            factory,
            sources,
            namespace=namespace,
            selector=selector,
            even_if_corrupt=even_if_corrupt,
            timeout=timeout,
            on_progress=on_progress,
        )
        try:
            with _writer(target, format, selection) as write:
                return run.to(write)
        except Compacted:
            if not to_path or tries == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


def key_of(info: ResourceInfo, obj: Any) -> tuple[str, str]:
    """Return the namespace of an object, "" for none, and its key without the store's prefix.

    Raises:
        InvalidObject: its name or namespace cannot be part of a key.
    """
    name, namespace = metadata_value(obj, "name"), metadata_value(obj, "namespace")
    if info.namespaced:
        namespace = namespace or "default"
    for field, value in (("name", name), *((("namespace", namespace),) if namespace else ())):
        if not is_segment(value):
            raise InvalidObject(f"metadata.{field}", value, "a name that can be part of a key")
    if namespace and not info.namespaced:
        expected = "none: objects of this kind have no namespace"
        raise InvalidObject("metadata.namespace", namespace, expected)
    return namespace, "/".join([info.prefix, *([namespace] if namespace else []), name])


def _info(factory: StorageFactory, resource: str | ResourceInfo) -> ResourceInfo:
    return resource if isinstance(resource, ResourceInfo) else factory.info(dict, resource)


@attrs.frozen
class _Source:
    """A stored resource, and how its values are read; ``root`` is the prefix of its store."""

    info: ResourceInfo
    backend: Backend
    root: str
    transformer: Transformer
    codec: Codec[Any]

    @property
    def prefix(self) -> str:
        return f"{self.root}{self.info.prefix}/"

    def encrypted(self) -> bool:
        """Return whether the store holds other bytes than those of the objects."""
        if isinstance(self.transformer, IdentityTransformer):
            return False
        probe = b"{}"
        try:
            return self.transformer.transform_to_storage(probe, self.prefix.encode()) != probe
        except Exception as error:  # noqa: BLE001 - such as of a KMS that is down
            let_out(error)
            return True

    def read(self, kv: KeyValue) -> tuple[Any, bool]:
        """Return the object, and whether it is stored in other bytes than its own."""
        data = kv.value
        try:
            data, _ = self.transformer.transform_from_storage(kv.value, kv.key.encode())
            return self.codec.decode(data), data != kv.value
        except Unreachable:
            raise
        except Exception as error:
            let_out(error)
            if data == kv.value:
                raise CorruptObject(kv.key, text_of(error)) from error
            corrupt = CorruptObject(kv.key, concealed(error))
        raise corrupt


def _sources(factory: StorageFactory) -> Iterator[_Source]:
    config = factory.config
    for prefix in factory.stored_resources():
        info = kinds.for_prefix(prefix, config.resources)
        own = config.for_resource(info.qualified)
        yield _Source(
            info,
            factory.backend(info.qualified),
            own.prefix.rstrip("/"),
            open_transformer(own, info.qualified),
            factory.resource_type(dict, info).codec,
        )


def _check_plain(sources: Sequence[_Source], *, plain_text: bool) -> None:
    if plain_text:
        return
    for source in sources:
        if source.encrypted():
            raise _encrypted(source.info)


def _encrypted(info: ResourceInfo) -> InvalidArgument:
    name = info.qualified
    message = f"{name} are encrypted in the store: --exclude them, or ask for --plain-text"
    return InvalidArgument("resources", name, "resources that are not encrypted", message=message)


_Write = Callable[[str, str, str, Any], None]


@contextmanager
def _writer(
    target: str | os.PathLike[str] | IO[bytes],
    format: str,  # noqa: A002
    selection: Mapping[str, Any],
) -> Iterator[_Write]:
    """Yield a function that writes an object, given its resource, namespace and name first."""
    if format == "tree":
        tree = Tree(target, selection)  # type: ignore[arg-type]
        yield lambda resource, namespace, name, obj: tree.write(
            resource, namespace, name, to_yaml(obj)
        )
        tree.finish()
    elif isinstance(target, (str, os.PathLike)):
        with new_file(Path(target)) as stream:
            yield _to_stream(stream, format)
    else:
        yield _to_stream(target, format)


def _to_stream(stream: IO[bytes], format: str) -> _Write:  # noqa: A002
    def write(resource: str, namespace: str, name: str, obj: Any) -> None:
        if format == "yaml":
            stream.write(b"---\n" + to_yaml(obj).encode())
            return
        text = json.dumps(obj, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        stream.write(text.encode() + b"\n")

    return write


class _Run:
    """One attempt to read the objects and write them."""

    def __init__(
        self,
        factory: StorageFactory,
        sources: Sequence[_Source],
        *,
        namespace: str | None,
        selector: LabelSelector,
        even_if_corrupt: bool,
        timeout: float | None,
        on_progress: OnProgress | None,
    ) -> None:
        self._factory = factory
        self._sources = sources
        self._namespace = namespace
        self._selector = selector
        self._even_if_corrupt = even_if_corrupt
        self._timeout = timeout
        self._on_progress = on_progress
        self._plain = {source.info.prefix for source in sources if not source.encrypted()}
        self._counts: dict[str, int] = {}
        self._failed = 0
        self._errors: list[StorageError] = []

    def to(self, write: _Write) -> ExportResult:
        """Write the objects."""
        revisions: dict[int, int] = {}
        expiries: dict[int, Expiries] = {}
        main = self._factory.backend()
        for backend in (main, *(source.backend for source in self._sources)):
            if id(backend) not in revisions:
                prefix = f"{self._factory.config.prefix.rstrip('/')}/"
                check_complete(backend, prefix, timeout=self._timeout)
                revisions[id(backend)] = backend.status(timeout=self._timeout).revision
                expiries[id(backend)] = Expiries(backend, timeout=self._timeout)
        below = "" if self._namespace is None else f"{self._namespace}/"
        total = sum(
            source.backend.count(source.prefix + below, timeout=self._timeout).count
            for source in self._sources
        )
        meter = Meter(self._on_progress, "exporting", total)
        for source in self._sources:
            number = id(source.backend)
            history = Capability.HISTORICAL_READS in source.backend.capabilities
            revision = revisions[number] if history else 0
            for page in pages(
                source.backend, source.prefix + below, revision=revision, timeout=self._timeout
            ):
                for kv in page.kvs:
                    self._one(source, kv, expiries[number], write)
                meter.add(len(page.kvs))
        meter.finish()
        return ExportResult(
            sum(self._counts.values()),
            revisions[id(main)],
            self._counts,
            self._failed,
            tuple(self._errors),
        )

    def _one(self, source: _Source, kv: KeyValue, expiries: Expiries, write: _Write) -> None:
        try:
            obj, transformed = source.read(kv)
            if transformed and source.info.prefix in self._plain:
                # It was written under another configuration, or is compressed; nobody asked for it.
                raise InvalidObject(
                    "value",
                    "",
                    "one that is stored as it is",
                    key=kv.key,
                    message=f"{kv.key!r} is encrypted, although the configuration does not say so",
                )
            namespace, name, obj = self._manifest(source, kv, obj)
        except (CorruptObject, InvalidObject) as error:
            if not self._even_if_corrupt:
                raise
            self._failed += 1
            if len(self._errors) < NAMED:
                self._errors.append(error)
            return
        if self._namespace is not None and namespace != self._namespace:
            return
        if not self._selector.matches(labels_of(obj)):
            return
        if kv.lease:
            obj = _with_ttl(kv, obj, expiries)
        write(source.info.qualified, namespace, name, obj)
        self._counts[source.info.qualified] = self._counts.get(source.info.qualified, 0) + 1

    def _manifest(self, source: _Source, kv: KeyValue, obj: Any) -> tuple[str, str, Any]:
        """Return namespace, name and object, with apiVersion and kind.

        Raises:
            InvalidObject: an import would not store it under its key.
        """
        try:
            obj = _with_type(source.info, obj)
            info = kinds.for_object(obj, self._factory.config.resources)
            reason = refusal(obj)
            namespace, key = ("", "") if reason else key_of(info, obj)
            if not reason and TTL_ANNOTATION in (obj["metadata"].get("annotations") or ()):
                reason = f"it has the annotation {TTL_ANNOTATION!r}"
            elif not reason and source.root + key != kv.key:
                reason = f"its manifest would be stored under {source.root + key!r}"
        except InvalidArgument as error:
            let_out(error)
            reason = text_of(error)
        if reason:
            message = f"the object under {kv.key!r} cannot be exported: {reason}"
            raise InvalidObject(
                "object", kv.key, "one that a manifest can show", key=kv.key, message=message
            )
        return namespace, obj["metadata"]["name"], obj


def _with_type(info: ResourceInfo, obj: Any) -> Any:
    """Return the object with the apiVersion and kind of its resource, if it has none."""
    if not isinstance(obj, dict):
        return obj
    given = {"kind": "" if info.kind == info.resource else info.kind}
    given["apiVersion"] = f"{info.group}/v1" if info.group else "v1"
    return {**obj, **{name: value for name, value in given.items() if value and not obj.get(name)}}


def _with_ttl(kv: KeyValue, obj: Any, expiries: Expiries) -> Any:
    """Return the object with the annotation that says when it expires."""
    after, _ = expiries.of(kv)
    if after is None:
        return obj
    annotations = dict(obj["metadata"].get("annotations") or {})
    # As exact as in a backup: only what writes it to a store has to round to a second.
    thousandths = max(1, round(after * 1000))
    annotations[TTL_ANNOTATION] = f"{thousandths // 1000}.{thousandths % 1000:03}"
    return {**obj, "metadata": {**obj["metadata"], "annotations": annotations}}
