"""Kinds and resources: under which keys a kind is stored, and which names people use for it.

Kubernetes' own kinds come from one table. A kind that the table lacks is namespaced exactly if the
object has ``metadata.namespace``, and its plural follows a rule; both can be set in the
configuration::

    [resources."widgets.example.com"]
    kind = "Widget"
    namespaced = true
    short_names = ["wd"]

The resources of the table and those of the core group are stored under ``<prefix>/<resource>/...``,
all others under ``<prefix>/<group>/<resource>/...``, as apiservers do. So a Knative Service never
collides with a core one. No two kinds of the table and the configuration share a prefix: a kind
that would use the prefix of another is refused.
"""

from __future__ import annotations

from revstore.kinds._names import Overrides, ResourceOverride, find, known, lookup, only
from revstore.kinds._objects import (
    check,
    for_class,
    for_object,
    for_prefix,
    is_kind,
    is_resource,
    leads_back,
)
from revstore.kinds._table import KINDS, ResourceInfo, kind_of, plural_of

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
    "is_kind",
    "is_resource",
    "kind_of",
    "known",
    "leads_back",
    "lookup",
    "only",
    "plural_of",
]
