"""Faults that come and go while a test runs, at moments that a seed determines."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator

__all__ = ["Faults", "again_and_again"]


class Faults:
    """The progress of ``again_and_again``: ``count`` is the number of faults so far."""

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
    """Call ``fault`` and then ``heal`` in a thread, over and over, while the block runs.

    The seconds before each fault, and before it is healed, are between the two numbers of ``apart``
    and of ``lasting``, chosen by ``seed``. When the block ends, the last fault is healed at once.
    Examples: ``kill`` and ``start`` of an ``EtcdServer``, ``halt`` and ``restore`` of a
    ``FaultyProxy``.

    Raises:
        Exception: what ``fault`` or ``heal`` raised, after the block; it ends the thread.
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
