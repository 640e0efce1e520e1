"""What is installed is read once, and again after each change."""

from __future__ import annotations

import itertools
import os
import resource
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revstore.plugins import _distributions
from revstore.plugins._distributions import Declared, Unreadable, declared

GROUP = "revstore.test"
_moments = itertools.count(1)

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["install", "edit", "break", "remove", "new place", "nothing"]),
        st.sampled_from(["one", "two", "three"]),
    ),
    max_size=8,
)


def let_time_pass(site: Path) -> None:
    """Give what has just changed the time of a moment ago, later than any before."""
    at = 1_000_000_000 + next(_moments)
    for path in (site, *site.rglob("*")):
        if path.stat().st_mtime > 1_500_000_000:
            os.utime(path, (at, at))


def change(site: Path, what: str, name: str) -> None:
    folder = site / f"{name}-1.dist-info"
    points = folder / "entry_points.txt"
    if what == "remove":
        shutil.rmtree(folder, ignore_errors=True)
    elif what in ("install", "edit", "break"):
        folder.mkdir(exist_ok=True)
        (folder / "METADATA").write_text(f"Name: {name}\nVersion: 1\n")
        text = f"[{GROUP}]\n{name} = m:{next(_moments)}\n"
        points.write_bytes(b"\xff" + GROUP.encode() if what == "break" else text.encode())


def found() -> list[str]:
    return [
        each.folder if isinstance(each, Unreadable) else f"{each.name}={each.value}"
        for each in declared(GROUP)
    ]


@given(STEPS)
def test_each_change_is_seen(steps: list[tuple[str, str]]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        sites = [Path(name)]
        patch.syspath_prepend(name)
        for what, which in steps:
            if what == "new place":
                site = Path(tempfile.mkdtemp(dir=name))
                sites.insert(0, site)
                patch.syspath_prepend(str(site))
            else:
                change(sites[0], what, which)
            let_time_pass(sites[-1])
            have = found()
            patch.setattr(_distributions, "_last", None)
            assert have == found()


def test_nothing_is_read_again_without_a_change(monkeypatch, tmp_path):
    """Unless something has changed so lately that the next change may not show."""
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    change(tmp_path, "install", "one")
    let_time_pass(tmp_path)
    first = declared(GROUP)
    assert [type(each) for each in first] == [Declared]
    assert declared(GROUP) is first
    change(tmp_path, "edit", "one")
    second = declared(GROUP)
    assert second != first
    assert declared(GROUP) is not second
    let_time_pass(tmp_path)
    assert declared(GROUP) is declared(GROUP)


def test_what_could_not_be_read_is_tried_again(monkeypatch, tmp_path):
    """The cause may pass without a change of any file, as when too many files are open."""
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    change(tmp_path, "install", "one")
    let_time_pass(tmp_path)
    assert declared("another.group") == ()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        meanwhile = declared(GROUP)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert [type(each) for each in meanwhile] == [Unreadable]
    assert [type(each) for each in declared(GROUP)] == [Declared]
