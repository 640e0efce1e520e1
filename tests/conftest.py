"""What every test runs under, and wheels of the distributions with environments to try them in."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

from revstore.backend import Backend
from revstore.errors import BackendError
from revstore.memory import MemoryBackend
from revstore.testing._support import collect

# How long an example takes is the machine's matter: a deadline fails on a busy one.
settings.register_profile("revstore", parent=settings(), deadline=None)
settings.load_profile("revstore")

# The fixtures that users have.
pytest_plugins = ["revstore.testing.fixtures"]

ROOT = Path(__file__).parents[1]

#: Folders whose tests start servers and commands throughout; elsewhere a slow module or test is
#: marked itself. `make check` fails a test that takes long and is not marked.
SLOW_FOLDERS = {"backends", "cli", "etcd2", "etcd3"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow folders, which `make check` leaves out."""
    for item in items:
        if item.path.parent.name in SLOW_FOLDERS:
            item.add_marker("slow")


@pytest.fixture(autouse=True)
def _no_configuration_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own REVSTORE_* variables must not steer the tests."""
    for name in list(os.environ):
        if name.startswith("REVSTORE_") and not name.startswith("REVSTORE_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_works() -> Iterator[None]:
    """Under nohup, and in the background of a script, Python leaves SIGINT ignored, as do the
    processes it starts. Tests send it to themselves and to such processes."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive of each distribution: that of `make dist`,
    or built once a session from a clean copy of the tree."""
    if given := os.environ.get("REVSTORE_TEST_DIST"):
        return Path(given)
    # Several processes run the tests of one session, in folders beside each other.
    parallel = "PYTEST_XDIST_WORKER" in os.environ
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if parallel else base) / "distributions"
    shared.mkdir(exist_ok=True)
    out, built = shared / "dist", shared / "built"
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            build_distributions(shared / "source", out)
            built.touch()
    return out


@pytest.fixture(scope="session")
def wheels(distributions: Path) -> Mapping[str, Path]:
    """The wheel of each distribution, by its name."""
    found = distributions.glob("*.whl")
    return {path.name.split("-")[0].replace("_", "-"): path for path in found}


@pytest.fixture(scope="session")
def core_python(tmp_path_factory: pytest.TempPathFactory, wheels: Mapping[str, Path]) -> str:
    """The interpreter of a clean environment that has the core alone."""
    python = make_environment(tmp_path_factory.mktemp("core-only"))
    pip(python, "install", wheels["revstore"])
    return python


@pytest.fixture(scope="session")
def sqlite_python(tmp_path_factory: pytest.TempPathFactory, wheels: Mapping[str, Path]) -> str:
    """The interpreter of a clean environment where only the sqlite backend was asked for."""
    python = make_environment(tmp_path_factory.mktemp("with-sqlite"))
    pip(python, "install", "--find-links", wheels["revstore"].parent, "revstore-sqlite")
    return python


@pytest.fixture(scope="session")
def all_python(tmp_path_factory: pytest.TempPathFactory, wheels: Mapping[str, Path]) -> str:
    """The interpreter of a clean environment with every distribution and the core's extras. Their
    requirements do not conflict."""
    python = make_environment(tmp_path_factory.mktemp("everything"))
    plugins = [path for name, path in wheels.items() if name != "revstore"]
    pip(python, "install", f"{wheels['revstore']}[cli,metrics,testing]", *plugins)
    pip(python, "check")
    return python


@pytest.fixture
def watch_without_threads(monkeypatch: pytest.MonkeyPatch) -> Callable[[Backend], None]:
    """Checks that a backend says so if its watches' threads cannot start, and goes on later."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("revstore"):
            raise RuntimeError("can't start new thread")
        start(thread)

    def check(backend: Backend) -> None:
        after = backend.status().revision
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            for _ in range(2):
                with pytest.raises(BackendError, match="cannot start"):
                    backend.watch("/", recursive=True, after_revision=after).poll(5)
        with backend.watch("/", recursive=True, after_revision=after) as watch:
            written = backend.put("/thread", b"", expected_revision=0).revision
            assert collect(watch, 1)[0].kv.revision == written

    return check


@pytest.fixture
def store_in_use() -> Iterator[MemoryBackend]:
    """A store with keys, compacted history and a writer beside the test, who leaves gaps between
    its revisions. Afterwards all these keys are there and no others."""
    backend = MemoryBackend()
    for number in range(50):
        last = backend.put(f"/in-use/{number}", b"x", expected_revision=0).revision
    backend.compact(last)
    stop = threading.Event()
    writer = threading.Thread(target=_write, args=(backend, last, stop))
    writer.start()
    yield backend
    stop.set()
    writer.join(10)
    if "closed" not in backend._shared.guard.ended:
        keys = {kv.key for kv in backend.list("", keys_only=True).kvs}
        assert keys == {f"/in-use/{number}" for number in range(50)}
    backend.close()


def _write(backend: Backend, revision: int, stop: threading.Event) -> None:
    while not stop.wait(0.001):
        try:
            result = backend.put("/in-use/49", b"y", expected_revision=revision)
        except Exception:  # noqa: BLE001 - the test has closed the backend
            return
        revision = result.revision


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca, server and client certificates, a server's for another host, another ca's;
    and servers' of an old ca, whose certificates have no extensions but names, and of an
    intermediate one."""
    folder = tmp_path_factory.mktemp("pki")
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    of_ca = (
        "basicConstraints=critical,CA:TRUE\n"
        "keyUsage=critical,digitalSignature,keyCertSign,cRLSign\n"
    )
    of_leaf = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
    identified = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    def certify(name: str, ca: str, extensions: str) -> None:
        """Sign ``name`` by ``ca``, which may be itself."""
        (folder / "extensions").write_text(extensions)
        subject, key = ("-subj", f"/CN={name}"), ("-keyout", f"{name}.key")
        openssl("req", *new_key, *key, "-out", f"{name}.csr", *subject)
        signer = ("-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial")
        openssl(
            *("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", "-days", "2"),
            *(("-signkey", f"{ca}.key") if ca == name else signer),
            *("-extfile", "extensions"),
        )

    here = "subjectAltName=IP:127.0.0.1,DNS:localhost\n"
    for ca in ("ca", "other"):
        certify(ca, ca, of_ca + identified)
    certify("old-ca", "old-ca", "basicConstraints=CA:TRUE\n")
    certify("intermediate", "ca", of_ca + identified)
    for name, ca, extensions in (
        ("server", "ca", of_leaf + identified + here),
        ("client", "ca", of_leaf + identified + here),
        ("elsewhere", "ca", of_leaf + identified + "subjectAltName=DNS:example.com\n"),
        ("old-server", "old-ca", here),
        ("below-server", "intermediate", of_leaf + identified + here),
    ):
        certify(name, ca, extensions)
    for key_file in folder.glob("*.key"):
        key_file.chmod(0o600)
    return folder


_CA = """
[ca]
default_ca = own
[own]
new_certs_dir = .
database = index
rand_serial = yes
default_md = sha256
policy = any
copy_extensions = copy
unique_subject = no
[any]
commonName = supplied
"""
_PAST = ("-startdate", "20200101000000Z", "-enddate", "20210101000000Z")
_FUTURE = ("-startdate", "20900101000000Z", "-enddate", "20910101000000Z")


@pytest.fixture(scope="session")
def odd_certificates(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificates of the tests' ca that are out of date, and a server's that
    signed itself."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "ca.cnf").write_text(_CA)
    (folder / "index").touch()

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    names = ("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost")
    for name, dates in (("past", _PAST), ("future", _FUTURE)):
        openssl(
            *("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr"),
            *("-subj", f"/CN={name}", *names),
        )
        openssl(
            *("ca", "-batch", "-notext", "-config", "ca.cnf", "-in", f"{name}.csr"),
            *("-out", f"{name}.pem", *dates),
            *("-cert", f"{certificates}/ca.pem", "-keyfile", f"{certificates}/ca.key"),
        )
    openssl(
        *("req", "-x509", *key, "-keyout", "self.key", "-out", "self.pem", "-days", "2"),
        *("-subj", "/CN=self", *names),
    )
    for each in folder.glob("*.key"):
        each.chmod(0o600)
    return folder


def build_distributions(source: Path, out: Path) -> None:
    """Build all from a copy of the tree in ``source``, into ``out``; what a build that failed left
    there goes."""
    for folder in (source, out):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    copy = source / "revstore"
    copy.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in ("setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("core", "plugins"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    for each in (copy, *sorted(path.parent for path in copy.glob("plugins/*/setup.cfg"))):
        run_python(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, each)


def make_environment(folder: Path) -> str:
    # Without pip, which takes seconds to install: that of the tests works on any environment.
    command = [sys.executable, "-m", "venv", "--without-pip", folder / "env"]
    subprocess.run(command, check=True, timeout=120)
    return str(folder / "env" / "bin" / "python")


def pip(python: str, command: str, *arguments: object) -> None:
    # Modules that no test imports need not be compiled.
    options = ["--no-compile"] if command == "install" else []
    run_python(
        *(sys.executable, "-m", "pip", "--python", python, "--quiet"),
        *("--disable-pip-version-check", command, *options, *arguments),
    )


def run_python(python: str, *arguments: object) -> None:
    done = subprocess.run(
        [python, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
