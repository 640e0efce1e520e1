"""Whether the shipped suite, and recorded histories, catch a backend that breaks a sentence of the
contract on purpose: by the test, or the check, that names it."""

from __future__ import annotations

import sys

import pytest

from revstore.testing import _support
from revstore.testing.checks import check_history
from revstore.testing.conformance import run_conformance
from revstore.testing.workload import Workload


@pytest.fixture
def assert_caught(monkeypatch):
    """Fails unless the tests whose names hold ``test``, or the one called so, find the fault."""

    def assert_caught(fault, test):
        # Not long: it is what a fault takes that is found by waiting.
        monkeypatch.setattr(_support, "PATIENCE", 1.0)
        only = f"{test} and not {test}_" if test.startswith("test_") else test
        report = run_conformance(fault, histories=0, only=only, own=True)
        assert [each.name for each in report.failures if test in each.name], fault

    return assert_caught


@pytest.fixture
def assert_shown():
    """Fails unless the checks of recorded workloads find the fault, each of ``guarantees``."""

    def assert_shown(fault, guarantees):
        found = set()
        for seed in range(25):
            with fault() as backend:
                plan = Workload(prefix="/t/", seed=seed, writers=3, watchers=2, turns=200, keys=2)
                history = plan.run(lambda _, backend=backend: backend)
            found |= {violation.guarantee for violation in check_history(history)}
            if guarantees <= found:
                return
        raise AssertionError(found)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield assert_shown
    sys.setswitchinterval(before)
