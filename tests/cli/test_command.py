"""The command as a whole: start-up, plugins, doctor, exit codes, pipes and terminals."""

import json
import os
import pty
import re
import select
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "revstore"]


def modules_after(revstore, *arguments):
    """The top-level modules that a run of the command has imported."""
    code = (
        "import json, sys\n"
        "from revstore.cli import run\n"
        "code = run(sys.argv[1:])\n"
        "print(json.dumps([code, sorted(sys.modules)]), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=revstore.env,
        capture_output=True,
        text=True,
        check=True,
        cwd=revstore.folder,
        timeout=30,
    )
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    return done.stdout, set(modules)


def test_help_imports_no_command_and_no_driver(revstore):
    """The list of commands is there without importing any of them, rich, yaml or a driver."""
    text, modules = modules_after(revstore, "--help")

    for name in ("apply", "compact", "delete", "doctor", "edit", "get", "plugins", "watch"):
        assert re.search(rf"^  {name} ", text, re.MULTILINE)
        assert f"revstore.cli.{name}" not in modules
    assert not modules & {"rich", "yaml", "sqlalchemy", "sqlite3", "grpc", "revstore.factory"}


def test_plugins_list_imports_no_driver(revstore):
    """The installed backends, their capabilities and distributions; no driver is imported."""
    text, modules = modules_after(revstore, "plugins", "list", "--json")
    plugins = {plugin["name"]: plugin for plugin in json.loads(text)}

    assert plugins["sqlite"]["status"] == plugins["memory"]["status"] == "ok"
    assert plugins["sqlite"]["distribution"] == "revstore-sqlite"
    assert "durable" in plugins["sqlite"]["capabilities"]
    assert not modules & {"rich", "yaml", "sqlalchemy", "sqlite3", "grpc"}
    table = revstore.out("plugins", "list", "--fast")
    assert [line.split()[:2] for line in table[1:]] == [
        ["etcd2", "unchecked"],
        ["etcd3", "unchecked"],
        ["memory", "unchecked"],
        ["sqlite", "unchecked"],
    ]


def test_a_group_without_its_command_is_one_line(revstore):
    """Which says where the help is, and is not the whole help."""
    assert revstore.error("plugins", code=2) == (
        "error: missing command; see `revstore plugins --help`"
    )


def test_plugins_check_imports_the_driver(revstore):
    """The drivers' versions are told; a backend that is not there is an error."""
    (plugin,) = [json.loads("\n".join(revstore.out("plugins", "check", "sqlite", "--json")))]

    assert plugin["status"] == "ok"
    assert "sqlalchemy" in plugin["drivers"]
    assert "did you mean 'sqlite'" in revstore.error("plugins", "check", "sqlit", code=2)


def test_version_names_the_backends(revstore):
    """--version has the version and what is installed."""
    first, *backends = revstore.out("--version")

    assert re.fullmatch(r"revstore \d+\.\d+\.\d+", first)
    assert any(line.split()[:2] == ["backend", "sqlite"] for line in backends)


def test_without_the_extra_the_pip_line_is_shown(revstore):
    """Without click, rich or PyYAML: one line that says what to install, and code 2."""
    for absent in ("click", "rich", "yaml"):
        code = (
            f"import sys; sys.modules[{absent!r}] = None\n"
            "from revstore.__main__ import main; sys.exit(main())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30
        )

        assert done.returncode == 2
        assert "pip install 'revstore[cli]'" in done.stderr
        assert len(done.stderr.splitlines()) == 1


PLUGIN = """
from revstore.backend import BackendInfo
from revstore.errors import {error}
from revstore.hooks import hookimpl

@hookimpl
def revstore_backend():
    return BackendInfo(name="broken", api_version=(1, 0), capabilities=frozenset(),
                       description="for a test", factory=fail)

def fail(config, options):
    raise {error}("no luck with it")

@hookimpl
def revstore_commands(cli):
    import click
    @cli.command("hello")
    def hello():
        click.echo("hello from a plugin")
"""


@pytest.fixture
def plugin(revstore):
    """Installs a distribution whose backend raises an error on opening, and a command."""

    def install(error):
        folder = revstore.folder / "site"
        info = folder / "example-1.0.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: example\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            "[revstore.backends]\nbroken = example_plugin\n"
            "[revstore.commands]\nhello = example_plugin\n"
        )
        (folder / "example_plugin.py").write_text(PLUGIN.format(error=error))
        path = [str(folder), *filter(None, [revstore.env.get("PYTHONPATH")])]
        revstore.env["PYTHONPATH"] = os.pathsep.join(path)

    return install


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("Unreachable", 3),
        ("Timeout", 3),
        ("AccessDenied", 3),
        ("CorruptStore", 1),
        ("IncompatibleStore", 1),
        ("NoSpace", 1),
        ("ReadOnly", 1),
    ],
)
def test_errors_of_the_store_have_their_exit_codes(revstore, plugin, pod, error, code):
    """3 for a store that cannot be reached, 1 for one that is damaged; one line, no traceback."""
    plugin(error)
    line = revstore.error("get", "pods", "--store", "broken://", code=code)

    assert line.startswith("error: no luck with it")
    stdin = json.dumps(pod("a")) + json.dumps(pod("b"))
    revstore.error("--store", "broken://", "apply", "-f", "-", stdin=stdin, code=code)


def test_debug_shows_where_an_error_comes_from(revstore, plugin):
    """Only --debug shows a traceback."""
    plugin("Unreachable")
    done = subprocess.run(
        [*COMMAND, "get", "pods", "--debug", "--store", "broken://"],
        env=revstore.env,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )

    assert done.returncode == 3
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: no luck")


def test_commands_of_plugins_are_loaded_when_called(revstore, plugin):
    """A plugin's command is listed without being imported, and runs when it is called."""
    plugin("Unreachable")
    text, modules = modules_after(revstore, "--help")

    assert re.search(r"^  hello +\(from a plugin\)", text, re.MULTILINE)
    assert "example_plugin" not in modules
    assert revstore.out("hello") == ["hello from a plugin"]
    assert revstore.out("hello", "--help")[0].startswith("Usage: revstore hello")


def test_a_file_that_is_no_store(revstore):
    """A foreign file is refused with code 1 and is left as it was."""
    path = revstore.folder / "foreign.db"
    path.write_bytes(b"not a database, but some notes of mine\n" * 40)
    before = path.read_bytes()

    assert revstore.error("get", "pods", "--store", f"sqlite:///{path}", code=1)
    assert path.read_bytes() == before


def test_the_store_is_chosen_by_option_file_or_variable(revstore, pod):
    """--store before or after the command, --config, REVSTORE_URL, else revstore.db here."""
    (revstore.folder / "config.toml").write_text('url = "sqlite:///two.db"\n')
    revstore("--store", "sqlite:///one.db", "apply", "-f", "-", stdin=json.dumps(pod("one")))
    revstore("apply", "--config", "config.toml", "-f", "-", stdin=json.dumps(pod("two")))
    revstore("apply", "-f", "-", stdin=json.dumps(pod("three")), REVSTORE_URL="")

    for store, name in (("one.db", "one"), ("two.db", "two"), ("revstore.db", "three")):
        path = revstore.folder / store
        names = revstore.out("get", "pods", "-o", "name", "--store", f"sqlite:///{path}")
        assert names == [f"pod/{name}"]
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_doctor_tells_of_store_objects_and_files(revstore, pod):
    """What is stored, at which revision, and that a file others can read is worth a warning."""
    revstore.apply(pod("a"), pod("b", "other"))
    report = revstore.doctor()

    assert report["objects"] == {"pods": 2}
    assert report["store"]["type"] == "sqlite"
    assert report["store"]["revision"] >= 3
    assert all(check["result"] == "ok" for check in report["checks"])
    (revstore.folder / "store.db").chmod(0o644)
    assert "warning" in {check["result"] for check in revstore.doctor()["checks"]}
    assert revstore.out("doctor")[0] == "STORE"


def test_doctor_counts_an_override_with_its_own_prefix(revstore, pod):
    """Each resource is counted below the prefix that it has."""
    revstore.env |= {"REVSTORE_OVERRIDES__CONFIGMAPS__PREFIX": "/elsewhere"}
    revstore.apply(pod("a"), {**pod("b"), "kind": "ConfigMap"}, {**pod("c"), "kind": "ConfigMap"})

    assert revstore.doctor()["objects"] == {"configmaps": 2, "pods": 1}


def test_compact_drops_history_and_nothing_else(revstore, pod):
    """Up to the given revision, else the current one; below it is an error, again is no work."""
    revstore.apply(pod("a"))
    revstore.apply(pod("b"))
    revision = revstore.doctor()["store"]["revision"]

    assert revstore.out("compact", "--revision", str(revision - 1))
    assert revstore.doctor()["store"]["compacted_revision"] == revision - 1
    assert revstore.out("compact") == [f"Compacted up to revision {revision}."]
    assert revstore.out("compact")[0].startswith("Nothing to do")
    assert revstore.error("compact", "--revision", "1", code=1)
    assert revstore.out("get", "pods", "-o", "name") == ["pod/a", "pod/b"]


def test_a_reader_that_leaves_is_no_error(revstore, pod):
    """`revstore ... | head -1` ends with the next line it prints, saying nothing."""
    revstore.apply(pod("a"))
    process = subprocess.Popen(
        [*COMMAND, "watch", "pods", "-o", "name"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=revstore.env,
    )
    assert process.stdout.readline() == b"ADDED pod/a\n"
    process.stdout.close()
    revstore.apply(pod("b"))
    errors = process.stderr.read()
    process.stderr.close()

    assert (process.wait(30), errors) == (141, b"")


def on_terminal(arguments, env, *, stdin="", stdout_too=True):
    """Run with standard error, and standard output too, on a terminal; what each has shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.PIPE,
        stdout=theirs if stdout_too else subprocess.PIPE,
        stderr=theirs,
        env={**env, "TERM": "xterm-256color", "COLUMNS": "80"},
    )
    os.close(theirs)
    process.stdin.write(stdin.encode())
    process.stdin.close()
    shown = b""
    waiting = select.poll()
    waiting.register(ours, select.POLLIN)
    deadline = time.monotonic() + 30
    while True:
        assert waiting.poll(1000 * max(deadline - time.monotonic(), 0)), "nothing more came"
        try:
            data = os.read(ours, 65536)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.close(ours)
    printed = b""
    if process.stdout:
        printed = process.stdout.read()
        process.stdout.close()
    assert process.wait(30) == 0
    return shown.decode(), printed.decode()


def test_a_terminal_gets_colours_and_the_same_text(revstore, pod):
    """On a terminal words are coloured; without the colours it is what a pipe gets."""
    revstore.apply(pod("web", status={"phase": "Running"}), pod("x", status={"phase": "Failed"}))
    plain = revstore.out("get", "pods", "-o", "wide")
    shown, _ = on_terminal(["get", "pods", "-o", "wide"], revstore.env)
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r\n", "\n").splitlines()

    def ageless(lines):
        return [re.sub(r" +\d+s ", " ", line).split() for line in lines]

    assert "\x1b[" in shown
    assert ageless(stripped) == ageless(plain)


def test_tables_do_not_pass_on_what_steers_a_terminal(revstore, pod):
    """Escapes and line breaks in stored text are shown, not obeyed."""
    revstore.apply(pod("web", status={"phase": "\x1b[2Jgone\nNAME"}))
    _, row = revstore.out("get", "pods")

    assert r"\x1b[2Jgone\nNAME" in row


def test_long_work_has_a_progress_bar_on_standard_error(revstore, pod):
    """The bar is on the terminal, the lines are complete in the pipe."""
    stdin = "\n".join(json.dumps(pod(f"p{n}")) for n in range(60))
    shown, printed = on_terminal(["apply", "-f", "-"], revstore.env, stdin=stdin, stdout_too=False)

    assert "applying" in shown
    assert printed == "".join(f"pod/p{n} created\n" for n in range(60))
    shown, _ = on_terminal(["apply", "-f", "-"], revstore.env, stdin=stdin)
    assert all(f"pod/p{n} unchanged" in shown for n in range(60))


def test_the_demo_shows_what_it_promises(revstore):
    """It ends by itself with 0, and with 1 if what it promises does not appear."""
    url = f"sqlite:///{revstore.folder}/demo.db"
    for store, code in ((url, 0), ("memory://", 1)):
        done = subprocess.run(
            [sys.executable, ROOT / "examples" / "demo.py"],
            env={**revstore.env, "STORE": store},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

        assert done.returncode == code, (done.stdout, done.stderr)
        assert ("[watch] DELETED" in done.stdout) == (code == 0)
