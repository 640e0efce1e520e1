"""The backend itself: it sends requests to the keys API and interprets the answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from urllib.parse import urlencode

import msgspec

from revstore.arguments import (
    check_compact,
    check_delete,
    check_get,
    check_list,
    check_put,
    check_timeout,
    check_watch,
)
from revstore.backend import Backend, BackendWatch
from revstore.backend_tools import OpenGuard, let_out
from revstore.config import StorageConfig
from revstore.errors import (
    CorruptStore,
    IncompatibleStore,
    OutcomeUnknown,
    Timeout,
    Unsupported,
    ValueTooLarge,
)
from revstore.values import (
    BackendStatus,
    Capability,
    CountResult,
    DeleteResult,
    GetResult,
    KeyValue,
    ListResult,
    PutResult,
)
from revstore_etcd2 import _errors
from revstore_etcd2._client import KEY_LIMIT, Client, Reply
from revstore_etcd2._errors import MaybeSent, refusal
from revstore_etcd2._hub import Hub
from revstore_etcd2._names import key_of, path_of, prefix_folder, url_of
from revstore_etcd2._options import CAPABILITIES, Etcd2Options
from revstore_etcd2._results import (
    ABSENT,
    check_list_of,
    check_revision,
    key_value,
    no_folder,
    node_of,
    nonsense,
)
from revstore_etcd2._watch import Etcd2Watch
from revstore_etcd2._wire import (
    Answer,
    Node,
    decode_answer,
    encode_value,
    folders,
    kv_of,
    leaves,
)

__all__ = ["Etcd2Backend"]

#: The server reads no larger request.
_MAX_BODY = 10 << 20
#: A path that no key has: reading it costs nothing, and returns the store's index.
_PROBE = "/%-/%-"
_LOST = (*ABSENT, _errors.COMPARE_FAILED, _errors.NOT_A_FILE)
_MAX_FOREIGN = 10_000
#: Seconds that the hub waits for the store's index.
_INDEX_TIMEOUT = 5.0


class Etcd2Backend(Backend):
    """A store on the v2 keys API; see the package's README for what it guarantees."""

    def __init__(self, config: StorageConfig, options: Etcd2Options) -> None:
        """Prepare the backend; nothing is sent before the first call."""
        self._guard = OpenGuard(self)
        self._client = Client(config, options)
        self._hub = Hub(self._client, self._check_cluster, lambda: self._index(_INDEX_TIMEOUT))
        self._cluster = ""  # set once, by whichever answer comes first
        self._server = ""
        self._foreign: set[str] = set()
        #: The highest index of a linearizable answer: a hint, to be read before a request is sent.
        self._seen = 0

    @property
    def capabilities(self) -> frozenset[Capability]:
        return CAPABILITIES

    def status(self, *, timeout: float | None = None) -> BackendStatus:
        index = self._index(timeout)
        if not self._server:
            try:
                version = msgspec.json.decode(self._client.version(), type=dict[str, str])
            except (msgspec.DecodeError, RecursionError):
                version = {}
            self._server = f"etcd {version.get('etcdserver', '')[:40]}".rstrip() + " (API v2)"
        return BackendStatus(
            store_id=self._cluster,
            revision=index,
            compacted_revision=0,
            server=self._server,
            foreign_keys=len(self._foreign),
        )

    def get(
        self,
        key: str,
        *,
        revision: int = 0,
        linearizable: bool = True,
        timeout: float | None = None,
    ) -> GetResult:
        check_get(key, revision)
        index, node = self._read(key, linearizable, self._deadline(timeout))
        check_revision(revision, index)
        return GetResult(index, None if node is None or node.dir else kv_of(node, key))

    def list(
        self,
        prefix: str,
        *,
        start: str = "",
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        remaining: bool = False,
        linearizable: bool = True,
        timeout: float | None = None,
    ) -> ListResult:
        """Read keys as in the contract, but ignore ``limit``: v2 cannot page."""
        check_list(prefix, revision, start=start, limit=limit)
        index, found = self._find(prefix, linearizable, timeout)
        check_revision(revision, index)
        kvs = [kv_of(node, key, keys_only=keys_only) for key, node in found if key >= start]
        return ListResult(index, tuple(kvs), False, 0 if remaining else None)

    def count(self, prefix: str, *, revision: int = 0, timeout: float | None = None) -> CountResult:
        check_list(prefix, revision)
        index, found = self._find(prefix, True, timeout)
        check_revision(revision, index)
        return CountResult(index, len(found))

    def put(
        self,
        key: str,
        value: bytes,
        *,
        expected_revision: int,
        ttl: int | None = 0,
        timeout: float | None = None,
    ) -> PutResult:
        """Write a key as in the contract."""
        check_put(key, value, expected_revision, ttl)
        deadline = self._deadline(timeout)
        text = encode_value(value)
        condition = f"prevIndex={expected_revision}" if expected_revision else "prevExist=false"
        url = f"{url_of(path_of(key))}?{condition}"
        while True:
            fields: dict[str, object] = {"value": text}
            if ttl:
                fields["ttl"] = ttl
            elif ttl is None and expected_revision:
                index, node = self._read(key, True, deadline)
                if node is None or node.dir or node.modified_index != expected_revision:
                    return PutResult(False, index, key_value(node, key))
                if node.expiration:
                    fields["ttl"] = max(1, node.ttl)
            answer = self._write(
                "PUT",
                url,
                key,
                expected=expected_revision,
                deadline=deadline,
                body=_form(fields, key),
            )
            if answer.node is not None:
                if answer.node.value != text:
                    why = "the server answers with another value"
                    raise OutcomeUnknown(key, expected_revision, why)
                return PutResult(True, answer.node.modified_index)
            lost = self._loser(answer, key, expected_revision, deadline)
            if lost is not None:
                return PutResult(False, *lost)

    def delete(
        self, key: str, *, expected_revision: int, timeout: float | None = None
    ) -> DeleteResult:
        check_delete(key, expected_revision)
        deadline = self._deadline(timeout)
        url = f"{url_of(path_of(key))}?prevIndex={expected_revision}"
        while True:
            answer = self._write("DELETE", url, key, expected=expected_revision, deadline=deadline)
            if answer.node is not None:
                before = answer.prev_node
                if before is None or before.modified_index != expected_revision:
                    why = "the server's answer does not show which node was deleted"
                    raise OutcomeUnknown(key, expected_revision, why)
                return DeleteResult(True, answer.node.modified_index, key_value(before, key))
            lost = self._loser(answer, key, expected_revision, deadline)
            if lost is not None:
                return DeleteResult(False, *lost)

    def watch(
        self, key: str, *, recursive: bool, after_revision: int, progress: bool = True
    ) -> BackendWatch:
        check_watch(key, recursive=recursive, after_revision=after_revision)
        self._guard.check()
        return Etcd2Watch(
            self._hub,
            key,
            recursive=recursive,
            after_revision=after_revision,
            progress=progress,
            guard=self._guard,
        )

    def compact(self, revision: int, *, timeout: float | None = None) -> None:
        check_compact(revision)
        self._deadline(timeout)
        raise Unsupported(
            Capability.COMPACTION, "etcd v2 compacts by itself: it keeps 1,000 changes"
        )

    def remaining_ttl(self, key: str, *, timeout: float | None = None) -> float | None:
        """Read it as in the contract; v2 counts whole seconds, rounded up."""
        check_get(key, 0)
        _, node = self._read(key, True, self._deadline(timeout))
        if node is None or node.dir or not node.expiration:
            return None
        return float(max(0, node.ttl))

    def close(self) -> None:
        with self._guard.closing():
            if not self._guard.inherited:
                # Each step may be repeated: the next close finishes an interrupted one.
                self._client.close()
                self._hub.close(1.5)

    # Requests

    def _deadline(self, timeout: float | None) -> float:
        self._guard.check()
        return time.monotonic() + check_timeout(timeout, self._client.options.timeout)

    def _check_cluster(self, cluster: str) -> None:
        known = self._cluster  # once: others may set it meanwhile
        if not known:
            self._cluster = cluster
        elif cluster not in ("", known):
            raise IncompatibleStore(
                f"the servers belong to cluster {cluster}, but to {known} before"
            )

    def _ask(self, url: str, linearizable: bool, deadline: float, limit: int = KEY_LIMIT) -> Reply:
        before = self._seen if linearizable else 0
        sign = "&" if "?" in url else "?"
        reply = self._client.call(
            "GET",
            f"{url}{sign}quorum={'true' if linearizable else 'false'}",
            timeout=deadline - time.monotonic(),
            limit=limit,
        )
        self._check_cluster(reply.cluster)
        if 0 < reply.index < before:
            raise IncompatibleStore(
                f"the store's index went back from {before} to {reply.index}: it was restored from "
                "an older backup or replaced"
            )
        if linearizable:
            self._seen = max(self._seen, reply.index)
        return reply

    def _index(self, timeout: float | None) -> int:
        """Return the store's index; the answer is linearizable."""
        return self._read_path(_PROBE, True, self._deadline(timeout))[0]

    def _read(self, key: str, linearizable: bool, deadline: float) -> tuple[int, Node | None]:
        return self._read_path(path_of(key), linearizable, deadline)

    def _read_path(self, path: str, linearizable: bool, deadline: float) -> tuple[int, Node | None]:
        reply = self._ask(url_of(path), linearizable, deadline)
        return reply.index, node_of(decode_answer(reply.body), path, reply.index)

    def _find(
        self, prefix: str, linearizable: bool, timeout: float | None
    ) -> tuple[int, Sequence[tuple[str, Node]]]:
        """Return the store's index and the keys that start with ``prefix``, in order."""
        folder = prefix_folder(prefix)
        reply = self._ask(
            f"{url_of(folder)}?recursive=true",
            linearizable,
            self._deadline(timeout),
            self._client.options.list_limit,
        )
        node = node_of(decode_answer(reply.body), folder, reply.index)
        if node is not None and folder == "/" and not node.dir:
            raise CorruptStore("the server sent no folder for the store as a whole")
        found = []
        for leaf in leaves(node) if node is not None else ():
            key = key_of(leaf.key)
            if key is None:
                if len(self._foreign) < _MAX_FOREIGN:
                    self._foreign.add(leaf.key)
            elif key.startswith(prefix):
                found.append((key, leaf))
        found.sort(key=lambda pair: pair[0])
        check_list_of(found, reply.index)
        return reply.index, found

    def _write(
        self,
        method: str,
        url: str,
        key: str,
        *,
        expected: int,
        deadline: float,
        body: str | None = None,
    ) -> Answer:
        left = deadline - time.monotonic()
        try:
            reply = self._client.call(method, url, body=body, timeout=left, idempotent=False)
            answer = decode_answer(reply.body)
        except MaybeSent as error:
            raise OutcomeUnknown(key, expected, str(error)) from error.__cause__
        except CorruptStore as error:
            let_out(error)
            raise OutcomeUnknown(key, expected, str(error)) from error
        self._check_written(answer, reply, key, expected)
        return answer

    def _check_written(self, answer: Answer, reply: Reply, key: str, expected: int) -> None:
        """Check that the answer says whether a write to ``key`` happened.

        Raises:
            OutcomeUnknown: it does not.
        """
        why = nonsense(answer, path_of(key), expected)
        if not why:
            try:
                self._check_cluster(reply.cluster)
            except IncompatibleStore as error:
                let_out(error)
                if answer.node is None:
                    raise
                why = str(error)  # written, but into another store
        if why:
            raise OutcomeUnknown(key, expected, why)

    def _loser(
        self, answer: Answer, key: str, expected: int, deadline: float
    ) -> tuple[int, KeyValue | None] | None:
        """Return what conflicts with a write that the server refused: the store's index and the
        key; None if nothing conflicts any more."""
        code = answer.error_code
        if not expected and code == _errors.NOT_A_DIRECTORY:
            raise no_folder(key, f"{answer.cause!r} is a key, and etcd v2 has no keys below a key")
        if code not in (_errors.EXISTS, *_LOST):
            raise refusal(answer)
        index, node = self._read(key, True, deadline)
        if node is not None and node.dir:
            if expected:
                return index, None
            self._remove_folder(key, deadline)
            return None
        found = key_value(node, key)
        if (found.revision if found else 0) == expected:
            if time.monotonic() > deadline:
                raise Timeout(f"other writers kept changing {key!r}")
            return None
        return index, found

    def _remove_folder(self, key: str, deadline: float) -> None:
        """Remove a folder that has no keys any more, since v2 itself never does."""
        url = f"{url_of(path_of(key))}?dir=true"
        answer = self._write("DELETE", url, key, expected=0, deadline=deadline)
        if answer.error_code == _errors.DIRECTORY_NOT_EMPTY:
            self._remove_folders_below(key, deadline)
            answer = self._write("DELETE", url, key, expected=0, deadline=deadline)
        if answer.error_code == _errors.DIRECTORY_NOT_EMPTY:
            raise no_folder(key, "there are keys below it, and etcd v2 has no key at a folder")
        if answer.node is None and answer.error_code not in _LOST:
            raise refusal(answer)

    def _remove_folders_below(self, key: str, deadline: float) -> None:
        """Remove the folders below the key's place, unless there are keys in them."""
        path, limit = path_of(key), self._client.options.list_limit
        reply = self._ask(f"{url_of(path)}?recursive=true", True, deadline, limit)
        node = node_of(decode_answer(reply.body), path, reply.index)
        if node is None or any(leaves(node)):
            return
        for each in reversed(folders(node)[1:]):
            left = deadline - time.monotonic()
            self._client.call("DELETE", f"{url_of(each.key)}?dir=true", timeout=left)


def _form(fields: dict[str, object], key: str) -> str:
    """Return the body of a write.

    Raises:
        ValueTooLarge: the value is too large.
    """
    body = urlencode(fields)
    if len(body) > _MAX_BODY:
        raise ValueTooLarge(f"the value is over the server's limit of {_MAX_BODY} bytes", key=key)
    return body
