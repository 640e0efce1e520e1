"""Reading many manifests, one after another, from files of any size."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import IO

import attrs

from revstore.manifests import MAX_BYTES, STDIN, Manifest, ManifestError, find_sources, parse
from revstore.operations._tree import state_of

__all__ = ["manifests_of"]

#: What may come before the first document: a byte order mark, blanks, line ends.
_BLANK = b"\xef\xbb\xbf \t\r\n"


def manifests_of(sources: Iterable[str | os.PathLike[str]]) -> Iterator[Manifest]:
    """Yield the objects of files, folders and "-", standard input; one document at a time is in
    memory.

    Raises:
        ManifestError: a source cannot be read, or a document in it is not an object.
        InvalidArgument: a folder has an export that is incomplete.
    """
    for given in sources:
        source = os.fspath(given)
        paths = [source]
        if os.path.isdir(source):
            state = state_of(source)
            if state is not None and not state.get("objects"):
                continue
            paths = find_sources([source])
        for path in paths:
            yield from _of_file(path)


def _of_file(path: str) -> Iterator[Manifest]:
    name = "standard input" if path == STDIN else path
    try:
        # A descriptor of the caller stays open.
        with nullcontext(sys.stdin.buffer) if path == STDIN else open(path, "rb") as stream:
            lines = _Lines(stream, name)
            first = lines.peek().lstrip(_BLANK)
            is_lines = first.startswith(b"{") and first.rstrip().endswith(b"}")
            parts = _each_line(lines) if is_lines else _documents(lines)
            number = 0
            for number, (line, data) in enumerate(parts, 1):
                yield from _parsed(data, name, number, line)
            if not number and path == STDIN:
                raise ManifestError(name, "it is empty")
    except OSError as error:
        raise ManifestError(name, f"cannot be read: {error.strerror or error}") from error


def _parsed(data: bytes, name: str, number: int, line: int) -> Iterator[Manifest]:
    try:
        for each in parse(data, name):
            yield attrs.evolve(each, source=name, document=number, line=each.line + line)
    except ManifestError as error:
        at = error.line + line if error.line else line + 1
        raise ManifestError(name, error.reason, document=number, line=at) from error


class _Lines:
    """The lines of a file without the blank ones at its beginning, and which each is.

    The first can be looked at.
    """

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream = stream
        self._name = name
        self._first = b""
        self._before = 0

    def peek(self) -> bytes:
        """Return the first line that is not blank, "" if there is none."""
        while line := self._read():
            if line.strip(_BLANK):
                break
            self._before += 1
        self._first = line
        return line

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        line, number = self._first or self._read(), self._before
        while line:
            yield number, line
            line, number = self._read(), number + 1

    def refuse_larger(self, size: int) -> None:
        if size > MAX_BYTES:
            raise ManifestError(self._name, f"a document is larger than {MAX_BYTES >> 20} MiB")

    def _read(self) -> bytes:
        line = self._stream.readline(MAX_BYTES + 1)
        self.refuse_larger(len(line))
        return line


def _each_line(lines: _Lines) -> Iterator[tuple[int, bytes]]:
    """Yield JSON documents of a line each, with the number of lines before them."""
    for number, line in lines:
        if line.strip(_BLANK):
            yield number, line


def _documents(lines: _Lines) -> Iterator[tuple[int, bytes]]:
    """Yield YAML documents, with the number of lines before them."""
    parts: list[bytes] = []
    size, begin = 0, -1
    started = ended = False  # started: there is more than directives and comments
    for number, line in lines:
        new = line.startswith(b"---") and not line[3:4].strip()
        if parts and ((new and started) or ended):
            yield begin, b"".join(parts)
            parts, size, started, begin = [], 0, False, -1
        ended = line.rstrip() == b"..."
        begin = number if begin < 0 else begin
        parts.append(line)
        size += len(line)
        lines.refuse_larger(size)
        started = started or new or bool(line.strip() and line[:1] not in (b"#", b"%"))
    if parts:
        yield begin, b"".join(parts)
