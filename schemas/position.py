"""Positions in a collection: pairs `(updated_at, _id)`, in MongoDB's own order over every BSON type."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from bson import Int64, MaxKey, MinKey, ObjectId, Timestamp
from bson.datetime_ms import DatetimeMS

from schemas.bson_order import DATE_RANK, Order, order
from schemas.codec import (
    ARRAY,
    DOCUMENT,
    MalformedText,
    RawValue,
    document_of,
    elements,
    packed,
    python_value,
    unpacked,
)
from schemas.ids import id_from_text, id_text

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 (as the driver decodes dates here: without a zone, in UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_MILLISECONDS: Final = re.compile(r"-?[0-9]{1,19}")
_NO_DATE: Final = frozenset("<>")
_LONGEST_DATE: Final = 2**63
# Types that round-trip through the decoder.
_EXACT_IDS: Final = frozenset({ObjectId, str, int, Int64, float, bool})


class Position(NamedTuple):
    """A position in the index: the timestamp of a document and its `_id`.

    `timestamp` is a `DatetimeMS` for a date, else the BSON value of the field (`None` if it is missing, as in
    the index).
    """

    timestamp: Any
    id: Any

    @property
    def ms(self) -> int | None:
        """The timestamp in milliseconds since the epoch; None if it is not a date."""
        return int(self.timestamp) if isinstance(self.timestamp, DatetimeMS) else None

    def order(self) -> tuple[Order, Order]:
        """The sort key; positions themselves must not be compared."""
        return (order(self.timestamp), order(self.id))

    def text(self) -> str:
        """The position as Redis keeps it: `1736937000000 {"$oid": "…"}`.

        `timestamp_text`, a space, and `id_text`; ASCII without control characters.
        """
        return f"{timestamp_text(self.timestamp)} {id_text(self.id)}"

    def is_array(self) -> bool:
        """Whether the timestamp is an array: the index has one entry per member, so no single position."""
        return isinstance(self.timestamp, list) or (
            isinstance(self.timestamp, RawValue) and self.timestamp.type == ARRAY
        )

    def place(self) -> "Place":
        """The position in texts and numbers."""
        return timestamp_text(self.timestamp), self.ms, id_text(self.id)


Place = tuple[str, int | None, str]
"""A position in texts and numbers: its timestamp as `timestamp_text`, its `ms`, and its `_id` as `id_text`."""


def timestamp_text(timestamp: Any) -> str:
    """A timestamp as text without white space; lossless.

    Decimal milliseconds since the epoch for a date. Else `<` or `>`, as it sorts before or after all dates, and the
    BSON of the value in base64.
    """
    if isinstance(timestamp, DatetimeMS):
        return str(int(timestamp))
    return f"{'<' if order(timestamp)[0] < DATE_RANK else '>'}{packed(timestamp)}"


def place_in(document: Mapping[str, Any], timestamp_field: str, raw: bytes) -> Place:
    """The place of `position_in`, in a tenth of the time for the usual types.

    Args:
        document: `raw`, decoded.
        timestamp_field: the name of its timestamp, or a dotted path.
        raw: its BSON, to detect repeated timestamp fields: the decoder keeps the last one.
    """
    timestamp, document_id = document.get(timestamp_field), document.get("_id")
    if (
        type(timestamp) is datetime
        and type(document_id) in _EXACT_IDS
        and raw.count(timestamp_field.encode() + b"\0") == 1
    ):
        ms = (timestamp - _EPOCH) // _MILLISECOND
        return str(ms), ms, id_text(document_id)
    return position_in(raw, timestamp_field).place()


def position_of(timestamp: Any, document_id: Any) -> Position:
    """The position of a document, its date normalised to `DatetimeMS`."""
    moment = DatetimeMS(timestamp) if isinstance(timestamp, datetime) else timestamp
    return Position(moment, document_id)


def position_in(raw: bytes, timestamp_field: str) -> Position:
    """The position of a document in the index; of repeated fields the first one counts.

    `timestamp_field` may be a dotted path. If it leads through an array, the timestamp is the array of the
    values found.

    Raises:
        InvalidBSON: the document is not BSON.
    """
    first, *path = [name.encode() for name in timestamp_field.split(".")]
    document_id, timestamp = _first(raw, b"_id"), _first(raw, first)
    value = None if timestamp is None else _at(timestamp, path)
    moment = None if value is None else python_value(value)
    return position_of(moment, None if document_id is None else python_value(document_id))


def _first(document: bytes, wanted: bytes) -> RawValue | None:
    return next((RawValue(kind, data) for kind, name, data in elements(document) if name == wanted), None)


def _at(value: RawValue, path: list[bytes]) -> RawValue | None:
    """The value of an aggregation expression with this path: for an array, the values in its documents."""
    if not path:
        return value
    if value.type == DOCUMENT:
        inner = _first(value.data, path[0])
        return None if inner is None else _at(inner, path[1:])
    if value.type == ARRAY:
        documents = (RawValue(kind, data) for kind, _, data in elements(value.data) if kind == DOCUMENT)
        values = [inner for document in documents if (inner := _at(document, path)) is not None]
        return RawValue(ARRAY, document_of((str(n).encode(), inner) for n, inner in enumerate(values)))
    return None


def position_from_text(text: str) -> Position:
    """The inverse of `Position.text`.

    Raises:
        MalformedText: the text is not a position.
    """
    timestamp, _, document_id = text.partition(" ")
    if timestamp[:1] in _NO_DATE:
        return position_of(unpacked(timestamp[1:]), id_from_text(document_id))
    if not _MILLISECONDS.fullmatch(timestamp) or not -_LONGEST_DATE <= int(timestamp) < _LONGEST_DATE:
        raise MalformedText("not the text of a position")
    return Position(DatetimeMS(int(timestamp)), id_from_text(document_id))


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
