"""Faults that come and go while a test runs: at moments that a seed settles."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator

__all__ = ["Faults", "again_and_again"]


class Faults:
    """What ``again_and_again`` has done: ``count`` faults so far."""

    def __init__(self) -> None:
        self.count = 0


@contextlib.contextmanager
def again_and_again(
    fault: Callable[[], object],
    heal: Callable[[], object],
    *,
    seed: int,
    apart: tuple[float, float] = (0.05, 0.4),
    lasting: tuple[float, float] = (0.05, 0.5),
) -> Iterator[Faults]:
    """While the block runs, a thread calls ``fault`` and then ``heal``, over and over.

    So many seconds go by before each fault and before it is healed: between the two numbers of
    ``apart`` and ``lasting``, chosen from ``seed``. When the block ends the last fault is healed
    at once. What either of them raises ends the thread, and is raised behind the block. Examples:
    ``kill`` and ``start`` of an ``EtcdServer``, ``halt`` and ``restore`` of a ``FaultyProxy``.
    """
    choose, stop, done = random.Random(seed), threading.Event(), Faults()
    failures: list[Exception] = []

    def fire() -> None:
        try:
            while not stop.wait(choose.uniform(*apart)):
                fault()
                done.count += 1
                stop.wait(choose.uniform(*lasting))
                heal()
        except Exception as error:  # noqa: BLE001 - raised below
            failures.append(error)

    thread = threading.Thread(target=fire, name="faults", daemon=True)
    thread.start()
    try:
        yield done
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]
