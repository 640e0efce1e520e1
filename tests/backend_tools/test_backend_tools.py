"""The tools for backend authors."""

from __future__ import annotations

import gc
import os
import threading

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from revstore.backend_tools import (
    OpenGuard,
    SharedLog,
    key_matcher,
    prefix_end,
    seconds,
    server_addresses,
    tls_files,
    whole_number,
)
from revstore.config import StorageConfig
from revstore.errors import Closed, ConfigError

KEYS = st.text(st.sampled_from("a/b\ud7ff\ue000\U0010ffff"), max_size=4)


class Handle:
    """Something open; says so when it is collected."""

    collected = False

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.guard = OpenGuard(self, what="thing", in_child=Handle.renew)

    def renew(self) -> None:
        self.lock = threading.Lock()

    def __del__(self) -> None:
        Handle.collected = True


def answer_of_child(work) -> int:
    """Fork, and return what ``work`` returns in the child."""
    pid = os.fork()
    if not pid:
        code = 99
        try:
            code = int(work())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_guard_ends_in_a_child():
    """After a fork check raises, closing frees nothing, the lock that was held is another, and
    the owner is never collected; the parent's goes on."""
    handle = Handle()

    def work() -> bool:
        nonlocal handle
        with pytest.raises(Closed, match="the thing was opened before a fork"):
            handle.guard.check()
        with handle.guard.closing() as first:
            assert not first
        assert handle.guard.inherited
        assert handle.lock.acquire(timeout=0)
        Handle.collected = False
        del handle
        gc.collect()
        return not Handle.collected

    with handle.lock:
        assert answer_of_child(work) == 1
    handle.guard.check()
    assert not handle.guard.inherited


def test_a_guard_opened_in_a_child_ends_in_its_child_only():
    """Each process guards what it opened itself."""

    def work() -> bool:
        mine = Handle()
        mine.guard.check()
        return answer_of_child(lambda: mine.guard.inherited) == 1 and not mine.guard.inherited

    assert answer_of_child(work) == 1


def test_one_call_frees():
    """Of many calls of close one frees, and the others return when it is done."""
    handle = Handle()
    freed: list[int] = []
    begin = threading.Barrier(4)

    def close() -> None:
        begin.wait()
        with handle.guard.closing() as first:
            if first:
                freed.append(1)
        assert freed == [1]

    threads = [threading.Thread(target=close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert freed == [1]
    with pytest.raises(Closed, match="the thing is closed"):
        handle.guard.check()


@given(KEYS, KEYS, st.booleans())
def test_key_matcher(key, other, recursive):
    """A prefix covers what starts with it, a key itself alone."""
    covers = key_matcher(key, recursive=recursive)

    assert covers(other) is (other.startswith(key) if recursive else other == key)


@given(KEYS, KEYS)
def test_prefix_end(prefix, key):
    """The keys with a prefix are those between it and its end."""
    end = prefix_end(prefix)

    assert key.startswith(prefix) == (key >= prefix and (not end or key < end))


@given(st.lists(st.integers(1, 3), max_size=20), st.integers(0, 20), st.integers(0, 70))
def test_event_log(steps, cut, revision):
    """Numbers stay when the oldest events go, and lead to the same events."""
    revisions = [sum(steps[: n + 1]) for n in range(len(steps))]
    log: SharedLog[int] = SharedLog(floor=0, base=5, items=revisions)
    cut = min(cut, len(revisions))
    rest = log.without(cut, revisions[cut - 1] if cut else 0)

    assert (rest.base, rest.end, log.end) == (5 + cut, log.end, 5 + len(revisions))
    for cursor in range(rest.base, rest.end + 1):
        assert rest.read(cursor) == log.read(cursor)
        assert rest.read(cursor, 2) == log.read(cursor)[:2]
    after = rest.after(revision, lambda item: item)
    assert rest.read(after) == [each for each in rest.items if each > revision]


@attrs.frozen
class Options:
    wait: float = attrs.field(default=1.0, validator=seconds(0.001, 10))
    page: int = attrs.field(default=1, validator=whole_number(1, 1_000_000))


@pytest.mark.parametrize("value", [0, 0.0009, 10.1, float("nan"), float("inf"), True, "1", None])
def test_seconds_out_of_range(value):
    """Refused by name, with the range."""
    with pytest.raises(ConfigError, match=r"options\.wait.* from 0.001 to 10"):
        Options(wait=value)


@pytest.mark.parametrize("value", [0, 1_000_001, 1.0, True, "1", 2**63, None])
def test_whole_number_out_of_range(value):
    """Refused by name, with the range."""
    with pytest.raises(ConfigError, match=r"options\.page.* from 1 to 1000000"):
        Options(page=value)


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("h", "h:2379"),
        ("h:1", "h:1"),
        ("[::1]", "[::1]:2379"),
        ("http://[fe80::1]:5/", "[fe80::1]:5"),
        ("https://h/", "h:2379"),
    ],
)
def test_server_addresses(server, address):
    """Scheme, host and port; the port of old where none is given."""
    config = StorageConfig(type="etcd3", server_list=(server,))

    assert [str(each) for each in server_addresses(config, 2379)] == [address]


@pytest.mark.parametrize("servers", [(), ("[:::]",), ("[1.2.3.4]:1",)])
def test_servers_that_are_none(servers):
    """ConfigError, never an error of the parser."""
    with pytest.raises(ConfigError, match="server_list"):
        server_addresses(StorageConfig(type="etcd3", server_list=servers), 2379)


def test_tls_files(tmp_path):
    """PEM texts, or the field of the file that is none."""
    pem, other = tmp_path / "ca.pem", tmp_path / "other"
    pem.write_text("-----BEGIN CERTIFICATE-----\n")
    other.write_text("DER")
    assert tls_files(StorageConfig(server_list=("h",), type="etcd3")) is None
    found = tls_files(StorageConfig(server_list=("h",), type="etcd3", ca_file=str(pem)))
    assert found is not None
    assert (found.ca, found.key, found.cert) == (pem.read_bytes(), None, None)
    for path in (other, tmp_path / "absent"):
        with pytest.raises(ConfigError, match="ca_file"):
            tls_files(StorageConfig(server_list=("h",), type="etcd3", ca_file=str(path)))
