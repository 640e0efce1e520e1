"""The file of keys, which is read again when it changes, and the transformers that use it."""

from __future__ import annotations

import os
import warnings
from math import inf
from time import monotonic

from revstore.config import StorageConfig
from revstore.errors import ConfigError
from revstore.onlookers import Log
from revstore.raising import let_out
from revstore.transform import Transformer
from revstore_encryption._ciphers import Until
from revstore_encryption._configuration import read_configuration
from revstore_encryption._errors import Undecryptable
from revstore_encryption._transformer import ProviderChain, Transformers

__all__ = ["KeyFile", "exposure", "open_transformers", "read_options"]

_log = Log("revstore.encryption")
_TABLE = "transformer_options"


def open_transformers(config: StorageConfig) -> KeyFile:
    """Read the file that ``transformer_options.config`` names. Warn if users other than its owner
    can read it.

    Raises:
        ConfigError: an option is missing or unknown, the file is not valid, or a provider is not
            installed.
    """
    path, interval = read_options(config)
    file = KeyFile(path, interval)
    exposed = exposure(path)
    if exposed:
        warnings.warn(exposed, stacklevel=2)
    return file


def read_options(config: StorageConfig) -> tuple[str, float]:
    """Return the path of the file of keys, and how often it is looked at.

    Raises:
        ConfigError: an option is missing or unknown.
    """
    wanted = {"config": str, "reload_interval": float}
    options = config.typed_options(wanted, "transformer 'encryption'", _TABLE)
    path = options.get("config", "")
    if not path:
        raise ConfigError(f"{_TABLE}.config", path, "the path of an EncryptionConfiguration")
    return path, options.get("reload_interval", 1.0)


class KeyFile:
    """The transformers of a file of keys.

    Calls check whether the file has changed, at most once in ``interval`` seconds. There is no
    thread, and no lock that a fork could copy: two calls that see a change both read the file.
    """

    def __init__(self, path: str, interval: float) -> None:
        self._path = path
        self._interval = interval
        #: When a call must ``look``, by ``time.monotonic``.
        self.next_look = monotonic() + interval
        # Before the file is read: a change meanwhile is seen at the next look.
        self._seen = _state(path)
        #: A state that the file got without being replaced, and since when it has had it.
        self._written: tuple[tuple[int, ...], float] = (), 0.0
        #: Those of the latest valid content.
        self.transformers = Transformers(read_configuration(path))

    def for_resource(self, resource: str) -> Transformer:
        """Return the transformer of a resource such as "secrets" or "deployments.apps"."""
        return _Following(self, resource)

    def look(self) -> None:
        """Read the file if it has changed."""
        self.next_look = monotonic() + self._interval
        state = _state(self._path)
        if state != self._seen and self._is_whole(state):
            self._read()
            self._seen = state

    def _is_whole(self, state: tuple[int, ...]) -> bool:
        """Return whether nobody is writing the file: it was replaced, or has stayed as it is.

        Half a file may be valid, and not have the resources whose plain text would then be stored.
        """
        if not state or state[:2] != self._seen[:2]:
            return True
        now = monotonic()
        if self._written[0] != state:
            self._written = state, now
        return now - self._written[1] >= self._interval

    def _read(self) -> None:
        try:
            self.transformers = Transformers(read_configuration(self._path))
        except ConfigError as error:
            _log.warning("the keys stay as they were; the changed file is not valid: %s", error)
            return
        exposed = exposure(self._path)
        if exposed:
            _log.warning("%s", exposed)


class _Following:
    """The ``Transformer`` of a resource, which uses the latest keys."""

    def __init__(self, file: KeyFile, resource: str) -> None:
        self._file = file
        self._resource = resource
        self._until = Until(-inf)
        self._transformers: Transformers | None = None
        self._chain = self._follow()

    def transform_to_storage(self, data: bytes, context: bytes) -> bytes:
        chain = self._chain if monotonic() < self._until.time else self._follow()
        return chain.transform_to_storage(data, context)

    def _read(self, data: bytes, context: bytes) -> tuple[bytes, bool]:
        """Decrypt any value, with keys that are as new as they must be."""
        chain = self._follow()
        try:
            return chain.transform_from_storage(data, context)
        except Undecryptable:
            # Another process may use a key that was added to the file just now.
            self._file.look()
            newer = self._follow()
            if newer is chain:
                raise
        return newer.transform_from_storage(data, context)

    def _follow(self) -> ProviderChain:
        """Look at the file if it is time, and return the transformer with the latest keys."""
        file = self._file
        if monotonic() >= file.next_look:
            file.look()
        transformers = file.transformers
        chain = transformers.get(self._resource)
        if transformers is not self._transformers:
            self._until.time = -inf  # somebody may keep the function
            self._until = Until(file.next_look)
            #: Reads most values by itself, as long as the file need not be looked at.
            self.transform_from_storage = chain.reader(self._until, self._read)
            self._transformers, self._chain = transformers, chain
        # Another call may have found a change meanwhile.
        self._until.time = file.next_look if file.transformers is transformers else -inf
        return chain


def _state(path: str) -> tuple[int, ...]:
    """Return a value that differs after the file was changed or replaced; () without a file."""
    try:
        stat = os.stat(path)
    except (OSError, ValueError) as error:
        let_out(error)
        return ()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def exposure(path: str) -> str:
    """Return a warning if others than the file's owner can read it, else ""."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:  # it was moved meanwhile
        let_out(error)
        return ""
    return f"encryption keys in {path!r} can be read by others: chmod 600" if mode & 0o077 else ""
