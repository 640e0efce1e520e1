"""Keys and values in etcd v2: what other clients see, what is escaped, what is refused."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from revstore.errors import Unsupported, ValueTooLarge
from revstore.testing._support import collect
from revstore.values import WatchEventType
from revstore_etcd2._names import key_of, path_of, prefix_folder
from revstore_etcd2._wire import decode_value, encode_value

_KEYS = st.text(
    st.one_of(st.sampled_from("/%._-=a25EF"), st.characters(exclude_categories=["Cs"])), min_size=1
).filter(lambda key: "\0" not in key)


def etcdctl(server, *words: str) -> str:
    command = ["etcdctl", "--endpoints", server.client_url, *words]
    env = {**os.environ, "ETCDCTL_API": "2"}
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True, timeout=20)
    return done.stdout.removesuffix("\n")


@given(_KEYS)
@example("a/")
@example("/")
@example("//")
@example("%-/a")
@example("/%-/a")
def test_every_key_has_a_path_of_its_own(key):
    """KEY-2, OLD-19: the path leads back to the key, and the server would neither clean nor hide
    any of its segments."""
    path = path_of(key)
    segments = path[1:].split("/")

    assert key_of(path) == key
    assert path[0] == "/"
    assert not {"", ".", ".."} & set(segments)
    assert not any(each.startswith("_") for each in segments)


@given(_KEYS, st.integers(0, 20))
def test_a_prefix_has_a_folder_above_all_its_keys(key, length):
    """KEY-4: whatever starts with a prefix lies in its folder."""
    folder = prefix_folder(key[:length])
    assert path_of(key).startswith("/" if folder == "/" else f"{folder}/")


@pytest.mark.parametrize("key", ["/registry/pods/default/a-1.b", "/ü/🎉", "/a b/c?d#e"])
def test_ordinary_keys_stand_for_themselves(key):
    """OLD-1: what an old cluster has is found, and what is written is found by its clients."""
    assert path_of(key) == key


@given(st.binary())
@example(b"revstore/base64:")
@example(b"revstore/base64:\xff")
def test_values_survive(value):
    """OLD-14: every value comes back, byte for byte, out of text."""
    text = encode_value(value)
    assert decode_value(text) == value
    text.encode()


def test_foreign_text_is_taken_as_it_stands():
    """A value that only looks like one of ours is not an error."""
    assert decode_value("revstore/base64:?") == b"revstore/base64:?"
    assert encode_value("{ü}".encode()) == "{ü}"


def test_a_key_cannot_be_a_folder(open_store):
    """OLD-19: a key below a key, and a key with others below it, are refused by name; a folder
    that is empty gives way."""
    backend = open_store()
    prefix = f"/folders-{id(backend)}"
    first = backend.put(f"{prefix}/a", b"1", expected_revision=0)
    with pytest.raises(Unsupported, match="is a key"):
        backend.put(f"{prefix}/a/b", b"", expected_revision=0)
    assert backend.get(f"{prefix}/a/b").kv is None
    assert backend.list(f"{prefix}/a/").kvs == ()
    assert not backend.put(f"{prefix}/a/b", b"", expected_revision=5).succeeded
    assert not backend.delete(f"{prefix}/a/b", expected_revision=5).succeeded

    below = backend.put(f"{prefix}/c/d", b"", expected_revision=0)
    with pytest.raises(Unsupported, match="below it"):
        backend.put(f"{prefix}/c", b"", expected_revision=0)
    assert not backend.put(f"{prefix}/c", b"", expected_revision=first.revision).succeeded
    assert not backend.delete(f"{prefix}/c", expected_revision=first.revision).succeeded
    assert backend.get(f"{prefix}/c").kv is None
    backend.delete(f"{prefix}/c/d", expected_revision=below.revision)
    assert backend.put(f"{prefix}/c", b"", expected_revision=0).succeeded
    assert [kv.key for kv in backend.list(prefix).kvs] == [f"{prefix}/a", f"{prefix}/c"]

    deep = [f"{prefix}/e/{name}" for name in ("f/g/h", "f/g/i", "j/k", "l")]
    for key in deep:
        last = backend.put(key, b"", expected_revision=0)
        with pytest.raises(Unsupported, match="below it"):
            backend.put(f"{prefix}/e", b"", expected_revision=0)
        backend.delete(key, expected_revision=last.revision)
    assert backend.put(f"{prefix}/e", b"", expected_revision=0).succeeded


def test_lists_are_in_byte_order(open_store):
    """BASE-6: v2 sorts folder by folder, which is another order."""
    backend = open_store()
    prefix = f"/order-{id(backend)}/"
    names = ["a-b", "a/x", "a/y/z", "a0", "b", "é", "ﬀ", "😀"]
    for name in reversed(names):
        backend.put(prefix + name, b"", expected_revision=0)

    assert [kv.key for kv in backend.list(prefix).kvs] == [prefix + name for name in names]
    assert [kv.key for kv in backend.list(prefix + "a").kvs] == [
        prefix + name for name in names if name[0] == "a"
    ]
    assert backend.count(prefix + "a/").count == 2


def test_etcdctl_reads_and_writes(server, open_store):
    """Another client of the v2 API reads what was written; its changes arrive, as every action it
    has (OLD-21)."""
    backend = open_store()
    key = f"/ctl-{id(backend)}/a"
    start = backend.status().revision
    with backend.watch(key, recursive=True, after_revision=start, progress=False) as watch:
        backend.put(key, b'{"kind": "\xc3\xbc"}', expected_revision=0)
        assert etcdctl(server, "get", key) == '{"kind": "ü"}'
        etcdctl(server, "set", key, "2")
        etcdctl(server, "update", key, "3")
        etcdctl(server, "set", "--swap-with-value", "3", key, "4")
        assert backend.get(key).kv.value == b"4"
        etcdctl(server, "rm", "--with-value", "4", key)
        etcdctl(server, "mk", key, "5")
        etcdctl(server, "rm", key)
        events = collect(watch, 7)

    put, deleted = WatchEventType.PUT, WatchEventType.DELETED
    assert [(e.type, e.kv.value, e.previous and e.previous.value) for e in events[1:]] == [
        (put, b"2", b'{"kind": "\xc3\xbc"}'),
        (put, b"3", b"2"),
        (put, b"4", b"3"),
        (deleted, b"", b"4"),
        (put, b"5", None),
        (deleted, b"", b"5"),
    ]


def test_foreign_keys_are_left_out_and_counted(server, open_store):
    """A path that no key leads to is in no list, and the status tells."""
    backend = open_store()
    prefix = f"/foreign-{id(backend)}/"
    etcdctl(server, "set", f"{prefix}100%", "x")
    backend.put(f"{prefix}a", b"", expected_revision=0)

    assert [kv.key for kv in backend.list(prefix).kvs] == [f"{prefix}a"]
    assert backend.status().foreign_keys >= 1


def test_value_over_the_limit(open_store):
    """A value larger than the server reads is refused with nothing written; one just below it is
    taken."""
    backend = open_store()
    key = f"/large-{id(backend)}"
    with pytest.raises(ValueTooLarge):
        backend.put(key, b"x" * (10 << 20), expected_revision=0)
    assert backend.get(key).kv is None
    written = backend.put(key, b"x" * (4 << 20), expected_revision=0)
    assert backend.delete(key, expected_revision=written.revision).succeeded
