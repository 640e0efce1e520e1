"""Kinds and resources: names, keys, and objects of kinds that nobody has told of."""

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from revstore.errors import InvalidObject
from revstore.kinds import KINDS, ResourceInfo, for_object, for_prefix, lookup, plural_of


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
    """Scope of a kind that nobody has told of comes from the object."""
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


@given(st.text(), st.text())
def test_a_foreign_group_never_shares_a_prefix_with_ours(version, kind):
    """Whatever apiVersion and kind say, the prefix is a known one or has its group in it."""
    try:
        info = for_object(obj(version, kind))
    except InvalidObject:
        return
    assert info.prefix.count("/") in (1, 2)
    assert "" not in info.prefix.split("/")[1:]
    if info.group and not info.group.endswith(".k8s.io") and info not in KINDS:
        assert info.prefix == f"/{info.group}/{info.resource}" or "." not in info.group
