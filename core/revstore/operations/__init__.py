"""Operations on whole stores: what operators do besides reading and writing single objects.

Each works on open backends, and may report its progress through a callback. It can be interrupted
at any line, and goes on when it is called again.
"""

from __future__ import annotations

from revstore.operations._progress import OnProgress, Progress

__all__ = ["OnProgress", "Progress"]
