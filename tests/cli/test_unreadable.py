"""What get and watch do with objects that cannot be read."""

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
