"""``python -m benchmarks [PART...]``: measure, print a table, write ``bench-results.json``.

A part is a module ``bench_PART`` of this package with ``figures()``, which yields them.
A missed target is told, but is no failure: machines differ.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import platform
import sqlite3
import sys
from pathlib import Path

import benchmarks
from benchmarks._figures import Figure, table

RESULTS = Path("bench-results.json")


def parts() -> list[str]:
    """The parts there are, sorted."""
    names = [module.name for module in pkgutil.iter_modules(benchmarks.__path__)]
    return sorted(name.removeprefix("bench_") for name in names if name.startswith("bench_"))


def main(wanted: list[str]) -> int:
    """Run the wanted parts, all if none is named."""
    known = parts()
    for name in wanted:
        if name not in known:
            print(f"no benchmark {name!r}: there are {', '.join(known)}", file=sys.stderr)
            return 2
    print(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        flush=True,
    )
    found: list[Figure] = []
    for name in wanted or known:
        print(f"measuring {name} ...", flush=True)
        module = importlib.import_module(f"benchmarks.bench_{name}")
        found += module.figures()
    print(f"\n{table(found)}\n")
    if any(figure.go is not None for figure in found):
        print("GO: Kubernetes' own code at the same work, once, on a machine with 2 cores\n")
    RESULTS.write_text(json.dumps([figure.row() for figure in found], indent=2) + "\n")
    print(f"written to {RESULTS}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
