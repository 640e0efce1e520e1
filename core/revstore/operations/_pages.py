"""All keys of a store at one revision, page by page."""

from __future__ import annotations

from collections.abc import Iterator

from revstore.backend import Backend
from revstore.errors import CorruptObject, InternalError
from revstore.values import Capability, ListResult

__all__ = ["FIRST", "next_size", "pages"]

# A page is small in memory, and large enough that asking for it costs little. The first is small,
# since the size of the values is not known yet.
_BYTES = 4 << 20
FIRST, _MOST = 16, 500


def pages(
    backend: Backend, prefix: str = "", *, revision: int = 0, timeout: float | None = None
) -> Iterator[ListResult]:
    """Yield all keys with ``prefix`` at ``revision``, by default the current one.

    There is at least one page, and all have the same revision. A store without HISTORICAL_READS is
    read at once. ``timeout`` is in seconds, for each page.

    Raises:
        Compacted: the revision was compacted meanwhile.
        CorruptObject: the stored bytes of a key do not fit their checksum.
    """
    limit = FIRST if Capability.HISTORICAL_READS in backend.capabilities else 0
    start = ""
    while True:
        page = backend.list(prefix, start=start, limit=limit, revision=revision, timeout=timeout)
        for kv in page.kvs:
            if kv.damaged:
                raise CorruptObject(kv.key, "the stored value does not match its checksum")
        yield page
        if not page.more:
            return
        if not page.kvs:
            raise InternalError("the backend gave an empty page, with more to follow")
        revision = page.revision
        start = page.kvs[-1].key + "\0"
        limit = next_size(page)


def next_size(page: ListResult) -> int:
    """Return how many keys to ask for after ``page``, by the size of its values."""
    some = page.kvs[::16]
    size = sum(len(kv.value) for kv in some) // len(some) + 1
    return max(1, min(_MOST, _BYTES // size))
