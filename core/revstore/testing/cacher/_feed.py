"""A storage whose feed a test can hold back and break."""

from __future__ import annotations

import builtins
import threading
import time
from typing import Any

from revstore.errors import Closed, StorageError, Unreachable
from revstore.storage import ChangeBatch, Changes, ObjectList, Stats, Storage, UpdateFunc, Watch

__all__ = ["ControlledStorage"]


class ControlledStorage(Storage[Any]):
    """A storage that passes everything on and controls its feeds. After ``hold`` they bring nothing
    until ``release``. ``cut`` breaks the open ones, and what they had not delivered is lost."""

    def __init__(self, inner: Storage[Any]) -> None:
        self.inner = inner
        # Guards held, _feeds, opened and the feeds' ``broken``.
        self.changed = threading.Condition()
        self.held = False
        self._feeds: builtins.list[_ControlledChanges] = []
        #: How many feeds were opened.
        self.opened = 0

    def hold(self) -> None:
        """Keep feeds from bringing anything more. A batch that has left ``poll`` is not
        taken back."""
        with self.changed:
            self.held = True

    def release(self) -> None:
        """Let feeds bring changes again."""
        with self.changed:
            self.held = False
            self.changed.notify_all()

    @property
    def followed(self) -> bool:
        """Return whether a feed is open."""
        with self.changed:
            return bool(self._feeds)

    def cut(self) -> None:
        """Break the open feeds: they raise ``Unreachable``."""
        with self.changed:
            feeds = self._feeds
            self._feeds = []
            for feed in feeds:
                feed.broken = Unreachable("the test has cut the feed")
            self.changed.notify_all()
        for feed in feeds:
            feed.inner.close()

    def changes(
        self, key: str, *, after: int | None = None, timeout: float | None = None
    ) -> Changes[Any]:
        feed = _ControlledChanges(self, self.inner.changes(key, after=after, timeout=timeout))
        with self.changed:
            self._feeds.append(feed)
            self.opened += 1
        return feed

    def forget(self, feed: _ControlledChanges) -> None:
        """Forget the feed, which is closed."""
        with self.changed:
            feed.broken = feed.broken or Closed("the feed was closed")
            if feed in self._feeds:
                self._feeds.remove(feed)
            self.changed.notify_all()

    def create(self, key: str, obj: Any, **options: Any) -> Any:
        return self.inner.create(key, obj, **options)

    def get(self, key: str, **options: Any) -> Any:
        return self.inner.get(key, **options)

    def delete(self, key: str, **options: Any) -> Any:
        return self.inner.delete(key, **options)

    def guaranteed_update(self, key: str, update: UpdateFunc, **options: Any) -> Any:
        return self.inner.guaranteed_update(key, update, **options)

    def watch(self, key: str, **options: Any) -> Watch[Any]:
        return self.inner.watch(key, **options)

    def count(self, key: str, **options: Any) -> int:
        return self.inner.count(key, **options)

    def stats(self, **options: Any) -> Stats:
        return self.inner.stats(**options)

    def current_revision(self, **options: Any) -> int:
        return self.inner.current_revision(**options)

    def compact_revision(self, **options: Any) -> int:
        return self.inner.compact_revision(**options)

    def request_progress(self) -> None:
        self.inner.request_progress()

    def ready(self, **options: Any) -> None:
        self.inner.ready(**options)

    def close(self) -> None:
        self.inner.close()

    def list(self, key: str, **options: Any) -> ObjectList[Any]:
        return self.inner.list(key, **options)


class _ControlledChanges(Changes[Any]):
    def __init__(self, owner: ControlledStorage, inner: Changes[Any]) -> None:
        self.inner = inner
        self.broken: StorageError | None = None
        self._owner = owner
        self._kept: ChangeBatch[Any] | None = None  # came while the feed was held
        self._revision = inner.revision

    @property
    def revision(self) -> int:
        return self._revision

    def poll(self, timeout: float | None = None) -> ChangeBatch[Any] | None:
        end = None if timeout is None else time.monotonic() + timeout
        if not self._may_pass(end):
            return None
        if self._kept is None:
            left = None if end is None else max(0.0, end - time.monotonic())
            try:
                self._kept = self.inner.poll(left)
            except StorageError:
                if self._may_pass(end):
                    raise
        if self._kept is None or not self._may_pass(end):
            return None
        batch, self._kept = self._kept, None
        self._revision = self.inner.revision
        return batch

    def request_progress(self) -> None:
        self.inner.request_progress()

    def close(self) -> None:
        self._owner.forget(self)
        self.inner.close()

    def _may_pass(self, end: float | None) -> bool:
        """Wait until nothing is held back; return False if something still is at ``end``. If the
        feed was ended from outside, raise that error."""
        owner = self._owner
        with owner.changed:
            left = None if end is None else max(0.0, end - time.monotonic())
            passes = owner.changed.wait_for(lambda: self.broken or not owner.held, left)
            if self.broken is not None:
                raise self.broken
            return bool(passes)
