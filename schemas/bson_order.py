"""MongoDB's order of BSON values over all types ("Comparison/Sort Order", MongoDB manual).

Types come first, then values. A position must compare exactly as the index on `(updated_at, _id)`
does, or a document at the border of a page would be skipped. Values are compared by their BSON bytes, because
Python cannot represent all of them.
"""

import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

from bson import Decimal128, ObjectId
from bson.datetime_ms import DatetimeMS

from schemas.codec import (
    ARRAY,
    BINARY,
    BOOL,
    CODE,
    CODE_WITH_SCOPE,
    DATE,
    DB_POINTER,
    DECIMAL,
    DOCUMENT,
    DOUBLE,
    INT32,
    INT64,
    MAX_KEY,
    MIN_KEY,
    NULL,
    OBJECT_ID,
    REGEX,
    STRING,
    SYMBOL,
    TIMESTAMP,
    UNDEFINED,
    elements,
    raw_value,
)

DATE_RANK: Final = 45

# The order of types; types of one rank are compared by value.
_RANKS: Final[Mapping[int, int]] = {
    MIN_KEY: -1,
    UNDEFINED: 0,
    NULL: 5,
    **dict.fromkeys((DOUBLE, INT32, INT64, DECIMAL), 10),
    **dict.fromkeys((STRING, SYMBOL), 15),
    DOCUMENT: 20,
    ARRAY: 25,
    BINARY: 30,
    OBJECT_ID: 35,
    BOOL: 40,
    DATE: DATE_RANK,
    TIMESTAMP: 47,
    REGEX: 50,
    DB_POINTER: 55,
    CODE: 60,
    CODE_WITH_SCOPE: 65,
    MAX_KEY: 127,
}

Order = tuple[int, Any]


def order(value: Any) -> Order:
    """A key that sorts BSON values as MongoDB does with simple collation, whatever their types."""
    # Fast path for the two usual types.
    if type(value) is ObjectId:
        return (_RANKS[OBJECT_ID], value.binary)
    if type(value) is DatetimeMS:
        return (DATE_RANK, int(value))
    return _order(*raw_value(value))


def _order(kind: int, data: bytes) -> Order:
    comparable = _COMPARABLE.get(kind)
    return (_RANKS[kind], None if comparable is None else comparable(data))


def _number(value: float | Decimal128) -> tuple[int, Any]:
    # NaN equals itself and comes before every other number. Python compares int, float and
    # Decimal exactly with one another, as MongoDB does.
    if isinstance(value, Decimal128):
        number = value.to_decimal()
        return (0, 0) if number.is_nan() else (1, number)
    return (0, 0) if math.isnan(value) else (1, value)


def _integer(data: bytes) -> tuple[int, Any]:
    return _number(int.from_bytes(data, "little", signed=True))


def _object(data: bytes) -> list[Any]:
    return [(_RANKS[kind], name, _order(kind, item)) for kind, name, item in elements(data)]


def _array(data: bytes) -> list[Any]:
    return [_order(kind, item) for kind, _, item in elements(data)]


def _string(data: bytes) -> bytes:
    return data[4:-1]


def _binary(data: bytes) -> tuple[int, bytes]:
    """By its length, then by its subtype, then by its bytes; a subtype 2 holds its length once more."""
    return (int.from_bytes(data[:4], "little"), data[4:])


def _code_with_scope(data: bytes) -> tuple[bytes, Any]:
    end = 8 + int.from_bytes(data[4:8], "little")
    return (data[8 : end - 1], _object(data[end:]))


_COMPARABLE: Final[Mapping[int, Callable[[bytes], Any]]] = {
    DOUBLE: lambda data: _number(struct.unpack("<d", data)[0]),
    INT32: _integer,
    INT64: _integer,
    DECIMAL: lambda data: _number(Decimal128.from_bid(data)),
    STRING: _string,
    SYMBOL: _string,
    DOCUMENT: _object,
    ARRAY: _array,
    BINARY: _binary,
    OBJECT_ID: lambda data: data,
    BOOL: lambda data: data,
    DATE: lambda data: int.from_bytes(data, "little", signed=True),
    TIMESTAMP: lambda data: int.from_bytes(data, "little"),
    REGEX: lambda data: tuple(data.split(b"\0")),
    DB_POINTER: lambda data: (len(data), data),
    CODE: _string,
    CODE_WITH_SCOPE: _code_with_scope,
}
