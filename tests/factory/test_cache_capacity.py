"""How much of a resource a factory's storage keeps in its cache."""

from __future__ import annotations

import attrs
import pytest

from revstore.cacher import Cacher
from revstore.config import StorageConfig
from revstore.errors import InvalidArgument
from revstore.factory import StorageFactory
from revstore.objects import ObjectMeta


@attrs.frozen(kw_only=True)
class Widget:
    metadata: ObjectMeta
    size: int = 0


def widget(name: str) -> Widget:
    return Widget(metadata=ObjectMeta(name=name))


@pytest.fixture
def config(tmp_path):
    return StorageConfig(type="sqlite", options={"path": str(tmp_path / "store.db")})


@pytest.mark.parametrize(("capacity", "size"), [(None, 102_400), (7, 7), (0, 0)])
def test_how_much_is_cached(config, capacity, size):
    """SF-7, OLD-27: each resource says it for itself; 0 is no cache."""
    with StorageFactory(config) as factory:
        storage = factory.storage(Widget, cached=True, capacity=capacity)
        other = factory.storage(Widget, resource="gizmos")
        assert not isinstance(other, Cacher)
        if not size:
            assert not isinstance(storage, Cacher)
            return
        assert isinstance(storage, Cacher)
        assert storage.counters.log_capacity == size
        storage.create("/widgets/a", widget("a"))
        assert len(storage.list("/widgets")) == 1
        assert storage.counters.served_by_cache == 1


def test_a_bad_capacity(config):
    """SF-7: refused by name, and nothing is left open."""
    with StorageFactory(config) as factory:
        with pytest.raises(InvalidArgument, match="capacity"):
            factory.storage(Widget, cached=True, capacity=-1)
        assert factory.open_storages() == ()
