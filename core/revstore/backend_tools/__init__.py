"""Parts that every backend needs besides its driver, so that no author has to write them.

======================== =========================================================================
``OpenGuard``            raises ``Closed`` after ``close``, and in a child after a fork
``SharedLog``            the latest events of a store, in memory, shared by all its watches
``key_matcher``          whether a watch of a key or of a prefix covers a key
``prefix_end``           where the range of keys with a prefix ends
``seconds``              an option that is a number of seconds within bounds
``whole_number``         an option that is a whole number within bounds
``let_out``              raises again what a signal's handler raised, where errors are caught
``ignoring``             ``contextlib.suppress``, except for what a signal's handler raised
``Log``                  a logger whose handlers may raise: no thread of yours ends by it
``server_addresses``     ``StorageConfig.server_list`` as hosts and ports
``tls_files``            the TLS files of a ``StorageConfig`` as PEM texts
``Overlay``              the body of a transaction over any store: checks and collects the writes
``Change``               one of its writes
``ObservedBackend``      for wrappers: another backend, with something around each request
======================== =========================================================================

The checks of arguments are in ``revstore.arguments``. Start threads with
``revstore.threads.start_thread``.

What an author has to do
------------------------
*Fork.* Create an ``OpenGuard(self)`` in the backend's ``__init__``. Call its ``check`` first in
every method of the backend and of its watches, before any lock is taken: a lock that another thread
held at the moment of the fork stays locked in the child for ever.

*Close.* ``with guard.closing() as first: if first: ...`` frees what is open. Before that it wakes
everything that waits: each wait is on a ``revstore.threads.Wake`` or ``Waiters`` that ``close``
wakes, and checks the guard again afterwards. ``close`` joins the backend's threads, but not the
thread that calls it, with a timeout that keeps the whole within two seconds.

*Deadlines.* A call computes its deadline once, ``time.monotonic() + timeout``, and passes it down;
each step may use what is left of it. No step starts a timeout of its own.

*Signals.* A handler may raise an ordinary exception, such as ``TimeoutError``, at any line of a
call in the main thread. Begin each ``except`` that translates, retries or ignores errors with
``let_out(error)``. ``threading.Condition`` and ``Event`` are written in Python and may keep their
lock then: wait on ``revstore.threads.Waiters`` instead. In ``poll``, move the position and return
the batch in one line without a call: popping it from a list loses it if the call that pops is
interrupted.

*Watches.* Write a hub that follows the store in the way the store allows, and put the events into a
``SharedLog``. A watch is a cursor in that log: it costs the writers nothing until it waits, and a
slow reader delays nobody.
"""

from __future__ import annotations

from revstore.backend_tools._keys import key_matcher, prefix_end
from revstore.backend_tools._observed import ObservedBackend
from revstore.backend_tools._option_checks import seconds, whole_number
from revstore.backend_tools._overlay import Change, Overlay
from revstore.backend_tools._servers import ServerAddress, TlsFiles, server_addresses, tls_files
from revstore.forks import OpenGuard
from revstore.onlookers import Log
from revstore.raising import ignoring, let_out
from revstore.shared_log import SharedLog

__all__ = [
    "Change",
    "Log",
    "ObservedBackend",
    "OpenGuard",
    "Overlay",
    "ServerAddress",
    "SharedLog",
    "TlsFiles",
    "ignoring",
    "key_matcher",
    "let_out",
    "prefix_end",
    "seconds",
    "server_addresses",
    "tls_files",
    "whole_number",
]
