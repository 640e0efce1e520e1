"""The storages that a collector tells of."""

from __future__ import annotations

from typing import Any

import attrs

from revstore.cacher import Cacher
from revstore.errors import Closed, InvalidArgument, NotReady
from revstore.factory import StorageFactory
from revstore.kinds import ResourceInfo
from revstore.metrics._requests import MeasuredBackend
from revstore.metrics._sizes import Sizes
from revstore.storage import Storage

__all__ = ["Known", "noted", "resource_of"]


@attrs.frozen(eq=False)
class Known:
    """A storage that is told of; ``backend`` if its requests are measured."""

    resource: ResourceInfo
    storage: Storage[Any]
    sizes: Sizes
    backend: MeasuredBackend | None = None

    @property
    def labels(self) -> tuple[str, str]:
        return self.resource.group, self.resource.resource

    def notice_end(self) -> None:
        """A cache tells for nothing whether it was closed."""
        if isinstance(self.storage, Cacher):
            try:
                self.storage.ready()
            except Closed:
                self.sizes.end()
            except NotReady:
                pass


def resource_of(given: ResourceInfo | str) -> ResourceInfo:
    """The resource of that name; ``InvalidArgument`` for none."""
    if isinstance(given, ResourceInfo):
        return given
    if not given:
        raise InvalidArgument("resource", given, 'a resource, such as "pods", for a storage')
    resource, _, group = given.partition(".")
    return ResourceInfo(resource, resource, group)


def noted(factory: StorageFactory, resource: ResourceInfo, storage: Storage[Any]) -> Known:
    """A storage that a factory has opened."""
    period = factory.config.for_resource(resource.qualified).count_metric_poll_period
    sizes = Sizes(storage, period)
    try:
        backend = factory.backend(resource.qualified)
    except Closed:
        sizes.end()
        return Known(resource, storage, sizes)
    measured = backend if isinstance(backend, MeasuredBackend) else None
    return Known(resource, storage, sizes, measured)
