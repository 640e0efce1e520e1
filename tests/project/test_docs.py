"""The pages for users: what they show runs, what they name is there, what they list is complete.

Marks in the pages, each a comment in the line before a block::

    <!-- file: NAME -->   the block is what the reader saves as NAME, or adds to it
    <!-- not run -->      the block is not run

Of a ```console block each line after "$ " is run; what follows it is what it must print, "..."
standing for any lines, and ages for any age. "# exit code N" behind a command says what it ends
with, if not with 0. "^C" interrupts a command that has printed the lines before it. A ```pycon
block is a doctest.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import revstore
from revstore import errors
from revstore.plugins import list_backends
from revstore.values import Capability

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
ALL_PAGES = [*PAGES, *sorted(DOCS.glob("api/*.md"))]
PATIENCE = 30.0


@attrs.frozen
class Block:
    """A fenced block of a page. ``line`` is that of its first line, ``mark`` the comment above."""

    language: str
    text: str
    line: int
    mark: str

    @property
    def file(self) -> str:
        return self.mark.removeprefix("file: ") if self.mark.startswith("file: ") else ""


_BLOCK = re.compile(r"(?:^<!-- ([^\n]*?) -->\n)?^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(found[2], found[3], text.count("\n", 0, found.start(3)) + 1, found[1] or "")
        for found in _BLOCK.finditer(text)
    ]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def on_each(pages: list[Path]) -> Any:
    return pytest.mark.parametrize("page", pages, ids=named)


@pytest.mark.slow
@on_each([page for page in PAGES if any(block.language for block in blocks_of(page))])
def test_what_a_page_shows_runs(page, tmp_path, monkeypatch):
    """Python and console blocks of a page run one after the other, in one folder and, Python, in
    one namespace; commands and doctests print what the page says."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    env = dict(os.environ)
    for block in blocks_of(page):
        if block.mark == "not run":
            continue
        if block.file:
            path = tmp_path / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            before = path.read_text() + "\n" if path.exists() else ""
            path.write_text(before + block.text)
        elif block.language == "python":
            # Empty lines in front: so that a traceback has the page's own line.
            text = "\n" * (block.line - 1) + block.text
            code = compile(text, str(page), "exec", dont_inherit=True)
            exec(code, namespace)
        elif block.language == "pycon":
            examples = doctest.DocTestParser().get_doctest(
                block.text, namespace, named(page), str(page), block.line - 1
            )
            doctest.DebugRunner().run(examples)
        elif block.language == "console":
            for command, shown in commands_of(block):
                run_command(f"{named(page)}:{block.line}", command, shown, env)


def commands_of(block: Block) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines that it prints."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, *shown = part.rstrip("\n").split("\n")
        yield command, shown


def run_command(where: str, command: str, shown: list[str], env: dict[str, str]) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "export":
        name, _, value = words[1].partition("=")
        env[name] = value
        return
    assert words[0] == "revstore", f"{where}: only revstore and export can be run: {command}"
    interrupted = shown[-1:] == ["^C"]
    stated = re.search(r"# exit code (\d+)$", command)
    wanted = 130 if interrupted else int(stated[1]) if stated else 0
    with subprocess.Popen(
        [sys.executable, "-m", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
    ) as process:
        timer = threading.Timer(PATIENCE, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            if interrupted:
                shown = shown[:-1]
                printed = "".join(process.stdout.readline() for _ in shown)
                process.send_signal(signal.SIGINT)
                process.stdout.read()
            else:
                printed = process.stdout.read()
            code = process.wait()
        finally:
            timer.cancel()
    assert code == wanted, f"{where}: {command}: {printed}"
    assert re.fullmatch(pattern_of(shown), printed), f"{where}: {command} printed:\n{printed}"


def pattern_of(shown: list[str]) -> str:
    """A pattern for the output that the lines of a page stand for."""
    lines = []
    for line in shown:
        if line == "...":
            lines.append(r"(?:.*\n)*?")
            continue
        words = [
            r"\d+s" if re.fullmatch(r"\d+s", word) else re.escape(word) for word in line.split()
        ]
        lines.append(r"[ ]*" + r"[ ]+".join(words) + r"[ ]*\n")
    return "".join(lines)


@pytest.mark.slow
def test_the_tests_of_the_page_pass(tmp_path):
    """What docs/testing.md shows is a folder of tests, which pass as they stand there."""
    for block in blocks_of(DOCS / "testing.md"):
        path = tmp_path / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
    suite = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    assert "3 passed" in finish([*suite, "--rootdir", tmp_path, "tests"], cwd=tmp_path)


def finish(command: list[Any], *, cwd: Path) -> str:
    """What a command prints that must end with 0."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@on_each([*ALL_PAGES, ROOT / "CONTRIBUTING.md", ROOT / "plugins" / "sqlite" / "README.md"])
def test_links_lead_somewhere(page):
    """A link to a file of the project names one that exists; its anchor names a heading."""
    text = _BLOCK.sub("", page.read_text())
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name) if name else page
        headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE) if path.exists() else []
        if not path.exists() or (anchor and anchor not in map(slug, headings)):
            dead.append(target)

    assert dead == []


def rows_of(page: Path) -> list[list[str]]:
    """The cells of all tables of a page."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]
        for line in page.read_text().splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ]


def test_every_field_is_described():
    """docs/configuration.md has a row for each field of StorageConfig, in their order."""
    names = [field.name for field in attrs.fields(revstore.StorageConfig)]
    first = [row[0].strip("`") for row in rows_of(DOCS / "configuration.md")]

    assert [name for name in first if name in names] == names


def test_defaults_are_right():
    """The defaults in docs/configuration.md are those of the class."""
    config = revstore.StorageConfig()
    names = {field.name for field in attrs.fields(revstore.StorageConfig)}
    wrong = {}
    for name, default, *_ in (row for row in rows_of(DOCS / "configuration.md") if len(row) > 2):
        value = getattr(config, name.strip("`"), None) if name.strip("`") in names else ...
        if value is ...:
            continue
        shown = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else None
        if shown is None:
            shown = "none" if value is None else f'"{value}"' if isinstance(value, str) else None
        if shown is None:
            number = isinstance(value, int | float)
            shown = f"{value:g}" if number else "()" if value == () else "{}"
        if default.strip("`") != shown:
            wrong[name] = shown

    assert wrong == {}


def test_capabilities_are_told_as_they_are():
    """The table in docs/guarantees.md says of each backend here what its plugin claims."""
    rows = rows_of(DOCS / "guarantees.md")
    head = next(row for row in rows if row[0] == "capability")
    told = {row[0].strip("`"): row for row in rows if row[0].strip("`") in set(Capability)}
    backends = {plugin.name: plugin.capabilities for plugin in list_backends()}

    assert set(told) == set(Capability)
    assert set(head[2:]) <= set(backends)
    for at, name in enumerate(head[2:], 2):
        yes = {Capability(capability) for capability, row in told.items() if row[at] == "yes"}
        assert yes == backends[name], name


def documented_modules() -> list[str]:
    text = "\n".join(page.read_text() for page in DOCS.glob("api/*.md"))
    return re.findall(r"^\.\. automodule:: (\S+)$", text, re.MULTILINE)


def test_every_public_module_has_its_place():
    """Each public module of the core is on a page under docs/api, unless it is no API: the
    command line, what only entry points lead to, and what another module hands on."""
    package = ROOT / "core" / "revstore"
    names = {
        ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in package.rglob("*.py")
    }
    public = {name for name in names if not re.search(r"\._(?!_init)", name)}
    no_api = {"builtin_plugin", "memory_plugin", "metrics_plugin", "paging", "secret", "testing"}
    expected = {
        name
        for name in public
        if not name.startswith("revstore.cli") and name.removeprefix("revstore.") not in no_api
    }

    assert set(documented_modules()) == expected


def test_each_class_is_described_under_one_public_name():
    """Sphinx refuses two descriptions of one class, apart from that at its own module: a module
    that re-exports it leaves it out by ``:exclude-members:``."""
    text = "\n".join(page.read_text() for page in DOCS.glob("api/*.md"))
    described: dict[str, list[str]] = {}
    for name, options in re.findall(
        r"^\.\. automodule:: (\S+)\n((?:   .*\n)*)", text, re.MULTILINE
    ):
        if ":no-members:" in options:
            continue
        module = importlib.import_module(name)
        for each in {*module.__all__} - {*re.findall(r"\w+", options)}:
            found = getattr(module, each)
            if isinstance(found, type) and found.__module__ != name:
                home = f"{found.__module__}.{found.__qualname__}"
                described.setdefault(home, []).append(name)

    assert {home: names for home, names in described.items() if len(names) > 1} == {}


def test_every_name_is_mentioned():
    """Whatever ``revstore`` and ``revstore.errors`` export stands on a page, or on one that is
    made from the docstrings."""
    text = "\n".join(page.read_text() for page in ALL_PAGES)
    mentioned = set(re.findall(r"\w+", text))
    for name in documented_modules():
        if name != "revstore":
            mentioned |= set(importlib.import_module(name).__all__)

    assert set(revstore.__all__) | set(errors.__all__) <= mentioned
    assert set(revstore.__all__) <= set(re.findall(r"\w+", (DOCS / "api/index.md").read_text()))


# What looks like a name of the package and is none: files, groups of entry points, extras.
_NO_NAMES = re.compile(
    r"revstore\.(db|toml|backends|wrappers|codecs|transformers|commands|slow|attempts|[a-z]+_seconds|backend\.API_VERSION)$"
)
_CLASSES = "Event|ObjectList|Preconditions|Registry|ResponseMeta|Storage|StorageConfig|Watch"


@on_each([page for page in ALL_PAGES if page.name != "architecture.md"])
def test_names_exist(page):
    """`revstore.x.y` is a module or something in one; `Storage.x` and the like are members. (What
    the page on architecture names, private things too, is test_architecture's.)"""
    text = page.read_text()
    names = re.findall(r"`(revstore(?:\.\w+)+)`", text)
    missing = [name for name in names if not _NO_NAMES.match(name) and not exists(name)]
    members = re.findall(rf"`({_CLASSES}|StorageFactory)\.([a-z_]+)`", text)
    missing += [
        f"{owner}.{name}" for owner, name in members if not hasattr(getattr(revstore, owner), name)
    ]

    assert missing == []


def exists(name: str) -> bool:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
        return True
    module, _, attribute = name.rpartition(".")
    with contextlib.suppress(ImportError):
        return hasattr(importlib.import_module(module), attribute)
    return exists(module) and hasattr(importlib.import_module(module.rpartition(".")[0]), attribute)


#: Every exported identifier of the original that revstore is a counterpart of.
_ORIGINAL = """
StorageWithCacher copier storageConfig capacity objectType resourcePrefix keyFunc newListFunc
getAttrsFunc triggerFunc NewRawStorage CacherConfig CacheCapacity Storage Versioner Copier Type
ResourcePrefix KeyFunc NewListFunc GetAttrsFunc TriggerPublisherFunc Codec NewCacherFromConfig
Cacher Stop Config Prefix ServerList KeyFile CertFile CAFile Quorum DeserializationCacheSize Create
DestroyFunc StorageTypeETCD2 StorageTypeUnset StorageTypeETCD3 ETCD2Storage ETCD3Storage
newETCD2Storage newETCD3Storage newTransportForETCD2 newETCD2Client NewEtcdStorage
IdentityTransformer APIObjectVersioner ObjectCopier HighWaterMark incomingHWM watchCacheEvent
AttrFunc Interface Delete Watch WatchList Get GetToList List GetList GuaranteedUpdate Count Stats
RequestWatchProgress ReadinessCheck GetCurrentResourceVersion CompactRevision GetOptions
ListOptions DeleteOptions Preconditions UpdateFunc ValidateObjectFunc ResponseMeta UpdateObject
UpdateList PrepareObjectForStorage ObjectResourceVersion ParseResourceVersion SelectionPredicate
Everything CompactionInterval CountMetricPollPeriod DBMetricPollInterval EventsHistoryWindow
HealthcheckTimeout ReadycheckTimeout LeaseManagerConfig StorageObjectCountTracker EncodeVersioner
Transformer Transport CreateHealthCheck CreateReadyCheck CreateProber CreateMonitor
"""


def test_every_name_of_the_original_has_a_row():
    """docs/kubernetes-names.md says of each identifier of the original what became of it."""
    rows = rows_of(DOCS / "kubernetes-names.md")
    theirs = set(re.findall(r"\w+", " ".join(row[0] for row in rows)))

    assert [name for name in _ORIGINAL.split() if name not in theirs] == []
    assert [row for row in rows if not row[1]] == []


def test_differences_name_rows():
    """Each row of docs/differences.md begins with ids of docs/behaviours.md, each of them once, and
    says what the original does, what revstore does, and why."""
    rows = [row for row in rows_of(DOCS / "differences.md") if row[0] != "row"]
    ids = [each for row in rows for each in row[0].split(", ")]

    assert [each for each in ids if not re.fullmatch(r"[A-Z]+-[1-9][0-9]?", each)] == []
    assert sorted(ids) == sorted(set(ids))
    assert [row[0] for row in rows if len(row) != 4 or not all(row)] == []


def test_every_command_is_described():
    """docs/cli.md has a section for each command, alone or with others."""
    headings = re.findall(r"^## (.*)$", (DOCS / "cli.md").read_text(), re.MULTILINE)
    described = {word for heading in headings for word in heading.split(", ")}
    folder = ROOT / "core" / "revstore" / "cli"
    commands = {
        path.stem.rstrip("_") for path in folder.glob("*.py") if not path.stem.startswith("_")
    }

    assert commands <= described
