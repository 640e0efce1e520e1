"""``python -m benchmarks [PART...]``: measure, print a table, write ``bench-results.json``.

A part is a module ``bench_PART`` of this package with ``figures()``, which yields them.
A missed target is reported, but does not fail: machines differ. A cost that grows faster than
allowed does so on every machine: then the exit code is 1.
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
from benchmarks._growth import Growth, growth_table

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
    if not wanted:
        os.environ.setdefault("LARGEST", "100000")  # a million takes minutes, and gigabytes
    found: list[Figure | Growth] = []
    for name in wanted or known:
        print(f"measuring {name} ...", flush=True)
        module = importlib.import_module(f"benchmarks.bench_{name}")
        found += module.figures()
    figures = [each for each in found if isinstance(each, Figure)]
    growth = [each for each in found if isinstance(each, Growth)]
    if figures:
        print(f"\n{table(figures)}\n")
    if any(figure.go is not None for figure in figures):
        print("GO: Kubernetes' own code at the same work, once, on a machine with 2 cores\n")
    for of in dict.fromkeys(row.of for row in growth):
        print(f"\nby {of}\n{growth_table([row for row in growth if row.of == of])}\n")
    RESULTS.write_text(json.dumps([each.row() for each in found], indent=2) + "\n")
    print(f"written to {RESULTS}")
    too_fast = [row for row in growth if not row.holds]
    for row in too_fast:
        print(
            f"grows too fast: {row.name}, with an exponent of {row.whole:.2f} "
            f"(steps: {', '.join(f'{step:.2f}' for step in row.exponents)}) "
            f"instead of {row.at_most:g}: {row.why}",
            file=sys.stderr,
        )
    return 1 if too_fast else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
