"""Rows as aligned text: plain columns as in kubectl, or coloured ones on a terminal."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Sequence

import click

__all__ = ["TableWriter", "plain_lines", "printable"]

_GAP = 3
# Words that a terminal shows in a colour.
_COLOURS = {
    "green": {"Active", "Available", "Bound", "Ready", "Running", "Succeeded", "ADDED", "ok"},
    "yellow": {"<pending>", "Pending", "MODIFIED", "Released", "warning", "unchecked"},
    "red": {"Failed", "NotReady", "DELETED", "Lost", "Unknown", "failed", "broken", "conflict"},
}
_COLOUR_OF = {word: colour for colour, words in _COLOURS.items() for word in words}


def printable(text: str) -> str:
    """Return the text without line breaks and without terminal control characters."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(bool(unicodedata.combining(char)) for char in text)


def plain_lines(rows: Sequence[Sequence[str]], widths: Sequence[int] = ()) -> list[str]:
    """Return the rows as lines with aligned columns, each at least as wide as ``widths`` says."""
    least = widths or [0] * max(map(len, rows), default=0)
    wide = [max([least[at], *(_width(row[at]) for row in rows)]) for at in range(len(least))]
    return [
        "".join(
            cell + " " * (width - _width(cell) + _GAP)
            for cell, width in zip(row, wide, strict=True)
        ).rstrip()
        for row in rows
    ]


def _on_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class TableWriter:
    """Prints rows under one heading, now and later: later rows keep the columns."""

    def __init__(
        self, titles: Sequence[str], *, headers: bool = True, first_width: int = 0
    ) -> None:
        """Prepare a table; ``first_width`` is the minimum width of the first cell."""
        self._titles = titles
        self._headers = headers
        self._widths = [first_width, *[0] * (len(titles) - 1)]

    def write(self, rows: Sequence[Sequence[str]]) -> None:
        """Print ``rows``, the first time with the heading above them."""
        cells = [[printable(cell) for cell in row] for row in rows]
        lines = [list(self._titles), *cells] if self._headers else cells
        for row in lines:
            self._widths = [max(w, _width(c)) for w, c in zip(self._widths, row, strict=True)]
        if _on_terminal():
            self._write_coloured(lines)
        else:
            click.echo("".join(f"{line}\n" for line in plain_lines(lines, self._widths)), nl=False)
        self._headers = False
        sys.stdout.flush()

    def _write_coloured(self, rows: Sequence[Sequence[str]]) -> None:
        # Importing rich takes time.
        from rich.console import Console
        from rich.text import Text

        console = Console(highlight=False, soft_wrap=True)
        for at, row in enumerate(rows):
            line = Text()
            heading = self._headers and at == 0
            for title, cell, width in zip(self._titles, row, self._widths, strict=True):
                style = "bold" if heading else _COLOUR_OF.get(cell.partition(",")[0], "")
                line.append(cell, style or ("cyan" if title == "NAME" else ""))
                line.append(" " * (width - _width(cell) + _GAP))
            line.rstrip()
            console.print(line)
