"""What is encoded by hand reads as protobuf's own encoding does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from revstore.values import KeyValue
from revstore_serve._proto import message
from revstore_serve._wire import key_values

NUMBERS = st.sampled_from(
    [0, 1, 127, 128, 16383, 16384, (1 << 21) - 1, 1 << 21, 1 << 32, (1 << 63) - 1]
)
IDS = st.sampled_from([0, 1, 1 << 62, -1, -(1 << 63)])
TEXTS = st.sampled_from([b"", b"a", b"\xff\0", b"x" * 127, b"x" * 128, b"x" * 20000])


@given(st.lists(st.tuples(TEXTS, NUMBERS, NUMBERS, NUMBERS, IDS, TEXTS)))
def test_keys_and_values(rows):
    """Any numbers and bytes, and fields that are left out because they are zero or empty."""
    shown = [
        (key, KeyValue("", value, revision, created, version, lease))
        for key, revision, created, version, lease, value in rows
    ]
    expected = message("RangeResponse")(
        kvs=[
            {
                "key": key,
                "mod_revision": kv.revision,
                "create_revision": kv.create_revision,
                "version": kv.version,
                "lease": kv.lease,
                "value": kv.value,
            }
            for key, kv in shown
        ]
    )
    encoded = b"".join(key_values(b"\x12", shown))

    assert message("RangeResponse").FromString(encoded) == expected
    # Not a byte more than protobuf needs.
    assert len(encoded) == expected.ByteSize()

    bare = message("RangeResponse").FromString(b"".join(key_values(b"\x12", shown, keys_only=True)))
    for kv in expected.kvs:
        kv.value = b""
    assert bare == expected
