"""watch, get -w and edit: the commands that stay for a while."""

import contextlib
import json
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest


def test_watch_shows_another_processes_changes(revstore, pod):
    """First what is there, then each change by another process, with the right type."""
    revstore.apply(pod("old", labels={"app": "x"}))
    watch = revstore.start("watch", "pods", "-l", "app=x", "-o", "json")

    kind, obj = watch.event()
    assert (kind, obj["metadata"]["name"]) == ("ADDED", "old")
    revstore.apply(pod("new", labels={"app": "x"}), pod("unseen", labels={"app": "y"}))
    kind, obj = watch.event()
    assert (kind, obj["metadata"]["name"]) == ("ADDED", "new")
    revstore.apply(pod("new", labels={"app": "x", "v": "2"}))
    kind, obj = watch.event()
    assert (kind, obj["metadata"]["labels"]) == ("MODIFIED", {"app": "x", "v": "2"})
    revstore.apply(pod("old", labels={"app": "y"}))
    kind, obj = watch.event()
    assert (kind, obj["metadata"]["name"]) == ("DELETED", "old")
    revstore("delete", "pods", "--all")
    kind, obj = watch.event()
    assert (kind, obj["metadata"]["name"]) == ("DELETED", "new")


def test_ctrl_c_ends_a_watch_at_once_and_quietly(revstore, pod):
    """SIGINT ends it with code 130 and not a word."""
    revstore.apply(pod("a"))
    watch = revstore.start("watch", "pods", "-A")

    assert watch.line().split()[:3] == ["EVENT", "NAMESPACE", "NAME"]
    assert watch.line().split()[:3] == ["ADDED", "default", "a"]
    assert watch.interrupt() == (130, [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_end_a_watch_too(revstore, pod, number):
    """SIGTERM and SIGHUP end it with 128 and their number, and not a word."""
    revstore.apply(pod("a"))
    before = signal.signal(number, signal.SIG_DFL)  # under nohup the child would ignore SIGHUP
    watch = revstore.start("get", "pods", "-w")
    signal.signal(number, before)
    watch.line(), watch.line()

    assert watch.interrupt(number) == (128 + number, [])


def test_signals_ignored_at_the_start_stay_ignored(revstore, pod):
    """Under nohup, and in the background of a script, Ctrl-C and a hang-up are for others: the
    watch goes on; SIGTERM still ends it."""
    watch = revstore.start("watch", "pods", "-o", "name", ignored="INT HUP")
    for number, name in ((signal.SIGINT, "a"), (signal.SIGHUP, "b")):
        revstore.apply(pod(name))
        assert name in watch.line()
        watch.process.send_signal(number)
    revstore.apply(pod("c"))

    assert "c" in watch.line()
    assert watch.interrupt(signal.SIGTERM) == (143, [])


def test_an_ended_edit_leaves_no_file_behind(revstore, pod, tmp_path):
    """SIGTERM while the editor runs ends the command with 143; the text, which may hold a secret,
    is gone."""
    revstore.apply(pod("web"))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    script = tmp_path / "editor"
    script.write_text('#!/bin/sh\necho opened "$1"\nexec sleep 60\n')
    script.chmod(0o755)
    edit = revstore.start("edit", "pod/web", EDITOR=str(script), TMPDIR=str(temporary))
    path = Path(edit.line().removeprefix("opened "))

    assert path.parent.parent == temporary
    assert edit.interrupt(signal.SIGTERM) == (143, [])
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_editor_and_keeps_what_it_saves(revstore, pod, tmp_path, editor, number):
    """The editor gets the signal and may save its text; then the command ends, names the file, and
    nothing is stored."""
    revstore.apply(pod("web"))
    before = revstore.json("get", "pod/web")
    command = editor(ENDED + "path.write_text(text + '  note: saved\\n')\n")
    taken = signal.signal(number, signal.SIG_DFL)  # under nohup the child would ignore SIGHUP
    edit = revstore.start("edit", "pod/web", EDITOR=command, TMPDIR=str(tmp_path))
    signal.signal(number, taken)
    path = Path(edit.line())
    code, errors = edit.interrupt(number)

    assert code == 128 + number
    assert errors == [f"error: the edit was ended; your edits are saved in {path}"]
    assert path.read_text().endswith("  note: saved\n")
    assert revstore.json("get", "pod/web") == before


def test_a_signal_keeps_what_the_editor_saves_beside(revstore, pod, tmp_path, editor):
    """vi saves unsaved changes in a file of its own: the folder is kept and named."""
    revstore.apply(pod("web"))
    command = editor(ENDED + "path.with_name('object.yaml.swp').touch()\n")
    edit = revstore.start("edit", "pod/web", EDITOR=command, TMPDIR=str(tmp_path))
    path = Path(edit.line())
    code, (line,) = edit.interrupt(signal.SIGTERM)

    assert code == 143
    assert line.endswith(f"are in {path.parent}")
    assert path.with_name("object.yaml.swp").exists()


def test_ctrl_c_while_an_edit_is_stored_keeps_the_text(revstore, pod, tmp_path, editor):
    """The store is busy, and the user gives up: what was written in the editor is not lost."""
    revstore.apply(pod("web"))
    busy = sqlite3.connect(revstore.folder / "store.db", isolation_level=None)
    try:
        busy.execute("BEGIN IMMEDIATE")
        command = editor(REPLACE + "print('done', flush=True)\n")
        edit = revstore.start("edit", "pod/web", EDITOR=command, TMPDIR=str(tmp_path))
        assert edit.line() == "done"
        # While the editor is still there Ctrl-C is its own; then it ends the wait for the lock.
        while edit.process.poll() is None:
            edit.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                edit.process.wait(1)
        code, (line,) = edit.end()
    finally:
        busy.close()

    path = Path(line.rpartition(" ")[2])
    assert (code, "nginx:2" in path.read_text()) == (130, True)
    assert "nginx:1" in json.dumps(revstore.json("get", "pod/web"))


def test_an_editor_that_fails_leaves_its_text(revstore, pod, editor):
    """It may have crashed after the user saved: nothing is stored, and the text is kept."""
    revstore.apply(pod("web"))
    line = revstore.error("edit", "pod/web", EDITOR=editor(REPLACE + "sys.exit(3)\n"), code=1)
    path = revstore.folder / noted(revstore)[0]

    assert "code 3" in line
    assert line.endswith(str(path))
    assert "nginx:2" in path.read_text()
    path.unlink()
    path.parent.rmdir()


def test_get_w_goes_on_with_rows(revstore, pod):
    """`get -w` prints the table and then a row for each change, in the same columns."""
    revstore.apply(pod("first"))
    watch = revstore.start("get", "pods", "-w")
    head, first = watch.line(), watch.line()
    revstore.apply(pod("other", status={"phase": "Failed"}))
    second = watch.line()

    assert head.split()[0] == "NAME"
    assert (first.split()[0], second.split()[0]) == ("first", "other")
    assert second.index("Failed") == head.index("STATUS")
    assert watch.interrupt() == (130, [])


def test_watch_of_one_object_from_a_version(revstore, pod):
    """With a resource version only what came after it is shown; others' changes are not."""
    revstore.apply(pod("a"), pod("b"))
    version = revstore.json("get", "pod/b")["metadata"]["resourceVersion"]
    revstore.apply(pod("b", labels={"n": "1"}), pod("a", labels={"n": "1"}))
    watch = revstore.start("watch", "pod/a", "--resource-version", version, "-o", "name")

    assert watch.line() == "MODIFIED pod/a"


def test_a_compacted_watch_begins_again_and_says_so(revstore, pod):
    """When the history it needs is gone, it tells, lists again and goes on."""
    revstore.apply(pod("a"))
    version = revstore.json("get", "pod/a")["metadata"]["resourceVersion"]
    revstore.apply(pod("b"))
    revstore.apply(pod("c"))
    revstore("compact")
    watch = revstore.start("watch", "pods", "--resource-version", version, "-o", "name")

    assert [watch.line() for _ in range(3)] == ["ADDED pod/a", "ADDED pod/b", "ADDED pod/c"]
    watch.wait_for_error("listing again")
    revstore("delete", "pod/b")
    assert watch.line() == "DELETED pod/b"


#: Of an editor: says that it has begun, and waits until a signal ends it.
ENDED = """\
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGHUP])
print(path, flush=True)
signal.sigwait([signal.SIGTERM, signal.SIGHUP])
"""


@pytest.fixture
def editor(revstore):
    """An editor with blanks in its path that notes what it was given and runs ``body`` on it."""

    def make(body):
        folder = revstore.folder / "my editor"
        folder.mkdir(exist_ok=True)
        script = folder / "edit.py"
        script.write_text(
            "import json, os, subprocess, sys\n"
            "from pathlib import Path\n"
            "path = Path(sys.argv[-1])\n"
            "text = path.read_text()\n"
            f"note = Path({str(revstore.folder / 'note.json')!r})\n"
            "modes = [path.stat().st_mode, path.parent.stat().st_mode]\n"
            "note.write_text(json.dumps([str(path), *modes, sys.argv[1:-1], text]))\n" + body
        )
        return f"{sys.executable} '{script}' --wait"

    return make


def noted(revstore):
    return json.loads((revstore.folder / "note.json").read_text())


REPLACE = "path.write_text(text.replace('nginx:1', 'nginx:2'))\n"


def test_edit_stores_what_the_editor_wrote(revstore, pod, editor):
    """$EDITOR, with its arguments, gets a file that only the user can read; it is gone after."""
    revstore.apply(pod("web"))
    assert revstore.out("edit", "pod/web", EDITOR=editor(REPLACE)) == ["pod/web edited"]
    path, mode, folder_mode, arguments, text = noted(revstore)

    assert revstore.json("get", "pod/web")["spec"]["containers"][0]["image"] == "nginx:2"
    assert (stat.S_IMODE(mode), stat.S_IMODE(folder_mode)) == (0o600, 0o700)
    assert arguments == ["--wait"]
    assert "kind: Pod" in text
    assert not (revstore.folder / path).parent.exists()


@pytest.mark.parametrize(
    "body", ["", "path.write_text('# nothing\\n')\n", "path.write_text(text + '\\n')\n"]
)
def test_edit_without_a_change_does_nothing(revstore, pod, editor, body):
    """Unchanged or emptied text cancels, and no version is raised."""
    revstore.apply(pod("web"))
    before = revstore.json("get", "pod/web")

    assert revstore.out("edit", "pod", "web", EDITOR=editor(body)) == [
        "Edit cancelled, no changes made."
    ]
    assert revstore.json("get", "pod/web") == before
    assert not (revstore.folder / noted(revstore)[0]).exists()


@pytest.mark.parametrize("instead", ["", "os.mkfifo(path)\n", "os.mkdir(path)\n"])
def test_edit_when_the_editor_leaves_no_file(revstore, pod, editor, instead):
    """It is an error at once; a pipe is not waited for."""
    revstore.apply(pod("web"))
    body = f"import os\nos.unlink(path)\n{instead}"
    line = revstore.error("edit", "pod/web", EDITOR=editor(body), code=1)
    assert "the editor has left no file there" in line


def test_edit_keeps_the_text_on_a_conflict(revstore, pod, editor):
    """If somebody was faster nothing is stored, and the line says where the text is."""
    revstore.apply(pod("web"))
    other = json.dumps(pod("web", labels={"by": "other"}))
    body = (
        f"subprocess.run([sys.executable, '-m', 'revstore', 'apply', '-f', '-'], input={other!r},\n"
        "               text=True, check=True, stdout=subprocess.DEVNULL)\n"
    )
    line = revstore.error("edit", "pod/web", EDITOR=editor(body + REPLACE), code=1)
    path = revstore.folder / noted(revstore)[0]

    assert "changed by another client" in line
    assert line.endswith(str(path))
    assert "nginx:2" in path.read_text()
    assert revstore.json("get", "pod/web")["metadata"]["labels"] == {"by": "other"}
    path.unlink()
    path.parent.rmdir()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("path.write_text(text + 'a: ]')\n", "line"),
        ("path.write_text(text.replace('kind: Pod', 'kind: Node'))\n", "must stay"),
        ("path.write_text(text.replace('name: web', 'name: other'))\n", "must stay"),
        ("path.write_text(text + '---\\n' + text)\n", "2 objects"),
    ],
)
def test_edit_refuses_what_is_no_such_object(revstore, pod, editor, body, reason):
    """Text that does not parse, or is another object, is refused and kept."""
    revstore.apply(pod("web"))
    line = revstore.error("edit", "pod/web", EDITOR=editor(body), code=1)
    path = revstore.folder / noted(revstore)[0]

    assert reason in line
    assert line.endswith(str(path))
    assert revstore.out("get", "pods", "-A", "-o", "name") == ["pod/web"]
    path.unlink()
    path.parent.rmdir()


def test_edit_without_an_editor_or_object(revstore, pod, editor):
    """No such editor, one that fails, no such object: one line, code 1, nothing left behind."""
    revstore.apply(pod("web"))
    assert "'vi'" in revstore.error("edit", "pod/web", EDITOR=" \t", PATH="/no/such/folder", code=1)
    assert "cannot run" in revstore.error("edit", "pod/web", EDITOR="/no/such/editor", code=1)
    assert "code 3" in revstore.error("edit", "pod/web", EDITOR=editor("sys.exit(3)"), code=1)
    assert not (revstore.folder / noted(revstore)[0]).exists()
    assert "split" in revstore.error("edit", "pod/web", EDITOR="vi '", code=1)
    assert 'pods "nope" not found' in revstore.error("edit", "pod/nope", EDITOR="true", code=1)
