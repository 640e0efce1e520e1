"""Kinds and resources: under which keys a kind is stored, and by which names people call it.

Kubernetes' own kinds come from one table. A kind that the table lacks is namespaced exactly if
the object has ``metadata.namespace``, and its plural follows a rule; both can be set in the
configuration::

    [resources."widgets.example.com"]
    kind = "Widget"
    namespaced = true
    short_names = ["wd"]

Stored under ``<prefix>/<resource>/...`` are the resources of the table and those of the core group,
under ``<prefix>/<group>/<resource>/...`` all others, as apiservers do. So a Knative Service never
meets a core one. No two kinds of the table and the configuration share a prefix: a kind that would
get another one's is refused.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import attrs

from revstore.errors import InvalidArgument, InvalidObject

__all__ = [
    "KINDS",
    "Overrides",
    "ResourceInfo",
    "ResourceOverride",
    "check",
    "find",
    "for_class",
    "for_object",
    "for_prefix",
    "kind_of",
    "known",
    "leads_back",
    "lookup",
    "only",
    "plural_of",
]


@attrs.frozen
class ResourceInfo:
    """A resource: ``resource`` is the lower-case plural, ``kind`` the kind of its objects."""

    resource: str
    kind: str
    group: str = ""
    namespaced: bool = True
    short_names: tuple[str, ...] = ()

    @property
    def prefix(self) -> str:
        """Where its keys start, below the store's prefix: "/pods", "/example.com/widgets"."""
        if not self.group or _GROUP_OF.get(self.resource) == self.group:
            return f"/{self.resource}"
        # "/apps/widgets" would lie among the keys of a resource "apps" of the core group. No name
        # of a resource or of another group has a dot at its end.
        dot = "." if self.group in _BUILTIN_GROUPS and "." not in self.group else ""
        return f"/{self.group}{dot}/{self.resource}"

    @property
    def qualified(self) -> str:
        """ "pods", or with the group: "deployments.apps". It is what configuration calls it."""
        return f"{self.resource}.{self.group}" if self.group else self.resource

    @property
    def names(self) -> tuple[str, str]:
        """Plural and kind in lower case."""
        return self.resource, self.kind.lower()

    @property
    def singular(self) -> str:
        """What one of its objects is called: "pod", "deployment.apps". ``find`` leads back.

        It is the kind, unless that may be the plural of another kind (Foos, of Foo) or does not
        lead to the resource; then it is the plural.
        """
        name = self.kind.lower()
        if _BY_KIND.get(self.kind) != self and (
            _may_be_plural(name) or name in _SHORT_NAMES or name in _GROUP_OF
        ):
            name = self.resource
        return f"{name}.{self.group}" if self.group else name


class ResourceOverride(Protocol):
    """What configuration says about a resource that the table lacks."""

    @property
    def kind(self) -> str: ...
    @property
    def namespaced(self) -> bool | None: ...
    @property
    def short_names(self) -> Sequence[str]: ...


#: The configuration's ``resources``: by "widgets.example.com".
Overrides: TypeAlias = Mapping[str, ResourceOverride]

# One line a resource: plural, kind, and its short names after a comma. "~" marks what is not
# namespaced. Kinds that Kubernetes has dropped are here as well, as manifests outlive them.
_TABLE = {
    "": """
        bindings Binding
        ~componentstatuses ComponentStatus,cs
        configmaps ConfigMap,cm
        endpoints Endpoints,ep
        events Event,ev
        limitranges LimitRange,limits
        ~namespaces Namespace,ns
        ~nodes Node,no
        persistentvolumeclaims PersistentVolumeClaim,pvc
        ~persistentvolumes PersistentVolume,pv
        pods Pod,po
        podtemplates PodTemplate
        replicationcontrollers ReplicationController,rc
        resourcequotas ResourceQuota,quota
        secrets Secret
        serviceaccounts ServiceAccount,sa
        services Service,svc
    """,
    "admissionregistration.k8s.io": """
        ~externaladmissionhookconfigurations ExternalAdmissionHookConfiguration
        ~initializerconfigurations InitializerConfiguration
        ~mutatingadmissionpolicies MutatingAdmissionPolicy
        ~mutatingadmissionpolicybindings MutatingAdmissionPolicyBinding
        ~mutatingwebhookconfigurations MutatingWebhookConfiguration
        ~validatingadmissionpolicies ValidatingAdmissionPolicy
        ~validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding
        ~validatingwebhookconfigurations ValidatingWebhookConfiguration
    """,
    "apiextensions.k8s.io": "~customresourcedefinitions CustomResourceDefinition,crd,crds",
    "apiregistration.k8s.io": "~apiservices APIService",
    "apps": """
        controllerrevisions ControllerRevision
        daemonsets DaemonSet,ds
        deployments Deployment,deploy
        replicasets ReplicaSet,rs
        statefulsets StatefulSet,sts
    """,
    "auditregistration.k8s.io": "~auditsinks AuditSink",
    "authentication.k8s.io": """
        ~selfsubjectreviews SelfSubjectReview
        ~tokenreviews TokenReview
    """,
    "authorization.k8s.io": """
        localsubjectaccessreviews LocalSubjectAccessReview
        ~selfsubjectaccessreviews SelfSubjectAccessReview
        ~selfsubjectrulesreviews SelfSubjectRulesReview
        ~subjectaccessreviews SubjectAccessReview
    """,
    "autoscaling": "horizontalpodautoscalers HorizontalPodAutoscaler,hpa",
    "batch": """
        cronjobs CronJob,cj
        jobs Job
    """,
    "certificates.k8s.io": """
        ~certificatesigningrequests CertificateSigningRequest,csr
        ~clustertrustbundles ClusterTrustBundle
        podcertificaterequests PodCertificateRequest
    """,
    "coordination.k8s.io": """
        leasecandidates LeaseCandidate
        leases Lease
    """,
    "discovery.k8s.io": "endpointslices EndpointSlice",
    "events.k8s.io": "",  # its Event is stored as the core group's
    "extensions": "~thirdpartyresources ThirdPartyResource",  # the rest went to other groups
    "flowcontrol.apiserver.k8s.io": """
        ~flowschemas FlowSchema
        ~prioritylevelconfigurations PriorityLevelConfiguration
    """,
    "internal.apiserver.k8s.io": "~storageversions StorageVersion",
    "networking.k8s.io": """
        ~ingressclasses IngressClass
        ingresses Ingress,ing
        ~ipaddresses IPAddress,ip
        networkpolicies NetworkPolicy,netpol
        ~servicecidrs ServiceCIDR
    """,
    "node.k8s.io": "~runtimeclasses RuntimeClass",
    "policy": """
        poddisruptionbudgets PodDisruptionBudget,pdb
        ~podsecuritypolicies PodSecurityPolicy,psp
    """,
    "rbac.authorization.k8s.io": """
        ~clusterrolebindings ClusterRoleBinding
        ~clusterroles ClusterRole
        rolebindings RoleBinding
        roles Role
    """,
    "resource.k8s.io": """
        ~deviceclasses DeviceClass
        ~devicetaintrules DeviceTaintRule
        podschedulingcontexts PodSchedulingContext
        resourceclaims ResourceClaim
        resourceclaimtemplates ResourceClaimTemplate
        ~resourceclasses ResourceClass
        ~resourceslices ResourceSlice
    """,
    "scheduling.k8s.io": """
        ~priorityclasses PriorityClass,pc
        workloads Workload
    """,
    "settings.k8s.io": "podpresets PodPreset",
    "storage.k8s.io": """
        ~csidrivers CSIDriver
        ~csinodes CSINode
        csistoragecapacities CSIStorageCapacity
        ~storageclasses StorageClass,sc
        ~volumeattachments VolumeAttachment
        ~volumeattributesclasses VolumeAttributesClass,vac
    """,
    "storagemigration.k8s.io": "~storageversionmigrations StorageVersionMigration",
}


def _parse(group: str, line: str) -> ResourceInfo:
    names, *short_names = line.split(",")
    resource, kind = names.removeprefix("~").split()
    return ResourceInfo(resource, kind, group, not line.startswith("~"), tuple(short_names))


#: Kubernetes' own resources, by group and then by name.
KINDS: tuple[ResourceInfo, ...] = tuple(
    _parse(group, line.strip())
    for group, lines in _TABLE.items()
    for line in lines.strip().splitlines()
)

_BUILTIN_GROUPS = frozenset(_TABLE)
_BY_KIND = {info.kind: info for info in KINDS}
_BY_PREFIX = {f"/{info.resource}": info for info in KINDS}
_GROUP_OF = {info.resource: info.group for info in KINDS}
_SHORT_NAMES = frozenset(short for info in KINDS for short in info.short_names)
# Kinds that moved to the group in the table, by the groups that manifests name them in as well.
_MOVED = {
    "events.k8s.io": frozenset(["Event"]),
    "extensions": frozenset(
        [
            "DaemonSet",
            "Deployment",
            "HorizontalPodAutoscaler",
            "Ingress",
            "Job",
            "NetworkPolicy",
            "PodSecurityPolicy",
            "ReplicaSet",
        ]
    ),
}


def plural_of(kind: str) -> str:
    """The lower-case plural by rule: "Policy" -> "policies", "Ingress" -> "ingresses"."""
    name = kind.lower()
    if name.endswith("y") and name[-2:-1] not in ("a", "e", "i", "o", "u"):
        return name[:-1] + "ies"
    if name.endswith(("s", "x", "ch", "sh")):
        return name + "es"
    return name + "s"


def kind_of(plural: str) -> str:
    """A kind whose plural by rule is ``plural``: "policies" -> "Policy"; "" if there is none."""
    stems = [plural[:-3] + "y", plural[:-2], plural[:-1]]
    return next((stem.capitalize() for stem in stems if stem and plural_of(stem) == plural), "")


def leads_back(info: ResourceInfo, api_version: str, overrides: Overrides | None = None) -> bool:
    """Whether an object with this apiVersion and the kind of ``info`` is taken for one of it."""
    namespace = {"namespace": "default"} if info.namespaced else {}
    obj = {"apiVersion": api_version, "kind": info.kind, "metadata": namespace}
    try:
        return for_object(obj, overrides).prefix == info.prefix
    except InvalidObject:
        return False


def _may_be_plural(name: str) -> bool:
    """Whether ``name`` is the plural of some kind."""
    return name in (plural_of(name[:-1]), plural_of(name[:-2]), plural_of(name[:-3] + "y"))


def _overridden(overrides: Overrides, namespaced: bool) -> list[ResourceInfo]:
    infos = []
    for name, given in overrides.items():
        resource, _, group = name.lower().partition(".")
        scope = namespaced if given.namespaced is None else given.namespaced
        shorts = tuple(short.lower() for short in given.short_names)
        infos.append(ResourceInfo(resource, given.kind, group, scope, shorts))
    return infos


def known(overrides: Overrides | None = None, *, namespaced: bool = True) -> list[ResourceInfo]:
    """The resources of the configuration and of the table, without those of the table that the
    configuration has as well; ``namespaced`` where the configuration does not say."""
    own = _overridden(overrides or {}, namespaced)
    taken = {info.prefix for info in own}
    return [*own, *(info for info in KINDS if info.prefix not in taken)]


_VERSION_NAME = re.compile(r"v[1-9][0-9]*((alpha|beta)[1-9][0-9]*)?")


def _readings(name: str) -> Iterator[tuple[str, str | None]]:
    """Name and group (None: any) that "name.group" or "name.version.group" may mean."""
    first, dot, group = name.lower().removesuffix(".").partition(".")
    yield first, group if dot else None
    version, _, rest = group.partition(".")
    if _VERSION_NAME.fullmatch(version):
        yield first, rest


def _is_in(info: ResourceInfo, group: str) -> bool:
    if info.group == group:
        return True
    return info.kind in _MOVED.get(group, ()) and _BY_KIND.get(info.kind) == info


_WAYS: tuple[Callable[[ResourceInfo, str], bool], ...] = (
    lambda info, name: info.resource == name,
    # Of a resource that is known by its keys only, the kind is the resource's name.
    lambda info, name: (
        name == info.kind.lower()
        or (info.kind == info.resource and plural_of(name) == info.resource)
    ),
    lambda info, name: name in info.short_names,
)


def find(name: str, infos: Iterable[ResourceInfo]) -> list[ResourceInfo]:
    """Those of ``infos`` that ``name`` may mean, in any case: plural, kind or short name, alone or
    with the group or version and group, as "deployments", "Deployment", "deploy",
    "deployments.apps" or "deployments.v1.apps".

    Plurals go before kinds, kinds before short names. A name without a group means the core
    group's resource if there is one; several are returned if the name is of several groups.
    """
    infos = list(infos)
    for wanted, group in _readings(name):
        among = infos if group is None else [info for info in infos if _is_in(info, group)]
        for is_called in _WAYS:
            found = [info for info in among if is_called(info, wanted)]
            if found:
                return [info for info in found if not info.group] or found
    return []


def only(name: str, found: Sequence[ResourceInfo]) -> ResourceInfo | None:
    """The one that ``find`` found, None if it found none.

    Raises:
        InvalidArgument: there are several; it names them.
    """
    if len(found) > 1:
        names = " or ".join(sorted(info.qualified for info in found))
        message = f"{name!r} is the name of several resources: write {names}"
        raise InvalidArgument("resource", name, names, message=message)
    return found[0] if found else None


def lookup(name: str, overrides: Overrides | None = None) -> ResourceInfo | None:
    """The resource called ``name``, as ``find`` has it, among those of the table and of
    ``overrides``, the configuration's ``resources``; None if there is none.

    Raises:
        InvalidArgument: several groups have a resource of that name.
    """
    return only(name, find(name, known(overrides))) if overrides else _in_table(name)


@functools.lru_cache(256)
def _in_table(name: str) -> ResourceInfo | None:
    return only(name, find(name, KINDS))


def for_class(name: str, overrides: Overrides | None = None) -> ResourceInfo:
    """The resource of a class called ``name``: that of the kind of exactly this name, else one of
    its own in the core group.

    Raises:
        InvalidArgument: several groups have a kind of that name, or it is no kind but would be
            taken for one: its name differs in case only, or has the same plural.
    """
    infos = known(overrides)
    exact = [info for info in infos if info.kind == name]
    info = only(name, [info for info in exact if not info.group] or exact)
    if info is not None:
        return info
    info = ResourceInfo(plural_of(name), name)
    for other in infos:
        if other.kind.lower() == name.lower() or other.prefix == info.prefix:
            raise InvalidArgument("resource", name, _meant(other))
    return info


def _meant(info: ResourceInfo) -> str:
    return f"another name, or resource= (did you mean {info.kind!r}, {info.qualified}?)"


def for_object(obj: Mapping[str, Any], overrides: Overrides | None = None) -> ResourceInfo:
    """The resource that ``obj``, a Kubernetes-shaped dict, belongs to, from its ``apiVersion``,
    ``kind`` and, for kinds that neither table nor ``overrides`` know, ``metadata.namespace``.

    Raises:
        InvalidObject: ``apiVersion`` or ``kind`` is no proper string, or the kind would be taken
            for another one: it differs from one of its group in case only, or has its plural.
    """
    group, kind = _group_kind(obj)
    metadata = obj.get("metadata")
    namespaced = isinstance(metadata, Mapping) and bool(metadata.get("namespace"))
    infos = known(overrides, namespaced=namespaced) if overrides else KINDS
    info = None if overrides else _BY_KIND.get(kind)
    if info is not None and _is_in(info, group):
        return info
    ours = [each for each in infos if _is_in(each, group)]
    info = next((each for each in ours if each.kind == kind), None)
    if info is None:
        info = ResourceInfo(plural_of(kind), kind, group, namespaced)
        for other in ours:
            if other.kind.lower() == kind.lower():
                raise _mistaken(kind, other)
    for other in infos:
        if other.prefix == info.prefix and (other.kind, other.group) != (info.kind, info.group):
            raise _mistaken(kind, other)
    return info


def _mistaken(kind: str, other: ResourceInfo) -> InvalidObject:
    if other.kind == kind:
        version = f'an apiVersion of group "{other.group}", as "{other.group}/v1"'
        return InvalidObject("apiVersion", "of another group", f"{version}, for kind {kind!r}")
    return InvalidObject("kind", kind, f"another kind: did you mean {other.kind!r}?")


# A group of one's own must have a dot, as Kubernetes demands: no resource's name has one, so that
# "/<group>/..." cannot lie among a built-in resource's keys.
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_GROUP = re.compile(rf"{_LABEL}(\.{_LABEL})+")
_VERSION = re.compile(_LABEL)
_KIND = re.compile("[A-Za-z]([-A-Za-z0-9]*[A-Za-z0-9])?")


def _group_kind(obj: Mapping[str, Any]) -> tuple[str, str]:
    version, kind = obj.get("apiVersion"), obj.get("kind")
    if not isinstance(version, str) or not _is_api_version(version):
        raise InvalidObject("apiVersion", version, 'a string such as "v1" or "apps/v1"')
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise InvalidObject("kind", kind, 'a string such as "Pod"')
    return version.rpartition("/")[0], kind


def _is_api_version(text: str) -> bool:
    group, slash, version = text.rpartition("/")
    known = group in _BUILTIN_GROUPS and bool(group) == bool(slash)
    return bool((known or _GROUP.fullmatch(group)) and _VERSION.fullmatch(version))


def for_prefix(prefix: str, overrides: Overrides | None = None) -> ResourceInfo:
    """The resource whose keys start with ``prefix``, such as "/pods" or "/example.com/widgets".

    Of one that neither table nor ``overrides`` know, ``kind`` is the resource's own name, and
    ``namespaced`` is True, though objects of both scopes may lie there.
    """
    for info in _overridden(overrides or {}, True):
        if info.prefix == prefix:
            return info
    if prefix in _BY_PREFIX:
        return _BY_PREFIX[prefix]
    group, _, resource = prefix.strip("/").rpartition("/")
    plain = group.removesuffix(".")
    return ResourceInfo(resource, resource, plain if plain in _BUILTIN_GROUPS else group)


def check(info: ResourceInfo) -> None:
    """Refuse a resource whose keys could be those of another.

    Raises:
        InvalidArgument: a name is empty or has "/" in it, the group has no dot and is none of
            Kubernetes' own, or another resource has the same prefix.
    """
    first, *rest = parts = info.prefix[1:].split("/")
    back = for_prefix(info.prefix)
    if (
        (back.group, back.resource) != (info.group, info.resource)
        or len(parts) > 2
        or any(part in ("", ".", "..") or "%" in part for part in parts)
        or bool(rest) != ("." in first)
    ):
        expected = 'a resource and its group, which has a dot, such as "widgets.example.com"'
        raise InvalidArgument("resource", info.qualified, expected)
