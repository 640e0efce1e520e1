"""A user whose role is limited: what it may do works, and what it lacks is told."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from revstore.cli._bench import Bench
from revstore.compactor import Compactor
from revstore.config import StorageConfig
from revstore.errors import AccessDenied, ReadOnly
from revstore.factory import StorageFactory
from revstore.operations import backup, open_backup, restore, verify
from revstore.plugins import open_backend, run_doctor
from revstore.secret import Secret
from revstore.testing.etcd import EtcdServer

PASSWORD = "hunter2"
PREFIX = ("--prefix", "readwrite", "/registry/")
FENCE = ("read", b"\xffrevstore/fence")
EVERYTHING = ("--from-key", "read", "")
ELECTION = ("readwrite", "compact_rev_key")


@pytest.fixture
def limited(etcd_binary: str) -> Iterator[Callable[..., StorageConfig]]:
    """Returns limited(*grants), the configuration for a user with these alone."""
    with EtcdServer(etcd_binary, arguments=("--bcrypt-cost", "4")) as server:
        server.start()
        administrator = ["--user", f"root:{PASSWORD}"]

        def etcdctl(*words: str | bytes) -> None:
            env = {"ETCDCTL_API": "3", "PATH": "/usr/bin:/bin"}
            command = ["etcdctl", "--endpoints", server.client_url, *words]
            subprocess.run(command, env=env, check=True, capture_output=True, timeout=20)

        for name in ("root", "app"):
            etcdctl("user", "add", f"{name}:{PASSWORD}")
            if name != "root":
                etcdctl("role", "add", name)
            etcdctl("user", "grant-role", name, name)
        etcdctl("auth", "enable")

        def limited(*grants: tuple[str | bytes, ...]) -> StorageConfig:
            for grant in grants:
                etcdctl(*administrator, "role", "grant-permission", "app", *grant)
            return StorageConfig(
                type="etcd3",
                server_list=(server.address,),
                username="app",
                password=Secret(PASSWORD),
            )

        yield limited


def failed(config: StorageConfig) -> dict[str, str]:
    """What doctor finds wrong, by the check's name."""
    return {each.name: each.detail for each in run_doctor(config) if each.result != "ok"}


def test_a_role_limited_to_the_prefix(limited: Callable[..., StorageConfig]) -> None:
    """Reads and writes of objects work, the store's status too. A watch ends at once with
    AccessDenied that says what to grant; with that it works."""
    config = limited(PREFIX, FENCE)
    with StorageFactory(config) as factory:
        pods = factory.registry("pods")
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "x"}}
        pods.create(pod)
        assert [each["metadata"]["name"] for each in pods.list()] == ["a"]
        factory.ready_check().check()
        factory.health_check().check()
        assert factory.backend().status().revision == 2
        with (
            pytest.raises(AccessDenied, match=r"user 'app'.*all keys.*--from-key") as caught,
            pods.watch(resource_version="1") as watch,
        ):
            watch.poll(10)
        assert PASSWORD not in str(caught.value)
    assert set(failed(config)) == {"role for watches", "role for compaction"}
    assert "--from-key" in failed(config)["role for watches"]

    limited(EVERYTHING, ELECTION)
    with open_backend(config) as backend:
        with backend.watch("/registry/", recursive=True, after_revision=1) as watch:
            assert watch.poll(10).events[0].kv.key == "/registry/pods/x/a"
        Compactor(backend, interval=0).run_once()
    assert failed(config) == {}


def test_errors_name_the_user_and_the_key(limited: Callable[..., StorageConfig]) -> None:
    """Reads, lists and writes outside the prefix, and the key by which compactors agree."""
    with open_backend(limited(PREFIX, FENCE)) as backend:
        for key, call in (
            ("/other/x", lambda: backend.get("/other/x")),
            ("/other/", lambda: backend.list("/other/")),
            ("/other/x", lambda: backend.put("/other/x", b"", expected_revision=0)),
            ("compact_rev_key", Compactor(backend, interval=0).run_once),
        ):
            with pytest.raises(AccessDenied, match=f"user 'app' do not cover '{key}'"):
                call()


def test_a_role_that_may_not_read_the_fence(limited: Callable[..., StorageConfig]) -> None:
    """Writes and doctor say what to grant, as an unseen fence would not stop anything; reads
    work. A role that may also write it sets and removes the fence."""
    config = limited(PREFIX)
    with open_backend(config) as backend:
        assert backend.list("/registry/").kvs == ()
        for write in (
            lambda: backend.put("/registry/a", b"", expected_revision=0),
            lambda: backend.transaction(lambda seen: seen.put("/registry/a", b"")),
            lambda: backend.leases().grant(100),
            lambda: backend.fence("why"),
        ):
            with pytest.raises(AccessDenied, match=r"read \$'.xffrevstore/fence'") as caught:
                write()
            assert PASSWORD not in str(caught.value)
        assert "xffrevstore/fence" in failed(config)["role for writes"]

        limited(FENCE)
        assert backend.put("/registry/a", b"", expected_revision=0).succeeded
        with pytest.raises(AccessDenied, match="'app' do not cover 'the fence'"):
            backend.fence("why")

        limited(("readwrite", FENCE[1]))
        backend.fence("why")
        with pytest.raises(ReadOnly, match="why"):
            backend.put("/registry/b", b"", expected_revision=0)
        backend.unfence()


def test_doctor_writes_nothing(limited: Callable[..., StorageConfig]) -> None:
    """Whether compact_rev_key may be written is asked without writing it."""
    config = limited(PREFIX, EVERYTHING, ELECTION)
    assert failed(config) == {}

    with open_backend(config) as backend:
        assert backend.get("compact_rev_key").kv is None
        assert backend.status().revision == 1


def test_bench_of_a_limited_role(limited: Callable[..., StorageConfig]) -> None:
    """Who may not write gets the rows of reads, and what is missing for the others; who may not
    watch, all but the events."""
    config = limited(("--prefix", "read", "/registry/"))
    with StorageFactory(config) as factory:
        bench = Bench(factory)
        bench.run()
        assert factory.backend().status().revision == 1
    assert [row.name for row in bench.rows if row.note] == ["put"]
    assert bench.summary == "Neither writes nor reads could be measured."

    with StorageFactory(limited(PREFIX, FENCE)) as factory:
        bench = Bench(factory)
        bench.run()
        assert factory.backend().count("/registry/").count == 0
    (note,) = [row for row in bench.rows if row.note and row.name == "write to event"]
    assert "--from-key" in note.note
    assert bench.summary.startswith("Writes are limited by ")


def test_backup_and_restore_of_a_prefix(limited: Callable[..., StorageConfig], tmp_path) -> None:
    """A user with one prefix can save and fill it; without the prefix the error says what to do."""
    config = limited(PREFIX, FENCE)
    with open_backend(config) as backend:
        backend.put("/registry/pods/x/a", b"1", expected_revision=0, ttl=500)
        with pytest.raises(AccessDenied, match="it needs all keys: a prefix restricts it"):
            backup(backend, tmp_path / "b")
        with pytest.raises(AccessDenied, match="keys with the prefix '/other/'"):
            backup(backend, tmp_path / "b", prefix="/other/")
        assert backup(backend, tmp_path / "b", prefix="/registry/").keys == 1
        kv = backend.get("/registry/pods/x/a").kv
        assert kv is not None
        backend.delete(kv.key, expected_revision=kv.revision)
        with open_backup(tmp_path / "b") as source:
            assert restore(backend, source).written == 1
            assert verify(source, backend).equal
        with pytest.raises(AccessDenied, match="a prefix restricts it"):
            verify(backend, backend)
