"""The member behind an endpoint: the header of every answer, and calls about members, alarms and
status."""

from __future__ import annotations

import hashlib
import zlib
from typing import Any

from revstore.backend import Backend
from revstore.values import Capability
from revstore_serve._alarms import Alarms
from revstore_serve._errors import COMPACTED, FUTURE_REVISION, Code, Refused
from revstore_serve._keys import EVERYTHING
from revstore_serve._proto import message
from revstore_serve._ranges import find
from revstore_serve._views import AtRevision

__all__ = ["Cluster", "lacking", "unserved"]

_RAFT_TERM = 2

_REASONS = {
    "Cluster": "this endpoint is one member, and its store decides how it is replicated",
    "Auth": "users and their rights are in a file of this endpoint",
    "Maintenance/Snapshot": "the store is no etcd database; use revstore backup",
    "Maintenance/MoveLeader": "this endpoint is the only member",
    "Maintenance/Downgrade": "the version is an option of the endpoint",
}


def unserved(service: str, method: str) -> Refused:
    """Return the error of a method that is not served."""
    reason = _REASONS.get(f"{service}/{method}") or _REASONS[service]
    return Refused(Code.UNIMPLEMENTED, f"revstore: {method} is not supported: {reason}")


class Cluster:
    """The one member of the cluster that an endpoint plays."""

    def __init__(self, backend: Backend, *, name: str, version: str, url: str) -> None:
        self._backend = backend
        self._name = name
        #: The version of etcd that clients see.
        self.version = version
        store_id = backend.status().store_id
        self.cluster_id = _number(store_id)
        self.member_id = _number(f"{store_id}/{name}")
        #: Where clients reach it; known once it listens.
        self.url = url
        self.alarms = Alarms(self.member_id)

    def fill(self, response: Any, revision: int = 0) -> Any:
        """Fill in an answer's header, and return the answer. Revision 0 keeps the revision that is
        in it."""
        header = response.header
        header.cluster_id = self.cluster_id
        header.member_id = self.member_id
        header.raft_term = _RAFT_TERM
        if revision:
            header.revision = revision
        return response

    def now(self, response: Any) -> Any:
        """Fill in an answer's header with the store's revision, and return the answer."""
        return self.fill(response, self._backend.status().revision)

    def member_list(self, _: Any) -> Any:
        response = message("MemberListResponse")()
        response.members.add(
            ID=self.member_id, name=self._name, peerURLs=[self.url], clientURLs=[self.url]
        )
        # As etcd's, it has no revision.
        return self.fill(response)

    def status(self, _: Any) -> Any:
        status = self._backend.status()
        size = self._backend.size() or 0
        response = message("StatusResponse")(
            version=self.version,
            dbSize=size,
            dbSizeInUse=size,
            leader=self.member_id,
            raftIndex=status.revision,
            raftAppliedIndex=status.revision,
            raftTerm=_RAFT_TERM,
        )
        response.errors.extend(self.alarms.texts())
        return self.fill(response, status.revision)

    def alarm(self, request: Any) -> Any:
        return self.now(self.alarms.answer(request))

    def defragment(self, _: Any) -> Any:
        return message("DefragmentResponse")()

    def hash(self, _: Any) -> Any:
        view = AtRevision(self._backend, 0)
        return self.fill(message("HashResponse")(hash=_checksum(view)), view.revision)

    def hash_kv(self, request: Any) -> Any:
        status = self._backend.status()
        wanted = max(request.revision, 0)
        if wanted > status.revision:
            raise Refused(*FUTURE_REVISION)
        if 0 < wanted < status.compacted_revision:
            raise Refused(*COMPACTED)
        view = AtRevision(self._backend, wanted or status.revision)
        response = message("HashKVResponse")(
            hash=_checksum(view), compact_revision=status.compacted_revision
        )
        return self.fill(response, status.revision)


def lacking(backend: Backend) -> list[Capability]:
    """Return the abilities that a Kubernetes apiserver needs and a backend lacks."""
    needed = (
        Capability.HISTORICAL_READS,
        Capability.TRANSACTIONS,
        Capability.LEASES,
        Capability.COMPACTION,
        Capability.PROGRESS,
        Capability.VERSIONS,
        Capability.NESTED_KEYS,
    )
    return [each for each in needed if each not in backend.capabilities]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def _checksum(view: AtRevision) -> int:
    checksum = 0
    for key, kv in find(view, EVERYTHING)[0]:
        checksum = zlib.crc32(b"%d %d " % (len(key), kv.revision) + key + kv.value, checksum)
    return checksum
