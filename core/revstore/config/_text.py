"""The one rule for text from people, shells and files: blanks around it are dropped, and invisible
characters in it are refused, so that two texts that look alike are equal."""

from __future__ import annotations

import unicodedata

__all__ = ["BLANKS", "Unseen", "clean", "clean_secret"]

_NUL = "\0"
#: What may be around a text without being part of it.
BLANKS = " \t\r\n\v\f"


class Unseen(ValueError):
    """A text contains invisible or unintended characters; the error has the expected form."""


def clean(text: str) -> str:
    """Return ``text`` without blanks, tabs and line ends around it.

    Raises:
        Unseen: it has a control character, a line end, a blank other than U+0020, or a character of
            no width in it; or it is in quotes, which a shell would have removed.
    """
    text = text.strip(BLANKS)
    _refuse_unseen(text)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        raise Unseen("no quotes around it")
    return text


def clean_secret(text: str) -> str:
    """Return ``text`` without the one line end that a file or a shell leaves at its end.

    Raises:
        Unseen: there are more blanks around it, which may or may not be intended, or it holds what
            ``clean`` refuses.
    """
    text = text.removesuffix("\n").removesuffix("\r")
    if text != text.strip(BLANKS):
        raise Unseen("no leading or trailing blanks")
    _refuse_unseen(text)
    return text


def _refuse_unseen(text: str) -> None:
    if text.isprintable() and text.isascii():
        return
    for char in text:
        # Surrogates represent bytes of a file's name that are not UTF-8.
        if not char.isprintable() and not "\ud800" <= char <= "\udfff":
            name = f"U+{ord(char):04X} ({unicodedata.name(char, 'a control character')})"
            raise Unseen(f"text without {'NUL' if char == _NUL else name}")
