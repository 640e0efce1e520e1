"""The seed of all random choices of a run of tests, so that a failure can be brought about again.

``REVSTORE_TEST_SEED`` sets it; else each run has another. It settles what is asked and when a fault
comes, not how the machine lets threads and processes take turns.
"""

from __future__ import annotations

import os
import random

__all__ = ["SEED"]

#: What ``REVSTORE_TEST_SEED`` says, else any number.
SEED = int(os.environ.get("REVSTORE_TEST_SEED") or random.randrange(10**9))
