"""What get and watch do with objects that cannot be read."""

import json

import pytest

from revstore.factory import StorageFactory


def test_what_can_be_read_is_shown_beside_the_errors(revstore, pod):
    """One unreadable object does not hide its kind: the others are shown, it is a line on standard
    error that says how to be rid of it, and the exit code is 1."""
    revstore.apply(pod("a"), pod("c"))
    with StorageFactory(revstore.env["REVSTORE_URL"]) as factory:
        factory.backend().put("/registry/pods/default/b", b"garbage", expected_revision=0)
    done = revstore("get", "pods", "-o", "name", code=1)
    named = revstore("get", "pod/b", "pod/a", "-o", "name", code=1)
    watch = revstore.start("watch", "pods", "-o", "name")

    assert done.stdout.splitlines() == ["pod/a", "pod/c"]
    assert named.stdout.splitlines() == ["pod/a"]
    for (line,) in (done.stderr.splitlines(), named.stderr.splitlines()):
        assert "/pods/default/b" in line
        assert "--even-if-corrupt" in line
    assert [watch.line(), watch.line()] == ["ADDED pod/a", "ADDED pod/c"]
    watch.wait_for_error("'/pods/default/b' cannot be read")
    revstore("delete", "pod/b", "--even-if-corrupt")
    revstore.apply(pod("d"))
    assert watch.line() == "ADDED pod/d"
    watch.wait_for_error("/pods/default/b, which was unreadable, was deleted")


@pytest.mark.parametrize("metadata", ["", '"metadata":null', '"metadata":[1]', '"metadata":"x"'])
def test_what_others_have_stored_without_metadata_stands_in_nobodys_way(revstore, pod, metadata):
    """The rest of its kind is shown and deleted; it is told, and goes by the name of its key."""
    revstore.apply(pod("a"), pod("c"))
    with StorageFactory(revstore.env["REVSTORE_URL"]) as factory:
        data = f"{{{metadata}}}".encode()
        factory.backend().put("/registry/pods/default/b", data, expected_revision=0)

    assert revstore.out("get", "pods", "-o", "name") == ["pod/a", "pod/", "pod/c"]
    assert len(revstore.out("get", "pods")) == 4
    done = revstore("delete", "pods", "--all", "-o", "name", code=1)
    assert done.stdout.splitlines() == ["pod/a", "pod/c"]
    assert "invalid name ''" in done.stderr
    assert revstore.out("delete", "pod/b", "-o", "name") == ["pod/b"]


def test_nothing_out_of_scope_is_deleted_whatever_an_object_says(revstore, pod):
    """What others have stored may say that it lies elsewhere, where another object is."""
    revstore.apply(pod("a", "other"))
    with StorageFactory(revstore.env["REVSTORE_URL"]) as factory:
        data = json.dumps(pod("a", "other")).encode()
        factory.backend().put("/registry/pods/default/x", data, expected_revision=0)
    revstore("delete", "pods", "--all")

    assert revstore.out("get", "pods", "-n", "other", "-o", "name") == ["pod/a"]
