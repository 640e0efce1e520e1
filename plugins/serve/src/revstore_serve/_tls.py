"""The files of TLS, which are read again when they change, and the clients that may call."""

from __future__ import annotations

import base64
import os
import re
import ssl
import time
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from revstore.backend_tools import Log
from revstore.errors import ConfigError

__all__ = ["Pem", "Tls", "file_state", "tls_from"]

_log = Log("revstore.serve")

_NOT_YET_VALID, _EXPIRED = 9, 10  # X509_V_ERR_* of OpenSSL

# The algorithms Ed25519 and Ed448, as they stand in a key in DER.
_EDWARDS = re.compile(rb"\x30\x05\x06\x03\x2b\x65[\x70\x71]")


class Pem(NamedTuple):
    """The content of the files. ``client_ca`` is None if clients need no certificate."""

    cert: bytes
    key: bytes
    client_ca: bytes | None


class Tls:
    """The server's certificate, and the check of clients' certificates."""

    def __init__(
        self,
        cert_file: str,
        key_file: str,
        client_ca_file: str | None,
        allowed_cn: Collection[str],
        allowed_san: Collection[str],
    ) -> None:
        self._files = {"cert_file": cert_file, "key_file": key_file}
        if client_ca_file is not None:
            self._files["client_ca_file"] = client_ca_file
        self._allowed_cn = frozenset(allowed_cn)
        self._allowed_san = frozenset(allowed_san)
        #: Whether only some of the clients with a valid certificate may call.
        self.selective = bool(allowed_cn or allowed_san)
        self._problem = ""
        # Before the files are read: a change meanwhile is seen at the next connection.
        self._seen = self._state()
        #: The content at the start.
        self.first = self._read()

    def changed(self) -> Pem | None:
        """Return the content of the files if they have changed and are valid, else None.

        A change that is not valid is logged once, and tried again at each call: the second file of
        a pair may come later than the first.
        """
        state = self._state()
        if state == self._seen:
            return None
        try:
            found = self._read()
        except ConfigError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                _log.warning("the certificates stay as they were: %s", error)
            return None
        self._seen, self._problem = state, ""
        return found

    def context(self) -> ssl.SSLContext:
        """Return a server's context of the files as they are now, for the standard library.

        Raises:
            OSError: a file is missing, or does not fit the others.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # A resumed session would keep the certificates of before.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        context.load_cert_chain(self._files["cert_file"], self._files["key_file"], password="")
        if "client_ca_file" in self._files:
            context.load_verify_locations(cafile=self._files["client_ca_file"])
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def admits(self, common_names: Collection[str], alternative_names: Collection[str]) -> bool:
        """Return whether a client may call whose certificate has these names."""
        return not (
            self._allowed_cn.isdisjoint(common_names)
            and self._allowed_san.isdisjoint(alternative_names)
        )

    def _state(self) -> list[tuple[int, ...]]:
        return [file_state(path) for path in self._files.values()]

    def _read(self) -> Pem:
        content = {field: _content(field, path) for field, path in self._files.items()}
        _check_pair(self._files["cert_file"], self._files["key_file"])
        if "client_ca_file" in self._files:
            _check_authorities(self._files["client_ca_file"])
        if _is_edwards(content["key_file"]):
            _log.warning(
                "only clients written in Go can connect: the key in %r is of Ed25519 or Ed448, "
                "which the gRPC library of other languages does not accept",
                self._files["key_file"],
            )
        return Pem(content["cert_file"], content["key_file"], content.get("client_ca_file"))


def tls_from(
    cert_file: str | None,
    key_file: str | None,
    client_ca_file: str | None,
    allowed_cn: Collection[str],
    allowed_san: Collection[str],
) -> Tls | None:
    """Return what these options of an endpoint ask for: None for plaintext, which is when none is
    given.

    Raises:
        ConfigError: an option lacks another, or a file cannot be used; the error names it.
    """
    for field, names in (("allowed_cn", allowed_cn), ("allowed_san", allowed_san)):
        if isinstance(names, str) or "" in names:
            raise ConfigError(field, names, "names that are not empty")
        if names and client_ca_file is None:
            raise ConfigError("client_ca_file", "", f"a file, since {field} is given")
    if client_ca_file is not None and cert_file is None:
        raise ConfigError("cert_file", "", "a file, since client_ca_file is given")
    if cert_file is None and key_file is None:
        return None
    if cert_file is None or key_file is None:
        absent = "cert_file" if cert_file is None else "key_file"
        raise ConfigError(absent, "", "a file: cert_file and key_file go together")
    return Tls(cert_file, key_file, client_ca_file, allowed_cn, allowed_san)


def file_state(path: str) -> tuple[int, ...]:
    """Return what differs once a file was changed or replaced; nothing if there is none."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError):
        return ()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _content(field: str, path: str) -> bytes:
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(field, path, f"a readable file: {reason}") from error
    if b"-----BEGIN" not in data:
        raise ConfigError(field, path, "a PEM file")
    return data


def _is_edwards(key: bytes) -> bool:
    """Return whether a valid private key is of a kind that gRPC's C library does not accept."""
    text = key.partition(b"-----BEGIN PRIVATE KEY-----")[2].partition(b"-----END")[0]
    return _EDWARDS.search(base64.b64decode(text)[:32]) is not None


def _check_pair(cert_file: str, key_file: str) -> None:
    """Refuse a certificate or key that no client could use. gRPC would only say that it cannot
    listen."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    # Only its dates matter here: it is its own authority.
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        client.load_verify_locations(cafile=cert_file)
    except OSError as error:
        raise ConfigError("cert_file", cert_file, "a certificate in PEM") from error
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password, OpenSSL would ask the terminal for that of an encrypted key.
        server.load_cert_chain(cert_file, key_file, password="")
    except OSError as error:
        reason = getattr(error, "reason", None) or ""
        expected = "a private key in PEM, not encrypted"
        if reason == "KEY_VALUES_MISMATCH":
            expected = f"the key of the certificate in {cert_file!r}"
        elif reason.startswith("EE_KEY"):
            expected = "a longer key"
        raise ConfigError("key_file", key_file, expected) from error
    found = _handshake_error(client, server)
    if found in (_NOT_YET_VALID, _EXPIRED):
        expired = "expired" if found == _EXPIRED else "not valid yet"
        raise ConfigError("cert_file", cert_file, f"a valid certificate, but it is {expired}")


def _handshake_error(client: ssl.SSLContext, server: ssl.SSLContext) -> int:
    """Connect the two in memory, since the library shows dates of a certificate in no other way;
    return OpenSSL's number of the client's complaint, or 0."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(to_client, to_server)
    called = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (caller, called, caller):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLCertVerificationError as error:
            return error.verify_code
    return 0


def _check_authorities(path: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cafile=path)
    except OSError as error:
        raise ConfigError("client_ca_file", path, "certificates in PEM") from error
    ends = [ssl.cert_time_to_seconds(str(each["notAfter"])) for each in context.get_ca_certs()]
    if ends and max(ends) < time.time():
        raise ConfigError("client_ca_file", path, "a valid certificate, but all are expired")
