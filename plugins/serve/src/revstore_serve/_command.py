"""``revstore serve``."""

from __future__ import annotations

import ipaddress
import os
import signal
import sys
from types import FrameType

import click

from revstore.cli import TEXT, Session, pass_session, store_options
from revstore.errors import ConfigError, Unsupported
from revstore.plugins import open_backend
from revstore.threads import Wake
from revstore_serve._cluster import lacking
from revstore_serve._endpoint import TRANSPORTS, Endpoint
from revstore_serve._tls import tls_from
from revstore_serve._users import Users, hashed

__all__ = ["command"]

# Seconds after which a thread lets another one run.
_TURN = 0.0005


def _hash_password(context: click.Context, _: click.Parameter, value: bool) -> None:
    if not value:
        return
    if sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline().removesuffix("\n").removesuffix("\r")
    if not password:
        raise click.UsageError("an empty password")
    click.echo(hashed(password))
    context.exit()


@click.command("serve", short_help="Serve the store as an etcd v3 endpoint.")
@click.option(
    "--listen",
    default="127.0.0.1:2379",
    show_default=True,
    metavar="ADDRESS",
    type=TEXT,
    help="host:port, or unix:PATH.",
)
@click.option(
    "--http",
    metavar="ADDRESS",
    type=TEXT,
    help="host:port of a second listener, for probes, metrics and the JSON gateway.",
)
@click.option(
    "--advertise",
    type=TEXT,
    metavar="URL",
    help="Where clients reach it, if not at --listen.",
)
@click.option(
    "--name",
    default="revstore",
    show_default=True,
    type=TEXT,
    help="The name of the member.",
)
@click.option(
    "--etcd-version",
    default="3.6.11",
    show_default=True,
    type=TEXT,
    help="The version of etcd that clients see.",
)
@click.option(
    "--progress-interval",
    default=5.0,
    show_default=True,
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds between the progress notifications of a watch without events.",
)
@click.option(
    "--compact-interval",
    default=0.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds between two compactions of the history; 0 for none.",
)
@click.option(
    "--max-connections",
    type=click.IntRange(min=1),
    help="How many connections each listener accepts, if not as many as the limit of open files "
    "leaves room for.",
)
@click.option(
    "--cert-file",
    metavar="PATH",
    type=TEXT,
    help="Serve TLS with this certificate; the file is read again when it changes.",
)
@click.option("--key-file", metavar="PATH", type=TEXT, help="The private key of --cert-file.")
@click.option(
    "--client-ca-file",
    metavar="PATH",
    type=TEXT,
    help="Serve only clients with a certificate of these authorities.",
)
@click.option(
    "--allowed-cn",
    multiple=True,
    metavar="NAME",
    type=TEXT,
    help="Serve only clients with this common name in their certificate, or a name of "
    "--allowed-san. May be repeated.",
)
@click.option(
    "--allowed-san",
    multiple=True,
    metavar="NAME",
    type=TEXT,
    help="Serve only clients with this alternative name in their certificate, or a name of "
    "--allowed-cn. May be repeated.",
)
@click.option(
    "--users-file",
    metavar="PATH",
    type=TEXT,
    help="Serve only users of this TOML file, within their rights; the file is read again when it "
    "changes.",
)
@click.option(
    "--hash-password",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_hash_password,
    help="Ask for a password, or read it from the standard input, print its hash for the file of "
    "users, and exit.",
)
@click.option(
    "--transport",
    type=click.Choice(TRANSPORTS),
    default=TRANSPORTS[0],
    show_default=True,
    help="What carries gRPC: the endpoint's own HTTP/2, or gRPC's library, which is slower.",
)
@click.option(
    "--allow-plaintext",
    is_flag=True,
    help="Without TLS, listen on other addresses than this machine's own.",
)
@click.option(
    "--allow-limited",
    is_flag=True,
    help="Serve a store that lacks something that a Kubernetes apiserver needs.",
)
@store_options
@pass_session
def command(
    session: Session,
    *,
    listen: str,
    http: str | None,
    advertise: str | None,
    name: str,
    etcd_version: str,
    progress_interval: float,
    compact_interval: float,
    max_connections: int | None,
    transport: str,
    cert_file: str | None,
    key_file: str | None,
    client_ca_file: str | None,
    allowed_cn: tuple[str, ...],
    allowed_san: tuple[str, ...],
    users_file: str | None,
    allow_plaintext: bool,
    allow_limited: bool,
) -> None:
    """Serve the store as an etcd v3 endpoint, to etcdctl, Kubernetes and every other client.

    It runs until SIGTERM or Ctrl-C, and then finishes the calls under way. A second signal ends it
    at once.
    """
    tls = tls_from(cert_file, key_file, client_ca_file, allowed_cn, allowed_san)
    for field, address in (("listen", listen), ("http", http)):
        if not (address is None or tls or allow_plaintext or is_own(address)):
            expected = "an address of this machine only, or --cert-file, or --allow-plaintext"
            raise ConfigError(field, address, expected)
    users = None if users_file is None else Users(users_file)
    # The factory would compact the store at an interval of its own.
    with open_backend(session.config) as backend:
        missing = lacking(backend)
        if missing and not allow_limited:
            raise Unsupported(
                missing[0],
                f"the store cannot do all that a Kubernetes apiserver needs; it lacks: "
                f"{', '.join(missing)}; --allow-limited serves it nevertheless",
            )
        # The loop and the thread that writes take turns. By default one that waits interrupts the
        # other after 5 ms, in which there could be several commits.
        sys.setswitchinterval(_TURN)
        ended = _Signals()
        with Endpoint(
            backend,
            listen=listen,
            http=http,
            advertise=advertise or "",
            name=name,
            version=etcd_version,
            progress_interval=progress_interval,
            compact_interval=compact_interval,
            max_connections=max_connections,
            transport=transport,
            tls=tls,
            users=users,
        ) as endpoint:
            second = f", and HTTP at {endpoint.http_address}" if http else ""
            click.echo(f"Serving {backend.status().server} at {endpoint.address}{second}.")
            ended.wait()


def is_own(listen: str) -> bool:
    """Return whether only this machine can connect to an address."""
    if listen.startswith("unix:"):
        return True
    host = listen.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Signals:
    """Handlers of SIGTERM and SIGINT: the first signal ends the wait, the second ends the
    process."""

    def __init__(self) -> None:
        self._wake = Wake()
        self._came = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._came:
            os._exit(128 + number)
        self._came = True
        self._wake.set()

    def wait(self) -> None:
        self._wake.wait()
