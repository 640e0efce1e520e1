"""Distributions that are damaged, half removed or strange: only the one asked for can fail."""

from __future__ import annotations

import errno
import os
import sys
import zipfile

import pytest

from revstore.config import StorageConfig
from revstore.errors import BackendNotInstalled
from revstore.plugins import list_backends, load_codec, load_transformer, open_backend

CODE = """
from revstore.backend import BackendInfo
from revstore.hooks import hookimpl

@hookimpl
def revstore_backend():
    return BackendInfo(name="mine", api_version=(1, 0), capabilities=frozenset(),
                       description="for tests", factory=opened)

def opened(config, options):
    from revstore.memory import MemoryBackend
    return MemoryBackend()
"""
POINTS = b"[revstore.backends]\nmine = plugin_mine\n"
METADATA = b"Metadata-Version: 2.1\nName: revstore-mine\nVersion: 1.2\n"
UTF_16 = "Name: x\n".encode("utf-16")


def put(folder, name, **files):
    """A folder ``name`` with files, whose names have "_" for "."."""
    target = folder / name
    target.mkdir(parents=True)
    for file, data in files.items():
        (target / file.replace("_txt", ".txt")).write_bytes(data)
    return target


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder at the head of the path with the backend "mine"."""
    folder = tmp_path / "site"
    put(folder, "revstore_mine-1.2.dist-info", METADATA=METADATA, entry_points_txt=POINTS)
    (folder / "plugin_mine.py").write_text(CODE)
    monkeypatch.syspath_prepend(folder)
    yield folder
    sys.modules.pop("plugin_mine", None)


def loop(folder, name):
    target = put(folder, name, METADATA=METADATA)
    (target / "entry_points.txt").symlink_to("entry_points.txt")


def unreadable_folder(folder, name):
    target = put(folder, name, METADATA=METADATA, entry_points_txt=POINTS)
    target.chmod(0)


OLD = METADATA.replace(b"1.2", b"1.1")
OTHER = METADATA.replace(b"mine", b"other")
DAMAGES = {
    "no name in the folder": lambda site: put(site, "-1.0.dist-info", entry_points_txt=POINTS),
    "no name at all": lambda site: put(site, ".dist-info", entry_points_txt=POINTS),
    "no name in the metadata": lambda site: put(site, "x-1.dist-info", METADATA=b"Version: 1\n"),
    "no metadata": lambda site: put(site, "other-1.dist-info", RECORD=b""),
    "empty folder": lambda site: put(site, "other-1.dist-info"),
    "metadata in UTF-16": lambda site: put(site, "other-1.dist-info", METADATA=UTF_16),
    "binary metadata": lambda site: put(site, ".egg-info", METADATA=bytes(range(256))),
    "egg-info that is a file": lambda site: (site / "other.egg-info").write_bytes(b"\xff\xfe"),
    "dist-info that is a file": lambda site: (site / "other-1.dist-info").write_bytes(b"\xff"),
    "entry points in UTF-16": lambda site: put(
        site, "other-1.dist-info", METADATA=OTHER, entry_points_txt=POINTS.decode().encode("utf-16")
    ),
    "entry points that are none": lambda site: put(
        site,
        "other-1.dist-info",
        METADATA=OTHER,
        entry_points_txt=b"[revstore.backends]\nno value here\n[[[\n= \n",
    ),
    "entry points that lead in a circle": lambda site: loop(site, "other-1.dist-info"),
    "a folder that cannot be read": lambda site: unreadable_folder(site, "other-1.dist-info"),
    "left behind by pip": lambda site: put(
        site, "~evstore_mine-1.1.dist-info", METADATA=OLD, entry_points_txt=POINTS
    ),
    "left behind by an old pip": lambda site: put(
        site, "-evstore_mine-1.1.dist-info", METADATA=OLD, entry_points_txt=POINTS
    ),
    "an older version's empty folder": lambda site: put(
        site, "revstore_mine-1.1.dist-info", METADATA=METADATA
    ),
    "an older version's folder": lambda site: put(
        site,
        "revstore_mine-1.1.dist-info",
        METADATA=OLD,
        entry_points_txt=POINTS,
    ),
    "installed for development too": lambda site: put(
        site, "revstore_mine.egg-info", **{"PKG-INFO": METADATA}, entry_points_txt=POINTS
    ),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_another_distribution_is_damaged(site, what):
    """Backends, codecs and transformers are found all the same, and each backend once."""
    DAMAGES[what](site)
    try:
        with open_backend(StorageConfig(type="mine")):
            pass
        load_codec("json")
        load_transformer("identity")
        rows = [row for row in list_backends() if row.name == "mine"]
        assert [str(row.status) for row in rows] == ["ok"]
        with pytest.raises(BackendNotInstalled):
            open_backend(StorageConfig(type="absent"))
    finally:
        for path in site.iterdir():
            path.chmod(0o700)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(POINTS + b"\xff", "not UTF-8"), (POINTS + b"no value here\n", "malformed")],
)
def test_the_distribution_asked_for_is_damaged(site, data, reason):
    """The error names the folder, and what is wrong in it."""
    folder = site / "revstore_mine-1.2.dist-info"
    (folder / "entry_points.txt").write_bytes(data)

    with pytest.raises(BackendNotInstalled, match=reason) as caught:
        open_backend(StorageConfig(type="mine"))

    assert str(folder) in str(caught.value)
    assert any(str(folder) in each for each in caught.value.unreadable)
    open_backend(StorageConfig(type="memory")).close()


@pytest.mark.parametrize("metadata", [None, b"", UTF_16, bytes(range(256)), b"Version:\n"])
def test_the_distribution_asked_for_lacks_a_name(site, metadata):
    """Its folder has one, and the version: the plugin works."""
    path = site / "revstore_mine-1.2.dist-info" / "METADATA"
    path.unlink()
    if metadata is not None:
        path.write_bytes(metadata)

    open_backend(StorageConfig(type="mine")).close()

    (row,) = [row for row in list_backends(fast=True) if row.name == "mine"]
    assert (row.distribution.replace("_", "-"), row.version) == ("revstore-mine", "1.2")


def test_a_leftover_of_a_distribution_that_is_gone(site):
    """What pip began to remove is not installed."""
    (site / "revstore_mine-1.2.dist-info").rename(site / "~evstore_mine-1.2.dist-info")

    with pytest.raises(BackendNotInstalled):
        open_backend(StorageConfig(type="mine"))


def test_strange_entries_of_the_path(site, tmp_path, monkeypatch):
    """A zip with a backend, one that is damaged, a file, a folder without rights, nothing."""
    archive = tmp_path / "backends.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("plugin_zipped.py", CODE.replace('"mine"', '"zipped"'))
        info = "revstore_zipped-3.dist-info"
        file.writestr(f"{info}/METADATA", METADATA.replace(b"mine", b"zipped"))
        file.writestr(f"{info}/entry_points.txt", POINTS.replace(b"mine", b"zipped"))
        file.writestr("~evstore_zipped-2.dist-info/entry_points.txt", POINTS)
    (tmp_path / "damaged.zip").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "a-file").write_bytes(b"\0")
    (tmp_path / "closed").mkdir(mode=0)
    for name in ("damaged.zip", "a-file", "closed", "absent", "backends.zip"):
        monkeypatch.syspath_prepend(tmp_path / name)

    for name in ("mine", "zipped"):
        open_backend(StorageConfig(type=name)).close()
    sys.modules.pop("plugin_zipped")


def test_a_file_that_fails_to_be_read(site, monkeypatch):
    """An error of the disk at another distribution's file is passed over too."""
    from importlib.metadata import PathDistribution

    put(site, "other-1.dist-info", METADATA=OTHER)
    read = PathDistribution.read_text

    def failing(self, name):
        if "other-1" in str(self._path):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(self, name)

    monkeypatch.setattr(PathDistribution, "read_text", failing)
    open_backend(StorageConfig(type="mine")).close()
    with pytest.raises(BackendNotInstalled, match=r"other-1\.dist-info: Input/output error"):
        open_backend(StorageConfig(type="absent"))
