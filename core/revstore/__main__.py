"""The command ``revstore``, also ``python -m revstore``."""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["main"]

_EXTRA = {"click": "click", "rich": "rich", "yaml": "PyYAML"}


def main() -> int:
    """Run the command line; returns the exit code. Without the extra ``cli``: the pip line, 2."""
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
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
