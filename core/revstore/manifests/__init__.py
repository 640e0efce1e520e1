"""Manifests: Kubernetes-shaped objects from YAML and JSON, as people write them.

A source is a file, a folder (its ``*.yaml``, ``*.yml`` and ``*.json`` below, in the order of their
paths), or "-" for standard input. A file holds any number of documents. An empty document is
counted but gives no object. A ``List`` gives its items, and those of lists in it. A file is
accepted as a whole or not at all: ``ManifestError`` says in one line what is wrong in it and where.

Manifests are read as kubectl reads them, but strictly: duplicate keys, keys that are not strings,
numbers that JSON lacks, more than 100 levels of nesting and more than 64 MiB (aliases expanded) are
refused.
"""

from __future__ import annotations

from revstore.manifests._manifests import (
    MAX_BYTES,
    STDIN,
    Manifest,
    ManifestError,
    find_sources,
    parse,
    read,
    reads_as_string,
    refusal,
    to_yaml,
)

__all__ = [
    "MAX_BYTES",
    "STDIN",
    "Manifest",
    "ManifestError",
    "find_sources",
    "parse",
    "read",
    "reads_as_string",
    "refusal",
    "to_yaml",
]
