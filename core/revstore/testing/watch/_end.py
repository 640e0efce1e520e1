"""``WatchTests``, part: how watches end, and objects that cannot be read."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from revstore.backend import Backend
from revstore.errors import Closed, CorruptObject, Unreachable
from revstore.storage import Watch
from revstore.testing._support import PATIENCE, let_block, promptly, run_threads, wait_until
from revstore.testing.storage._base import OpenStorage, Pods, StorageSuite
from revstore.testing.storage._parts import MarkingTransformer, Pod, SpyBackend, name_of
from revstore.testing.watch._support import gather, gather_until, short

__all__ = ["CorruptWatchTests", "EndTests"]


def _closed_while_polling(close: Callable[[], None], watches: list[Watch[Pod]]) -> None:
    """Poll in one thread for each watch, close from another thread, and expect ``Closed``
    everywhere."""

    def work(index: int) -> None:
        if index == len(watches):
            let_block()
            close()
            return
        with pytest.raises(Closed):
            watches[index].poll(PATIENCE)

    with promptly():
        run_threads(len(watches) + 1, work)


class EndTests(StorageSuite):
    """The end of a watch by ``close`` and by timeouts."""

    def test_watch_close(self, pods: Pods) -> None:
        """After ``close`` every poll raises Closed, whether or not events are pending, and
        iteration ends without an error. Other watches go on (WATCH-24, WATCH-25)."""
        watch, other = pods.watch(), pods.watch()
        pods.create("a")
        watch.close()
        watch.close()
        for timeout in (0, None, 1):
            with pytest.raises(Closed):
                watch.poll(timeout)
        assert list(watch) == []
        gather(other, 1)
        other.close()

    def test_watch_close_keeps_the_version(self, pods: Pods) -> None:
        """A watch from the version of a closed one shows what that one had not delivered (WATCH-2,
        WATCH-24)."""
        written = [pods.create(f"k{number}") for number in range(21)]
        with pods.watch() as watch:
            seen = gather_until(watch, lambda found: len(found) >= 1)
        version = watch.resource_version
        with pods.watch(resource_version=version) as watch:
            seen += gather(watch, 21 - len(seen))
        assert [event.object for event in seen] == written

    def test_watch_close_before_the_first_poll(self, pods: Pods) -> None:
        """A watch can be closed before its initial events are polled (WATCH-25)."""
        pods.create("a")
        watch = pods.watch(resource_version="")
        watch.close()
        with pytest.raises(Closed):
            watch.poll()

    @pytest.mark.parametrize("version", ["", "start"])
    def test_watch_close_wakes_a_poll(self, pods: Pods, version: str) -> None:
        """A blocked poll raises Closed at once when another thread closes the watch
        (WATCH-25)."""
        number = str(pods.start) if version == "start" else version
        watch = pods.watch("quiet", resource_version=number)
        _closed_while_polling(watch.close, [watch])

    def test_watch_storage_close_wakes_polls(self, pods: Pods) -> None:
        """Closing the storage ends all its watches, blocked ones too (WATCH-25)."""
        watches = [pods.watch("quiet", resource_version=version) for version in ("", "0", "1")]
        watches = [watches[0], watches[1], pods.watch("quiet")]
        _closed_while_polling(pods.storage.close, watches)
        for watch in watches:
            with pytest.raises(Closed):
                watch.poll(0)
            assert list(watch) == []

    def test_watch_backend_close_wakes_polls(self, pods: Pods, backend: Backend) -> None:
        """Closing the backend ends all watches, blocked ones too (WATCH-25)."""
        watches = [pods.watch("quiet"), pods.watch("quiet", resource_version="")]
        _closed_while_polling(backend.close, watches)

    def test_watch_timeout(self, pods: Pods) -> None:
        """A watch with a timeout ends by itself as if it were closed: iteration ends without an
        error, and polls raise Closed. That holds even while events come all the time (WATCH-25)."""
        for version in ("", str(pods.start)):
            began = time.monotonic()
            with promptly(), pods.watch("quiet", resource_version=version, timeout=0.2) as watch:
                assert watch.poll(0) is None
                assert list(watch) == []
                with pytest.raises(Closed):
                    watch.poll(5)
            assert time.monotonic() - began >= 0.19
        with pods.watch(timeout=0.5) as watch:
            seen = 0
            for number in range(10_000):
                pods.create(f"k{number}")
                try:
                    seen += len(watch.poll(0.05) or ())
                except Closed:
                    break
            assert 0 < seen <= number + 1

    def test_watch_timeout_of_a_poll_and_of_the_watch(self, pods: Pods) -> None:
        """Of the timeouts of poll and watch the earlier one counts (WATCH-25)."""
        with promptly(), pods.watch("quiet", timeout=PATIENCE) as watch:
            assert watch.poll(0.05) is None
        with promptly(), pods.watch("quiet", timeout=0.1) as watch, pytest.raises(Closed):
            watch.poll(PATIENCE)

    def test_watch_idle_watches_do_not_disturb(self, pods: Pods) -> None:
        """50 watches that nobody polls slow down neither writers nor another watch, and have all
        events when they are polled (WATCH-26, WATCH-27)."""
        idle = [pods.watch() for _ in range(50)]
        with pods.watch() as watch, promptly():
            written = [pods.create(f"k{number}") for number in range(22)]
            seen = [event.object for event in gather(watch, 22)]
        late = [[event.object for event in gather(each, 22)] for each in idle]
        for each in idle:
            each.close()
        assert seen == written
        assert late == [written] * 50

    def test_watch_of_what_never_matches(self, pods: Pods) -> None:
        """While only other objects change, a poll still ends at its timeout and at ``close``, and
        the watch's version soon moves on (WATCH-2, WATCH-25)."""
        watch = pods.watch(field_selector="spec.nodeName=none")
        stop, polling = threading.Event(), threading.Event()

        def work(index: int) -> None:
            if index == 0:
                try:
                    assert watch.poll(0.1) is None
                    wait_until(
                        lambda: watch.poll(0) is None and int(watch.resource_version) > pods.start,
                        "the version moves on",
                    )
                    polling.set()
                    with pytest.raises(Closed):
                        watch.poll(PATIENCE)
                finally:
                    polling.set()
                    stop.set()
            elif index == 1:
                polling.wait(PATIENCE)
                let_block()
                watch.close()
            while not stop.is_set():
                pods.update("a", f"n{time.monotonic()}")

        pods.create("a")
        with promptly():
            run_threads(3, work)

    def test_watch_of_a_failing_backend(
        self, pods: Pods, open_storage: OpenStorage, backend: Backend, reads_backend: None
    ) -> None:
        """An error of the backend ends the watch: every later poll raises it again, even if the
        backend works by then (WATCH-22)."""
        spy = SpyBackend(backend)
        storage = open_storage(over=spy)

        def interfere(name: str, turn: int) -> None:
            if turn == 1:
                raise Unreachable("nobody there")

        spy.before = interfere
        with storage.watch(pods.prefix) as watch:
            for _ in range(3):
                with pytest.raises(Unreachable, match="nobody there"):
                    watch.poll(PATIENCE)


class CorruptWatchTests(StorageSuite):
    """A watch does not skip what it cannot read."""

    @staticmethod
    def _ends(watch: Watch[Pod], pods: Pods, name: str) -> None:
        for _ in range(3):
            with pytest.raises(CorruptObject) as caught:
                watch.poll(PATIENCE)
            assert caught.value.key == pods.key(name)
        with pytest.raises(CorruptObject):
            next(iter(watch))

    def test_watch_of_a_corrupt_object(self, pods: Pods) -> None:
        """Events before an unreadable object are delivered. Then every poll raises CorruptObject,
        and nothing after it comes (WATCH-22, OLD-24)."""
        with pods.watch() as watch:
            created = pods.create("a")
            pods.create("b")
            bad = pods.overwrite("b")
            pods.create("c")
            assert [name_of(event.object) for event in gather(watch, 2)] == ["a", "b"]
            self._ends(watch, pods, "b")
            pods.update("a", "n1")
            self._ends(watch, pods, "b")
            assert int(watch.resource_version) < bad
        with pods.watch("a", recursive=False) as other:
            assert gather(other, 2)[0].object == created

    def test_watch_of_a_corrupt_object_that_is_created(self, pods: Pods) -> None:
        """An object that was never readable ends the watch too, with a selector as well
        (WATCH-22)."""
        for selector in ("", "spec.nodeName=n1"):
            with pods.watch(
                resource_version=str(pods.storage.current_revision()), field_selector=selector
            ) as watch:
                pods.overwrite("a" + selector)
                self._ends(watch, pods, "a" + selector)

    def test_watch_of_a_corrupt_initial_state(self, pods: Pods) -> None:
        """An unreadable object in the initial state ends the watch (WATCH-22)."""
        pods.create("a")
        pods.overwrite("b")
        with pods.watch(resource_version="") as watch:
            self._ends(watch, pods, "b")
        with pods.watch("b", recursive=False, resource_version="") as watch:
            self._ends(watch, pods, "b")

    def test_watch_of_a_corrupt_objects_deletion(self, pods: Pods) -> None:
        """A deletion whose last content cannot be read raises CorruptObject (WATCH-23)."""
        pods.create("a")
        revision = pods.overwrite("a")
        with pods.watch(resource_version=str(revision)) as watch:
            pods.storage.delete(pods.key("a"), even_if_corrupt=True)
            pods.create("b")
            self._ends(watch, pods, "a")

    def test_watch_of_a_mended_object(self, pods: Pods) -> None:
        """With a selector an unreadable previous content ends the watch; without one the previous
        content is not needed (WATCH-22, WATCH-23)."""
        pods.create("a", "n1")
        value = pods.stored("a").value
        revision = pods.overwrite("a")
        with pods.watch(resource_version=str(revision), field_selector="spec.nodeName=n1") as watch:
            pods.overwrite("a", value)
            self._ends(watch, pods, "a")
        with pods.watch(resource_version=str(revision)) as watch:
            assert short(gather(watch, 1)) == [("MODIFIED", "a", "n1")]

    def test_watch_when_the_transformer_fails(self, pods: Pods, open_storage: OpenStorage) -> None:
        """A value that the transformer cannot read ends the watch (WATCH-22, XF-10)."""
        if not self.raw:
            pytest.skip("one feed, not this watch, reads the objects")
        transformer = MarkingTransformer()
        marked = Pods(open_storage(transformer=transformer), pods.backend, pods.prefix)
        with marked.watch() as watch:
            marked.create("a")
            gather(watch, 1)
            marked.update("a", "n1")
            transformer.broken = True
            self._ends(watch, pods, "a")
            transformer.broken = False
            self._ends(watch, pods, "a")
