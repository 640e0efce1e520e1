"""Ciphers, each with one key, whose output equals that of kube-apiserver after the prefix."""

from __future__ import annotations

import abc
import os
from collections.abc import Callable
from time import monotonic

import attrs
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from revstore.errors import Unreachable
from revstore.raising import let_out
from revstore_encryption._errors import Undecryptable

__all__ = ["ENCRYPTED", "AesCbc", "AesGcm", "Cipher", "Identity", "Read", "Secretbox", "Until"]

#: What all values begin with that a cipher has written.
ENCRYPTED = b"k8s:enc:"

_CHANGED = "it was changed, or was encrypted with another key"
_MOVED = "it was changed, belongs to another object, or was encrypted with another key"
_SHORT = "it is too short"


#: Decrypts a stored value for its context, as a transformer does.
Read = Callable[[bytes, bytes], tuple[bytes, bool]]


@attrs.define(eq=False)
class Until:
    """A time of ``time.monotonic``, which may be changed."""

    time: float


class Cipher(abc.ABC):
    """Encrypts values with one key. ``context`` is the object's key in the store."""

    @abc.abstractmethod
    def encrypt(self, data: bytes, context: bytes) -> bytes:
        """Encrypt plain bytes; return the bytes that follow the prefix in the store."""

    @abc.abstractmethod
    def decrypt(self, data: bytes, at: int, context: bytes) -> tuple[bytes, bool]:
        """Decrypt ``data`` from the offset ``at`` on; return the plain bytes, and whether the value
        is stale.

        Raises:
            Undecryptable: the value was changed, or was encrypted with another key, or, if the
                cipher authenticates it, for another context.
            Unreachable: the key is not available now.
        """

    def reader(self, prefix: bytes, until: Until, otherwise: Read) -> Read:
        """Return a function that decrypts values with that prefix until a time. It hands other
        values, those that cannot be decrypted, and after that time all, to ``otherwise``."""
        at = len(prefix)

        def read(data: bytes, context: bytes) -> tuple[bytes, bool]:
            if data[:at] == prefix and monotonic() < until.time:
                try:
                    return self.decrypt(data, at, context)
                except (Undecryptable, Unreachable):
                    pass
            return otherwise(data, context)

        return read


class Identity(Cipher):
    """Plain text. It refuses to read what a cipher has written."""

    def encrypt(self, data: bytes, context: bytes) -> bytes:
        return data

    def decrypt(self, data: bytes, at: int, context: bytes) -> tuple[bytes, bool]:
        if data.startswith(ENCRYPTED):
            raise Undecryptable("it is encrypted")
        return data, False


class AesGcm(Cipher):
    """A random nonce of 12 bytes, then the ciphertext with its tag; authenticates the context."""

    def __init__(self, key: bytes) -> None:
        aead = AESGCM(key)
        self._encrypt, self._decrypt = aead.encrypt, aead.decrypt

    def encrypt(self, data: bytes, context: bytes) -> bytes:
        # Not drawn in advance, though that is faster: two forks, or two copies of a machine, would
        # use the same ones, which gives the key's secrets away.
        nonce = os.urandom(12)
        return nonce + self._encrypt(nonce, data, context)

    def decrypt(self, data: bytes, at: int, context: bytes) -> tuple[bytes, bool]:
        try:
            split = at + 12
            return self._decrypt(data[at:split], data[split:], context), False
        except InvalidTag:
            raise Undecryptable(_MOVED) from None
        except ValueError as error:  # a nonce that is too short
            let_out(error)
            raise Undecryptable(_SHORT) from None

    def reader(self, prefix: bytes, until: Until, otherwise: Read) -> Read:
        # cryptography itself takes under a microsecond, so that each call counts.
        decrypt, at = self._decrypt, len(prefix)
        split = at + 12

        def read(data: bytes, context: bytes) -> tuple[bytes, bool]:
            if data[:at] == prefix and monotonic() < until.time:
                try:
                    return decrypt(data[at:split], data[split:], context), False
                except InvalidTag:
                    pass
                except ValueError as error:  # a nonce that is too short
                    let_out(error)
            return otherwise(data, context)

        return read


class AesCbc(Cipher):
    """A random IV of 16 bytes, then the ciphertext with PKCS#7 padding; authenticates nothing."""

    IV = 16

    def __init__(self, key: bytes) -> None:
        self._aes = AES(key)

    def encrypt(self, data: bytes, context: bytes) -> bytes:
        iv = os.urandom(self.IV)
        padder = PKCS7(AES.block_size).padder()
        encryptor = BlockCipher(self._aes, CBC(iv)).encryptor()
        padded = padder.update(data) + padder.finalize()
        return iv + encryptor.update(padded) + encryptor.finalize()

    def decrypt(self, data: bytes, at: int, context: bytes) -> tuple[bytes, bool]:
        iv, rest = data[at : at + self.IV], data[at + self.IV :]
        if not rest or len(rest) % self.IV:
            raise Undecryptable("its length is none that this cipher produces")
        decryptor = BlockCipher(self._aes, CBC(iv)).decryptor()
        unpadder = PKCS7(AES.block_size).unpadder()
        padded = decryptor.update(rest) + decryptor.finalize()
        try:
            return unpadder.update(padded) + unpadder.finalize(), False
        except ValueError as error:
            let_out(error)
            raise Undecryptable(_CHANGED) from None


class Secretbox(Cipher):
    """A random nonce of 24 bytes, then the box: XSalsa20 with Poly1305. It authenticates the value,
    but not the context."""

    OVERHEAD = 24 + 16

    def __init__(self, key: bytes) -> None:
        from nacl.secret import SecretBox  # an extra of the distribution

        self._box = SecretBox(key)

    def encrypt(self, data: bytes, context: bytes) -> bytes:
        return bytes(self._box.encrypt(data))

    def decrypt(self, data: bytes, at: int, context: bytes) -> tuple[bytes, bool]:
        from nacl.exceptions import CryptoError

        if len(data) - at < self.OVERHEAD:
            raise Undecryptable(_SHORT)
        try:
            return self._box.decrypt(data[at:]), False
        except CryptoError:
            raise Undecryptable(_CHANGED) from None
