"""Users with passwords and rights, from a file that is read again when it changes, and the tokens
by which they call."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
import time
import tomllib
from collections import OrderedDict
from collections.abc import Collection, Iterable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import attrs

from revstore.backend_tools import Log
from revstore.errors import ConfigError
from revstore_serve._errors import INVALID_TOKEN, PERMISSION_DENIED, USER_EMPTY, Refused
from revstore_serve._keys import KeyRange
from revstore_serve._tls import file_state

__all__ = ["CALLER", "Caller", "User", "Users", "hashed", "matches"]

_log = Log("revstore.serve")

# Seconds of idleness after which a token ends, as etcd's simple tokens do.
_TOKEN_TTL = 300.0
# So many tokens there are at most; the one that was idle for the longest goes first.
_MOST_TOKENS = 10_000
# Seconds between two looks at the file.
_LOOK = 1.0

# scrypt's cost: 2**14 steps with 8 blocks take 16 MiB and some 50 ms.
_COST = 14
_COSTS = range(10, 19)
_BLOCKS = 8
_HASH = re.compile(r"scrypt\$(\d{1,2})\$([A-Za-z0-9+/=]{16,})\$([A-Za-z0-9+/=]{44})")


@attrs.frozen
class Caller:
    """The proof that came with a call: a token, or the common name of a client's certificate that
    was verified."""

    token: str | None = None
    common_name: str | None = None


#: Who makes the call that is being answered. It is set only if there are users.
CALLER: ContextVar[Caller] = ContextVar("revstore_serve_caller", default=Caller())  # noqa: B039


class _Prefixes:
    """A set of prefixes, as ranges of keys in order, without gaps or overlaps between
    neighbours."""

    def __init__(self, prefixes: Iterable[str]) -> None:
        self._ranges: list[tuple[bytes, bytes | None]] = []
        for first in sorted(prefix.encode() for prefix in prefixes):
            end = _end_of(first)
            if self._ranges and not _beyond(first, self._ranges[-1][1]):
                begin, last = self._ranges.pop()
                self._ranges.append((begin, last if end is None or not _beyond(end, last) else end))
            else:
                self._ranges.append((first, end))

    def covers(self, keys: KeyRange) -> bool:
        """Return whether all keys of a range have one of the prefixes."""
        if keys.empty:
            keys = KeyRange.of(keys.first, b"")
        return any(
            first <= keys.first and (end is None or (keys.end is not None and keys.end <= end))
            for first, end in self._ranges
        )


def _end_of(prefix: bytes) -> bytes | None:
    """Return the first key after all that begin with a prefix; None if there is none."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes([stem[-1] + 1]) if stem else None


def _beyond(key: bytes, end: bytes | None) -> bool:
    return end is not None and key > end


@attrs.frozen
class User:
    """A user. ``password`` is a hash, "" if he has none and is known by his certificate only."""

    name: str
    password: str
    root: bool
    read: _Prefixes
    write: _Prefixes

    def may_read(self, keys: KeyRange) -> bool:
        """Return whether the user may read all keys of a range."""
        return self.root or self.read.covers(keys)

    def may_write(self, keys: KeyRange) -> bool:
        """Return whether the user may write all keys of a range."""
        return self.root or self.write.covers(keys)


class Users:
    """The users of a file, and their tokens. It belongs to the event loop."""

    def __init__(self, path: str) -> None:
        """Read the file.

        Raises:
            ConfigError: it cannot be read, or is wrong.
        """
        self._path = path
        self._seen = file_state(path)
        self._users = _read(path)
        self._problem = ""
        self._looked = time.monotonic()
        self._tokens: OrderedDict[bytes, _Token] = OrderedDict()
        #: It grows with each change of the users.
        self.revision = 1
        _warn_of_mode(path)

    def known(self, caller: Caller) -> User:
        """Return the user who calls.

        Raises:
            Refused: nobody says who calls, the token is not valid, or no such user exists.
        """
        self._look()
        if caller.token is not None:
            user = self._of_token(caller.token)
            if user is None:
                raise Refused(*INVALID_TOKEN)
            return user
        if not caller.common_name:
            raise Refused(*USER_EMPTY)
        user = self._users.get(caller.common_name)
        if user is None:
            raise Refused(*PERMISSION_DENIED)
        return user

    def find(self, name: str) -> User | None:
        """Return a user by name."""
        self._look()
        return self._users.get(name)

    def token(self, user: User) -> str:
        """Return a new token of a user."""
        token = secrets.token_urlsafe(24)
        now = time.monotonic()
        while self._tokens and (
            len(self._tokens) >= _MOST_TOKENS or next(iter(self._tokens.values())).ended(now)
        ):
            self._tokens.popitem(last=False)
        self._tokens[_digest(token)] = _Token(user.name, user.password, now)
        return token

    def _of_token(self, token: str) -> User | None:
        # The time of a look-up by a digest tells nothing of the tokens.
        digest = _digest(token)
        found = self._tokens.pop(digest, None)
        now = time.monotonic()
        if found is None or found.ended(now):
            return None
        user = self._users.get(found.user)
        if user is None or user.password != found.password:
            return None
        self._tokens[digest] = attrs.evolve(found, used=now)
        return user

    def _look(self) -> None:
        """Read the file if it has changed. One that is wrong is logged once, and its users stay as
        they were."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        state = file_state(self._path)
        if state == self._seen:
            return
        try:
            users = _read(self._path)
        except ConfigError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                _log.warning("the users stay as they were: %s", error)
            return
        self._seen, self._users, self._problem = state, users, ""
        self.revision += 1
        _warn_of_mode(self._path)


@attrs.frozen
class _Token:
    user: str
    #: The hash at that time: a user with a new password needs a new token.
    password: str
    used: float

    def ended(self, now: float) -> bool:
        return now - self.used > _TOKEN_TTL


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def hashed(password: str) -> str:
    """Return a password's salted hash, as the file of users has it. It takes some 50 ms."""
    salt = secrets.token_bytes(16)
    text = base64.b64encode(salt).decode()
    return f"scrypt${_COST}${text}${base64.b64encode(_scrypt(password, _COST, salt)).decode()}"


def matches(password: str, user: User | None) -> bool:
    """Return whether a password is the user's. It takes some 50 ms, also if there is no such
    user."""
    found = _HASH.fullmatch(user.password if user else "") or _HASH.fullmatch(_NOBODY)
    assert found is not None
    cost, salt, wanted = found.groups()
    have = _scrypt(password, int(cost), base64.b64decode(salt))
    return hmac.compare_digest(have, base64.b64decode(wanted)) and bool(user and user.password)


def _scrypt(password: str, cost: int, salt: bytes) -> bytes:
    data = password.encode("utf-8", "surrogatepass")
    steps = 1 << cost
    return hashlib.scrypt(
        data, salt=salt, n=steps, r=_BLOCKS, p=1, maxmem=256 * steps * _BLOCKS, dklen=32
    )


_NOBODY = f"scrypt${_COST}${'A' * 22}==${'A' * 43}="


def _read(path: str) -> dict[str, User]:
    try:
        text = Path(path).read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError("users_file", path, f"a readable file: {reason}") from error
    try:
        content = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        # The error's own text could show a part of a password.
        where = re.search(r"line \d+", str(error))
        place = f": see {where[0]}" if where else ""
        raise ConfigError("users_file", path, f"a file in TOML{place}") from None
    _refuse_others(path, "the file", content, {"users"})
    users = _typed(path, "users", content.get("users", {}), dict)
    if not users:
        raise ConfigError("users_file", path, "at least one user, as in [users.alice]")
    return {name: _user(path, name, fields) for name, fields in users.items()}


def _user(path: str, name: str, fields: Any) -> User:
    what = f"users.{name}"
    if not name:
        raise ConfigError("users_file", path, "users with names that are not empty")
    _refuse_others(path, what, _typed(path, what, fields, dict), set(_FIELDS))
    found = {
        each: _typed(path, f"{what}.{each}", fields.get(each, kind()), kind)
        for each, kind in _FIELDS.items()
    }
    if found["password"]:
        _check_hash(path, f"{what}.password", found["password"])
    for each in ("read", "write"):
        for prefix in found[each]:
            _typed(path, f"each of {what}.{each}", prefix, str)
    return User(
        name,
        found["password"],
        found["root"],
        _Prefixes(found["read"]),
        _Prefixes(found["write"]),
    )


_FIELDS = {"password": str, "root": bool, "read": list, "write": list}


def _check_hash(path: str, what: str, password: str) -> None:
    match = _HASH.fullmatch(password)
    valid = match is not None and int(match[1]) in _COSTS
    if match and valid:
        try:
            valid = all(base64.b64decode(each, validate=True) for each in match.groups()[1:])
        except binascii.Error:
            valid = False
    if not valid:
        expected = f"a hash of revstore serve --hash-password in {what}, never the password itself"
        raise ConfigError("users_file", path, expected)


def _typed(path: str, what: str, value: Any, kind: type) -> Any:
    if type(value) is not kind:
        names = {dict: "a table", str: "a string", bool: "a boolean", list: "an array"}
        raise ConfigError("users_file", path, f"{names[kind]} in {what}")
    return value


def _refuse_others(path: str, what: str, table: Collection[str], known: set[str]) -> None:
    for each in table:
        if each not in known:
            allowed = ", ".join(sorted(known))
            raise ConfigError("users_file", path, f"only {allowed} in {what}, not {each!r}")


def _warn_of_mode(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return
    if mode & 0o077:
        _log.warning("other users of this machine can open %r: chmod 600 is safer", path)
