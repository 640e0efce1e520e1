"""Operations on whole stores: what operators do besides reading and writing single objects.

Each works on open backends, and may report its progress through a callback. It can be interrupted
at any line, and goes on when it is called again.
"""

from __future__ import annotations

from revstore.operations._backup import BackupResult, backup, backup_to
from revstore.operations._compare import Difference
from revstore.operations._copy import CopyResult, copy
from revstore.operations._export import ExportResult, export_objects
from revstore.operations._file import BackupReader, Compression, Header, Record
from revstore.operations._import import (
    BrokenReference,
    Failure,
    ImportResult,
    import_objects,
)
from revstore.operations._marker import unfinished
from revstore.operations._migrate import DEFAULT_REASON, MigrationResult, migrate
from revstore.operations._progress import OnProgress, Progress
from revstore.operations._restore import RestoreResult, open_backup, restore
from revstore.operations._rewrite import RewriteResult, rewrite
from revstore.operations._target import Merge
from revstore.operations._verify import Verification, verify

__all__ = [
    "DEFAULT_REASON",
    "BackupReader",
    "BackupResult",
    "BrokenReference",
    "Compression",
    "CopyResult",
    "Difference",
    "ExportResult",
    "Failure",
    "Header",
    "ImportResult",
    "Merge",
    "MigrationResult",
    "OnProgress",
    "Progress",
    "Record",
    "RestoreResult",
    "RewriteResult",
    "Verification",
    "backup",
    "backup_to",
    "copy",
    "export_objects",
    "import_objects",
    "migrate",
    "open_backup",
    "restore",
    "rewrite",
    "unfinished",
    "verify",
]
