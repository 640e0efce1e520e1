"""Value transformers from an EncryptionConfiguration, one for each resource."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import attrs

from revstore.errors import ConfigError, Unreachable
from revstore_encryption._ciphers import (
    ENCRYPTED,
    AesCbc,
    AesGcm,
    Cipher,
    Identity,
    Read,
    Secretbox,
    Until,
)
from revstore_encryption._configuration import Configuration, Kms, Provider
from revstore_encryption._errors import Undecryptable

__all__ = ["ProviderChain", "Transformers"]

_CIPHERS: dict[str, Callable[[bytes], Cipher]] = {
    "aesgcm": AesGcm,
    "aescbc": AesCbc,
    "secretbox": Secretbox,
}


# Of a damaged value, nothing is shown that may be ciphertext.
_WRITTEN_BY = re.compile(rb"k8s:enc:([a-z]{1,20}):v[0-9]:([^:\0-\x1f\x7f]{1,253}):")


class Transformers:
    """The transformers of one configuration, by resource.

    Raises:
        ConfigError: a provider needs a library that is not installed.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._chains = {each: ProviderChain(each) for each in configuration.resources.values()}
        self._by_name: dict[str, ProviderChain] = {}

    def get(self, resource: str) -> ProviderChain:
        """Return the transformer of a resource such as "secrets" or "deployments.apps"."""
        found = self._by_name.get(resource)
        if found is None:
            providers = self._configuration.providers(resource)
            found = self._chains.get(providers) or ProviderChain(providers)
            self._by_name[resource] = found
        return found


@attrs.frozen
class _Link:
    """One key of one provider."""

    prefix: bytes
    cipher: Cipher
    name: str


class ProviderChain:
    """A ``Transformer`` of several providers.

    The first key of the first provider encrypts; all keys decrypt. A value that another key than
    the first encrypted is stale.
    """

    def __init__(self, providers: tuple[Provider, ...]) -> None:
        self._links = tuple(link for each in providers for link in _links(each))
        self._prefix, self._encrypt = self._links[0].prefix, self._links[0].cipher.encrypt

    def reader(self, until: Until, otherwise: Read) -> Read:
        """Return a function that decrypts values of the first key until a time, and hands all
        others to ``otherwise``."""
        first = self._links[0]
        return first.cipher.reader(first.prefix, until, otherwise)

    def transform_to_storage(self, data: bytes, context: bytes) -> bytes:
        return self._prefix + self._encrypt(data, context)

    def transform_from_storage(self, data: bytes, context: bytes) -> tuple[bytes, bool]:
        failures = []
        unavailable = False
        for number, link in enumerate(self._links):
            if not data.startswith(link.prefix):
                continue
            try:
                plain, stale = link.cipher.decrypt(data, len(link.prefix), context)
                return plain, stale or number > 0
            except (Undecryptable, Unreachable) as error:
                # Two providers may have keys of one name, as in the middle of a rotation.
                if link.prefix:
                    failures.append(f"the value cannot be decrypted by {link.name}: {error}")
                unavailable = unavailable or isinstance(error, Unreachable)
        if unavailable:
            raise Unreachable("; ".join(failures))
        raise Undecryptable("; ".join(failures) or _no_key(data))


def _links(provider: Provider) -> Iterator[_Link]:
    if provider.kind == "identity":
        yield _Link(b"", Identity(), "identity")
    if provider.kms is not None:
        prefix = f"k8s:enc:kms:v2:{provider.kms.name}:".encode()
        yield _Link(prefix, _kms(provider.kms), f"kms, plugin {provider.kms.name!r}")
    for key in provider.keys:
        prefix = f"k8s:enc:{provider.kind}:v1:{key.name}:".encode()
        cipher = _cipher(provider.kind, key.reveal())
        yield _Link(prefix, cipher, f"{provider.kind}, key {key.name!r}")


def _cipher(kind: str, key: bytes) -> Cipher:
    try:
        return _CIPHERS[kind](key)
    except ImportError as error:
        message = f"{kind} needs PyNaCl; try: pip install 'revstore-encryption[secretbox]'"
        raise ConfigError("providers", kind, "an installed provider", message=message) from error


def _kms(kms: Kms) -> Cipher:
    try:
        from revstore_encryption._kms import cipher_of
    except ImportError as error:
        message = "kms needs grpcio; try: pip install 'revstore-encryption[kms]'"
        raise ConfigError("providers", "kms", "an installed provider", message=message) from error
    return cipher_of(kms)


def _no_key(data: bytes) -> str:
    """Return the message for a value that no configured key can decrypt."""
    if not data.startswith(ENCRYPTED):
        return "the value is not encrypted, but the configuration has no identity provider for it"
    found = _WRITTEN_BY.match(data)
    if found is None:
        return "the value begins as an encrypted one, but names no provider and key"
    kind, key = (part.decode(errors="replace") for part in found.groups())
    return f"the value was encrypted by {kind}, key {key!r}, which the configuration does not have"
