"""What files and standard input hold, as ``apply`` and ``delete`` meet it."""

import json

import pytest


@pytest.mark.parametrize("text", ["", "\n", "---\n", "# nothing\n---\n", "null\n", "--- ~\n"])
def test_a_source_without_any_object_is_an_error(revstore, text):
    """Empty standard input, or an empty file that was named, is told: what should have made it
    has failed. kubectl says so too."""
    (revstore.folder / "empty.yaml").write_text(text)

    for command in ("apply", "delete"):
        line = revstore.error(command, "-f", "-", stdin=text, code=1)
        assert line == "error: standard input: empty: there is no object in it"
        line = revstore.error(command, "-f", "empty.yaml", code=1)
        assert line == "error: empty.yaml: empty: there is no object in it"


def test_an_empty_file_of_a_folder_is_none(revstore, pod):
    """A folder may hold files in which there is nothing yet."""
    folder = revstore.folder / "manifests"
    folder.mkdir()
    (folder / "a.yaml").write_text("# to be written\n")
    (folder / "b.yaml").write_text(json.dumps(pod("b")))

    assert revstore.out("apply", "-f", "manifests") == ["pod/b created"]


@pytest.mark.parametrize("items", ["null", "[]", "[{kind: List, apiVersion: v1, items: }]"])
def test_a_list_without_items_is_nothing(revstore, pod, items):
    """No items are no failure: what was listed may have been empty, and the rest is applied."""
    empty = f"apiVersion: v1\nkind: List\nitems: {items}\n"

    assert revstore.out("apply", "-f", "-", stdin=empty) == []
    assert revstore.out("apply", "-f", "-", stdin=f"{empty}---\n{json.dumps(pod('a'))}") == [
        "pod/a created"
    ]
    nothing = "\n".join(revstore.out("get", "services", "-o", "yaml"))
    assert revstore.out("apply", "-f", "-", stdin=nothing) == []


def test_lists_in_lists_are_flattened(revstore, pod):
    """As kubectl does it."""
    inner = {"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "b"}}]}
    outer = {"apiVersion": "v1", "kind": "List", "items": [pod("a"), inner]}

    assert revstore.apply(outer) == ["pod/a created", "pod/b created"]


def test_an_annotation_without_a_value(revstore):
    """The message names the field, what is there, and what to write."""
    text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: {bar: }}\n"

    assert revstore.error("apply", "-f", "-", stdin=text, code=1) == (
        "error: standard input: document 1, line 1: metadata.annotations['bar'] is null, not a "
        'string: write "" for an empty string'
    )
