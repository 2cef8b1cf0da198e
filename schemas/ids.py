"""An `_id` as text: a lossless form for Redis, and a readable form."""

import re
from datetime import datetime
from json.encoder import encode_basestring_ascii
from types import NoneType
from typing import Any, Final
from uuid import UUID

import bson
from bson import Binary, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from bson.binary import UUID_SUBTYPE, UuidRepresentation
from bson.codec_options import DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.json_util import CANONICAL_JSON_OPTIONS, RELAXED_JSON_OPTIONS, JSONOptions, dumps, loads

from schemas.codec import LENIENT, MalformedText, RawValue, packed, raw_value, unpacked, wrapped

_UUID_BYTES: Final = 16

_LOSSLESS: Final[JSONOptions] = CANONICAL_JSON_OPTIONS.with_options(
    uuid_representation=UuidRepresentation.UNSPECIFIED, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
_READABLE: Final[JSONOptions] = RELAXED_JSON_OPTIONS.with_options(
    uuid_representation=UuidRepresentation.UNSPECIFIED, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
_OBJECT_ID: Final = re.compile(r'\{"\$oid": "([0-9a-f]{24})"\}')
_PACKED: Final = re.compile(r'\{"\$bson": "([\w-]*)"\}', re.ASCII)
_READABLE_OBJECT_ID: Final = re.compile(r"ObjectId\('([0-9a-fA-F]{24})'\)")
_READABLE_UUID: Final = re.compile(r"UUID\('([0-9a-fA-F-]{36})'\)")

# Types that Extended JSON round-trips.
_SCALARS: Final = frozenset(
    {
        *(str, int, Int64, float, bool, NoneType, Decimal128),
        *(ObjectId, bytes, Binary, datetime, DatetimeMS, Timestamp, MinKey, MaxKey),
    }
)

# What the driver's parser of Extended JSON raises: it checks some forms only.
_UNPARSABLE: Final = (
    *(ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError),
    bson.errors.BSONError,
)


def id_text(value: Any) -> str:
    r"""An `_id` as ASCII text without control characters: lossless, and the same text for the same value.

    Canonical Extended JSON, or `{"$bson": "…"}` with the value in base64 if Extended JSON would not round-trip:
    a sub-document with names such as `$date`, a reference, text that is not UTF-8.
    """
    # Fast path for the usual types, 20 times faster.
    kind = type(value)
    if kind is ObjectId:
        return f'{{"$oid": "{value.binary.hex()}"}}'
    if kind is str:
        return encode_basestring_ascii(value)
    return dumps(value, json_options=_LOSSLESS) if _is_json(value) else f'{{"$bson": "{packed(value)}"}}'


def _is_json(value: Any) -> bool:
    if type(value) is dict:
        return all(name[:1] != "$" and _is_json(item) for name, item in value.items())
    if type(value) is list:
        return all(map(_is_json, value))
    return type(value) in _SCALARS


def id_from_text(text: str) -> Any:
    """The inverse of `id_text`; also reads other Extended JSON.

    Raises:
        MalformedText: the text is not an `_id`.
    """
    if match := _OBJECT_ID.fullmatch(text):
        return ObjectId(match[1])
    if match := _PACKED.fullmatch(text):
        return unpacked(match[1])
    try:
        value = loads(text, json_options=_LOSSLESS)
        raw_value(value)  # an integer of more than 64 bits is JSON, but no BSON
    except _UNPARSABLE:
        raise MalformedText("not an _id as Extended JSON") from None
    return value


def readable_id(value: Any) -> str:
    """An `_id` as mongosh prints it: `ObjectId('…')`, `UUID('…')`, or relaxed Extended JSON."""
    if isinstance(value, ObjectId):
        return repr(value)
    if isinstance(value, RawValue):
        value = bson.decode(wrapped(*value), LENIENT)[""]
    if isinstance(value, Binary) and value.subtype == UUID_SUBTYPE and len(value) == _UUID_BYTES:
        return f"UUID('{UUID(bytes=value)}')"
    return dumps(value, json_options=_READABLE)


def id_from_readable(text: str) -> Any:
    """The inverse of `readable_id`, except for the width of numbers and text that is not UTF-8.

    Raises:
        MalformedText: the text has none of these forms.
    """
    if match := _READABLE_OBJECT_ID.fullmatch(text):
        return ObjectId(match[1])
    if match := _READABLE_UUID.fullmatch(text):
        try:
            return Binary(UUID(match[1]).bytes, UUID_SUBTYPE)
        except ValueError:
            raise MalformedText("not a UUID") from None
    return id_from_text(text)
