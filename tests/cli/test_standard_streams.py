"""Standard streams that are closed, full, left, or not UTF-8: no traceback, no half work."""

from __future__ import annotations

import io
import itertools
import json
import os
import subprocess
import sys
import threading

import pytest

from revstore.cli._standard_streams import Output
from revstore.testing.interrupts import interrupt_by_signal

COMMAND = [sys.executable, "-m", "revstore"]
PATIENCE = 30.0

NO_OUTPUT = "error: standard output cannot be written: No space left on device\n"


@pytest.fixture
def shell(revstore):
    """Returns shell(command line), which runs it and gives the code, output and errors."""

    def shell(line, code=0, **env):
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line.replace("revstore", '"$PYTHON" -m revstore')],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**revstore.env, "PYTHON": COMMAND[0], **env},
            cwd=revstore.folder,
            timeout=PATIENCE,
            check=False,
        )
        told = done.stderr.decode()
        assert "Traceback" not in told
        assert "Exception ignored" not in told
        assert (done.returncode, told) == (code, told)
        return done.stdout.decode(), told

    return shell


@pytest.fixture
def stored(revstore, pod):
    """The names of the pods a to c, which stand in pods.json."""
    objects = {"apiVersion": "v1", "kind": "List", "items": [pod(name) for name in "abc"]}
    (revstore.folder / "pods.json").write_text(json.dumps(objects))
    return lambda: revstore.out("get", "pods", "-o", "name")


CHANGES = [
    (">&-", 0),
    ("2>&-", 0),
    (">&- 2>&- <&-", 0),
    ("2>/dev/full", 0),
    (">/dev/full", 1),
    (">/dev/full 2>&1", 1),
    ("| true", 141),
]


@pytest.mark.parametrize(("where", "code"), CHANGES)
def test_changes_are_made_whoever_reads_of_them(shell, stored, where, code):
    """apply and delete do the whole of their work though its report is lost; that is told, and is
    the exit code, unless the output was closed from the beginning."""
    every = ["pod/a", "pod/b", "pod/c"]

    _, told = shell(f"revstore apply -f pods.json {where}", code)
    assert told == ("" if where != ">/dev/full" else NO_OUTPUT)
    assert stored() == every
    shell(f"revstore apply -f pods.json -o yaml {where}", code)
    _, told = shell(f"revstore delete pods a c {where}", code)
    assert told == ("" if where != ">/dev/full" else NO_OUTPUT)
    assert stored() == ["pod/b"]


COMMANDS = ["get pods", "doctor", "compact", "plugins list", "plugins check sqlite", "--version"]


@pytest.mark.parametrize(
    ("command", "where", "code"),
    [
        *((command, *each) for command in ("get pods -o json", "--help") for each in CHANGES),
        *((command, *each) for command in COMMANDS for each in ((">&-", 0), (">/dev/full", 1))),
    ],
)
def test_every_command_ends_in_order(shell, stored, command, where, code):
    """Whatever is done with its streams."""
    shell(f"revstore apply -f pods.json && revstore {command} {where}", code)


@pytest.mark.parametrize(("where", "code"), [(">/dev/full", 1), ("| true", 141)])
def test_a_watch_that_cannot_be_read_ends(shell, stored, where, code):
    """It has nothing else to do, and would go on for ever."""
    shell("revstore apply -f pods.json")

    shell(f"revstore watch pods {where}", code)
    shell(f"revstore get pods -w -o json {where}", code)


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", ">&- 2>&-"])
def test_an_error_that_cannot_be_told_is_the_exit_code(shell, stored, where):
    """The code is the same as if somebody had read the message."""
    shell(f"revstore get pod nobody {where}", 1)
    shell(f"revstore get nonsense {where}", 1)
    shell(f"revstore nonsense {where}", 2)
    shell(f"revstore apply -f pods.json {where}", 3, REVSTORE_URL="etcd2://127.0.0.1:1")


def test_a_closed_standard_input(shell, stored):
    """It cannot be read, which is told; it is not taken for an empty one."""
    _, told = shell("revstore apply -f - <&-", 1)
    assert told == "error: -: cannot be read: Bad file descriptor\n"
    shell("revstore apply -f - -f pods.json <&-", 1)
    assert stored() == ["pod/a", "pod/b", "pod/c"]


@pytest.mark.parametrize(
    "data", [rb"a: \xff\n", rb"kind: \xe4\n", rb"\x00", rb'{"kind": "\xc3\x28"}']
)
def test_a_standard_input_that_is_not_utf_8(shell, data):
    """One line, and the rest is applied."""
    _, told = shell(f"printf '{data.decode()}' | revstore apply -f -", 1)

    assert told.startswith("error: standard input")
    assert told.count("\n") == 1


@pytest.mark.parametrize("locale", ["C", "POSIX", "en_US.ISO-8859-1"])
def test_the_output_is_utf_8(shell, revstore, pod, locale):
    """What is read back is what was stored, whatever the shell's locale."""
    revstore.apply({**pod("a"), "spec": {"text": "Grüße 🎉"}})

    env = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for output in ("yaml", "json"):
        text, _ = shell(f"revstore get pod a -o {output}", **env)
        shell(f"cat > back.{output} <<'END'\n{text}\nEND")
        shell(f"revstore apply -f back.{output}")
    assert revstore.json("get", "pod", "a")["spec"] == {"text": "Grüße 🎉"}


def test_no_store_is_opened_under_the_number_of_a_closed_stream(shell, revstore, stored):
    """What is printed would go into it."""
    shell("revstore apply -f pods.json >&- 2>&- <&-")
    shell("revstore get pods nobody -o name >&- 2>&- <&-", 1)

    assert stored() == ["pod/a", "pod/b", "pod/c"]
    assert all(check["result"] == "ok" for check in revstore.doctor()["checks"])


def test_a_pipe_that_does_not_block(revstore, pod):
    """Another program may have set it so: nothing is lost, however slowly it is read."""
    revstore.apply({**pod("a"), "spec": {"text": "x" * 500_000}})
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with subprocess.Popen(
        [*COMMAND, "get", "pod", "a", "-o", "json"],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=revstore.env,
    ) as process:
        os.close(writing)
        with os.fdopen(reading, "rb") as file:
            data = file.read()
        assert (process.wait(PATIENCE), process.stderr.read()) == (0, b"")

    assert len(json.loads(data)["spec"]["text"]) == 500_000


def test_what_a_signal_interrupts_is_not_written_twice():
    """The command ends by an exception of a handler, and what it printed until then is flushed."""
    reading, writing = os.pipe()
    chunks = []
    reads = iter(lambda: os.read(reading, 65536), b"")
    reader = threading.Thread(target=lambda: chunks.extend(reads))
    reader.start()
    text = io.TextIOWrapper(io.BufferedWriter(Output(writing)), line_buffering=True)
    lines = itertools.count()

    def attempt():
        for _ in range(200):
            text.write(f"{next(lines)}\n")

    interrupted = interrupt_by_signal(
        attempt, rounds=1000, seed=1, longest=0.0005, after=text.flush
    )
    text.flush()
    os.close(writing)
    reader.join(PATIENCE)
    os.close(reading)
    numbers = list(map(int, b"".join(chunks).split()))

    assert interrupted > 100
    assert len(numbers) == len(set(numbers))
