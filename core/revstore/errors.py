"""Every error that revstore raises, in one tree.

``StorageError`` is the base of all; most also subclass the builtin that a caller
already catches. The corresponding Kubernetes error is in brackets.

::

    StorageError                       key, resource_version
    |- KeyNotFound (LookupError)       no object under the key            [404, code 1]
    |- KeyExists                       create on a key that is taken      [409, code 2]
    |- Conflict                        update with a stale version        [409, code 3]
    |- PreconditionFailed              uid or version precondition failed [409, code 4]
    |- CorruptObject (ValueError)      stored bytes cannot be read        [500, code 7]
    |  `- IncompatibleVersion          stored in an unknown version       [500]
    |- CorruptObjects                  a list met unreadable objects      [500 StoreReadError]
    |- InternalError                   a bug, or a transformer's failure  [500]
    |- InvalidArgument (ValueError)    field, value, expected             [400 / 422]
    |  |- InvalidKey                   key breaks the key rules
    |  |- InvalidResourceVersion       version is no decimal number
    |  |- InvalidContinueToken         token was not made by this store's kind
    |  |- InvalidSelector              label or field selector does not parse
    |  |- InvalidObject                object lacks metadata, has a bad name, or a bad value
    |  |- UnsupportedType (TypeError)  type of objects that cannot be carried exactly
    |  |- ResourceVersionSet           create of an object that has a version
    |  `- ConfigError                  configuration refused, by field
    |- Expired                         version or token is compacted      [410 Expired]
    |- TooLargeResourceVersion         version is in the future           [504 Timeout + cause]
    |- NotReady                        cache is initialising              [429]
    |- WatchClosed                     watch ended; resume from its version
    |- Closed                          the object was closed by its owner
    |- InvalidBackup (ValueError)      a file is no whole, unaltered backup
    |- StoreInUse                      a target has keys, or another operation is unfinished in it
    |- StoresDiffer                    what was written is not what was read
    |- BackendError                    what a Backend raises besides InvalidKey and Closed
    |  |- Compacted                    revision below the compacted one
    |  |- FutureRevision               read at a revision that is not yet
    |  |- Unreachable (ConnectionError)   no server answered; nothing was done
    |  |- Timeout (TimeoutError)       deadline passed; a write did nothing
    |  |  `- OutcomeUnknown            deadline passed; a write may have landed
    |  |- AccessDenied (PermissionError)  credentials or certificate refused
    |  |- NoSpace                      disk or quota is full
    |  |- ReadOnly                     the store takes no writes
    |  |- IncompatibleStore            not our store, or a newer schema
    |  |- CorruptStore                 the store itself is damaged
    |  |- ValueTooLarge (ValueError)   value over the store's limit
    |  |- TransactionTooLarge (ValueError)  more keys than one transaction takes
    |  |- LeaseNotFound (LookupError)  no lease of that id
    |  |- LeaseExists                  a lease of that id is there
    |  `- Unsupported (NotImplementedError)  capability is not there
    `- PluginError                     a backend could not be had
       |- BackendNotInstalled (LookupError)
       |- BackendBroken (ImportError)
       |- BackendConflict
       `- BackendIncompatible
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "AccessDenied",
    "BackendBroken",
    "BackendConflict",
    "BackendError",
    "BackendIncompatible",
    "BackendNotInstalled",
    "Closed",
    "Compacted",
    "ConfigError",
    "Conflict",
    "CorruptObject",
    "CorruptObjects",
    "CorruptStore",
    "Expired",
    "FutureRevision",
    "IncompatibleStore",
    "IncompatibleVersion",
    "InternalError",
    "InvalidArgument",
    "InvalidBackup",
    "InvalidContinueToken",
    "InvalidKey",
    "InvalidObject",
    "InvalidResourceVersion",
    "InvalidSelector",
    "KeyExists",
    "KeyNotFound",
    "LeaseExists",
    "LeaseNotFound",
    "NoSpace",
    "NotReady",
    "OutcomeUnknown",
    "PluginError",
    "PreconditionFailed",
    "ReadOnly",
    "ResourceVersionSet",
    "StorageError",
    "StoreInUse",
    "StoresDiffer",
    "Timeout",
    "TooLargeResourceVersion",
    "TransactionTooLarge",
    "Unreachable",
    "Unsupported",
    "UnsupportedType",
    "ValueTooLarge",
    "WatchClosed",
]


class StorageError(Exception):
    """Base of all errors of revstore.

    ``key`` is the key that the operation named, "" if there is none. ``resource_version`` is the
    version that the error is about, "" if there is none; for ``Expired`` and ``WatchClosed`` it is
    the version to go on from.
    """

    def __init__(self, message: str, *, key: str = "", resource_version: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.key = key
        self.resource_version = resource_version

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process borders (multiprocessing, loggers): rebuild without __init__,
        # whose keyword arguments differ from class to class.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[StorageError], args: tuple[Any, ...], state: dict[str, Any]) -> StorageError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class KeyNotFound(StorageError, LookupError):
    """No object is stored under ``key``."""

    def __init__(self, key: str, *, resource_version: str = "") -> None:
        super().__init__(f"{key!r} not found", key=key, resource_version=resource_version)


class KeyExists(StorageError):
    """``create`` found an object under ``key``; nothing was written."""

    def __init__(self, key: str, *, resource_version: str = "") -> None:
        super().__init__(f"{key!r} already exists", key=key, resource_version=resource_version)


class Conflict(StorageError):
    """An update carried a resource version that is no longer the object's; nothing was written.

    ``resource_version`` is the object's version now, "" if it is gone.
    """


class PreconditionFailed(StorageError):
    """A ``uid`` or ``resource_version`` precondition did not hold; nothing was written."""


class CorruptObject(StorageError, ValueError):
    """The bytes stored under ``key`` cannot be transformed or decoded; the cause is chained.

    With ``even_if_corrupt=True``, ``Storage.delete`` removes such an object, and ``Storage.list``
    and ``Storage.watch`` skip it.
    """

    def __init__(self, key: str, reason: str, *, resource_version: str = "") -> None:
        super().__init__(
            f"the object stored under {key!r} cannot be read: {reason}; delete, list and watch "
            "take even_if_corrupt=True for such objects",
            key=key,
            resource_version=resource_version,
        )
        self.reason = reason


class IncompatibleVersion(CorruptObject):
    """The object stored under ``key`` is not damaged, but in a version that this program does not
    know, or cannot upgrade; then the upgrade's own error is the cause of the cause.

    ``found`` is the version, ``known`` are those that the type declares, the oldest first. Lists
    and watches treat it like any ``CorruptObject``, but ``Storage.delete`` never removes it with
    ``even_if_corrupt``.
    """

    def __init__(
        self,
        key: str,
        reason: str,
        *,
        found: str,
        known: Sequence[str],
        resource_version: str = "",
    ) -> None:
        super().__init__(key, reason, resource_version=resource_version)
        self.message = f"the object stored under {key!r} {reason}"
        self.args = (self.message,)
        self.found = found
        self.known = tuple(known)


class CorruptObjects(StorageError):
    """A list found objects that cannot be read.

    ``errors`` has one ``CorruptObject`` for each, in key order, at most 100; ``truncated`` says
    that the list stopped there and that more may follow.
    """

    def __init__(self, errors: Sequence[CorruptObject], *, truncated: bool = False) -> None:
        first = errors[0]
        count = f"{len(errors)}{' or more' if truncated else ''}"
        noun = "object" if len(errors) == 1 and not truncated else "objects"
        super().__init__(f"{count} {noun} cannot be read; the first: {first}", key=first.key)
        self.errors = tuple(errors)
        self.truncated = truncated


class InternalError(StorageError):
    """Something failed that the caller cannot fix; the cause is chained."""


class InvalidArgument(StorageError, ValueError):
    """An argument was refused before anything was done.

    ``field`` names it, ``value`` is what was given, ``expected`` says what is allowed.
    """

    def __init__(
        self, field: str, value: object, expected: str, *, key: str = "", message: str = ""
    ) -> None:
        text = message or f"invalid {field} {value!r}: expected {expected}"
        super().__init__(text, key=key)
        self.field = field
        self.value = value
        self.expected = expected


class InvalidKey(InvalidArgument):
    """A key that is empty, is not valid UTF-8, has a NUL, has a segment "." or "..", or an empty
    one in the middle, or is not under the resource prefix."""

    def __init__(self, key: str, expected: str, *, message: str = "") -> None:
        super().__init__("key", key, expected, key=key, message=message)


class InvalidResourceVersion(InvalidArgument):
    """A resource version that is not "" and not a decimal number up to 2**64 - 1."""


class InvalidContinueToken(InvalidArgument):
    """A continue token that no list of this prefix has given out."""


class InvalidSelector(InvalidArgument):
    """A label or field selector that does not parse."""


class InvalidObject(InvalidArgument):
    """An object without metadata, with a name that cannot be part of a key, or with a value that
    does not fit its field: ``field`` is its path in the object."""


class UnsupportedType(InvalidArgument, TypeError):
    """A type of objects that the codec cannot store exactly, refused when a storage is opened.

    ``field`` names the field, such as "Pod.spec.port", ``expected`` says what is allowed.
    """


class ResourceVersionSet(InvalidArgument):
    """``create`` was given an object that already has a resource version."""

    def __init__(self, key: str, value: str) -> None:
        super().__init__(
            "resourceVersion",
            value,
            "none",
            key=key,
            message=f"resourceVersion should not be set on objects to be created: {value!r}",
        )


class ConfigError(InvalidArgument):
    """Configuration refused: ``field`` names the key, with its source where there is one."""


class Expired(StorageError):
    """The resource version or continue token is older than the history that is left.

    ``resource_version`` is a version to start again from with a new list, "" if unknown.
    ``continue_token``, if not "", goes on with the same list at the current revision: the rest is
    complete, but of a later state than the pages before.
    """

    def __init__(
        self, message: str, *, key: str = "", resource_version: str = "", continue_token: str = ""
    ) -> None:
        super().__init__(message, key=key, resource_version=resource_version)
        self.continue_token = continue_token


class TooLargeResourceVersion(StorageError):
    """The resource version ``wanted`` is above ``current``, the store's. Retry after
    ``retry_after`` seconds (0: not before the store has moved on)."""

    def __init__(self, wanted: int, current: int, *, key: str = "", retry_after: int = 0) -> None:
        super().__init__(
            f"too large resource version: {wanted}, current: {current}",
            key=key,
            resource_version=str(wanted),
        )
        self.wanted = wanted
        self.current = current
        self.retry_after = retry_after


class NotReady(StorageError):
    """The cache is (re)initialising, or the store's server does not answer the readiness check;
    try again after ``retry_after`` seconds."""

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class WatchClosed(StorageError):
    """The other side ended a watch, and nothing was lost: resume after ``resource_version``."""


class Closed(StorageError):
    """The storage, backend or watch was closed, or is used in a child after a fork."""


class InvalidBackup(StorageError, ValueError):
    """The file ``path`` is not a backup that this version of revstore can read, or it was cut or
    altered; nothing was written."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class StoreInUse(StorageError):
    """An operation needs an empty store, or one in which no other operation is unfinished; nothing
    was written. ``key`` is what was found there."""


class StoresDiffer(StorageError):
    """After an operation the target is not equal to the source; ``key`` is the first difference."""


class BackendError(StorageError):
    """An error of a backend; the driver's own error is chained as its cause."""


class Compacted(BackendError):
    """A read or watch needs a revision below ``compacted``. ``current`` is the store's revision if
    it is known, else 0."""

    def __init__(self, compacted: int, current: int = 0) -> None:
        super().__init__(
            f"the wanted revision has been compacted; the oldest available is {compacted}",
            resource_version=str(current) if current else "",
        )
        self.compacted = compacted
        self.current = current


class FutureRevision(BackendError):
    """A read at ``wanted`` while the store is at ``current``. Watches never raise it."""

    def __init__(self, wanted: int, current: int) -> None:
        super().__init__(
            f"revision {wanted} is in the future: the store is at {current}",
            resource_version=str(wanted),
        )
        self.wanted = wanted
        self.current = current


class Unreachable(BackendError, ConnectionError):
    """No server could be reached, or the request was certainly never sent; nothing was done."""


class Timeout(BackendError, TimeoutError):
    """The deadline passed. For a write: it did nothing (else ``OutcomeUnknown``)."""


class OutcomeUnknown(Timeout):
    """A write was sent and its answer never came: it may have landed, or may still land.

    revstore never retries it: read ``key`` and decide.
    """

    def __init__(self, key: str, expected_revision: int, reason: str = "") -> None:
        because = f" ({reason})" if reason else ""
        super().__init__(
            f"the write to {key!r}, expected at revision {expected_revision}, may have taken effect"
            f"{because}",
            key=key,
        )
        self.expected_revision = expected_revision


class AccessDenied(BackendError, PermissionError):
    """The store refused the credentials, the certificate, or the file permissions."""


class NoSpace(BackendError):
    """The disk is full, or the store's quota is used up; nothing was written."""


class ReadOnly(BackendError):
    """The store cannot be written: a read-only file, file system or server."""


class IncompatibleStore(BackendError):
    """The opened store is not revstore's, or has a schema that this version does not know."""


class CorruptStore(BackendError):
    """The store itself is damaged; restore it from a backup."""


class ValueTooLarge(BackendError, ValueError):
    """The value is larger than the store accepts; nothing was written."""


class TransactionTooLarge(BackendError, ValueError):
    """The body of a transaction read or wrote more than one transaction of the store can hold;
    nothing was written. The message names the limit."""


class LeaseNotFound(BackendError, LookupError):
    """No lease has the id ``lease``: it was never granted, was revoked, or expired."""

    def __init__(self, lease: int, *, key: str = "") -> None:
        super().__init__(f"there is no lease {lease}", key=key)
        self.lease = lease


class LeaseExists(BackendError):
    """There is already a lease with the id ``lease``; nothing was granted."""

    def __init__(self, lease: int) -> None:
        super().__init__(f"a lease {lease} is there already")
        self.lease = lease


class Unsupported(BackendError, NotImplementedError):
    """The open backend lacks ``capability``."""

    def __init__(self, capability: str, message: str = "") -> None:
        super().__init__(message or f"this backend does not support {capability}")
        self.capability = capability


class PluginError(StorageError):
    """The installed plugins do not provide the configured backend ``name``. Its subclasses are
    raised for codecs, transformers, wrappers and commands as well; the message says which."""

    def __init__(self, message: str, *, name: str) -> None:
        super().__init__(message)
        self.name = name


class BackendNotInstalled(PluginError, LookupError):
    """No installed distribution provides the backend.

    ``installed`` lists the existing names. ``hint`` is a pip line, "" for names that revstore does
    not know. ``did_you_mean`` is the closest installed or known name, "" if none is close.
    ``unreadable`` names the folders of distributions whose entry points cannot be read, with the
    reasons: the backend may be among them.
    """

    def __init__(
        self,
        name: str,
        *,
        installed: Sequence[str],
        hint: str = "",
        did_you_mean: str = "",
        blocked: str = "",
        kind: str = "backend",
        unreadable: Sequence[str] = (),
    ) -> None:
        parts = [f"{kind} {name!r} is not installed"]
        if blocked:
            parts = [f"{kind} {name!r} is disabled by {blocked}"]
        elif hint:
            parts.append(f"try: {hint}")
        elif did_you_mean:
            parts.append(f"did you mean {did_you_mean!r}?")
        parts.append(f"installed: {', '.join(sorted(installed)) or 'none'}")
        if unreadable:
            parts.append(f"unreadable: {', '.join(unreadable)}")
        super().__init__("; ".join(parts), name=name)
        self.unreadable = tuple(unreadable)
        self.installed = tuple(sorted(installed))
        self.hint = hint
        self.did_you_mean = did_you_mean


class BackendBroken(PluginError, ImportError):  # type: ignore[misc]  # ImportError.name may be None
    """The distribution that provides the backend is installed but does not work."""

    def __init__(
        self, name: str, *, distribution: str, version: str, reason: str, kind: str = "backend"
    ) -> None:
        origin = f"{distribution} {version}".rstrip()
        super().__init__(f"{kind} {name!r} from {origin} is broken: {reason}", name=name)
        self.distribution = distribution
        self.version = version
        self.reason = reason


class BackendConflict(PluginError):
    """Several distributions claim one backend name, or one claims a reserved name."""

    def __init__(
        self,
        name: str,
        *,
        distributions: Sequence[str],
        reserved: bool = False,
        kind: str = "backend",
    ) -> None:
        who = ", ".join(distributions)
        if reserved:
            text = f"{kind} name {name!r} is reserved, but {who} claims it: uninstall it"
        else:
            text = f"{kind} {name!r} is provided by several distributions: {who}; keep one of them"
        super().__init__(text, name=name)
        self.distributions = tuple(distributions)


class BackendIncompatible(PluginError):
    """The plugin was written for another version of the plugin contract."""

    def __init__(
        self,
        name: str,
        *,
        distribution: str,
        plugin_api: tuple[int, int],
        host_api: tuple[int, int],
    ) -> None:
        super().__init__(
            f"backend {name!r} from {distribution} is written for plugin API "
            f"{plugin_api[0]}.{plugin_api[1]}, this revstore has {host_api[0]}.{host_api[1]}: "
            f"{'upgrade revstore' if plugin_api > host_api else f'upgrade {distribution}'}",
            name=name,
        )
        self.distribution = distribution
        self.plugin_api = plugin_api
        self.host_api = host_api
