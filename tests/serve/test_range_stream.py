"""Ranges that are answered in parts."""

from __future__ import annotations

import grpc
import pytest
from hypothesis import HealthCheck, assume, given, settings
from tests.serve.conftest import STORES, Client, find, open_store
from tests.serve.programs import KEYS, ranges

from revstore_serve import serve
from revstore_serve._proto import message

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=STORES)
def filled(request, tmp_path_factory):
    """A client of a store with many keys: those of the programs, and hundreds that begin with
    "a/", some of them large."""
    backend = open_store(request.param, tmp_path_factory.mktemp("streamed"))
    with backend, serve(backend) as endpoint:
        client = Client(endpoint.address)
        for key in [*KEYS, *(b"a/%03d" % number for number in range(300)), *KEYS[:4]]:
            client.call("KV/Put", key=key, value=b"x" * (len(key) % 5))
        for number in range(0, 300, 10):
            client.call("KV/Put", key=b"a/%03d" % number, value=b"x" * 100_000)
        yield client
        client.close()


def parts(client, request):
    return [each.range_response for each in client.stream("KV/RangeStream", request)]


def joined(found):
    whole = message("RangeResponse")()
    for part in found:
        whole.MergeFrom(part)
    return whole


@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=200)
@given(request=ranges)
def test_the_parts_are_the_range(filled, request):
    """Merged, they equal the answer of Range, or the error is the same."""
    request.revision = min(request.revision, 400)
    bounds = ("min_mod", "max_mod", "min_create", "max_create")
    orders = ("sort_order", "sort_target")
    if any(getattr(request, each) for each in (*orders, *(f"{b}_revision" for b in bounds))):
        assert code(lambda: parts(filled, request)) in ("UNIMPLEMENTED", "INVALID_ARGUMENT")
        for each in (*orders, *(f"{bound}_revision" for bound in bounds)):
            request.ClearField(each)
    problem = code(lambda: filled.call("KV/Range", request))
    assert code(lambda: parts(filled, request)) == problem
    assume(not problem)
    found = parts(filled, request)
    assert joined(found) == filled.call("KV/Range", request)
    assert [part.HasField("header") for part in found] == [False] * (len(found) - 1) + [True]
    assert not any(part.count or part.more for part in found[:-1])


def code(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name
    return ""


def test_parts_grow_up_to_a_size(filled):
    """Few keys come first, then twice as many, until a part has 768 KiB."""
    request = message("RangeRequest")(key=b"a/", range_end=b"a0")
    found = parts(filled, request)
    sizes = [len(part.kvs) for part in found]
    assert sizes == [10, 20, 40, 80, 80, 72]
    assert joined(found).count == sum(sizes)


def test_all_parts_are_of_one_revision(filled):
    """Writes between the parts do not show, and the header has the revision of the first."""
    request = message("RangeRequest")(key=b"a/", range_end=b"a0")
    before = filled.call("KV/Range", request)
    stream = filled.stream("KV/RangeStream", request)
    found = [next(stream).range_response]
    filled.call("KV/Put", key=b"a/zzz")
    found += [each.range_response for each in stream]
    whole = joined(found)
    # The server may be done before the write; its parts are of one revision in any case.
    assert whole.kvs == before.kvs
    assert whole.header.revision == before.header.revision
    pinned = message("RangeRequest")(key=b"a/", range_end=b"a0", revision=before.header.revision)
    later = joined(parts(filled, pinned))
    assert later.kvs == before.kvs
    assert later.header.revision == before.header.revision + 1
    filled.call("KV/DeleteRange", key=b"a/zzz")


def test_an_empty_key(filled):
    assert find("KV/RangeStream").streams == (False, True)
    assert code(lambda: parts(filled, message("RangeRequest")())) == "INVALID_ARGUMENT"
