"""The format of a backup, which docs/operations.md describes."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Annotated, Any, Protocol

import msgspec

from revstore.closing import Closing
from revstore.errors import InvalidArgument, InvalidBackup, Unsupported
from revstore.keys import check_key
from revstore.operations._behind import Behind
from revstore.values import KeyValue

__all__ = [
    "BackupReader",
    "BackupWriter",
    "Compression",
    "Header",
    "Record",
    "check_compression",
    "default_compression",
]

FORMAT = "revstore-backup"
VERSION = 1
_CHUNK = 1 << 20
_Number = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Signed = Annotated[int, msgspec.Meta(ge=-1 << 63, le=(1 << 63) - 1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e10)]
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_LONGEST_LINE = 1 << 20
# No store takes more.
_LARGEST_VALUE = 1 << 30
#: Bytes of the last line.
_LAST_LINE = 128

_MAGIC = {"zstd": b"\x28\xb5\x2f\xfd", "gzip": b"\x1f\x8b", "none": b"{"}

#: How a backup is compressed: "zstd", "gzip" or "none".
Compression = str


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line of a backup.

    ``time`` is the moment, in RFC 3339, from which the remaining seconds of the records count.
    ``backend`` describes the store that was backed up, and ``prefix`` is that of its keys.
    ``revision`` is the store's, at which all keys were read.
    """

    format: str
    version: int
    store_id: str
    backend: str
    revision: _Number
    prefix: str
    time: str
    compression: Compression


class Record(msgspec.Struct, frozen=True, gc=False):
    """A key as it was stored. ``ttl`` is the number of seconds after which it expires, None if it
    does not. ``lease`` is the id of the lease of ``Backend.leases`` that it is attached to, 0 for
    none."""

    key: str
    value: bytes
    revision: int = 0
    create_revision: int = 0
    version: int = 0
    ttl: float | None = None
    lease: int = 0


class _Line(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """The line before a value of ``size`` bytes."""

    key: str
    size: Annotated[int, msgspec.Meta(ge=0, le=_LARGEST_VALUE)]
    revision: _Number
    create_revision: _Number = 0
    version: _Number = 0
    ttl: _Seconds | None = None
    lease: _Signed = 0


class _Last(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last line: the number of records, and the SHA-256 of all bytes of the file before it."""

    count: int
    sha256: str


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Plain:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def default_compression() -> Compression:
    """Return "zstd" if the package zstandard is installed, else "gzip"."""
    try:
        import zstandard  # noqa: F401
    except ImportError:
        return "gzip"
    return "zstd"


def check_compression(name: str | None) -> Compression:
    """Return the compression ``name``, or the default for None.

    Raises:
        InvalidArgument: there is no such compression.
        Unsupported: it needs zstandard, which is not installed.
    """
    if name is None:
        return default_compression()
    if name not in ("zstd", "gzip", "none"):
        raise InvalidArgument("compression", name, "zstd, gzip or none")
    if name == "zstd" and default_compression() != "zstd":
        raise _no_zstandard()
    return name


def _no_zstandard() -> Unsupported:
    return Unsupported("zstd", "zstd needs zstandard: pip install 'revstore[zstd]'")


def _compressor(name: Compression) -> _Compressor:
    if name == "zstd":
        import zstandard

        compressor: _Compressor = zstandard.ZstdCompressor(level=1).compressobj()
        return compressor
    if name == "gzip":
        return zlib.compressobj(1, wbits=31)
    return _Plain()


def _last_part(name: Compression, last: _Last) -> bytes:
    """Return the end of the file, which has the same length for all backups of a compression."""
    line = msgspec.json.encode(last).ljust(_LAST_LINE - 1) + b"\n"
    if name == "zstd":
        # A frame with one raw block; its content's size is known, and there is no checksum.
        block = (1 | len(line) << 3).to_bytes(3, "little")
        return b"\x28\xb5\x2f\xfd\x20" + bytes([len(line)]) + block + line
    if name == "gzip":
        # A member with one stored block.
        size = len(line).to_bytes(2, "little")
        unsize = (len(line) ^ 0xFFFF).to_bytes(2, "little")
        check = zlib.crc32(line).to_bytes(4, "little") + len(line).to_bytes(4, "little")
        return b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x01" + size + unsize + line + check
    return line


def _line_in(name: Compression, part: bytes) -> bytes:
    if name == "zstd":
        return part[9:]
    return part[15:-8] if name == "gzip" else part


class BackupWriter:
    """Writes a backup to a stream. Without ``finish`` it is not a backup.

    The thread that calls ``write`` only encodes; a second one compresses, adds up and writes. Call
    ``stop`` at the end in any case, which ends that thread.
    """

    def __init__(self, stream: IO[bytes], header: Header) -> None:
        self._stream = stream
        self._compression = header.compression
        self._compressor = _compressor(header.compression)
        self._sha256 = hashlib.sha256()
        self._encode_lines = msgspec.json.Encoder().encode_lines
        #: How many records, and how many bytes in the file, were written.
        self.count = 0
        self.size = 0
        self._behind = Behind(self._write)
        self._behind.give([self._encode_lines([header])])

    def write(
        self, kvs: Sequence[KeyValue], expiry: Callable[[KeyValue], tuple[float | None, int]]
    ) -> None:
        """Write keys, which are in order; ``expiry`` returns the ttl and lease of one that
        expires."""
        lines: list[_Line] = []
        for kv in kvs:
            line = _Line(kv.key, len(kv.value), kv.revision, kv.create_revision, kv.version)
            if kv.lease:
                ttl, lease = expiry(kv)
                line = msgspec.structs.replace(line, ttl=ttl, lease=lease)
            lines.append(line)
        # The loops are in C: this is most of what a backup costs beside the list.
        parts = [b"\n"] * (4 * len(lines))
        parts[::4] = self._encode_lines(lines).split(b"\n")[:-1]
        parts[2::4] = [kv.value for kv in kvs]
        self.count += len(lines)
        self._behind.give(parts)

    def finish(self) -> str:
        """Write the end; return the backup's SHA-256."""
        self._behind.finish()
        self._append(self._compressor.flush())
        digest = self._sha256.hexdigest()
        end = _last_part(self._compression, _Last(self.count, digest))
        self._stream.write(end)
        self.size += len(end)
        return digest

    def stop(self) -> None:
        """End the second thread. Idempotent."""
        self._behind.stop()

    def _write(self, parts: list[bytes]) -> None:
        self._append(self._compressor.compress(b"".join(parts)))

    def _append(self, data: bytes) -> None:
        if data:
            self._sha256.update(data)
            self._stream.write(data)
            self.size += len(data)


class _Head(io.RawIOBase):
    """The first ``size`` bytes of a file."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        file.seek(0)
        self._file = file
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data = self._file.read(min(len(buffer), self._left))
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)


class BackupReader(Closing):
    """A backup in a file, which can be read again and again. Opening it checks all of it."""

    def __init__(
        self, file: IO[bytes], name: str, *, on_bytes: Callable[[int], object] | None = None
    ) -> None:
        """Check the backup in ``file``, which is called ``name`` in errors.

        ``on_bytes`` is called with the number of bytes that were read more.

        Raises:
            InvalidBackup: it was cut or altered, is not a backup, or is one of a version of
                revstore that this one does not know.
            Unsupported: it is compressed by zstd, and zstandard is not installed.
        """
        self._file = file
        self._name = name
        file.seek(0)
        begin = file.read(4)
        for compression, magic in _MAGIC.items():
            if begin.startswith(magic):
                self._compression: Compression = compression
                break
        else:
            raise self._invalid("it is not a backup of revstore")
        #: The number of records, and the SHA-256 that names the backup.
        self.count, self.sha256 = self._check_bytes(on_bytes)
        self.header = self._read_header()
        count, before = 0, ""
        for each in self.records():
            if count and each.key <= before:
                raise self._invalid(f"its records are not in order at {each.key!r}")
            if not each.key.startswith(self.header.prefix):
                raise self._invalid(f"it has the key {each.key!r} outside its prefix")
            before = each.key
            count += 1
        if count != self.count:
            raise self._invalid(f"it has {count} records, and its end says {self.count}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def records(self) -> Iterator[Record]:
        """Yield all records, in the order of their keys."""
        with self._reading() as stream:
            self._header_line(stream)
            decode = msgspec.json.Decoder(_Line).decode
            while line := stream.readline(_LONGEST_LINE):
                try:
                    found = decode(line)
                    check_key(found.key)
                except (*_UNREADABLE, InvalidArgument) as error:
                    raise self._invalid(f"a record cannot be read: {error}") from error
                value = stream.read(found.size)
                if len(value) != found.size or stream.read(1) != b"\n":
                    raise self._invalid(f"the value of {found.key!r} is cut")
                yield Record(
                    found.key,
                    value,
                    found.revision,
                    found.create_revision,
                    found.version,
                    found.ttl,
                    found.lease,
                )

    def _check_bytes(self, on_bytes: Callable[[int], object] | None) -> tuple[int, str]:
        """Return what the last line says, after the bytes before it were found to match it."""
        length = len(_last_part(self._compression, _Last(0, "")))
        self._size = self._file.seek(0, os.SEEK_END) - length
        cut = "it was cut off or altered: its end is missing"
        if self._size < 0:
            raise self._invalid(cut)
        self._file.seek(self._size)
        end = self._file.read(length)
        try:
            last = msgspec.json.decode(_line_in(self._compression, end), type=_Last)
        except _UNREADABLE as error:
            raise self._invalid(cut) from error
        sha256 = hashlib.sha256()
        head = _Head(self._file, self._size)
        buffer = memoryview(bytearray(_CHUNK))
        while read := head.readinto(buffer):
            sha256.update(buffer[:read])
            if on_bytes is not None:
                on_bytes(read)
        # Each byte of the end counts as well.
        digest = sha256.hexdigest()
        if last.sha256 != digest or end != _last_part(self._compression, last):
            raise self._invalid("it was cut off or altered: its SHA-256 is not the one at its end")
        return last.count, digest

    def _read_header(self) -> Header:
        with self._reading() as stream:
            line = self._header_line(stream)
        try:
            found = msgspec.json.decode(line)
            if not isinstance(found, dict) or found.get("format") != FORMAT:
                raise self._invalid("it is not a backup of revstore")
            if found.get("version") != VERSION:
                version = found.get("version")
                raise self._invalid(
                    f"its format has version {version!r}, and this revstore reads {VERSION}"
                )
            return msgspec.convert(found, Header)
        except _UNREADABLE as error:
            raise self._invalid(f"its header cannot be read: {error}") from error

    def _header_line(self, stream: IO[bytes]) -> bytes:
        line = stream.readline(_LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise self._invalid("it has no header")
        return line

    @contextlib.contextmanager
    def _reading(self) -> Iterator[IO[bytes]]:
        """Give the content of the file before its end."""
        head = io.BufferedReader(_Head(self._file, self._size), _CHUNK)
        stream: Any
        if self._compression == "gzip":
            stream = gzip.GzipFile(fileobj=head)
        elif self._compression == "zstd":
            if default_compression() != "zstd":
                raise _no_zstandard()
            import zstandard

            reader: Any = zstandard.ZstdDecompressor().stream_reader(head)
            stream = io.BufferedReader(reader, _CHUNK)
        else:
            stream = head
        try:
            yield stream
        except (EOFError, OSError, zlib.error) as error:
            raise self._invalid(f"it cannot be decompressed: {error}") from error
        except Exception as error:
            if type(error).__name__ != "ZstdError":
                raise
            raise self._invalid(f"it cannot be decompressed: {error}") from error

    def _invalid(self, reason: str) -> InvalidBackup:
        return InvalidBackup(self._name, reason)
