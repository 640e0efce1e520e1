"""The several hundred manifests of others, as they are found in the wild."""

import json
import os
from pathlib import Path

import pytest
import yaml

from revstore.kinds import for_object

DEFAULT = Path(__file__).resolve().parents[3] / "shared" / "data"
DATA = Path(os.environ.get("REVSTORE_TEST_DATA") or DEFAULT)
FILLED = ("uid", "resourceVersion", "creationTimestamp", "generation")


class Strict(yaml.CSafeLoader):
    """PyYAML's own reading, without dates, refusing duplicate keys."""

    def construct_mapping(self, node, deep=False):
        mapping = super().construct_mapping(node, deep)
        if len(mapping) != len(node.value):
            raise yaml.YAMLError("a key occurs twice")
        return mapping


Strict.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if not tag.endswith(":timestamp")]
    for first, pairs in Strict.yaml_implicit_resolvers.items()
}


def read_independently():
    """The last occurrence of every object, what occurs more than once, and malformed files."""
    objects, twice, malformed = {}, set(), set()
    for path in sorted(DATA.rglob("*.yaml"), key=lambda path: path.parts):
        try:
            documents = [each for each in yaml.load_all(path.read_bytes(), Strict) if each]
            infos = [(for_object(each), each) for each in documents]
        except (yaml.YAMLError, ValueError):
            malformed.add(str(path))
            continue
        for info, obj in infos:
            metadata = obj["metadata"]
            namespace = metadata.get("namespace", "default") if info.namespaced else None
            key = (info.prefix, namespace, metadata["name"])
            if key in objects:
                twice.add(metadata["name"])
            objects[key] = obj
    return objects, twice, malformed


def without_filled(obj, like):
    metadata = {key: value for key, value in obj["metadata"].items() if key not in FILLED}
    if "namespace" not in like["metadata"]:
        metadata.pop("namespace", None)
    return {**obj, "metadata": metadata}


@pytest.fixture
def data():
    if not DATA.is_dir():
        message = f"no manifests at {DATA}; set REVSTORE_TEST_DATA"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return str(DATA)


def test_a_folder_of_real_manifests_goes_in_and_comes_back(revstore, data):
    """Every object is stored once, each malformed file is told in one line, each object that
    occurs twice is told; a second run changes nothing; -o yaml gives back what went in."""
    objects, twice, malformed = read_independently()
    first = revstore("apply", "-f", data, code=1)
    revision = revstore.doctor()["store"]["revision"]
    second = revstore("apply", "-f", data, code=1)
    errors = [line for line in first.stderr.splitlines() if line.startswith("error: ")]
    warnings = [line for line in first.stderr.splitlines() if line.startswith("warning: ")]

    assert {line.split(": ")[1] for line in errors} == malformed
    assert len(errors) == len(malformed) >= 7
    assert {line.split("/")[1].split(" ")[0] for line in warnings} == twice
    assert len(errors) + len(warnings) == len(first.stderr.splitlines())
    assert {line.split()[1] for line in first.stdout.splitlines()} == {"created"}
    assert len(first.stdout.splitlines()) == len(objects) > 200
    assert {line.split()[1] for line in second.stdout.splitlines()} == {"unchanged"}
    assert len(second.stdout.splitlines()) == len(objects)
    assert revstore.doctor()["store"]["revision"] == revision

    stored = revstore.doctor()["objects"]
    listed = yaml.load("\n".join(revstore.out("get", ",".join(stored), "-A", "-o", "yaml")), Strict)
    assert sum(stored.values()) == len(listed["items"]) == len(objects)
    for obj in listed["items"]:
        info = for_object(obj)
        key = (info.prefix, obj["metadata"].get("namespace"), obj["metadata"]["name"])
        wanted = objects[key]

        assert without_filled(wanted, wanted) == without_filled(obj, wanted)


def test_what_is_printed_of_real_manifests_can_be_applied(revstore, data):
    """What -o yaml and -o json print is as it is stored, and makes the same store elsewhere; what
    -o name prints are names that get takes."""
    revstore("apply", "-f", data, code=1)
    everything = ("get", ",".join(revstore.doctor()["objects"]), "-A", "-o")
    before = revstore(*everything, "json").stdout
    count = len(json.loads(before)["items"])
    for output in ("yaml", "json"):
        text = revstore(*everything, output).stdout
        again = revstore.out("apply", "-f", "-", stdin=text)
        assert [line.split()[1] for line in again] == ["unchanged"] * count
    assert revstore(*everything, "json").stdout == before

    elsewhere = {"REVSTORE_URL": f"sqlite:///{revstore.folder}/elsewhere.db"}
    revstore("apply", "-f", "-", stdin=before, **elsewhere)
    copied = json.loads(revstore(*everything, "json", **elsewhere).stdout)["items"]
    for one, other in zip(copied, json.loads(before)["items"], strict=True):
        assert without_filled(one, one) == without_filled(other, other)

    by_namespace = {}
    for obj, name in zip(copied, revstore.out(*everything, "name"), strict=True):
        by_namespace.setdefault(obj["metadata"].get("namespace", "default"), []).append(name)
    for namespace, names in by_namespace.items():
        found = revstore.out("get", *names, "-n", namespace, "-o", "name")
        assert sorted(found) == sorted(names)


def test_selecting_among_real_manifests(revstore, data):
    """Several types at once, by label, in all namespaces."""
    objects, _, _ = read_independently()
    revstore("apply", "-f", data, code=1)
    wanted = {
        f"{obj['kind'].lower()}/{obj['metadata']['name']}"
        for (prefix, _, _), obj in objects.items()
        if prefix in ("/pods", "/services")
        and (obj["metadata"].get("labels") or {}).get("app") == "redis"
    }
    table = revstore.out("get", "pods,services", "-A", "-l", "app=redis")

    assert wanted
    assert set(revstore.out("get", "po,svc", "-A", "-l", "app=redis", "-o", "name")) == wanted
    assert wanted == {line.split()[1] for line in table if line and "NAME" not in line.split()}
