"""The proxy that grpc uses from the environment: none for servers on this machine."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping

__all__ = ["is_loopback", "proxy_variable"]

# In the order in which grpc looks; it reads no others, and no upper case.
_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")


def is_loopback(address: str) -> bool:
    """Return whether "host:port" is this machine, by its name or number."""
    host = _host(address)
    if host == "localhost" or host.endswith(".localhost"):
        return True
    number = _number(host)
    mapped = getattr(number, "ipv4_mapped", None)
    return number is not None and (mapped or number).is_loopback


def proxy_variable(address: str, environ: Mapping[str, str]) -> str:
    """Return the variable of ``environ`` whose proxy grpc uses for "host:port"; "" if there is
    none."""
    name = next((each for each in _VARIABLES if environ.get(each)), "")
    usable = name and environ[name].lower().startswith("http://")
    if not usable or is_loopback(address) or _is_excepted(_host(address), environ):
        return ""
    return name


def _is_excepted(host: str, environ: Mapping[str, str]) -> bool:
    name = next((each for each in _EXCEPTIONS if environ.get(each)), "")
    entries = [each.strip().lower() for each in environ.get(name, "").split(",")]
    number = _number(host)
    return any(
        host.endswith(entry) or (number is not None and _is_in(number, entry))
        for entry in entries
        if entry
    )


def _is_in(number: ipaddress.IPv4Address | ipaddress.IPv6Address, network: str) -> bool:
    try:
        return "/" in network and number in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _host(address: str) -> str:
    host = address.rpartition(":")[0].strip("[]")
    return host.partition("%")[0].rstrip(".").lower()


def _number(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:  # "127.1" too, as resolvers accept it
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except OSError:
        return None
