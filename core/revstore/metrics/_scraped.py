"""The storages that a scrape reads."""

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

__all__ = ["Scraped", "opened_by", "resource_of"]


@attrs.frozen(eq=False)
class Scraped:
    """A storage with the resource that it holds; ``backend`` is set if its requests are
    measured."""

    resource: ResourceInfo
    storage: Storage[Any]
    sizes: Sizes
    backend: MeasuredBackend | None = None

    @property
    def labels(self) -> tuple[str, str]:
        return self.resource.group, self.resource.resource

    def notice_end(self) -> None:
        """Drop the figures of a cache that was closed; to ask a cache costs nothing."""
        if isinstance(self.storage, Cacher):
            try:
                self.storage.ready()
            except Closed:
                self.sizes.end()
            except NotReady:
                pass


def resource_of(given: ResourceInfo | str) -> ResourceInfo:
    """Return the resource with that name.

    Raises:
        InvalidArgument: the name is empty.
    """
    if isinstance(given, ResourceInfo):
        return given
    if not given:
        raise InvalidArgument("resource", given, 'a resource, such as "pods", for a storage')
    resource, _, group = given.partition(".")
    return ResourceInfo(resource, resource, group)


def opened_by(factory: StorageFactory, resource: ResourceInfo, storage: Storage[Any]) -> Scraped:
    """Describe a storage that ``factory`` has opened."""
    period = factory.config.for_resource(resource.qualified).count_metric_poll_period
    sizes = Sizes(storage, period)
    try:
        backend = factory.backend(resource.qualified)
    except Closed:
        sizes.end()
        return Scraped(resource, storage, sizes)
    measured = backend if isinstance(backend, MeasuredBackend) else None
    return Scraped(resource, storage, sizes, measured)
