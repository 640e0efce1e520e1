"""What can be closed, can be used in a ``with`` statement."""

from __future__ import annotations

import abc
from typing import Self

__all__ = ["Closing"]


class Closing(abc.ABC):
    """Base of what holds something to be released; leaving a ``with`` block closes it."""

    __slots__ = ()

    @abc.abstractmethod
    def close(self) -> None:
        """Release it. Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
