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
    ``open_backend`` is a function that opens one more handle on the same store; it is needed
    by what claims DURABLE or CROSS_PROCESS_WATCH. It is called while ``backend`` is open, in the
    same process, and after it was closed.
    ``stall`` is a function that keeps the store from answering while a ``with`` block lasts, as by
    a lock held elsewhere or a server that was stopped; without it deadlines are not tried.
    ``peer`` is a ``Peer``, for a store that is a server: its address, and a function that opens a
    handle at another. Then the server is tried slow, dripping, silent and away.
    ``wiped``, ``open_hasty``, ``refusal``, ``damage``, ``add_foreign`` and ``declared`` bring about
    what else a store may come to; see ``ConditionTests`` for each.
    The store need not be empty: all keys lie under a random prefix, and revisions are compared
    with that at the test's start. Class attributes:

    - ``ephemeral = False``: others use the store too. Then nothing is compacted, and what the
      tests wrote is deleted at their end.
    - ``starts_at_one = True``: each test gets a new store, which must answer revision 1.
    - ``large_value``: bytes of the largest value tried, 1 MiB unless the store takes less.
    - ``many_keys``: keys of the longest list tried, 10,050: more than what servers and drivers
      are apt to cut lists at.
    - ``large_key``: bytes of the longest key tried, 1,024 unless the store takes less.

    A capability that is claimed must work; of one that is not, the call must raise
    ``Unsupported``. Tests of capabilities that are not claimed are skipped by name.
    """
