"""Conditions that a delete or an update may place on the object (storage.Preconditions)."""

from __future__ import annotations

from typing import Any

import attrs

from revstore.errors import PreconditionFailed
from revstore.objects import metadata_value

__all__ = ["Preconditions"]


@attrs.frozen(kw_only=True)
class Preconditions:
    """Conditions that the stored object must meet; a field that is None is not checked.

    ``resource_version`` is compared as a string.
    """

    uid: str | None = None
    resource_version: str | None = None

    def check(self, key: str, obj: Any) -> None:
        """Check the conditions against ``obj``, which is stored under ``key``. (DEL-3, GU-7)

        Raises:
            PreconditionFailed: a condition does not hold.
            InvalidObject: the object has no metadata to compare.
        """
        for name, wanted in (("uid", self.uid), ("resource_version", self.resource_version)):
            if wanted is None:
                continue
            actual = metadata_value(obj, name)
            if actual != wanted:
                raise PreconditionFailed(
                    f"precondition failed for {key!r}: {name} is {actual!r}, expected {wanted!r}",
                    key=key,
                    resource_version=str(metadata_value(obj, "resource_version")),
                )
