"""The one rule for paths, URLs, addresses and names that a command is given."""

from __future__ import annotations

from collections.abc import Iterable

import click

__all__ = ["TEXT", "names_of"]


class _Text(click.ParamType):  # type: ignore[type-arg]  # not generic in click 8.1
    """Text without blanks and line ends around it, as in a configuration; blank text is refused,
    since a variable of the shell was probably not set."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text."""
        text = value.strip()
        if not text:
            self.fail("it is blank", param, ctx)
        # Surrogates represent bytes of a file's name that are not UTF-8.
        if not all(char.isprintable() or "\ud800" <= char <= "\udfff" for char in text):
            self.fail(f"{text!r} has a character that cannot be seen", param, ctx)
        return text


TEXT = _Text()


def names_of(values: Iterable[str]) -> list[str]:
    """Return the names in lists that are separated by commas.

    Raises:
        click.UsageError: one is blank, as where a variable of the shell is not set.
    """
    names = [name.strip() for each in values for name in each.split(",")]
    if not all(names):
        raise click.UsageError("a name is blank", click.get_current_context(silent=True))
    return names
