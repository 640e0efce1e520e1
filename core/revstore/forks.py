"""A guard for whatever is opened: it cannot be used after close, or in a child after a fork."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from revstore.errors import Closed

__all__ = ["OpenGuard"]

T = TypeVar("T")


class OpenGuard:
    """Guards an open backend, storage or other handle against use after close and after a fork.

    A child that ``os.fork`` or ``multiprocessing`` makes has a copy of everything its parent had
    open: connections that both would read from, and locks that threads held which the child does
    not have. So after a fork every call on what the parent opened must raise ``Closed``, without
    taking a lock first, and nothing of it may be closed or collected in the child, since that can
    end the parent's connections. A guard does both:

    - ``check`` raises ``Closed`` in the child. Call it first in each method, before any lock;
      where closing must not come in between, also under the lock. It reads one attribute.
    - The child keeps ``owner`` alive until it exits, and with it all that ``owner`` refers to.
    - ``closing`` does nothing in the child.

    ``in_child`` is called with ``owner`` in the child, after every guard has ended, while no other
    thread runs; it must not raise, wait or take a lock. It is for owners whose methods take a lock
    before they check: it puts a new lock in place of the old one, which nobody may ever release.
    """

    __slots__ = ("__weakref__", "_closing", "_in_child", "_owner", "_what", "ended", "inherited")

    def __init__(
        self, owner: T, *, what: str = "backend", in_child: Callable[[T], object] | None = None
    ) -> None:
        """Guard ``owner``, which refers to the guard; ``what`` names it in messages."""
        self._owner: weakref.ref[Any] = weakref.ref(owner)
        self._what = what
        self._in_child: Callable[[Any], object] | None = in_child
        # Reentrant: a signal handler or a finalizer may close what is being closed.
        self._closing = threading.RLock()
        #: Why every call must raise ``Closed``; "" while it is open.
        self.ended = ""
        #: Whether this process is a child, and a parent opened the owner.
        self.inherited = False
        _open.add(self)

    def check(self) -> None:
        """Check that the owner may be used.

        Raises:
            Closed: it is closed, or was opened in a parent process.
        """
        if self.ended:
            raise Closed(self.ended)

    @contextlib.contextmanager
    def closing(self) -> Iterator[bool]:
        """Enter the body of ``close``; yield True to the one call that has to free the owner.

        From then on ``check`` raises. Other calls yield False, once the first is done; in a child
        after a fork all do, at once.
        """
        if self.inherited:
            yield False
            return
        with self._closing:
            first = not self.ended
            if first:
                self.ended = f"the {self._what} is closed"
            try:
                yield first
            finally:
                if first:
                    _open.discard(self)

    def _inherit(self, owner: object) -> None:
        self.ended = (
            f"the {self._what} was opened before a fork; open it again in the child process"
        )
        self.inherited = True
        _kept.append(owner)


_open: weakref.WeakSet[OpenGuard] = weakref.WeakSet()
# What a parent opened, which must never be collected in this process.
_kept: list[object] = []


def _after_fork_in_child() -> None:
    found = [(guard, guard._owner()) for guard in _open]  # noqa: SLF001 - of this very module
    _open.clear()
    left = [(guard, owner) for guard, owner in found if owner is not None]
    for guard, owner in left:
        guard._inherit(owner)  # noqa: SLF001
    for guard, owner in left:
        if guard._in_child is not None:  # noqa: SLF001
            guard._in_child(owner)  # noqa: SLF001


os.register_at_fork(after_in_child=_after_fork_in_child)
