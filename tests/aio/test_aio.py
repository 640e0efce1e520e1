"""The asyncio facade, over raw and cached storages."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager, suppress

import attrs
import pytest

from revstore import aio
from revstore.aio._calls import opened_in_thread
from revstore.aio._wakeups import wakeups_of
from revstore.cacher import Cacher, CacherConfig
from revstore.errors import (
    BackendError,
    Closed,
    Expired,
    InvalidArgument,
    InvalidSelector,
    KeyExists,
    KeyNotFound,
)
from revstore.memory import MemoryBackend
from revstore.objects import ObjectMeta
from revstore.registry import Registry
from revstore.resource_type import ResourceType
from revstore.storage import Storage
from revstore.testing._support import PATIENCE, wait_until
from revstore.typed import TypedStorage


@attrs.frozen(kw_only=True)
class Pod:
    metadata: ObjectMeta
    node_name: str = ""


def pod(name: str, node: str = "") -> Pod:
    return Pod(metadata=ObjectMeta(name=name, namespace="a"), node_name=node)


class OwnStorage(TypedStorage[Pod]):
    """A raw storage that closes its backend too."""

    def __init__(self) -> None:
        backend = MemoryBackend()
        super().__init__(backend, ResourceType(Pod, "/pods"), on_close=backend.close)


def make(cached: bool, **options) -> Storage[Pod]:
    raw = OwnStorage()
    if not cached:
        return raw
    cache = Cacher(CacherConfig(storage=raw, resource_type=ResourceType(Pod, "/pods"), **options))
    cache.wait_ready()
    return cache


both = pytest.mark.parametrize("cached", [False, True], ids=["raw", "cached"])


def run(main) -> None:
    """Run ``main`` in a loop of its own; no thread of the facade is left."""
    asyncio.run(asyncio.wait_for(main, PATIENCE * 2))
    wait_until(lambda: not threads(), f"no thread left but {threads()}")


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("revstore-aio")]


def put(storage, name, node="") -> str:
    key, new = f"/pods/a/{name}", pod(str(name), node)
    written = storage.guaranteed_update(key, lambda _, __: new, ignore_not_found=True)
    return written.metadata.resource_version


def writing(storage, names) -> asyncio.Future:
    """A thread that writes objects, one after the other."""
    return asyncio.ensure_future(
        asyncio.to_thread(lambda: [put(storage, name, str(name)) for name in names])
    )


@asynccontextmanager
async def held(storage: aio.AsyncStorage[Pod]):
    """An update that runs in its thread until the block is left; what is yielded is its task."""
    entered, leave = threading.Event(), threading.Event()

    def update(_, __):
        entered.set()
        assert leave.wait(PATIENCE)
        return pod("held")

    task = asyncio.create_task(
        storage.guaranteed_update("/pods/a/held", update, ignore_not_found=True)
    )
    await asyncio.to_thread(entered.wait, PATIENCE)
    try:
        yield task
    finally:
        leave.set()


def test_every_method_is_there():
    """AsyncStorage and AsyncRegistry have the methods of what they stand for, with the same
    signatures and descriptions; of a storage only the cache's feed is missing."""
    for facade, target in ((aio.AsyncStorage, Storage), (aio.AsyncRegistry, Registry)):
        public = {
            name
            for name, member in inspect.getmembers(target, inspect.isfunction)
            if not name.startswith("_")
        }
        for name in public - {"changes", "close"}:
            theirs, ours = getattr(target, name), getattr(facade, name)
            assert inspect.signature(ours) == inspect.signature(theirs), name
            assert ours.__doc__ == theirs.__doc__
            assert ours is not theirs
            assert inspect.iscoroutinefunction(ours) == (name != "watch")
        assert hasattr(facade, "close")


@both
def test_calls(cached):
    """Each call returns or raises what the storage's method does."""

    async def main():
        async with aio.AsyncStorage(make(cached)) as storage:
            await storage.ready()
            made = await storage.create("/pods/a/1", pod("1"))
            assert await storage.get("/pods/a/1") == made
            with pytest.raises(KeyExists):
                await storage.create("/pods/a/1", pod("1"))
            with pytest.raises(KeyNotFound):
                await storage.get("/pods/a/2")
            assert await storage.get("/pods/a/2", ignore_not_found=True) is None
            changed = await storage.guaranteed_update(
                "/pods/a/1", lambda found, _: attrs.evolve(found, node_name="n1")
            )
            version = changed.metadata.resource_version
            assert (await storage.list("/pods")).items == (changed,)
            assert str(await storage.current_revision()) == version
            assert await storage.compact_revision() == 0
            assert await storage.count("/pods") == (await storage.stats()).object_count == 1
            assert (await storage.delete("/pods/a/1")).node_name == "n1"
            assert storage.storage.count("/pods") == 0

    run(main())


@pytest.mark.parametrize("cached", [False, True], ids=["raw", "cached"])
def test_open_registry(tmp_path, cached):
    """open_registry is awaited or entered, over any backend; what it opened is closed in the
    end."""
    where = f"sqlite:///{tmp_path}/x.db"

    async def main():
        async with aio.open_registry(where, Pod, cached=cached) as pods:
            await asyncio.gather(*[pods.create(pod(str(number))) for number in range(20)])
            assert len(await pods.list("a")) == 20
            result = await pods.apply(pod("1", "n1"))
            assert result.outcome == "configured"
            await pods.delete("2", "a")
            async with pods.watch("a", name="1") as watch:
                assert (await anext(watch)).object == result.object
        with pytest.raises(Closed):
            await pods.list()
        with pytest.raises(Closed):
            pods.registry.list()
        again = await aio.open_registry(where, Pod, cached=cached)
        assert len(await again.list()) == 19
        await again.close()
        await again.close()

    run(main())


def test_open_storage():
    """open_storage passes its options on, and raises what the original raises."""

    async def main():
        async with aio.open_storage("memory://", dict, resource="pods", cached=True) as storage:
            await storage.create("/pods/a/1", {"metadata": {"name": "1"}})
            assert await storage.count("/pods") == 1
            assert storage.storage.counters.objects <= 1
        with pytest.raises(InvalidArgument, match="resource"):
            await aio.open_storage("memory://", dict)
        for opening in (aio.open_storage, aio.open_registry):
            with pytest.raises(InvalidArgument, match="threads"):
                await opening("memory://", Pod, cached=True, threads=0)

    before = set(threading.enumerate())
    run(main())
    left = {each.name for each in set(threading.enumerate()) - before}
    assert not {name for name in left if name.startswith("revstore")}, "what was opened is closed"


def test_calls_are_bounded():
    """At most ``threads`` calls run at once; the others wait for their turn, and all are made."""
    running, most, lock = 0, 0, threading.Lock()
    together = threading.Barrier(3)

    def update(_, __):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(PATIENCE)  # so that three do run at once
        with lock:
            running -= 1
        return pod("x")

    async def main():
        async with aio.AsyncStorage(make(cached=False), threads=3) as storage:
            keys = [f"/pods/a/{number}" for number in range(12)]
            await asyncio.gather(
                *[storage.guaranteed_update(key, update, ignore_not_found=True) for key in keys]
            )
            assert await storage.count("/pods") == 12
            assert most == 3

    run(main())


def test_context_variables_reach_the_call():
    """What runs in a thread sees the context variables of the task that called."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def main():
        async with aio.AsyncStorage(make(cached=False)) as storage:
            variable.set("mine")
            made = await storage.guaranteed_update(
                "/pods/a/1", lambda _, __: pod("1", variable.get()), ignore_not_found=True
            )
            assert made.node_name == "mine"

    run(main())


@both
def test_iteration(cached):
    """The events are those of the storage's own watch, in order; the iteration ends when the watch
    is closed. (WATCH-1, WATCH-3)"""

    async def main():
        async with aio.AsyncStorage(make(cached)) as storage:
            put(storage.storage, "first")
            async with storage.watch("/pods", allow_bookmarks=True, send_initial_events=True) as it:
                first, end = await anext(it), await anext(it)
                assert (first.object.metadata.name, end.initial_events_end) == ("first", True)
                writer = writing(storage.storage, range(300))
                seen = [await anext(it) for _ in range(300)]
                versions = await writer
                assert [event.resource_version for event in seen] == versions
                assert it.resource_version == versions[-1]
            assert [event async for event in it] == []
            with pytest.raises(Closed):
                await it.poll()

    run(main())


@both
def test_poll(cached):
    """AsyncWatch.poll: None when the time is over, 0 does not wait; all events of a revision in one
    answer, none twice."""

    async def main():
        async with aio.AsyncStorage(make(cached)) as storage:
            version = put(storage.storage, "1")
            async with storage.watch("/pods", resource_version=version) as watch:
                began = time.monotonic()
                assert await watch.poll(0.1) is None
                assert time.monotonic() - began >= 0.09
                assert await watch.poll(0) is None
                assert await watch.poll(-1) is None
                put(storage.storage, "2")
                (event,) = await watch.poll(PATIENCE)
                assert event.object.metadata.name == "2"
                assert await watch.poll(0.01) is None
                put(storage.storage, "3")
                (event,) = await watch.poll()
                assert watch.resource_version == event.resource_version

    run(main())


@both
def test_a_watchs_own_timeout(cached):
    """Storage.watch: the iteration ends normally when the watch's timeout has passed."""

    async def main():
        async with aio.AsyncStorage(make(cached)) as storage:
            put(storage.storage, "1")
            watch = await storage.watch("/pods", timeout=1)
            assert [event.object.metadata.name async for event in watch] == ["1"]
            with pytest.raises(Closed):
                await watch.poll()

    run(main())


@both
def test_cancelling_who_waits_loses_nothing(cached):
    """A task that waits on a watch is cancelled again and again, at all moments, while others
    write; the next poll gets every event once, in order."""

    async def main():
        async with aio.AsyncStorage(make(cached)) as storage:
            seen, version = [], str(await storage.current_revision())
            watch = await storage.watch("/pods", resource_version=version)

            async def follow():
                async for event in watch:
                    seen.append(event.resource_version)

            writer = writing(storage.storage, range(400))
            rounds = 0
            while not writer.done() or len(seen) < 400:
                task = asyncio.create_task(follow())
                if rounds % 3:
                    for _ in range(rounds % 7):
                        await asyncio.sleep(0)
                else:
                    await asyncio.wait([task], timeout=0.001)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                with suppress(TimeoutError):
                    events = await asyncio.wait_for(watch.poll(), 0.0005 * (rounds % 3))
                    seen += [event.resource_version for event in events]
                rounds += 1
            assert seen == writer.result()

    run(main())


@both
def test_leaving_an_iteration(cached):
    """Who leaves an iteration in the middle, with events of one poll outstanding, gets the rest by
    iterating again or by poll."""

    async def main():
        async with aio.AsyncStorage(make(cached)) as storage:
            for number in range(5):
                put(storage.storage, number)
            watch = await storage.watch("/pods", send_initial_events=True)
            async for event in watch:
                assert event.object.metadata.name == "0"
                break
            async for event in watch:
                assert event.object.metadata.name == "1"
                break
            rest = await watch.poll()
            assert [event.object.metadata.name for event in rest] == ["2", "3", "4"]

    run(main())


@both
def test_closing_wakes_who_waits(cached):
    """Closing the watch ends the iteration of the task that waits, and its poll with Closed;
    closing the storage does so for all."""

    async def main():
        storage = aio.AsyncStorage(make(cached))
        version = str(await storage.current_revision())
        watches = [await storage.watch("/pods", resource_version=version) for _ in range(4)]

        async def follow(watch):
            return [event async for event in watch]

        tasks = [asyncio.create_task(follow(watch)) for watch in watches[:3]]
        tasks.append(asyncio.create_task(watches[3].poll()))
        await asyncio.sleep(0.01)
        await watches[0].close()
        await watches[0].close()
        assert await tasks[0] == []
        assert not any(task.done() for task in tasks[1:])
        await asyncio.gather(storage.close(), storage.close())
        assert await tasks[1] == await tasks[2] == []
        with pytest.raises(Closed):
            await tasks[3]
        assert threads() == []
        with pytest.raises(Closed):
            await storage.watch("/pods")

    run(main())


def test_many_tasks_need_no_threads():
    """Two thousand tasks wait on as many watches of a cached storage, without a thread for any; an
    event reaches each, and wakes the loop a few times only."""
    calls = 0

    class CountingLoop(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(self, *args, **options):
            nonlocal calls
            calls += 1
            return super().call_soon_threadsafe(*args, **options)

    async def main():
        nonlocal calls
        async with aio.AsyncStorage(make(cached=True), threads=4) as storage:
            version = await asyncio.to_thread(put, storage.storage, "1")
            watches = await asyncio.gather(
                *[storage.watch("/pods", resource_version=version) for _ in range(2000)]
            )
            tasks = [asyncio.create_task(anext(watch)) for watch in watches]
            await asyncio.sleep(0.2)
            assert len(threads()) <= 4
            calls = 0
            event = threading.Thread(target=put, args=(storage.storage, "2"))
            event.start()
            found = await asyncio.gather(*tasks)
            assert {event.object.metadata.name for event in found} == {"2"}
            assert calls < 200
            event.join()

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(asyncio.wait_for(main(), PATIENCE))
    assert threads() == []


def test_a_watch_without_cache_has_one_thread():
    """A watch of a raw storage has one thread, which ends with the watch."""

    async def main():
        async with aio.AsyncStorage(make(cached=False), threads=1) as storage:
            version = str(await storage.current_revision())
            watches = [await storage.watch("/pods", resource_version=version) for _ in range(5)]
            assert threads().count("revstore-aio-watch") == 5
            await writing(storage.storage, "abc")
            for watch in watches:
                assert [(await anext(watch)).object.node_name for _ in range(3)] == list("abc")
                await watch.close()
                with pytest.raises(Closed):
                    await watch.poll()
            await asyncio.to_thread(
                wait_until, lambda: "revstore-aio-watch" not in threads(), "no thread of a watch"
            )

    run(main())


def test_a_watch_without_a_thread_is_closed(monkeypatch):
    """Where the thread of a watch cannot start, the call says so and leaves no watch open."""
    start = threading.Thread.start

    def refuse(thread):
        if thread.name == "revstore-aio-watch":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)

    async def main():
        async with aio.AsyncStorage(make(cached=False)) as storage:
            with pytest.raises(BackendError, match="revstore-aio-watch"):
                await storage.watch("/pods")
            assert not storage.storage._open_watches

    run(main())


def test_reading_ahead_shows_in_no_version():
    """AsyncWatch.resource_version: a watch from there goes on after what was delivered, though a
    thread has read further."""

    async def main():
        async with aio.AsyncStorage(make(cached=False)) as storage:
            version = str(await storage.current_revision())
            await writing(storage.storage, range(1200))
            watch = await storage.watch("/pods", resource_version=version)
            seen = 0
            while seen < 1200:
                seen += len(await watch.poll())
                last = watch.resource_version
                if seen < 1200:
                    async with storage.watch("/pods", resource_version=last) as rest:
                        assert (await anext(rest)).object.node_name == str(seen)
            assert last == str(await storage.current_revision())

    run(main())


def test_a_busy_watch_lets_others_run():
    """A task whose watch always has something can be cancelled, and does not keep others from
    running."""

    async def main():
        async with aio.AsyncStorage(make(cached=True)) as storage:
            for number in range(3000):
                put(storage.storage, f"{number:04}")
            turns = 0

            async def count():
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            counter = asyncio.create_task(count())
            async with storage.watch("/pods", resource_version="0") as watch:
                before = turns
                names = [(await anext(watch)).object.metadata.name for _ in range(3000)]
                assert names == sorted(names)
                assert turns - before >= 5  # one for each page
            counter.cancel()

    run(main())


def test_an_error_is_raised_again():
    """Watch: after an error every later poll raises it, also by iteration, without waiting."""

    async def main():
        async with aio.AsyncStorage(make(cached=True, capacity=100)) as storage:
            version = put(storage.storage, "1")
            for number in range(300):
                last = put(storage.storage, number)
            await storage.list("/pods", resource_version=last)
            watch = await storage.watch("/pods", resource_version=version)
            for _ in range(2):
                with pytest.raises(Expired):
                    await watch.poll()
                with pytest.raises(Expired):
                    await anext(watch)
            with pytest.raises(InvalidSelector):
                await storage.watch("/pods", label_selector="!!")

    run(main())


def test_an_error_without_cache_is_raised_again():
    """Watch: the same where a thread polls."""

    async def main():
        async with aio.AsyncStorage(make(cached=False)) as storage:
            put(storage.storage, "1")
            storage.storage._backend.compact(storage.storage.current_revision())
            put(storage.storage, "2")
            watch = await storage.watch("/pods", resource_version="1")
            for _ in range(2):
                with pytest.raises(Expired):
                    await watch.poll()
                with pytest.raises(Expired):
                    await anext(watch)

    run(main())


def test_one_task_waits_at_a_time():
    """A second task that waits on a watch gets RuntimeError; the first is left alone."""

    async def main():
        async with aio.AsyncStorage(make(cached=True)) as storage:
            version = str(await storage.current_revision())
            watch = await storage.watch("/pods", resource_version=version)
            first = asyncio.create_task(watch.poll())
            await asyncio.sleep(0.01)
            with pytest.raises(RuntimeError, match="another task"):
                await watch.poll()
            put(storage.storage, "1")
            assert len(await first) == 1

    run(main())


def test_cancelling_a_call_returns_at_once():
    """A call that is cancelled while it runs returns at once, and its write lands all the same; one
    whose turn has not come is never made."""

    async def main():
        async with aio.AsyncStorage(make(cached=False), threads=1) as storage:
            async with held(storage) as running:
                waiting = asyncio.create_task(storage.create("/pods/a/1", pod("1")))
                await asyncio.sleep(0.01)
                for task in (waiting, running):
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                assert await asyncio.to_thread(storage.storage.count, "/pods") == 0
            assert (await storage.get("/pods/a/held")).metadata.name == "held"
            assert await storage.count("/pods") == 1

    run(main())


def test_what_a_cancelled_call_opens_is_closed():
    """A watch or storage whose opening is cancelled is closed once it is there."""
    entered, leave = threading.Event(), threading.Event()
    opened = []

    class Slow(OwnStorage):
        def watch(self, *args, **options):
            entered.set()
            assert leave.wait(PATIENCE)
            opened.append(super().watch(*args, **options))
            return opened[-1]

        def close(self):
            super().close()
            opened.append("closed")

    def open_slowly():
        entered.set()
        assert leave.wait(PATIENCE)
        return Slow()

    async def cancelled(opening):
        task = asyncio.ensure_future(opening)
        await asyncio.to_thread(entered.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not opened
        leave.set()
        await asyncio.to_thread(wait_until, lambda: bool(opened), "it is opened after all")
        entered.clear()
        leave.clear()
        return opened.pop()

    async def main():
        async with aio.AsyncStorage(Slow()) as storage:
            watch = await cancelled(storage.watch("/pods"))

            def is_closed():
                try:
                    watch.poll(0)
                except Closed:
                    return True
                return False

            await asyncio.to_thread(wait_until, is_closed, "the watch is closed")
        assert opened.pop() == "closed"
        assert await cancelled(opened_in_thread(open_slowly)) == "closed"

    run(main())


def test_closing_while_calls_run_and_wait():
    """close: calls that run are waited for, those that wait for their turn raise Closed; cancelling
    the close does not stop it."""

    async def main():
        storage = aio.AsyncStorage(make(cached=False), threads=1)
        async with held(storage) as running:
            waiting = asyncio.create_task(storage.create("/pods/a/1", pod("1")))
            await asyncio.sleep(0.01)
            closing = asyncio.create_task(storage.close())
            await asyncio.sleep(0.01)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            with pytest.raises(Closed):
                await storage.count("/pods")
        for task in (running, waiting):
            with pytest.raises(Closed):
                await task
        await storage.close()
        assert threads() == []

    run(main())


def test_a_loop_that_is_closed_harms_nobody(caplog):
    """Callbacks that arrive for a loop that was closed, its tasks left waiting, are dropped:
    nothing is raised in the thread that publishes, and other watches go on."""
    cache = make(cached=True)
    version = str(cache.current_revision())
    loop = asyncio.new_event_loop()
    storage = aio.AsyncStorage(cache)

    async def left_waiting():
        watch = await storage.watch("/pods", resource_version=version)
        return asyncio.create_task(watch.poll())

    async def tick():
        await asyncio.sleep(0.01)

    task = loop.run_until_complete(left_waiting())
    loop.run_until_complete(tick())
    assert not task.done()
    loop.close()
    with cache.watch("/pods", resource_version=version) as other:
        put(cache, "1")
        assert len(other.poll(PATIENCE)) == 1
    wakeups = wakeups_of(loop)
    assert (list(wakeups.ready), wakeups.scheduled) == ([], False)
    assert caplog.records == []

    async def main():
        async with storage:
            watch = await storage.watch("/pods", resource_version=version)
            assert len(await watch.poll()) == 1

    run(main())
    with suppress(RuntimeError):  # its future belongs to a loop that is closed
        task.get_coro().close()
    task._log_destroy_pending = False


def test_loops_are_forgotten():
    """What is kept for a loop goes with it."""
    import gc
    import weakref

    loop = asyncio.new_event_loop()
    wakeups_of(loop)
    known = weakref.ref(loop)
    loop.close()
    del loop
    gc.collect()
    assert known() is None


def test_a_storage_serves_several_loops():
    """One facade serves loops in several threads, one after the other or at once."""
    storage = aio.AsyncStorage(make(cached=True))
    version = str(storage.storage.current_revision())
    opened = threading.Barrier(3)
    seen = []

    async def follow():
        async with storage.watch("/pods", resource_version=version) as watch:
            await asyncio.to_thread(opened.wait, PATIENCE)
            seen.append([(await anext(watch)).object.node_name for _ in range(50)])

    loops = [threading.Thread(target=asyncio.run, args=(follow(),)) for _ in range(2)]
    for each in loops:
        each.start()
    opened.wait(PATIENCE)
    for number in range(50):
        put(storage.storage, number, str(number))
    for each in loops:
        each.join(PATIENCE)
    assert seen == [[str(number) for number in range(50)]] * 2
    run(storage.close())


_LEFT_OPEN = """
import asyncio
from revstore import aio

async def main():
    storage = await aio.open_storage("memory://", dict, resource="pods")
    watch = await storage.watch("/pods", resource_version="1")
    assert await watch.poll(0.01) is None

asyncio.run(main())
"""


def test_what_is_left_open_does_not_keep_a_program_from_ending():
    """A watch without cache that nobody closes blocks a thread, but not the program's end."""
    done = subprocess.run(
        [sys.executable, "-c", _LEFT_OPEN],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
