"""The parts that decide, without a server."""

from __future__ import annotations

import sys
import threading
import time
import traceback

import pytest

from revstore.config import StorageConfig
from revstore.errors import (
    AccessDenied,
    BackendError,
    Closed,
    ConfigError,
    CorruptStore,
    NoSpace,
    Timeout,
    Unreachable,
    ValueTooLarge,
)
from revstore.plugins import open_backend
from revstore.secret import Secret
from revstore_etcd3._errors import Fate, fate_of, translate
from revstore_etcd3._leases import LeaseManager, reuse_window
from revstore_etcd3._requests import FENCE, prefix_end

FATES = [
    ("UNAVAILABLE", "failed to connect to all addresses", Fate.NEVER_SENT, Unreachable),
    ("UNAVAILABLE", "DNS resolution failed for x", Fate.NEVER_SENT, Unreachable),
    ("UNAVAILABLE", "Socket closed", Fate.UNKNOWN, Unreachable),
    ("UNAVAILABLE", "etcdserver: request timed out", Fate.UNKNOWN, Timeout),
    ("UNAVAILABLE", "etcdserver: no leader", Fate.UNKNOWN, Unreachable),
    ("DEADLINE_EXCEEDED", "Deadline Exceeded", Fate.UNKNOWN, Timeout),
    ("UNAUTHENTICATED", "etcdserver: invalid auth token", Fate.STALE_TOKEN, AccessDenied),
    ("INVALID_ARGUMENT", "etcdserver: authentication failed", Fate.REFUSED, AccessDenied),
    ("PERMISSION_DENIED", "etcdserver: permission denied", Fate.REFUSED, AccessDenied),
    ("RESOURCE_EXHAUSTED", "etcdserver: mvcc: database space exceeded", Fate.REFUSED, NoSpace),
    ("RESOURCE_EXHAUSTED", "etcdserver: too many requests", Fate.BUSY, Unreachable),
    ("INVALID_ARGUMENT", "etcdserver: request is too large", Fate.REFUSED, ValueTooLarge),
    ("RESOURCE_EXHAUSTED", "trying to send message larger than max", Fate.REFUSED, ValueTooLarge),
    ("OUT_OF_RANGE", "etcdserver: mvcc: required revision", Fate.REFUSED, BackendError),
    ("DATA_LOSS", "etcdserver: corrupt cluster", Fate.REFUSED, CorruptStore),
    ("UNAVAILABLE", "Unwrap failed (TSI_DATA_CORRUPTED)", Fate.UNKNOWN, Unreachable),
    ("INTERNAL", "who knows", Fate.UNKNOWN, BackendError),
]


@pytest.mark.parametrize(("code", "details", "fate", "kind"), FATES)
def test_what_became_of_a_request(code, details, fate, kind):
    """Only what provably did nothing may be repeated."""
    assert fate_of(code, details) == (fate, kind)
    error = translate(code, details, "h:1")
    assert type(error) is kind
    assert "h:1" in str(error)


@pytest.mark.parametrize(("ttl", "window"), [(3600, 60), (1000, 50), (1, 0), (19, 0), (20, 1)])
def test_reuse_window(ttl, window):
    """TTL-2: 5 % of the ttl in whole seconds, and no more than is configured."""
    assert reuse_window(ttl, 60) == window


def test_leases_are_shared():
    """TTL-2, TTL-3, TTL-4, TTL-5: granted for a window longer, and shared within it, by so many
    keys at most; not at all with a window of 0."""
    granted: list[int] = []

    def grant(ttl: int, timeout: float) -> int:
        granted.append(ttl)
        return len(granted)

    leases = LeaseManager(grant, reuse=60, max_objects=2)
    assert [leases.get(1000, 1) for _ in range(5)] == [1, 1, 2, 2, 3]
    assert granted == [1050] * 3
    assert leases.get(10, 1) == 4
    assert leases.get(10, 1) == 5
    assert granted[3:] == [10, 10]
    unbounded = LeaseManager(grant, reuse=60, max_objects=0)
    assert len({unbounded.get(1000, 1) for _ in range(1000)}) == 1
    assert unbounded.get(1000, 1) != unbounded.get(1060, 1)


@pytest.mark.parametrize(
    ("prefix", "end"), [(b"/a/", b"/a0"), (b"a\xff", b"b"), (b"", FENCE), (b"\xff\xff", FENCE)]
)
def test_prefix_end(prefix, end):
    """The first key behind a prefix; the fence behind all keys."""
    assert prefix_end(prefix) == end


@pytest.mark.parametrize(
    ("url", "field"),
    [
        ("etcd3://", "server_list"),
        ("etcd3://h:1?page=0", "options.page"),
        ("etcd3://h:1?timeout=x", "options.timeout"),
        ("etcd3://h:1?ca_file=/no/such.pem", "ca_file"),
        ("etcd3://root:pw@example.com:1", "allow_plaintext"),
    ],
)
def test_bad_configuration(url, field):
    """Refused by name when it is opened, before anything is sent."""
    with pytest.raises(ConfigError, match=field.replace(".", r"\.")):
        open_backend(StorageConfig.from_url(url)).close()


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("etcd3://localhost", "localhost:2379"),
        ("etcd3://a,b:1,c/prefix", "a:2379,b:1,c:2379"),
        ("etcd3://[::1]", "[::1]:2379"),
        ("etcd3://[::1]:5,[fe80::1]", "[::1]:5,[fe80::1]:2379"),
    ],
)
def test_the_port(url, addresses):
    """etcd's own, 2379, where none is given, as in etcd2; grpc would take 443."""
    with open_backend(StorageConfig.from_url(url)) as backend:
        assert backend._client.addresses == addresses
    servers = tuple(f"https://{each.removesuffix(':2379')}/" for each in addresses.split(","))
    with open_backend(StorageConfig(type="etcd3", server_list=servers)) as backend:
        assert backend._client.addresses == addresses


UNACCEPTED = "the client's certificate is missing or not accepted: check cert_file and key_file"
TLS_FAILED = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: "


@pytest.mark.parametrize(
    ("details", "told"),
    [
        (
            "Tls handshake failed: CERTIFICATE_VERIFY_FAILED: certificate has expired: OK",
            "the server's certificate is not trusted: check ca_file (certificate has expired)",
        ),
        (
            "Ssl handshake failed: SSL_ERROR_SSL: CERTIFICATE_VERIFY_FAILED",
            "the server's certificate is not trusted: check ca_file",
        ),
        (
            "Tls handshake failed: SSL_ERROR_SSL: error:10000418:TLSV1_ALERT_UNKNOWN_CA",
            UNACCEPTED + " (unknown ca)",
        ),
        ("Unwrap failed (TSI_DATA_CORRUPTED)", UNACCEPTED),
    ],
)
def test_certificates_that_do_not_fit(details, told):
    """SF-4: which one, and what to check. It may be sent to another server, as nothing was
    done."""
    assert fate_of("UNAVAILABLE", TLS_FAILED + details) == (Fate.NEVER_SENT, AccessDenied)
    error = translate("UNAVAILABLE", TLS_FAILED + details, "h:1")
    assert type(error) is AccessDenied
    assert str(error) == f"etcd at h:1: {told}"


def test_certificates_are_always_verified():
    """grpc always verifies, so that asking it not to is refused."""
    config = StorageConfig(server_list=("https://h:1",), insecure_skip_verify=True, type="etcd3")
    with (
        pytest.warns(UserWarning, match="not verified"),
        pytest.raises(ConfigError, match="grpc always verifies"),
    ):
        open_backend(config)


@pytest.mark.parametrize("call", ["get", "put", "watch"])
def test_closed_at_the_worst_moment(call, monkeypatch):
    """What is closed between the check and the request raises Closed, and nothing of grpc's."""
    backend = open_backend(StorageConfig.from_url("etcd3://127.0.0.1:1"))
    client = backend._client
    (server,) = client.servers

    def closed():
        backend.close()
        return server

    monkeypatch.setattr(client, "_server", closed)
    calls = {
        "get": lambda: backend.get("/a"),
        "put": lambda: backend.put("/a", b"", expected_revision=0),
        "watch": lambda: client.stream(iter([])),
    }
    with pytest.raises(Closed):
        calls[call]()


def test_a_lease_counts_towards_the_deadline(monkeypatch):
    """A put with a ttl takes no longer than its timeout, both requests together."""
    given = []

    def write(_request, timeout, _key, _expected):
        given.append(timeout)
        raise Timeout("too late")

    with open_backend(StorageConfig.from_url("etcd3://127.0.0.1:1")) as backend:
        monkeypatch.setattr(backend, "_write", write)
        monkeypatch.setattr(backend._leases, "get", lambda *_: time.sleep(0.05) or 7)
        with pytest.raises(Timeout):
            backend.put("/a", b"", expected_revision=0, ttl=9, timeout=10)
    assert given[0] <= 9.95


def test_marks_asked_for_at_once():
    """WATCH-20: of two requests, one of which is told while the other is answered, none is lost."""
    with open_backend(StorageConfig.from_url("etcd3://127.0.0.1:1")) as backend:
        watch = backend.watch("/", recursive=True, after_revision=1)
        telling = threading.Thread(target=watch.tell, args=(100,))
        watch.tell(50)

        def trace(frame, event, _):
            if frame.f_code.co_name != "_answered":
                return None
            if event == "line" and frame.f_locals.get("wanted") and not telling.ident:
                telling.start()
                telling.join(0.2)
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            assert watch._answered(60)
        finally:
            sys.settrace(before)
        telling.join(20)
        assert watch._answered(200)


def test_a_failed_login_keeps_no_password_in_its_frames():
    """What records tracebacks with local variables does not show it."""
    password = "guess this"
    config = StorageConfig(
        type="etcd3", server_list=["127.0.0.1:1"], username="u", password=Secret(password)
    )
    with open_backend(config) as backend, pytest.raises(BackendError) as caught:
        backend.get("/a", timeout=0.3)
    errors: list[BaseException] = [caught.value]
    while cause := errors[-1].__cause__ or errors[-1].__context__:
        errors.append(cause)
    for error in errors:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename != __file__:
                assert password not in repr(list(frame.f_locals.values()))
