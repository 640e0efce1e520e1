"""The messages and methods of etcd's API, as far as they are served.

They are declared here by name, number and type, in a descriptor pool of their own: other modules
of a process may have etcd's messages in protobuf's default pool, of another version.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["METHODS", "REFLECTIONS", "Method", "file_named", "file_with", "message"]

# package, message: field number type. "*" before a type: repeated; "union.field": a oneof. A type
# that begins with a capital is a message of the same package unless it names another; "#" is an
# enum of ``_ENUMS``.
_MESSAGES = """
mvccpb.KeyValue: key 1 bytes, create_revision 2 int64, mod_revision 3 int64, version 4 int64,
    value 5 bytes, lease 6 int64
mvccpb.Event: type 1 #mvccpb.Event.EventType, kv 2 mvccpb.KeyValue, prev_kv 3 mvccpb.KeyValue
etcdserverpb.ResponseHeader: cluster_id 1 uint64, member_id 2 uint64, revision 3 int64,
    raft_term 4 uint64
etcdserverpb.RangeRequest: key 1 bytes, range_end 2 bytes, limit 3 int64, revision 4 int64,
    sort_order 5 #RangeRequest.SortOrder, sort_target 6 #RangeRequest.SortTarget,
    serializable 7 bool, keys_only 8 bool, count_only 9 bool,
    min_mod_revision 10 int64, max_mod_revision 11 int64,
    min_create_revision 12 int64, max_create_revision 13 int64
etcdserverpb.RangeResponse: header 1 ResponseHeader, kvs 2 *mvccpb.KeyValue, more 3 bool,
    count 4 int64
etcdserverpb.RangeStreamResponse: range_response 1 RangeResponse
etcdserverpb.PutRequest: key 1 bytes, value 2 bytes, lease 3 int64, prev_kv 4 bool,
    ignore_value 5 bool, ignore_lease 6 bool
etcdserverpb.PutResponse: header 1 ResponseHeader, prev_kv 2 mvccpb.KeyValue
etcdserverpb.DeleteRangeRequest: key 1 bytes, range_end 2 bytes, prev_kv 3 bool
etcdserverpb.DeleteRangeResponse: header 1 ResponseHeader, deleted 2 int64,
    prev_kvs 3 *mvccpb.KeyValue
etcdserverpb.RequestOp: request.request_range 1 RangeRequest, request.request_put 2 PutRequest,
    request.request_delete_range 3 DeleteRangeRequest, request.request_txn 4 TxnRequest
etcdserverpb.ResponseOp: response.response_range 1 RangeResponse,
    response.response_put 2 PutResponse, response.response_delete_range 3 DeleteRangeResponse,
    response.response_txn 4 TxnResponse
etcdserverpb.Compare: result 1 #Compare.CompareResult, target 2 #Compare.CompareTarget, key 3 bytes,
    target_union.version 4 int64, target_union.create_revision 5 int64,
    target_union.mod_revision 6 int64, target_union.value 7 bytes, target_union.lease 8 int64,
    range_end 64 bytes
etcdserverpb.TxnRequest: compare 1 *Compare, success 2 *RequestOp, failure 3 *RequestOp
etcdserverpb.TxnResponse: header 1 ResponseHeader, succeeded 2 bool, responses 3 *ResponseOp
etcdserverpb.CompactionRequest: revision 1 int64, physical 2 bool
etcdserverpb.CompactionResponse: header 1 ResponseHeader
etcdserverpb.WatchRequest: request_union.create_request 1 WatchCreateRequest,
    request_union.cancel_request 2 WatchCancelRequest,
    request_union.progress_request 3 WatchProgressRequest
etcdserverpb.WatchCreateRequest: key 1 bytes, range_end 2 bytes, start_revision 3 int64,
    progress_notify 4 bool, filters 5 *#WatchCreateRequest.FilterType, prev_kv 6 bool,
    watch_id 7 int64, fragment 8 bool
etcdserverpb.WatchCancelRequest: watch_id 1 int64
etcdserverpb.WatchProgressRequest:
etcdserverpb.WatchResponse: header 1 ResponseHeader, watch_id 2 int64, created 3 bool,
    canceled 4 bool, compact_revision 5 int64, cancel_reason 6 string, fragment 7 bool,
    events 11 *mvccpb.Event
etcdserverpb.LeaseGrantRequest: TTL 1 int64, ID 2 int64
etcdserverpb.LeaseGrantResponse: header 1 ResponseHeader, ID 2 int64, TTL 3 int64, error 4 string
etcdserverpb.LeaseRevokeRequest: ID 1 int64
etcdserverpb.LeaseRevokeResponse: header 1 ResponseHeader
etcdserverpb.LeaseKeepAliveRequest: ID 1 int64
etcdserverpb.LeaseKeepAliveResponse: header 1 ResponseHeader, ID 2 int64, TTL 3 int64
etcdserverpb.LeaseTimeToLiveRequest: ID 1 int64, keys 2 bool
etcdserverpb.LeaseTimeToLiveResponse: header 1 ResponseHeader, ID 2 int64, TTL 3 int64,
    grantedTTL 4 int64, keys 5 *bytes
etcdserverpb.LeaseLeasesRequest:
etcdserverpb.LeaseStatus: ID 1 int64
etcdserverpb.LeaseLeasesResponse: header 1 ResponseHeader, leases 2 *LeaseStatus
etcdserverpb.Member: ID 1 uint64, name 2 string, peerURLs 3 *string, clientURLs 4 *string,
    isLearner 5 bool
etcdserverpb.MemberListRequest: linearizable 1 bool
etcdserverpb.MemberListResponse: header 1 ResponseHeader, members 2 *Member
etcdserverpb.AlarmRequest: action 1 #AlarmRequest.AlarmAction, memberID 2 uint64, alarm 3 #AlarmType
etcdserverpb.AlarmMember: memberID 1 uint64, alarm 2 #AlarmType
etcdserverpb.AlarmResponse: header 1 ResponseHeader, alarms 2 *AlarmMember
etcdserverpb.StatusRequest:
etcdserverpb.StatusResponse: header 1 ResponseHeader, version 2 string, dbSize 3 int64,
    leader 4 uint64, raftIndex 5 uint64, raftTerm 6 uint64, raftAppliedIndex 7 uint64,
    errors 8 *string, dbSizeInUse 9 int64, isLearner 10 bool
etcdserverpb.DefragmentRequest:
etcdserverpb.DefragmentResponse: header 1 ResponseHeader
etcdserverpb.HashRequest:
etcdserverpb.HashResponse: header 1 ResponseHeader, hash 2 uint32
etcdserverpb.HashKVRequest: revision 1 int64
etcdserverpb.HashKVResponse: header 1 ResponseHeader, hash 2 uint32, compact_revision 3 int64
etcdserverpb.AuthenticateRequest: name 1 string, password 2 string
etcdserverpb.AuthenticateResponse: header 1 ResponseHeader, token 2 string
etcdserverpb.AuthStatusRequest:
etcdserverpb.AuthStatusResponse: header 1 ResponseHeader, enabled 2 bool, authRevision 3 uint64
etcdserverpb.Unserved:
v3lockpb.LockRequest: name 1 bytes, lease 2 int64
v3lockpb.LockResponse: header 1 etcdserverpb.ResponseHeader, key 2 bytes
v3lockpb.UnlockRequest: key 1 bytes
v3lockpb.UnlockResponse: header 1 etcdserverpb.ResponseHeader
v3electionpb.LeaderKey: name 1 bytes, key 2 bytes, rev 3 int64, lease 4 int64
v3electionpb.CampaignRequest: name 1 bytes, lease 2 int64, value 3 bytes
v3electionpb.CampaignResponse: header 1 etcdserverpb.ResponseHeader, leader 2 LeaderKey
v3electionpb.ProclaimRequest: leader 1 LeaderKey, value 2 bytes
v3electionpb.ProclaimResponse: header 1 etcdserverpb.ResponseHeader
v3electionpb.LeaderRequest: name 1 bytes
v3electionpb.LeaderResponse: header 1 etcdserverpb.ResponseHeader, kv 2 mvccpb.KeyValue
v3electionpb.ResignRequest: leader 1 LeaderKey
v3electionpb.ResignResponse: header 1 etcdserverpb.ResponseHeader
grpc.health.v1.HealthCheckRequest: service 1 string
grpc.health.v1.HealthCheckResponse: status 1 #HealthCheckResponse.ServingStatus
"""

# These messages have the same names in both packages: older clients know only the second.
_REFLECTION = """
ServerReflectionRequest: host 1 string, message_request.file_by_filename 3 string,
    message_request.file_containing_symbol 4 string,
    message_request.file_containing_extension 5 ExtensionRequest,
    message_request.all_extension_numbers_of_type 6 string,
    message_request.list_services 7 string
ExtensionRequest: containing_type 1 string, extension_number 2 int32
ServerReflectionResponse: valid_host 1 string,
    original_request 2 ServerReflectionRequest,
    message_response.file_descriptor_response 4 FileDescriptorResponse,
    message_response.all_extension_numbers_response 5 ExtensionNumberResponse,
    message_response.list_services_response 6 ListServiceResponse,
    message_response.error_response 7 ErrorResponse
FileDescriptorResponse: file_descriptor_proto 1 *bytes
ExtensionNumberResponse: base_type_name 1 string, extension_number 2 *int32
ListServiceResponse: service 1 *ServiceResponse
ServiceResponse: name 1 string
ErrorResponse: error_code 1 int32, error_message 2 string
"""
#: The packages of the service of reflection.
REFLECTIONS = ("grpc.reflection.v1", "grpc.reflection.v1alpha")
_MESSAGES += "".join(
    f"{package}.{row}\n"
    for package in REFLECTIONS
    for row in _REFLECTION.strip().replace("\n    ", " ").splitlines()
)

_ENUMS = """
mvccpb.Event.EventType: PUT DELETE
etcdserverpb.RangeRequest.SortOrder: NONE ASCEND DESCEND
etcdserverpb.RangeRequest.SortTarget: KEY VERSION CREATE MOD VALUE
etcdserverpb.Compare.CompareResult: EQUAL GREATER LESS NOT_EQUAL
etcdserverpb.Compare.CompareTarget: VERSION CREATE MOD VALUE LEASE
etcdserverpb.WatchCreateRequest.FilterType: NOPUT NODELETE
etcdserverpb.AlarmRequest.AlarmAction: GET ACTIVATE DEACTIVATE
etcdserverpb.AlarmType: NONE NOSPACE CORRUPT
grpc.health.v1.HealthCheckResponse.ServingStatus: UNKNOWN SERVING NOT_SERVING SERVICE_UNKNOWN
"""

# package, service: methods. "~" before a method: the client sends a stream; after it: the server
# answers with one. A method's messages are called as the method, or as "=" says, where ":" parts
# the request's name from the response's; "!": it is not served.
_SERVICES = """
etcdserverpb.KV: Range Put DeleteRange Txn Compact=Compaction
    RangeStream=Range:RangeStream~
etcdserverpb.Watch: ~Watch~
etcdserverpb.Lease: LeaseGrant LeaseRevoke ~LeaseKeepAlive~ LeaseTimeToLive LeaseLeases
etcdserverpb.Cluster: MemberList MemberAdd! MemberRemove! MemberUpdate! MemberPromote!
etcdserverpb.Maintenance: Alarm Status Defragment Hash HashKV Snapshot! MoveLeader! Downgrade!
etcdserverpb.Auth: Authenticate AuthStatus AuthEnable! AuthDisable! UserAdd! UserGet! UserList!
    UserDelete! UserChangePassword! UserGrantRole! UserRevokeRole! RoleAdd! RoleGet! RoleList!
    RoleDelete! RoleGrantPermission! RoleRevokePermission!
v3lockpb.Lock: Lock Unlock
v3electionpb.Election: Campaign Proclaim Leader Observe=Leader~ Resign
grpc.health.v1.Health: Check=HealthCheck Watch=HealthCheck~
grpc.reflection.v1.ServerReflection: ~ServerReflectionInfo=ServerReflection~
grpc.reflection.v1alpha.ServerReflection: ~ServerReflectionInfo=ServerReflection~
"""

_UNSERVED = "Unserved"

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _Field.TYPE_BOOL,
    "bytes": _Field.TYPE_BYTES,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "string": _Field.TYPE_STRING,
    "uint32": _Field.TYPE_UINT32,
    "uint64": _Field.TYPE_UINT64,
}


@attrs.frozen
class Method:
    """A method of a service. ``service`` includes the package. If ``served`` is False, calls are
    refused with a reason. ``streams`` says whether client and server send many messages."""

    service: str
    name: str
    request: Any
    response: Any
    streams: tuple[bool, bool]
    served: bool


def _rows(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield package, name and rest of each declaration. An indented line belongs to the one
    before."""
    for row in text.strip().replace("\n    ", " ").splitlines():
        full, _, rest = row.partition(":")
        package, _, name = full.rpartition(".")
        yield package, name, rest.strip()


def _files() -> dict[str, descriptor_pb2.FileDescriptorProto]:
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for package, _, _ in _rows(_MESSAGES):
        name = f"revstore_serve/{package}.proto"
        files[package] = descriptor_pb2.FileDescriptorProto(
            name=name, package=package, syntax="proto3"
        )
    files["etcdserverpb"].dependency.append(files["mvccpb"].name)
    for package in ("v3lockpb", "v3electionpb"):
        files[package].dependency.extend(files[each].name for each in ("mvccpb", "etcdserverpb"))
    return files


def _declare(file: descriptor_pb2.FileDescriptorProto, name: str, fields: str) -> None:
    declared = file.message_type.add(name=name)
    unions: list[str] = []
    for each in filter(None, fields.split(", ")):
        full, number, kind = each.split()
        union, _, field_name = full.rpartition(".")
        field = declared.field.add(name=field_name, number=int(number))
        repeated = kind.startswith("*")
        field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
        kind = kind.removeprefix("*")
        if kind in _SCALARS:
            field.type = _SCALARS[kind]
        else:
            field.type = _Field.TYPE_ENUM if kind.startswith("#") else _Field.TYPE_MESSAGE
            kind = kind.removeprefix("#")
            field.type_name = f".{kind}" if kind[0].islower() else f".{file.package}.{kind}"
        if union:
            if union not in unions:
                unions.append(union)
                declared.oneof_decl.add(name=union)
            field.oneof_index = unions.index(union)


def _calls() -> Iterator[tuple[str, str, str, str, str, tuple[bool, bool]]]:
    """Yield package, service, method, the names of its messages, and who sends many."""
    for package, service, methods in _rows(_SERVICES):
        for each in methods.split():
            name, _, stems = each.strip("~!").partition("=")
            asked, _, answered = (stems or name).partition(":")
            messages = (f"{asked}Request", f"{answered or asked}Response")
            if each.endswith("!"):
                messages = (_UNSERVED, _UNSERVED)
            yield package, service, name, *messages, (each.startswith("~"), each.endswith("~"))


def _add_services(files: dict[str, descriptor_pb2.FileDescriptorProto]) -> None:
    services: dict[str, descriptor_pb2.ServiceDescriptorProto] = {}
    for package, service, name, asked, answered, (asks, answers) in _calls():
        if asked == _UNSERVED:
            continue
        full = f"{package}.{service}"
        if full not in services:
            services[full] = files[package].service.add(name=service)
        services[full].method.add(
            name=name,
            input_type=f".{package}.{asked}",
            output_type=f".{package}.{answered}",
            client_streaming=asks,
            server_streaming=answers,
        )


def _pool() -> descriptor_pool.DescriptorPool:
    files = _files()
    for package, name, fields in _rows(_MESSAGES):
        _declare(files[package], name, fields)
    for scope, name, values in _rows(_ENUMS):
        if scope in files:
            enum = files[scope].enum_type.add(name=name)
        else:
            package, _, parent = scope.rpartition(".")
            (found,) = (each for each in files[package].message_type if each.name == parent)
            enum = found.enum_type.add(name=name)
        for number, value in enumerate(values.split()):
            enum.value.add(name=value, number=number)
    _add_services(files)
    pool = descriptor_pool.DescriptorPool()
    for file in files.values():
        pool.Add(file)
    return pool


_POOL = _pool()


def message(name: str, package: str = "etcdserverpb") -> Any:
    """Return the class of a message."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{package}.{name}"))


def file_with(symbol: str) -> Any:
    """Return the descriptor of the file with a message, enum, service, method or field.

    Raises:
        KeyError: there is none.
    """
    try:
        return _POOL.FindFileContainingSymbol(symbol)
    except KeyError:
        # The pool may not find what is inside others.
        return _POOL.FindFileContainingSymbol(symbol.rpartition(".")[0])


def file_named(name: str) -> Any:
    """Return the descriptor of a file.

    Raises:
        KeyError: there is none.
    """
    return _POOL.FindFileByName(name)


#: All methods that have an answer of their own, including those that are refused.
METHODS = tuple(
    Method(
        f"{package}.{service}",
        name,
        message(asked, package),
        message(answered, package),
        streams,
        asked != _UNSERVED,
    )
    for package, service, name, asked, answered, streams in _calls()
)
