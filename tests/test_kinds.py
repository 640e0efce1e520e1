"""Kinds and resources: names, keys, and objects of undeclared kinds."""

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from revstore.config import StorageConfig
from revstore.errors import InvalidArgument, InvalidObject
from revstore.factory import StorageFactory
from revstore.kinds import (
    KINDS,
    ResourceInfo,
    check,
    find,
    for_class,
    for_object,
    for_prefix,
    known,
    lookup,
    plural_of,
)


@attrs.frozen
class Override:
    kind: str
    namespaced: bool | None = None
    short_names: tuple[str, ...] = ()


def obj(version, kind, namespace=None):
    metadata = {"name": "x"} if namespace is None else {"name": "x", "namespace": namespace}
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


@pytest.mark.parametrize(
    ("name", "resource"),
    [
        ("pods", "pods"),
        ("pod", "pods"),
        ("PO", "pods"),
        ("Deployment", "deployments"),
        ("deploy", "deployments"),
        ("deployments.apps", "deployments"),
        ("deploy.apps", "deployments"),
        ("deployments.extensions", "deployments"),
        ("events.events.k8s.io", "events"),
        ("ingresses.networking.k8s.io", "ingresses"),
        ("sc", "storageclasses"),
        ("psp", "podsecuritypolicies"),
        ("apiservice", "apiservices"),
        ("initializerconfigurations", "initializerconfigurations"),
        ("netpol", "networkpolicies"),
    ],
)
def test_lookup_knows_what_people_write(name, resource):
    """Plural, kind and short names, any case, with the group or without, find the resource."""
    found = lookup(name)

    assert found is not None
    assert resource == found.resource


@pytest.mark.parametrize(
    "name", ["", "widgets", "pods.example.com", "services.serving.knative.dev"]
)
def test_lookup_does_not_guess(name):
    """A name, or a foreign group's name, that the table lacks finds nothing."""
    assert lookup(name) is None


def test_the_table_has_no_name_twice():
    """Every kind, plural, short name and prefix leads to one resource only."""
    names = [
        name for info in KINDS for name in {info.resource, info.kind.lower(), *info.short_names}
    ]

    assert len(names) == len(set(names))
    assert len(KINDS) == len({info.prefix for info in KINDS})


@pytest.mark.parametrize("info", KINDS, ids=lambda info: info.qualified)
def test_every_known_resource_is_found_by_object_prefix_and_name(info):
    """A known kind keeps its scope whether or not the object has a namespace."""
    version = f"{info.group}/v1" if info.group else "v1"

    assert info == for_object(obj(version, info.kind))
    assert info == for_object(obj(version, info.kind, "here"))
    assert info == for_prefix(info.prefix)
    assert info == lookup(info.qualified)
    assert f"/{info.resource}" == info.prefix


@pytest.mark.parametrize(
    ("version", "kind", "prefix"),
    [
        ("extensions/v1beta1", "DaemonSet", "/daemonsets"),
        ("extensions/v1beta1", "Ingress", "/ingresses"),
        ("storage.k8s.io/v1beta1", "StorageClass", "/storageclasses"),
        ("events.k8s.io/v1", "Event", "/events"),
        ("serving.knative.dev/v1", "Service", "/serving.knative.dev/services"),
        ("monitoring.coreos.com/v1", "ServiceMonitor", "/monitoring.coreos.com/servicemonitors"),
        ("gateway.networking.k8s.io/v1", "Gateway", "/gateway.networking.k8s.io/gateways"),
        ("metrics.k8s.io/v1", "Pod", "/metrics.k8s.io/pods"),
    ],
)
def test_prefix_of_objects(version, kind, prefix):
    """Built-in groups share plain prefixes; another group's kind never gets a core kind's."""
    assert prefix == for_object(obj(version, kind)).prefix


def test_unknown_kind_is_namespaced_exactly_with_a_namespace():
    """The scope of an undeclared kind comes from the object."""
    assert for_object(obj("example.com/v1", "Widget", "here")).namespaced is True
    assert for_object(obj("example.com/v1", "Widget")).namespaced is False


def test_configuration_overrides_plural_scope_and_names():
    """`resources` in the configuration decides for kinds that the table lacks."""
    overrides = {"mice.example.com": Override("Mouse", True, ("mo",)), "foos.x.io": Override("Foo")}
    mice = ResourceInfo("mice", "Mouse", "example.com", True, ("mo",))

    assert mice == for_object(obj("example.com/v1", "Mouse"), overrides)
    assert mice == lookup("mo", overrides) == lookup("Mouse.example.com", overrides)
    assert mice == for_prefix("/example.com/mice", overrides)
    assert for_object(obj("x.io/v1", "Foo"), overrides).namespaced is False
    assert for_object(obj("x.io/v1", "Foo", "here"), overrides).namespaced is True
    assert for_object(obj("other.io/v1", "Mouse"), overrides).prefix == "/other.io/mouses"


@pytest.mark.parametrize(
    ("kind", "plural"),
    [
        ("Policy", "policies"),
        ("Gateway", "gateways"),
        ("Ingress", "ingresses"),
        ("Box", "boxes"),
        ("Batch", "batches"),
        ("Mesh", "meshes"),
        ("Widget", "widgets"),
    ],
)
def test_plural_by_rule(kind, plural):
    """The plural of an unknown kind follows English's rule."""
    assert plural == plural_of(kind)


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        (None, "Pod"),
        ("", "Pod"),
        (1, "Pod"),
        ("/v1", "Pod"),
        ("a/b/v1", "Pod"),
        ("apps/", "Deployment"),
        ("pods/v1", "Widget"),
        ("../v1", "Widget"),
        ("Example.com/v1", "Widget"),
        ("v1", None),
        ("v1", ""),
        ("v1", "a/b"),
        ("v1", ".."),
        ("v1", ["Pod"]),
    ],
)
def test_malformed_types_are_refused(version, kind):
    """An apiVersion or kind that could not be part of a key is an InvalidObject."""
    with pytest.raises(InvalidObject):
        for_object({"apiVersion": version, "kind": kind, "metadata": {"name": "x"}})


@pytest.mark.parametrize(
    ("version", "kind", "meant"),
    [
        ("v1", "pod", "Pod"),
        ("v1", "PODS", None),
        ("v1", "Endpoint", "Endpoints"),
        ("apps/v1", "deployment", "Deployment"),
        ("extensions/v1beta1", "deployment", "Deployment"),
        ("networking.k8s.io/v1", "NetworkPolicie", "NetworkPolicy"),
        ("v1", "Deployment", "apps"),
        ("example.com/v1", "mouse", "Mouse"),
        ("example.com/v1", "Mice", None),
        ("example.com/v1", "Goos", None),
        ("example.com/v1", "Gee", "Goose"),
        ("example.com/v1", "pod", None),
    ],
)
def test_a_kind_that_would_be_taken_for_another_is_refused(version, kind, meant):
    """What differs in case only from a kind of its group, or would get its plural,
    is refused with the right name; what is merely unknown is not."""
    overrides = {"mice.example.com": Override("Mouse"), "gees.example.com": Override("Goose")}
    if meant is None:
        assert for_object(obj(version, kind), overrides).kind == kind
    else:
        with pytest.raises(InvalidObject, match=meant):
            for_object(obj(version, kind), overrides)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("kops.k8s.io/v1", "Cluster"), ("cluster.k8s.io/v1", "Cluster")),
        (("v1", "Widget"), ("apps/v1", "Widget")),
        (("batch/v1", "Widget"), ("apps/v1", "Widget")),
        (("storage.k8s.io/v1", "Widget"), ("v1", "Widget")),
        (("networking.k8s.io/v1", "Pod"), ("v1", "Pod")),
        (("apps/v1", "Service"), ("v1", "Service")),
        (("example.com/v1", "Foo"), ("example.com/v1", "Foos")),
    ],
)
def test_kinds_of_several_groups_lie_apart(first, second):
    """Only the table's resources and the core group's lie at the top level."""
    infos = [for_object(obj(*each)) for each in (first, second)]

    assert infos[0].prefix != infos[1].prefix
    assert [for_prefix(info.prefix).qualified for info in infos] == [
        info.qualified for info in infos
    ]


@pytest.mark.parametrize(
    ("name", "resource"),
    [
        ("deployments.v1.apps", "deployments.apps"),
        ("Deployment.v1beta1.apps", "deployments.apps"),
        ("deploy.v1.extensions", "deployments.apps"),
        ("pods.v1", "pods"),
        ("pod.v1.", "pods"),
        ("gateways.gateway.networking.k8s.io", "gateways.gateway.networking.k8s.io"),
        ("gateway.v1.gateway.networking.k8s.io", "gateways.gateway.networking.k8s.io"),
        ("gw", "gateways.gateway.networking.k8s.io"),
        ("things.v1.com", "things.v1.com"),
        ("things.v2.v1.com", "things.v1.com"),
        ("services", "services"),
        ("services.serving.knative.dev", "services.serving.knative.dev"),
        ("pods.apps", None),
        ("pods.v1.apps", None),
        ("pods.latest", None),
    ],
)
def test_names_with_version_and_group(name, resource):
    """kubectl's forms: name.group, name.version.group; a bare name is the core group's first."""
    overrides = {
        "gateways.gateway.networking.k8s.io": Override("Gateway", short_names=("gw",)),
        "services.serving.knative.dev": Override("Service"),
        "things.v1.com": Override("Thing"),
    }
    found = lookup(name, overrides)

    assert resource == (found and found.qualified)


@pytest.mark.parametrize("name", ["clusters", "cluster", "CL", "jobs"])
def test_a_name_of_two_groups_is_refused_with_both(name):
    """Neither is answered silently."""
    overrides = {
        "clusters.kops.k8s.io": Override("Cluster", short_names=("cl",)),
        "clusters.cluster.k8s.io": Override("Cluster", short_names=("cl",)),
        "jobs.batch.volcano.sh": Override("Job"),
    }
    both = "jobs.batch.*jobs.batch.volcano" if name == "jobs" else "cluster.k8s.io.*kops.k8s.io"
    with pytest.raises(InvalidArgument, match=both):
        lookup(name, overrides)


@pytest.mark.parametrize(
    ("name", "resource"),
    [("Pod", "pods"), ("Job", "jobs.batch"), ("Limit", "limits"), ("C", "cs"), ("Po", "pos")],
)
def test_the_resource_of_a_class(name, resource):
    """The kind of exactly its name, else one of its own, whatever the short names of others."""
    assert resource == for_class(name).qualified


@pytest.mark.parametrize("name", ["pod", "Endpoint", "deployment", "Policie"])
def test_a_class_that_would_be_taken_for_another_kind_is_refused(name):
    """With the kind that may be meant, and what to do."""
    with pytest.raises(InvalidArgument, match="resource="):
        for_class(name, {"policies": Override("Policy")})


@pytest.mark.parametrize(
    "resource", ["pods.nodes", "x.a", "/b", "a/b.example.com", "..", " ", ".x.y"]
)
def test_a_resource_among_the_keys_of_another_is_refused(resource):
    """A group of one's own has a dot, as Kubernetes demands, a resource has neither dot nor
    slash: so "/nodes/pods/..." cannot be anything but nodes."""
    name, _, group = resource.partition(".")
    with pytest.raises(InvalidArgument, match="resource"):
        check(ResourceInfo(name, "X", group))


CORE = ["Pod", "pod", "Pods", "Po", "Endpoint", "Endpoints", "Event", "Deployment", "App", "Apps"]
OWN = [
    "Foo",
    "Foos",
    "FOO",
    "Policy",
    "Policie",
    "Index",
    "Indexe",
    "Indexes",
    "Ox",
    "Oxe",
    "Mouse",
]
GROUPS = ["", "apps", "batch", "extensions", "events.k8s.io", "kops.k8s.io", "cluster.k8s.io"]
OVERRIDES = {
    "mice.a.io": Override("Mouse"),
    "foos.kops.k8s.io": Override("Policy", True, ("foo",)),
    "policies": Override("Policie", False),
    "widgets.apps": Override("Ox"),
}
RESOURCES = {name: attrs.asdict(each) for name, each in OVERRIDES.items()}
groups = st.sampled_from([*GROUPS, "a.io", "pods.io"]) | st.from_regex(
    r"[a-c](\.[a-c]){1,2}", fullmatch=True
)
segments = st.sampled_from(["a", "b", "pods", "foos", "apps", "a.io", "x.y", "a/b", "..", ""])


def named(group, kind, namespace, name):
    version = f"{group}/v1" if group else "v1"
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


@st.composite
def neighbours(draw):
    """Objects of few groups, many kinds, and few names, so that they could meet."""
    some_groups, some_names = (
        draw(st.lists(each, min_size=1, max_size=2)) for each in (groups, segments)
    )
    kinds = st.sampled_from([*CORE, *OWN]) | st.from_regex(
        "[A-C][a-c]{0,2}(s|es|ies?|y)?", fullmatch=True
    )
    objects = st.builds(
        named,
        st.sampled_from(some_groups),
        kinds,
        st.none() | st.sampled_from(some_names),
        st.sampled_from(some_names),
    )
    return draw(st.lists(objects, min_size=2, max_size=12))


@example([named("a.io", kind, None, "a") for kind in ("Policy", "Policie", "policy")], False)
@example([named("", "App", "foos", "a"), named("apps", "Foo", None, "a")], False)
@example([named("kops.k8s.io", "Foo", "a", "a"), named("cluster.k8s.io", "Foo", "a", "a")], False)
@example([named(group, "Pod", "a", "a") for group in ("", "apps", "events.k8s.io")], False)
@example([named("a.io", "Foo", namespace, "a") for namespace in (None, "a", "b")], True)
@given(neighbours(), st.booleans())
def test_no_two_kinds_share_a_key(objs, configured):
    """Keys are injective in (group, kind, namespace, name): whatever is taken comes
    back as it went in, whatever else is written, and lies under a key of its own."""
    config = StorageConfig(type="memory", resources=RESOURCES if configured else {})
    kept, written = {}, {}
    with StorageFactory(config) as factory:
        for each in objs:
            try:
                info = for_object(each, config.resources)
                stored = factory.registry(info).apply(each).object
            except InvalidArgument:
                continue
            # A kind that moved is one kind under both groups.
            identity = (info.group, each["kind"], stored["metadata"].get("namespace"))
            identity = (*identity, each["metadata"]["name"])
            kept[identity], written[identity] = stored, info
        keys = [kv.key for kv in factory.backend().list("", keys_only=True).kvs]
        assert len(keys) == len(kept)
        for identity, stored in kept.items():
            *_, namespace, name = identity
            assert factory.registry(written[identity]).get(name, namespace) == stored


@given(st.text(), st.text())
def test_a_foreign_group_never_shares_a_prefix_with_ours(version, kind):
    """Whatever apiVersion and kind say, the prefix is a known one or has its group in it."""
    try:
        info = for_object(obj(version, kind))
    except InvalidObject:
        return
    assert info.prefix.count("/") in (1, 2)
    assert "" not in info.prefix.split("/")[1:]
    if info not in KINDS and info.group:
        assert info.prefix.removeprefix(f"/{info.group}") in (
            f"/{info.resource}",
            f"./{info.resource}",
        )


@given(neighbours(), st.booleans())
def test_the_name_of_an_object_leads_back(objs, configured):
    """Whatever else is stored, and though of an unknown kind only the prefix is known: `singular`
    and `qualified`, which are printed, and these with a version lead to the resource alone."""
    overrides = OVERRIDES if configured else {}
    infos = {}
    for each in objs:
        try:
            info = for_object(each, overrides)
        except InvalidObject:
            continue
        infos.setdefault(info.prefix, info)
    ours = {info.prefix: info for info in known(overrides)}
    stored = {prefix: for_prefix(prefix, overrides) for prefix in infos}
    for prefix, info in infos.items():
        name, _, group = info.singular.partition(".")
        for spelt in (info.singular, info.qualified, f"{name}.v1.{group}"):
            (found,) = find(spelt, (stored | ours).values())
            assert found.prefix == prefix
