"""Optimistic loops: delete and guaranteed update."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import attrs

from revstore.backend import Backend
from revstore.deadlines import Deadline
from revstore.errors import (
    CorruptObject,
    IncompatibleVersion,
    InvalidArgument,
    InvalidResourceVersion,
    KeyNotFound,
    PreconditionFailed,
)
from revstore.preconditions import Preconditions
from revstore.raising import let_out
from revstore.storage import ResponseMeta, UpdateFunc, ValidateFunc, WithTTL
from revstore.typed._objects import ObjectReader
from revstore.values import KeyValue
from revstore.versioner import format_resource_version

__all__ = ["Writer", "check_ttl"]

T = TypeVar("T")


def check_ttl(ttl: int) -> int:
    """Return ``ttl`` if it is a whole number of seconds from 0.

    Raises:
        InvalidArgument: it is not.
    """
    if type(ttl) is not int or ttl < 0:
        raise InvalidArgument("ttl", ttl, "a whole number of seconds, 0 or more")
    return ttl


@attrs.frozen
class _State(Generic[T]):
    """The object that an attempt works on; ``revision`` 0: there is none. ``cached`` is one that
    the caller suggested: anything it leads to but a write must be confirmed by a read."""

    object: T | None = None
    data: bytes = b""
    revision: int = 0
    stale: bool = False
    expires: bool | None = False
    cached: bool = False
    unknown: bool = False  # the bytes have fields that the type does not know

    @property
    def meta(self) -> ResponseMeta:
        return ResponseMeta(format_resource_version(self.revision), self.expires)


class Writer(Generic[T]):
    """The loops for one key. No lock is held while the caller's functions run."""

    def __init__(
        self,
        backend: Backend,
        objects: ObjectReader[T],
        key: str,
        physical: str,
        deadline: Deadline,
    ) -> None:
        self._backend = backend
        self._objects = objects
        self._key = key
        self._physical = physical
        self._deadline = deadline

    def delete(
        self,
        preconditions: Preconditions | None,
        validate: ValidateFunc | None,
        suggestion: T | None,
    ) -> T:
        """Delete the object that the checks have seen. (DEL-1 to DEL-11)"""
        state = self._suggested(suggestion) or self._read()
        while True:
            if not state.revision:
                raise KeyNotFound(self._key)
            try:
                if preconditions is not None:
                    preconditions.check(self._key, state.object)
                if validate is not None:
                    validate(state.object)
            except Exception as error:
                let_out(error)
                before, state = state, self._confirm(state)
                if state.revision == before.revision:
                    raise
                continue
            result = self._backend.delete(
                self._physical,
                expected_revision=state.revision,
                timeout=self._deadline.left(),
            )
            if not result.succeeded:
                state = self._state_of(result.kv)
                continue
            assert result.kv is not None
            seen: Any = state.object
            return self._objects.deleted(self._key, result.kv, result.revision, seen)

    def delete_corrupt(self) -> None:
        """Delete an object that cannot be read, and only that. (DEL-12, DEL-13)"""
        kv = self._get()
        while True:
            if kv is None:
                raise KeyNotFound(self._key)
            try:
                self._objects.decode_at(kv, kv.revision)
            except IncompatibleVersion:  # whole, and of use to another program
                raise
            except CorruptObject:
                pass
            else:
                raise PreconditionFailed(
                    f"{self._key!r} can be read: delete it without even_if_corrupt",
                    key=self._key,
                    resource_version=str(kv.revision),
                )
            result = self._backend.delete(
                self._physical,
                expected_revision=kv.revision,
                timeout=self._deadline.left(),
            )
            if result.succeeded:
                return
            kv = result.kv

    def update(
        self,
        update: UpdateFunc,
        preconditions: Preconditions | None,
        suggestion: T | None,
        *,
        ignore_not_found: bool,
    ) -> T:
        """Write the object that ``update`` returns. (GU-1 to GU-18)"""
        state = self._suggested(suggestion) or self._read()
        while True:
            if not state.revision and not ignore_not_found:
                raise KeyNotFound(self._key)
            try:
                self._check(preconditions, state)
                made = update(state.object, state.meta)
            except Exception as error:
                let_out(error)
                before, state = state, self._confirm(state)
                # A precondition is always compared with fresh data. (GU-7)
                recheck = before.cached and isinstance(error, PreconditionFailed)
                if state.revision == before.revision and not recheck:
                    raise
                continue
            obj, ttl = (
                (made.object, check_ttl(made.ttl)) if isinstance(made, WithTTL) else (made, None)
            )
            data = self._objects.encode(self._key, obj)
            if state.unknown:
                data = self._objects.merge(self._key, data, state.data)
            if state.cached and data == state.data:
                before, state = state, self._confirm(state)
                if state.revision != before.revision or data != state.data:
                    continue
            if self._unchanged(state, data, ttl):
                return self._objects.from_plain(self._physical, data, state.revision)
            stored = self._objects.read_back(self._key, data)
            result = self._backend.put(
                self._physical,
                self._objects.seal(self._physical, data),
                expected_revision=state.revision,
                ttl=ttl if state.revision else ttl or 0,
                timeout=self._deadline.left(),
            )
            if result.succeeded:
                return self._objects.written(self._key, stored, result.revision, state.revision)
            state = self._state_of(result.current)

    def rewrite(self, kv: KeyValue, *, force: bool) -> bool:
        """Write the object of ``kv`` again, unchanged, if it is stale, or with ``force``; return
        whether it was written.

        It keeps its expiry. If it has changed meanwhile, only stale counts; if it is gone, nothing
        is written.
        """
        state, objects = self._state_of(kv), self._objects
        while state.revision and (force or state.stale):
            obj: Any = state.object
            data = objects.encode(self._key, obj)
            if state.unknown:
                data = objects.merge(self._key, data, state.data)
            objects.read_back(self._key, data)
            result = self._backend.put(
                self._physical,
                objects.seal(self._physical, data),
                expected_revision=state.revision,
                ttl=None,
                timeout=self._deadline.left(),
            )
            if result.succeeded:
                return True
            state, force = self._state_of(result.current), False
        return False

    def _check(self, preconditions: Preconditions | None, state: _State[T]) -> None:
        if preconditions is None:
            return
        # An absent object has neither uid nor version.
        preconditions.check(self._key, state.object if state.revision else {"metadata": {}})

    @staticmethod
    def _unchanged(state: _State[T], data: bytes, ttl: int | None) -> bool:
        """Return whether nothing would change. (GU-3 to GU-5; a ttl counts, unlike GU-13)"""
        same = state.revision and not state.stale and data == state.data
        return bool(same) and (ttl is None or (ttl == 0 and not state.expires))

    def _suggested(self, suggestion: T | None) -> _State[T] | None:
        """Return the state of a suggestion; None if it cannot be used. (DEL-10, GU-18)"""
        if suggestion is None or self._objects.met_unknown:
            return None
        objects = self._objects
        try:
            revision = objects.versioner.object_resource_version(suggestion)
        except InvalidResourceVersion:
            return None
        if not revision:
            return None
        data = objects.encode(self._key, suggestion)
        copy = objects.copy(suggestion)
        return _State(copy, data, revision, expires=None, cached=True)

    def _confirm(self, state: _State[T]) -> _State[T]:
        """Return fresh data if ``state`` is only a suggestion, else ``state`` itself."""
        return self._read() if state.cached else state

    def _read(self) -> _State[T]:
        return self._state_of(self._get())

    def _get(self) -> KeyValue | None:
        return self._backend.get(self._physical, timeout=self._deadline.left()).kv

    def _state_of(self, kv: KeyValue | None) -> _State[T]:
        """Return a state with a new object, which the caller may change. (GU-16)"""
        if kv is None:
            return _State()
        data, stale = self._objects.open(kv)
        obj: Any
        obj, unknown = self._objects.noting(self._physical, data, kv.revision)
        return _State(obj, data, kv.revision, stale=stale, expires=bool(kv.lease), unknown=unknown)
