"""Plugin look-up in this process; tests/plugins/test_plugins_venv.py installs plugins for real.

Here a plugin is a module and a dist-info folder on the path: what pip would have put there.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading

import pytest

from revstore import plugins
from revstore.backend import Backend
from revstore.config import StorageConfig
from revstore.errors import (
    BackendBroken,
    BackendConflict,
    BackendIncompatible,
    BackendNotInstalled,
    ConfigError,
    InvalidArgument,
)
from revstore.memory import MemoryBackend
from revstore.plugins import (
    PluginState,
    list_backends,
    load_codec,
    load_transformer,
    open_backend,
    open_transformer,
)

GOOD = """
from revstore.backend import BackendInfo
from revstore.hooks import CheckResult, DoctorCheck, hookimpl

@hookimpl
def revstore_backend():
    return BackendInfo(name={name!r}, api_version={api!r}, capabilities=frozenset(),
                       description="for tests", factory=opened, drivers={drivers!r})

def opened(config, options):
    from revstore.memory import MemoryBackend
    return MemoryBackend()
"""

_numbers = itertools.count()


def module(name="mine", *, api=(1, 0), drivers=(), more=""):
    return GOOD.format(name=name, api=api, drivers=tuple(drivers)) + more


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Returns install(name, code, ...), which puts a distribution with one plugin on the path."""
    monkeypatch.syspath_prepend(tmp_path)
    modules = []

    def install(name, code, *, dist="", group="revstore.backends", version="1.2"):
        target = f"plugin_of_test_{next(_numbers)}"
        dist = dist or f"revstore-{name}"
        (tmp_path / f"{target}.py").write_text(code)
        info = tmp_path / f"{dist.replace('-', '_')}-{version}.dist-info"
        info.mkdir(exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n")
        with (info / "entry_points.txt").open("a") as file:
            file.write(f"[{group}]\n{name} = {target}\n")
        modules.append(target)
        return target

    yield install
    for target in modules:
        sys.modules.pop(target, None)


def config(name="mine", **fields):
    return StorageConfig(type=name, **fields)


def status_of(name):
    return {status.name: status for status in list_backends()}[name]


def test_installed_backend_opens(install):
    """A plugin that an entry point leads to is opened by its name."""
    install("mine", module())

    with open_backend(config()) as backend:
        assert isinstance(backend, MemoryBackend)
    assert status_of("mine").status is PluginState.OK
    assert status_of("mine").version == "1.2"


def test_memory_comes_by_the_same_hooks():
    """The built-in backend, codec and transformer are found like any other's."""
    from revstore.codec import DictCodec
    from revstore.transform import IdentityTransformer

    with open_backend(config("memory")) as backend:
        assert backend.capabilities == status_of("memory").capabilities
    assert isinstance(load_codec("json")(dict), DictCodec)
    assert isinstance(load_transformer("identity")(StorageConfig()), IdentityTransformer)


@pytest.mark.parametrize(
    "fields", [{"server_list": ["localhost:1"]}, {"options": {"path": "x"}}, {"options": {"a": 1}}]
)
def test_memory_takes_no_place(fields):
    """A path or servers given to memory would be silently lost: refused."""
    with pytest.raises(ConfigError):
        open_backend(config("memory", **fields))


def test_only_the_configured_plugin_is_imported(install):
    """Opening one backend imports no other plugin, so a broken one does no harm."""
    broken = install("broken", "raise RuntimeError('must not be imported')")
    install("mine", module())

    open_backend(config()).close()

    assert broken not in sys.modules


@pytest.mark.parametrize(
    ("name", "hint", "meant"),
    [
        ("etcd4", "", "etcd3"),
        ("memmory", "", "memory"),
        ("requests", "", ""),
    ],
)
def test_absent_backend(name, hint, meant):
    """The pip line only for names of this project; else the closest name, and what
    is installed."""
    with pytest.raises(BackendNotInstalled) as caught:
        open_backend(config(name))

    error = caught.value
    assert (error.hint, error.name) == (hint, name)
    assert "memory" in error.installed
    assert ("pip install" in str(error)) is bool(hint)
    assert not meant or repr(meant) in str(error)


BROKEN = {
    "raises at import": ("raise RuntimeError('boom')", "RuntimeError: boom"),
    "exits at import": ("raise SystemExit(3)", "SystemExit: 3"),
    "lacks its driver": ("import no_such_driver", "No module named 'no_such_driver'"),
    "does not compile": ("def (", "SyntaxError"),
    "is empty": ("", "no revstore_backend"),
    "has no marker": (module().replace("@hookimpl", ""), "is @hookimpl of revstore.hooks on it"),
    "has another project's marker": (
        module().replace("@hookimpl", "@__import__('pluggy').HookimplMarker('other')"),
        "is @hookimpl of revstore.hooks on it",
    ),
    "returns None": (
        "from revstore.hooks import hookimpl\n@hookimpl\ndef revstore_backend(): pass",
        "returned NoneType",
    ),
    "raises in its hook": (
        "from revstore.hooks import hookimpl\n@hookimpl\ndef revstore_backend(): 1/0",
        "ZeroDivisionError",
    ),
    "mistypes a hook": (
        module(more="@hookimpl\ndef revstore_bakend(): pass"),
        "unknown hook 'revstore_bakend'",
    ),
    "wants an argument that is not there": (
        "from revstore.hooks import hookimpl\n@hookimpl\ndef revstore_backend(nope): pass",
        "nope",
    ),
    "describes itself twice": (
        module(more="@hookimpl(specname='revstore_backend')\ndef again(): pass"),
        "2 times revstore_backend",
    ),
    "has another name": (module("other"), "named 'other'"),
    "has a strange version": (module(api="new"), "not a pair of numbers"),
    "is a wrapper": (
        module()
        .replace("@hookimpl", "@hookimpl(wrapper=True)")
        .replace("return Back", "yield Back"),
        "is a wrapper",
    ),
    "has options without defaults": (
        "import attrs\n@attrs.define\nclass Options:\n    path: str\n"
        + module().replace("drivers=", "options_class=Options, drivers="),
        "no default",
    ),
    "opens something else": (module().replace("return MemoryBackend()", "return 3"), "gave int"),
    "raises on opening": (module().replace("return MemoryBackend()", "1/0"), "ZeroDivisionError"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_plugin(install, how):
    """Whatever pluggy would pass over in silence is BackendBroken with the
    distribution, its version and the reason; it stays so, and others go on working."""
    code, expected = BROKEN[how]
    install("mine", code)

    for _ in range(2):
        with pytest.raises(BackendBroken) as caught:
            open_backend(config())
        error = caught.value
        assert (error.distribution, error.version) == ("revstore-mine", "1.2")
        assert expected in str(error)
    open_backend(config("memory")).close()
    if "open" not in how:
        assert status_of("mine").status is PluginState.BROKEN
        assert expected in status_of("mine").reason
    assert status_of("memory").status is PluginState.OK


def test_mended_plugin_works(install, tmp_path):
    """After a failure nothing stays registered that would fail the next load."""
    target = install("mine", module(more="@hookimpl\ndef revstore_bakend(): pass"))
    with pytest.raises(BackendBroken):
        open_backend(config())

    sys.modules.pop(target)
    (tmp_path / f"{target}.py").write_text(module())

    open_backend(config()).close()


@pytest.mark.parametrize(
    ("api", "fits"),
    [((1, 0), True), ((1, 1), True), ((1, 2), False), ((2, 0), False), ((0, 9), False)],
)
def test_api_version(install, api, fits):
    """The same major and no higher minor number fits; else the error says what to upgrade."""
    install("mine", module(api=api))

    if fits:
        open_backend(config()).close()
        return
    with pytest.raises(BackendIncompatible) as caught:
        open_backend(config())
    assert caught.value.plugin_api == api
    assert f"upgrade {'revstore-mine' if api < (1, 0) else 'revstore'}" in str(caught.value)
    assert status_of("mine").status is PluginState.INCOMPATIBLE
    assert status_of("mine").api_version == api


def test_two_distributions_with_one_name(install):
    """Two distributions with one name: the error names both, whatever the order on the path."""
    install("mine", module(), dist="revstore-a")
    install("mine", module(), dist="revstore-b")

    with pytest.raises(BackendConflict) as caught:
        open_backend(config())

    assert sorted(caught.value.distributions) == ["revstore-a 1.2", "revstore-b 1.2"]
    rows = [row for row in list_backends(fast=True) if row.name == "mine"]
    assert [row.status for row in rows] == [PluginState.CONFLICT] * 2


@pytest.mark.parametrize("name", ["memory", "sqlite", "etcd3", "etcd2"])
def test_reserved_name(install, monkeypatch, name):
    """A name of this project cannot be claimed by another distribution; the error
    names the intruder, and switching that off helps."""
    install(name, module(name), dist="fast-storage")

    with pytest.raises(BackendConflict, match="reserved") as caught:
        open_backend(config(name))
    assert caught.value.distributions == ("fast-storage 1.2",)

    monkeypatch.setenv("REVSTORE_DISABLE_PLUGINS", "Fast_Storage")
    if name == "memory":
        open_backend(config(name)).close()
    else:
        assert [row.status for row in list_backends() if row.distribution == "fast-storage"] == [
            PluginState.BLOCKED
        ]


def test_reserved_codec(install):
    """The built-in codec's and transformer's names are reserved too."""
    install("json", "", dist="fast-json", group="revstore.codecs")
    install("identity", "", dist="fast-identity", group="revstore.transformers")

    with pytest.raises(BackendConflict, match="codec name 'json' is reserved"):
        load_codec("json")
    with pytest.raises(BackendConflict, match="transformer name 'identity' is reserved"):
        load_transformer("identity")


def test_reserved_wrapper(install):
    """The built-in wrapper's name is reserved too: nobody else gets between by it."""
    install("metrics", "", dist="fast-metrics", group="revstore.wrappers")

    with pytest.raises(BackendConflict, match="wrapper name 'metrics' is reserved"):
        open_backend(StorageConfig(type="memory", wrappers=("metrics",)))


@pytest.mark.parametrize(
    ("variable", "value", "blocked"),
    [
        ("REVSTORE_PLUGINS", "", True),
        ("REVSTORE_PLUGINS", "other", True),
        ("REVSTORE_PLUGINS", "other, mine", False),
        ("REVSTORE_PLUGINS", "revstore-mine", False),
        ("REVSTORE_DISABLE_PLUGINS", "mine", True),
        ("REVSTORE_DISABLE_PLUGINS", "revstore_mine", True),
        ("REVSTORE_DISABLE_PLUGINS", "", False),
    ],
)
def test_switches(install, monkeypatch, variable, value, blocked):
    """REVSTORE_PLUGINS and REVSTORE_DISABLE_PLUGINS take names of plugins or distributions; the
    core's own plugins need no leave. A plugin that is switched off is not imported."""
    target = install("mine", module())
    monkeypatch.setenv(variable, value)

    open_backend(config("memory")).close()
    if not blocked:
        open_backend(config()).close()
        return
    with pytest.raises(BackendNotInstalled, match=f"disabled by {variable}"):
        open_backend(config())
    assert status_of("mine").status is PluginState.BLOCKED
    assert target not in sys.modules


def test_strict(install, monkeypatch):
    """REVSTORE_STRICT_PLUGINS makes another backend's failure an error at opening."""
    install("broken", "raise RuntimeError")
    monkeypatch.setenv("REVSTORE_STRICT_PLUGINS", "1")
    monkeypatch.setenv("REVSTORE_PLUGINS", "broken")

    with pytest.raises(BackendBroken, match="'broken'"):
        open_backend(config("memory"))

    monkeypatch.setenv("REVSTORE_PLUGINS", "")
    open_backend(config("memory")).close()


def test_trace(install, monkeypatch, capsys):
    """REVSTORE_TRACE_PLUGINS tells on standard error what is imported and opened."""
    install("mine", module())
    monkeypatch.setenv("REVSTORE_TRACE_PLUGINS", "1")

    open_backend(config()).close()

    assert "mine: importing plugin_of_test" in capsys.readouterr().err


def test_list_fast_imports_nothing(install):
    """The fast list reads metadata only."""
    target = install("mine", module())

    rows = {row.name: row for row in list_backends(fast=True)}

    assert rows["mine"].status is PluginState.UNCHECKED
    assert target not in sys.modules


def test_check_imports_drivers(install):
    """check_backend imports the drivers and tells their versions; listing does not."""
    install("mine", module(drivers=("attrs", "no_such_driver")))

    assert status_of("mine").status is PluginState.OK
    checked = plugins.check_backend("mine")
    assert checked.status is PluginState.BROKEN
    assert "no_such_driver" in checked.reason
    assert "revstore.memory" in plugins.check_backend("memory").drivers
    with pytest.raises(BackendNotInstalled):
        plugins.check_backend("nope")


def test_register_in_code(install):
    """register_backend makes a module a backend without a distribution and goes over installed
    ones; reserved names and second targets are refused."""
    install("mine", "raise RuntimeError")
    target = install("elsewhere", module())
    plugins.register_backend("mine", target)
    try:
        plugins.register_backend("mine", target)
        open_backend(config()).close()
        with pytest.raises(InvalidArgument):
            plugins.register_backend("mine", "some.other")
    finally:
        plugins.unregister_backend("mine")

    with pytest.raises(BackendBroken):
        open_backend(config())
    with pytest.raises(InvalidArgument, match="reserved"):
        plugins.register_backend("sqlite", target)


WRAPPER = """
from revstore.hooks import hookimpl
import revstore.memory

class Seen(revstore.memory.MemoryBackend):
    def __init__(self, label, inner):
        super().__init__()
        self.seen, self.inner = label, inner
    def close(self):
        super().close()
        self.inner.close()

@hookimpl(wrapper=True)
def revstore_open_backend(info, config):
    backend = yield
    return Seen({label!r}, backend)
"""


def test_wrappers(install):
    """Only wrappers that the config lists run, the first outermost, and backends
    have no say in it."""
    intruding = "@hookimpl\ndef revstore_open_backend(info, config): return 3"
    install("mine", module(more=intruding))
    for name in ("outer", "inner", "unused"):
        code = WRAPPER.format(label=name) if name != "unused" else "raise RuntimeError"
        install(name, code, group="revstore.wrappers")

    with open_backend(config(wrappers=["outer", "inner"])) as backend:
        assert (backend.seen, backend.inner.seen) == ("outer", "inner")
        assert type(backend.inner.inner) is MemoryBackend
    with pytest.raises(BackendNotInstalled, match="wrapper 'absent'"):
        open_backend(config(wrappers=["absent"]))


def test_wrapper_that_fails_leaks_nothing(install):
    """If a wrapper raises after the store was opened, the store is closed again."""
    install(
        "bad",
        WRAPPER.format(label="x").replace("return Seen", "1/0\n    return Seen"),
        group="revstore.wrappers",
    )
    install(
        "plain",
        "from revstore.hooks import hookimpl\n@hookimpl\n"
        "def revstore_open_backend(info, config): pass",
        group="revstore.wrappers",
    )
    before = threading.active_count()

    with pytest.raises(BackendBroken, match="ZeroDivisionError"):
        open_backend(config("memory", wrappers=["bad"]))

    assert threading.active_count() == before
    with pytest.raises(BackendBroken, match=r"wrapper=True"):
        open_backend(config("memory", wrappers=["plain"]))


CODEC = """
from revstore.hooks import hookimpl

@hookimpl
def revstore_codecs(register):
    register("cbor", lambda object_type: ("cbor", object_type))

@hookimpl
def revstore_transformers(register):
    {transformers}
"""


def test_codecs_and_transformers(install):
    """Third parties add codecs and transformers; what a plugin registers wrongly is told."""
    code = CODEC.format(transformers="register('rot', lambda config: config.prefix)")
    install("cbor", code, group="revstore.codecs")
    install("rot", code, group="revstore.transformers")
    install("other", code, group="revstore.transformers", dist="revstore-other")
    twice = "register('twice', int); register('twice', int)"
    install("twice", CODEC.format(transformers=twice), group="revstore.transformers")

    assert load_codec("cbor")(dict) == ("cbor", dict)
    assert load_transformer("rot")(StorageConfig()) == "/registry"
    with pytest.raises(BackendBroken, match="registered 'rot', not 'other'"):
        load_transformer("other")
    with pytest.raises(BackendBroken, match="registered twice"):
        load_transformer("twice")
    with pytest.raises(BackendNotInstalled, match="codec 'yaml' is not installed"):
        load_codec("yaml")


def test_commands(install, monkeypatch):
    """Subcommands are listed without importing, and added when asked for."""
    command = "from revstore.hooks import hookimpl\n@hookimpl\ndef revstore_commands(cli): {}"
    target = install("hello", command.format("cli.append('hello')"), group="revstore.commands")
    install("crash", command.format("1/0"), group="revstore.commands")
    cli: list[str] = []

    assert {"crash", "hello"} <= set(plugins.command_names())
    assert target not in sys.modules
    plugins.load_command("hello", cli)
    assert cli == ["hello"]
    with pytest.raises(BackendBroken, match="command 'crash'"):
        plugins.load_command("crash", cli)
    monkeypatch.setenv("REVSTORE_PLUGINS", "hello")
    assert plugins.command_names() == ("hello",)


def test_a_command_of_this_project_says_how_to_get_it(monkeypatch):
    """A command that is not installed is not "no such command" if a distribution here has it."""
    monkeypatch.setattr("revstore.plugins._find.declared", lambda group: iter(()))

    assert plugins.has_command("serve")
    assert not plugins.has_command("server")
    with pytest.raises(BackendNotInstalled, match=r"command 'serve'.*pip install revstore-serve"):
        plugins.load_command("serve", [])


def test_doctor(install):
    """A backend's own checks come back; one that raises is a failed check without secrets."""
    good = "@hookimpl\ndef revstore_doctor(config): return [DoctorCheck(name='a', result='ok')]"
    bad = "@hookimpl\ndef revstore_doctor(config): raise ValueError(config.password.reveal())"
    install("mine", module(more=good))
    install("sick", module("sick", more=bad))

    assert [check.name for check in plugins.run_doctor(config())] == ["a"]
    assert plugins.run_doctor(config("memory")) == ()
    (check,) = plugins.run_doctor(config("sick", username="ann", password="hunter2-planted"))
    assert (check.result, check.detail) == ("failed", "ValueError: ***")


def test_failing_driver_shows_no_secret(install):
    """What a driver says on opening is told without the password and the options
    that are secret."""
    options = (
        "import attrs\nfrom revstore.secret import Secret\n@attrs.frozen\nclass Options:\n"
        "    token: Secret | None = None\n"
    )
    code = (
        module()
        .replace("drivers=", "options_class=Options, drivers=")
        .replace(
            "return MemoryBackend()", "raise OSError(f'no {config.password.reveal()} {TOKEN}')"
        )
        .replace("TOKEN", "options.token.reveal()")
    )
    install("mine", options + code)

    with pytest.raises(BackendBroken, match=r"OSError: no \*\*\* \*\*\*") as caught:
        open_backend(config(username="ann", password="planted-1", options={"token": "planted-2"}))

    assert "planted" not in repr(caught.value)


def test_opening_from_many_threads(install):
    """Look-up needs no lock: many threads open different backends at once, each gets its own."""
    for name in ("mine", "other"):
        install(name, module(name))
    results: list[Backend] = []
    barrier = threading.Barrier(8)

    def work(name):
        barrier.wait(10)
        results.extend(open_backend(config(name)) for _ in range(20))

    threads = [threading.Thread(target=work, args=(n,)) for n in ("mine", "other") * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(results) == 160
    for backend in results:
        backend.close()


def test_listing_imports_no_driver():
    """`plugins list` imports the light modules only."""
    code = (
        "import sys, revstore.plugins as p; p.list_backends()\n"
        "bad = {'sqlalchemy', 'grpc', 'click', 'rich', 'revstore.memory'} & set(sys.modules)\n"
        "sys.exit(str(sorted(bad)) if bad else 0)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")


HOOK = "from revstore.hooks import hookimpl\n@hookimpl{}\ndef {}: {}"
MUTE = "class Mute(Exception):\n    def __str__(self): raise RuntimeError\n"
PLACES = {
    "import": ("backends", "{fail}"),
    "revstore_backend": ("backends", HOOK.format("", "revstore_backend()", "{fail}")),
    "opening": ("backends", module().replace("return MemoryBackend()", "{fail}")),
    "wrapper before": (
        "wrappers",
        HOOK.format("(wrapper=True)", "revstore_open_backend(info)", "\n    {fail}\n    yield"),
    ),
    "wrapper after": (
        "wrappers",
        HOOK.format("(wrapper=True)", "revstore_open_backend(info)", "\n    yield\n    {fail}"),
    ),
    "revstore_codecs": ("codecs", HOOK.format("", "revstore_codecs()", "{fail}")),
    "codec": (
        "codecs",
        HOOK.format("", "revstore_codecs(register)", "register('mine', made)")
        + "\ndef made(_): {fail}",
    ),
    "revstore_transformers": ("transformers", HOOK.format("", "revstore_transformers()", "{fail}")),
    "transformer": (
        "transformers",
        HOOK.format("", "revstore_transformers(register)", "register('mine', made)")
        + "\ndef made(_): {fail}",
    ),
    "for_resource": (
        "transformers",
        HOOK.format("", "revstore_transformers(register)", "register('mine', made)")
        + "\nclass Made:\n    def for_resource(self, _): {fail}"
        + "\ndef made(_): return Made()",
    ),
    "revstore_commands": ("commands", HOOK.format("", "revstore_commands()", "{fail}")),
}
USES = {
    "backends": lambda: open_backend(config()).close(),
    "wrappers": lambda: open_backend(config("memory", wrappers=["mine"])).close(),
    "codecs": lambda: load_codec("mine")(dict),
    "transformers": lambda: open_transformer(StorageConfig(transformer="mine"), "pods"),
    "commands": lambda: plugins.load_command("mine", []),
}


@pytest.mark.parametrize("kind", ["ValueError", "Mute", "SystemExit", "KeyboardInterrupt"])
@pytest.mark.parametrize("place", PLACES)
def test_whatever_a_plugin_raises(install, place, kind):
    """It is broken, by its name; a plugin that calls sys.exit ends no program. Ctrl-C comes out."""
    group, code = PLACES[place]
    code = MUTE + code.replace("{fail}", f"raise {kind}")
    install("mine", code, group=f"revstore.{group}")
    before = threading.active_count()

    with pytest.raises(KeyboardInterrupt if kind == "KeyboardInterrupt" else BackendBroken) as it:
        USES[group]()

    assert kind == "KeyboardInterrupt" or kind in str(it.value)
    assert threading.active_count() == before


@pytest.mark.parametrize("kind", ["ValueError", "Mute", "SystemExit"])
def test_whatever_a_check_raises(install, kind):
    """It is a failed check."""
    more = f"{MUTE}@hookimpl\ndef revstore_doctor(config): raise {kind}"
    install("mine", module(more=more))

    (check,) = plugins.run_doctor(config())
    assert (check.result, check.detail) == ("failed", kind)
