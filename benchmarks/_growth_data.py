"""The objects of the growth benchmarks, and files of them that are made once.

How many objects share a namespace, a label or a field, and how many there are, are two things:
most groups here have 100 objects whatever the store holds, so that a list of one shows what the
rest of the store costs it.
"""

from __future__ import annotations

from pathlib import Path

import attrs

from benchmarks._measure import in_threads
from benchmarks._pods import RESOURCE, Pod, key_of, pod
from revstore import StorageConfig
from revstore.backend import Backend
from revstore.plugins import open_backend
from revstore.resource_type import ResourceType
from revstore.typed import TypedStorage

__all__ = ["DATA", "GROUP", "TYPE", "member", "open_store", "store_path"]

#: How many objects have a namespace, a node, or an owner in common.
GROUP = 100
TYPE = ResourceType(Pod, RESOURCE)
DATA = Path(__file__).parent / ".data"

# To be raised when the objects or the store's tables change: files of another version are made
# again.
_VERSION = 1
_THREADS = 32


def member(number: int, count: int) -> Pod:
    """Return one of ``count`` pods, a multiple of 1,000.

    Those of odd numbers share the namespace "shared"; the others have namespaces of 100. A node and
    the label "owner" have 100 pods each, spread over namespaces; of the label "app" each value has
    one in 101, and one pod of most small namespaces; of "team" each has one in 20, but only
    ten of the namespace "shared".
    """
    half, step = number // 2, count // 200
    labels = {"app": f"app-{number % 101}", "owner": f"owner-{number // GROUP}", "tier": "web"}
    if number % 2 == 0:
        namespace = f"ns-{half % step}"
        labels["team"] = f"team-{half % 10}"
    else:
        namespace = "shared"
        if half % step == 0:
            labels["team"] = f"team-{half // step % 10}"
    made = pod(number)
    metadata = attrs.evolve(made.metadata, namespace=namespace, labels=labels)
    # 7 has no divisor in common with a power of ten: each place is taken once.
    spec = attrs.evolve(made.spec, node_name=f"node-{number * 7 % count // GROUP}")
    return attrs.evolve(made, metadata=metadata, spec=spec)


def open_store(path: Path) -> Backend:
    """Open a sqlite store, as users do."""
    return open_backend(StorageConfig.from_url(f"sqlite:///{path}"))


def store_path(count: int) -> Path:
    """Return the file of a sqlite store of so many pods; make it if it is not there."""
    DATA.mkdir(exist_ok=True)
    path = DATA / f"pods-{count}-v{_VERSION}.db"
    if not path.exists():
        for old in DATA.glob(f"*pods-{count}-v*"):  # of another version, or not finished
            old.unlink()
        unfinished = path.with_name(f"unfinished-{path.name}")
        with open_store(unfinished) as backend:
            storage = TypedStorage(backend, TYPE)

            def create(index: int) -> None:
                for number in range(index, count, _THREADS):
                    obj = member(number, count)
                    storage.create(key_of(obj), obj)

            in_threads(_THREADS, create)
        # Closing has put everything into the file itself.
        unfinished.rename(path)
    return path
