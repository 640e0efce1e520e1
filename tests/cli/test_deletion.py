"""What ``delete`` must never take, and what it alone can take."""

import pytest

from revstore.factory import StorageFactory

EMPTY = ["", " ", "\t", "\n"]


def names(revstore):
    return revstore.out("get", "pods", "-A", "-o", "name")


USELESS = [
    *(("-l", text) for text in EMPTY),
    *(("--field-selector", text) for text in ("", ",", ",,,")),
    ("-l", " ", "--field-selector", ","),
    ("-l", " ", "-A"),
    ("--field-selector", ",", "-n", "other"),
    # No selectors at all.
    ("-l", ","),
    ("-l", "app=web,"),
    ("-l", "="),
    ("-l", " , "),
    ("--field-selector", " "),
    ("--field-selector", " , "),
    ("--field-selector", "="),
    ("--field-selector", "metadata.name"),
    ("-l", "app=web", "--field-selector", "="),
    ("-l", "app=web", "--field-selector", " "),
    ("-l", "", "--field-selector", "metadata.name=a"),
    # Names and namespaces that are empty, as of variables that are not set.
    ("", "--all"),
    (",", "--all"),
    ("--all", "-n", ""),
    ("--all", "-n", " "),
    ("-A",),
    ("--all", "-l", "app=web"),
    ("--all", "--field-selector", "metadata.name=a"),
]


def test_what_selects_nothing_in_particular_deletes_nothing(revstore, pod):
    """Without --all only a condition, or a name, deletes; the rest is wrong usage."""
    revstore.apply(pod("a", labels={"app": "web"}), pod("b", "other"))

    for arguments in USELESS:
        line = revstore.error("delete", "pods", *arguments, code=2)
        assert line.startswith("error: "), arguments
    assert names(revstore) == ["pod/a", "pod/b"]


def test_conditions_on_what_is_empty_are_conditions(revstore, pod):
    """An empty value is one, and takes what has it."""
    revstore.apply(pod("a", labels={"app": ""}), pod("b", labels={"app": "x"}), pod("c"))

    assert revstore.out("delete", "pods", "-l", "app=", "-o", "name") == ["pod/a"]
    assert revstore.out("delete", "pods", "--field-selector", "metadata.name=", "-o", "name") == []
    assert names(revstore) == ["pod/b", "pod/c"]
    assert len(revstore.out("delete", "pods", "--all", "-l", " ")) == 2


def test_empty_selectors_show_everything(revstore, pod):
    """To look is no risk: as with kubectl, an empty selector shows all."""
    revstore.apply(pod("a"), pod("b"))

    for arguments in (("-l", " "), ("--field-selector", ","), ("-l", "")):
        assert revstore.out("get", "pods", *arguments, "-o", "name") == ["pod/a", "pod/b"]


@pytest.mark.parametrize("command", ["get", "watch", "delete", "edit", "apply"])
def test_an_empty_namespace_is_refused(revstore, command):
    """-n "$UNSET" means neither all namespaces nor the default one."""
    what = ("-f", "-") if command == "apply" else ("pod/a",)

    assert "it is empty" in revstore.error(command, *what, "-n", "", code=2)


@pytest.fixture
def broken(revstore, pod):
    """Two objects that cannot be read beside one that can."""
    revstore.apply(pod("good"))
    with StorageFactory(revstore.env["REVSTORE_URL"]) as factory:
        for name in ("bad", "worse"):
            factory.backend().put(f"/registry/pods/default/{name}", b"\xff", expected_revision=0)
    return revstore


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("get", "pod", "bad"), ["bad"]),
        (("get", "pods"), ["bad", "worse"]),
        (("delete", "pod", "bad"), ["bad"]),
        (("delete", "pods", "--all"), ["bad"]),
    ],
)
def test_unreadable_objects_name_their_way_out(broken, arguments, names):
    """The error names the object, and what removes it; delete has deleted nothing."""
    lines = broken(*arguments, code=1).stderr.splitlines()

    for line, name in zip(lines, names, strict=True):
        assert f"'/pods/default/{name}' cannot be read" in line
        assert "`revstore delete TYPE NAME --even-if-corrupt` removes" in line
    assert broken("get", "pods", "-o", "name", code=1).stdout == "pod/good\n"


def test_unreadable_objects_are_deleted_only_on_demand(broken):
    """--even-if-corrupt takes those that are named and cannot be read, and no others."""
    done = broken("delete", "pod", "bad", "good", "nope", "--even-if-corrupt", code=1)

    assert done.stdout == 'pod "bad" deleted\n'
    assert done.stderr.splitlines() == [
        "error: pod/good: the object is readable: delete it without --even-if-corrupt",
        "error: pods \"nope\" not found in namespace 'default'",
    ]
    for arguments in (("-l", "a=b"), ("-A",), ()):
        line = broken.error("delete", "pods", *arguments, "--even-if-corrupt", code=2)
        assert "needs names or --all" in line
    assert broken.out("delete", "pod/worse", "--even-if-corrupt", "-o", "name") == ["pod/worse"]
    assert broken.out("get", "pods", "-o", "name") == ["pod/good"]


def test_all_unreadable_objects_of_a_kind(broken, pod):
    """--all --even-if-corrupt takes what cannot be read in the namespace, and what can be read
    stays, under whichever key it lies and however many there are."""
    with StorageFactory(broken.env["REVSTORE_URL"]) as factory:
        many = [f"x{number}" for number in range(150)]
        for name in ("other/a", "no-namespace", *(f"default/{name}" for name in many)):
            factory.backend().put(f"/registry/pods/{name}", b"\xff", expected_revision=0)
    arguments = ("delete", "pods", "--all", "--even-if-corrupt", "-o", "name")

    assert sorted(broken.out(*arguments)) == sorted(
        f"pod/{name}" for name in ["bad", "worse", *many]
    )
    assert broken.out(*arguments) == []
    assert len(broken("get", "pods", "-A", code=1).stderr.splitlines()) == 2
    assert broken.out(*arguments, "-A") == ["pod/no-namespace", "pod/a"]
    assert broken.out("get", "pods", "-A", "-o", "name") == ["pod/good"]


def test_unreadable_objects_of_a_kind_of_unknown_scope(revstore):
    """Those in no namespace and in the default one are meant, as of readable ones; what lies in
    another is neither shown nor deleted."""
    widget = {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "good"}}
    revstore.apply(widget)
    with StorageFactory(revstore.env["REVSTORE_URL"]) as factory:
        for name in ("cluster", "default/a", "test/b"):
            key = f"/registry/example.com/widgets/{name}"
            factory.backend().put(key, b"\xff", expected_revision=0)
    lines = revstore("get", "widgets", code=1).stderr.splitlines()
    arguments = ("delete", "widgets", "--all", "--even-if-corrupt", "-o", "name")

    assert [line.split("'")[1].removeprefix("/example.com/") for line in lines] == [
        "widgets/cluster",
        "widgets/default/a",
    ]
    assert len(revstore.out(*arguments)) == 2
    assert revstore.out("get", "widgets", "-o", "name") == ["widget.example.com/good"]
    assert revstore.out(*arguments, "-n", "test") == ["widget.example.com/b"]


def test_unreadable_objects_of_a_file(broken, pod):
    """A file may name them as well."""
    (broken.folder / "bad.json").write_text(
        '{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bad"}}'
    )

    assert "even-if-corrupt" in broken.error("apply", "-f", "bad.json", code=1)
    assert broken.out("delete", "-f", "bad.json", "--even-if-corrupt") == ['pod "bad" deleted']
    assert broken.out("apply", "-f", "bad.json") == ["pod/bad created"]
