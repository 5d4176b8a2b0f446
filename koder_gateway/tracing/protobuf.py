"""Protocol Buffers in their binary form (protobuf.dev, "Encoding"), as far as spans need it: fields of bytes that are
put together in one go. Messages as objects cost several times as much, on a processor that requests may want."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor

# The wire types of the kinds of fields that spans have.
_VARINT, _FIXED64, _SIZED, _FIXED32 = 0, 1, 2, 5
_WIRE_TYPES: Final = {
    FieldDescriptor.TYPE_ENUM: _VARINT,
    FieldDescriptor.TYPE_INT64: _VARINT,
    FieldDescriptor.TYPE_FIXED64: _FIXED64,
    FieldDescriptor.TYPE_STRING: _SIZED,
    FieldDescriptor.TYPE_BYTES: _SIZED,
    FieldDescriptor.TYPE_MESSAGE: _SIZED,
    FieldDescriptor.TYPE_FIXED32: _FIXED32,
}


def varint(number: int) -> bytes:
    """A number that is not negative, seven bits a byte."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


# Nearly every length.
_SHORT: Final = tuple(map(varint, range(1024)))


def tag(message: Any, name: str) -> bytes:
    """What stands before the value of a field of this class of messages."""
    field = message.DESCRIPTOR.fields_by_name[name]
    return varint(field.number << 3 | _WIRE_TYPES[field.type])


def sized(before: bytes, value: bytes) -> bytes:
    """A field of text, bytes or a message, by its tag and its value."""
    length = len(value)
    return before + (_SHORT[length] if length < 1024 else varint(length)) + value
