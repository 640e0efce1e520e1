"""What commands print is what is stored, and goes back as it was: values and types."""

import json
import sys

import attrs
import pytest

from revstore import ObjectMeta
from revstore.factory import StorageFactory, open_registry

NUMBERS = {
    "large": 2**64,
    "larger": -(10**30),
    "largest": 10**4000,
    "float": 1.0,
    "negative zero": -0.0,
    "tiny": 5e-324,
    "whole": 1e16,
}
STRINGS = "0X1F 0B1 0O17 0x1FFFFFFFFFFFFFFFFFF 1_000 .5 1. 0x +1 y n on ~ null = << 1e3 22:22"


def exactly(obj):
    return json.dumps(obj, sort_keys=True)


def printed(revstore, *arguments):
    """All that a command prints; str.splitlines would split strings as well."""
    return revstore(*arguments).stdout


def stored(revstore):
    return exactly(json.loads(printed(revstore, "get", "pod/web", "-o", "json")))


def everything(pod):
    strings = {text: text for text in [*STRINGS.split(), "", " ", "a\n b\n\n", "\x00\u2028\ufeff"]}
    return pod("web", spec={"numbers": NUMBERS, "strings": strings, "none": None, "done": False})


@pytest.fixture
def editor(revstore):
    """An editor that runs ``body`` on the text of the file that it is given."""

    def make(body):
        script = revstore.folder / "edit.py"
        script.write_text(
            "import sys\nfrom pathlib import Path\n"
            f"path = Path(sys.argv[1])\ntext = path.read_text()\n{body}\n"
        )
        return f"{sys.executable} {script}"

    return make


def replacing(old, new):
    return f"assert {old!r} in text\npath.write_text(text.replace({old!r}, {new!r}))"


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_what_is_printed_can_be_applied_and_changes_nothing(revstore, pod, output):
    """get | apply is no write for any value, into the same store; another store gets the same."""
    revstore.apply(everything(pod))
    before = stored(revstore)
    one = printed(revstore, "get", "pod/web", "-o", output)
    several = printed(revstore, "get", "pods", "-o", output)

    assert exactly(everything(pod)["spec"]) in before
    for text in (one, several):
        assert revstore.out("apply", "-f", "-", stdin=text) == ["pod/web unchanged"]
    assert stored(revstore) == before
    revstore.out("delete", "pod/web")
    revstore.out("apply", "-f", "-", stdin=one)
    assert exactly(everything(pod)["spec"]) in stored(revstore)


CHANGES = [
    (1, True),
    (1, 1.0),
    (True, 1),
    (0, False),
    (0, -0.0),
    (0.0, -0.0),
    (1.0, 1),
    ("1", 1),
    (2**64, 2**64 + 1),
    (float(2**64), 2**64),
    (None, ""),
    ([], {}),
]


def test_edit_and_apply_see_every_change(revstore, pod, editor):
    """Values that Python takes for equal, as 1 and true, are different ones."""
    old = [pod(f"p{n:02}", spec={"value": value}) for n, (value, _) in enumerate(CHANGES)]
    new = [{"value": value} for _, value in CHANGES]
    names = [f"pod/{each['metadata']['name']}" for each in old]
    revstore.apply(*old)

    for name, (before, after) in zip(names, CHANGES, strict=True):
        change = replacing(f"value: {yaml_of(before)}\n", f"value: {yaml_of(after)}\n")
        assert revstore.out("edit", name, EDITOR=editor(change)) == [f"{name} edited"]
    assert specs(revstore) == exactly(new)
    assert revstore.apply(*old) == [f"{name} configured" for name in names]
    assert specs(revstore) == exactly([each["spec"] for each in old])


def specs(revstore):
    """Of all pods, in the order of their names."""
    return exactly([each["spec"] for each in revstore.json("get", "pods")["items"]])


def yaml_of(value):
    return "''" if value == "" else f'"{value}"' if isinstance(value, str) else json.dumps(value)


def test_edit_changes_nothing_but_what_was_edited(revstore, pod, editor):
    """No other value loses digits or changes its type; saved unchanged, nothing is written."""
    revstore.apply(everything(pod))
    before = json.loads(stored(revstore))

    assert revstore.out("edit", "pod/web", EDITOR=editor("path.write_text(text + ' ')")) == [
        "Edit cancelled, no changes made."
    ]
    revstore.out("edit", "pod/web", EDITOR=editor(replacing("done: false", "done: true")))
    after = json.loads(stored(revstore))

    assert after["spec"].pop("done") is True
    assert before["spec"].pop("done") is False
    assert exactly(after["spec"]) == exactly(before["spec"])


@attrs.frozen
class Gadget:
    metadata: ObjectMeta
    size: int = 1
    exact: float = 1.0


@pytest.mark.parametrize("resource", ["", "gadgets.example.com"])
def test_objects_of_a_python_class_go_through(revstore, editor, resource):
    """What a program has stored can be printed, applied, and edited."""
    with open_registry(revstore.env["REVSTORE_URL"], Gadget, resource=resource) as gadgets:
        written = gadgets.create(Gadget(ObjectMeta(name="a", namespace="default"), 2**70))
        for output in ("yaml", "json"):
            text = "\n".join(revstore.out("get", resource or "gadgets", "-o", output))
            (line,) = revstore.out("apply", "-f", "-", stdin=text)

            assert line.endswith("/a unchanged")
        name = line.split()[0]
        assert gadgets.get("a") == written
        revstore.out("edit", name, EDITOR=editor(replacing("exact: 1.0", "exact: 2.5")))
        assert gadgets.get("a").exact == 2.5


def test_objects_that_were_stored_without_a_type(revstore, editor):
    """apiVersion and kind are those of the resource, in what is printed, watched and edited."""
    with StorageFactory(revstore.env["REVSTORE_URL"]) as factory:
        value = b'{"metadata":{"name":"a","namespace":"default"},"spec":{"replicas":1}}'
        factory.backend().put("/registry/deployments/default/a", value, expected_revision=0)
    watch = revstore.start("watch", "deployments", "-o", "json")
    typed = {"apiVersion": "apps/v1", "kind": "Deployment"}

    assert typed.items() <= watch.event()[1].items()
    assert typed.items() <= revstore.json("get", "deploy/a").items()
    assert typed.items() <= revstore.json("get", "deploy")["items"][0].items()
    text = "\n".join(revstore.out("get", "deploy", "-o", "yaml"))
    assert revstore.out("apply", "-f", "-", stdin=text)[0].startswith("deployment.apps/a ")
    revstore.out("edit", "deploy/a", EDITOR=editor(replacing("replicas: 1", "replicas: 2")))
    assert revstore.json("get", "deploy/a")["spec"] == {"replicas": 2}
