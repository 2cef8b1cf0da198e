"""BSON to Python values and back, without losing what the driver's decoder cannot represent.

The decoder keeps the last of two fields with one name, makes null of `undefined` and text of a symbol,
and reorders a sub-document that looks like a reference. `elements` reads the bytes instead: ten times
slower, so it is for the few values that need it.
"""

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import bson
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion

DECODING: CodecOptions[Mapping[str, Any]] = CodecOptions(
    document_class=dict,
    tz_aware=False,
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
"""The codec options for all documents: a date beyond Python's range stays a `DatetimeMS`.

Other dates are naive and in UTC: adding a zone would take a third of the decoding time.
A UUID stays a `Binary`: MongoDB also stores those that are not 16 bytes long, which have no `uuid.UUID`.
"""

LENIENT: CodecOptions[Mapping[str, Any]] = DECODING.with_options(unicode_decode_error_handler="replace")
"""The same with replacement characters for text that is not UTF-8: only for display."""

_ENCODING: Final = DECODING.with_options(uuid_representation=UuidRepresentation.STANDARD)

DOCUMENT: Final = 0x03
ARRAY: Final = 0x04
STRING: Final = 0x02
BINARY: Final = 0x05
UNDEFINED: Final = 0x06
OBJECT_ID: Final = 0x07
BOOL: Final = 0x08
DATE: Final = 0x09
NULL: Final = 0x0A
REGEX: Final = 0x0B
DB_POINTER: Final = 0x0C
CODE: Final = 0x0D
SYMBOL: Final = 0x0E
CODE_WITH_SCOPE: Final = 0x0F
INT32: Final = 0x10
TIMESTAMP: Final = 0x11
INT64: Final = 0x12
DECIMAL: Final = 0x13
DOUBLE: Final = 0x01
MIN_KEY: Final = 0xFF
MAX_KEY: Final = 0x7F

_FIXED: Final[Mapping[int, int]] = {
    **dict.fromkeys((UNDEFINED, NULL, MIN_KEY, MAX_KEY), 0),
    **dict.fromkeys((DOUBLE, DATE, TIMESTAMP, INT64), 8),
    BOOL: 1,
    INT32: 4,
    OBJECT_ID: 12,
    DECIMAL: 16,
}
# Bytes of a value in addition to the length at its start.
_BESIDE: Final[Mapping[int, int]] = {
    **dict.fromkeys((STRING, CODE, SYMBOL), 4),
    **dict.fromkeys((DOCUMENT, ARRAY, CODE_WITH_SCOPE), 0),
    BINARY: 5,
    DB_POINTER: 16,
}
# The decoder returns these unchanged, except symbols, which MongoDB compares as text.
_EXACT: Final = frozenset({*_FIXED, STRING, SYMBOL} - {UNDEFINED})


# As `$type` in MongoDB calls them; numbers of all kinds are one.
_NAMES: Final[Mapping[int, str]] = {
    **dict.fromkeys((DOUBLE, INT32, INT64, DECIMAL), "number"),
    STRING: "string",
    DOCUMENT: "object",
    ARRAY: "array",
    BINARY: "binData",
    UNDEFINED: "undefined",
    OBJECT_ID: "objectId",
    BOOL: "bool",
    DATE: "date",
    NULL: "null",
    REGEX: "regex",
    DB_POINTER: "dbPointer",
    CODE: "javascript",
    SYMBOL: "symbol",
    CODE_WITH_SCOPE: "javascriptWithScope",
    TIMESTAMP: "timestamp",
    MIN_KEY: "minKey",
    MAX_KEY: "maxKey",
}


class RawValue(NamedTuple):
    """A BSON value as bytes, for values without an equivalent in Python."""

    type: int
    data: bytes


class MalformedText(ValueError):
    """The text of an `_id` or of a position cannot be read back."""


def elements(document: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """The type, name and value of each field of a BSON document, in order, repeated names too.

    Raises:
        InvalidBSON: the document is not BSON.
    """
    at = 4
    try:
        while kind := document[at]:
            end = document.index(0, at + 1)
            name, start = document[at + 1 : end], end + 1
            at = start + _size(kind, document, start)
            yield kind, name, document[start:at]
    except (IndexError, KeyError, ValueError, struct.error) as error:
        raise bson.errors.InvalidBSON("not a BSON document") from error


def _size(kind: int, document: bytes, start: int) -> int:
    if (fixed := _FIXED.get(kind)) is not None:
        return fixed
    if kind == REGEX:
        return document.index(0, document.index(0, start) + 1) + 1 - start
    return int.from_bytes(document[start : start + 4], "little") + _BESIDE[kind]


def decode(raw: bytes) -> Mapping[str, Any]:
    """Decode a document; an object that looks like a DBRef stays an object.

    Raises:
        BSONError, ValueError, OverflowError: a value cannot be decoded.
    """
    # The decoder reorders the fields of an object with `$ref`; searching one character first is the fastest test.
    if b"$" in raw and b"$ref\0" in raw:
        return _fields(raw)
    return bson.decode(raw, DECODING)


def decode_all(documents: Sequence[bytes]) -> Sequence[Mapping[str, Any]]:
    """The result of `decode` for each document, in three quarters of the time.

    Raises:
        BSONError, ValueError, OverflowError: a value of one of them cannot be decoded.
    """
    joined = b"".join(documents)
    if b"$ref\0" in joined:
        return [*map(decode, documents)]
    return bson.decode_all(joined, DECODING)


def _fields(document: bytes) -> dict[str, Any]:
    return {name.decode(): _decoded(kind, data) for kind, name, data in elements(document)}


def _decoded(kind: int, data: bytes) -> Any:
    if kind == DOCUMENT:
        return _fields(data)
    if kind == ARRAY:
        return [_decoded(inner, item) for inner, _, item in elements(data)]
    return bson.decode(wrapped(kind, data), DECODING)[""]


def python_value(value: RawValue) -> Any:
    """The Python value that encodes to the same BSON; else the `RawValue` itself."""
    try:
        decoded = bson.decode(wrapped(*value), DECODING)[""]
    except (bson.errors.BSONError, ValueError, OverflowError):
        return value
    return decoded if value.type in _EXACT or raw_value(decoded) == value else value


def raw_value(value: Any) -> RawValue:
    """Any BSON value as its bytes.

    Raises:
        BSONError, OverflowError, ValueError: BSON has no such value.
    """
    if isinstance(value, RawValue):
        return value
    document = bson.encode({"": value}, codec_options=_ENCODING)
    return RawValue(document[4], document[6:-1])


def type_name(value: Any) -> str:
    """The type of a BSON value, as MongoDB's `$type` calls it; `number` for any number."""
    return _NAMES[raw_value(value).type]


def wrapped(kind: int, data: bytes, name: bytes = b"") -> bytes:
    """The document with this one field."""
    return document_of([(name, RawValue(kind, data))])


def document_of(fields: Iterable[tuple[bytes, RawValue]]) -> bytes:
    """The document with these fields."""
    body = b"".join(bytes([value.type]) + name + b"\0" + value.data for name, value in fields)
    return struct.pack("<i", len(body) + 5) + body + b"\0"


def packed(value: Any) -> str:
    """Any BSON value as text of letters, digits, `-` and `_`."""
    return urlsafe_b64encode(wrapped(*raw_value(value))).rstrip(b"=").decode()


def unpacked(text: str) -> Any:
    """The inverse of `packed`.

    Raises:
        MalformedText: the text stands for no BSON value.
    """
    try:
        document = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        [(kind, _, data)] = elements(document)
    except (ValueError, bson.errors.BSONError):
        raise MalformedText("not a BSON value in base64") from None
    value = RawValue(kind, data)
    if wrapped(*value) != document:
        raise MalformedText("not a BSON value in base64")
    return python_value(value)
