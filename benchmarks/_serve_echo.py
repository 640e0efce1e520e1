"""A server of the endpoint's transport that does nothing: ``python -m benchmarks._serve_echo``.

It answers each call with the same bytes, of the size that a real answer has, and shows what gRPC
alone costs. It prints its address.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from benchmarks._serve_client import LISTED, VALUE
from revstore_serve._proto import message

__all__: list[str] = []


def _keys(count: int) -> bytes:
    kvs = [
        {"key": b"/listed/%06d" % number, "value": VALUE, "mod_revision": number, "version": 1}
        for number in range(count)
    ]
    found: bytes = message("RangeResponse")(kvs=kvs, count=count).SerializeToString()
    return found


async def _main() -> None:
    written = message("TxnResponse")(succeeded=True, responses=[{"response_put": {}}])
    txn: bytes = written.SerializeToString()
    one, page, whole = (_keys(count) for count in (1, 500, LISTED))

    async def answer_txn(_: bytes, __: Any) -> bytes:
        return txn

    async def answer_range(request: bytes, _: Any) -> bytes:
        # A list has a limit or an end; requests are short.
        return one if b"/calls/" in request else page if b"\x18" in request else whole

    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(handler)
        for name, handler in (("Txn", answer_txn), ("Range", answer_range))
    }
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("etcdserverpb.KV", handlers)]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_main())
