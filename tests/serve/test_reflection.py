"""Tools without etcd's messages learn them from the server."""

from __future__ import annotations

import queue

import grpc
import pytest
from google.protobuf import descriptor_pool, message_factory

from revstore.memory import MemoryBackend
from revstore_serve import serve
from revstore_serve._proto import METHODS, REFLECTIONS, message


@pytest.fixture
def channel():
    with (
        MemoryBackend() as backend,
        serve(backend) as endpoint,
        grpc.insecure_channel(endpoint.address) as channel,
    ):
        yield channel


def test_grpc_s_own_client(channel):
    """It finds the services, and with what it learns it calls and watches."""
    database = pytest.importorskip("grpc_reflection.v1alpha.proto_reflection_descriptor_database")
    found = database.ProtoReflectionDescriptorDatabase(channel)
    assert set(found.get_services()) == {each.service for each in METHODS if each.served}
    pool = descriptor_pool.DescriptorPool(found)
    kv = pool.FindServiceByName("etcdserverpb.KV")
    streams = kv.FindMethodByName("RangeStream")
    assert (streams.client_streaming, streams.server_streaming) == (False, True)
    put = kv.FindMethodByName("Put")
    asked, answered = (
        message_factory.GetMessageClass(each) for each in (put.input_type, put.output_type)
    )
    call = channel.unary_unary(
        "/etcdserverpb.KV/Put",
        request_serializer=asked.SerializeToString,
        response_deserializer=answered.FromString,
    )
    call(asked(key=b"a", value=b"1"), timeout=20)
    assert call(asked(key=b"a", prev_kv=True), timeout=20).prev_kv.value == b"1"
    with pytest.raises(KeyError):
        pool.FindServiceByName("etcdserverpb.Nothing")


@pytest.mark.parametrize("package", REFLECTIONS)
def test_every_kind_of_question(channel, package):
    asked, answered = (
        message(f"ServerReflection{each}", package) for each in ("Request", "Response")
    )
    requests = queue.SimpleQueue()
    answers = channel.stream_stream(
        f"/{package}.ServerReflection/ServerReflectionInfo",
        request_serializer=asked.SerializeToString,
        response_deserializer=answered.FromString,
    )(iter(requests.get, None), timeout=20)

    def ask(**fields):
        request = asked(host="h", **fields)
        requests.put(request)
        answer = next(answers)
        assert (answer.valid_host, answer.original_request) == ("h", request)
        return answer

    for symbol in (
        "etcdserverpb.KV",
        "etcdserverpb.KV.Range",
        "etcdserverpb.RangeRequest.SortOrder",
    ):
        files = ask(file_containing_symbol=symbol).file_descriptor_response.file_descriptor_proto
        assert len(files) == 2
    assert ask(file_by_filename="revstore_serve/mvccpb.proto").HasField("file_descriptor_response")
    known = ask(all_extension_numbers_of_type="etcdserverpb.PutRequest")
    assert known.all_extension_numbers_response.base_type_name == "etcdserverpb.PutRequest"
    for fields in (
        {"file_containing_symbol": "etcdserverpb.Nothing"},
        {"file_containing_symbol": ""},
        {"file_by_filename": "nothing"},
        {"file_containing_extension": {"containing_type": "etcdserverpb.PutRequest"}},
        {"all_extension_numbers_of_type": "x"},
        {},
    ):
        assert ask(**fields).error_response.error_code == 5, fields
    requests.put(None)
