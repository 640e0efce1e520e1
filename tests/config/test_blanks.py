"""Blanks around what is configured, and characters that cannot be seen: never another store."""

from __future__ import annotations

import string

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from revstore.backend import BackendInfo
from revstore.config import ResourceConfig, Secret, StorageConfig
from revstore.errors import ConfigError
from revstore.plugins import list_backends, validate_options

BLANKS = " \t\r\n\v\f"
UNSEEN = "\0\x07\x1b\x7f\x85\xa0\xad\u200b\u200d\u2028\u202e\u2060\u3000\ufeff"

#: A good value of each field that is text, in a variable or in a URL at least.
VALUES = {
    "type": "etcd3",
    "prefix": "/x/y",
    "server_list": "localhost:1,localhost:2",
    "key_file": "k.pem",
    "cert_file": "c.pem",
    "ca_file": "ca.pem",
    "insecure_skip_verify": "true",
    "allow_plaintext": "yes",
    "username": "ann",
    "password_file": "pw",
    "quorum": "off",
    "deserialization_cache_size": "7",
    "codec": "json",
    "copier": "deep",
    "transformer": "identity",
    "wrappers": "metrics,mine",
    "compaction_interval": "1h30m",
    "event_history_window": "80",
    "lease_reuse_duration": "1m",
    "lease_max_object_count": "9",
    "healthcheck_timeout": "3s",
    "readycheck_timeout": "500ms",
    "count_metric_poll_period": "7",
    "db_metric_poll_interval": "8",
    "slow_operation_threshold": "250ms",
    "tracing": "yes",
}
#: What a field needs beside it.
BESIDE = {
    "key_file": {"cert_file": "c.pem"},
    "cert_file": {"key_file": "k.pem"},
    "password_file": {"username": "ann"},
}
TEXT = ("type", "prefix", "key_file", "cert_file", "ca_file", "username", "password_file")
TEXT += ("codec", "copier", "transformer", "compaction_interval")


@attrs.frozen(kw_only=True)
class Options:
    path: str = ""
    count: int = 0
    seconds: float = 0
    on: bool = False
    names: tuple[str, ...] = ()
    token: Secret | None = None


INFO = BackendInfo(
    name="mine",
    api_version=(1, 0),
    capabilities=frozenset(),
    description="",
    factory=lambda config, options: None,
    options_class=Options,
)


@st.composite
def spoilt(draw, good):
    """A good text with something around or in it that is hard to see."""
    at = draw(st.sampled_from([0, len(good), draw(st.integers(0, len(good)))]))
    return good[:at] + draw(st.text(BLANKS + UNSEEN, min_size=1, max_size=3)) + good[at:]


def toml_of(text):
    return '"' + "".join(f"\\u{ord(char):04X}" for char in text) + '"'


def variable_of(field):
    return f"REVSTORE_{field.upper()}"


def means_the_same_or_is_refused(make, text, *names):
    """``make(text)`` is ``make`` of the text without blanks around it, or a ConfigError."""
    stripped = text.strip(BLANKS)
    made, refusal = outcome(make, text)
    if refusal:
        assert any(name in refusal for name in names), (refusal, names)
        return
    assert all(char not in stripped for char in UNSEEN)
    assert made == make(stripped)


def outcome(make, text):
    try:
        return make(text), ""
    except ConfigError as error:
        return None, str(error)


@given(data=st.data(), field=st.sampled_from(sorted(VALUES)))
def test_variables(data, field):
    """REVSTORE_PREFIX=" /x": as if it were stripped, or refused by the variable's name; for the
    store itself and in an override."""
    text = data.draw(spoilt(VALUES[field]))
    beside = {variable_of(name): value for name, value in BESIDE.get(field, {}).items()}
    events = {
        name.replace("REVSTORE_", "REVSTORE_OVERRIDES__EVENTS__"): value
        for name, value in beside.items()
    }

    means_the_same_or_is_refused(
        lambda text: StorageConfig.from_env({variable_of(field): text, **beside}),
        text,
        variable_of(field),
    )
    name = f"REVSTORE_OVERRIDES__EVENTS__{field.upper()}"
    means_the_same_or_is_refused(
        lambda text: StorageConfig.from_env({name: text, **events}).for_resource("events"),
        text,
        name,
    )


@given(data=st.data(), field=st.sampled_from(TEXT))
def test_code_and_files(tmp_path_factory, data, field):
    """The same in code and in TOML, where the field is named."""
    text = data.draw(spoilt(VALUES[field]))
    beside = BESIDE.get(field, {})
    path = tmp_path_factory.getbasetemp() / "blanks.toml"

    def from_file(text):
        table = {**beside, field: text}
        path.write_text("".join(f"{name} = {toml_of(value)}\n" for name, value in table.items()))
        return StorageConfig.load(path, {})

    means_the_same_or_is_refused(lambda text: StorageConfig(**{field: text}, **beside), text, field)
    means_the_same_or_is_refused(from_file, text, field)


URLS = [
    "sqlite:///x.db",
    "sqlite:////var/lib/x.db?poll_interval=50ms",
    "etcd3://h1:2379,h2:2379/prefix?ca_file=ca.pem&quorum=no",
    "memory://",
]


@given(data=st.data(), url=st.sampled_from(URLS))
@example(data=None, url="sqlite:///x.db\n").via("a shell's line end")
@example(data=None, url="sqlite:///x.db\r").via("a file from elsewhere")
@example(data=None, url="\ufeffsqlite:///x.db").via("a byte order mark")
def test_urls(data, url):
    """A URL with blanks around it is the same store, from a variable, in code, and in a file; one
    with what cannot be seen in it is refused."""
    text = url if data is None else data.draw(spoilt(url))

    for make in (
        StorageConfig.from_url,
        lambda text: StorageConfig.load(text, {}),
        lambda text: StorageConfig(overrides={"events": {"url": text}}).for_resource("events"),
    ):
        # What is in it but a blank belongs to one of its parts, which is then named.
        means_the_same_or_is_refused(make, text, "url", *VALUES, "mine")
    means_the_same_or_is_refused(
        lambda text: StorageConfig.from_env({"REVSTORE_URL": text}), text, "REVSTORE_URL"
    )


@given(
    data=st.data(),
    option=st.sampled_from(
        [("path", "x.db"), ("count", "7"), ("seconds", "5m"), ("on", "yes"), ("names", "a,b")]
    ),
)
def test_options(data, option):
    """A backend's own options follow the same rule, in variables, in a URL and in code."""
    name, good = option
    text = data.draw(spoilt(good))
    variable = f"REVSTORE_OPTIONS__{name.upper()}"

    def from_variable(text):
        return validate_options(
            INFO, StorageConfig.from_env({"REVSTORE_TYPE": "mine", variable: text})
        )

    means_the_same_or_is_refused(from_variable, text, variable)
    if name in ("path", "seconds"):
        means_the_same_or_is_refused(
            lambda text: validate_options(INFO, StorageConfig(type="mine", options={name: text})),
            text,
            f"options.{name}",
        )


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("sqlite:///x.db%20", "path"),
        ("sqlite:///%0Ax.db", "path"),
        ("sqlite:///x.db ?poll_interval=1", "path"),
        ("sqlite:///x.db?poll_interval=%201", "poll_interval"),
        ("sqlite:///a%FF.db", "UTF-8"),
        ("etcd3://h/%20x", "prefix"),
        ("etcd3://%20ann:x@localhost", "user"),
        ("etcd3://ann:%20x@localhost", "password"),
    ],
)
def test_encoded_blanks_around_a_part_are_refused(url, part):
    """What is percent-encoded is meant, and would be lost: refused with the part."""
    with pytest.raises(ConfigError, match=part):
        StorageConfig.from_url(url)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("where", ["code", "variable", "file", "option"])
def test_a_password_loses_one_line_end(tmp_path, where, end):
    """What `echo` and editors leave behind a password is no part of it."""
    path = tmp_path / "pw"
    path.write_bytes(b"\xef\xbb\xbf" + f"a b{end}".encode())
    path.chmod(0o600)
    made = {
        "code": lambda: StorageConfig(username="ann", password=f"a b{end}").password,
        "variable": lambda: (
            StorageConfig.from_env(
                {"REVSTORE_USERNAME": "ann", "REVSTORE_PASSWORD": f"a b{end}"}
            ).password
        ),
        "file": lambda: StorageConfig(username="ann", password_file=str(path)).read_password(),
        "option": lambda: (
            validate_options(INFO, StorageConfig(type="mine", options={"token": f"a b{end}"})).token
        ),
    }

    assert made[where]() == Secret("a b")


@pytest.mark.parametrize("text", [" x1y2", "x1y2 ", "x1y2\n\n", "\tx1y2", "x1\u200by2", "x1\xa0y2"])
def test_other_blanks_around_a_password_are_refused(tmp_path, text):
    """They may be meant: an error that does not show the password; a Secret in code is exact."""
    path = tmp_path / "pw"
    path.write_text(text)
    for make in (
        lambda: StorageConfig(username="ann", password=text),
        lambda: StorageConfig.from_env({"REVSTORE_USERNAME": "a", "REVSTORE_PASSWORD": text}),
        lambda: StorageConfig(username="ann", password_file=str(path)).read_password(),
    ):
        with pytest.raises(ConfigError, match=r"(?i)password") as caught:
            make()
        assert not any(part in str(caught.value) for part in ("x1", "y2"))

    assert StorageConfig(username="ann", password=Secret(text)).password == Secret(text)


@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("field", [*sorted(VALUES), "url"])
def test_quotes_around_a_text_are_refused(quote, field):
    """Not everything that sets variables takes quotes off, and a prefix with quotes in it would
    be another store; a password may have them."""
    good = VALUES.get(field, "sqlite:///x.db")
    beside = {variable_of(name): value for name, value in BESIDE.get(field, {}).items()}

    with pytest.raises(ConfigError, match=variable_of(field)):
        StorageConfig.from_env({variable_of(field): f"{quote}{good}{quote}", **beside})

    path = validate_options(INFO, StorageConfig(type="mine", options={"path": "it's"})).path
    assert path == "it's"
    with pytest.raises(ConfigError, match=r"options\.path.*no quotes around it"):
        validate_options(INFO, StorageConfig(type="mine", options={"path": f"{quote}x.db{quote}"}))
    secret = f"{quote}x{quote}"
    assert StorageConfig(username="ann", password=secret).password == Secret(secret)


@pytest.mark.parametrize("blank", BLANKS)
def test_a_blank_variable_counts_as_unset(blank):
    """As an empty one does."""
    variables = {variable_of(field): blank for field in (*VALUES, "url", "config", "password")}

    assert StorageConfig.from_env(variables) == StorageConfig()


@pytest.mark.parametrize("table", ["overrides", "resources"])
@pytest.mark.parametrize("name", ["events ", " events", "eve nts", "events\n", "\ufeffevents", ""])
def test_a_resource_name_with_a_blank_is_refused(table, name):
    """It would never be found, and the resource would lie in the main store."""
    content = {"url": "memory://"} if table == "overrides" else {"kind": "Event"}

    with pytest.raises(ConfigError, match=table):
        StorageConfig(**{table: {name: content}})


def test_resources_made_in_code_follow_the_rule():
    """A kind with a blank would be no object's."""
    made = ResourceConfig(kind="Widget\n", short_names=(" wd",))

    config = StorageConfig(resources={"widgets": made})

    assert config.resources["widgets"] == ResourceConfig(kind="Widget", short_names=("wd",))
    with pytest.raises(ConfigError, match=r"resources\.widgets\.kind"):
        StorageConfig(resources={"widgets": ResourceConfig(kind="Wid\u200bget")})


@pytest.mark.parametrize("prefix", ["/x /", "/x /y", "/ /y", "/ x"])
def test_blanks_around_a_segment_of_the_prefix_are_refused(prefix):
    """The slashes at its ends go, so blanks beside them would be left at the ends."""
    with pytest.raises(ConfigError, match="blanks"):
        StorageConfig(prefix=prefix)


def test_a_type_with_a_blank_is_the_same_backend(tmp_path):
    """A file's options stay where the environment names the same backend, blanks or not."""
    path = tmp_path / "c.toml"
    path.write_text('type = "sqlite "\noptions.path = "x.db"\n')

    config = StorageConfig.from_env({"REVSTORE_CONFIG": f"{path}\n", "REVSTORE_TYPE": " sqlite"})

    assert (config.type, dict(config.options)) == ("sqlite", {"path": "x.db"})


@pytest.mark.parametrize("blank", BLANKS)
def test_plugin_variables(monkeypatch, blank):
    """Blanks in the variables about plugins change nothing; what cannot be seen is refused, as a
    plugin would otherwise stay switched on."""
    monkeypatch.setenv("REVSTORE_DISABLE_PLUGINS", f"{blank}sqlite{blank},{blank}x")
    monkeypatch.setenv("REVSTORE_STRICT_PLUGINS", f"0{blank}")
    assert {status.name: status.status for status in list_backends()}["sqlite"] == "blocked"

    monkeypatch.setenv("REVSTORE_DISABLE_PLUGINS", "sqlite\u200b")
    with pytest.raises(ConfigError, match="REVSTORE_DISABLE_PLUGINS"):
        list_backends()


#: Fields that hold tables, and a secret.
OTHERS = {"password", "options", "transformer_options", "overrides", "resources", "sources"}


def test_every_field_is_tried():
    """A new field gets a value above."""
    fields = {field.name for field in attrs.fields(StorageConfig)}
    assert fields - OTHERS == set(VALUES)
    assert not set(BLANKS) - set(string.whitespace)
