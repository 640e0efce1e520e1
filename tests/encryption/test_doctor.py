"""What ``revstore doctor`` says of encryption."""

from __future__ import annotations

import attrs

from revstore.config import StorageConfig
from revstore.plugins import run_doctor

from .conftest import SECRET, document, provider, save

GCM = provider("aesgcm", ("one", SECRET))


def said(config: StorageConfig) -> list[tuple[str, str, str]]:
    return [(each.name, str(each.result), each.detail) for each in run_doctor(config)]


def test_a_file(keys, tmp_path):
    """It is good, or others can read it, or it is not valid."""
    config, path = keys(document(GCM)), tmp_path / "encryption.yaml"
    assert said(config) == [("encryption", "ok", "")]

    path.chmod(0o644)
    ((_, result, detail),) = said(config)
    assert (result, "can be read by others" in detail) == ("warning", True)

    save(path, document(provider("aesgcm", ("one", "c2hvcnQ="))))
    ((_, result, detail),) = said(config)
    assert (result, "has 5 bytes" in detail, "c2hv" in detail) == ("failed", True, False)


def test_a_kms_plugin_that_is_dead(keys, tmp_path):
    """It is named, with the reason."""
    inner = {"apiVersion": "v2", "name": "gone", "endpoint": f"unix://{tmp_path}/no.sock"}

    _, (name, result, detail) = said(keys(document({"kms": inner}, GCM)))

    assert (name, result) == ("kms gone", "failed")
    assert detail.startswith("Status: unavailable")


def test_overrides_have_their_own_lines(keys, tmp_path):
    """Each file once; a transformer that is not installed is a failed check."""
    config = attrs.evolve(
        keys(document(GCM)),
        overrides={
            "events": {"transformer": "identity"},
            "pods": {"compaction_interval": 60},
            "secrets": {"transformer_options": {"config": str(tmp_path / "none.yaml")}},
            "nodes": {"transformer": "absent"},
        },
    )

    lines = said(config)

    assert [(name, result) for name, result, _ in lines] == [
        ("encryption", "ok"),
        ("encryption", "failed"),
        ("absent", "failed"),
    ]
