"""The command ``revstore``, also ``python -m revstore``."""

from __future__ import annotations

import importlib.util
import signal
import sys
from typing import Any

__all__ = ["main"]

_EXTRA = {"click": "click", "rich": "rich", "yaml": "PyYAML"}


def main() -> int:
    """Run the command line and return its exit code.

    Without the extra ``cli``, print the pip line that installs it and return 2. SIGTERM and SIGHUP
    end a command as Ctrl-C does, so that it cleans up. A signal that is ignored at the start, as
    under nohup, stays ignored.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)
    absent = [name for module, name in _EXTRA.items() if importlib.util.find_spec(module) is None]
    if absent:
        print(  # noqa: T201 - click, which prints elsewhere, may be what is absent
            f"revstore: the command line needs {', '.join(absent)}: "
            "run  pip install 'revstore[cli]'",
            file=sys.stderr,
        )
        return 2
    try:
        from revstore.cli import run

        return run()
    except KeyboardInterrupt as error:
        return 128 + (error.args[0] if error.args else signal.SIGINT)


def _interrupt(number: int, _: Any) -> None:
    raise KeyboardInterrupt(number)


if __name__ == "__main__":
    sys.exit(main())
