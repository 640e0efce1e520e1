"""``BackendTests``: the conformance suite that every backend runs."""

from __future__ import annotations

from revstore.testing.backend._clocks import ClockTests
from revstore.testing.backend._compaction import CompactionTests
from revstore.testing.backend._conditions import ConditionTests
from revstore.testing.backend._forks import ForkTests
from revstore.testing.backend._hammer import HammerTests
from revstore.testing.backend._interrupts import InterruptTests
from revstore.testing.backend._leases import LeaseTests
from revstore.testing.backend._life import LifeTests, TtlTests
from revstore.testing.backend._numbers import NumberTests
from revstore.testing.backend._operator_steps import OperatorStepTests
from revstore.testing.backend._peers import PeerTests
from revstore.testing.backend._reads import ReadTests
from revstore.testing.backend._transactions import TransactionTests
from revstore.testing.backend._watch import BackendWatchTests
from revstore.testing.backend._writes import WriteTests

__all__ = ["BackendTests"]


class BackendTests(
    WriteTests,
    ReadTests,
    NumberTests,
    CompactionTests,
    BackendWatchTests,
    HammerTests,
    TtlTests,
    LifeTests,
    ForkTests,
    InterruptTests,
    ClockTests,
    PeerTests,
    TransactionTests,
    LeaseTests,
    OperatorStepTests,
    ConditionTests,
):
    """Subclass it as ``Test...`` and override the fixture ``backend``.

    ``backend`` yields an open store and closes it afterwards; a test may close it as well.
    ``open_backend`` is a function that opens one more handle on the same store. A backend that
    claims DURABLE or CROSS_PROCESS_WATCH needs it. It is called in the same process, while
    ``backend`` is open and after it was closed.
    ``stall`` is a function that keeps the store from answering while a ``with`` block lasts, for
    instance by a lock held elsewhere or a stopped server. Without it deadlines are not tested.
    ``peer`` is a ``Peer``, for a store that is a server: its address, and a function that opens a
    handle at another address. The tests then make the server slow, silent and unreachable.
    ``wiped``, ``open_hasty``, ``refusal``, ``damage``, ``add_foreign`` and ``declared`` produce
    other conditions of a store; see ``ConditionTests`` for each.
    The store need not be empty: all keys lie under a random prefix, and tests compare revisions
    with the one at their start. Class attributes:

    - ``ephemeral = False``: others use the store too. Then nothing is compacted, and the tests
      delete at their end everything that they wrote.
    - ``starts_at_one = True``: each test gets a new store, which must be at revision 1.
    - ``large_value``: bytes of the largest value tested, 1 MiB unless the store takes less.
    - ``many_keys``: keys of the longest list tested, 10,050, which is above the limits at which
      servers and drivers usually cut lists.
    - ``large_key``: bytes of the longest key tested, 1,024 unless the store takes less.

    A capability that the backend claims must work. Without it, the calls that need it must raise
    ``Unsupported``. Tests of capabilities that the backend does not claim are skipped by name.
    """
