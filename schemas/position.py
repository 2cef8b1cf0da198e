"""Positions in a collection: pairs `(updated_at, _id)`, in MongoDB's own order over every BSON type.

MongoDB orders values of different types by type first, then by value ("Comparison/Sort Order",
MongoDB manual). A position must compare exactly as the index on `(updated_at, _id)` does, or a
document at a border would be skipped.
"""

import math
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Any, NamedTuple

from bson import Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.binary import UUID_SUBTYPE, UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.json_util import CANONICAL_JSON_OPTIONS, RELAXED_JSON_OPTIONS, JSONOptions, dumps, loads

DECODING: CodecOptions[Mapping[str, Any]] = CodecOptions(
    document_class=dict,
    tz_aware=False,
    uuid_representation=UuidRepresentation.STANDARD,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
"""How documents are decoded everywhere: a date out of Python's range stays a `DatetimeMS`.

The others come without a zone, and are in UTC: to give each one a zone takes a third of the decoding.
"""

LENIENT: CodecOptions[Mapping[str, Any]] = DECODING.with_options(
    unicode_decode_error_handler="replace", uuid_representation=UuidRepresentation.UNSPECIFIED
)
"""The same for a document that `DECODING` refuses, to learn at least its `_id` and timestamp.

A UUID stays binary: MongoDB also stores those that are not 16 bytes long.
"""

_LOSSLESS: JSONOptions = CANONICAL_JSON_OPTIONS.with_options(
    uuid_representation=UuidRepresentation.STANDARD, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
_LOADING: JSONOptions = _LOSSLESS.with_options(uuid_representation=UuidRepresentation.UNSPECIFIED)
_READABLE: JSONOptions = RELAXED_JSON_OPTIONS.with_options(
    uuid_representation=UuidRepresentation.STANDARD, datetime_conversion=DatetimeConversion.DATETIME_AUTO
)
_LONGEST_NAME = 96
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 (as the driver decodes dates here: without a zone, in UTC)
_MILLISECOND = timedelta(milliseconds=1)
_OBJECT_ID = re.compile(r'\{"\$oid": "([0-9a-f]{24})"\}')

# Where each type stands in MongoDB's order, and under which rank its values are compared.
_RANKS: dict[type, int] = {
    MinKey: 0,
    type(None): 5,
    int: 10,
    Int64: 10,
    float: 10,
    Decimal128: 10,
    str: 15,
    dict: 20,
    DBRef: 20,
    list: 25,
    bytes: 30,
    uuid.UUID: 30,
    ObjectId: 35,
    bool: 40,
    datetime: 45,
    DatetimeMS: 45,
    Timestamp: 47,
    Regex: 50,
    Code: 60,
    MaxKey: 127,
}


def _rank(value: Any) -> int:
    known = _RANKS.get(type(value))
    if known is None:
        known = next(rank for kind, rank in _RANKS.items() if isinstance(value, kind))
    return known


def _number(value: float | Decimal128) -> tuple[int, Any]:
    number: float | Decimal = value.to_decimal() if isinstance(value, Decimal128) else value
    # NaN equals itself and comes before every other number. Python compares int, float and
    # Decimal exactly with one another, as MongoDB does.
    is_nan = number.is_nan() if isinstance(number, Decimal) else math.isnan(number)
    return (0, 0) if is_nan else (1, number)


def _object(value: Any) -> list[Any]:
    items = value.as_doc() if isinstance(value, DBRef) else value
    return [(_rank(item), name.encode("utf-8", "surrogatepass"), order(item)) for name, item in items.items()]


def _binary(value: Any) -> tuple[int, int, bytes]:
    """Binary data is ordered by its length first, then by its subtype."""
    raw = value.bytes if isinstance(value, uuid.UUID) else bytes(value)
    subtype = UUID_SUBTYPE if isinstance(value, uuid.UUID) else getattr(value, "subtype", 0)
    return (len(raw), subtype, raw)


def _code(value: Code) -> tuple[bool, str, Any]:
    """Code with a scope is a type of its own, just after code without."""
    return (value.scope is not None, str(value), _object(value.scope or {}))


def _letters(flags: int) -> str:
    """The options of a regular expression as BSON has them."""
    return "".join(letter for letter in "ilmsux" if flags & re.RegexFlag[letter.upper()])


_COMPARABLE: dict[int, Callable[[Any], Any]] = {
    _RANKS[float]: _number,
    _RANKS[str]: lambda value: value.encode("utf-8", "surrogatepass"),
    _RANKS[dict]: _object,
    _RANKS[list]: lambda value: [order(item) for item in value],
    _RANKS[bytes]: _binary,
    _RANKS[ObjectId]: lambda value: value,
    _RANKS[bool]: lambda value: value,
    _RANKS[DatetimeMS]: lambda value: int(value if isinstance(value, DatetimeMS) else DatetimeMS(value)),
    _RANKS[Timestamp]: lambda value: (value.time, value.inc),
    _RANKS[Regex]: lambda value: (str(value.pattern), _letters(value.flags)),
    _RANKS[Code]: _code,
}


def order(value: Any) -> tuple[int, Any]:
    """A key that sorts BSON values as MongoDB does with simple collation, whatever their types."""
    rank = _rank(value)
    comparable = _COMPARABLE.get(rank)
    return (rank, None if comparable is None else comparable(value))


def id_text(value: Any) -> str:
    """An `_id` as canonical Extended JSON: lossless, and the same text for the same value."""
    if type(value) is ObjectId:  # the usual case, 20 times faster than the general one
        return f'{{"$oid": "{value.binary.hex()}"}}'
    return dumps(value, json_options=_LOSSLESS)


def id_from_text(text: str) -> Any:
    """The inverse of `id_text`.

    Raises:
        ValueError: the text is no Extended JSON.
    """
    if match := _OBJECT_ID.fullmatch(text):
        return ObjectId(match[1])
    return loads(text, json_options=_LOADING)


def readable_id(value: Any) -> str:
    """An `_id` as people read it: `ObjectId('…')`, or relaxed Extended JSON for every other type."""
    return repr(value) if isinstance(value, ObjectId) else dumps(value, json_options=_READABLE)


def id_from_readable(text: str) -> Any:
    """The inverse of `readable_id`, but that the width of a number is lost.

    Raises:
        ValueError: the text is neither of its two forms.
    """
    if match := re.fullmatch(r"ObjectId\('([0-9a-f]{24})'\)", text):
        return ObjectId(match[1])
    return id_from_text(text)


class Position(NamedTuple):
    """Where a reader stands: the pair of a document's timestamp and its `_id`.

    `timestamp` is a `DatetimeMS` for a date, and otherwise whatever BSON value the field holds
    (`None` for a missing one, as in the index).
    """

    timestamp: Any
    id: Any

    @property
    def ms(self) -> int | None:
        """The timestamp in milliseconds since the epoch, or None where it is no date."""
        return int(self.timestamp) if isinstance(self.timestamp, DatetimeMS) else None

    def order(self) -> tuple[tuple[int, Any], tuple[int, Any]]:
        """The sort key of the pair: compare positions by it, never by themselves."""
        return (order(self.timestamp), order(self.id))

    def text(self) -> str:
        """The position as Redis keeps it: `1736937000000 {"$oid": "…"}`.

        The milliseconds and the `_id` as canonical Extended JSON; the whole pair as such where the
        timestamp is no date.
        """
        if self.ms is not None:
            return f"{self.ms} {id_text(self.id)}"
        return dumps({"timestamp": self.timestamp, "id": self.id}, json_options=_LOSSLESS)

    def place(self) -> "Place":
        """The same in texts and numbers."""
        return self.text(), self.ms, id_text(self.id)

    def name(self) -> str:
        """A short unique name of this version of a document, for sets kept in Redis."""
        return version_name(self.text())


def version_name(text: str) -> str:
    """The name of the version whose position has this text: that text, or its digest where it is long."""
    if len(text) <= _LONGEST_NAME:
        return text
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=24).hexdigest()


Place = tuple[str, int | None, str]
"""A position in texts and numbers: its `text`, its `ms`, and its `_id` as canonical Extended JSON."""


def place_in(document: Mapping[str, Any], timestamp_field: str) -> Place:
    """What `position_in` says, in a quarter of the time where the timestamp is a date, as it mostly is."""
    timestamp = document.get(timestamp_field)
    if type(timestamp) is datetime and timestamp.tzinfo is None:
        ms = (timestamp - _EPOCH) // _MILLISECOND
        document_id = id_text(document["_id"])
        return f"{ms} {document_id}", ms, document_id
    return position_in(document, timestamp_field).place()


def position_of(timestamp: Any, document_id: Any) -> Position:
    """The position of a document, its date normalised to `DatetimeMS`."""
    moment = DatetimeMS(timestamp) if isinstance(timestamp, datetime) else timestamp
    return Position(moment, document_id)


def position_in(document: Mapping[str, Any], timestamp_field: str) -> Position:
    """The position of a decoded document; `timestamp_field` may be a dotted path."""
    timestamp: Any = document
    for name in timestamp_field.split("."):
        timestamp = timestamp.get(name) if isinstance(timestamp, Mapping) else None
    return position_of(timestamp, document["_id"])


def position_from_text(text: str) -> Position:
    """The inverse of `Position.text`."""
    if text.startswith("{"):
        value = loads(text, json_options=_LOADING)
        return position_of(value["timestamp"], value["id"])
    ms, _, document_id = text.partition(" ")
    return Position(DatetimeMS(int(ms)), id_from_text(document_id))


def id_in(text: str) -> str:
    """The `_id` in the text of a position, as canonical Extended JSON."""
    if text.startswith("{"):
        return id_text(position_from_text(text).id)
    return text.partition(" ")[2]


def is_faithful(text: str) -> bool:
    """Whether nothing in the text of a position, or of an `_id`, stands for bytes that are no UTF-8."""
    return r"\ufffd" not in text  # as JSON has it


def is_after(text: str, other: str) -> bool:
    """Whether the position with the one text comes after that with the other."""
    if text == other:
        return False
    if not text.startswith("{") and not other.startswith("{"):
        ms, other_ms = int(text.partition(" ")[0]), int(other.partition(" ")[0])
        if ms != other_ms:
            return ms > other_ms
    return position_from_text(text).order() > position_from_text(other).order()


def at(ms: int) -> Position:
    """The position just before every document dated `ms` (milliseconds since the epoch)."""
    return Position(DatetimeMS(ms), MinKey())


def after(ms: int) -> Position:
    """The position just after every document dated `ms` (milliseconds since the epoch)."""
    return Position(DatetimeMS(ms), MaxKey())


FIRST = Position(MinKey(), MinKey())
"""Before every document, also those whose timestamp is missing or of a type that sorts early."""

LAST = Position(MaxKey(), MaxKey())
"""After every document."""

FIRST_DATE = Position(DatetimeMS(-(2**63)), MinKey())
"""Before every document whose timestamp is a date."""

AFTER_DATES = Position(Timestamp(0, 0), MinKey())
"""After every document whose timestamp is a date: BSON timestamps come next in the order."""
