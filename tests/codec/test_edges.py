"""Typed objects beside dicts, selectors, the command line, and other processes."""

from __future__ import annotations

import datetime as dt
import enum
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Generic, TypedDict, TypeVar

import attrs
import pytest

from revstore import ObjectMeta, open_registry
from revstore.cli._main import run
from revstore.codec import json_codec
from revstore.errors import Conflict, InvalidObject, UnsupportedType
from revstore.kinds import ResourceInfo
from revstore.objects import field_value, metadata_value, with_metadata

T = TypeVar("T")


class Phase(enum.StrEnum):
    RUNNING = "Running"
    DONE = "Done"


@attrs.frozen(kw_only=True)
class Widget:
    metadata: ObjectMeta
    phase: Phase = Phase.RUNNING
    since: dt.datetime = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    from_: str = ""
    x_2: int = 0
    host_ip: str = attrs.field(default="", metadata={"json": "hostIP"})
    ready: bool = False
    ratio: float = 0.5
    maybe: int | None = None
    tags: Mapping[str, str] = attrs.field(factory=dict)


WIDGET = Widget(
    metadata=ObjectMeta(name="a"), from_="b", host_ip="10.0.0.1", x_2=3, ready=True, ratio=1
)

SELECTORS = [
    "phase=Running", "phase=RUNNING", "phase=Phase.RUNNING", "since=2026-01-01T00:00:00Z",
    "since=2026-01-01 00:00:00+00:00", "from=b", "from_=b", "x2=3", "x_2=3", "hostIP=10.0.0.1",
    "hostIp=10.0.0.1", "ready=true", "ready=True", "ratio=1.0", "ratio=1", "maybe=", "maybe=None",
    "metadata.name=a", "metadata.generation=1", "metadata.deletionTimestamp=", "tags.x=",
    "kind=Widget", "apiVersion=v1", "metadata.generateName=", "metadata.nothing=",
]  # fmt: skip


@pytest.mark.parametrize("selector", SELECTORS)
def test_a_selector_has_one_answer(selector):
    """LIST-6: typed or as dicts, cached or not."""
    url = "memory://"
    with open_registry(url, Widget) as widgets:
        widgets.create(WIDGET)
        (stored,) = widgets.list()
        as_dict = json_codec(dict).decode(json_codec(Widget).encode(stored))
        as_dict |= {"apiVersion": "v1", "kind": "Widget"}
        path, _, wanted = selector.partition("=")
        answer = field_value(as_dict, path) == wanted
        assert bool(widgets.list(field_selector=selector).items) is answer
    with open_registry(url, Widget, cached=True) as widgets:
        widgets.create(WIDGET)
        assert bool(widgets.list(field_selector=selector).items) is answer


@pytest.fixture
def url(tmp_path):
    pytest.importorskip("revstore_sqlite")
    return f"sqlite:///{tmp_path}/cluster.db"


def test_what_the_command_prints_can_be_applied(url, tmp_path, capsys):
    """CLI: a typed object is a whole manifest, and applying it changes nothing."""
    with open_registry(url, Widget) as widgets:
        created = widgets.create(WIDGET)
        assert run(["get", "widgets", "-o", "yaml", "--store", url]) == 0
        text = capsys.readouterr().out
        assert "kind: Widget" in text
        path = tmp_path / "widgets.yaml"
        path.write_text(text)
        assert run(["apply", "-f", str(path), "--store", url]) == 0
        assert "unchanged" in capsys.readouterr().out
        assert widgets.get("a") == created
        # What a manifest says of its version stays, no matter who writes next.
        path.write_text(
            text.replace("apiVersion: v1\n  from", "apiVersion: example.com/v1\n  from")
        )
        again = widgets.update(attrs.evolve(created, x_2=9))
        assert again.x_2 == 9
        assert run(["get", "widgets", "a", "-o", "json", "--store", url]) == 0
        assert '"kind": "Widget"' in capsys.readouterr().out


def test_a_second_apply_is_no_write():
    """GU-3: an int in a float field, the same set; but another zone is another value."""

    @attrs.frozen
    class Thing:
        metadata: ObjectMeta
        ratio: float = 0.0
        names: frozenset[str] = frozenset()
        since: dt.datetime | None = None

    with open_registry("memory://", Thing) as things:
        utc = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        thing = Thing(ObjectMeta(name="a"), 1, frozenset("abc"), utc)
        assert things.apply(thing).outcome == "created"
        assert things.apply(thing).outcome == "unchanged"
        moved = attrs.evolve(thing, since=utc.astimezone(dt.timezone(dt.timedelta(hours=1))))
        result = things.apply(moved)
        assert result.outcome == "configured"
        assert result.object.since.isoformat() == moved.since.isoformat()


def test_the_good_object_is_not_destroyed():
    """GU-1: a value that does not fit is refused before anything is written."""
    with open_registry("memory://", Widget) as widgets:
        created = widgets.create(WIDGET)
        for wrong in ("3", None, True, 1.0):
            for write in (widgets.update, widgets.apply):
                with pytest.raises(InvalidObject) as caught:
                    write(attrs.evolve(created, x_2=wrong))
                assert (caught.value.field, caught.value.key) == ("x2", "/widgets/default/a")
        with pytest.raises(InvalidObject):
            widgets.create(with_metadata(attrs.evolve(WIDGET, phase="Nonsense"), name="b"))
        assert widgets.list().items == (created,)
        with pytest.raises(Conflict):
            widgets.update(with_metadata(created, resource_version="1000"))


def test_refused_when_the_registry_is_opened():
    """KEY-8: by name, before a store is touched."""

    @attrs.frozen
    class Spec:
        value: bytes | str

    @attrs.frozen
    class Thing:
        metadata: ObjectMeta
        spec: Spec

    with pytest.raises(UnsupportedType) as caught:
        open_registry("memory://", Thing)
    assert caught.value.field == "Thing.spec.value"


_PROGRAM = """
import attrs
from revstore import ObjectMeta
from revstore.codec import json_codec

@attrs.frozen
class Thing:
    names: frozenset[str]
    pairs: set[tuple[str, int]]

names = [f"n{number}" for number in range(20)]
print(json_codec(Thing).encode(Thing(frozenset(names), {(name, 1) for name in names})))
"""


def test_equal_objects_are_equal_bytes_in_every_process():
    """GU-3: sets have an order of their own in JSON."""
    found = {
        subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(found) == 1


def test_pydantic_is_not_imported():
    """Who has no model pays for none."""
    code = f"{_PROGRAM}\nimport sys; assert not {{'pydantic', 'cattrs'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_typed_and_plain_registries_share_a_store(url):
    """A dict registry sees what a typed one wrote, and the other way round."""
    info = ResourceInfo("widgets", "Widget")
    with open_registry(url, Widget) as typed, open_registry(url, dict, resource=info) as plain:
        typed.create(WIDGET)
        seen: Any = plain.get("a")
        assert (seen["kind"], seen["hostIP"], seen["ratio"]) == ("Widget", "10.0.0.1", 1.0)
        plain.update({**seen, "extra": {"n": 1}})
        typed.update(attrs.evolve(typed.get("a"), x_2=4))
        assert plain.get("a")["extra"] == {"n": 1}
        assert plain.get("a")["x2"] == 4


@attrs.frozen
class Boxed(Generic[T]):
    metadata: ObjectMeta
    content: T


def test_types_of_every_kind_in_a_registry():
    """GU-3: a generic class, a TypedDict, and a model are updated like any other."""

    class Plain(TypedDict):
        metadata: dict[str, Any]
        content: int

    boxes: Any = open_registry("memory://", Boxed[int])
    dicts: Any = open_registry("memory://", Plain, resource="plains")
    with boxes, dicts:
        for registry, first in (
            (boxes, Boxed(ObjectMeta(name="a"), 1)),
            (dicts, {"metadata": {"name": "a"}, "content": 1}),
        ):
            created = registry.create(first)
            assert registry.apply(first).outcome == "unchanged"
            changed = {"content": 2}
            second = (
                {**created, **changed}
                if isinstance(created, dict)
                else attrs.evolve(created, **changed)
            )
            updated = registry.update(second)
            assert metadata_value(updated, "generation") == 2
            assert registry.list(field_selector="content=2").items == (registry.get("a"),)
        with pytest.raises(InvalidObject):
            boxes.create(Boxed(ObjectMeta(name="b"), "x"))
