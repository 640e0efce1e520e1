"""``export_objects`` and ``import_objects``, and their commands."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.cli.conftest import Revstore
from tests.cli.test_real_manifests import data  # noqa: F401 - a fixture

from revstore import kinds
from revstore.config import StorageConfig
from revstore.errors import (
    CorruptObject,
    InvalidArgument,
    InvalidObject,
    KeyExists,
    StoreInUse,
)
from revstore.factory import StorageFactory
from revstore.manifests import ManifestError
from revstore.operations import Progress, _export, export_objects, import_objects, rewrite
from revstore.operations._export import key_of
from revstore.operations._tree import file_name
from revstore.testing.interrupts import code_below, interrupt_every_line

TTL = re.compile(rb'revstore/ttl-seconds"?: ?["\']([0-9.]+)["\']')
FORMATS = {"tree": "out", "yaml": "out.yaml", "jsonl": "out.jsonl"}


def config_map(name: str, namespace: str = "default", **metadata) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "data": {"k": "v"},
    }


def contents(path: Path) -> dict[str, bytes]:
    """All that an export wrote, by path."""
    if path.is_file():
        return {path.name: path.read_bytes()}
    return {
        str(each.relative_to(path)): each.read_bytes() for each in path.rglob("*") if each.is_file()
    }


def there_and_back(source: StorageFactory, folder: Path, form: str, **options) -> None:
    """Export, import into an empty store, and export again: both exports are equal."""
    first, second = folder / f"1{FORMATS[form]}", folder / f"2{FORMATS[form]}"
    made = export_objects(source, first, **options)
    with StorageFactory("memory://") as other:
        result = import_objects(other, [first], preserve_uids=True)
        assert (result.created, result.failed) == (made.objects, 0)
        again = import_objects(other, [first], preserve_uids=True)
        assert (again.unchanged, again.created + again.replaced + again.failed) == (made.objects, 0)
        export_objects(other, second, **options)
    (one, its_ttls), (two, ttls) = without_ttls(first), without_ttls(second)
    assert list(one.values()) == list(two.values())
    assert form != "tree" or list(one) == list(two)
    assert all(abs(ttl - other) <= 5 for ttl, other in zip(its_ttls, ttls, strict=True))


def without_ttls(path: Path) -> tuple[dict[str, bytes], list[float]]:
    """What an export wrote, and the seconds in it, which pass."""
    found = dict(sorted(contents(path).items()))
    ttls = [float(each) for text in found.values() for each in TTL.findall(text)]
    return {name: TTL.sub(b"", text) for name, text in found.items()}, ttls


@pytest.mark.parametrize("form", FORMATS)
def test_real_manifests(data, tmp_path, form):  # noqa: F811
    """Hundreds of objects of others come out equal after a round through another store."""
    command = Revstore(tmp_path)
    command("apply", "-f", data, code=1, timeout=120)
    with StorageFactory(command.env["REVSTORE_URL"]) as source:
        there_and_back(source, tmp_path, form)


SEGMENTS = st.one_of(
    st.sampled_from(["a", "A", "con", "nul.x", "a.yaml", "..a", ".a", "a.", "ü", "_", "x" * 253]),
    st.text(min_size=1, max_size=8).filter(
        lambda text: text.strip() and text not in (".", "..") and not set("/%\0") & set(text)
    ),
).filter(lambda text: text.encode("utf-8", "replace").decode() == text)
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(-1e300, 1e300) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.builds(
    lambda kind, name, namespace, labels, spec, uid: {
        **kind,
        "metadata": {
            "name": name,
            **({"namespace": namespace} if kind["kind"] != "Node" else {}),
            **({"labels": labels} if labels else {}),
            "uid": uid,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "generation": 7,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": uid}],
        },
        "spec": spec,
    },
    st.sampled_from(
        [
            {"apiVersion": "v1", "kind": "ConfigMap"},
            {"apiVersion": "v1", "kind": "Node"},
            {"apiVersion": "apps/v1", "kind": "Deployment"},
            {"apiVersion": "example.com/v1", "kind": "Widget"},
        ]
    ),
    SEGMENTS,
    SEGMENTS,
    st.dictionaries(TEXTS, TEXTS, max_size=2),
    VALUES,
    TEXTS,
)


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(objects=st.lists(OBJECTS, max_size=6), ttls=st.lists(st.integers(0, 10**6), min_size=6))
def test_any_objects(tmp_path_factory, form, objects, ttls):
    """Export, import, export: equal, with uids, owner references, odd names and expiry."""
    with StorageFactory("memory://") as source:
        for obj, ttl in zip(objects, ttls, strict=False):
            info = kinds.for_object(obj)
            key = key_of(info, obj)[1]
            try:
                source.storage(dict, resource=info).create(key, obj, ttl=ttl and ttl + 1000)
            except KeyExists:
                continue
        there_and_back(source, tmp_path_factory.mktemp("export"), form)


@given(st.lists(SEGMENTS, unique=True, max_size=30))
def test_file_names_are_injective(names):
    """Even where case does not count, and next to folders of namespaces."""
    made = [file_name(name) + ".yaml" for name in names]
    made += [file_name(name, folder=True) for name in names]

    assert len({name.lower() for name in made}) == len(made)
    for name in made:
        assert len(name) <= 255
        assert not name.startswith(".")
        assert not set('<>:"/\\|?*') & set(name)
        assert name.isascii()


@pytest.fixture
def source():
    with StorageFactory("memory://") as factory:
        for name in ("a", "b"):
            factory.registry("configmaps").create(config_map(name))
        factory.registry("configmaps").create(config_map("c", "other", labels={"app": "web"}))
        factory.registry("nodes").create(
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}
        )
        yield factory


def test_the_tree(source, tmp_path):
    """Its paths, its modes, and what it says of itself."""
    result = export_objects(source, tmp_path / "out")

    assert set(contents(tmp_path / "out")) == {
        ".revstore-export",
        ".revstore-export.files",
        "configmaps/default/a.yaml",
        "configmaps/default/b.yaml",
        "configmaps/other/c.yaml",
        "nodes/n.yaml",
    }
    assert (result.objects, dict(result.resources)) == (4, {"configmaps": 3, "nodes": 1})
    assert result.revision == source.backend().status().revision
    for path in (tmp_path / "out").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_a_tree_is_brought_up_to_date(source, tmp_path):
    """Files of objects that are gone are deleted; other files and other folders are not touched."""
    out = tmp_path / "out"
    export_objects(source, out)
    (out / "README.md").write_text("mine")
    source.registry("configmaps").delete("a", "default")

    export_objects(source, out)

    assert "configmaps/default/a.yaml" not in contents(out)
    assert (out / "README.md").read_text() == "mine"
    with pytest.raises(InvalidArgument, match="another selection"):
        export_objects(source, out, resources=["nodes"])
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.yaml").write_text("a: 1")
    with pytest.raises(InvalidArgument, match="other origin"):
        export_objects(source, other)
    assert set(contents(other)) == {"x.yaml"}


def test_manifests_of_others_stay(source, tmp_path):
    """A folder that got some since its export is refused, and loses none."""
    out = tmp_path / "out"
    export_objects(source, out)
    before = contents(out)
    for place in ("mine.yaml", "configmaps/default/mine.yaml", "configmaps/a.b/mine.yaml"):
        path = out / place
        path.parent.mkdir(exist_ok=True)
        path.write_text("a: 1")
        with pytest.raises(InvalidArgument, match=f"other origin, such as {path}"):
            export_objects(source, out)
        assert contents(out) == {**before, place: b"a: 1"}
        path.unlink()

    def write(progress: Progress) -> None:
        (out / "mine.yaml").write_text("a: 1")

    source.registry("configmaps").delete("a", "default")
    export_objects(source, out, on_progress=write)
    del before["configmaps/default/a.yaml"]
    del before[".revstore-export"]
    assert before.items() <= contents(out).items()
    assert "configmaps/default/a.yaml" not in contents(out)
    assert (out / "mine.yaml").read_text() == "a: 1"


def test_an_interrupted_tree_knows_its_manifests(source, tmp_path):
    """The next export deletes those of objects that are gone meanwhile, even if the last line of
    its list was cut."""
    out = tmp_path / "out"

    def stop(progress: Progress) -> None:
        if progress.done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_objects(source, out, on_progress=stop)
    with (out / ".revstore-export.files").open("a") as stream:
        stream.write("configmaps/torn")
    source.registry("configmaps").delete("a", "default")
    export_objects(source, out)
    export_objects(source, out)

    export_objects(source, tmp_path / "other")
    of = {"": contents(out), "other": contents(tmp_path / "other")}
    for each in of.values():
        del each[".revstore-export.files"]
    assert of[""] == of["other"]


def test_a_failure_leaves_no_part_of_a_manifest(source, tmp_path):
    """A folder has the name of the manifest, so that the last step fails."""
    out = tmp_path / "out"
    (out / "configmaps/default/a.yaml/x").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        export_objects(source, out)
    assert not list(out.rglob("*.part"))


def test_a_torn_tree_is_refused(source, tmp_path):
    """An interrupted export says so, and the same call completes it."""
    out = tmp_path / "out"

    def stop(progress: Progress) -> None:
        if progress.done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_objects(source, out, on_progress=stop)
    with StorageFactory("memory://") as other:
        with pytest.raises(InvalidArgument, match="incomplete: run it again"):
            import_objects(other, [out])
        export_objects(source, out)
        assert import_objects(other, [out]).created == 4


@pytest.mark.parametrize("form", FORMATS)
def test_selection(source, tmp_path, form):
    def exported(**options) -> int:
        return export_objects(
            source, tmp_path / str(time.monotonic_ns()), format=form, **options
        ).objects

    assert exported(resources=["nodes"]) == 1
    assert exported(exclude=["nodes"]) == 3
    assert exported(namespace="default") == 2
    assert exported(namespace="nowhere") == 0
    assert exported(label_selector="app=web") == 1
    assert exported(resources=["cm"], namespace="other", label_selector="app!=web") == 0


def test_one_revision(source, tmp_path):
    """Writes during the export do not show in it."""

    def write(progress: Progress) -> None:
        if not progress.done:
            source.registry("configmaps").create(config_map("late"))
            source.registry("nodes").delete("n")

    out = tmp_path / "out.jsonl"
    result = export_objects(source, out, on_progress=write)

    names = [json.loads(line)["metadata"]["name"] for line in out.read_text().splitlines()]
    assert (names, result.objects) == (["a", "b", "c", "n"], 4)


def test_new_uids(source, tmp_path):
    """Without ``preserve_uids``, objects are new, and references to their old uids are named."""
    owner = source.registry("configmaps").get("a", "default")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "a"}
    references = [{**reference, "uid": owner["metadata"]["uid"]}, {**reference, "uid": "elsewhere"}]
    source.registry("configmaps").create(config_map("owned", ownerReferences=references))
    export_objects(source, tmp_path / "out.yaml")

    with StorageFactory("memory://") as other:
        result = import_objects(other, [tmp_path / "out.yaml"])
        again = import_objects(other, [tmp_path / "out.yaml"])
        stored = other.registry("configmaps").get("a", "default")

    assert (result.created, result.broken, again.unchanged) == (5, 1, 5)
    (broken,) = again.references
    assert (broken.key, broken.owner) == ("/configmaps/default/owned", "ConfigMap/a")
    assert broken.uid == owner["metadata"]["uid"] != stored["metadata"]["uid"]


@pytest.mark.parametrize("preserve", [False, True])
def test_objects_that_differ(source, tmp_path, preserve):
    """They are left alone and named, or replaced with ``overwrite``; the others are stored."""
    out = tmp_path / "out.jsonl"
    export_objects(source, out)
    with StorageFactory("memory://") as other:
        kept = other.registry("configmaps").create({**config_map("a"), "data": {"k": "own"}})
        result = import_objects(other, [out], preserve_uids=preserve)
        assert (result.created, result.failed) == (3, 1)
        (failure,) = result.failures
        assert failure.where == f"{out} (document 1, line 1)"
        assert "'/configmaps/default/a' exists and differs" in failure.reason
        assert other.registry("configmaps").get("a") == kept

        result = import_objects(other, [out], preserve_uids=preserve, overwrite=True)
        assert (result.replaced, result.unchanged) == (1, 3)
        stored = other.registry("configmaps").get("a")
        assert stored["data"] == {"k": "v"}
        uid = source.registry("configmaps").get("a")["metadata"]["uid"]
        assert stored["metadata"]["uid"] == (uid if preserve else kept["metadata"]["uid"])


def test_expiry(source, tmp_path):
    """It travels in an annotation, which no stored object has."""
    source.registry("configmaps").create(config_map("short"), ttl=500)
    export_objects(source, tmp_path / "out.yaml")

    with StorageFactory("memory://") as other:
        import_objects(other, [tmp_path / "out.yaml"])
        left = other.backend().remaining_ttl("/registry/configmaps/default/short")
        stored = other.registry("configmaps").get("short")
        bad = config_map("bad", annotations={"revstore/ttl-seconds": "soon"})
        (tmp_path / "bad.json").write_text(json.dumps(bad))
        failure = import_objects(other, [tmp_path / "bad.json"]).failures[0]
        other.storage(dict, resource="configmaps").create("/configmaps/default/bad", bad)
        with pytest.raises(InvalidObject, match="it has the annotation"):
            export_objects(other, tmp_path / "bad")

    assert left is not None
    assert 490 < left <= 501
    assert "annotations" not in stored["metadata"]
    assert "seconds, above 0" in failure.reason


STRANGE = {
    "no kind": ("/registry/example.com/things/default/a", {"metadata": {"name": "a"}}),
    "another name": ("/registry/configmaps/default/a", config_map("b")),
    "another kind": ("/registry/configmaps/default/a", {**config_map("a"), "kind": "Secret"}),
    "a list": (
        "/registry/example.com/accesslists/default/a",
        {**config_map("a"), "apiVersion": "example.com/v1", "kind": "AccessList", "items": []},
    ),
    "labels": ("/registry/configmaps/default/a", config_map("a", labels={"n": 1})),
    "no object": ("/registry/configmaps/default/a", {"kind": "ConfigMap"}),
}


@pytest.mark.parametrize("strange", STRANGE)
def test_objects_that_no_manifest_shows(tmp_path, strange):
    """They are refused by key, or left out and counted where that is asked for."""
    key, value = STRANGE[strange]
    with StorageFactory("memory://") as factory:
        factory.registry("configmaps").create(config_map("good"))
        factory.backend().put(key, json.dumps(value).encode(), expected_revision=0)
        with pytest.raises((InvalidObject, CorruptObject)) as refused:
            export_objects(factory, tmp_path / "out.yaml")
        assert not (tmp_path / "out.yaml").exists()
        result = export_objects(factory, tmp_path / "out.yaml", even_if_corrupt=True)

    assert refused.value.key == key
    assert (result.objects, result.failed) == (1, 1)


def test_encrypted_resources(tmp_path):
    """They are exported only where asked; a refusal names the resource and writes nothing."""
    from revstore_encryption._key_file import init

    init(str(tmp_path / "keys.yaml"), "aesgcm", ["secrets"])
    config = StorageConfig(
        type="memory",
        transformer="encryption",
        transformer_options={"config": str(tmp_path / "keys.yaml")},
    )
    secret = {**config_map("s"), "kind": "Secret"}
    with StorageFactory(config) as factory:
        factory.registry("configmaps").create(config_map("a"))
        factory.registry("secrets").create(secret)
        with pytest.raises(InvalidArgument, match="secrets are encrypted in the store"):
            export_objects(factory, tmp_path / "out")
        assert not (tmp_path / "out").exists()
        assert export_objects(factory, tmp_path / "some", exclude=["secrets"]).objects == 1
        assert export_objects(factory, tmp_path / "out", plain_text=True).objects == 2
    with StorageFactory("memory://") as other:
        assert import_objects(other, [tmp_path / "out"], preserve_uids=True).created == 2


@pytest.mark.parametrize("prefix", ["", "/registry"])
def test_a_store_that_is_being_filled(source, tmp_path, prefix):
    """Other operations on objects neither read nor write it."""
    export_objects(source, tmp_path / "objects.jsonl")
    backend = source.backend()
    before = backend.put(f"{prefix}/revstore.unfinished", b"{}", expected_revision=0).revision

    with pytest.raises(StoreInUse):
        export_objects(source, tmp_path / "out")
    with pytest.raises(StoreInUse):
        import_objects(source, [tmp_path / "objects.jsonl"], overwrite=True)
    with pytest.raises(StoreInUse):
        rewrite(source, everything=True)
    assert backend.status().revision == before


def test_every_store(tmp_path, url_of):
    """From each kind of store into each other."""
    path = tmp_path / "0.jsonl"
    path.write_text(
        "".join(json.dumps(config_map(f"c{n}", uid=f"u{n}")) + "\n" for n in range(300))
    )
    before = None
    for number, kind in enumerate(("sqlite", "etcd3", "etcd2", "memory"), 1):
        with StorageFactory(url_of(kind, f"s{number}")) as factory:
            assert import_objects(factory, [path], preserve_uids=True).created == 300
            path = tmp_path / f"{number}.jsonl"
            export_objects(factory, path)
        assert before in (None, path.read_bytes())
        before = path.read_bytes()


BROKEN = {
    "a: [": "document 1",
    "---\n" + json.dumps(config_map("a")) + "\n---\nkind: x\n": "document 2",
    json.dumps(config_map("a")) + "\n{torn\n": "document 2, line [23]",
    json.dumps(config_map("a")) + "\n" + json.dumps(config_map("b"))[:-9]: "document 2, line [23]",
}


@pytest.mark.parametrize("before", ["\n", "\r\n \t\n", "\ufeff\n\n", "\n" * 1000])
def test_lines_after_blank_ones(tmp_path, before):
    """They are JSON lines, and not a YAML document of several objects."""
    path = tmp_path / "x.jsonl"
    path.write_text(before + "".join(f"{json.dumps(config_map(name))}\n" for name in "abc"))
    with StorageFactory("memory://") as factory:
        assert import_objects(factory, [path]).created == 3
    path.write_text(path.read_text() + "{torn\n")
    lines = before.count("\n") + 4
    with (
        StorageFactory("memory://") as factory,
        pytest.raises(ManifestError, match=f"document 4, line ({lines}|{lines + 1}):"),
    ):
        import_objects(factory, [path])


def test_blank_lines_take_no_memory(tmp_path):
    """Not even before the first document, where they are read to see what the file is."""
    path = tmp_path / "x.jsonl"
    path.write_text((" " * 9999 + "\n") * 1000 + json.dumps(config_map("a")))
    with StorageFactory("memory://") as factory:
        tracemalloc.start()
        try:
            assert import_objects(factory, [path]).created == 1
            assert tracemalloc.get_traced_memory()[1] < 5e6
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("text", BROKEN)
def test_broken_sources(tmp_path, text):
    """The error names the document and the line; the ones before it are stored."""
    path = tmp_path / "x.manifests"
    path.write_text(text)
    with (
        StorageFactory("memory://") as factory,
        pytest.raises(ManifestError, match=BROKEN[text]),
    ):
        import_objects(factory, [path])


def test_yaml_of_people(tmp_path):
    """Comments, directives, markers with text, ends of documents, empty ones, lists, CRLF."""
    text = """# first
%YAML 1.1
---  # a marker
apiVersion: v1
kind: ConfigMap
metadata: {name: a}
data:
  text: |
    ---
    not a marker
---
---
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: c}}
...
# between
---
apiVersion: v1
kind: ConfigMap
metadata: {name: d}
"""
    for end in ("\n", "\r\n"):
        (tmp_path / "x.yaml").write_bytes(text.replace("\n", end).encode())
        with StorageFactory("memory://") as factory:
            result = import_objects(factory, [tmp_path / "x.yaml"])
            assert (result.created, result.failures) == (4, ())
            found = factory.registry("configmaps").get("a")["data"]["text"]
            assert found == "---\nnot a marker\n"


@pytest.mark.slow
def test_interrupted_at_any_line(source, tmp_path):
    """Ctrl-C in an export or import: what is there is whole or says that it is not, and the same
    call completes it."""
    out, lines = tmp_path / "out", tmp_path / "out.jsonl"
    export_objects(source, lines)
    whole = lines.read_bytes()

    def check_file(_spot: str) -> None:
        assert lines.read_bytes() == whole
        assert not list(tmp_path.glob("*.part"))

    where = code_below(_export)
    interrupt_every_line(
        lambda: export_objects(source, lines), where=where, after=check_file, visits=1
    )
    interrupt_every_line(lambda: export_objects(source, out), where=where, visits=1)
    export_objects(source, out)

    with StorageFactory("memory://") as other:
        interrupt_every_line(
            lambda: import_objects(other, [out], preserve_uids=True), where=where, visits=1
        )
        assert import_objects(other, [out], preserve_uids=True).unchanged == 4
        export_objects(other, tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_bytes() == whole


# --- the commands ------------------------------------------------------------------------------


@pytest.fixture
def revstore(tmp_path):
    return Revstore(tmp_path)


def test_the_commands(revstore, tmp_path):
    """Counts, JSON, exit codes, what `apply` reads."""
    revstore.apply(*(config_map(name) for name in "abc"))
    other = {"REVSTORE_URL": f"sqlite:///{tmp_path}/other.db"}

    assert revstore.out("export", "-o", "out")[-1].startswith("Exported 3 objects at revision ")
    report = json.loads("\n".join(revstore.out("export", "-o", "out", "--json")))
    assert (report["objects"], report["resources"], report["failed"]) == (3, {"configmaps": 3}, 0)
    assert len(revstore.out("apply", "-f", "out", **other)) == 3
    said = revstore.out("import", "out", **other)
    assert said == ["Created 0, replaced 0, unchanged 3, failed 0."]
    assert (
        "exists and differs" in revstore("import", "--preserve-uids", "out", code=1, **other).stderr
    )
    report = revstore("import", "--preserve-uids", "--overwrite", "--json", "out", **other).stdout
    assert json.loads(report)["replaced"] == 3
    lines = revstore.out("export", "cm", "-o", "-")
    assert revstore.out("import", "-", "--preserve-uids", stdin="\n".join(lines), **other) == [
        "Created 0, replaced 0, unchanged 3, failed 0."
    ]
    assert "No such file" in revstore.error("import", "nothing", code=1)
    assert "can have no tree" in revstore.error("export", "-o", "-", "--format", "tree", code=2)


@pytest.mark.slow
def test_closed_streams(revstore, tmp_path):
    """An export ends quietly when nobody reads it; an import goes on to its end."""
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps(config_map(f"c{n}")) + "\n" for n in range(2000)))
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "revstore"]
    importing = subprocess.run(
        [*command, "import", str(path)], env=revstore.env, stdout=write, check=False, timeout=60
    )
    exporting = subprocess.run(
        [*command, "export", "-o", "-"],
        env=revstore.env,
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
        timeout=60,
    )
    os.close(write)

    assert importing.returncode in (0, 141)
    assert (exporting.returncode, exporting.stderr) == (141, b"")
    assert len(revstore.out("get", "cm", "-o", "name")) == 2000


@pytest.mark.slow
def test_killed(revstore, tmp_path):
    """kill -9 and Ctrl-C at any moment: the same command goes on, and both stores are equal."""
    path = tmp_path / "many.jsonl"
    path.write_text(
        "".join(json.dumps(config_map(f"c{n:04}", uid=f"u{n}")) + "\n" for n in range(3000))
    )
    for number in range(3):
        started = revstore.start("import", "--preserve-uids", str(path))
        deadline = time.monotonic() + 30
        store = tmp_path / "store.db"
        while not (store.exists() and store.stat().st_size > 4096):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.1 * number)
        started.interrupt(9 if number % 2 else 2)
    revstore.out("import", "--preserve-uids", str(path))
    revstore.out("export", "-o", "after.jsonl")

    after = [json.loads(line) for line in (tmp_path / "after.jsonl").read_text().splitlines()]
    assert after == [json.loads(line) for line in path.read_text().splitlines()]
