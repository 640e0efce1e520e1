"""The conformance suite for programs: it runs against an open store, without any test code."""

from __future__ import annotations

import contextlib
import enum
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest

from revstore.backend import Backend
from revstore.errors import InvalidArgument
from revstore.testing._support import clear, random_prefix
from revstore.testing.checks import CHECKS
from revstore.testing.workload import Workload
from revstore.values import Capability

__all__ = ["ConformanceReport", "ConformanceResult", "Outcome", "run_conformance"]

_CASE = Path(__file__).with_name("_conformance_case.py")


class Outcome(enum.StrEnum):
    """UNSUPPORTED: the store does not claim the capability, and says so when asked.
    NOT_RUN: it cannot be tried on a store that others use, or there."""

    PASSED = "pass"
    FAILED = "fail"
    UNSUPPORTED = "unsupported"
    NOT_RUN = "not run"


@attrs.frozen(kw_only=True)
class ConformanceResult:
    """One guarantee: ``group`` is a part of the suite, or "histories"; ``name`` the test's or the
    check's; ``guarantee`` what it says in words; ``detail`` why it failed or was not run."""

    group: str
    name: str
    guarantee: str
    outcome: Outcome
    detail: str = ""


@attrs.frozen(kw_only=True)
class ConformanceReport:
    """All results, in the order of their coming."""

    results: tuple[ConformanceResult, ...]

    @property
    def passed(self) -> bool:
        """True if nothing failed."""
        return not self.failures

    @property
    def failures(self) -> tuple[ConformanceResult, ...]:
        """The failed guarantees."""
        return tuple(each for each in self.results if each.outcome is Outcome.FAILED)


def run_conformance(
    open_backend: Callable[[], Backend],
    *,
    suite: bool = True,
    histories: int = 3,
    only: str = "",
    own: bool = False,
    declared: frozenset[Capability] | None = None,
    told: Callable[[ConformanceResult], None] | None = None,
) -> ConformanceReport:
    """Try every guarantee on the store that ``open_backend`` opens, once for each test; all keys
    lie under one random prefix and are deleted afterwards, and the store's history is not touched,
    unless each opening gives a store of its own that is gone when it is closed, or ``own`` says
    that nobody else uses the store: then its history is compacted.

    ``suite`` runs ``BackendTests``, of which ``only``, as pytest's -k has it, may choose some;
    ``histories`` is how many recorded workloads are checked. ``told`` is called with each result
    as it comes. What ``open_backend`` raises the first time is raised here. ``declared`` is
    ``BackendInfo.capabilities`` of the plugin.
    """
    with open_backend() as backend:
        store_id = backend.status().store_id
        ephemeral = own or _is_its_own(backend, store_id, open_backend)
    plugin = _Plugin(open_backend, told, declared, ephemeral=ephemeral)
    if suite:
        _run_pytest(plugin, only)
    for seed in range(histories):
        _check_histories(open_backend, seed, plugin)
    return ConformanceReport(results=tuple(plugin.results))


def _is_its_own(backend: Backend, store_id: str, open_backend: Callable[[], Backend]) -> bool:
    """Return whether opening again gives another store, so that nobody else can use this one."""
    if backend.capabilities & {Capability.DURABLE, Capability.CROSS_PROCESS_WATCH}:
        return False
    prefix = f"{random_prefix()}/"
    try:
        with open_backend() as other:
            backend.put(f"{prefix}probe", b"", expected_revision=0)
            try:
                return other.status().store_id != store_id and not other.list(prefix).kvs
            finally:
                clear(backend, prefix, None)
    except Exception:  # noqa: BLE001 - the tests will tell what is wrong with it
        return False


def _run_pytest(plugin: _Plugin, only: str) -> None:
    # Away from the configuration, the cache and the plugins' settings of the caller.
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "pytest.ini"
        config.write_text("[pytest]\n")
        arguments = [str(_CASE), "-c", str(config), "--rootdir", folder, "--noconftest"]
        arguments += ["-p", "no:cacheprovider", "--import-mode=importlib", "-q"]
        arguments += ["-k", only] if only else []
        before = os.environ.pop("PYTEST_ADDOPTS", None)
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = pytest.main(arguments, plugins=[plugin])
        if before is not None:
            os.environ["PYTEST_ADDOPTS"] = before
    if only and code in (pytest.ExitCode.NO_TESTS_COLLECTED, pytest.ExitCode.USAGE_ERROR):
        raise InvalidArgument("only", only, "words of the tests' names, as for pytest -k")
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"the suite could not be run: {output.getvalue()[-2000:]}")


class _Plugin:
    """Gives the suite its store, and takes its results."""

    def __init__(
        self,
        open_backend: Callable[[], Backend],
        told: Callable[[ConformanceResult], None] | None,
        declared: frozenset[Capability] | None,
        *,
        ephemeral: bool,
    ) -> None:
        self._open = open_backend
        self._ephemeral = ephemeral
        self._told = told
        self._declared = declared
        self._items: dict[str, tuple[str, str]] = {}
        self.results: list[ConformanceResult] = []

    @pytest.fixture
    def conformance_opener(self) -> Callable[[], Backend]:
        return self._open

    @pytest.fixture
    def conformance_declared(self) -> frozenset[Capability] | None:
        return self._declared

    @pytest.fixture
    def conformance_ephemeral(self) -> bool:
        return self._ephemeral

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            function: Any = getattr(item, "function", None)
            defined = getattr(function, "__module__", "").rpartition("._")[2]
            text = " ".join((function.__doc__ or item.name).split())
            self._items[item.nodeid] = defined, text

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        done = report.when == "call" or (report.when == "setup" and not report.passed)
        if not done and not report.failed:
            return
        group, guarantee = self._items[report.nodeid]
        outcome, detail = Outcome.PASSED, ""
        if report.skipped:
            detail = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else "")
            detail = detail.removeprefix("Skipped: ")
            if detail.startswith("claims "):  # a test of stores without the capability
                return
            unclaimed = "does not claim" in detail
            outcome = Outcome.UNSUPPORTED if unclaimed else Outcome.NOT_RUN
        elif report.failed:
            outcome = Outcome.FAILED
            crash = getattr(report.longrepr, "reprcrash", None)
            detail = crash.message if crash is not None else report.longreprtext
        name = report.nodeid.rpartition("::")[2]
        self.add(group, name, guarantee, outcome, detail)

    def add(self, group: str, name: str, guarantee: str, outcome: Outcome, detail: str) -> None:
        result = ConformanceResult(
            group=group, name=name, guarantee=guarantee, outcome=outcome, detail=detail
        )
        self.results.append(result)
        if self._told is not None:
            self._told(result)


def _check_histories(open_backend: Callable[[], Backend], seed: int, plugin: _Plugin) -> None:
    prefix = f"{random_prefix()}/"
    with open_backend() as backend:
        workload = Workload(prefix=prefix, seed=seed)
        try:
            history = workload.run(lambda _: backend)
        except Exception as error:  # noqa: BLE001 - whatever it is, the backend let it out
            detail = f"{type(error).__name__}: {error}"
            guarantee = "Writers and watchers get through."
            plugin.add("histories", f"workload {seed}", guarantee, Outcome.FAILED, detail)
            return
        finally:
            clear(backend, prefix, open_backend)
        for name, check in CHECKS.items():
            guarantee = " ".join((check.__doc__ or "").split())
            found = list(check(history))
            outcome = Outcome.FAILED if found else Outcome.PASSED
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            detail = found[0] + more if found else ""
            plugin.add("histories", f"{name} {seed}", guarantee, outcome, detail)
