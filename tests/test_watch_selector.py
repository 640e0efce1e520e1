"""One thread that serves many watches."""

from __future__ import annotations

import queue
import threading
import time
import tracemalloc
from contextlib import ExitStack, suppress

import attrs
import pytest

from revstore import watch_selector
from revstore.cacher import Cacher, CacherConfig
from revstore.errors import Closed, InvalidArgument, Unsupported
from revstore.memory import MemoryBackend
from revstore.objects import ObjectMeta
from revstore.resource_type import ResourceType
from revstore.storage import Event, EventType, Watch
from revstore.testing._support import let_block, promptly, run_threads
from revstore.testing.preemption import preempted
from revstore.typed import TypedStorage
from revstore.watch_selector import WatchSelector


@attrs.frozen(kw_only=True)
class Pod:
    metadata: ObjectMeta
    node_name: str = ""


def pod(name: str, namespace: str = "a", node: str = "") -> Pod:
    return Pod(metadata=ObjectMeta(name=name, namespace=namespace), node_name=node)


class ListWatch(Watch[int]):
    """A watch over a list of numbers, which tells when it is readable as the contract has it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: list[int] = []
        self._callback = None
        self._armed = False
        self._closed = False

    def push(self, number: int) -> None:
        with self._lock:
            self._numbers.append(number)
        self._arm(self._armed)

    def poll(self, timeout: float | None = None) -> tuple[Event[int], ...] | None:
        assert timeout == 0
        with self._lock:
            if self._closed:
                raise Closed("the watch was closed")
            first, self._numbers = self._numbers[:3], self._numbers[3:]
            self._armed = self._callback is not None
        self._arm(self._armed)
        return tuple(Event(EventType.ADDED, number, str(number)) for number in first) or None

    def on_readable(self, callback) -> None:
        with self._lock:
            self._callback = callback
            self._armed = callback is not None
        self._arm(self._armed)

    def close(self) -> None:
        self._closed = True
        self._arm(self._armed)

    @property
    def resource_version(self) -> str:
        return ""

    def _arm(self, armed: bool) -> None:
        """Call back if there is something to report, and a callback for it."""
        with self._lock:
            told = self._callback if armed and (self._numbers or self._closed) else None
            if told is not None:
                self._armed = False
        if told is not None:
            told()


@pytest.fixture
def cache():
    with ExitStack() as stack:
        backend = stack.enter_context(MemoryBackend())
        storage = TypedStorage(backend, ResourceType(Pod, "/pods"))
        config = CacherConfig(
            storage=storage,
            resource_type=ResourceType(Pod, "/pods"),
            indexed_fields=("nodeName",),
        )
        cache = stack.enter_context(Cacher(config))
        cache.wait_ready()
        yield cache


def put(cache, key, new):
    written = cache.guaranteed_update(key, lambda _, __: new, ignore_not_found=True)
    return written.metadata.resource_version


def test_only_what_is_readable_is_returned(cache):
    """WatchSelector.select: a watch that has something, with its data, and no other; not again
    before it was polled, again when more has come."""
    version = put(cache, "/pods/a/1", pod("1"))
    cache.list("/pods", resource_version=version)  # it has come to the cache
    with WatchSelector() as selector:
        watches = {name: cache.watch(f"/pods/{name}", resource_version=version) for name in "abc"}
        for name, watch in watches.items():
            selector.add(watch, name)
        assert len(selector) == 3
        put(cache, "/pods/b/1", pod("1", "b"))
        assert selector.select(10) == [(watches["b"], "b")]
        assert selector.select(0) == []
        assert len(watches["b"].poll(0)) == 1
        assert selector.select(0) == []
        put(cache, "/pods/b/1", pod("1", "b", "n1"))
        assert selector.select(10) == [(watches["b"], "b")]


def test_all_pages_of_a_state_are_told(cache):
    """Watch.on_readable: a poll that has left something behind makes the watch readable again at
    once; one poll for each time it is returned misses nothing."""
    for number in range(1200):
        put(cache, f"/pods/a/{number:04}", pod(f"{number:04}"))
    with WatchSelector() as selector, cache.watch("/pods", send_initial_events=True) as watch:
        selector.add(watch)
        seen = []
        while len(seen) < 1200:
            ((found, data),) = selector.select(10)
            assert (found, data) == (watch, None)
            seen += [event.object.metadata.name for event in found.poll(0) or ()]
        assert seen == [f"{number:04}" for number in range(1200)]


def test_a_watch_told_twice_is_returned_once():
    """WatchSelector.select: each watch once, in the order in which they became readable, however
    often it was told."""
    first, second = ListWatch(), ListWatch()
    with WatchSelector() as selector:
        selector.add(first, [1])
        selector.add(second, [2])
        second.push(1)
        first.push(1)
        second.poll(0)
        second.push(2)
        assert [data for _, data in selector.select(0)] == [[2], [1]]


def test_waiting():
    """WatchSelector.select: 0 does not wait, a timeout is kept, a push from another thread ends
    the waiting."""
    watch = ListWatch()
    with WatchSelector() as selector:
        selector.add(watch)
        assert selector.select(0) == []
        began = time.monotonic()
        assert selector.select(0.1) == []
        assert time.monotonic() - began >= 0.1

        def work(index):
            if index:
                let_block()
                watch.push(1)
                return None
            with promptly():
                return selector.select()

        assert run_threads(2, work)[0] == [(watch, None)]


def test_remove():
    """WatchSelector.remove: not returned any more, even if it was readable; nothing happens for
    one that is not served; it can be added again."""
    watch, other = ListWatch(), ListWatch()
    with WatchSelector() as selector:
        selector.add(watch, "old")
        watch.push(1)
        selector.remove(watch)
        selector.remove(other)
        assert (len(selector), selector.select(0.05)) == (0, [])
        watch.push(2)
        assert selector.select(0) == []
        selector.add(watch, "new")
        assert selector.select(0) == [(watch, "new")]


def test_what_is_refused(cache):
    """WatchSelector.add: a watch that cannot tell raises Unsupported and is not served; one that
    is served already, InvalidArgument."""
    with WatchSelector() as selector, cache._storage.watch("/pods") as raw:
        with pytest.raises(Unsupported, match="cannot tell"):
            selector.add(raw)
        assert len(selector) == 0
        watch = ListWatch()
        selector.add(watch)
        with pytest.raises(InvalidArgument, match="no selector serves yet"):
            selector.add(watch)
        assert len(selector) == 1


def test_the_end_of_a_watch_is_told(cache):
    """Watch.on_readable: a watch that is closed, by itself or with its storage, is returned, and
    its poll raises."""
    version = str(cache.current_revision())
    with WatchSelector() as selector:
        one, two = (cache.watch("/pods", resource_version=version) for _ in range(2))
        selector.add(one, 1)
        selector.add(two, 2)
        one.close()
        assert selector.select(10) == [(one, 1)]
        with pytest.raises(Closed):
            one.poll(0)
        selector.remove(one)
        cache.close()
        assert selector.select(10) == [(two, 2)]
        with pytest.raises(Closed):
            two.poll(0)


def test_close():
    """WatchSelector.close: a select that waits raises Closed, so does everything later; the
    watches are open and tell nobody any more."""
    watch = ListWatch()
    selector = WatchSelector()
    selector.add(watch)

    def work(index):
        if index:
            let_block()
            selector.close()
            selector.close()
            return
        with promptly(), pytest.raises(Closed):
            selector.select()

    run_threads(2, work)
    for _ in range(2):
        with pytest.raises(Closed):
            selector.select(0)
    with pytest.raises(Closed):
        selector.add(watch)
    watch.push(1)
    assert watch._callback is None
    assert len(watch.poll(0)) == 1


def test_watches_come_and_go_while_one_thread_serves():
    """No number is lost, doubled or out of order while threads push, and add and remove watches of
    their own."""
    selector = WatchSelector()
    watches = [ListWatch() for _ in range(20)]
    seen = {watch: [] for watch in watches}
    for watch in watches:
        selector.add(watch, "lasting")

    def work(index):
        if index == 0:
            while sum(map(len, seen.values())) < 20 * 300:
                ready = selector.select(20)
                assert ready, "nothing within 20 s"
                for watch, data in ready:
                    events = watch.poll(0) or ()
                    if data == "lasting":
                        seen[watch] += [event.object for event in events]
        elif index == 1:
            for number in range(300):
                passing = ListWatch()
                selector.add(passing, "passing")
                passing.push(number)
                selector.remove(passing)
        else:
            for number in range(300):
                for watch in watches[index % 2 :: 2]:
                    watch.push(number)

    run_threads(4, work)
    assert all(numbers == list(range(300)) for numbers in seen.values())
    assert len(selector) == 20
    selector.close()


def test_no_callback_is_forgotten():
    """WatchSelector.add, remove, close: however they meet, a watch that is served tells, and one
    that is not does not."""

    def work(index):
        for watch in watches:
            with suppress(Closed, InvalidArgument):
                if index == 0:
                    selector.add(watch)
                elif index == 1:
                    selector.remove(watch)
                    selector.add(watch)
                elif watch is watches[2]:
                    selector.close()

    with preempted(0, lambda code: 0.5 * (code.co_filename == watch_selector.__file__)):
        for _ in range(60):
            selector, watches = WatchSelector(), [ListWatch() for _ in range(4)]
            run_threads(3, work)
            served = [watch in selector._served for watch in watches]
            assert [watch._callback is not None for watch in watches] == served


def test_a_callback_costs_the_writer_little_memory():
    """A watch that is served costs 250 bytes at most."""
    watches = [ListWatch() for _ in range(10_000)]
    with WatchSelector() as selector:
        tracemalloc.start()
        for watch in watches:
            selector.add(watch)
        used, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert used / len(watches) <= 250


def test_ten_thousand_watches_get_one_event(cache):
    """One event reaches ten thousand watches through one thread, each once."""
    version = put(cache, "/pods/a/1", pod("1"))
    told: queue.SimpleQueue[int] = queue.SimpleQueue()
    with WatchSelector() as selector:
        for number in range(10_000):
            selector.add(cache.watch("/pods", resource_version=version), number)
        put(cache, "/pods/a/2", pod("2"))
        while told.qsize() < 10_000:
            ready = selector.select(20)
            assert ready, "nothing within 20 s"
            for watch, number in ready:
                for event in watch.poll(0) or ():
                    assert event.object.metadata.name == "2"
                    told.put(number)
    assert {told.get() for _ in range(10_000)} == set(range(10_000))
