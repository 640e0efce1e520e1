"""The command line (extra ``cli``), in the manner of kubectl, over any store.

Each command is one module, imported when that command runs. Exit codes:

==== ============================================================================
0    done
1    not found, conflict, some of it failed, or the store is damaged or foreign
2    wrong usage or configuration, or a plugin that is missing or broken
3    the store cannot be reached, or did not answer in time
130  ended by Ctrl-C
141  the reader of the output has exited
==== ============================================================================

A plugin's command takes ``Session``, ``pass_session`` and ``store_options`` from here, and so has
``--store`` and ``--config`` as the others do: ``session.factory`` opens what they name. ``TEXT`` is
the type of arguments and options that are paths, URLs, addresses or names.
"""

from __future__ import annotations

from revstore.cli._main import run
from revstore.cli._session import Session, pass_session, store_options
from revstore.cli._text import TEXT

__all__ = ["TEXT", "Session", "pass_session", "run", "store_options"]
