"""A bar for long operations: how much is done, the rate, and the time left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from revstore.operations import OnProgress, Progress

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

__all__ = ["progress_bar"]


@contextmanager
def progress_bar(*, shown: bool = True) -> Iterator[OnProgress]:
    """Yield a callback that draws a bar for each step on standard error.

    Nothing is drawn if standard error is no terminal, or without ``shown``.
    """
    if not shown or not sys.stderr.isatty():
        yield lambda _: None
        return
    bars = _Bars()
    try:
        yield bars.show
    finally:
        bars.end()


class _Bars:
    def __init__(self) -> None:
        self._step = ""
        self._bar: ProgressBar[Any] | None = None

    def show(self, progress: Progress) -> None:
        if self._bar is None or progress.step != self._step:
            self.end()
            self._step = progress.step
            self._bar = click.progressbar(
                # Without a length it takes that of the iterable, which an iterator does not tell.
                iter(()),
                length=progress.total,
                label=progress.step,
                item_show_func=_rate,
                show_pos=True,
                file=sys.stderr,
            )
            self._bar.__enter__()
        bar = self._bar
        if progress.total is not None:
            bar.length = progress.total
        bar.update(progress.done - bar.pos, progress)
        # At the end of a step whose length is 0 there is no update.
        bar.render_progress()

    def end(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


def _rate(progress: Progress | None) -> str:
    if progress is None or not progress.seconds:
        return ""
    if progress.step == "following":
        return f"{max(0, (progress.total or 0) - progress.done):,} behind"
    return f"{progress.done / progress.seconds:,.0f}/s"
