"""The table of Kubernetes' own resources, and the names and prefixes of any resource."""

from __future__ import annotations

import attrs

__all__ = [
    "BUILTIN_GROUPS",
    "BY_KIND",
    "BY_PREFIX",
    "KINDS",
    "ResourceInfo",
    "is_in",
    "kind_of",
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
        """The beginning of its keys, below the store's prefix: "/pods", "/example.com/widgets"."""
        if not self.group or _GROUP_OF.get(self.resource) == self.group:
            return f"/{self.resource}"
        # "/apps/widgets" would be among the keys of a resource "apps" of the core group. No name of
        # a resource or of another group has a dot at its end.
        dot = "." if self.group in BUILTIN_GROUPS and "." not in self.group else ""
        return f"/{self.group}{dot}/{self.resource}"

    @property
    def qualified(self) -> str:
        """The name in the configuration: "pods", or with the group: "deployments.apps"."""
        return f"{self.resource}.{self.group}" if self.group else self.resource

    @property
    def names(self) -> tuple[str, str]:
        """Plural and kind in lower case."""
        return self.resource, self.kind.lower()

    @property
    def singular(self) -> str:
        """The name of one object: "pod", "deployment.apps". ``find`` finds the resource by it.

        It is the kind, unless that may be the plural of another kind (Foos, of Foo) or does not
        lead to the resource; then it is the plural.
        """
        name = self.kind.lower()
        own = BY_KIND.get(self.kind) == self
        if not own and (_may_be_plural(name) or name in _SHORT_NAMES):
            name = self.resource
        return f"{name}.{self.group}" if self.group else name


# One line for each resource: plural, kind, and its short names after a comma. "~" marks what is not
# namespaced. Kinds that Kubernetes has dropped are here as well, since manifests outlive them.
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

BUILTIN_GROUPS = frozenset(_TABLE)
BY_KIND = {info.kind: info for info in KINDS}
BY_PREFIX = {f"/{info.resource}": info for info in KINDS}
_GROUP_OF = {info.resource: info.group for info in KINDS}
_SHORT_NAMES = frozenset(short for info in KINDS for short in info.short_names)
# Kinds that moved to the group in the table, by the other groups that manifests may name.
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


def is_in(info: ResourceInfo, group: str) -> bool:
    """Return whether ``group`` is that of ``info``, or the group from which its kind has moved."""
    if info.group == group:
        return True
    return info.kind in _MOVED.get(group, ()) and BY_KIND.get(info.kind) == info


def plural_of(kind: str) -> str:
    """Return the lower-case plural by rule: "Policy" -> "policies", "Ingress" -> "ingresses"."""
    name = kind.lower()
    if name.endswith("y") and name[-2:-1] not in ("a", "e", "i", "o", "u"):
        return name[:-1] + "ies"
    if name.endswith(("s", "x", "ch", "sh")):
        return name + "es"
    return name + "s"


def kind_of(plural: str) -> str:
    """Return a kind whose plural by rule is ``plural``: "policies" -> "Policy"; "" if there is
    none."""
    stems = [plural[:-3] + "y", plural[:-2], plural[:-1]]
    return next((stem.capitalize() for stem in stems if stem and plural_of(stem) == plural), "")


def _may_be_plural(name: str) -> bool:
    """Return whether ``name`` is the plural of some kind."""
    return name in (plural_of(name[:-1]), plural_of(name[:-2]), plural_of(name[:-3] + "y"))
