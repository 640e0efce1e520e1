"""Transactions: what is refused beforehand, which branches are taken, and how they are carried out.

As etcd does: all comparisons come first, those of nested transactions too, then checks of the
operations on the path that they choose, then these operations in order, each of which sees what
those before it wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

import attrs

from revstore.backend import Transaction
from revstore.errors import FutureRevision, InvalidArgument, InvalidKey
from revstore.values import KeyValue
from revstore_serve._errors import (
    COMPACTED,
    DUPLICATE_KEY,
    EMPTY_KEY,
    KEY_NOT_FOUND,
    LEASE_PROVIDED,
    TOO_MANY_OPERATIONS,
    VALUE_PROVIDED,
    Refused,
)
from revstore_serve._keys import KeyRange, to_text
from revstore_serve._proto import message
from revstore_serve._ranges import check_range, fill_range, find, kv_message
from revstore_serve._views import InTransaction, View
from revstore_serve._wire import value_of

__all__ = [
    "Answer",
    "NeedsHistory",
    "check_delete",
    "check_put",
    "check_txn",
    "compares",
    "delete_body",
    "put_body",
    "txn_body",
]

_MOST_OPERATIONS = 128

_PutResponse = message("PutResponse")
_DeleteRangeResponse = message("DeleteRangeResponse")
_TxnResponse = message("TxnResponse")

_NOTHING = (KeyValue("", b"", 0),)

#: The results of ranges at past revisions, by their requests.
History = Mapping[bytes, Any]


@attrs.frozen
class Answer:
    """A body's answer. In ``response``, the body's own writes have the revision ``own``."""

    response: Any
    own: int

    def committed(self, revision: int) -> Any:
        """Return the answer after the body was committed at ``revision``."""
        if self.own != revision:
            _renumber(self.response, self.own, revision)
        self.response.header.revision = revision
        return self.response


class NeedsHistory(Exception):
    """A transaction reads at past revisions, which its body cannot do. These ranges have to be read
    before the body runs again."""

    def __init__(self, requests: list[Any]) -> None:
        super().__init__()
        self.requests = requests


def check_put(request: Any) -> None:
    """Check a put before the store is read.

    Raises:
        Refused: it has no key, or a value or lease beside the wish to keep the one that is there.
    """
    if not request.key:
        raise Refused(*EMPTY_KEY)
    if request.ignore_value and request.value:
        raise Refused(*VALUE_PROVIDED)
    if request.ignore_lease and request.lease:
        raise Refused(*LEASE_PROVIDED)


def check_delete(request: Any) -> None:
    """Check a deletion before the store is read.

    Raises:
        Refused: it has no key.
    """
    if not request.key:
        raise Refused(*EMPTY_KEY)


def check_txn(request: Any) -> None:
    """Check a transaction before the store is read.

    Raises:
        Refused: it is too large, writes a key twice, or one of its operations is refused.
    """
    _check_operations(request, _MOST_OPERATIONS)
    for branch in (request.success, request.failure):
        # A branch of one operation is the common case, and only a nested one can write twice.
        if len(branch) > 1 or (branch and branch[0].HasField("request_txn")):
            _written(branch)


_CHECKS: dict[str | None, Callable[[Any], None]] = {
    "request_range": check_range,
    "request_put": check_put,
    "request_delete_range": check_delete,
}


def _check_operations(request: Any, most: int) -> None:
    count = max(len(request.compare), len(request.success), len(request.failure))
    if count > most:
        raise Refused(*TOO_MANY_OPERATIONS)
    if not all(compare.key for compare in request.compare):
        raise Refused(*EMPTY_KEY)
    for operation in (*request.success, *request.failure):
        kind = operation.WhichOneof("request")
        if kind == "request_txn":
            _check_operations(operation.request_txn, most - count)
        elif kind is None:
            raise Refused(*KEY_NOT_FOUND)
        else:
            _CHECKS[kind](getattr(operation, kind))


def _written(operations: Any) -> tuple[set[bytes], list[KeyRange]]:
    """Return the keys that a branch may put and the ranges that it may delete.

    Raises:
        Refused: it may do both to a key, or put one twice.
    """
    deleted = [
        KeyRange.of(each.request_delete_range.key, each.request_delete_range.range_end)
        for each in operations
        if each.WhichOneof("request") == "request_delete_range"
        # etcd does not see that a range without end has a key before it executes it.
        and each.request_delete_range.range_end != b"\0"
    ]
    put: set[bytes] = set()
    for each in operations:
        if each.WhichOneof("request") != "request_txn":
            continue
        branches = [_written(each.request_txn.success), _written(each.request_txn.failure)]
        inner = branches[0][0] | branches[1][0]
        _refuse_twice(inner, put, deleted)
        put |= inner
        for _, ranges in branches:
            deleted += ranges
    for each in operations:
        if each.WhichOneof("request") == "request_put":
            key = each.request_put.key
            _refuse_twice({key}, put, deleted)
            put.add(key)
    return put, deleted


def _refuse_twice(keys: set[bytes], put: set[bytes], deleted: list[KeyRange]) -> None:
    if keys & put or any(key in each for key in keys for each in deleted):
        raise Refused(*DUPLICATE_KEY)


_TARGETS: tuple[Callable[[KeyValue], Any], ...] = (
    lambda kv: kv.version,
    lambda kv: kv.create_revision,
    lambda kv: kv.revision,
    value_of,
    lambda kv: kv.lease,
)
_WANTED = ("version", "create_revision", "mod_revision", "value", "lease")
_VALUE = 3
_RESULTS: tuple[Callable[[Any, Any], bool], ...] = (
    lambda have, want: have == want,
    lambda have, want: have > want,
    lambda have, want: have < want,
    lambda have, want: have != want,
)


def compares(compare: Any, found: Sequence[KeyValue]) -> bool:
    """Return whether a comparison holds for all keys found; without a key, whether it holds for
    zeros. The value of a missing key is neither equal nor unequal to any."""
    if not found and compare.target == _VALUE:
        return False
    if compare.target >= len(_TARGETS) or compare.result >= len(_RESULTS):
        return True
    of, result = _TARGETS[compare.target], _RESULTS[compare.result]
    want = getattr(compare, _WANTED[compare.target])
    return all(result(of(kv), want) for kv in found or _NOTHING)


def put_body(request: Any) -> Callable[[Transaction], Answer]:
    """Return the body that carries out a put."""

    def body(transaction: Transaction) -> Answer:
        run = _Run(transaction, {})
        try:
            return Answer(run.put(request, _PutResponse()), transaction.revision + 1)
        except Refused:
            run.check_leases([request])
            raise

    return body


def delete_body(request: Any) -> Callable[[Transaction], Answer]:
    """Return the body that carries out a deletion."""
    return lambda body: Answer(
        _Run(body, {}).delete(request, _DeleteRangeResponse()), body.revision + 1
    )


def txn_body(request: Any, history: History) -> Callable[[Transaction], Answer]:
    """Return the body that carries out a transaction.

    Raises (the body):
        NeedsHistory: it reads at a revision of the past that is not in ``history``.
    """

    def body(transaction: Transaction) -> Answer:
        run = _Run(transaction, history)
        path = _path(run.view, request)
        run.check(request, path)
        answer = run.txn(request, iter(path), _TxnResponse())
        return Answer(answer, transaction.revision + 1)

    return body


def _path(view: View, request: Any) -> list[bool]:
    """Return which branch is taken, by this transaction and by each one nested in it, in
    their order."""
    succeeded = all(compares(each, _compared(view, each)) for each in request.compare)
    path = [succeeded]
    for operation in request.success if succeeded else request.failure:
        if operation.WhichOneof("request") == "request_txn":
            path += _path(view, operation.request_txn)
    return path


def _compared(view: View, compare: Any) -> list[KeyValue]:
    """Return the keys with which a comparison is made."""
    if compare.range_end:
        return [kv for _, kv in find(view, KeyRange.of(compare.key, compare.range_end))[0]]
    kv = view.get(to_text(compare.key))
    return [] if kv is None else [kv]


def _operations(request: Any, path: Iterator[bool]) -> Iterator[Any]:
    """Yield the operations on the path, apart from transactions."""
    for operation in request.success if next(path) else request.failure:
        if operation.WhichOneof("request") == "request_txn":
            yield from _operations(operation.request_txn, path)
        else:
            yield operation


class _Run:
    """One run of a body. Until the commit, its own writes have the revision after the store's."""

    def __init__(self, body: Transaction, history: History) -> None:
        self._body = body
        self._history = history
        self._own = body.revision + 1
        self._revision = body.revision
        self.view = InTransaction(body, self._own)

    def check(self, request: Any, path: list[bool]) -> None:
        """Check the operations on the path: first all puts, then all ranges."""
        puts, past = [], []
        for operation in _operations(request, iter(path)):
            kind = operation.WhichOneof("request")
            if kind == "request_put":
                puts.append(operation.request_put)
            elif kind == "request_range" and operation.request_range.revision:
                past.append(operation.request_range)
        for number, each in enumerate(puts):
            try:
                self._kept(each)
            except Refused:
                self.check_leases(puts[:number])
                raise
        # One before the first that cannot be may be of a compacted revision, which counts first.
        current = self._body.revision
        readable = [*takewhile(lambda each: 0 < each.revision <= current, past)]
        missing = [each for each in readable if each.SerializeToString() not in self._history]
        if missing:
            self.check_leases(puts)
            raise NeedsHistory(missing)
        if len(readable) < len(past):
            self.check_leases(puts)
            wrong = past[len(readable)].revision
            # Outside of a transaction, etcd takes a negative one as 0.
            raise Refused(*COMPACTED) if wrong < 0 else FutureRevision(wrong, current)

    def check_leases(self, puts: list[Any]) -> None:
        """Raise ``LeaseNotFound`` if a put has a lease that does not exist. Call it only where the
        body is to raise an error in any case, since finding out needs writes, which the error
        undoes."""
        for each in puts:
            if each.lease:
                self._body.put(to_text(each.key), b"", lease=each.lease)

    def txn(self, request: Any, path: Iterator[bool], response: Any) -> Any:
        """Carry out a transaction, fill in its answer, and return that."""
        succeeded = next(path)
        if succeeded:
            response.succeeded = True
        for operation in request.success if succeeded else request.failure:
            kind = operation.WhichOneof("request")
            answer = response.responses.add()
            if kind == "request_put":
                self.put(operation.request_put, answer.response_put)
            elif kind == "request_range":
                self._range(operation.request_range, answer.response_range)
            elif kind == "request_delete_range":
                self.delete(operation.request_delete_range, answer.response_delete_range)
            else:
                answer.response_txn.header.SetInParent()
                self.txn(operation.request_txn, path, answer.response_txn)
        return response

    def _range(self, request: Any, response: Any) -> None:
        if request.revision > 0:
            response.CopyFrom(self._history[request.SerializeToString()])
        else:
            fill_range(self.view, request, response)
        response.header.revision = self._revision

    def _kept(self, request: Any) -> KeyValue | None:
        """Return the previous value for a put that asks for it.

        Raises:
            Refused: the put needs one, and the key does not exist.
        """
        if not (request.ignore_value or request.ignore_lease or request.prev_kv):
            return None
        kv = self.view.get(to_text(request.key))
        if kv is None and (request.ignore_value or request.ignore_lease):
            raise Refused(*KEY_NOT_FOUND)
        return kv

    def put(self, request: Any, response: Any) -> Any:
        """Carry out a put, fill in its answer, and return that."""
        before = self._kept(request)
        value = value_of(before) if request.ignore_value and before else request.value
        keep = request.ignore_lease
        with _twice_is_refused():
            self._body.put(
                to_text(request.key),
                value,
                ttl=None if keep else 0,
                lease=None if keep else request.lease,
            )
        self._revision = self._own
        response.header.revision = self._own
        if request.prev_kv and before is not None:
            response.prev_kv.CopyFrom(kv_message(request.key, before))
        return response

    def delete(self, request: Any, response: Any) -> Any:
        """Carry out a deletion, fill in its answer, and return that."""
        keys = KeyRange.of(request.key, request.range_end)
        found, _ = find(self.view, keys, keys_only=not request.prev_kv)
        with _twice_is_refused():
            for _, kv in found:
                self._body.delete(kv.key)
        if found:
            self._revision = self._own
        response.deleted = len(found)
        response.header.revision = self._revision
        if request.prev_kv:
            response.prev_kvs.extend(kv_message(key, kv) for key, kv in found)
        return response


@attrs.frozen
class _twice_is_refused:  # noqa: N801 - a context manager
    """Translate the error for a key that a body writes twice into etcd's words."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, InvalidArgument) and not isinstance(error, InvalidKey):
            raise Refused(*DUPLICATE_KEY) from error


def _renumber(response: Any, own: int, revision: int) -> None:
    """Set the commit's revision where an answer has the revision that its body assumed."""
    for field, value in response.ListFields():
        if field.name in ("header", "kv", "prev_kv") or field.name.startswith("response_"):
            _renumber(value, own, revision)
        elif field.name in ("kvs", "prev_kvs", "responses"):
            for each in value:
                _renumber(each, own, revision)
        elif field.name in ("revision", "mod_revision", "create_revision") and value == own:
            setattr(response, field.name, revision)
