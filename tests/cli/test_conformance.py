"""``revstore conformance``: what a store guarantees, tried without a line of code."""

import json
import textwrap

import pytest

from revstore.config import StorageConfig
from revstore.plugins import open_backend


def stored(revstore):
    """Every key of the store, and what it holds."""
    with open_backend(StorageConfig.from_url(revstore.env["REVSTORE_URL"])) as backend:
        return [(kv.key, kv.value) for kv in backend.list("").kvs]


@pytest.mark.timeout(400)
def test_a_store_in_use_is_left_as_it_was(revstore):
    """The whole suite on a sqlite file with objects: all passes, nothing of the user's is touched,
    nothing is left behind."""
    revstore.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mine"}})
    before = stored(revstore)
    done = revstore("conformance", "--histories", "1", timeout=380)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["GUARANTEES", "PASS", "FAIL", "UNSUPPORTED", "NOT", "RUN"]
    rows, reasons = rows[1:17], done.stdout.splitlines()[17:]
    assert {row[0] for row in rows} == {
        *("clocks", "compaction", "conditions", "forks", "hammer", "histories", "interrupts"),
        "leases",
        *("life", "numbers", "operator_steps", "peers", "reads", "transactions", "watch", "writes"),
    }
    assert {row[2] for row in rows} == {"0"}
    assert sum(int(row[1]) for row in rows) > 100
    assert any("compaction is tested on stores that belong to the test" in why for why in reasons)
    assert not any("other tests check" in why for why in reasons)
    assert stored(revstore) == before
    (objects,) = json.loads("".join(revstore.out("doctor", "--json")))["objects"].values()
    assert objects == 1


BROKEN = """
from revstore.memory import MemoryBackend
from revstore.backend import API_VERSION, BackendInfo
from revstore.hooks import hookimpl
from revstore.values import PutResult

class Broken(MemoryBackend):
    turns = 0

    def put(self, key, value, *, expected_revision, **options):
        result = super().put(key, value, expected_revision=expected_revision, **options)
        type(self).turns += 1
        if result.succeeded and self.turns % 9 == 0:
            return PutResult(True, result.revision - 1)
        return result

@hookimpl
def revstore_backend():
    return BackendInfo(
        name="broken",
        api_version=API_VERSION,
        capabilities=Broken().capabilities,
        description="tells wrong revisions",
        factory=lambda config, options: Broken(),
    )
"""


@pytest.fixture
def broken(revstore, tmp_path):
    """A backend of a third party that is not right, installed as such are: by its metadata."""
    site = tmp_path / "site"
    info = site / "revstore_broken-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "revstore_broken.py").write_text(textwrap.dedent(BROKEN))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: revstore-broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[revstore.backends]\nbroken = revstore_broken\n")
    revstore.env["PYTHONPATH"] = str(site)
    return "broken://"


def test_a_backend_that_is_not_right_is_told(revstore, broken):
    """The exit code is 1; each guarantee that is not kept is named, with what was seen."""
    done = revstore("conformance", broken, code=1, timeout=110)
    assert "No two writes use the same revision" in done.stdout
    assert "was given to writes of" in done.stdout
    report = json.loads(
        revstore("conformance", broken, "--json", "--histories-only", code=1).stdout
    )
    assert report["passed"] is False
    outcomes = {row["name"]: row["outcome"] for row in report["results"]}
    assert outcomes["revisions 0"] == "fail"
    assert outcomes["filtered 0"] == "pass"


def test_only_some_and_a_store_of_ones_own(revstore):
    """--only chooses tests by name, --own has the history compacted; a name that no test has is
    one line."""
    some = ["conformance", "--histories", "0", "--only"]
    (line,) = revstore(*some, "current_values_stay").stdout.splitlines()[2:]
    assert line == "not run: compaction is tested on stores that belong to the test (1)"
    row = revstore(*some, "current_values_stay", "--own").stdout.splitlines()[1]
    assert row.split() == ["compaction", "1", "0", "0", "0"]
    for wrong in ("no_such_test", "((("):
        assert "expected words of the tests' names" in revstore.error(*some, wrong, code=2)


def test_a_store_that_cannot_be_opened(revstore):
    """One line, as everywhere."""
    line = revstore.error("conformance", "sqlite:////no/such/folder/x.db", code=2)
    assert "no/such/folder" in line
