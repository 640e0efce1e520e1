"""A configuration that is refused is one line and exit code 2, whatever the command."""

from __future__ import annotations

import pytest

PODS = """
apiVersion: v1
kind: Pod
metadata: {name: a}
---
apiVersion: v1
kind: Pod
metadata: {name: b}
"""

BAD = {
    "no URL": ({"REVSTORE_URL": "x"}, "REVSTORE_URL"),
    "a bad field": ({"REVSTORE_QUORUM": "perhaps"}, "REVSTORE_QUORUM"),
    "an unknown variable": ({"REVSTORE_PREFX": "/x"}, "REVSTORE_PREFIX"),
    "what cannot be seen": ({"REVSTORE_PREFIX": "/x\u200b"}, "U+200B"),
    "no file": ({"REVSTORE_CONFIG": "absent.toml"}, "absent.toml"),
    "a bad override": ({"REVSTORE_OVERRIDES__PODS__QUORUM": "?"}, "OVERRIDES__PODS__QUORUM"),
    "a bad option": ({"REVSTORE_OPTIONS__POLL_INTERVAL": "abc"}, "OPTIONS__POLL_INTERVAL"),
    "an option of another backend": (
        {"REVSTORE_URL": "etcd2://127.0.0.1:1", "REVSTORE_OPTIONS__DIAL_TIMEOUT": "abc"},
        "OPTIONS__DIAL_TIMEOUT",
    ),
    "a number out of range": ({"REVSTORE_READYCHECK_TIMEOUT": "1e19"}, "READYCHECK_TIMEOUT"),
    "an override of a name that no resource has": (
        {"REVSTORE_OVERRIDES__POD__PREFIX": "/x"},
        "overrides.pod: expected the resource's own name: pods",
    ),
    "no such backend": ({"REVSTORE_URL": "nonsense://"}, "nonsense"),
}


@pytest.mark.parametrize("what", BAD)
def test_apply_blames_no_document(revstore, what):
    """The documents have no fault: they are not named, and nothing is stored."""
    variables, named = BAD[what]

    line = revstore.error("apply", "-f", "-", code=2, stdin=PODS, **variables)

    assert named in line
    assert "document" not in line
    assert revstore("get", "pods", "-o", "name").stdout == ""


@pytest.mark.parametrize(
    "command",
    [
        ["get", "pods"],
        ["get", "widgets"],
        ["watch", "pods"],
        ["delete", "pod", "a"],
        ["delete", "-f", "pods.yaml"],
        ["apply", "-f", "pods.yaml", "-n", "x"],
        ["edit", "pod", "a"],
        ["compact"],
        ["doctor"],
        ["doctor", "--json"],
    ],
)
def test_every_command(revstore, command):
    """It is told once, before anything is done."""
    (revstore.folder / "pods.yaml").write_text(PODS)

    line = revstore.error(*command, code=2, REVSTORE_PREFIX="/a//b")

    assert line.startswith("error: REVSTORE_PREFIX: invalid prefix '/a//b': expected a path")


@pytest.mark.parametrize("option", ["--store", "--config"])
@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_an_option_that_is_empty(revstore, option, value):
    """As by --store "$UNSET": it is refused, not taken for the store by default."""
    assert "it is empty" in revstore.error("get", "pods", option, value, code=2)
    assert "it is empty" in revstore.error(option, value, "get", "pods", code=2)
    assert not list(revstore.folder.glob("*.db"))


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", " ", "\t"])
def test_blanks_around_the_store(revstore, end):
    """It is the same store, by variable, option and file."""
    url = f"sqlite:///{revstore.folder}/store.db"
    (revstore.folder / "c.toml").write_bytes(f'\ufeffurl = "{url} "\r\n'.encode())
    revstore("apply", "-f", "-", stdin=PODS)

    for arguments, variables in (
        ([], {"REVSTORE_URL": url + end}),
        (["--store", end + url], {}),
        (["--config", f"c.toml{end}"], {"REVSTORE_URL": ""}),
        ([], {"REVSTORE_URL": "", "REVSTORE_CONFIG": f"c.toml{end}"}),
        ([], {"REVSTORE_PREFIX": f"/registry{end}"}),
        ([], {"REVSTORE_OPTIONS__SYNCHRONOUS": f"FULL{end}"}),
    ):
        names = revstore.out("get", "pods", "-o", "name", *arguments, **variables)
        assert names == ["pod/a", "pod/b"]
    assert [path.name for path in revstore.folder.glob("*.db*")] == ["store.db"]
