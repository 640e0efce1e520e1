"""The checks of ``revstore doctor`` for each member."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from revstore.config import StorageConfig
from revstore.errors import AccessDenied, ReadOnly
from revstore.hooks import CheckResult, DoctorCheck
from revstore_etcd3._answers import check_fence_range
from revstore_etcd3._client import Client, Method
from revstore_etcd3._errors import translate
from revstore_etcd3._options import Etcd3Options
from revstore_etcd3._reader import unfenceable
from revstore_etcd3._requests import fence_range, put_request
from revstore_etcd3._stream import whole_store
from revstore_etcd3._wire import RpcError, code_of, details_of, rpc_pb2

__all__ = ["check_members"]

_TIMEOUT = 3.0
#: The key by which compactors agree, which is that of Kubernetes.
_ELECTION = "compact_rev_key"


def check_members(config: StorageConfig) -> Iterator[DoctorCheck]:
    """Yield a line for each server, and one for each alarm."""
    client = Client(config, Etcd3Options())
    try:
        for server in client.servers:
            name = f"etcd at {server.title}"
            metadata = []
            try:
                metadata = client.credentials(server, _TIMEOUT)
                status = server.maintenance.Status(
                    rpc_pb2.StatusRequest(), timeout=_TIMEOUT, metadata=metadata
                )
            except RpcError as error:
                why = str(translate(code_of(error), details_of(error), server.title))
                yield DoctorCheck(name=name, result=CheckResult.FAILED, detail=why)
                continue
            role = "leader" if status.leader == status.header.member_id else "follower"
            if not status.leader:
                yield DoctorCheck(name=name, result=CheckResult.FAILED, detail="has no leader")
                continue
            size = status.dbSize / 1e6
            detail = f"{status.version}, {role}, {size:.1f} MB, revision {status.header.revision}"
            yield DoctorCheck(name=name, result=CheckResult.OK, detail=detail)
        yield from _alarms(client)
        yield from _fence(client)
        yield from _permissions(client, config)
    finally:
        client.close()


def _permissions(client: Client, config: StorageConfig) -> Iterator[DoctorCheck]:
    """Yield what the user's roles lack. It reads and writes no key."""
    if not config.username:
        return
    everything = rpc_pb2.RangeRequest(key=b"\0", range_end=b"\0", limit=1, keys_only=True)
    detail = _denied(client, lambda server: server.kv.Range, everything)
    if detail:
        yield DoctorCheck(
            name="role for watches", result=CheckResult.FAILED, detail=whole_store(client.user)
        )
    if config.compaction_interval:
        # No key has this revision: the request only shows whether it may be written.
        write = put_request(_ELECTION.encode(), b"", 2**62)
        detail = _denied(client, lambda server: server.kv.Txn, write)
        if detail:
            detail = (
                f"{detail}: compaction needs {_ELECTION!r}: `etcdctl role grant-permission ROLE "
                f"readwrite {_ELECTION}`, or set compaction_interval to 0"
            )
            yield DoctorCheck(name="role for compaction", result=CheckResult.WARNING, detail=detail)


def _fence(client: Client) -> Iterator[DoctorCheck]:
    """Yield that the store is fenced, or that the user's roles do not let it see that."""
    try:
        check_fence_range(client.read(lambda server: server.kv.Range, fence_range(), _TIMEOUT))
    except ReadOnly as error:
        detail = f"all writes of revstore are refused: {error}"
        yield DoctorCheck(name="fence", result=CheckResult.WARNING, detail=detail)
    except AccessDenied:
        detail = unfenceable(client.user)
        yield DoctorCheck(name="role for writes", result=CheckResult.FAILED, detail=detail)


def _denied(client: Client, method: Method, request: Any) -> str:
    try:
        client.read(method, request, _TIMEOUT)
    except AccessDenied as error:
        return str(error)
    return ""


def _alarms(client: Client) -> Iterator[DoctorCheck]:
    request = rpc_pb2.AlarmRequest(action=rpc_pb2.AlarmRequest.GET)
    response = client.read(lambda server: server.maintenance.Alarm, request, _TIMEOUT)
    for alarm in response.alarms:
        kind = rpc_pb2.AlarmType.Name(alarm.alarm)
        advice = {"NOSPACE": "compact, defragment, then `etcdctl alarm disarm`"}.get(kind, "")
        yield DoctorCheck(
            name=f"alarm of member {alarm.memberID:x}",
            result=CheckResult.FAILED,
            detail=f"{kind}: {advice}".rstrip(": "),
        )
