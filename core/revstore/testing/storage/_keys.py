"""``StorageTests``, part: keys, revisions and stored bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from revstore.backend import Backend
from revstore.errors import (
    InvalidArgument,
    InvalidKey,
    KeyExists,
    KeyNotFound,
    StorageError,
)
from revstore.storage import Storage
from revstore.testing.storage._base import OpenStorage, Pods, StorageSuite
from revstore.testing.storage._parts import Pod, pod

__all__ = ["KeyTests"]


def _calls(storage: Storage[Pod]) -> dict[str, Callable[[str], object]]:
    """Return every method that takes a key, with other arguments that are wrong too."""
    none: Any = None
    return {
        "create": lambda key: storage.create(key, none),
        "get": lambda key: storage.get(key, resource_version="x"),
        "list one": lambda key: storage.list(key, recursive=False, resource_version="x"),
        "delete": lambda key: storage.delete(key, validate=none),
        "update": lambda key: storage.guaranteed_update(key, none),
        "watch one": lambda key: storage.watch(key, recursive=False, resource_version="x"),
        "list": lambda key: storage.list(key, resource_version="x"),
        "watch": lambda key: storage.watch(key, resource_version="x"),
        "changes": lambda key: storage.changes(key, after=0),
        "count": storage.count,
    }


_ONE = ["create", "get", "list one", "delete", "update", "watch one"]


def _refusals(storage: Storage[Pod], key: str) -> dict[str, str]:
    """Return the message with which each method refuses the key, or "" if it does not."""
    found = {}
    for name, call in _calls(storage).items():
        try:
            result: Any = call(key)
        except InvalidKey as error:
            found[name] = str(error)
            continue
        except (StorageError, TypeError):
            found[name] = ""
            continue
        found[name] = ""
        if name in ("watch", "changes"):
            result.close()
    return found


class KeyTests(StorageSuite):
    """The legal keys, and the keys that the backend gets for them."""

    def test_key_empty(self, storage: Storage[Pod]) -> None:
        """Every method refuses "" and "/" before it looks at any other argument (KEY-1, KEY-6)."""
        for key in ("", "/"):
            assert all("empty key" in text for text in _refusals(storage, key).values()), key

    def test_key_dots(self, pods: Pods) -> None:
        """Every method refuses a segment "." or ".." anywhere; dots within segments are allowed
        (KEY-2, KEY-6)."""
        for name in (".", "..", "a/..", "./a", "../a", "a/./b", "a/../b", "a/b/."):
            key = pods.key(name)
            for method, text in _refusals(pods.storage, key).items():
                assert text == f"invalid key: {key!r}", method
        for key in (".", "..", "../" + pods.key("a")):
            assert all(_refusals(pods.storage, key).values()), key
        for name in ("bar..", "a.b.c", "..a", "...", "a/.b", ".a/b."):
            pods.create(name)
            assert pods.names(name, recursive=False) == [name]

    def test_key_prefix(self, pods: Pods) -> None:
        """Every method refuses a key outside the resource prefix (KEY-3). Only methods for a single
        object refuse the prefix itself (KEY-4)."""
        prefix = pods.prefix
        for key in (prefix[:-1], prefix + "-more/a", prefix + ".apps", "/foo/", prefix[1:] + "/a"):
            for method, text in _refusals(pods.storage, key).items():
                assert "lacks resource prefix" in text, method
        refused = [method for method, text in _refusals(pods.storage, prefix).items() if text]
        assert refused == _ONE

    def test_key_bad_characters(self, pods: Pods) -> None:
        """Text that no backend can store is refused as a key (BASE-6)."""
        for name in ("a\0b", "a\ud800"):
            with pytest.raises(InvalidKey):
                pods.create(name)

    def test_key_unicode(self, backend: Backend, pods: Pods) -> None:
        """Any other text is a key, and lists ascend by its UTF-8 bytes (BASE-6)."""
        names = self.storable(backend, ["A", "a", "a b", "a!/b", "a/b/c/d", "a0", "é", "ﬀ", "😀"])
        for name in reversed(names):
            pods.create(name)
        assert pods.names() == names

    def test_key_physical(
        self, backend: Backend, open_storage: OpenStorage, resource_prefix: str
    ) -> None:
        """The backend's key is the normalised path prefix followed by the key (KEY-7)."""
        key = resource_prefix + "/ns/a"
        for given, root in (
            ("custom/prefix", "/custom/prefix"),
            ("/custom//prefix//", "/custom/prefix"),
            ("/registry", "/registry"),
            ("/", ""),
            ("", ""),
        ):
            storage = open_storage(prefix=given)
            storage.create(key, pod("ns/a"))
            found = backend.get(root + key).kv
            storage.delete(key)
            assert found is not None, given

    def test_key_resource_prefix_is_checked(self, open_storage: OpenStorage) -> None:
        """A resource prefix must begin with a slash and have a name (KEY-8)."""
        for prefix in ("", "/", "//", "pods", "pods/"):
            with pytest.raises(InvalidArgument) as caught:
                open_storage(resource_prefix=prefix)
            assert caught.value.field == "resource_prefix"

    def test_key_resource_prefix_may_end_in_a_slash(
        self, pods: Pods, open_storage: OpenStorage
    ) -> None:
        """ "/pods/" and "/pods" name the same resource (KEY-4, KEY-5)."""
        same = open_storage(resource_prefix=pods.prefix + "/")
        created = pods.create("a")
        assert same.get(pods.key("a")) == created
        assert same.list(pods.prefix).items == (created,)

    def test_key_in_errors(self, pods: Pods) -> None:
        """Errors name the logical key (KEY-11, which differs, and ERR-5)."""
        with pytest.raises(KeyNotFound) as missing:
            pods.read("a")
        pods.create("a")
        with pytest.raises(KeyExists) as exists:
            pods.create("a")
        assert [missing.value.key, exists.value.key] == [pods.key("a")] * 2
        assert pods.key("a") in str(missing.value)

    # Revisions and stored bytes

    def test_base_versions(self, pods: Pods, open_storage: OpenStorage) -> None:
        """One counter serves the whole store: each write takes a higher number, and an object's
        version is that of its last write (BASE-1)."""
        other = open_storage(resource_prefix=pods.prefix + "/other")
        first = pods.create("a")
        second = other.create(pods.key("other/b"), pod("b"))
        third = pods.update("a", "n1")
        gone = pods.delete("a")
        versions = [int(each.metadata.resource_version) for each in (first, second, third, gone)]

        assert versions == sorted(set(versions))
        assert versions[0] > pods.start
        assert other.get(pods.key("other/b")) == second

    def test_base_empty_store(self, pods: Pods) -> None:
        """An empty list has a version above 0; a new store is at 1 (BASE-2, LIST-2)."""
        listed = pods.list()
        assert (listed.items, listed.continue_token) == ((), "")
        assert int(listed.resource_version) >= pods.start > 0
        created = pods.create("a")
        if self.starts_at_one:
            assert (pods.start, created.metadata.resource_version) == (1, "2")

    def test_base_reads_take_no_revision(self, pods: Pods, undisturbed: None) -> None:
        """Reads, refused writes and updates that change nothing do not raise the revision
        (BASE-3)."""
        created = pods.create("a")
        for _ in range(5):
            pods.read("a")
            pods.list()
            assert pods.update("a", "") == created
            with pytest.raises(KeyExists):
                pods.create("a")
            with pytest.raises(KeyNotFound):
                pods.delete("b")

        assert pods.list().resource_version == created.metadata.resource_version
        assert str(pods.storage.current_revision()) == created.metadata.resource_version

    def test_base_list_version_is_the_stores(self, pods: Pods, open_storage: OpenStorage) -> None:
        """A list's version rises with writes to unrelated keys (BASE-4, GET-9)."""
        created = pods.create("a")
        other = open_storage(resource_prefix=pods.prefix + "-other")
        unrelated = other.create(pods.prefix + "-other/b", pod("b"))
        listed = pods.list()
        other.delete(pods.prefix + "-other/b")

        assert listed.items == (created,)
        assert int(listed.resource_version) >= int(unrelated.metadata.resource_version)
        assert pods.storage.current_revision() > int(unrelated.metadata.resource_version)
        assert pods.read("a") == created

    def test_base_stored_bytes(self, pods: Pods, open_storage: OpenStorage) -> None:
        """Stored bytes contain neither resource version nor selfLink (BASE-5, OLD-4)."""
        pods.create("a", "n1")
        pods.update("a", "n2")
        dicts = open_storage(dict)
        dicts.create(
            pods.key("b"), {"metadata": {"name": "b", "resourceVersion": "0", "selfLink": "/b"}}
        )
        dicts.guaranteed_update(
            pods.key("b"), lambda found, _: {**found, "kind": "Pod", "spec": {"x": None}}
        )
        stored = [json.loads(pods.stored(name).value) for name in ("a", "b")]

        assert stored == [
            {"metadata": {"name": "a"}, "spec": {"nodeName": "n2"}},
            {"kind": "Pod", "metadata": {"name": "b"}, "spec": {"x": None}},
        ]
