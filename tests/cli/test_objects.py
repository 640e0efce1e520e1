"""apply, get and delete."""

import json

import pytest
import yaml

from revstore.factory import StorageFactory


def service(name, **metadata):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, **metadata},
        "spec": {"ports": [{"port": 80}]},
    }


def test_apply_creates_changes_and_leaves(revstore, pod):
    """Each object is told with what was done; nothing is written for what is there already."""
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}

    assert revstore.apply(pod("web"), deployment) == [
        "pod/web created",
        "deployment.apps/web created",
    ]
    before = revstore.json("get", "pod", "web")
    assert revstore.apply(pod("web"), deployment) == [
        "pod/web unchanged",
        "deployment.apps/web unchanged",
    ]
    assert revstore.json("get", "pod", "web") == before
    assert revstore.apply(pod("web", labels={"a": "b"})) == ["pod/web configured"]
    assert revstore.json("get", "pod", "web")["metadata"]["labels"] == {"a": "b"}
    assert revstore.apply(pod("web")) == ["pod/web configured"]
    assert "labels" not in revstore.json("get", "pod", "web")["metadata"]


def test_apply_takes_files_folders_and_standard_input(revstore, pod):
    """-f may be given several times; one malformed file does not keep the others out."""
    folder = revstore.folder / "manifests" / "deep"
    folder.mkdir(parents=True)
    (folder / "a.yaml").write_text(json.dumps(pod("a")) + "\n")
    (folder / "bad.yaml").write_text("kind: Pod\nkind: Pod\n")
    (folder.parent / "list.json").write_text(
        json.dumps({"apiVersion": "v1", "kind": "List", "items": [pod("b"), pod("c")]})
    )
    names = ("manifests", "nowhere", "manifests/list.json", "-")
    done = revstore(
        "apply",
        *(part for name in names for part in ("-f", name)),
        stdin=json.dumps(pod("d")),
        code=1,
    )

    assert done.stdout.split() == [part for name in "abcd" for part in (f"pod/{name}", "created")]
    assert done.stderr.splitlines() == [
        "error: manifests/deep/bad.yaml: document 1, line 2: the key 'kind' occurs twice",
        "error: nowhere: no such file or folder",
    ]


def test_apply_tells_of_duplicates_and_takes_the_last(revstore, pod):
    """An object that occurs more than once is told with every place, and written once."""
    (revstore.folder / "a.yaml").write_text(
        "---\n".join(json.dumps(pod("web", labels={"n": n})) + "\n" for n in ("1", "2"))
    )
    (revstore.folder / "b.yaml").write_text(json.dumps(pod("web", "default", {"n": "3"})))
    done = revstore("apply", "-f", "a.yaml", "-f", "b.yaml")

    assert done.stdout == "pod/web created\n"
    assert done.stderr == (
        "warning: pod/web occurs in a.yaml (document 1, line 1), a.yaml (document 2, line 3), "
        "b.yaml (document 1, line 1): only the last counts\n"
    )
    assert revstore.json("get", "pod", "web")["metadata"]["labels"] == {"n": "3"}


def test_apply_places_objects_into_a_namespace(revstore, pod):
    """-n is for namespaced objects without one; another than an object's own is refused."""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
    revstore.apply(pod("a"), pod("b", "other"), node)
    done = revstore(
        "apply",
        "-n",
        "mine",
        "-f",
        "-",
        stdin=json.dumps(pod("a")) + json.dumps(pod("b", "other")),
        code=1,
    )

    assert done.stdout == "pod/a created\n"
    assert "namespace 'other', not in 'mine'" in done.stderr
    assert revstore.out("get", "pods", "-A", "--no-headers")[0].split()[:2] == ["default", "a"]
    assert [line.split()[:2] for line in revstore.out("get", "po", "-A", "--no-headers")] == [
        ["default", "a"],
        ["mine", "a"],
        ["other", "b"],
    ]
    assert revstore.out("get", "nodes", "-n", "mine", "-o", "name") == ["node/n1"]


def test_apply_refuses_an_object_and_goes_on(revstore, pod):
    """What the store refuses is told with file and object; the rest is applied."""
    stdin = json.dumps(pod("a/b")) + json.dumps(pod("fine"))
    done = revstore("apply", "-f", "-", stdin=stdin, code=1)

    assert done.stdout == "pod/fine created\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: standard input (document 1, line 1): pod/a/b: ")


def test_tables_are_plain_aligned_columns(revstore, pod):
    """Not on a terminal a table is plain text: no colours, columns at the same places."""
    status = {"phase": "Running", "containerStatuses": [{"ready": True, "restartCount": 3}]}
    revstore.apply(pod("web", status=status), pod("a-longer-name", "other"), service("web"))
    head, row = revstore.out("get", "pods")

    assert head.split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row.split()[:4] == ["web", "1/1", "Running", "3"]
    assert head.index("STATUS") == row.index("Running")
    assert revstore.out("get", "pods", "-A")[0].startswith("NAMESPACE   NAME ")
    assert "nginx:1" in revstore.out("get", "pod/web", "-o", "wide")[1]
    mixed = revstore.out("get", "pods,svc,nodes", "-n", "default")
    assert [line.split()[0] for line in mixed if line] == ["NAME", "pod/web", "NAME", "service/web"]
    assert mixed[2] == ""


def test_output_formats(revstore, pod):
    """One object asked for by name comes alone; anything else is a v1 List, as with kubectl."""
    revstore.apply(pod("a"), pod("b"))
    one, two = revstore.json("get", "pod", "a"), revstore.json("get", "pod", "a", "b")

    assert one["metadata"]["name"] == "a"
    assert one["metadata"]["namespace"] == "default"
    assert (two["apiVersion"], two["kind"], len(two["items"])) == ("v1", "List", 2)
    assert two["items"][0] == one
    assert two == revstore.json("get", "pods")
    assert two == yaml.safe_load("\n".join(revstore.out("get", "pods", "-o", "yaml")))
    assert revstore.json("get", "services")["items"] == []
    assert revstore.out("get", "pods", "-o", "name") == ["pod/a", "pod/b"]
    assert revstore.out("get", "pods", "--no-headers", "--show-labels")[0].split()[-1] == "<none>"


def test_selectors(revstore, pod):
    """-l and --field-selector choose; what parses as neither is a usage error."""
    revstore.apply(
        pod("a", labels={"app": "x"}, spec={"nodeName": "n1"}), pod("b", labels={"app": "y"})
    )

    assert revstore.out("get", "pods", "-l", "app in (x,z)", "-o", "name") == ["pod/a"]
    assert revstore.out("get", "pods", "-l", "app!=x", "-o", "name") == ["pod/b"]
    assert revstore.out("get", "po", "--field-selector", "spec.nodeName=n1", "-o", "name") == [
        "pod/a"
    ]
    assert revstore.out("get", "po", "--field-selector", "metadata.name=b", "-o", "name") == [
        "pod/b"
    ]
    assert revstore.error("get", "pods", "-l", "a in (", code=2).startswith("error: ")


def test_names_that_are_not_there(revstore, pod):
    """What is there is shown, each absent name is told, and the exit code is 1."""
    revstore.apply(pod("a"))
    done = revstore("get", "pod", "a", "b", "-o", "name", code=1)

    assert done.stdout == "pod/a\n"
    assert done.stderr == "error: pods \"b\" not found in namespace 'default'\n"
    assert revstore.error("get", "pod/a", "-n", "other", code=1).endswith("in namespace 'other'")
    assert revstore.out("get", "pod/b", "--ignore-not-found") == []
    assert revstore("get", "svc").stderr.startswith("No resources found in namespace default")


def test_resources_that_nobody_knows(revstore):
    """A kind without a definition is found by what the store holds, whatever its scope."""
    monitor = {"apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor"}
    knative = {"apiVersion": "serving.knative.dev/v1", "kind": "Service"}
    revstore.apply(
        {**monitor, "metadata": {"name": "free"}},
        {**monitor, "metadata": {"name": "bound", "namespace": "default"}},
        {**monitor, "metadata": {"name": "far", "namespace": "other"}},
        {**knative, "metadata": {"name": "web", "namespace": "default"}, "spec": {"k": 1}},
        service("web"),
    )
    name = "servicemonitor.monitoring.coreos.com"

    assert sorted(revstore.out("get", "servicemonitors", "-o", "name")) == [
        f"{name}/{each}" for each in ("bound", "free")
    ]
    assert len(revstore.out("get", "ServiceMonitor", "-A", "--no-headers")) == 3
    assert revstore.json("get", name, "free")["metadata"]["name"] == "free"
    assert revstore.json("get", f"{name}/far", "-n", "other")["metadata"]["namespace"] == "other"
    assert revstore.json("get", "services.serving.knative.dev", "web")["spec"] == {"k": 1}
    assert "ports" in revstore.json("get", "services", "web")["spec"]
    assert len(revstore.out("delete", "servicemonitors", "--all", "-A")) == 3
    assert "did you mean 'pods'" in revstore.error("get", "podz", code=1)


def test_get_all_is_what_runs(revstore, pod):
    """ "all" shows pods, services and workloads, as kubectl does."""
    cm = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}
    revstore.apply(pod("a"), service("b"), cm)

    assert revstore.out("get", "all", "-o", "name") == ["pod/a", "service/b"]


def test_tables_never_show_secrets(revstore):
    """A secret's values are in -o json and yaml only, since a user who asks for these wants
    them."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s"},
        "data": {"password": "aHVudGVyMg=="},
        "stringData": {"token": "hunter3"},
    }
    revstore.apply(secret)
    for output in ("table", "wide", "name"):
        text = "\n".join(revstore.out("get", "secrets", "-o", output))
        assert "aHVudGVyMg" not in text
        assert "hunter3" not in text
    assert revstore.out("get", "secrets", "--no-headers")[0].split()[:3] == ["s", "Opaque", "2"]
    assert revstore.json("get", "secret/s")["data"] == secret["data"]


def test_delete_by_name_file_and_selector(revstore, pod):
    """Whatever was deleted is told; a name that is not there is told and gives exit code 1."""
    pods = [pod(name, labels={"app": name[0]}) for name in ("a1", "a2", "b1", "b2", "c1")]
    revstore.apply(*pods)

    done = revstore("delete", "pod", "a1", "nope", code=1)
    assert done.stdout == 'pod "a1" deleted\n'
    assert done.stderr == "error: pods \"nope\" not found in namespace 'default'\n"
    assert revstore.out("delete", "pods", "-l", "app=b", "-o", "name") == ["pod/b1", "pod/b2"]
    assert revstore.out("delete", "-f", "-", stdin=json.dumps(pods[1])) == ['pod "a2" deleted']
    assert revstore.error("delete", "-f", "-", stdin=json.dumps(pods[1]), code=1)
    assert revstore.out("delete", "pod/c1", "pod/nope", "--ignore-not-found") == [
        'pod "c1" deleted'
    ]
    revstore.apply(pod("x"), pod("y", "other"))
    assert revstore.out("delete", "pods", "--all") == ['pod "x" deleted']
    assert revstore.out("get", "pods", "-A", "-o", "name") == ["pod/y"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("get",),
        ("get", "pods,svc", "name"),
        ("get", "pod/a", "svc"),
        ("get", "pod/a/b"),
        ("get", ","),
        ("get", "pod", "a", "-l", "x=y"),
        ("get", "pods", "-o", "xml"),
        ("delete", "pods"),
        ("delete", "pod", "a", "--all"),
        ("delete", "pod", "a", "-f", "-"),
        ("watch", "pods,svc"),
        ("edit", "pods"),
        ("apply",),
        ("nonsense",),
        ("get", "pods", "--store", "memory://", "--config", "x.toml"),
        ("get", "pods", "--store", "nosuch://"),
        ("get", "pods", "--store", "sqlite:///a.db?nosuch=1"),
        ("get", "pods", "--config", "nowhere.toml"),
        ("compact", "--revision", "0"),
        ("plugins", "check", "nosuch"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_and_code_2(revstore, arguments):
    """Usage and configuration that will not do say so in one line and change nothing."""
    assert revstore.error(*arguments, code=2).startswith("error: ")


def test_objects_of_others_may_lack_a_name(revstore):
    """What somebody else has stored is shown and listed whatever it lacks; it cannot be deleted by
    a name, which is told."""
    with StorageFactory(revstore.env["REVSTORE_URL"]) as factory:
        for name in ("a", "b"):
            value = json.dumps({"metadata": {}, "status": {"active": 3}}).encode()
            factory.backend().put(f"/registry/cronjobs/default/{name}", value, expected_revision=0)

    assert revstore.out("get", "cronjobs", "-o", "name") == ["cronjob.batch/"] * 2
    assert len(revstore.out("get", "cronjobs")) == 3
    complaints = revstore("delete", "cronjobs", "--all", code=1).stderr.splitlines()
    assert len(complaints) == 2
    assert all("invalid name" in line for line in complaints)
