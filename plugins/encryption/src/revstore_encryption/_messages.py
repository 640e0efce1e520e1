"""The messages of KMS v2 and of its stored values.

This module declares them by name, number and type, in its own descriptor pool: other modules of the
process may have them in protobuf's default pool.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["message"]

# message: field number type; "map" is from string to bytes.
_MESSAGES = """
EncryptedObject: encryptedData 1 bytes, keyID 2 string, encryptedDEKSource 3 bytes,
    annotations 4 map, encryptedDEKSourceType 5 int32
StatusRequest:
StatusResponse: version 1 string, healthz 2 string, key_id 3 string
DecryptRequest: ciphertext 1 bytes, uid 2 string, key_id 3 string, annotations 4 map
DecryptResponse: plaintext 1 bytes
EncryptRequest: plaintext 1 bytes, uid 2 string
EncryptResponse: ciphertext 1 bytes, key_id 2 string, annotations 3 map
"""

_Field = descriptor_pb2.FieldDescriptorProto
_TYPES = {
    "bytes": _Field.TYPE_BYTES,
    "string": _Field.TYPE_STRING,
    "int32": _Field.TYPE_INT32,
    "map": _Field.TYPE_MESSAGE,
}


def _file() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="revstore/kms.proto", package="v2", syntax="proto3"
    )
    for line in _MESSAGES.replace(",\n", ",").strip().splitlines():
        name, _, fields = line.partition(":")
        described = file.message_type.add(name=name)
        for field in filter(None, fields.split(",")):
            field_name, number, kind = field.split()
            made = described.field.add(
                name=field_name, number=int(number), type=_TYPES[kind], label=_Field.LABEL_OPTIONAL
            )
            if kind == "map":
                made.label = _Field.LABEL_REPEATED
                entry = described.nested_type.add(name=f"{field_name.title()}Entry")
                entry.options.map_entry = True
                for place, (part, its) in enumerate((("key", "string"), ("value", "bytes")), 1):
                    entry.field.add(
                        name=part, number=place, type=_TYPES[its], label=_Field.LABEL_OPTIONAL
                    )
                made.type_name = f".v2.{name}.{entry.name}"
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.Add(_file())


def message(name: str) -> Any:
    """Return the class of a message, such as "StatusRequest"."""
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"v2.{name}"))
