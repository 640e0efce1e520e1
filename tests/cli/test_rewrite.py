"""``rewrite``, and stored versions on the command line."""

import json

import pytest

MODULE = """
def to_v2(value):
    value["capacity"] = value.pop("size")
    return value
"""
CONFIG = """
type = "sqlite"

[options]
path = "store.db"

[resources."widgets.example.com"]
kind = "Widget"
namespaced = true
"""
VERSIONS = 'version = "v2"\nupgrades = ["v1=widgets_of_tests:to_v2"]\n'


@pytest.fixture
def widget():
    def make(name, version="v1", **fields):
        return {
            "apiVersion": f"example.com/{version}",
            "kind": "Widget",
            "metadata": {"name": name},
            **fields,
        }

    return make


@pytest.fixture
def newer(revstore):
    """Makes the command know the second version."""
    (revstore.folder / "widgets_of_tests.py").write_text(MODULE)
    (revstore.folder / "store.toml").write_text(CONFIG)
    revstore.env.pop("REVSTORE_URL")
    revstore.env |= {"REVSTORE_CONFIG": "store.toml", "PYTHONPATH": str(revstore.folder)}

    def become():
        (revstore.folder / "store.toml").write_text(CONFIG + VERSIONS)

    return become


def test_get_apply_and_rewrite_know_the_versions_of_the_configuration(revstore, widget, newer):
    revstore.apply(widget("a", size=1), widget("b", size=2))
    newer()

    assert [each["capacity"] for each in revstore.json("get", "widgets")["items"]] == [1, 2]
    assert revstore.out("get", "widgets", "--field-selector", "capacity=2", "-o", "name") == [
        "widget.example.com/b"
    ]
    # What is applied in an older version is the same object.
    assert revstore.apply(widget("a", size=1)) == ["widget.example.com/a unchanged"]
    assert revstore.out("rewrite") == ["Rewrote 1 of 2 objects; 1 were current."]
    assert revstore.out("rewrite", "widgets") == ["Rewrote 0 of 2 objects; 2 were current."]
    assert revstore.apply(widget("a", "v2", capacity=1)) == ["widget.example.com/a unchanged"]


def test_what_cannot_be_read_is_named(revstore, widget, newer):
    revstore.apply(widget("a", "v3", size=1), widget("b", size=2), widget("c"))
    newer()

    done = revstore("rewrite", "--json", code=1)
    report = json.loads(done.stdout)
    assert {name: report[name] for name in ("seen", "rewritten", "current", "failed")} == {
        "seen": 3,
        "rewritten": 1,
        "current": 0,
        "failed": 2,
    }
    keys = [each["key"] for each in report["errors"]]
    assert keys == [f"/example.com/widgets/default/{name}" for name in "ac"]
    unknown, failed = done.stderr.splitlines()
    assert "'example.com/v3', which is unknown" in unknown
    assert "KeyError" in failed
    # Neither is lost.
    assert revstore("delete", "widget.example.com", "a", "--even-if-corrupt", code=1)
    (revstore.folder / "store.toml").write_text(CONFIG)
    assert revstore.json("get", "widgets", "a")["apiVersion"] == "example.com/v3"
    assert revstore.json("get", "widgets", "c")["apiVersion"] == "example.com/v1"


def test_everything(revstore, pod):
    revstore.apply(pod("a"), pod("b", "other"))
    first = revstore("rewrite", "--all")
    assert first.stdout == "Rewrote 2 of 2 objects; 0 were current.\n"
    (hint,) = first.stderr.splitlines()
    until = hint.rpartition("--until ")[2]
    assert revstore.out("rewrite", "--all", "--until", until) == [
        "Rewrote 0 of 2 objects; 2 were current."
    ]
    assert revstore.out("rewrite", "po", "pods,pod", "--rate", "1000") == [
        "Rewrote 0 of 2 objects; 2 were current."
    ]


def test_an_empty_store(revstore):
    assert "a file that exists" in revstore.error("rewrite", "--all", code=2)
    revstore("get", "pods")  # creates it
    assert revstore.out("rewrite", "--all") == ["Rewrote 0 of 0 objects; 0 were current."]


@pytest.mark.parametrize(
    "arguments",
    [("",), (",",), ("pods", ""), ("--until", "3"), ("--rate", "0"), ("--rate", "-1")],
)
def test_wrong_usage(revstore, arguments):
    assert revstore.error("rewrite", *arguments, code=2).startswith("error: ")


def test_unknown_resources(revstore, pod):
    revstore.apply(pod("a"))
    assert "unknown resource" in revstore.error("rewrite", "nonsense", code=1)
