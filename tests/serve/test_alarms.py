"""Alarms that clients raise, compared with a real etcd."""

from __future__ import annotations

import http.client
from typing import Any

import pytest
from tests.serve.conftest import STORES, Client, find, open_store
from tests.serve.programs import answer, emptied

from revstore_serve import serve

pytestmark = pytest.mark.slow

NOSPACE, CORRUPT = 1, 2
GET, ACTIVATE, DEACTIVATE = range(3)
PUT = {"request_put": {"key": b"a"}}

#: The calls that are tried under an alarm: methods and their requests' fields.
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("KV/Put", {"key": b"a", "value": b"1"}),
    ("KV/Put", {"key": b""}),
    ("KV/Put", {"key": b"a", "lease": 99}),
    ("KV/Range", {"key": b"a"}),
    ("KV/Txn", {"success": [PUT]}),
    ("KV/Txn", {"failure": [PUT]}),
    ("KV/Txn", {"failure": [PUT, PUT]}),
    ("KV/Txn", {"failure": [{"request_txn": {"success": [PUT]}}]}),
    ("KV/Txn", {"success": [{"request_delete_range": {"key": b"a"}}]}),
    ("KV/Txn", {"success": [{"request_range": {"key": b"a"}}]}),
    ("KV/DeleteRange", {"key": b"a"}),
    ("KV/Compact", {"revision": 1}),
    ("KV/Compact", {"revision": 0}),
    ("Lease/LeaseGrant", {"TTL": 60, "ID": 5}),
    ("Lease/LeaseRevoke", {"ID": 5}),
]


def alarms(client: Client, member: int, **fields: int) -> list[tuple[int, str]]:
    """Send a request; return the alarms in the answer, with 1 for the member's own id."""
    answered = client.call("Maintenance/Alarm", **fields)
    return sorted((each.memberID // member, each.alarm) for each in answered.alarms)


def told(client: Client) -> list[Any]:
    """What a server answers to requests about alarms, and to calls while one is active."""
    member = client.call("Cluster/MemberList").members[0].ID
    base = emptied(client) - 1
    found: list[Any] = []
    for kind in (NOSPACE, CORRUPT):
        for where in (0, member):
            fields = {"alarm": kind, "memberID": where}
            found += [alarms(client, member, action=ACTIVATE, **fields) for _ in range(2)]
            found += [alarms(client, member, action=GET, alarm=each) for each in (0, 1, 2)]
            found.append([each.replace(str(member), "own") for each in status(client)])
            for name, call in CALLS:
                request = find(name).request(**call)
                found.append((name, answer(client, name, request, base)))
            found.append(alarms(client, member, action=DEACTIVATE))
            found.append(alarms(client, member, action=DEACTIVATE, alarm=kind, memberID=7))
            found += [alarms(client, member, action=DEACTIVATE, **fields) for _ in range(2)]
            found.append(alarms(client, member, action=GET))
            found.append(answer(client, "KV/Put", find("KV/Put").request(key=b"a"), base))
    return found


def status(client: Client) -> list[str]:
    return list(client.call("Maintenance/Status").errors)


@pytest.mark.parametrize("store", STORES)
def test_alarms_are_as_in_etcd(store, etcd, new_client, tmp_path):
    with open_store(store, tmp_path) as backend, serve(backend) as endpoint:
        ours, theirs = told(new_client(endpoint.address)), told(new_client(etcd.address))
    assert [pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1]] == []


def test_an_alarm_of_no_kind_is_refused(client):
    """It would end an etcd."""
    assert client.error("Maintenance/Alarm", action=ACTIVATE)[0] == "INVALID_ARGUMENT"


def test_probes_see_an_alarm(new_client):
    with open_store("memory", None) as backend, serve(backend, http="127.0.0.1:0") as endpoint:
        client = new_client(endpoint.address)
        client.call("Maintenance/Alarm", action=ACTIVATE, alarm=CORRUPT)
        connection = http.client.HTTPConnection(endpoint.http_address, timeout=20)
        connection.request("GET", "/health")
        answered = connection.getresponse()
        assert (answered.status, answered.read()) == (
            503,
            b'{"health":"false","reason":"ALARM CORRUPT"}',
        )
        connection.close()
