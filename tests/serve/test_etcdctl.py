"""etcdctl prints the same of an endpoint as of a real etcd, and its locks and elections work."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.serve.conftest import STORES, Client, etcd_binary, open_store

from revstore.config import StorageConfig
from revstore.plugins import open_backend
from revstore.testing.etcd import EtcdServer
from revstore_serve import serve
from revstore_serve._proto import message

pytestmark = pytest.mark.slow

#: Commands; what follows "<" is the standard input, "|" a line's end. Commands of a group that only
#: read run together, all others one after the other. "3.5:" begins those that 3.4 does not have.
TABLE = r"""
put a 1
put a 2 --prev-kv
put a/b x
put a/c y
put b z
get a
get a -w json
get a -w fields
get a -w protobuf
get a -w table
get a -w nothing
get a --rev 2
get a --rev 2 -w json
get a --rev 99
get a --rev -1
get nothing
get nothing -w json
get nothing -w fields
get a --print-value-only
get a --print-value-only -w json
get a --keys-only --print-value-only
get a --hex
get a --hex -w json
get a --consistency s
get a --consistency l
get a --consistency x
get a --limit -1
get a/ --prefix
get a/ --prefix --keys-only
get a/ --prefix --keys-only -w json
get a/ --prefix --rev 4
get a/ --prefix --from-key
get a --prefix --limit 2 -w json
get a --prefix --limit 9 -w json
get a b
get a b -w fields
get b a -w json
get a a/c --limit 1 -w json
get a b c
get
get a/c --from-key
get a/c --from-key -w json
get a/c --from-key --limit 1 -w json
get a/c --from-key --sort-by KEY --order DESCEND
get  --from-key --keys-only
get  --prefix
get  --prefix --limit 1 -w json
get  --prefix --limit 2 --rev 3 -w json
get  --prefix --order DESCEND
get  --prefix --order ASCEND --limit 2
get  --prefix --sort-by KEY
get  --prefix --sort-by MODIFY --order DESCEND
get  --prefix --sort-by VERSION --order DESCEND --limit 2
get  --prefix --sort-by CREATE
get  --prefix --sort-by CREATE --order DESCEND --limit 1
get  --prefix --sort-by VALUE --order ASCEND
get  --prefix --sort-by VALUE --order DESCEND --keys-only
get  --prefix --sort-by nothing
get  --prefix --order nothing
3.5: get  --prefix --count-only
3.5: get  --prefix --count-only -w json
3.5: get  --prefix --count-only -w fields
3.5: get  --prefix --count-only --limit 1 -w json
3.5: get a/c --from-key --count-only --rev 3 -w json
3.5: get a --count-only --print-value-only
3.5: get a --count-only --keys-only
put
put a --ignore-value
get a -w json
put nothing --ignore-value
put a 3 --ignore-value
put a 3 --ignore-lease
put nothing 3 --ignore-lease
put a 3 --lease=zz
put a 4 --prev-kv -w json
put a 5 --prev-kv -w fields
put a 6 -w protobuf
put a 7 -w table
put input < from|standard|input
get input -w json
put -- -dash -dash
get -- -dash
put empty <|
get empty -w json
put é ☃ --hex
get é --hex
get é -w json
del a --prev-kv
del a
del a -w json
del
del é --prev-kv -w json
del empty --prev-kv -w fields
del input -w protobuf
del -- -dash
put c 1
txn < mod("c") > "0"||put d 1|get c||put e 1||
txn < value("c") = "2"||put d 2||get c|get d||
txn < create("nothing") = "0"|version("c") = "1"||del c|put f 1||get c||
txn < mod("nothing") < "1"|ver("f") != "2"||get f||del f||
txn < val("f") > "0"||get f -w json||get nothing||
txn < ||put g 1|put g 2||||
txn < ||put g 1|del g||||
txn < ||||put g 1||
txn < nonsense||||
txn < c("a") = "1"||||
txn < ||nonsense||||
txn < mod("c") = "x"||||
txn -i < mod("c") > "0"||get c||put c 1||
txn -w json < val("d") = "1"||get d --prefix||||
txn -w json < ||put h 1|del h --prev-kv --prefix|put h2 1|del f --prev-kv||||
txn -w json < ||put h "1 2"|del f --prev-kv|put i 1 --prev-kv|get --prefix ""||||
txn -w fields < ||get h|put j 1||||
txn -w protobuf < ||get h|put k 1|del k2||||
txn --hex < ||get h|put j 1||||
del a/ --prefix
del a/ --prefix --from-key
del a b --prefix
del b d --prev-kv
del i i
del f --from-key --prev-kv -w json
del  --prefix --prev-kv
del  --from-key
put x 1
compaction 4
compaction 4
compaction 99
compaction
compaction x
compaction 0
compaction 6 --physical
compaction 7 -w json
get a --rev 3
get a --rev 6
get a --rev 7
get  --prefix --rev 7 -w json
lease list
lease list -w json
lease grant
lease grant x
lease grant 60 --lease=7b
lease list
lease list -w json
lease list -w fields
lease list -w table
lease grant 60
put leased 1 --lease=7b
put leased/2 1 --lease=7b
put leased/2 2
put leased/3 1 --lease=7b
put leased/3 2 --ignore-lease
get leased -w json
get leased/ --prefix -w json
lease timetolive 7b --keys
lease timetolive 7b
lease timetolive 7b --keys -w json
lease timetolive 7b --keys -w fields
lease timetolive 9
lease timetolive 9 -w json
lease timetolive
lease keep-alive --once 7b
lease keep-alive --once 7b -w json
lease keep-alive --once 9
lease keep-alive 9
put a 1 --lease=9
lease revoke 7b
lease revoke 7b
lease revoke 7b -w json
lease revoke
get leased --prefix
lock name -- printenv ETCD_LOCK_KEY ETCD_LOCK_REV
lock name false
lock --ttl=-1 name true
elect
endpoint health
endpoint health --cluster
endpoint health -w json
endpoint health -w fields
endpoint status
endpoint status --cluster
endpoint status -w json
endpoint status -w fields
endpoint status -w table
endpoint hashkv
endpoint hashkv --rev 8 -w json
endpoint hashkv --rev 99
endpoint hashkv --rev 1
member list
member list -w json
member list -w fields
member list -w table
member remove x
alarm list
3.5: alarm list -w json
3.5: alarm list -w fields
alarm disarm
defrag
defrag --cluster
move-leader x
--user root:pw get a
--command-timeout=3s get a
--write-out=json get x
3.5: auth status
version
put a 1 --prev-kv -w table
put a/b 1 -w simple
get a -w simple
get a/ --prefix -w table
get a/ --prefix -w fields --hex
get a --prefix --print-value-only --limit 1
get a --user root --password x
del none --prev-kv -w table
del a/ --prefix --prev-kv -w simple
txn -w table < mod("a") > "0"||get a||||
txn < ||get a --rev 1||||
txn < ||get a --consistency s --limit 1||||
txn < ||put a 1 --lease 9||||
compaction -- -1
compaction 3 -w table
lease grant 0 --lease=7a
lease grant 9000000001
lease grant 60 --lease=7b -w json
lease grant 60 --lease=7b
lease grant 60 --lease=7c -w fields
lease grant 60 --lease=7d -w table
lease timetolive 7b -w table
lease keep-alive --once 7b -w fields
lease keep-alive --once 7b -w table
lease keep-alive --once 9 -w json
lease revoke 7b -w json
lease revoke 7c -w fields
lease revoke 7d -w table
endpoint health -w table
endpoint hashkv -w table
endpoint hashkv --rev -1
alarm list -w table
alarm disarm -w json
"""

#: So many run together; etcdctl gives up if it is not connected within two seconds.
_AT_ONCE = 4
#: What only reads.
_READS = (
    "get",
    "endpoint",
    "member",
    "alarm list",
    "lease timetolive",
    "lease list",
    "auth status",
    "defrag",
)


def commands(table: str, version: str) -> list[tuple[list[str], str]]:
    """The commands of a table for a version, each with its standard input."""
    found = []
    for line in table.strip("\n").split("\n"):
        newer, command = line.startswith("3.5: "), line.removeprefix("3.5: ")
        if newer and version == "3.4":
            continue
        words, _, text = command.partition(" <")
        found.append((words.split(" "), text.removeprefix(" ").replace("|", "\n")))
    return found


def groups(version: str) -> Iterator[list[tuple[list[str], str]]]:
    """The commands for a version in groups: those of one group may run at the same time."""
    group: list[tuple[list[str], str]] = []
    together = False
    for words, text in commands(TABLE, version):
        reads = " ".join(words).startswith(_READS)
        if group and not (reads and together and len(group) < _AT_ONCE):
            yield group
            group = []
        together = reads
        group.append((words, text))
    yield group


Etcdctl = Callable[..., subprocess.Popen[str]]


def etcdctl_of(version: str) -> Etcdctl:
    """Return what starts etcdctl of a version, at an address."""
    path = Path(etcd_binary(version)).with_name("etcdctl")
    if not path.exists():
        pytest.skip("no etcdctl: install etcd-client")

    def start(address: str, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [path, "--endpoints", address, *words],
            env={**os.environ, "ETCDCTL_API": "3"},
            text=True,
            errors="surrogateescape",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


@pytest.fixture(scope="module", params=["3.4", "3.5"])
def etcdctl(request) -> Etcdctl:
    return etcdctl_of(request.param)


@contextlib.contextmanager
def real(version: str) -> Iterator[EtcdServer]:
    times = ("--heartbeat-interval", "100", "--election-timeout", "1000")
    with EtcdServer(etcd_binary(version), arguments=times) as server:
        yield server.start()


def outputs(etcdctl: Etcdctl, version: str, address: str) -> Iterator[str]:
    """What each command prints, without what may differ: ids, times, sizes, the version."""
    for group in groups(version):
        with contextlib.ExitStack() as stack:
            started = [stack.enter_context(etcdctl(address, *words)) for words, _ in group]
            for (words, text), process in zip(group, started, strict=True):
                out, err = process.communicate(text, timeout=20)
                if "protobuf" in words:
                    out = parsed(out, words[0])
                told = "".join(line for line in err.splitlines(True) if line[:8] != '{"level"')
                found = f"{words} {text!r}: {process.returncode}\n{out}{told}"
                yield without_ids(found.replace(address, "ADDRESS"), words)


def parsed(out: str, command: str) -> str:
    """A binary answer as text."""
    name = {"get": "Range", "put": "Put", "del": "DeleteRange", "txn": "Txn"}[command]
    response = message(f"{name}Response").FromString(out.encode(errors="surrogateescape"))
    response.header.cluster_id = response.header.member_id = response.header.raft_term = 0
    return str(response)


def without_ids(found: str, words: list[str]) -> str:
    found = re.sub(r'"(cluster_id|member_id)":\d+', r'"\1":0', found)
    found = re.sub(r'"(ClusterID|MemberID)" : \d+', r'"\1" : 0', found)
    found = re.sub(r'"raft_term":\d+|"RaftTerm" : \d+', "TERM", found)
    found = re.sub(r"took = [^\s,]+|remaining\(\d+s\)", "TIME", found)
    found = re.sub(r'"took":"[^"]*"|"Took" : \S+|"ttl":5\d|"TTL" : 5\d', "TIME", found)
    found = re.sub(r"lease [0-9a-f]{16} granted", "lease ID granted", found)
    found = re.sub(r"name/[0-9a-f]{12,16}", "name/ID", found)
    if words[0] in ("endpoint", "member"):
        # What the members are called, their sizes, and how a table of these is drawn.
        found = re.sub(r",?\"(dbSize|dbSizeInUse)\":\d+", "", found)
        found = re.sub(r"https?://[^\s\",]*|ADDRESS|default|revstore", "NAME", found)
        found = re.sub(r"\b\d[0-9a-f.]*( k?B| MB)?|\b[0-9a-f]{10,16}\b", "0", found)
        found = re.sub(r"[-+| ]+", " ", found)
    return found


@functools.cache
def expected(version: str) -> list[str]:
    """What etcdctl prints of a real server of its version."""
    with real(version) as server:
        return list(outputs(etcdctl_of(version), version, server.address))


@pytest.mark.parametrize(
    ("version", "store"),
    [*((version, store) for version in ("3.4", "3.5") for store in STORES), ("3.4", "etcd3")],
)
def test_what_etcdctl_prints(version, store, tmp_path):
    """The store may be an etcd again."""
    with contextlib.ExitStack() as stack:
        if store == "etcd3":
            url = f"etcd3://{stack.enter_context(real(version)).address}"
            backend = stack.enter_context(open_backend(StorageConfig.from_url(url)))
        else:
            backend = stack.enter_context(open_store(store, tmp_path))
        endpoint = stack.enter_context(serve(backend))
        found = list(outputs(etcdctl_of(version), version, endpoint.address))

    pairs = zip(found, expected(version), strict=True)
    assert [(have, want) for have, want in pairs if have != want] == []


#: Watches of what ``write_history`` wrote. Each ends with the value "end".
WATCHES = r"""
watch w/a --rev 4
watch w/a --rev 4 --prev-kv
watch w/ --prefix --rev 4
watch w/ --prefix --rev 4 --prev-kv
watch w/ --prefix --rev 5 --prev-kv -w json
watch w/ --prefix --rev 5 -w fields
watch w/a w/c --rev 4
watch w/c --rev 4 --prev-kv --hex
watch  --prefix --rev 4
watch w/c --rev 5 -w json
watch --rev=5 w/c -- printenv ETCD_WATCH_KEY ETCD_WATCH_EVENT_TYPE ETCD_WATCH_VALUE
watch -i < watch w/c --rev 4 --prev-kv|
watch -i < watch w/ --prefix --rev 4|
watch -i < watch w/c --rev=4 -- printenv ETCD_WATCH_VALUE|
watch -i < nonsense|
watch -i < watch --rev|
watch w/a --rev 2
watch w/a --rev 3 -w json
watch
watch a --rev x
3.5: watch w/ --prefix --rev 4 --progress-notify
3.5: watch w/ --prefix --rev 2 --progress-notify -w json
"""


def write_history(address: str) -> None:
    client = Client(address)
    put = [{"request_put": {"key": b"w/%c" % key, "value": b"3"}} for key in b"ab"]
    client.call("KV/Put", key=b"w/a", value=b"1")
    client.call("KV/Put", key=b"w/b", value=b"\xff\n")
    client.call("KV/Put", key=b"w/a", value=b"2")
    client.call("KV/Put", key=b"w/c", value=b"two words")
    client.call("KV/Txn", success=put)
    client.call("KV/DeleteRange", key=b"w/a", range_end=b"w/c", prev_kv=True)
    client.call("KV/Put", key=b"w/a", value=b"")
    client.call("KV/Compact", revision=4)
    client.call("KV/Put", key=b"w/c", value=b"end")
    client.call("KV/Put", key=b"w/a", value=b"end")
    client.close()


# The last event: plain, in base64 and in hex.
_LAST = re.compile(r"\bend\b|ZW5k|\\x65\\x6e\\x64")


def watched(etcdctl: Etcdctl, version: str, address: str) -> Iterator[str]:
    """What each watch prints until the last event."""
    for words, text in commands(WATCHES, version):
        with etcdctl(address, *words) as process:
            process.stdin.write(text)
            process.stdin.flush()
            if text and "w/" not in text:
                process.stdin.close()  # this ends it
                process.stdin = None
            # A command that runs for each event prints it once more, in quotes.
            end = re.compile('"end"') if "printenv" in f"{words}{text}" else _LAST
            out = ""
            while not (last := end.search(out)) and (
                more := os.read(process.stdout.fileno(), 99999)
            ):
                out += more.decode(errors="surrogateescape")
            status: object = "watching"
            if last:
                out = out[: last.end()]
                process.kill()
            _, err = process.communicate(timeout=20)
            if not last:
                status = process.returncode
                out += "".join(line for line in err.splitlines(True) if line[:8] != '{"level"')
        yield without_ids(f"{words} {text!r}: {status}\n{out}", words)


@functools.cache
def expected_watches(version: str) -> list[str]:
    with real(version) as server:
        write_history(server.address)
        return list(watched(etcdctl_of(version), version, server.address))


@pytest.mark.parametrize("version", ["3.4", "3.5"])
@pytest.mark.parametrize("store", STORES)
def test_what_watches_print(version, store, tmp_path):
    with open_store(store, tmp_path) as backend, serve(backend) as endpoint:
        write_history(endpoint.address)
        found = list(watched(etcdctl_of(version), version, endpoint.address))

    pairs = zip(found, expected_watches(version), strict=True)
    assert [(have, want) for have, want in pairs if have != want] == []


@pytest.mark.parametrize("version", ["3.4", "3.5"])
def test_a_mirror(version, tmp_path, new_client):
    """What is there before and what comes later is copied, and deletions too."""
    with contextlib.ExitStack() as stack:
        backends = [stack.enter_context(open_store(store, tmp_path)) for store in STORES]
        source, other = (stack.enter_context(serve(backend)).address for backend in backends)
        client = new_client(source)
        for key in (b"w/a", b"x"):
            client.call("KV/Put", key=key, value=b"1")
        words = ("make-mirror", "--prefix", "w/", "--dest-prefix", "m/")
        process = stack.enter_context(etcdctl_of(version)(source, *words, other))

        def reaches(wanted: dict[str, bytes]) -> None:
            while {kv.key: kv.value for kv in backends[1].list("").kvs} != wanted:
                assert process.poll() is None
                assert time.monotonic() < deadline

        deadline = time.monotonic() + 30
        try:
            reaches({"m/a": b"1"})
            client.call("KV/Put", key=b"w/b", value=b"2")
            reaches({"m/a": b"1", "m/b": b"2"})
            client.call("KV/DeleteRange", key=b"w/a")
            reaches({"m/b": b"2"})
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("store", STORES)
def test_locks(store, tmp_path, etcdctl):
    """The second to lock waits for the first, and has the lock when that is gone; a lock survives
    a restart of the server while its holder lives."""
    with open_store(store, tmp_path) as backend:
        with serve(backend) as endpoint:
            address = endpoint.address
            first = etcdctl(address, "lock", "--ttl", "10", "name")
            held = first.stdout.readline()
            second = etcdctl(address, "lock", "name")
        with serve(backend, listen=address):
            assert backend.get(held.strip()).kv is not None
            assert second.poll() is None
            first.send_signal(signal.SIGTERM)
            assert second.stdout.readline().startswith("name/")
            for process in (first, second):
                process.kill()
                process.communicate()


@pytest.mark.parametrize("store", STORES)
def test_elections(store, tmp_path, etcdctl):
    """One leads at a time; when it resigns the next does, and an observer sees both."""
    with open_store(store, tmp_path) as backend, serve(backend) as endpoint:
        observer = etcdctl(endpoint.address, "elect", "--listen", "room")
        first = etcdctl(endpoint.address, "elect", "room", "one")
        assert [first.stdout.readline(), first.stdout.readline()][1] == "one\n"
        second = etcdctl(endpoint.address, "elect", "room", "two")
        assert [observer.stdout.readline(), observer.stdout.readline()][1] == "one\n"
        while len(backend.list("room/").kvs) < 2:
            assert second.poll() is None
        first.send_signal(signal.SIGTERM)
        assert [second.stdout.readline(), second.stdout.readline()][1] == "two\n"
        assert [observer.stdout.readline(), observer.stdout.readline()][1] == "two\n"
        for process in (observer, first, second):
            process.kill()
            process.communicate()
