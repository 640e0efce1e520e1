"""Alarms: raised by clients, or by a store that has no space left."""

from __future__ import annotations

from typing import Any

from revstore_serve._errors import CORRUPT, NO_SPACE, Code, Refused
from revstore_serve._proto import message

__all__ = ["Alarms"]

_NONE, _NOSPACE, _CORRUPT = range(3)
_NAMES = {_NOSPACE: "NOSPACE", _CORRUPT: "CORRUPT"}
_GET, _ACTIVATE, _DEACTIVATE = range(3)


class Alarms:
    """The alarms of one member, until they are disarmed or the endpoint stops.

    While an alarm that a client raised is active, writes are refused as in etcd. An alarm that the
    store raised refuses nothing: the next write that succeeds disarms it.
    """

    def __init__(self, member: int) -> None:
        self._member = member
        self._raised: set[tuple[int, int]] = set()  # kind and member
        #: Whether the latest write failed for lack of space.
        self.no_space = False

    def answer(self, request: Any) -> Any:
        """Answer a request of a client, without the header.

        Raises:
            Refused: there is no such alarm to raise.
        """
        wanted = (request.alarm, request.memberID)
        found = self._active()
        if request.action == _GET:
            found = [each for each in found if request.alarm in (_NONE, each[0])]
        elif request.action == _ACTIVATE:
            if request.alarm not in _NAMES:
                # etcd ends itself when it gets such a request.
                raise Refused(Code.INVALID_ARGUMENT, "revstore: there is no alarm of this kind")
            self._raised.add(wanted)
            found = [wanted]
        else:
            found = [each for each in found if each == wanted]
            self._raised.discard(wanted)
            if wanted == (_NOSPACE, self._member):
                self.no_space = False
        response = message("AlarmResponse")()
        for kind, member in found:
            response.alarms.add(memberID=member, alarm=kind)
        return response

    def _active(self) -> list[tuple[int, int]]:
        own = {(_NOSPACE, self._member)} if self.no_space else set()
        return sorted(self._raised | own)

    def texts(self) -> list[str]:
        """Return the active alarms as etcd's status has them."""
        return [
            (f"memberID:{member} " if member else "") + f"alarm:{_NAMES[kind]} "
            for kind, member in self._active()
        ]

    def names(self) -> list[str]:
        """Return the kinds of the active alarms."""
        return [_NAMES[kind] for kind in sorted({kind for kind, _ in self._active()})]

    def check_write(self, *, grows: bool) -> None:
        """Check whether a write is allowed; ``grows``: it needs space.

        Raises:
            Refused: a client raised an alarm against it.
        """
        kinds = {kind for kind, _ in self._raised}
        if _CORRUPT in kinds:
            raise Refused(*CORRUPT)
        if grows and _NOSPACE in kinds:
            raise Refused(*NO_SPACE)
