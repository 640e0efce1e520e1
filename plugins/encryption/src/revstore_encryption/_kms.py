"""KMS v2: values are encrypted with keys that come from a seed, which a plugin process wraps."""

from __future__ import annotations

import hashlib
import hmac
import os
import threading
import time
import uuid
from typing import Any

import attrs
import grpc
from google.protobuf.message import DecodeError

from revstore.errors import Unreachable
from revstore.onlookers import Log
from revstore.raising import let_out
from revstore.threads import acquire
from revstore_encryption._ciphers import AesGcm, Cipher
from revstore_encryption._configuration import Kms
from revstore_encryption._errors import Undecryptable
from revstore_encryption._messages import message

__all__ = ["KmsCipher", "KmsError", "cipher_of"]

_log = Log("revstore.encryption")

#: Seconds between two calls of Status.
STATUS_INTERVAL = 60.0
#: Seconds after a failure until a write, or a read of the same seed, calls the plugin again.
RETRY_INTERVAL = 3.0
#: Seconds for which a seed encrypts new values after the last Status that confirmed its key id.
SEED_LIFETIME = 180.0

_SEED = 1  # encryptedDEKSourceType; 0: the source is the key itself
_SEED_SIZE = _INFO_SIZE = 32
_MAX_KEY_ID = _MAX_SOURCE = 1024
_MAX_ANNOTATIONS = 32 * 1024

#: The answers after which a value is taken for damaged. After any other, also those of a plugin
#: that does not say why it fails, the value may be all right.
_FINAL = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.DATA_LOSS,
)

_OPTIONS = [
    ("grpc.default_authority", "localhost"),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


class KmsError(Exception):
    """The plugin process failed or gave an invalid answer; the text has the reason.

    ``final``: it said that the same call can never succeed.
    """

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


@attrs.frozen
class _Wrapped:
    """A seed, or a key, wrapped by the plugin. Each stored value contains it."""

    source: bytes
    key_id: str
    annotations: tuple[tuple[str, bytes], ...]
    kind: int

    def check(self) -> None:
        """Refuse a wrapped seed that Kubernetes could not read.

        Raises:
            ValueError: a part is missing or too long.
        """
        size = sum(len(name.encode()) + len(value) for name, value in self.annotations)
        if self.kind not in (0, _SEED):
            raise ValueError(f"its kind of key, {self.kind}, is unknown")
        if not 0 < len(self.source) <= _MAX_SOURCE:
            raise ValueError(
                f"its wrapped key has {len(self.source)} bytes, not 1 to {_MAX_SOURCE}"
            )
        if not 0 < len(self.key_id.encode()) <= _MAX_KEY_ID:
            raise ValueError(f"its key id has not 1 to {_MAX_KEY_ID} bytes")
        if size > _MAX_ANNOTATIONS:
            raise ValueError(f"its annotations have {size} bytes, more than {_MAX_ANNOTATIONS}")


class _Seed:
    """Encrypts each value with a key of its own: HKDF-Expand of the seed and 32 random bytes, which
    are stored in front."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) < _SEED_SIZE:
            raise ValueError("the plugin returned a seed that is too short")
        self._seed = seed

    def _derived(self, info: bytes) -> AesGcm:
        return AesGcm(hmac.digest(self._seed, info + b"\1", hashlib.sha256))

    def encrypt(self, data: bytes, context: bytes) -> bytes:
        info = os.urandom(_INFO_SIZE)
        return info + self._derived(info).encrypt(data, context)

    def decrypt(self, data: bytes, at: int, context: bytes) -> tuple[bytes, bool]:
        split = at + _INFO_SIZE
        return self._derived(data[at:split]).decrypt(data, split, context)


@attrs.frozen
class _State:
    """The seed for new values. Without a new Status, it is used until ``expires``."""

    wrapped: _Wrapped
    seed: _Seed
    expires: float


class _Client:
    """The client of a plugin process. Each call opens its own connection: calls are few, and an
    idle connection would have to be closed, and would break at a fork."""

    def __init__(self, kms: Kms) -> None:
        self._target = f"unix:{kms.path}" if kms.path[0] == "/" else f"unix-abstract:{kms.path[1:]}"
        self._timeout = kms.timeout
        #: Seconds that Status and Encrypt together may take.
        self.longest = 2 * kms.timeout + 1

    def call(self, method: str, **fields: Any) -> Any:
        """Call a method, such as "Status".

        Raises:
            KmsError: the plugin did not answer in time, or with an error.
        """
        request, response = message(f"{method}Request"), message(f"{method}Response")
        try:
            with grpc.insecure_channel(self._target, options=_OPTIONS) as channel:
                call = channel.unary_unary(
                    f"/v2.KeyManagementService/{method}",
                    request_serializer=request.SerializeToString,
                    response_deserializer=response.FromString,
                )
                return call(request(**fields), timeout=self._timeout)
        except grpc.RpcError as error:
            code = error.code().name.lower().replace("_", " ")
            details = " ".join((error.details() or "").split())[:200]
            final = error.code() in _FINAL
            raise KmsError(f"{method}: {code}: {details}", final=final) from None


class KmsCipher(Cipher):
    """The keys of one KMS plugin.

    It has no thread: a call makes the next Status if the last one is a minute old. Reads need the
    plugin only for seeds that are new to this process. Writes need it for their first seed, and
    when the plugin's key id changes.
    """

    def __init__(self, kms: Kms) -> None:
        self._name = kms.name
        self._client = _Client(kms)
        self._lock = threading.Lock()  # held while Status is called
        self._state: _State | None = None
        self._asked = float("-inf")
        self._failure = ""
        self._openers: dict[_Wrapped, AesGcm | _Seed] = {}
        self._refused: dict[_Wrapped, tuple[float, str, bool]] = {}

    def ask(self) -> str:
        """Call the plugin now, and return why it gives no key to write, "" if it does."""
        self._refresh(0.0, wait=True)
        return self._failure

    def encrypt(self, data: bytes, context: bytes) -> bytes:
        self._refresh(RETRY_INTERVAL if self._failure else STATUS_INTERVAL)
        state = self._state
        if state is None or time.monotonic() > state.expires:
            # Another thread may be asking at this moment.
            self._refresh(RETRY_INTERVAL, wait=True)
            state = self._state
        if state is None or time.monotonic() > state.expires:
            raise Unreachable(
                f"the kms plugin {self._name!r} has no key for writes: {self._failure}"
            )
        wrapped = state.wrapped
        stored: bytes = message("EncryptedObject")(
            encryptedData=state.seed.encrypt(data, context),
            keyID=wrapped.key_id,
            encryptedDEKSource=wrapped.source,
            annotations=dict(wrapped.annotations),
            encryptedDEKSourceType=wrapped.kind,
        ).SerializeToString(deterministic=True)
        return stored

    def decrypt(self, data: bytes, at: int, context: bytes) -> tuple[bytes, bool]:
        try:
            found = message("EncryptedObject").FromString(data[at:])
            wrapped = _Wrapped(
                found.encryptedDEKSource,
                found.keyID,
                tuple(sorted(found.annotations.items())),
                found.encryptedDEKSourceType,
            )
            wrapped.check()
        except (DecodeError, ValueError) as error:
            let_out(error)
            why = "its envelope is damaged" if isinstance(error, DecodeError) else str(error)
            raise Undecryptable(why) from None
        opener = self._openers.get(wrapped) or self._unwrap(wrapped)
        plain, _ = opener.decrypt(found.encryptedData, 0, context)
        self._refresh(STATUS_INTERVAL)
        state = self._state
        stale = state is not None and (
            wrapped.key_id != state.wrapped.key_id or wrapped.kind != _SEED
        )
        return plain, stale

    def _unwrap(self, wrapped: _Wrapped) -> AesGcm | _Seed:
        until, why, final = self._refused.get(wrapped, (0.0, "", False))
        if time.monotonic() >= until:
            try:
                key = self._client.call(
                    "Decrypt",
                    ciphertext=wrapped.source,
                    uid=str(uuid.uuid4()),
                    key_id=wrapped.key_id,
                    annotations=dict(wrapped.annotations),
                ).plaintext
                if not key:  # it is the plugin that is broken, and not the value
                    raise KmsError("Decrypt: the plugin returned no key")
                opener = _Seed(key) if wrapped.kind == _SEED else AesGcm(key)
                self._openers[wrapped] = opener
                self._refused.pop(wrapped, None)
                return opener
            except KmsError as error:
                why, final = str(error), error.final
            except ValueError as error:
                let_out(error)
                why, final = "Decrypt: the plugin returned a key of a wrong length", True
            # A list of many such values waits once, not once for each.
            self._refused[wrapped] = time.monotonic() + RETRY_INTERVAL, why, final
        text = f"its key, of key id {_shown(wrapped.key_id)}, is unavailable: {why}"
        raise Undecryptable(text) if final else Unreachable(text)

    def _refresh(self, interval: float, *, wait: bool = False) -> None:
        """Call Status if the last call is at least ``interval`` seconds old; keep its failure."""
        if time.monotonic() - self._asked < interval and not wait:
            return
        # Bounded, since an interrupted call may have left the lock held.
        if not acquire(self._lock, self._client.longest if wait else 0):
            return
        try:
            if time.monotonic() - self._asked < interval:
                return
            self._ask()
        finally:
            self._lock.release()

    def _ask(self) -> None:
        began = time.monotonic()
        try:
            self._state = self._confirmed(began + SEED_LIFETIME)
            failure = ""
        except KmsError as error:
            failure = str(error)
        if failure != self._failure:
            _log.warning("the kms plugin %r %s", self._name, failure or "works again")
        self._failure = failure
        self._asked = time.monotonic()

    def _confirmed(self, expires: float) -> _State:
        status = self._client.call("Status")
        if status.healthz != "ok":
            raise KmsError(f"Status: not healthy: {status.healthz[:200]!r}")
        if status.version not in ("v2", "v2beta1"):
            raise KmsError(f"Status: the version is {status.version[:20]!r}, not 'v2'")
        state = self._state
        if state is not None and state.wrapped.key_id == status.key_id:
            return attrs.evolve(state, expires=expires)
        key = os.urandom(_SEED_SIZE)
        made = self._client.call("Encrypt", plaintext=key, uid=str(uuid.uuid4()))
        annotations = tuple(sorted(made.annotations.items()))
        wrapped = _Wrapped(made.ciphertext, made.key_id, annotations, _SEED)
        try:
            wrapped.check()
        except ValueError as error:
            let_out(error)
            raise KmsError(f"Encrypt: {error}") from None
        if wrapped.key_id != status.key_id:
            raise KmsError("Encrypt: the key id differs from that of Status")
        seed = _Seed(key)
        self._openers[wrapped] = seed
        return _State(wrapped, seed, expires)


def _shown(key_id: str) -> str:
    """Return a digest: a key id may name an account."""
    return f"sha256:{hashlib.sha256(key_id.encode()).hexdigest()[:16]}"


#: All resources, and the file before and after a change, share the seeds of a plugin. The key has
#: the process id, since a child after a fork needs its own cipher.
_ciphers: dict[tuple[int, Kms], KmsCipher] = {}


def cipher_of(kms: Kms) -> KmsCipher:
    """Return this process's cipher for the plugin."""
    return _ciphers.setdefault((os.getpid(), kms), KmsCipher(kms))
