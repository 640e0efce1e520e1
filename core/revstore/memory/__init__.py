"""``MemoryBackend``: everything in the memory of one process.

It is the reference for the contract in ``revstore.backend`` and the model that other backends are
tested against. Use it where no data has to survive the process. It keeps history until it is
compacted, expires keys, and serves any number of watches from one shared log.
"""

from __future__ import annotations

from revstore.memory._backend import (
    MemoryBackend,
)

__all__ = [
    "MemoryBackend",
]
