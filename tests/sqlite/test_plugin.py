"""The plugin: what its entry point says, and what importing it costs."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points

from revstore.config import StorageConfig
from revstore.hooks import CheckResult
from revstore.values import Capability
from revstore_sqlite import SQLiteOptions, factory, revstore_backend, revstore_doctor


def test_the_entry_point_leads_to_a_light_module() -> None:
    """The module of the entry point describes the backend without importing SQLAlchemy."""
    (point,) = entry_points(group="revstore.backends", name="sqlite")
    code = (
        f"import sys, {point.value} as plugin; info = plugin.revstore_backend();"
        "assert info.name == 'sqlite'; assert 'sqlalchemy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_factory_opens_what_the_description_promises(tmp_path) -> None:
    """What an open store can do is what the plugin said it can have, at full durability."""
    info = revstore_backend()
    options = SQLiteOptions(path=str(tmp_path / "store.db"))
    with factory(StorageConfig(type="sqlite"), options) as backend:
        assert backend.capabilities == info.capabilities
    assert Capability.LOCAL_READS not in info.capabilities


def test_doctor(tmp_path) -> None:
    """Doctor warns of a file that others can read and finds a damaged one."""
    path = str(tmp_path / "store.db")
    config = StorageConfig(type="sqlite", options={"path": path})
    assert [check.result for check in revstore_doctor(config)] == [CheckResult.OK]
    with factory(config, SQLiteOptions(path=path)) as backend:
        for number in range(300):
            backend.put(f"/{number}", b"x" * 500, expected_revision=0)
    assert {check.result for check in revstore_doctor(config)} == {CheckResult.OK}
    os.chmod(path, 0o644)
    with open(path, "r+b") as file:
        file.seek(4096 * 10)
        file.write(b"\xa5" * 4096 * 10)
    found = {check.name: check.result for check in revstore_doctor(config)}
    assert found["file mode"] is CheckResult.WARNING
    assert found["integrity"] is CheckResult.FAILED
