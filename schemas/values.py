"""The encoding of values in Redis, where everything is text.

| in MongoDB               | as a hash field                        | inside JSON   |
|--------------------------|----------------------------------------|---------------|
| string                   | as it is                               | string        |
| int, long                | decimal                                | number        |
| double, decimal          | shortest exact decimal, no exponent    | number        |
| bool                     | `true`, `false`                        | the same      |
| null                     | `null`                                 | `null`        |
| date                     | `2025-01-15T10:30:00Z`, `…:00.250Z`    | string        |
| ObjectId                 | its 24 hex digits                      | string        |
| UUID                     | its canonical text                     | string        |
| binary                   | base64                                 | string        |
| array, embedded document | compact JSON, fields in their order    | array, object |

Other values (NaN, infinities, dates beyond Python's range, JavaScript, regular expressions, …) are refused.
Error messages name types, never values, so they may be logged.
"""

from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from json.encoder import encode_basestring
from types import NoneType
from typing import Any
from uuid import UUID

from bson import Binary, Decimal128, Int64, ObjectId
from bson.binary import UUID_SUBTYPE
from pydantic_core import PydanticSerializationError, to_json

# Characters of an exponent, an infinity or NaN. A float without them needs no further work: a fifth of the time.
_LETTERS = frozenset("ein")
_UUID_BYTES = 16


def text(value: Any) -> str:
    """Any BSON value as the text of a hash field.

    Raises:
        ValueError: the value has no such form (NaN, an infinity, a type JSON does not know).
    """
    write = _STRINGS.get(type(value)) or _LITERALS.get(type(value)) or json_text
    return write(value)


def json_text(value: Any) -> str:
    """Any BSON value as compact JSON; fields keep their order, numbers are exact.

    Raises:
        ValueError: the value, or one inside it, has no such form.
    """
    kind = type(value)
    if (literal := _LITERALS.get(kind)) is not None:
        return literal(value)
    if (string := _STRINGS.get(kind)) is not None:
        return encode_basestring(string(value))
    if kind is dict:
        return "{" + ",".join([f"{_quoted(name)}:{json_text(item)}" for name, item in value.items()]) + "}"
    if kind is list:
        return "[" + ",".join([json_text(item) for item in value]) + "]"
    raise ValueError(f"{kind.__name__} has no JSON form")


def plain_json(values: Iterable[Mapping[str, Any]]) -> list[bytes]:
    """The result of `json_text` for objects of strings and integers, in a quarter of the time.

    As UTF-8 bytes: encoding text first would take a fifth of the whole transform.

    Raises:
        ValueError: a string is not valid Unicode.
    """
    try:
        return [to_json(value) for value in values]
    except PydanticSerializationError:
        raise ValueError("text is not valid Unicode") from None


def unicode_text(value: str) -> str:
    """Check that a text can be encoded in UTF-8, and return it.

    Raises:
        ValueError: it holds a lone surrogate.
    """
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            # The codec's own message quotes the character.
            raise ValueError("text is not valid Unicode") from None
    return value


def string_text(value: Any) -> str | None:
    """The text of a value that is a string in JSON; None for other values."""
    write = _STRINGS.get(type(value))
    return None if write is None else write(value)


def date_text(value: datetime) -> str:
    """A date as ISO 8601 in UTC, with milliseconds only when they are not zero.

    A date without a zone is in UTC, as BSON dates are.
    """
    utc = value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
    # BSON dates have milliseconds; finer values come from ISO text only, and are cut off.
    return utc.isoformat(timespec="milliseconds" if utc.microsecond // 1000 else "seconds") + "Z"


def number_text(value: float | Decimal | Decimal128) -> str:
    """A number in its shortest exact decimal form without exponent: `0.0041`, `350`, `0`.

    Raises:
        ValueError: NaN or an infinity.
    """
    if type(value) is float and value and _LETTERS.isdisjoint(digits := repr(value)):
        return digits.removesuffix(".0")
    number = exact(value)
    if not number:
        return "0"  # also for -0.0, and for zeros that carry an exponent
    digits = f"{number:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def digits(value: Any) -> int:
    """The number of characters of all numbers in a BSON value: up to 6,178 for a decimal of 16 bytes.

    One number is in memory as text at a time.
    """
    kind = type(value)
    if kind is dict:
        return sum(map(digits, value.values()))
    if kind is list:
        return sum(map(digits, value))
    if kind is float or kind is Decimal128:
        try:
            return len(number_text(value))
        except ValueError:
            return 0  # the validation of the field refuses it
    return 0


def exact(value: float | Decimal | Decimal128) -> Decimal:
    """A finite number as a Decimal: for a float, the shortest one that reads back as the same float.

    Raises:
        ValueError: NaN or an infinity.
    """
    if isinstance(value, float):
        number = Decimal(repr(value))
    else:
        number = value.to_decimal() if isinstance(value, Decimal128) else Decimal(value)
    if not number.is_finite():
        raise ValueError("NaN and infinities have no JSON form")
    return number


def _quoted(name: str) -> str:
    return encode_basestring(unicode_text(name))


def _base64(value: bytes) -> str:
    return b64encode(value).decode()


def _binary(value: Binary) -> str:
    """A UUID if it has 16 bytes, else base64 as for other binary values."""
    is_uuid = value.subtype == UUID_SUBTYPE and len(value) == _UUID_BYTES
    return str(UUID(bytes=value)) if is_uuid else _base64(value)


# Looked up by exact type: a subclass may mean something else, as `bson.Code`, a `str`, does.
_STRINGS: dict[type, Callable[[Any], str]] = {
    str: unicode_text,
    datetime: date_text,
    ObjectId: str,
    bytes: _base64,
    Binary: _binary,
}
_LITERALS: dict[type, Callable[[Any], str]] = {
    int: str,
    Int64: str,
    float: number_text,
    Decimal128: number_text,
    Decimal: number_text,
    bool: lambda value: "true" if value else "false",
    NoneType: lambda _: "null",
}
