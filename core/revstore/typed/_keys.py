"""Which keys a storage accepts, and what they are in the backend. (KEY-1 to KEY-8)"""

from __future__ import annotations

import posixpath

from revstore.arguments import check_key
from revstore.errors import InvalidKey

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
        """The backend's key for the object at ``key``."""
        return self._physical(key, key)

    def below(self, key: str) -> str:
        """The backend's prefix for what lies below ``key``; ends in a slash."""
        if not isinstance(key, str):
            raise InvalidKey(str(key), "a str")
        return self._physical(key, key if key.endswith("/") else key + "/")

    def logical(self, physical: str) -> str:
        """The key that users know for the backend's ``physical``."""
        return physical[len(self._root) :]

    def _physical(self, given: str, key: str) -> str:
        if not isinstance(given, str) or given in ("", "/"):
            raise InvalidKey(
                str(given), f"one below {self.resource_prefix!r}", message=f"empty key: {given!r}"
            )
        if "/." in key and not {".", ".."}.isdisjoint(key.split("/")):
            raise InvalidKey(given, 'no segment "." or ".."', message=f"invalid key: {given!r}")
        if not key.startswith(self.resource_prefix):
            raise InvalidKey(
                given,
                f"one below {self.resource_prefix!r}",
                message=f"invalid key: {given!r} lacks resource prefix {self.resource_prefix!r}",
            )
        # No continue token can name such a key (LIST-15): a list in pages would not get past it.
        if "//" in key:
            raise InvalidKey(given, "no empty segment", message=f"invalid key: {given!r}")
        check_key(key)  # so that an error names the key that was given
        return self._root + key
