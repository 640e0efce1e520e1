"""The place of a store: what the file system allows, and the modes of the files beside it."""

from __future__ import annotations

import os
import stat

from revstore.backend_tools import ignoring

__all__ = ["match_modes", "network_file_system", "read_only_file_system"]

_NETWORK = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "lustre",
    "glusterfs",
    "fuse.sshfs",
)


def read_only_file_system(path: str) -> bool:
    """Return whether ``path`` is on a file system that is mounted read-only."""
    with ignoring(OSError):
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    return False


def network_file_system(path: str) -> str:
    """Return the kind of network file system that ``path`` is on, "" if it is local or unknown.

    WAL needs memory that all processes share, and locks there are often unreliable.
    """
    best, kind = "", ""
    with ignoring(OSError), open("/proc/self/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, point, kind_here, *_ = line.split(" ")
            inside = path == point or path.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, kind_here
    return kind if kind in _NETWORK else ""


def match_modes(path: str) -> None:
    """Give ``-wal`` and ``-shm`` the mode of the file, if we may change them.

    SQLite does so only when it creates them: after a crash they may keep the mode that the file had
    earlier, and then that mode decides who may open the store.
    """
    with ignoring(OSError):
        wanted = stat.S_IMODE(os.stat(path).st_mode)
        for end in ("-wal", "-shm"):
            with ignoring(FileNotFoundError):
                found = os.lstat(path + end)
                if stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) != wanted:
                    os.chmod(path + end, wanted)
