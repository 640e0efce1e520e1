"""The file of keys is read again when it changes."""

from __future__ import annotations

import logging
import os
import threading

import pytest
import yaml

from revstore.plugins import open_transformer
from revstore_encryption import _reload

from .conftest import OTHER, SECRET, document, provider, save

KEY = b"/registry/secrets/default/a"
OLD = provider("aesgcm", ("old", SECRET))
NEW = provider("aesgcm", ("new", OTHER))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "encryption.yaml"


@pytest.fixture
def secrets(keys, file):
    """A transformer that looks at the file in every call."""
    config = keys(document(OLD))
    options = {"config": str(file), "reload_interval": 0}
    return open_transformer(
        type(config)(transformer="encryption", transformer_options=options), "secrets"
    )


def writer(transformer):
    return transformer.transform_to_storage(b"text", KEY).split(b":")[4]


def test_a_new_key_is_used(secrets, file):
    """Without a restart: it writes, and what the old one has written is stale."""
    sealed = secrets.transform_to_storage(b"text", KEY)

    save(file, document(NEW, OLD))

    assert secrets.transform_from_storage(sealed, KEY) == (b"text", True)
    assert writer(secrets) == b"new"


def test_a_file_changed_in_place(secrets, file):
    text = file.read_text().replace("old", "new")

    file.write_text(text)

    assert writer(secrets) == b"new"


def test_half_a_file_is_not_used(keys, file, monkeypatch):
    """While somebody writes into the file, the keys of before stay: half of it may be valid, and
    lack the resources that are to be encrypted. A replaced file is used at the next look, also one
    behind a symbolic link, as Kubernetes mounts them. (XF-11)"""
    now = [0.0]
    monkeypatch.setattr(_reload, "monotonic", lambda: now[0])
    secrets = open_transformer(keys(document(OLD)), "secrets")
    half = document(provider("identity"), resources=("configmaps",))
    for number in range(9):
        file.write_text(yaml.safe_dump(half) + "\n" * number)
        now[0] += 0.9
        assert writer(secrets) == b"old"
    file.write_text(yaml.safe_dump(document(NEW)))
    for seconds, key in ((1.0, b"old"), (0.5, b"old"), (0.5, b"new")):
        now[0] += seconds
        assert writer(secrets) == key

    (file.parent / "data").mkdir()
    target = save(file.parent / "data" / "encryption.yaml", document(OLD))
    (file.parent / "link").symlink_to(target)
    os.replace(file.parent / "link", file)
    now[0] += 1.0
    assert writer(secrets) == b"old"


@pytest.mark.parametrize("change", ["bad", "gone"])
def test_a_bad_file_changes_nothing(secrets, file, change, caplog):
    """The keys before go on, one warning says why, and a good file is used again."""
    if change == "bad":
        save(file, document(provider("aesgcm", ("bad", "c2hvcnQ="))))
    else:
        file.unlink()
    with caplog.at_level(logging.WARNING, "revstore.encryption"):
        assert [writer(secrets) for _ in range(3)] == [b"old"] * 3

    (record,) = caplog.records
    why = "has 5 bytes" if change == "bad" else "cannot be read"
    assert "the keys stay as they were" in record.getMessage()
    assert why in record.getMessage()
    assert "c2hvcnQ" not in record.getMessage()

    save(file, document(NEW))
    assert writer(secrets) == b"new"


def test_a_readable_file_is_logged(secrets, file, caplog):
    """Not warned of: a warning could be an error, in the middle of a read."""
    file.chmod(0o644)
    with caplog.at_level(logging.WARNING, "revstore.encryption"):
        assert writer(secrets) == b"old"

    assert "can be read by others" in caplog.text


def test_the_interval(keys, file):
    """By default the file is not looked at in every call."""
    secrets = open_transformer(keys(document(OLD)), "secrets")
    assert writer(secrets) == b"old"
    save(file, document(NEW))

    looks = [writer(secrets) for _ in range(10)]
    assert looks[0] == b"old"
    deadline = threading.Event()
    for _ in range(600):
        if writer(secrets) == b"new":
            break
        deadline.wait(0.05)
    assert writer(secrets) == b"new"


def test_many_threads(secrets, file):
    """While the file is replaced again and again, every value that is written can be read."""
    stop, failures = threading.Event(), []

    def work():
        try:
            while not stop.is_set():
                sealed = secrets.transform_to_storage(b"text", KEY)
                assert secrets.transform_from_storage(sealed, KEY)[0] == b"text"
        except Exception as error:  # noqa: BLE001 - it is reported below
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for turn in range(40):
        save(file, document(*((OLD, NEW) if turn % 2 else (NEW, OLD))))
    stop.set()
    for each in threads:
        each.join()

    assert failures == []


def test_a_child_after_a_fork(secrets, file):
    """It follows the file as its parent does."""
    save(file, document(NEW))
    child = os.fork()
    if not child:
        os._exit(0 if writer(secrets) == b"new" else 1)

    assert os.waitpid(child, 0)[1] == 0
