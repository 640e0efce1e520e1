"""The addresses of the servers, and the headers of every request to them."""

from __future__ import annotations

import base64
import ssl
from collections import deque
from collections.abc import Mapping

import attrs

from revstore.backend_tools import ServerAddress, server_addresses
from revstore.config import StorageConfig
from revstore.errors import ConfigError
from revstore_etcd2._http import Connection, TimedTlsSocket

__all__ = ["Server", "headers_of", "servers_of"]

_PORT = 2379


@attrs.define(eq=False)
class Server:
    """One server, and its idle connections."""

    address: ServerAddress
    context: ssl.SSLContext | None
    #: Appended to and popped from without a lock: both are one step of the interpreter.
    idle: deque[Connection] = attrs.field(factory=deque)

    def __str__(self) -> str:
        return str(self.address)


def servers_of(config: StorageConfig) -> list[Server]:
    """Return the servers of ``server_list``.

    Raises:
        ConfigError: an address or a file is not valid.
    """
    context = _context(config) if config.tls_enabled else None
    return [Server(address, context) for address in server_addresses(config, _PORT)]


def headers_of(config: StorageConfig) -> Mapping[str, str]:
    """Return the headers of each request: the form's type, and credentials if there are any."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if config.username:
        password = config.read_password()
        secret = password.reveal() if password else ""
        pair = base64.b64encode(f"{config.username}:{secret}".encode()).decode()
        headers["Authorization"] = f"Basic {pair}"
    return headers


def _context(config: StorageConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca_file or None)
        if config.cert_file:
            context.load_cert_chain(config.cert_file, config.key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            "ca_file", config.ca_file or config.cert_file, f"usable PEM files: {error}"
        ) from error
    # Python 3.13 verifies more strictly by default. A cluster's CA is not the client's choice: what
    # etcd and its clients accept is accepted on every version, such as a CA without key usage, or
    # an intermediate CA alone in ca_file. Chain and host name are always verified.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if config.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.sslsocket_class = TimedTlsSocket
    return context
