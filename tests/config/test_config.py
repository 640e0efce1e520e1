"""StorageConfig: its sources, its precedence, and what it refuses."""

from __future__ import annotations

import json
import pickle
import traceback
import typing
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from revstore import kinds
from revstore.backend import BackendInfo
from revstore.config import ResourceConfig, Secret, StorageConfig, redact_url
from revstore.errors import ConfigError
from revstore.plugins import open_backend, validate_options

PLANTED = "hunter2-planted"

URLS = [
    ("memory://", {"type": "memory"}, {}),
    ("MEMORY://", {"type": "memory"}, {}),
    ("sqlite://", {"type": "sqlite"}, {}),
    ("sqlite:///cluster.db", {"type": "sqlite"}, {"path": "cluster.db"}),
    ("sqlite:////var/lib/cluster.db", {"type": "sqlite"}, {"path": "/var/lib/cluster.db"}),
    ("sqlite:///a%20b%23.db", {"type": "sqlite"}, {"path": "a b#.db"}),
    ("sqlite:///a@b.db", {"type": "sqlite"}, {"path": "a@b.db"}),
    (
        "sqlite:///c.db?poll_interval=50ms&prefix=/x&quorum=no",
        {"prefix": "/x", "quorum": False},
        {"path": "c.db", "poll_interval": "50ms"},
    ),
    (
        "etcd3://h1:2379,h2:2379/a/b?ca_file=ca.pem",
        {"server_list": ("h1:2379", "h2:2379"), "prefix": "/a/b", "ca_file": "ca.pem"},
        {},
    ),
    ("etcd3://[::1]:2379", {"server_list": ("[::1]:2379",), "prefix": "/registry"}, {}),
    (
        "etcd3://ann:p%40ss@localhost:2379",
        {"username": "ann", "password": Secret("p@ss"), "server_list": ("localhost:2379",)},
        {},
    ),
    (
        "etcd3://?server_list=https://h1,https://h2&server_list=https://h3",
        {"server_list": ("https://h1", "https://h2", "https://h3")},
        {},
    ),
]


@pytest.mark.parametrize(("url", "fields", "options"), URLS)
def test_url_says_where(url, fields, options):
    """A URL's scheme, hosts, path, user and query go to the fields and options documented."""
    config = StorageConfig.from_url(url)

    assert fields == {name: getattr(config, name) for name in fields}
    assert options == dict(config.options)


BAD_URLS = [
    ("cluster.db", "sqlite:///cluster.db"),
    ("sqlite://x.db", "write 'sqlite:///x.db'"),
    ("SQLite://x.db?poll_interval=1", "write 'sqlite:///x.db'"),
    ("sqlite://folder/x.db", "write 'sqlite:///folder/x.db'"),
    ("sqlite://./x.db", "write 'sqlite:///./x.db'"),
    ("sqlite://my store.db", "write 'sqlite:///my store.db'"),
    ("sqlite:x.db", "write 'sqlite:///x.db'"),
    ("sqlite:/var/x.db", "write 'sqlite:////var/x.db'"),
    (f"sqlite://ann:{PLANTED}@x.db", "write 'sqlite:///PATH'"),
    ("just words", "SCHEME://"),
    ("", "SCHEME://"),
    ("sqlite:///a#b", "%23"),
    ("sqlite:///a?x", "NAME=VALUE"),
    ("sqlite:///a?quorum=true&quorum=false", "quorum once"),
    ("sqlite:///a?path=b", "path once"),
    ("memory://?type=sqlite", "type once"),
    (f"etcd3://ann:{PLANTED}@", "a host"),
    (f"etcd3://ann:x/{PLANTED}@h", "%2F"),
    (f"etcd3://ann:x?{PLANTED}=@h", "%3F"),
    (f"etcd3:ann:{PLANTED}@h", "SCHEME://"),
]


@pytest.mark.parametrize(("url", "expected"), BAD_URLS)
def test_bad_url_is_refused(url, expected):
    """A URL that cannot be read is a ConfigError for "url" that says what would do, without
    userinfo."""
    with pytest.raises(ConfigError) as caught:
        StorageConfig.from_url(url)

    assert caught.value.field == "url"
    assert expected in str(caught.value)
    assert PLANTED not in everything_shown(caught.value)


BAD_VALUES = [
    ("type", 3, "a string"),
    ("type", "No/Name", "a plugin's name"),
    ("prefix", "/a/../b", "'..'"),
    ("prefix", "/a\0", "without NUL"),
    ("prefix", "/\ud800", "UTF-8"),
    ("server_list", "h1", "a list of strings"),
    ("server_list", ["h1", 2], "a list of strings"),
    ("server_list", ["h1:99999"], "HOST:PORT"),
    ("server_list", ["ftp://h1"], "HOST:PORT"),
    ("server_list", ["http://h1", "https://h2"], "not both"),
    ("quorum", "true", "true or false"),
    ("quorum", 1, "true or false"),
    ("deserialization_cache_size", -1, "at least 0"),
    ("deserialization_cache_size", True, "a whole number"),
    ("codec", "", "a plugin's name"),
    ("copier", "lend", "one of auto, share, deep"),
    ("wrappers", ["ok", "not ok"], "a plugin's name"),
    ("compaction_interval", -1, "a number of seconds"),
    ("compaction_interval", float("nan"), "a number of seconds"),
    ("compaction_interval", "5 minutes", "a number of seconds"),
    ("event_history_window", 74.9, "at least 75"),
    ("lease_max_object_count", 0, "at least 1"),
    ("lease_max_object_count", 1.5, "a whole number"),
    ("password", 7, "a string"),
    ("key_file", "k.pem", "cert_file and key_file go together"),
    ("password_file", "pw", "a password is given"),
    ("options", 3, "a mapping"),
    ("overrides", {"events": 3}, "a mapping"),
    ("resources", {"widgets": {"namespaced": True}}, 'a string "kind"'),
    ("resources", {"widgets": {"kind": "Widget", "scope": "x"}}, "unknown key"),
]


@pytest.mark.parametrize(("field", "value", "expected"), BAD_VALUES)
def test_bad_value_in_code_is_refused_by_name(field, value, expected):
    """A value of a wrong type or out of range is a ConfigError that says what was expected
    (CACHE-1 for the history window)."""
    with pytest.raises(ConfigError) as caught:
        StorageConfig(**{field: value})

    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m", 300),
        ("60s", 60),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("2d", 172800),
        ("7.5", 7.5),
        (0, 0),
    ],
)
def test_durations(text, seconds):
    """Durations are seconds, or strings with units."""
    assert seconds == StorageConfig(compaction_interval=text).compaction_interval


def test_defaults_are_the_originals():
    """CFG-1 to CFG-3, OLD-34: the defaults of storagebackend.Config and its options."""
    config = StorageConfig()

    assert (config.prefix, config.codec, config.transformer) == ("/registry", "json", "identity")
    assert (config.compaction_interval, config.event_history_window) == (300, 75)
    assert (config.lease_reuse_duration, config.lease_max_object_count) == (60, 1000)
    assert (config.healthcheck_timeout, config.readycheck_timeout) == (2, 2)
    assert (config.count_metric_poll_period, config.db_metric_poll_interval) == (60, 30)
    assert config.quorum
    assert not config.tls_enabled
    assert StorageConfig(healthcheck_timeout=0).healthcheck_timeout == 2


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "sqlite"),
        ({"server_list": ["localhost:2379"]}, "etcd3"),
        ({"server_list": ["localhost:2379"], "type": "etcd2"}, "etcd2"),
        ({"type": "memory"}, "memory"),
    ],
)
def test_unset_type(fields, expected):
    """CFG-1: an unset type means etcd3 if servers are given, else sqlite."""
    assert expected == StorageConfig(**fields).resolved_type


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [("registry", "/registry"), ("/a/b/", "/a/b"), ("", "/"), ("/", "/")],
)
def test_prefix_is_normalised(prefix, expected):
    """A prefix starts with one slash and ends with none."""
    assert expected == StorageConfig(prefix=prefix).prefix


TOML = """
type = "sqlite"
prefix = "/cluster"
compaction_interval = "1h"
quorum = false

[options]
path = "cluster.db"
poll_interval = 0.05

[overrides.events]
url = "memory://"
compaction_interval = 0

[overrides."*.apps"]
prefix = "/apps"

[resources."widgets.example.com"]
kind = "Widget"
namespaced = false
short_names = ["wd"]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "cluster.toml"
    path.write_text(text)
    return path


def test_toml_file(tmp_path):
    """Fields, options, overrides and resources are read from TOML."""
    config = StorageConfig.from_toml(write(tmp_path, TOML))

    assert (
        config.type,
        config.prefix,
        config.compaction_interval,
        config.quorum,
    ) == ("sqlite", "/cluster", 3600.0, False)
    assert dict(config.options) == {"path": "cluster.db", "poll_interval": 0.05}
    widget = ResourceConfig(kind="Widget", namespaced=False, short_names=("wd",))
    assert {"widgets.example.com": widget} == dict(config.resources)


def test_url_in_a_file_gives_way_to_fields_beside_it(tmp_path):
    """Within one source, a field set by itself goes over the same field in the url."""
    path = write(tmp_path, 'url = "sqlite:///a.db?prefix=/a&quorum=no"\nprefix = "/b"\n')

    config = StorageConfig.from_toml(path)

    assert (config.prefix, config.quorum, dict(config.options)) == ("/b", False, {"path": "a.db"})


BAD_FILES = [
    ("prefx = '/x'", "prefx", "did you mean 'prefix'?"),
    ("nonsense = 1", "nonsense", "expected one of"),
    ("quorum = 'yes'", "quorum", "invalid quorum 'yes': expected true or false"),
    ("options = 3", "options", "expected a table"),
    ("[overrides]\nevents = 'x'", "overrides.events", "expected a table"),
    ("[overrides.events]\nprefx = 1", "overrides.events.prefx", "overrides.events.prefix"),
    ("[overrides.events]\nprefix = 1", "overrides.events.prefix", "a string"),
    ("[overrides.events.overrides]\nx = 1", "overrides.events.overrides", "unknown key"),
    ("[overrides.events]\nurl = 'x.db'", "overrides.events.url", "sqlite:///x.db"),
    ("[resources.widgets]\nkind = 3", "resources.widgets", 'a string "kind"'),
    ("[resources.widgets]\nkind = 'W'\nnamespaced = 'x'", "resources.widgets.namespaced", "true"),
    ("prefix = '/a'\nquorum = \n", "config", "line 2"),
    ("url = 5", "url", "a URL"),
]


@pytest.mark.parametrize(("text", "field", "expected"), BAD_FILES)
def test_bad_file_is_refused_with_its_name(tmp_path, text, field, expected):
    """What a file gives wrongly is refused with the file's name, the key and what was expected."""
    path = write(tmp_path, text)

    with pytest.raises(ConfigError) as caught:
        StorageConfig.from_toml(path)

    assert field == caught.value.field
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)


def test_unreadable_files_are_refused(tmp_path):
    """An absent file, a folder and bytes that are no UTF-8 are refused by name."""
    (tmp_path / "binary.toml").write_bytes(b"type = 'x'\n\xff\xfe")

    for name, expected in [
        ("absent.toml", "No such file"),
        ("", "directory"),
        ("binary.toml", "line 2"),
    ]:
        with pytest.raises(ConfigError, match=expected) as caught:
            StorageConfig.from_toml(tmp_path / name)
        assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfprefix = '/x'\n",
        b"prefix = '/x'\r\nquorum = true\r\n",
        b"\xef\xbb\xbf# notes\r\n\r\nprefix = '/x'",
    ],
)
def test_files_of_other_editors(tmp_path, data):
    """A byte order mark and line ends of CR LF change nothing."""
    path = tmp_path / "c.toml"
    path.write_bytes(data)

    assert StorageConfig.from_toml(path) == StorageConfig(prefix="/x")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_file_in_utf_16_is_named_so(tmp_path, encoding):
    """The error says what to do."""
    path = tmp_path / "c.toml"
    path.write_bytes("prefix = '/x'\n".encode(encoding))

    with pytest.raises(ConfigError, match=r"c\.toml.*save it as UTF-8"):
        StorageConfig.from_toml(path)


@pytest.mark.parametrize("data", [b"", b"\n", b"\r\n", b"# nothing yet\n", b"\xef\xbb\xbf"])
def test_a_file_that_says_nothing(tmp_path, data):
    """It is all defaults, as TOML has it."""
    path = tmp_path / "c.toml"
    path.write_bytes(data)

    assert StorageConfig.from_toml(path) == StorageConfig()


@pytest.mark.parametrize(
    ("variables", "kept"),
    [
        ({}, True),
        ({"TYPE": "etcd2"}, True),
        ({"URL": "etcd2://h9"}, True),
        ({"SERVER_LIST": "h9"}, False),
        ({"TYPE": "sqlite"}, False),
        ({"URL": "sqlite:///x.db"}, False),
    ],
)
def test_options_of_the_environment_under_a_url(variables, kept):
    """REVSTORE_OPTIONS__X reaches the backend that a URL in code names, unless the environment
    itself names another, whose option it is."""
    environ = {f"REVSTORE_{name}": value for name, value in variables.items()}

    config = StorageConfig.load(
        "etcd2://localhost:1", {**environ, "REVSTORE_OPTIONS__DIAL_TIMEOUT": "abc"}
    )

    assert (config.type, config.server_list) == ("etcd2", ("localhost:1",))
    assert dict(config.options) == ({"dial_timeout": "abc"} if kept else {})


def test_environment():
    """REVSTORE_* variables: every plain field, __ one level down, empty ones unset."""
    config = StorageConfig.from_env(
        {
            "REVSTORE_TYPE": "etcd3",
            "REVSTORE_SERVER_LIST": "localhost:1, localhost:2",
            "REVSTORE_QUORUM": "off",
            "REVSTORE_USERNAME": "ann",
            "REVSTORE_PASSWORD": PLANTED,
            "REVSTORE_PREFIX": "",
            "REVSTORE_LEASE_MAX_OBJECT_COUNT": "7",
            "REVSTORE_OPTIONS__POLL_INTERVAL": "50ms",
            "REVSTORE_OVERRIDES__EVENTS__URL": "memory://",
            "REVSTORE_PLUGINS": "etcd3",
            "REVSTORE_TEST_SERVER": "left to tests",
            "HOME": "/",
        }
    )

    assert config.server_list == ("localhost:1", "localhost:2")
    assert (config.quorum, config.prefix, config.lease_max_object_count) == (False, "/registry", 7)
    assert Secret(PLANTED) == config.password
    assert dict(config.options) == {"poll_interval": "50ms"}
    assert config.for_resource("events").resolved_type == "memory"
    assert config.sources["quorum"].label == "REVSTORE_QUORUM"


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("REVSTORE_PREFX", "/x", "did you mean 'REVSTORE_PREFIX'"),
        ("REVSTORE_QUORUM", "perhaps", "REVSTORE_QUORUM: invalid quorum 'perhaps'"),
        ("REVSTORE_URL", "x.db", "REVSTORE_URL: invalid url 'x.db'"),
        ("REVSTORE_URL", "memory://?quorum=x", "REVSTORE_URL: invalid quorum"),
        ("REVSTORE_CONFIG", "/absent/x.toml", "/absent/x.toml: cannot be read"),
        ("REVSTORE_OVERRIDES__EVENTS__PREFX", "x", "unknown variable"),
        ("REVSTORE_OVERRIDES__EVENTS__QUORUM", "x", "REVSTORE_OVERRIDES__EVENTS__QUORUM: invalid"),
        ("REVSTORE_OPTIONS", "x", "expected REVSTORE_OPTIONS__NAME"),
        ("REVSTORE_OVERRIDES__EVENTS", "x", "expected REVSTORE_OVERRIDES__RESOURCE__NAME"),
        ("REVSTORE_USERNAME", "\udc80", "REVSTORE_USERNAME: invalid username"),
        ("REVSTORE_SERVER_LIST", "\udc80", "REVSTORE_SERVER_LIST: invalid server_list"),
    ],
)
def test_bad_variable_is_refused_by_its_name(variable, value, expected):
    """A variable that is unknown or holds what will not do is named."""
    with pytest.raises(ConfigError) as caught:
        StorageConfig.from_env({variable: value})

    assert expected in str(caught.value)


def test_two_spellings_of_one_variable_are_refused():
    """Either may be what is meant."""
    with pytest.raises(ConfigError, match="REVSTORE_PREFIX and REVSTORE_prefix"):
        StorageConfig.from_env({"REVSTORE_prefix": "/a", "REVSTORE_PREFIX": "/b"})


SECONDS = [name for name, kind in typing.get_type_hints(StorageConfig).items() if kind is float]
COUNTS = [name for name, kind in typing.get_type_hints(StorageConfig).items() if kind is int]


@given(
    st.sampled_from(SECONDS),
    st.integers(-5, 10**20)
    | st.floats()
    | st.sampled_from([10**400, 10**12, 10**12 + 1, 1e400, -(10**5000), True]),
)
def test_every_number_of_seconds_has_one_range(name, value):
    """From code as from text: what is taken can be waited for, and all else is refused here, not by
    what is opened with it."""
    makers = [lambda: StorageConfig(**{name: value})]
    if not abs(value) > 10**400:
        text = {f"REVSTORE_{name.upper()}": repr(value)}
        makers.append(lambda: StorageConfig.from_env(text))
    for make in makers:
        if 75 <= value <= 10**12 and value is not True:
            assert type(getattr(make(), name)) is float
        elif not 0 <= value <= 10**12:
            with pytest.raises(ConfigError, match=f"invalid {name} "):
                make()


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [2**63, 10**5000, -(10**5000), True, 1.0, "1"], ids=type)
def test_every_count_has_one_range(name, value):
    """As those of the calls."""
    with pytest.raises(ConfigError, match=f"invalid {name} "):
        StorageConfig(**{name: value})


@pytest.mark.parametrize("digits", ["\uff11", "\u0663", "1\u0660"])
def test_digits_are_those_of_ascii(digits):
    """In durations as in counts."""
    for name in (*SECONDS, *COUNTS):
        with pytest.raises(ConfigError, match=f"invalid {name} "):
            StorageConfig.from_env({f"REVSTORE_{name.upper()}": digits})


@pytest.mark.parametrize("name", ["*", "*.", "Events", "po*", "*pods", "*.*", "pods/status", "a%b"])
def test_a_name_that_no_resource_has_is_refused(name):
    """It would never be found, and the resource would lie in the main store."""
    with pytest.raises(ConfigError, match="overrides"):
        StorageConfig(overrides={name: {"prefix": "/x"}})
    with pytest.raises(ConfigError, match="resources"):
        StorageConfig(resources={name: {"kind": "X"}})


@pytest.mark.parametrize(
    "kind", ["", " ", "a b", "a/b", "Pod.v1", "-x", "x-", "3D", "*", "a\u200bb"]
)
def test_a_kind_that_no_object_has_is_refused(tmp_path, kind):
    """Nothing would ever be of it; the field is named."""
    with pytest.raises(ConfigError, match=r"resources\.widgets\.kind"):
        StorageConfig(resources={"widgets": {"kind": kind}})
    path = write(tmp_path, f"[resources.widgets]\nkind = {json.dumps(kind)}\n")
    with pytest.raises(ConfigError, match=r"cluster\.toml.*resources\.widgets\.kind"):
        StorageConfig.load(path)


@pytest.mark.parametrize(
    "name", ["-w", "w-", "a,b", "w.", ".w", "widgets.example", "w.a..b", "w.-a.b"]
)
def test_a_plural_or_group_that_no_resource_has_is_refused(name):
    """A group of one's own has a dot, as in apiVersion."""
    with pytest.raises(ConfigError, match="resources"):
        StorageConfig(resources={name: {"kind": "Widget"}})


@pytest.mark.parametrize("short", ["", "w d", "w/d", "w.d", "w,d", "-w"])
def test_a_short_name_that_nobody_can_write_is_refused(short):
    """On the command line it would be several words, or a name of another form."""
    with pytest.raises(ConfigError, match=r"resources\.widgets\.short_names"):
        StorageConfig(resources={"widgets": {"kind": "Widget", "short_names": [short]}})


@given(st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]*\Z"), st.sampled_from(["", ".apps", ".example.com"]))
def test_every_class_may_be_declared(name, group):
    """Its kind is its name, its plural the name in lower case: what a class can have, the
    configuration takes."""
    resource = kinds.plural_of(name) + group
    config = StorageConfig(resources={resource: {"kind": name, "short_names": ["WD"]}})

    assert kinds.lookup(resource, config.resources).kind == name
    assert kinds.lookup(f"wd{group}", config.resources).kind == name


def test_environment_goes_over_file(tmp_path):
    """Precedence: environment over the file that REVSTORE_CONFIG names; options are joined."""
    path = write(tmp_path, TOML)

    config = StorageConfig.from_env(
        {
            "REVSTORE_CONFIG": str(path),
            "REVSTORE_PREFIX": "/env",
            "REVSTORE_OPTIONS__PATH": "env.db",
            "REVSTORE_OVERRIDES__EVENTS__PREFIX": "/ev",
        }
    )

    assert (config.prefix, config.compaction_interval) == ("/env", 3600.0)
    assert dict(config.options) == {"path": "env.db", "poll_interval": 0.05}
    events = config.for_resource("events")
    assert (events.type, events.prefix, events.compaction_interval) == ("memory", "/ev", 0)


def test_url_of_a_higher_layer_replaces_the_store_below(tmp_path):
    """A REVSTORE_URL replaces the file's servers, credentials and another backend's options, so
    that no password goes where it does not belong (SF-4); other fields stay."""
    path = write(
        tmp_path,
        'server_list = ["localhost:1"]\nusername = "ann"\npassword = "x"\nprefix = "/p"\n'
        "[options]\nkeepalive = 3\n",
    )

    config = StorageConfig.from_env({"REVSTORE_CONFIG": str(path), "REVSTORE_URL": "memory://"})

    assert StorageConfig(type="memory", prefix="/p") == config


def test_load_takes_what_programs_have(tmp_path):
    """load: a config as it is; a URL or file over or under the variables as documented."""
    path = write(tmp_path, TOML)
    environ = {
        "REVSTORE_URL": "etcd3://localhost:9",
        "REVSTORE_CONFIG": "/absent.toml",
        "REVSTORE_PASSWORD": PLANTED,
        "REVSTORE_PREFIX": "/env",
    }
    config = StorageConfig()

    from_url = StorageConfig.load("etcd3://ann@localhost:1/code", environ)
    for file in (path, str(path)):
        del_password = {k: v for k, v in environ.items() if k != "REVSTORE_PASSWORD"}
        from_file = StorageConfig.load(file, del_password)
        assert (from_file.resolved_type, from_file.prefix) == ("sqlite", "/env")

    assert StorageConfig.load(config) is config
    assert (from_url.server_list, from_url.prefix) == (("localhost:1",), "/code")
    assert Secret(PLANTED) == from_url.password
    assert StorageConfig.load(None, {"REVSTORE_URL": "memory://"}).type == "memory"
    with pytest.raises(ConfigError, match=r"sqlite:///x\.db"):
        StorageConfig.load("x.db", {})


def test_for_resource():
    """CFG-4, SF-1, SF-4: the group's override, then the exact one; only set fields replace, and
    neither servers nor credentials nor another backend's options leak into another store."""
    config = StorageConfig(
        server_list=["localhost:1"],
        username="ann",
        password="x",
        prefix="/base",
        options={"keepalive": 3},
        overrides={
            "events": {"url": "sqlite:///events.db", "compaction_interval": "1m"},
            "*.apps": {"prefix": "/apps", "quorum": False},
            "deployments.apps": {"prefix": "/deploy", "options": {"keepalive": 9}},
        },
    )

    events = config.for_resource("events")
    deployments = config.for_resource("deployments.apps")

    assert (
        events.resolved_type,
        events.server_list,
        events.username,
        events.password,
        events.prefix,
        events.compaction_interval,
    ) == ("sqlite", (), "", None, "/base", 60)
    assert dict(events.options) == {"path": "events.db"}
    assert (
        deployments.prefix,
        deployments.quorum,
        dict(deployments.options),
        deployments.username,
    ) == ("/deploy", False, {"keepalive": 9}, "ann")
    assert config.for_resource("daemonsets.apps").prefix == "/apps"
    assert config.for_resource("pods") == config.for_resource("secrets")
    assert hash(config.for_resource("pods")) == hash(config.for_resource("secrets"))
    assert not config.for_resource("pods").overrides


def test_override_in_code_is_checked_at_once():
    """A wrong override is refused when the config is made, not when its resource is first used."""
    for table, field in [
        ({"prefx": "/x"}, "overrides.events.prefx"),
        ({"quorum": 3}, "overrides.events.quorum"),
        ({"resources": {}}, "overrides.events.resources"),
        ({"event_history_window": 1}, "overrides.events.event_history_window"),
    ]:
        with pytest.raises(ConfigError, match=r"in overrides\.events") as caught:
            StorageConfig(overrides={"events": table})
        assert field == caught.value.field


def test_a_bad_override():
    """SF-7: one that does not parse is refused by its name, before anything is opened."""
    for table in ({"url": "no url"}, "sqlite:///x.db"):
        with pytest.raises(ConfigError, match=r"overrides\.gadgets"):
            StorageConfig(overrides={"gadgets": table})


def test_tls():
    """An https server or any file turns TLS on; http beside files, and half a key pair, are
    refused."""
    assert StorageConfig(ca_file="ca.pem").tls_enabled
    assert StorageConfig(server_list=["https://h"]).tls_enabled
    assert not StorageConfig(server_list=["http://h"]).tls_enabled
    with pytest.raises(ConfigError, match="https"):
        StorageConfig(server_list=["http://h"], ca_file="ca.pem")


@pytest.mark.parametrize(
    ("server", "allowed"),
    [
        ("localhost:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("https://h", True),
        ("h:1", False),
        ("http://10.0.0.1", False),
        ("127.0.0.1.example.com", False),
    ],
)
def test_password_over_plaintext(server, allowed):
    """Credentials go to another machine in plain text only if that is allowed."""
    fields = {"server_list": [server], "username": "ann", "password": PLANTED}

    if allowed:
        StorageConfig(**fields)
    else:
        with pytest.raises(ConfigError, match="plain text") as caught:
            StorageConfig(**fields)
        assert PLANTED not in everything_shown(caught.value)
    StorageConfig(**fields, allow_plaintext=True)


def test_password_file(tmp_path):
    """password_file is read without its line end; one that others can read is warned of,
    an unreadable one is refused by name."""
    path = tmp_path / "pw"
    path.write_text(PLANTED + "\n")
    path.chmod(0o600)

    config = StorageConfig(username="ann", password_file=str(path))

    assert Secret(PLANTED) == config.read_password()
    assert StorageConfig().read_password() is None
    config.check_files()
    path.chmod(0o640)
    with pytest.warns(UserWarning, match="chmod 600"):
        config.check_files()
    path.unlink()
    for call in (config.read_password, config.check_files):
        with pytest.raises(ConfigError, match="password_file") as caught:
            call()
        assert caught.value.field == "password_file"


def test_unreadable_tls_file_is_refused_at_opening(tmp_path):
    """CFG-2: a TLS file that cannot be read is an error by name, before anything is opened."""
    config = StorageConfig(type="memory", ca_file=str(tmp_path / "absent.pem"))

    with pytest.raises(ConfigError, match="ca_file") as caught:
        open_backend(config)

    assert caught.value.field == "ca_file"


@attrs.frozen
class Options:
    """As a backend might declare them."""

    path: str = "revstore.db"
    poll_interval: float = 0.05
    retries: int = 3
    sync: bool = True
    tags: tuple[str, ...] = ()
    token: Secret | None = None
    limit: int | None = None


def _positive(_, __, value):
    if value < 1:
        raise ConfigError("options.size", value, "at least 1")


@attrs.frozen
class Sized:
    size: int = attrs.field(default=1, validator=_positive)


INFO = BackendInfo(
    name="sqlite",
    api_version=(1, 0),
    capabilities=frozenset(),
    description="",
    factory=lambda config, options: pytest.fail("not opened"),
    options_class=Options,
)


def test_options_become_an_instance():
    """Raw options get the declared types: strings of URLs are read, values of code are checked."""
    url = "sqlite:///a.db?poll_interval=10ms&retries=5&sync=off&tags=a,b&token=t&limit=4"

    from_url = validate_options(INFO, StorageConfig.from_url(url))
    in_code = validate_options(INFO, StorageConfig(options={"tags": ["x"], "limit": None}))

    assert Options("a.db", 0.01, 5, False, ("a", "b"), Secret("t"), 4) == from_url
    assert Options(tags=("x",)) == in_code


def test_option_that_its_class_refuses_has_its_source():
    """A refusal by the options class itself is told with the variable it came from."""
    info = attrs.evolve(INFO, options_class=Sized)
    config = StorageConfig.from_env({"REVSTORE_OPTIONS__SIZE": "0"})

    with pytest.raises(ConfigError, match=r"REVSTORE_OPTIONS__SIZE: invalid options\.size 0"):
        validate_options(info, config)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"poll_interval": "fast"}, "options.poll_interval"),
        ({"retries": "5"}, "options.retries"),
        ({"pol_interval": 1}, "did you mean 'options.poll_interval'"),
        ({"token": 5}, "options.token"),
        ({"path": None}, "options.path"),
    ],
)
def test_bad_options_are_refused_by_name(options, expected):
    """An option that is not declared or has a wrong type is named as options.NAME."""
    with pytest.raises(ConfigError) as caught:
        validate_options(INFO, StorageConfig(options=options))

    assert expected in str(caught.value)


def everything_shown(error: BaseException) -> str:
    """What a user or a log may come to see of an error."""
    lines = traceback.format_exception(error)
    state = [str(error), repr(error), repr(getattr(error, "value", "")), repr(vars(error))]
    # A traceback shows the test's own source line; only what the error says counts.
    return "\n".join([*state, *(line for line in lines if not line.startswith("  File"))])


@pytest.mark.parametrize(
    "build",
    [
        lambda: StorageConfig.from_url(f"etcd3://ann:{PLANTED}@h1"),
        lambda: StorageConfig.from_url(f"etcd3://ann:{PLANTED}@localhost?quorum=x"),
        lambda: StorageConfig.from_url(f"etcd3://ann:{PLANTED}@h1:bad:port"),
        lambda: StorageConfig.from_url(f"etcd3://localhost?password={PLANTED}"),
        lambda: StorageConfig(server_list=[f"https://ann:{PLANTED}@h"]),
        lambda: StorageConfig(password=[PLANTED]),
        lambda: StorageConfig(overrides={"events": {"url": f"etcd3://a:{PLANTED}@h"}}),
        lambda: StorageConfig(overrides={"events": {"url": f"x:{PLANTED}@h"}}),
        lambda: StorageConfig(overrides={"events": {"pasword": PLANTED}}),
        lambda: StorageConfig.from_env({"REVSTORE_PASWORD": PLANTED}),
        lambda: StorageConfig.from_env({"REVSTORE_OPTIONS__PASSWORD__X": PLANTED}),
        lambda: validate_options(INFO, StorageConfig(options={"pasword": PLANTED})),
        lambda: validate_options(INFO, StorageConfig(options={"token": [PLANTED]})),
        lambda: open_backend(StorageConfig.from_url(f"memory://?token={PLANTED}")),
    ],
)
def test_errors_never_show_a_password(build):
    """No error text, argument or attribute holds a planted password."""
    with pytest.raises(ConfigError) as caught:
        build()

    error: BaseException | None = caught.value
    while error is not None:
        assert PLANTED not in f"{error} {error!r} {error.args} {vars(error)}"
        error = error.__cause__


def test_values_never_show_a_password():
    """Repr and str of a config, its options and overrides hold no password, and
    redact_url takes userinfo and query values out."""
    url = f"etcd3://ann:{PLANTED}@localhost/x?token={PLANTED}"
    config = StorageConfig(
        username="ann",
        password=PLANTED,
        options={"token": PLANTED},
        overrides={"events": {"url": url}},
    )

    shown = f"{config} {config!r} {config.options} {config.overrides} {config.password}"
    shown += f"{config.password:>9} {config.sources} {config.for_resource('events')}"
    assert PLANTED not in shown
    assert "***" in repr(config)
    assert redact_url(url) == "etcd3://localhost/x?token=***"
    assert redact_url(f"etcd3://ann:pa/{PLANTED}?@h") == "etcd3://h"
    assert redact_url("sqlite:///a@b.db") == "sqlite:///a@b.db"
    assert PLANTED not in redact_url(f"etcd3/:///://root:{PLANTED}@h1:2379/prefix")
    assert config.password.reveal() == PLANTED


def test_config_is_frozen_and_pickles():
    """A config cannot be changed, also not through its tables, and crosses process borders."""
    config = StorageConfig(options={"a": 1}, overrides={"events": {"prefix": "/e"}}, password=None)

    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        config.prefix = "/x"
    with pytest.raises(TypeError):
        config.options["a"] = 2
    assert config == pickle.loads(pickle.dumps(config))
    assert hash(config) == hash(attrs.evolve(config))
    assert config != attrs.evolve(config, options={"a": 2})
