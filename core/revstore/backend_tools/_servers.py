"""Servers and TLS files of a configuration, as drivers take them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import attrs

from revstore.errors import ConfigError

if TYPE_CHECKING:
    from revstore.config import StorageConfig

__all__ = ["ServerAddress", "TlsFiles", "server_addresses", "tls_files"]


@attrs.frozen
class ServerAddress:
    """Host and port of a server; ``str`` of it is "host:port", with an IPv6 host in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@attrs.frozen
class TlsFiles:
    """The PEM texts of a TLS set-up. ``ca`` None: the system's roots. ``key`` and ``cert`` None: no
    client certificate."""

    ca: bytes | None
    key: bytes | None
    cert: bytes | None


def server_addresses(config: StorageConfig, default_port: int) -> tuple[ServerAddress, ...]:
    """Return the addresses in ``config.server_list``, in their order.

    ``StorageConfig`` has already refused texts that are not addresses, http beside https, and http
    with TLS files. ``config.tls_enabled`` says whether connections use TLS; it holds for all
    servers.

    Raises:
        ConfigError: there are no servers, or an IPv6 address is not valid.
    """
    if not config.server_list:
        example = f"{config.resolved_type}://127.0.0.1:{default_port}"
        raise ConfigError("server_list", "", f"one or more servers, such as {example}")
    addresses = []
    for server in config.server_list:
        try:
            parts = urlsplit(server if "://" in server else f"//{server}")
        except ValueError as error:
            raise ConfigError("server_list", server, f"host and port: {error}") from error
        addresses.append(ServerAddress(parts.hostname or "", parts.port or default_port))
    return tuple(addresses)


def tls_files(config: StorageConfig) -> TlsFiles | None:
    """Read the TLS files that ``config`` names; return None if connections are plaintext.

    Raises:
        ConfigError: a file cannot be read or is not a PEM file; the error names its field.
    """
    if not config.tls_enabled:
        return None
    return TlsFiles(*(_pem(config, name) for name in ("ca_file", "key_file", "cert_file")))


def _pem(config: StorageConfig, field: str) -> bytes | None:
    path = getattr(config, field)
    if not path:
        return None
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(field, path, f"a readable file: {error.strerror}") from error
    if b"-----BEGIN" not in data:
        raise ConfigError(field, path, "a PEM file")
    return data
