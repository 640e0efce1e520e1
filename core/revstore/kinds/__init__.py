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

from revstore.kinds._names import Overrides, ResourceOverride, find, known, lookup, only
from revstore.kinds._objects import check, for_class, for_object, for_prefix, leads_back
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
    "kind_of",
    "known",
    "leads_back",
    "lookup",
    "only",
    "plural_of",
]
