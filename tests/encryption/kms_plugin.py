"""A KMS plugin, as a process: python kms_plugin.py SOCKET CONTROL.

It wraps by XOR, like the one that made the known answers. CONTROL is a JSON file that is read in
each call: ``key_id`` and ``healthz``, ``delay`` in seconds, and ``fails``, the methods that fail,
and ``empty``, those that answer without a field. Each call is added to CONTROL.log. The messages
are read and written here by hand.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent import futures
from pathlib import Path

import grpc

ANNOTATION = (b"version.example.com", b"1")


def number(value: int) -> bytes:
    head, rest = value & 0x7F, value >> 7
    return bytes([head | 0x80]) + number(rest) if rest else bytes([head])


def written(field: int, value: bytes) -> bytes:
    return number(field << 3 | 2) + number(len(value)) + value


def read(data: bytes) -> dict[int, bytes]:
    """Fields by number, of which all in these messages have a length."""
    at, result = 0, {}

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte, at = data[at], at + 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        field = varint() >> 3
        size = varint()
        result[field] = data[at : at + size]
        at += size
    return result


def wrapped(data: bytes) -> bytes:
    return bytes(byte ^ 0x5A for byte in data)


def main(socket: str, control: str) -> None:
    def answer(method: str, request: bytes, context: grpc.ServicerContext) -> bytes:
        told = json.loads(Path(control).read_text())
        with open(control + ".log", "a") as log:
            log.write(method + "\n")
        time.sleep(told.get("delay", 0))
        if method in told.get("fails", ()):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "told to fail")
        if method in told.get("empty", ()):
            return b""
        fields, key_id = read(request), told["key_id"].encode()
        if method == "Status":
            healthz = told.get("healthz", "ok").encode()
            return written(1, b"v2") + written(2, healthz) + written(3, key_id)
        if method == "Encrypt":
            annotation = written(1, ANNOTATION[0]) + written(2, ANNOTATION[1])
            return written(1, wrapped(fields[1])) + written(2, key_id) + written(3, annotation)
        if fields[4] != written(1, ANNOTATION[0]) + written(2, ANNOTATION[1]):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the annotation is missing")
        return written(1, wrapped(fields[1]))

    def handler(method: str) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(lambda *args: answer(method, *args))

    methods = {method: handler(method) for method in ("Status", "Encrypt", "Decrypt")}
    server = grpc.server(futures.ThreadPoolExecutor(64))
    service = grpc.method_handlers_generic_handler("v2.KeyManagementService", methods)
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
