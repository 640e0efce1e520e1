"""Kinds and resources: under which keys a kind is stored, and by which names people call it.

Kubernetes' own kinds come from one table. A kind that the table lacks is namespaced exactly if
the object has ``metadata.namespace``, and its plural follows a rule; both can be set in the
configuration::

    [resources."widgets.example.com"]
    kind = "Widget"
    namespaced = true
    short_names = ["wd"]

Stored under ``<prefix>/<resource>/...`` are the core group's kinds and those of Kubernetes' own
groups, under ``<prefix>/<group>/<resource>/...`` all others, as apiservers do. So a Knative
Service never meets a core one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import attrs

from revstore.errors import InvalidObject

__all__ = [
    "KINDS",
    "Overrides",
    "ResourceInfo",
    "ResourceOverride",
    "for_object",
    "for_prefix",
    "lookup",
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
        plain = self.group in _BUILTIN_GROUPS or (
            # A group such as metrics.k8s.io has "pods" of its own, which must not meet the pods.
            self.group.endswith(".k8s.io") and self.resource not in _RESOURCES
        )
        return f"/{self.resource}" if plain else f"/{self.group}/{self.resource}"

    @property
    def qualified(self) -> str:
        """ "pods", or with the group: "deployments.apps". It is what configuration calls it."""
        return f"{self.resource}.{self.group}" if self.group else self.resource


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
# No kind is in two of the groups, so that a kind which moved (extensions/v1beta1 Deployment) is
# found whichever of them a manifest names.
_BY_KIND = {info.kind: info for info in KINDS}
_RESOURCES = frozenset(info.resource for info in KINDS)


def plural_of(kind: str) -> str:
    """The lower-case plural by rule: "Policy" -> "policies", "Ingress" -> "ingresses"."""
    name = kind.lower()
    if name.endswith("y") and name[-2:-1] not in ("a", "e", "i", "o", "u"):
        return name[:-1] + "ies"
    if name.endswith(("s", "x", "ch", "sh")):
        return name + "es"
    return name + "s"


def _names(info: ResourceInfo) -> tuple[str, ...]:
    return (info.resource, info.kind.lower(), *info.short_names)


def _overridden(overrides: Overrides, namespaced: bool) -> list[ResourceInfo]:
    infos = []
    for name, given in overrides.items():
        resource, _, group = name.lower().partition(".")
        scope = namespaced if given.namespaced is None else given.namespaced
        shorts = tuple(short.lower() for short in given.short_names)
        infos.append(ResourceInfo(resource, given.kind, group, scope, shorts))
    return infos


def _index(infos: Sequence[ResourceInfo]) -> dict[str, ResourceInfo]:
    index: dict[str, ResourceInfo] = {}
    for info in infos:
        for name in _names(info):
            index.setdefault(name, info)
            if info.group:
                index.setdefault(f"{name}.{info.group}", info)
    return index


_BY_NAME = _index(KINDS)


def lookup(name: str, overrides: Overrides | None = None) -> ResourceInfo | None:
    """The resource called ``name`` in any case: plural, kind or short name, with or without the
    group ("deployments", "Deployment", "deploy", "deployments.apps"); None if there is none.

    ``overrides`` are the configuration's ``resources``; the table's names go before theirs.
    """
    wanted = name.lower()
    info = _BY_NAME.get(wanted)
    if info is None:
        plain, _, group = wanted.partition(".")
        moved = _BY_NAME.get(plain)
        # "deployments.extensions" and "events.events.k8s.io": the groups that kinds moved from
        if moved is not None and group in _BUILTIN_GROUPS and moved.group in _BUILTIN_GROUPS:
            info = moved
    if info is None and overrides:
        info = _index(_overridden(overrides, True)).get(wanted)
    return info


def for_object(obj: Mapping[str, Any], overrides: Overrides | None = None) -> ResourceInfo:
    """The resource that ``obj``, a Kubernetes-shaped dict, belongs to, from its ``apiVersion``,
    ``kind`` and, for kinds that neither table nor ``overrides`` know, ``metadata.namespace``.

    Raises ``InvalidObject`` if ``apiVersion`` or ``kind`` is no proper string.
    """
    group, kind = _group_kind(obj)
    metadata = obj.get("metadata")
    namespaced = isinstance(metadata, Mapping) and bool(metadata.get("namespace"))
    for info in _overridden(overrides or {}, namespaced):
        if (info.group, info.kind) == (group, kind):
            return info
    known = _BY_KIND.get(kind)
    if known is not None and group in _BUILTIN_GROUPS:
        return known
    return ResourceInfo(plural_of(kind), kind, group, namespaced)


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
    group, _, resource = prefix.strip("/").rpartition("/")
    for info in (*_overridden(overrides or {}, True), *KINDS):
        if info.prefix == prefix:
            return info
    return ResourceInfo(resource, resource, group)
