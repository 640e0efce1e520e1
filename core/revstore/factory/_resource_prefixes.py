"""The search for the resources that a store holds."""

from __future__ import annotations

from collections.abc import Iterator

from revstore.backend import Backend
from revstore.errors import InternalError

__all__ = ["resource_prefixes"]


def resource_prefixes(backend: Backend, root: str) -> Iterator[str]:
    """Yield each "/resource" or "/group/resource" that keys below ``root`` begin with, by skipping
    from one to the next."""
    start = root + "/"
    end = root + "0"  # "0" follows "/": the first key that is not below the root
    while start < end:
        page = backend.list(root + "/", start=start, limit=1, keys_only=True)
        if page.more and not page.kvs:
            raise InternalError(
                "the backend violated its contract: an empty page with more to follow"
            )
        for kv in page.kvs:
            if kv.key < start:  # a backend that cannot page returns all at once
                continue
            first, *rest = kv.key[len(root) + 1 :].split("/")
            # A group has a dot, a resource has none; each is followed at least by a name.
            names = [first, *rest[:1]] if "." in first else [first]
            if len(names) <= len(rest):
                prefix = "/" + "/".join(names)
                yield prefix
                start = root + prefix + "0"
            else:
                start = kv.key + "\0"
        if not page.more:
            return
