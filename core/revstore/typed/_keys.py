"""The check of a storage's keys, and their translation to keys of the backend. (KEY-1 to KEY-8)"""

from __future__ import annotations

import posixpath

from revstore.keys import check_object_key

__all__ = ["KeySpace"]


class KeySpace:
    """The keys under one resource prefix, such as "/pods/", of a store with a path prefix, such as
    "/registry": "/pods/default/web" is "/registry/pods/default/web" in the backend.
    """

    def __init__(self, prefix: str, resource_prefix: str) -> None:
        #: Ends in a slash.
        self.resource_prefix = resource_prefix
        self._root = posixpath.normpath("/" + prefix.strip("/")).rstrip("/")
        self.everything = self._root + self.resource_prefix

    def one(self, key: str) -> str:
        """Return the backend's key for the object at ``key``."""
        return self._root + check_object_key(key, self.resource_prefix)

    def below(self, key: str) -> str:
        """Return the backend's prefix for the objects below ``key``; it ends in a slash."""
        return self._root + check_object_key(key, self.resource_prefix, prefix=True)

    def logical(self, physical: str) -> str:
        """Return the users' key for the backend's key ``physical``."""
        return physical[len(self._root) :]
