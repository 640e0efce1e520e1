"""What an EncryptionConfiguration may say, and how it is refused: as kube-apiserver does."""

from __future__ import annotations

import copy
import traceback
from pathlib import Path
from typing import Any

import pytest

from revstore.config import StorageConfig
from revstore.errors import ConfigError
from revstore.plugins import open_transformer
from revstore_encryption._configuration import Kms, read_configuration

from .conftest import OTHER, SECRET, document, provider, save

GCM = provider("aesgcm", ("key1", SECRET))
IDENTITY = provider("identity")


def changed(change: Any) -> Any:
    content = copy.deepcopy(document(GCM))
    change(content)
    return content


def keyed(kind: str = "aesgcm", **key: Any) -> Any:
    return document({kind: {"keys": [{"name": "key1", "secret": SECRET} | key]}})


def kms(**fields: Any) -> Any:
    good = {"apiVersion": "v2", "name": "vault", "endpoint": "unix:///run/kms.sock"}
    return document({"kms": good | fields})


def entries(*lists: tuple[str, ...]) -> Any:
    content = document(IDENTITY)
    content["resources"] = [{"resources": list(each), "providers": [IDENTITY]} for each in lists]
    return content


FIRST = "resources[0].providers[0]"
KEY = f"{FIRST}.aesgcm.keys[0]"
ALL = "aesgcm, aescbc, secretbox, kms, identity"
REFUSED = {
    "no mapping": ("just text", "the document: expected a mapping"),
    "no kind": (changed(lambda it: it.pop("kind")), "the document: expected the field 'kind'"),
    "kind": (changed(lambda it: it.update(kind="Pod")), "kind: expected 'EncryptionConfiguration'"),
    "version": (
        changed(lambda it: it.update(apiVersion="v1")),
        "apiVersion: expected 'apiserver.config.k8s.io/v1'",
    ),
    "unknown field": (
        changed(lambda it: it.update(resource=[])),
        "the document has the field 'resource': expected one of apiVersion, kind, resources",
    ),
    "no resources": (
        changed(lambda it: it.update(resources=[])),
        "resources: expected a list with at least one entry",
    ),
    "entry without resources": (
        entries(()),
        "resources[0].resources: expected a list with at least one entry",
    ),
    "no providers": (document(), "resources[0].providers: expected a list with at least one entry"),
    "two providers in one": (
        document({**GCM, **IDENTITY}),
        f"{FIRST}: expected exactly one of {ALL}",
    ),
    "empty provider": (document({}), f"{FIRST}: expected exactly one of {ALL}"),
    "provider of nothing": (document({"aesgcm": None}), f"{FIRST}: expected exactly one of {ALL}"),
    "unknown provider": (
        document({"rot13": {}}),
        f"{FIRST} has the field 'rot13': expected one of {ALL}",
    ),
    "identity with keys": (
        document({"identity": {"keys": []}}),
        f"{FIRST}.identity has the field 'keys': expected no fields",
    ),
    "no keys": (
        document(provider("aesgcm")),
        f"{FIRST}.aesgcm.keys: expected a list with at least one entry",
    ),
    "key without a name": (keyed(name=""), f"{KEY}.name: expected a string"),
    "name that is a number": (keyed(name=1), f"{KEY}.name: expected a string"),
    "key without a secret": (keyed(secret=None), f"{KEY}: expected the field 'secret'"),
    "no base64": (
        keyed(secret="?" + SECRET),
        f"{KEY}.secret: expected 16 or 24 or 32 bytes in base64",
    ),
    "no padding": (
        keyed(secret=SECRET.rstrip("=")),
        f"{KEY}.secret: expected 16 or 24 or 32 bytes in base64",
    ),
    "short": (
        keyed(secret="c2hvcnQ="),
        f"{KEY}.secret has 5 bytes: expected 16 or 24 or 32 bytes in base64",
    ),
    "secretbox takes 32": (
        keyed("secretbox", secret="A" * 22 + "=="),
        f"{FIRST}.secretbox.keys[0].secret has 16 bytes: expected 32 bytes in base64",
    ),
    "capitals": (
        entries(("Secrets",)),
        "resources[0].resources[0] 'Secrets': expected a name without capital letters",
    ),
    "star": (
        entries(("*",)),
        "resources[0].resources[0] '*': expected '*.' for the core group, or '*.*'",
    ),
    "no API": (
        entries(("serviceipallocations",)),
        "resources[0].resources[0] 'serviceipallocations': expected a resource that has an API",
    ),
    "events.k8s.io": (
        entries(("events.events.k8s.io",)),
        "resources[0].resources[0] 'events.events.k8s.io': expected 'events'",
    ),
    "extensions": (
        entries(("ingresses.extensions",)),
        "resources[0].resources[0] 'ingresses.extensions': expected another group",
    ),
    "across groups": (
        entries(("pods.*",)),
        "resources[0].resources[0] 'pods.*': expected one group: 'RESOURCE.GROUP'",
    ),
    "twice": (entries(("pods", "pods")), "resources[0].resources: expected each resource once"),
    "covered in one list": (
        entries(("pods", "*.")),
        "resources[0].resources: expected no resource that another one in the list covers",
    ),
    "covered by all": (
        entries(("*.*", "pods")),
        "resources[0].resources: expected no resource that another one in the list covers",
    ),
    "masked by a group": (
        entries(("*.apps",), ("deployments.apps",)),
        "resources[1].resources[0]: expected no resource that '*.apps' of an earlier entry covers",
    ),
    "masked by all": (
        entries(("*.*",), ("secrets",)),
        "resources[1].resources[0]: expected no resource that '*.*' of an earlier entry covers",
    ),
    "KMS 1": (
        kms(apiVersion="v1"),
        f"{FIRST}.kms.apiVersion: expected apiVersion 'v2': version 1 is not supported",
    ),
    "KMS 1 by default": (
        kms(apiVersion=None),
        f"{FIRST}.kms: expected apiVersion 'v2': version 1 is not supported",
    ),
    "cache of KMS 1": (kms(cachesize=5), f"{FIRST}.kms.cachesize: expected no value"),
    "name with a colon": (kms(name="a:b"), f"{FIRST}.kms.name 'a:b': expected a name without ':'"),
    "no endpoint": (kms(endpoint=None), f"{FIRST}.kms: expected the field 'endpoint'"),
    "endpoint elsewhere": (
        kms(endpoint="tcp://127.0.0.1:80"),
        f"{FIRST}.kms.endpoint 'tcp://127.0.0.1:80': expected 'unix:///PATH'",
    ),
    "endpoint with a host": (
        kms(endpoint="unix://run/kms.sock"),
        f"{FIRST}.kms.endpoint 'unix://run/kms.sock': expected 'unix:///PATH'",
    ),
    "timeout": (
        kms(timeout="3"),
        f"{FIRST}.kms.timeout '3': expected a duration above 0, such as '3s'",
    ),
    "no time": (kms(timeout="0s"), f"{FIRST}.kms.timeout '0s': expected a duration above 0"),
    "one plugin twice": (
        document(*kms()["resources"][0]["providers"] * 2),
        "resources[0].providers: expected another name than 'vault' for a kms",
    ),
    "field twice": ("kind: A\nkind: B\n", "a field is given twice at line 2"),
    "no YAML": ("a: [" + SECRET, "expected ',' or ']', but got '<stream end>' at line 1"),
    "tag": ("!!python/name:os.system x", "could not determine a constructor for the tag"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path: Path, name: str):
    """The error names the file and the place, and what was expected; it never shows a secret."""
    content, expected = REFUSED[name]
    path = save(tmp_path / "keys.yaml", content)

    with pytest.raises(ConfigError) as caught:
        read_configuration(str(path))

    assert str(caught.value).startswith(f"{path}: {expected}")
    assert SECRET[:8] not in "".join(traceback.format_exception(caught.value))


def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read: No such file"):
        read_configuration(str(tmp_path / "nowhere.yaml"))


def test_a_file_that_others_can_read_is_warned_of(tmp_path):
    path = save(tmp_path / "keys.yaml", document(GCM))
    path.chmod(0o640)
    config = StorageConfig(transformer="encryption", transformer_options={"config": str(path)})

    with pytest.warns(UserWarning, match=r"keys\.yaml' can be read by others: chmod 600"):
        open_transformer(config, "secrets")


def test_which_entry_a_resource_gets(tmp_path):
    """The resource itself, else its group, else all; else it is not encrypted."""
    content = document(provider("aesgcm", ("one", SECRET)), resources=("secrets", "jobs.batch"))
    content["resources"] += [
        {"resources": ["*.apps"], "providers": [provider("aescbc", ("two", SECRET))]},
        {"resources": ["*."], "providers": [IDENTITY, provider("aesgcm", ("three", SECRET))]},
    ]
    some = read_configuration(str(save(tmp_path / "some.yaml", content)))
    content["resources"].append(
        {"resources": ["*.*"], "providers": [provider("secretbox", ("four", SECRET))]}
    )
    every = read_configuration(str(save(tmp_path / "all.yaml", content)))

    def found(configuration, resource):
        return [
            (each.kind, *(key.name for key in each.keys))
            for each in configuration.providers(resource)
        ]

    assert found(some, "secrets") == [("aesgcm", "one")]
    assert found(some, "jobs.batch") == [("aesgcm", "one")]
    assert found(some, "deployments.apps") == [("aescbc", "two")]
    assert found(some, "pods") == [("identity",), ("aesgcm", "three")]
    assert found(some, "cronjobs.batch") == [("identity",)]
    assert found(every, "cronjobs.batch") == [("secretbox", "four")]
    assert found(every, "pods") == [("identity",), ("aesgcm", "three")]


def test_a_resource_in_two_entries_has_the_providers_of_both(tmp_path):
    """In their order, as in Kubernetes."""
    content = entries(("secrets",), ("pods", "secrets"))
    content["resources"][0]["providers"] = [provider("aesgcm", ("one", OTHER))]

    configuration = read_configuration(str(save(tmp_path / "keys.yaml", content)))

    assert [each.kind for each in configuration.providers("secrets")] == ["aesgcm", "identity"]


def test_a_kms_plugin(tmp_path):
    """Its socket is a path or an abstract name; a call may take 3 s unless the file says else."""
    plain = read_configuration(str(save(tmp_path / "plain.yaml", kms())))
    other = kms(endpoint="unix:///@vault", timeout="1m1.5s")
    abstract = read_configuration(str(save(tmp_path / "abstract.yaml", other)))

    (made,) = plain.providers("secrets")
    assert made.kms == Kms("vault", "/run/kms.sock", 3.0)
    (made,) = abstract.providers("secrets")
    assert made.kms == Kms("vault", "@vault", 61.5)


def test_json_is_read_too(tmp_path):
    import json

    path = save(tmp_path / "keys.json", json.dumps(document(GCM)))

    ((made,),) = read_configuration(str(path)).resources.values()
    assert made.keys[0].reveal() == bytes(range(32))
    assert SECRET not in repr(made)
