"""The protocol stubs and channels. This is the only module that knows the client library.

The library's own client and watcher are not used: its watcher does not survive a broken connection.
"""

from __future__ import annotations

import os

import grpc
from etcd3.etcdrpc import kv_pb2, rpc_pb2, rpc_pb2_grpc

from revstore.backend_tools import TlsFiles
from revstore_etcd3._proxy import is_loopback, proxy_variable

__all__ = ["RpcError", "Server", "code_of", "details_of", "kv_pb2", "rpc_pb2"]

RpcError = grpc.RpcError

#: No message is too large to be received: lists are read in pages, and the server bounds writes.
_UNBOUNDED = -1
_NO_ANSWER = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")


class Server:
    """One server of a cluster, and the channel to it."""

    def __init__(
        self,
        address: str,
        tls: TlsFiles | None,
        *,
        dial_timeout: float,
        keepalive_time: float,
        keepalive_timeout: float,
    ) -> None:
        self.address = address
        proxy = proxy_variable(address, os.environ)
        #: The server's name in errors.
        self.title = f"{address} (by the proxy of {proxy})" if proxy else address
        milliseconds = int(keepalive_timeout * 1000)
        self._tls = tls
        self._options = [
            ("grpc.keepalive_time_ms", int(keepalive_time * 1000)),
            ("grpc.keepalive_timeout_ms", milliseconds),
            # Without this, the option above does not limit a peer that has stopped.
            ("grpc.http2.ping_timeout_ms", milliseconds),
            # A server takes pings without a call for an attack: it ends the connection, and then
            # grpc asks half as often.
            ("grpc.keepalive_permit_without_calls", 0),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", 50),
            # Also the time that each attempt to connect, with TLS, may take.
            ("grpc.min_reconnect_backoff_ms", int(dial_timeout * 1000)),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.max_receive_message_length", _UNBOUNDED),
            ("grpc.max_send_message_length", _UNBOUNDED),
            ("grpc.enable_retries", 0),
            # Channels of one process with equal options would share a connection, and its end.
            ("grpc.use_local_subchannel_pool", 1),
            # A proxy of the environment reaches its own loopback, not ours.
            ("grpc.enable_http_proxy", 0 if is_loopback(address) else 1),
        ]
        self._begin()

    def _begin(self) -> None:
        if self._tls is None:
            self._channel = grpc.insecure_channel(self.address, options=self._options)
        else:
            tls = self._tls
            credentials = grpc.ssl_channel_credentials(tls.ca, tls.key, tls.cert)
            self._channel = grpc.secure_channel(self.address, credentials, options=self._options)
        self.kv = rpc_pb2_grpc.KVStub(self._channel)
        self.watch = rpc_pb2_grpc.WatchStub(self._channel)
        self.lease = rpc_pb2_grpc.LeaseStub(self._channel)
        self.auth = rpc_pb2_grpc.AuthStub(self._channel)
        self.maintenance = rpc_pb2_grpc.MaintenanceStub(self._channel)
        self.cluster = rpc_pb2_grpc.ClusterStub(self._channel)
        # The stub has it as a stream; of one request it is the same on the wire.
        self.keep_alive = self._channel.unary_unary(
            "/etcdserverpb.Lease/LeaseKeepAlive",
            request_serializer=rpc_pb2.LeaseKeepAliveRequest.SerializeToString,
            response_deserializer=rpc_pb2.LeaseKeepAliveResponse.FromString,
        )
        # The stub does not have it. On the wire the leases are as members of a cluster: their ids
        # are in a field of the same number and kind.
        self.list_leases = self._channel.unary_unary(
            "/etcdserverpb.Lease/LeaseLeases",
            request_serializer=rpc_pb2.MemberListRequest.SerializeToString,
            response_deserializer=rpc_pb2.MemberListResponse.FromString,
        )
        self._ready = False  # a hint: the last call was answered

    def connect(self, timeout: float) -> Exception | None:
        """Connect; return the reason if there is no connection within ``timeout`` seconds, else
        None."""
        if self._ready:
            return None
        try:
            self.maintenance.Status(rpc_pb2.StatusRequest(), timeout=timeout)
        except RpcError as error:
            failed: Exception = error
            if code_of(failed) in _NO_ANSWER:
                return failed
        self._ready = True
        return None

    def lost(self) -> None:
        """Note that a call was not answered: the next one connects first."""
        self._ready = False

    def renew(self) -> None:
        """Have the next call connect at once, and not fail for the reason of the last one.

        The channel before has no connection, and ends with its last user.
        """
        self._begin()

    def close(self) -> None:
        self._channel.close()


def code_of(error: Exception) -> str:
    """Return the status of a call that failed, such as "UNAVAILABLE"."""
    code = getattr(error, "code", None)
    found = code() if callable(code) else None
    return str(getattr(found, "name", "UNKNOWN"))


def details_of(error: Exception) -> str:
    """Return the message of the server or the transport."""
    details = getattr(error, "details", None)
    return str(details() or "") if callable(details) else str(error)
