"""Serve any revstore backend as an etcd v3 endpoint, for etcdctl, Kubernetes and other clients.

Importing this module does not import gRPC; serving does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from revstore.backend import Backend
from revstore.hooks import hookimpl

if TYPE_CHECKING:
    from revstore_serve._endpoint import Endpoint

__all__ = ["revstore_commands", "serve"]


def serve(
    backend: Backend,
    *,
    listen: str = "127.0.0.1:0",
    http: str | None = None,
    name: str = "revstore",
    version: str = "3.6.11",
    progress_interval: float = 5.0,
    compact_interval: float = 0.0,
    max_connections: int | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    client_ca_file: str | None = None,
    allowed_cn: Collection[str] = (),
    allowed_san: Collection[str] = (),
    users_file: str | None = None,
    transport: str = "native",
) -> Endpoint:
    """Serve an open backend, and return the endpoint, which runs until ``stop``; it is a context
    manager as well. Its ``address`` says where.

    ``listen`` is "host:port", with port 0 for any that is free, or "unix:path". ``http``, also
    "host:port", opens a second listener for probes, metrics and the JSON gateway; it needs the
    extra ``http``, and ``http_address`` says where it is. ``name`` is the member's. ``version`` is
    the version of etcd that clients see. ``progress_interval``: seconds after which a watch without
    events gets a progress notification, if it asked for that. ``compact_interval``: seconds between
    two compactions of the history, which then reaches back for one to two intervals; 0 for none.
    ``max_connections``: how many each listener accepts; by default, as many as the limit of open
    files leaves room for. The backend stays open. One without the capability TRANSACTIONS refuses
    what writes several keys, or writes one by what another is; one without LEASES refuses leases.

    ``cert_file`` and ``key_file``, paths of PEM files, make it TLS: the server's certificate, with
    those of intermediate authorities after it, and its private key. With ``client_ca_file``, the
    authorities of clients, a client needs a certificate of theirs; with ``allowed_cn`` or
    ``allowed_san`` it also needs one of these names, as its common name or among its alternative
    names. New connections use the files as they are then; a change that is not valid is logged,
    and the files before it stay in use.

    With ``users_file``, a TOML file of users, calls need the token of one, or his certificate, and
    his rights to their keys. It is read again when it changes.

    ``transport``: "native" is the endpoint's own HTTP/2, "grpcio" that of gRPC's library, which is
    several times slower.

    Raises:
        ConfigError: an option of TLS lacks another, or its file or that of users cannot be used;
            or ``http`` is no address, or its library is not installed; or ``compact_interval`` is
            given for a store without compaction.
        InvalidArgument: a number is out of its range.
        OSError: nobody can listen at ``listen`` or ``http``.
    """
    from revstore_serve._endpoint import Endpoint
    from revstore_serve._tls import tls_from
    from revstore_serve._users import Users

    return Endpoint(
        backend,
        listen=listen,
        http=http,
        name=name,
        version=version,
        progress_interval=progress_interval,
        compact_interval=compact_interval,
        max_connections=max_connections,
        transport=transport,
        tls=tls_from(cert_file, key_file, client_ca_file, allowed_cn, allowed_san),
        users=None if users_file is None else Users(users_file),
    )


@hookimpl
def revstore_commands(cli: Any) -> None:
    """Add ``revstore serve``."""
    from revstore_serve._command import command

    cli.add_command(command)
