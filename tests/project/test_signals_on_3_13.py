"""Loops that the exception of a signal's handler leaves without clean-up, on Python 3.13."""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = [ROOT / "core", *ROOT.glob("plugins/*/src")]
#: Files by their path below the folder that holds the package; tests for users hold no locks.
SOURCES = {
    path.relative_to(folder).as_posix(): path
    for folder in FOLDERS
    for path in folder.rglob("*.py")
    if "testing" not in path.parts
}

_OWN_THREAD = "runs in a thread of our own, and handlers run in the main thread"
_WORDS_ONLY = "the handler only puts an error into better words"
_NO_EVENTS = "no event has been taken when the loop goes on, so none is lost"
_COMMAND = "the command ends, and closes the store"
_NEXT_TRY = "the loop goes on once the file of the former try is closed and gone"

#: Functions with such a loop, and why no harm is done. What holds a lock, or has begun what must be
#: finished, has its loop in a function of its own instead: there the exception leaves by the call.
HARMLESS = {
    "revstore/aio/_calls.py Calls._readable": _OWN_THREAD,
    "revstore/aio/_watch.py AsyncWatch.poll": _NO_EVENTS,
    "revstore/cacher/_generation.py Generation.tick": _OWN_THREAD,
    "revstore/cacher/_match.py matcher.<locals>.match": "what a handler raises comes out anyway",
    "revstore/cacher/_watch.py CacheWatch._poll": _NO_EVENTS,
    "revstore/cli/_bench.py Bench._sample": _COMMAND,
    "revstore/cli/_places.py backup_at": "the file has no name, and closes with its last reference",
    "revstore/cli/_streams.py _changes": _COMMAND,
    "revstore/codec/_json.py check_plain": _WORDS_ONLY,
    "revstore/codec/_shapes.py MapShape.decode": _WORDS_ONLY,
    "revstore/codec/_typed.py TypedCodec.encode": _WORDS_ONLY,
    "revstore/codec/_typed.py check_fields": _WORDS_ONLY,
    "revstore/operations/_backup.py backup": _NEXT_TRY,
    "revstore/operations/_export.py export_objects": _NEXT_TRY,
    "revstore/operations/_marker.py set_marker": "an interrupt leaves the marker anyway",
    "revstore/operations/_verify.py verify": _WORDS_ONLY,
    "revstore/plugins/_distributions.py _declared": "nothing is held there, and nothing begun",
    "revstore_etcd2/_reconnect.py Reconnecting._follow": _OWN_THREAD,
    "revstore_etcd3/_stream.py _events": _WORDS_ONLY,
    "revstore_etcd3/_watch.py _History._read": _OWN_THREAD,
    "revstore_serve/_elections.py Elections._next_put": _OWN_THREAD,
    "revstore_serve/_feed.py Feed.reach": _OWN_THREAD,
    "revstore_serve/_http.py _Connection._linger": _OWN_THREAD,
    "revstore_serve/_http2.py Transport.stop": _OWN_THREAD,
    "revstore_serve/_queues.py Queues._until_deleted": _OWN_THREAD,
    "revstore_serve/_queues.py Queues.wait": _OWN_THREAD,
    "revstore_serve/_watches.py _WatchStream._read_past": _OWN_THREAD,
    "revstore_sqlite/_place.py network_file_system": "the file closes with its last reference",
    "revstore_sqlite/_reader.py Reader.events.<locals>.query": "the caller closes the connection",
    "revstore_sqlite/_rows.py key_values": "the caller closes the connection",
}


def unprotected(code: CodeType) -> bool:
    """Whether a loop of ``code`` jumps back without a handler that the code before and behind the
    jump has."""
    byte_code: Any = dis.Bytecode(code)
    entries = byte_code.exception_entries
    names = {step.offset: step.opname for step in byte_code}

    def around(at: int) -> set[int]:
        """The handlers of what is raised at an offset, from the inside to the outside."""
        targets = {each.target for each in entries if each.start <= at < each.end}
        return targets.union(*map(around, targets))

    # The interpreter has handlers of its own as well: around comprehensions and generators.
    handlers = {each.target for each in entries if names[each.target] == "PUSH_EXC_INFO"}
    for at in (offset for offset, name in names.items() if name == "JUMP_BACKWARD"):
        before = max((each.end for each in entries if each.end <= at), default=0)
        behind = min((each.start for each in entries if each.start > at), default=0)
        between = {names[each] for each in range(before, behind) if each in names}
        bare = all("JUMP" in name or name in ("END_FOR", "POP_TOP") for name in between)
        if bare and handlers & around(before - 1) & around(behind) - around(at):
            return True
    return False


def functions(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from functions(each)


@pytest.mark.skipif(sys.version_info[:2] != (3, 13), reason="a defect of this version alone")
def test_loops_that_a_handlers_exception_leaves_without_cleaning_up():
    """python/cpython#130279: an exception raised where a loop jumps back is caught by no handler
    around it in the same function, so a lock would stay locked. These loops are known."""
    found = {
        f"{name} {code.co_qualname}"
        for name, path in SOURCES.items()
        for code in functions(compile(path.read_text(), str(path), "exec"))
        if unprotected(code)
    }
    assert found == set(HARMLESS)
