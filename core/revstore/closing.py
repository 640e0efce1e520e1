"""The base of everything that can be closed: it can be used in a ``with`` statement."""

from __future__ import annotations

import abc
from typing import Self

__all__ = ["Closing"]


class Closing(abc.ABC):
    """Base of classes that hold resources; leaving a ``with`` block closes them."""

    __slots__ = ()

    @abc.abstractmethod
    def close(self) -> None:
        """Release all resources. Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
