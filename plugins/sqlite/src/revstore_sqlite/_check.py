"""Checks of a store's file for ``revstore doctor``."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote

from revstore.hooks import CheckResult, DoctorCheck
from revstore_sqlite._place import network_file_system

__all__ = ["check_file"]


def check_file(path: str) -> Iterator[DoctorCheck]:
    """Yield the result of sqlite's quick_check, and whether ``path`` is on a network file
    system."""
    try:
        with closing(sqlite3.connect(f"file:{quote(path)}?mode=ro", uri=True)) as connection:
            connection.execute("PRAGMA trusted_schema=OFF")
            found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
    except sqlite3.Error as error:
        found = [str(error)]
    sound = found == ["ok"]
    yield DoctorCheck(
        name="integrity",
        result=CheckResult.OK if sound else CheckResult.FAILED,
        detail="" if sound else f"{path}: {'; '.join(found)}; restore it from a backup",
    )
    kind = network_file_system(path)
    yield DoctorCheck(
        name="file system",
        result=CheckResult.WARNING if kind else CheckResult.OK,
        detail=f"{path} is on {kind}: use it from one machine only" if kind else "",
    )
