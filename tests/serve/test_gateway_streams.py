"""Watches and keepalives over the JSON gateway, compared with those of a real etcd."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import time

import pytest
from tests.serve.conftest import open_store
from tests.serve.test_gateway import ALL, PUT, VALUE, A, B, b, moved
from tests.serve.test_http import ANY, fetch, metrics

from revstore_serve import serve


@contextlib.contextmanager
def lines(address, path, *requests):
    """The messages of a stream, as they come."""
    connection = http.client.HTTPConnection(address, timeout=20)
    body = "\n".join(json.dumps(each) for each in requests)
    try:
        connection.request("POST", f"/v3/{path}", body)
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Content-Type")) == (200, "application/json")
        yield map(json.loads, iter(answer.readline, b""))
    finally:
        connection.close()


def until(condition):
    """Wait for a condition."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def created(key, **options):
    return {"create_request": {"key": key, **options}}


def story(address):
    """What a server tells a client that watches, in the past and then live."""
    start = int(json.loads(fetch(address, "/v3/kv/deleterange", ALL)[1])["header"]["revision"])
    for path, body in (("put", PUT), ("put", PUT), ("deleterange", {"key": A})):
        fetch(address, f"/v3/kv/{path}", body)
    found = []
    everything = {"range_end": ALL["range_end"], "start_revision": str(start + 1)}
    with lines(address, "watch", created(ALL["key"], prev_kv=True, **everything)) as watch:
        while sum(len(each["result"].get("events", ())) for each in found) < 3:
            found.append(next(watch))
        fetch(address, "/v3/kv/put", {"key": B, "value": A})
        found.append(next(watch))
    with lines(address, "watch", created(ALL["key"], filters=["NOPUT"], **everything)) as watch:
        found += [next(watch), next(watch)]
    with lines(address, "watch", created(A, watch_id=5), created(B, watch_id=7)) as watch:
        found += [next(watch), next(watch)]
    revision = str(start + 3)
    fetch(address, "/v3/kv/compaction", {"revision": revision})
    with lines(address, "watch", created(A, start_revision=str(start))) as watch:
        found += [next(watch), next(watch)]
    fetch(address, "/v3/lease/grant", {"TTL": "100", "ID": "99"})
    with lines(address, "lease/keepalive", {"ID": "99"}, {"ID": "98"}) as alive:
        found += [*alive]
    fetch(address, "/v3/lease/revoke", {"ID": "99"})
    return merged(moved(found, start))


def merged(found):
    """All answers, with the events of one watch beside each other, however they were packed."""
    answers = [each for each in found if "events" not in each["result"]]
    for each in answers:
        if each["result"].get("canceled"):  # etcd 3.4 says less here
            del each["result"]["header"]
            each["result"].pop("cancel_reason", None)
    return answers, [event for each in found for event in each["result"].get("events", ())]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_like_etcd(kind, tmp_path, etcd):
    """The lines are etcd's: answers, events of the past and new ones, ends, and keepalives."""
    with open_store(kind, tmp_path) as backend, serve(backend, http=ANY) as endpoint:
        assert story(endpoint.http_address) == story(etcd.address)


def test_what_is_no_stream(tmp_path):
    """Nothing begins if a message cannot be read; no message at all is fine."""
    with open_store("memory", tmp_path) as backend, serve(backend, http=ANY) as endpoint:
        where = endpoint.http_address
        assert fetch(where, "/v3/watch", b'{"create_request":{"key":"YQ=="}}{')[0] == 400
        assert fetch(where, "/v3/lease/keepalive", b"") == (200, "")
        assert metrics(where)["etcd_debugging_mvcc_watch_stream_total"] == 0


def test_the_connection_stays(tmp_path, etcd):
    """After the end of a stream the client sends its next request on the same connection."""
    with open_store("memory", tmp_path) as backend, serve(backend, http=ANY) as endpoint:
        for address in (etcd.address, endpoint.http_address):
            connection = http.client.HTTPConnection(address, timeout=20)
            for path in ("lease/keepalive", "kv/range", "lease/keepalive", "lease/leases"):
                connection.request("POST", f"/v3/{path}", json.dumps({"ID": "98", "key": A}))
                answer = connection.getresponse()
                assert (answer.status, answer.will_close) == (200, False)
                assert b'"header"' in answer.read()
            connection.close()


def test_a_client_that_goes(tmp_path):
    """Its watches end with the connection."""

    def streams():
        return metrics(endpoint.http_address)["etcd_debugging_mvcc_watch_stream_total"]

    with open_store("memory", tmp_path) as backend, serve(backend, http=ANY) as endpoint:
        with lines(endpoint.http_address, "watch", created(A)) as watch:
            next(watch)
            assert streams() == 1
        until(lambda: streams() == 0)


def test_a_client_that_does_not_read(tmp_path, monkeypatch, new_client):
    """It delays nobody, and is cut off after a while."""
    monkeypatch.setattr("revstore_serve._http._READING", 0.5)
    with open_store("memory", tmp_path) as backend, serve(backend, http=ANY) as endpoint:
        where = endpoint.http_address
        client = new_client(endpoint.address)
        with (
            lines(where, "watch", created(A)) as stuck,
            lines(where, "watch", created(A)) as reading,
        ):
            assert [next(stuck), next(reading)]
            for _ in range(12):
                put = client.call("KV/Put", key=b"gw/a", value=b"x" * 1_000_000)
                event = next(reading)["result"]["events"][0]
                assert event["kv"]["mod_revision"] == str(put.header.revision)
            until(lambda: metrics(where)["etcd_debugging_mvcc_watch_stream_total"] == 1)


def test_the_stop(tmp_path):
    """It ends a watch after its events, with a reason, and soon."""
    with open_store("memory", tmp_path) as backend, serve(backend, http=ANY) as endpoint:
        with lines(endpoint.http_address, "watch", created(A)) as watch:
            next(watch)
            fetch(endpoint.http_address, "/v3/kv/put", {"key": A, "value": B})
            begun = time.monotonic()
            endpoint.stop()
            assert time.monotonic() - begun < 4
            found = [*watch]
        value = found[0]["result"]["events"][0]["kv"]["value"]
        assert base64.b64decode(value) == base64.b64decode(B)
        assert found[1:] == [
            {
                "error": {
                    "grpc_code": 14,
                    "http_code": 503,
                    "message": "etcdserver: server stopped",
                    "http_status": "Service Unavailable",
                }
            }
        ]


def elected(address):
    """What a server answers to calls of locks and elections, with all their errors."""
    for lease in ("88", "89"):
        fetch(address, "/v3/lease/grant", {"TTL": "600", "ID": lease})
    start = int(json.loads(fetch(address, "/v3/kv/deleterange", ALL)[1])["header"]["revision"])
    found = []

    def post(path, body):
        status, text = fetch(address, f"/v3/{path}", body)
        found.append({"status": status, "answer": json.loads(text)})
        return json.loads(text)

    for body in ({"name": A, "lease": "88"}, {"name": A, "lease": 88}, {"name": A, "lease": "7"}):
        post("lock/lock", body)
    for body in ({"key": b("gw/a/58")}, {"key": b("gw/a/58")}, {}):
        post("lock/unlock", body)
    post("election/leader", {"name": B})
    leader = post("election/campaign", {"name": B, "lease": "88", "value": VALUE})["leader"]
    with lines(address, "election/observe", {"name": B}) as observed:
        found.append(next(observed))
        post("election/proclaim", {"leader": leader, "value": A})
        found.append(next(observed))
    post("election/leader", {"name": B})
    for body in ({}, {"leader": leader | {"rev": "1"}}):
        post("election/proclaim", body)
        post("election/resign", body)
    post("election/resign", {"leader": leader})
    post("election/leader", {"name": B})
    for lease in ("88", "89"):
        fetch(address, "/v3/lease/revoke", {"ID": lease})
    return moved(found, start)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_locks_and_elections(kind, tmp_path, etcd):
    """Statuses, answers and errors are etcd's, and the calls are counted."""
    with open_store(kind, tmp_path) as backend, serve(backend, http=ANY) as endpoint:
        assert elected(endpoint.http_address) == elected(etcd.address)
        page = fetch(endpoint.http_address, "/metrics")[1]
    labels = 'grpc_code="OK",grpc_method="Lock",grpc_service="v3lockpb.Lock",grpc_type="unary"'
    assert f"grpc_server_handled_total{{{labels}}} 2" in page
    labels = 'grpc_method="Observe",grpc_service="v3electionpb.Election",grpc_type="server_stream"'
    assert labels in page


def test_a_wait_for_a_lock(tmp_path):
    """It ends with its connection, which takes its key away, or with the server, which says so."""
    with open_store("memory", tmp_path) as backend, serve(backend, http=ANY) as endpoint:
        fetch(endpoint.http_address, "/v3/lock/lock", {"name": A})
        connections = [http.client.HTTPConnection(endpoint.http_address, timeout=20) for _ in "12"]
        for number, each in enumerate(connections):
            each.request("POST", "/v3/lock/lock", json.dumps({"name": A}))
            until(lambda number=number: len(backend.list("gw/a/").kvs) == number + 2)
        connections[0].close()
        until(lambda: len(backend.list("gw/a/").kvs) == 2)
        endpoint.stop()
        answer = connections[1].getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (503, 14)
        connections[1].close()
        assert len(backend.list("gw/a/").kvs) == 1
