"""Names and namespaces to keys. (KEY-9)"""

from __future__ import annotations

from typing import Any

from revstore.errors import InvalidArgument, InvalidObject
from revstore.keys import is_segment
from revstore.objects import metadata_value

__all__ = ["DEFAULT_NAMESPACE", "Keys"]

DEFAULT_NAMESPACE = "default"

_SEGMENT = 'a name that is not blank, has no "/", "%" or NUL, and is neither "." nor ".."'


class Keys:
    """The keys of one resource: "/pods/<namespace>/<name>", "/nodes/<name>".

    A bad argument raises ``InvalidArgument``, a bad object ``InvalidObject``.
    """

    def __init__(self, resource_prefix: str, *, namespaced: bool) -> None:
        self._root = resource_prefix.rstrip("/")
        self._namespaced = namespaced

    def one(self, name: str, namespace: str | None) -> str:
        """Return the key of the object called ``name``."""
        if not is_segment(name):
            raise InvalidArgument("name", name, _SEGMENT)
        if self._namespaced and namespace is None:
            namespace = DEFAULT_NAMESPACE
        return f"{self.below(namespace)}/{name}"

    def below(self, namespace: str | None) -> str:
        """Return the prefix of the keys of a namespace, without the slash at its end; None: of
        all."""
        if namespace is None:
            return self._root
        if not self._namespaced:
            raise InvalidArgument("namespace", namespace, "none: the objects have no namespaces")
        if not is_segment(namespace):
            raise InvalidArgument("namespace", namespace, _SEGMENT)
        return f"{self._root}/{namespace}"

    def of(self, obj: Any) -> str:
        """Return the key of ``obj``."""
        name = metadata_value(obj, "name")
        if not is_segment(name):
            raise InvalidObject("metadata.name", name, _SEGMENT)
        return f"{self.below(self.namespace_of(obj))}/{name}"

    def namespace_of(self, obj: Any) -> str | None:
        """Return the namespace that ``obj`` belongs to, the default one if it names none; None if
        the resource has no namespaces."""
        namespace = metadata_value(obj, "namespace")
        if not self._namespaced:
            if namespace:
                raise InvalidObject(
                    "metadata.namespace", namespace, "none: objects of this kind have no namespace"
                )
            return None
        if namespace == "":
            return DEFAULT_NAMESPACE
        if not is_segment(namespace):
            raise InvalidObject("metadata.namespace", namespace, _SEGMENT)
        return str(namespace)
