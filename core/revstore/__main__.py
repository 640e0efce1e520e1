"""The command ``revstore``, also ``python -m revstore``."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["main"]

# Seconds after which a signal comes again that nobody could have caught.
_AGAIN = 0.01

_EXTRA = {"click": "click", "rich": "rich", "yaml": "PyYAML"}


def main() -> int:
    """Run the command line and return its exit code.

    Without the extra ``cli``, print the pip line that installs it and return 2. SIGTERM and SIGHUP
    end a command as Ctrl-C does, so that it cleans up. A signal that is ignored at the start, as
    under nohup, stays ignored.
    """
    runs = False

    def end(number: int, _: FrameType | None) -> None:
        if runs:
            raise KeyboardInterrupt(number)
        # While modules are imported, and when all is done, there is nothing to close; an exception
        # would become a traceback, or another module's ImportError.
        os._exit(128 + number)

    # Ctrl-C before this, while Python itself starts, cannot be handled.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, end)

    def ignored(what: sys.UnraisableHookArgs) -> None:
        if not isinstance(what.exc_value, KeyboardInterrupt) or not runs:
            sys.__unraisablehook__(what)
            return
        # The signal struck in a destructor or the like, from which nothing is raised. It comes
        # again, once this has returned.
        number = next(iter(what.exc_value.args), signal.SIGINT)
        signal.signal(signal.SIGALRM, lambda _, frame: end(number, frame))
        signal.setitimer(signal.ITIMER_REAL, _AGAIN)

    run = _imported()
    if run is None:
        return 2
    try:
        sys.unraisablehook = ignored
        runs = True
        return run()
    except KeyboardInterrupt as error:
        return 128 + (error.args[0] if error.args else signal.SIGINT)
    finally:
        runs = False
        # Python ends itself by SIGINT, whatever the exit code is, if the last text that it ran,
        # such as that of a namedtuple, was interrupted. This is a later one.
        exec("")  # noqa: S102


def _imported() -> Callable[[], int] | None:
    """Return the command line, or None and print the pip line if it lacks what it needs."""
    from importlib.util import find_spec

    absent = [name for module, name in _EXTRA.items() if find_spec(module) is None]
    if absent:
        print(  # noqa: T201 - click, which prints elsewhere, may be what is absent
            f"revstore: the command line needs {', '.join(absent)}: "
            "run  pip install 'revstore[cli]'",
            file=sys.stderr,
        )
        return None
    from revstore.cli import run

    return run


if __name__ == "__main__":
    sys.exit(main())
