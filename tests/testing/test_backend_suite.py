"""The shared suite itself: stores in use stay as they are, and missing capabilities are checked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from revstore.arguments import check_compact, check_get, check_list, check_put, check_timeout
from revstore.backend import Backend, BackendWatch
from revstore.errors import Unsupported
from revstore.memory import MemoryBackend
from revstore.testing import BackendTests
from revstore.testing.model import backend_machine
from revstore.values import Capability


class TestStoreInUse(BackendTests):
    """Somebody else's keys stay as they are."""

    ephemeral = False
    large_value = 4096

    @pytest.fixture
    def backend(self, store_in_use: Backend) -> Backend:
        return store_in_use


class BareBackend(MemoryBackend):
    """A backend that can do nothing beyond the minimum, as etcd2 and less."""

    @property
    def capabilities(self):
        return frozenset()

    def get(self, key, *, revision=0, **options):
        check_get(key, revision)
        self._refuse_past(revision)
        result = super().get(key, revision=revision, **options)
        return type(result)(result.revision, _without_version(result.kv))

    def list(self, prefix, *, revision=0, limit=0, remaining=False, **options):
        check_list(prefix, revision, limit=limit)
        self._refuse_past(revision)
        result = super().list(prefix, revision=revision, remaining=True, **options)
        kvs = tuple(_without_version(kv) for kv in result.kvs)
        return type(result)(result.revision, kvs, False, 0 if remaining else None)

    def count(self, prefix, *, revision=0, timeout=None):
        check_list(prefix, revision)
        self._refuse_past(revision)
        return super().count(prefix, revision=revision, timeout=timeout)

    def put(self, key, value, *, expected_revision, ttl=0, timeout=None):
        check_put(key, value, expected_revision, ttl)
        if ttl:
            raise Unsupported(Capability.TTL)
        if not expected_revision and super().get(key).kv is None:
            self._refuse_nested(key)
        result = super().put(key, value, expected_revision=expected_revision, timeout=timeout)
        return type(result)(result.succeeded, result.revision, _without_version(result.current))

    def delete(self, key, *, expected_revision, timeout=None):
        result = super().delete(key, expected_revision=expected_revision, timeout=timeout)
        return type(result)(result.succeeded, result.revision, _without_version(result.kv))

    def watch(self, key, **options):
        return BareWatch(super().watch(key, **options))

    transactions = Backend.transactions
    transaction = Backend.transaction
    leases = Backend.leases
    remaining_ttl = Backend.remaining_ttl
    raise_revision = Backend.raise_revision
    fence = Backend.fence
    unfence = Backend.unfence

    def compact(self, revision, *, timeout=None):
        check_compact(revision)
        check_timeout(timeout, 0.0)
        raise Unsupported(Capability.COMPACTION)

    def _refuse_nested(self, key):
        above = [key[:at] for at, letter in enumerate(key) if at and letter == "/"]
        if super().count(f"{key}/").count or any(super(BareBackend, self).get(a).kv for a in above):
            raise Unsupported(Capability.NESTED_KEYS)

    def _refuse_past(self, revision):
        if 0 < revision < self.status().revision:
            raise Unsupported(Capability.HISTORICAL_READS)


class BareWatch(BackendWatch):
    """A watch without progress and versions."""

    def __init__(self, inner: BackendWatch) -> None:
        self.inner = inner
        self.found = []

    def poll(self, timeout=None):
        if not self.found:
            self.found.append(self.inner.poll(timeout))
        if self.found[0] is not None:
            self.found[0] = self._bare(self.found[0])
        return self.found.pop()

    def _bare(self, batch):
        events = (
            type(event)(event.type, _without_version(event.kv), _without_version(event.previous))
            for event in batch.events
        )
        return type(batch)(batch.revision, tuple(events))

    @property
    def position(self):
        return self.inner.position

    def request_progress(self):
        raise Unsupported(Capability.PROGRESS)

    def close(self):
        self.inner.close()


def _without_version(kv):
    if kv is None:
        return None
    return type(kv)(kv.key, kv.value, kv.revision, kv.create_revision, 0, kv.lease)


class TestBareBackend(BackendTests):
    """The suite on a backend without capabilities: it asks for the refusals, not the features."""

    starts_at_one = True

    @pytest.fixture
    def backend(self) -> Iterator[Backend]:
        with BareBackend() as backend:
            yield backend


class TestBareMachine(backend_machine(BareBackend).TestCase):
    """The machine, too, heeds what is not claimed."""

    settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
