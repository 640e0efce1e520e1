"""What an event loop's tasks meet in the child of a fork."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from revstore import aio
from revstore.cacher import Cacher, CacherConfig
from revstore.errors import Closed
from revstore.memory import MemoryBackend
from revstore.registry import Registry
from revstore.resource_type import ResourceType
from revstore.storage import Storage
from revstore.testing._support import PATIENCE
from revstore.testing.backend._forks import Child, need_fork
from revstore.typed import TypedStorage

PODS: ResourceType[dict[str, Any]] = ResourceType(dict, "/pods")


async def ends(task: asyncio.Future[Any]) -> str:
    """How it ends, "" for Closed."""
    try:
        return f"{await task!r}"
    except (Closed, StopAsyncIteration):
        return ""


@pytest.mark.parametrize("kind", ["raw", "cached"])
def test_tasks_of_a_child(kind: str) -> None:
    """A task that waits there, on a watch or for a call, is woken by Closed; the parent goes on,
    and a child may open its own."""
    need_fork()
    go = threading.Event()

    async def main() -> None:
        backend = MemoryBackend()
        storage: Storage[dict[str, Any]] = TypedStorage(backend, PODS)
        if kind == "cached":
            storage = Cacher(CacherConfig(storage=storage, resource_type=PODS))
        async with aio.AsyncRegistry(Registry(storage, resource_prefix="/pods")) as registry:
            created = await registry.create({"metadata": {"name": "a"}})
            version = created["metadata"]["resourceVersion"]
            polled, iterated, idle = [
                await registry.watch(resource_version=version) for _ in range(3)
            ]
            loop = asyncio.get_running_loop()

            def wait(obj: Any, _: object) -> Any:
                assert go.wait(PATIENCE)
                return obj | {"spec": "changed"}

            waiting = [
                loop.create_task(polled.poll()),
                loop.create_task(anext(iterated)),
                loop.create_task(registry.guaranteed_update("a", wait)),
            ]
            for _ in range(5):
                await asyncio.sleep(0.01)  # they wait by then

            def in_child() -> list[str]:
                found: list[str] = []

                async def look() -> None:
                    found.extend([await ends(task) for task in waiting])
                    calls: tuple[Any, ...] = (
                        registry.list(),
                        idle.poll(0),
                        idle.poll(),
                        idle.poll(PATIENCE),
                    )
                    found.extend([await ends(call) for call in calls])
                    found.append("end")

                # The loop goes on in the child, where it is in the middle of a step.
                step = loop.create_task(look())
                while not step.done():
                    loop._run_once()  # type: ignore[attr-defined]
                step.result()
                return found

            forked = loop.create_future()
            loop.call_soon(lambda: forked.set_result(Child(in_child)))  # while no task runs
            child = await forked
            try:
                found = await asyncio.to_thread(child.result, PATIENCE / 2)
            finally:
                go.set()
            assert found == [""] * 7 + ["end"]
            done = await asyncio.gather(*waiting, return_exceptions=True)
            assert not [each for each in done if isinstance(each, BaseException)]
        backend.close()

    asyncio.run(main())
    assert Child(lambda: asyncio.run(_opens_its_own())).result() == ["a"]


async def _opens_its_own() -> list[str]:
    with MemoryBackend() as backend:
        registry = Registry(TypedStorage(backend, PODS), resource_prefix="/pods")
        async with aio.AsyncRegistry(registry) as own:
            await own.create({"metadata": {"name": "a"}})
            return [each["metadata"]["name"] for each in await own.list()]
