"""The columns that a table shows for each kind. They never show the values of Secrets."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import attrs

from revstore.cli._cells import (
    address,
    claim,
    count_at,
    data,
    dig,
    endpoints,
    external,
    human_age,
    involved,
    items_at,
    joined,
    mapping_at,
    modes,
    names_at,
    node_status,
    pairs,
    pod_ready,
    ports,
    restarts,
    roles,
    secret_data,
    selector,
    subjects,
    text_of,
)
from revstore.kinds import ResourceInfo

__all__ = ["Column", "columns_of"]

Object = dict[str, Any]


@attrs.frozen
class Column:
    """A heading, and the cell for an object at a time; ``wide`` columns appear only with ``-o
    wide``."""

    title: str
    cell: Callable[[Object, datetime.datetime], str]
    wide: bool = False


def _at(title: str, path: str, *, wide: bool = False) -> Column:
    return Column(title, lambda obj, _: text_of(dig(obj, path)), wide)


def _of(title: str, cell: Callable[[Object], str], *, wide: bool = False) -> Column:
    return Column(title, lambda obj, _: cell(obj), wide)


def _number(title: str, path: str) -> Column:
    return _of(title, lambda obj: str(dig(obj, path) or 0))


def _of_total(ready: str, total: str) -> Column:
    return _of("READY", lambda obj: f"{dig(obj, ready) or 0}/{dig(obj, total) or 0}")


_AGE = Column("AGE", lambda obj, now: human_age(dig(obj, "metadata.creationTimestamp"), now))
_LABELS = _of("LABELS", lambda obj: pairs(mapping_at(obj, "metadata.labels")), wide=True)

_POD_SPEC = "spec.template.spec.containers"
_WORKLOAD = (
    _of("CONTAINERS", names_at(_POD_SPEC, "name"), wide=True),
    _of("IMAGES", names_at(_POD_SPEC, "image"), wide=True),
    _of("SELECTOR", selector, wide=True),
)
_STATUS = _at("STATUS", "status.phase")
_ROLE_OF = _of(
    "ROLE", lambda obj: joined((dig(obj, "roleRef.kind"), dig(obj, "roleRef.name")), "/")
)
_REPLICAS = (
    _number("DESIRED", "spec.replicas"),
    _number("CURRENT", "status.replicas"),
    _number("READY", "status.readyReplicas"),
)

# Between NAME and AGE; the wide ones come after AGE.
_COLUMNS: dict[str, tuple[Column, ...]] = {
    "configmaps": (_of("DATA", data),),
    "cronjobs": (
        _at("SCHEDULE", "spec.schedule"),
        _at("SUSPEND", "spec.suspend"),
        _of("ACTIVE", lambda obj: count_at(obj, "status.active")),
    ),
    "clusterrolebindings": (_ROLE_OF, _of("SUBJECTS", subjects, wide=True)),
    "daemonsets": (
        _number("DESIRED", "status.desiredNumberScheduled"),
        _number("CURRENT", "status.currentNumberScheduled"),
        _number("READY", "status.numberReady"),
        *_WORKLOAD,
    ),
    "deployments": (
        _of_total("status.readyReplicas", "spec.replicas"),
        _number("UP-TO-DATE", "status.updatedReplicas"),
        _number("AVAILABLE", "status.availableReplicas"),
        *_WORKLOAD,
    ),
    "endpoints": (_of("ENDPOINTS", endpoints),),
    "events": (
        _at("TYPE", "type"),
        _at("REASON", "reason"),
        _of("OBJECT", involved),
        _of("MESSAGE", lambda obj: text_of(dig(obj, "message") or dig(obj, "note"))),
    ),
    "horizontalpodautoscalers": (
        _of(
            "REFERENCE",
            lambda obj: joined(
                (dig(obj, "spec.scaleTargetRef.kind"), dig(obj, "spec.scaleTargetRef.name")), "/"
            ),
        ),
        _at("MINPODS", "spec.minReplicas"),
        _at("MAXPODS", "spec.maxReplicas"),
        _number("REPLICAS", "status.currentReplicas"),
    ),
    "ingresses": (
        _at("CLASS", "spec.ingressClassName"),
        _of("HOSTS", names_at("spec.rules", "host")),
    ),
    "jobs": (
        _of(
            "COMPLETIONS",
            lambda obj: f"{dig(obj, 'status.succeeded') or 0}/{dig(obj, 'spec.completions') or 1}",
        ),
        *_WORKLOAD,
    ),
    "namespaces": (_STATUS,),
    "nodes": (
        _of("STATUS", node_status),
        _of("ROLES", roles),
        _at("VERSION", "status.nodeInfo.kubeletVersion"),
        _of("INTERNAL-IP", address("InternalIP"), wide=True),
        _at("OS-IMAGE", "status.nodeInfo.osImage", wide=True),
    ),
    "persistentvolumeclaims": (
        _STATUS,
        _at("VOLUME", "spec.volumeName"),
        _of(
            "CAPACITY",
            lambda obj: text_of(
                dig(obj, "status.capacity.storage") or dig(obj, "spec.resources.requests.storage")
            ),
        ),
        _of("ACCESS MODES", modes),
        _at("STORAGECLASS", "spec.storageClassName"),
    ),
    "persistentvolumes": (
        _at("CAPACITY", "spec.capacity.storage"),
        _of("ACCESS MODES", modes),
        _at("RECLAIM POLICY", "spec.persistentVolumeReclaimPolicy"),
        _STATUS,
        _of("CLAIM", claim),
        _at("STORAGECLASS", "spec.storageClassName"),
    ),
    "poddisruptionbudgets": (
        _at("MIN AVAILABLE", "spec.minAvailable"),
        _at("MAX UNAVAILABLE", "spec.maxUnavailable"),
    ),
    "pods": (
        _of("READY", pod_ready),
        _STATUS,
        _of("RESTARTS", restarts),
        _at("IP", "status.podIP", wide=True),
        _at("NODE", "spec.nodeName", wide=True),
        _of("IMAGES", names_at("spec.containers", "image"), wide=True),
    ),
    "replicasets": (*_REPLICAS, *_WORKLOAD),
    "replicationcontrollers": (*_REPLICAS, *_WORKLOAD),
    "rolebindings": (_ROLE_OF, _of("SUBJECTS", subjects, wide=True)),
    "secrets": (
        _of("TYPE", lambda obj: str(dig(obj, "type") or "Opaque")),
        _of("DATA", secret_data),
    ),
    "serviceaccounts": (_of("SECRETS", lambda obj: str(len(items_at(obj, "secrets")))),),
    "services": (
        _of("TYPE", lambda obj: str(dig(obj, "spec.type") or "ClusterIP")),
        _at("CLUSTER-IP", "spec.clusterIP"),
        _of("EXTERNAL-IP", external),
        _of("PORT(S)", ports),
        _of("SELECTOR", selector, wide=True),
    ),
    "statefulsets": (_of_total("status.readyReplicas", "spec.replicas"), *_WORKLOAD),
    "storageclasses": (
        _at("PROVISIONER", "provisioner"),
        _at("RECLAIMPOLICY", "reclaimPolicy"),
        _at("VOLUMEBINDINGMODE", "volumeBindingMode"),
    ),
}


def columns_of(info: ResourceInfo, *, wide: bool, labels: bool) -> list[Column]:
    """Return the columns after NAME; labels appear if asked for, and in wide tables."""
    # A foreign group's "services" are not ours.
    own = _COLUMNS.get(info.resource, ()) if info.prefix == f"/{info.resource}" else ()
    shown = [column for column in own if not column.wide]
    more = [column for column in own if column.wide] if wide else []
    return [*shown, _AGE, *more, *([_LABELS] if wide or labels else [])]
