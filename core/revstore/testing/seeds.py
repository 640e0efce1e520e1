"""The seed of all random choices of a run of tests, so that a failure can be brought about again.

``REVSTORE_TEST_SEED`` sets it. Else each run has another, but for runs in continuous integration
(``CI`` is set), which are to tell what a commit broke, not what another seed would have found:
Hypothesis does the same. It settles what is asked and when a fault comes, not how the machine lets
threads and processes take turns.
"""

from __future__ import annotations

import os
import random

__all__ = ["SEED"]

_DEFAULT = 1 if os.environ.get("CI") else random.randrange(10**9)
#: The value of ``REVSTORE_TEST_SEED``; without it 1 if ``CI`` is set, else a random number.
SEED = int(os.environ.get("REVSTORE_TEST_SEED") or _DEFAULT)
