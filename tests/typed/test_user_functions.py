"""Whatever functions of users raise or return, raw and cached: nothing of ours dies, hangs or is
half done, and what comes out is an error of the library, or what was raised if it ends programs."""

from __future__ import annotations

import contextlib
import signal

import pytest

from revstore.cacher import Cacher, CacherConfig
from revstore.copier import DeepCopier
from revstore.errors import OutcomeUnknown, StorageError, Timeout
from revstore.memory import MemoryBackend
from revstore.resource_type import ResourceType
from revstore.storage import WithTTL
from revstore.testing._support import PATIENCE, run_threads
from revstore.transform import IdentityTransformer
from revstore.typed import TypedStorage
from revstore.versioner import APIObjectVersioner

PODS = ResourceType(dict, "/pods")
FATAL = (KeyboardInterrupt, SystemExit)


class Switch:
    """While it is on, the function called ``bad`` does ``how`` in the place of what it should."""

    def __init__(self, bad, how):
        self.bad, self.how, self.on = bad, how, False

    def around(self, name, function):
        def call(*args):
            return self.how() if self.on and name == self.bad else function(*args)

        return call


class Bent:
    """Has the methods of ``inner``, each under the switch."""

    def __init__(self, inner, switch):
        self._inner, self._switch = inner, switch

    def __getattr__(self, name):
        found = getattr(self._inner, name)
        return self._switch.around(name, found) if callable(found) else found


class Mute(Exception):
    """Of the user, too; its text cannot be had."""

    def __str__(self):
        raise RuntimeError


def raises(kind):
    def how():
        raise kind("of the user")

    return pytest.param(how, id=kind.__name__)


def gives(value):
    return pytest.param(lambda: value, id=f"gives {value!r}")


RAISED = [raises(kind) for kind in (ValueError, Mute, *FATAL, Timeout)]
GIVEN = [gives(value) for value in (None, 42, "x", b"x", (b"x",), (None, None))]
FUNCTIONS = [
    "encode",
    "decode",
    "transform_to_storage",
    "transform_from_storage",
    "object_resource_version",
    "update_object",
    "stamp",
    "prepare_object_for_storage",
    "copy",
    "new_object",
    "labels",
    "fields",
]
# The bytes and objects that these give are what is stored and seen: nobody knows them for wrong.
TRUSTED = {"encode", "decode", "transform_to_storage", "stamp"}


def pod(name):
    return {"metadata": {"name": name, "labels": {"a": "b"}}}


@contextlib.contextmanager
def opened(switch, cached):
    kind = ResourceType(
        dict,
        "/pods",
        codec=Bent(PODS.codec, switch),
        versioner=Bent(APIObjectVersioner(), switch),
        copier=Bent(DeepCopier(), switch),
        new_object=switch.around("new_object", PODS.new_object),
        labels=switch.around("labels", PODS.labels),
        fields=switch.around("fields", PODS.fields),
    )
    transformer = Bent(IdentityTransformer(), switch)
    with (
        MemoryBackend() as backend,
        TypedStorage(backend, kind, transformer=transformer) as storage,
    ):
        if not cached:
            yield backend, storage
            return
        with Cacher(CacherConfig(storage=storage, resource_type=kind)) as cache:
            cache.wait_ready()
            yield backend, cache


def calls_of(storage, version, watch):
    def first(**options):
        with storage.watch("/pods", **options) as other:
            other.poll(0.1)

    return [
        lambda: storage.create("/pods/new", pod("new")),
        lambda: storage.get("/pods/a"),
        lambda: storage.get("/pods/a", resource_version="0"),
        lambda: storage.list("/pods"),
        lambda: storage.list("/pods", label_selector="a=b"),
        lambda: storage.list("/pods", field_selector="metadata.name=a"),
        lambda: storage.list("/pods", limit=1),
        lambda: storage.count("/pods"),
        lambda: storage.guaranteed_update("/pods/a", lambda *_: pod("a") | {"x": 1}),
        lambda: storage.delete("/pods/b"),
        lambda: first(send_initial_events=True, allow_bookmarks=True),
        lambda: first(label_selector="a=b", resource_version=version),
        lambda: watch.poll(0.1),
    ]


def outcome(call):
    """What it raised, in a thread of its own, so that what hangs is seen."""
    raised = []

    def work(_):
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - looked at below
            raised.append(error)

    run_threads(1, work, patience=PATIENCE)
    return raised[0] if raised else None


def names(objects):
    return sorted(each["metadata"]["name"] for each in objects)


@pytest.mark.parametrize("cached", [False, True], ids=["raw", "cached"])
@pytest.mark.parametrize("how", [*RAISED, *GIVEN])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_function_that_fails(function, how, cached):
    """Errors are the library's; when the function works again, so does all the rest."""
    switch = Switch(function, how)
    with opened(switch, cached) as (backend, storage):
        for name in "abc":
            version = storage.create(f"/pods/{name}", pod(name))["metadata"]["resourceVersion"]
        watch = storage.watch("/pods", resource_version=version)
        backend.put("/registry/pods/z", PODS.codec.encode(pod("z")), expected_revision=0)
        switch.on = True
        for call in calls_of(storage, version, watch):
            error = outcome(call)
            assert error is None or isinstance(error, (StorageError, *FATAL)), repr(error)
        switch.on = False
        if function in TRUSTED and any(how is each.values[0] for each in GIVEN):
            return
        last = storage.create("/pods/last", pod("last"))["metadata"]["resourceVersion"]
        storage.get("/pods/last", resource_version=last, timeout=PATIENCE)
        stored = [kv.key.rpartition("/")[2] for kv in backend.list("/registry/pods/").kvs]
        assert names(storage.list("/pods").items) == stored


@pytest.mark.parametrize("cached", [False, True], ids=["raw", "cached"])
@pytest.mark.parametrize("how", [*RAISED, *GIVEN, gives(WithTTL(pod("a"), "1"))])
def test_an_update_function_that_fails(how, cached):
    """What it raises comes out as it is; what is no object is refused; nothing is
    written."""
    with opened(Switch("", None), cached) as (backend, storage):
        made = storage.create("/pods/a", pod("a"))
        before = backend.status().revision
        error = outcome(lambda: storage.guaranteed_update("/pods/a", lambda *_: how()))
        if how in [each.values[0] for each in RAISED]:
            assert "of the user" in error.args[0]
        else:
            assert isinstance(error, StorageError), repr(error)
        assert backend.status().revision == before
        assert storage.get("/pods/a") == made


@pytest.mark.parametrize("cached", [False, True], ids=["raw", "cached"])
@pytest.mark.parametrize("how", RAISED)
def test_a_validation_that_fails(how, cached):
    """What it raises comes out as it is, and nothing is deleted."""
    with opened(Switch("", None), cached) as (_, storage):
        made = storage.create("/pods/a", pod("a"))
        error = outcome(lambda: storage.delete("/pods/a", validate=lambda _: how()))
        assert "of the user" in error.args[0]
        assert storage.get("/pods/a") == made


WRITES = {
    "create": lambda storage: storage.create("/pods/new", pod("new")),
    "guaranteed_update": lambda storage: storage.guaranteed_update(
        "/pods/a", lambda *_: pod("a") | {"x": 1}
    ),
    "delete": lambda storage: storage.delete("/pods/a"),
}


class Noting(MemoryBackend):
    """Notes that something was written."""

    def put(self, *args, **options):
        result = super().put(*args, **options)
        self.written = True
        return result

    def delete(self, *args, **options):
        result = super().delete(*args, **options)
        self.written = True
        return result


class FailingVersioner(APIObjectVersioner):
    """Raises ``error`` once ``backend`` has written."""

    def __init__(self, backend, error):
        self._backend, self._error = backend, error

    def stamp(self, obj, revision):
        self._check()
        return super().stamp(obj, revision)

    def update_object(self, obj, revision):
        self._check()
        return super().update_object(obj, revision)

    def _check(self):
        if self._backend.written:
            raise self._error


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("kind", [ValueError, Timeout, MemoryError])
def test_a_write_that_landed_is_not_reported_as_failed(write, kind):
    """A versioner that fails once the object is stored or deleted leaves the outcome open: other
    errors say that nothing was changed."""
    with Noting() as backend:
        bad = FailingVersioner(backend, kind("of the user"))
        backend.put("/registry/pods/a", PODS.codec.encode(pod("a")), expected_revision=0)
        backend.written = False
        with (
            TypedStorage(backend, ResourceType(dict, "/pods", versioner=bad)) as storage,
            pytest.raises(OutcomeUnknown, match=r"it did, at revision 3, .*of the user"),
        ):
            WRITES[write](storage)
        assert backend.status().revision == 3


class FromHandler(TimeoutError):
    """What the handler of a signal raises."""


def interrupted(*_):
    """Receive a signal whose handler raises an ``Exception``."""

    def handler(_number, _frame):
        raise FromHandler

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("function", [each for each in FUNCTIONS if each != "copy"])
def test_what_a_signal_handler_raises_comes_out(function):
    """From within a user's function too, where it is not taken for an error of that function."""
    switch = Switch(function, interrupted)
    with opened(switch, False) as (_, storage):
        for name in "abc":
            version = storage.create(f"/pods/{name}", pod(name))["metadata"]["resourceVersion"]
        raised = 0
        with storage.watch("/pods", resource_version=str(int(version) - 1)) as watch:
            switch.on = True
            for call in calls_of(storage, version, watch):
                with contextlib.suppress(FromHandler):
                    call()
                    continue
                raised += 1
        assert raised


@pytest.mark.parametrize(
    "call",
    [
        lambda s, function, old: s.guaranteed_update("/pods/a", function, suggestion=old),
        lambda s, function, old: s.delete("/pods/a", validate=function, suggestion=old),
    ],
    ids=["update", "validate"],
)
def test_what_a_signal_handler_raises_ends_a_loop(call):
    """An update function or a validation is not called again with fresher data."""
    with opened(Switch("", None), False) as (_, storage):
        old = storage.create("/pods/a", pod("a"))
        storage.guaranteed_update("/pods/a", lambda *_: pod("a") | {"x": 1})
        with pytest.raises(FromHandler):
            call(storage, once(interrupted), old)


def once(function):
    """``function`` the first time, then nothing."""
    left = [function]
    return lambda *args: left.pop()(*args) if left else pod("a")
