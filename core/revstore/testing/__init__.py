"""What authors of backends test with (extra ``testing``): suites to subclass, and a model.

The suites are classes of pytest tests with fixtures to override. ``revstore.testing.model``
has a Hypothesis state machine that compares a backend with a plain model; import it from there.
"""

from __future__ import annotations

import pytest

# Before the suites are imported: else a failed assert in them shows no values.
pytest.register_assert_rewrite(
    "revstore.testing._backend_base",
    "revstore.testing._backend_compaction",
    "revstore.testing._backend_hammer",
    "revstore.testing._backend_life",
    "revstore.testing._backend_reads",
    "revstore.testing._backend_watch",
    "revstore.testing._backend_writes",
    "revstore.testing._plain_model",
    "revstore.testing._support",
    "revstore.testing.backend",
    "revstore.testing.model",
)

from revstore.testing.backend import BackendTests  # noqa: E402 - see above

__all__ = ["BackendTests"]
