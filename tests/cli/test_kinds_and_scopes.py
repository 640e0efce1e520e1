"""Kinds, their names, and the namespaces that commands touch."""

import json

import pytest

from revstore.factory import StorageFactory


def made(version, kind, name="x", namespace=None, **fields):
    metadata = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


def widget(name, namespace=None, **fields):
    return made("example.com/v1", "Widget", name, namespace, **fields)


KINDS = [
    ("v1", "Pod"),
    ("v1", "Service"),
    ("apps/v1", "Deployment"),
    ("v1", "Limit"),
    ("v1", "C"),
    ("v1", "Po"),
    ("apps/v1", "Pod"),
    ("serving.knative.dev/v1", "Service"),
    ("kops.k8s.io/v1alpha2", "Cluster"),
    ("cluster.k8s.io/v1alpha1", "Cluster"),
    ("gateway.networking.k8s.io/v1", "Gateway"),
    ("metrics.k8s.io/v1", "Pod"),
    ("example.com/v1", "Foo"),
    ("example.com/v1", "Foos"),
    ("example.com/v1", "Fooses"),
    ("example.com/v1", "Prometheus"),
    ("example.com/v1", "Ingress"),
    ("batch.volcano.sh/v1", "Job"),
    ("batch/v1", "Job"),
]


def test_what_is_printed_as_a_name_is_taken_for_the_same_object(revstore):
    """Whatever -o name prints, and apply, leads back to the object it stands for, whatever other
    kinds are stored; delete takes it as well and deletes nothing else."""
    objects = [made(version, kind, "x", "default", n=n) for n, (version, kind) in enumerate(KINDS)]
    printed = [line.split()[0] for line in revstore.apply(*objects)]
    stored = ",".join(revstore.doctor()["objects"])
    listed = revstore.json("get", stored, "-A")["items"]
    names = revstore.out("get", stored, "-A", "-o", "name")

    assert len(set(names)) == len(listed) == len(objects)
    assert set(printed) == set(names)
    assert revstore.json("get", *names)["items"] == listed
    assert revstore.json("get", *printed)["items"] == [
        next(each for each in listed if each["n"] == n) for n in range(len(objects))
    ]
    for name in names[::4]:
        assert revstore.out("delete", name, "-o", "name") == [name]
    left = [name for at, name in enumerate(names) if at % 4]
    assert revstore.json("get", *left)["items"] == [each for n, each in enumerate(listed) if n % 4]


def test_names_with_group_and_version(revstore):
    """What is stored of a group that the table lacks is found by every form that kubectl has; a
    plural of two groups is refused with both."""
    version = "gateway.networking.k8s.io/v1"
    revstore.apply(made(version, "Gateway"), *(made(*each) for each in KINDS[8:10]))
    group = "gateway.networking.k8s.io"
    for name in (f"gateways.{group}", f"gateway.{group}", f"gateways.v1.{group}", "gateways"):
        assert revstore.out("get", name, "-o", "name") == [f"gateway.{group}/x"]
    for command in ("get", "delete"):
        error = revstore.error(command, "clusters/x", code=1)
        assert "clusters.cluster.k8s.io or clusters.kops.k8s.io" in error
    assert len(revstore.out("get", "clusters.v1.kops.k8s.io", "-o", "name")) == 1


def test_a_stored_kind_takes_no_known_short_name(revstore):
    """A short name of the core group keeps its meaning; one of another group is refused with both
    resources."""
    known = [made("v1", "Service"), made("apps/v1", "Deployment")]
    revstore.apply(
        *known, made("example.com/v1", "Svc"), made("v1", "Svc"), made("example.com/v1", "Deploy")
    )
    assert revstore.out("get", "svc,SVC", "-o", "name") == ["service/x"]
    for command in (("get", "deploy"), ("delete", "Deploy", "--all", "-n", "default")):
        assert "deployments.apps or deploys.example.com" in revstore.error(*command, code=1)
    assert revstore.out("get", "deploys,deploy.apps", "-o", "name") == [
        "deploys.example.com/x",
        "deployment.apps/x",
    ]


@pytest.mark.parametrize(
    ("version", "kind", "meant"),
    [
        ("v1", "pod", "'Pod'"),
        ("apps/v1", "deployment", "'Deployment'"),
        ("v1", "Endpoint", "'Endpoints'"),
        ("example.com/v1", "widget", "'Widget'"),
        ("example.com/v1", "WIDGET", "'Widget'"),
    ],
)
def test_a_kind_that_is_nearly_another_is_refused(revstore, version, kind, meant):
    """Nothing is stored or deleted, and the kind that is meant is told: of the table or of what
    the store holds."""
    revstore.apply(widget("x"), made("v1", "Endpoints"))
    for command in ("apply", "delete"):
        stdin = json.dumps(made(version, kind))
        error = revstore.error(command, "-f", "-", stdin=stdin, code=1)
        assert f"did you mean {meant}" in error
    assert revstore.doctor()["objects"] == {"endpoints": 1, "widgets.example.com": 1}


def test_two_new_kinds_with_one_plural(revstore):
    """The first has it, in one run as in two; the other is refused, until configured."""
    policies = [made("example.com/v1", kind, kind.lower()) for kind in ("Policy", "Policie")]
    for _ in range(2):
        done = revstore("apply", "-f", "-", stdin="\n".join(map(json.dumps, policies)), code=1)
        assert done.stdout.startswith("policy.example.com/policy ")
        assert "did you mean 'Policy'" in done.stderr
    (revstore.folder / "c.toml").write_text(
        f'url = "{revstore.env["REVSTORE_URL"]}"\n'
        '[resources."policee.example.com"]\nkind = "Policie"\n'
    )
    options = {"stdin": json.dumps(policies[1])}
    assert revstore.out("--config", "c.toml", "apply", "-f", "-", **options)


def names_of(revstore, *arguments):
    listed = revstore.json("get", "widgets", *arguments)["items"]
    return [(each["metadata"].get("namespace"), each["metadata"]["name"]) for each in listed]


def test_n_decides_where_an_object_of_unknown_scope_is(revstore):
    """Its own namespace, else -n, else none; so no team replaces another's."""
    for namespace in ("team-a", "team-b"):
        assert revstore.apply_in(namespace, widget("x", n=namespace)) == [
            "widget.example.com/x created"
        ]
    assert revstore.apply(widget("x")) == ["widget.example.com/x created"]
    assert names_of(revstore, "-A") == [("team-a", "x"), ("team-b", "x"), (None, "x")]
    assert revstore.json("get", "widget", "x", "-n", "team-a")["n"] == "team-a"
    error = revstore.error(
        "apply", "-n", "b", "-f", "-", stdin=json.dumps(widget("x", "a")), code=1
    )
    assert "namespace 'a', not in 'b'" in error


def test_n_touches_only_its_namespace(revstore):
    """-n names the objects of that namespace, -A all; without either it is those in "default" and
    those in no namespace, the latter first where one name is meant."""
    everywhere = [(None, "x"), (None, "y"), ("default", "x"), ("test", "x"), ("test", "z")]
    revstore.apply(*(widget(name, namespace) for namespace, name in everywhere))

    assert set(names_of(revstore, "-A")) == set(everywhere)
    assert set(names_of(revstore)) == set(everywhere[:3])
    assert names_of(revstore, "-n", "test") == everywhere[3:]
    assert "not found" in revstore.error("get", "widget", "y", "-n", "test", code=1)
    assert "not found" in revstore.error("delete", "widget", "y", "-n", "default", code=1)
    revstore.out("delete", "widgets", "--all", "-n", "test")
    assert set(names_of(revstore, "-A")) == set(everywhere[:3])
    revstore.out("delete", "widget", "x")
    assert set(names_of(revstore, "-A")) == {(None, "y"), ("default", "x")}
    revstore.out("delete", "widget", "x")
    assert names_of(revstore, "-A") == [(None, "y")]
    revstore.out("delete", "widgets", "--all", "-A")
    assert revstore.doctor()["objects"] == {}


def test_a_watch_touches_only_its_namespace(revstore):
    """-n means the same for a watch."""
    revstore.apply(widget("a"), widget("b", "test"), widget("c", "default"))
    watch = revstore.start("watch", "widgets", "-n", "test", "-o", "name")
    assert watch.line() == "ADDED widget.example.com/b"
    revstore.apply(widget("d"), widget("e", "test"))
    assert watch.line() == "ADDED widget.example.com/e"


def test_a_known_kind_of_another_group_is_told_what_it_was_given(revstore):
    """The line has the apiVersion that is there and the one that would do."""
    stdin = json.dumps(made("v1", "Deployment", "a"))

    line = revstore.error("apply", "-f", "-", stdin=stdin, code=1)

    assert "invalid apiVersion 'v1': expected \"apps/v1\"" in line


def test_a_second_kind_of_one_plural_is_refused_beside_unreadable_objects(revstore):
    """The first object of the resource need not be one that can be read."""
    revstore.apply(made("example.com/v1", "Policy", "b"))
    with StorageFactory(revstore.env["REVSTORE_URL"]) as factory:
        key = "/registry/example.com/policies/a"
        factory.backend().put(key, b"garbage", expected_revision=0)
    stdin = json.dumps(made("example.com/v1", "Policie", "c"))

    assert "did you mean 'Policy'" in revstore.error("apply", "-f", "-", stdin=stdin, code=1)


def test_no_message_steers_a_terminal(revstore):
    """What cannot be seen is written as an escape, whatever it came with."""
    for name, shown in (("\x00", "\\x00"), ("\x1b[2Ja", "\\x1b[2Ja"), ("\u202ea", "\\u202ea")):
        stdin = json.dumps(made("v1", "Pod", f"{name}/%"))
        line = revstore.error("apply", "-f", "-", stdin=stdin, code=1)
        assert f"pod/{shown}/%" in line
        assert line.isprintable()


def test_the_namespace_of_what_has_none_is_left_out_with_a_warning(revstore):
    """As an apiserver does it, for every cluster-scoped kind; one line a document."""
    roles = [
        made("rbac.authorization.k8s.io/v1", "ClusterRole", name, "team") for name in ("a", "b")
    ]
    stdin = json.dumps({"apiVersion": "v1", "kind": "List", "items": roles}) + json.dumps(
        made("v1", "Namespace", "n", "team")
    )
    for outcome in ("created", "unchanged"):
        done = revstore("apply", "-f", "-", "-n", "mine", stdin=stdin)
        assert [line.split()[1] for line in done.stdout.splitlines()] == [outcome] * 3
        assert done.stderr.splitlines() == [
            f"warning: standard input (document {at}, line 1): metadata.namespace: {kind} is "
            "cluster-scoped: namespace 'team' is dropped"
            for at, kind in ((1, "ClusterRole"), (2, "Namespace"))
        ]
    assert "namespace" not in revstore.json("get", "clusterrole", "a")["metadata"]
    revstore("delete", "-f", "-", stdin=stdin)
    assert revstore.doctor()["objects"] == {}
