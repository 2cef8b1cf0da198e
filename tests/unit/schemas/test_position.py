"""Positions and ids as text are read back unchanged."""

import struct
from datetime import UTC, datetime
from typing import Any

import bson
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS

from schemas.bson_order import order
from schemas.codec import (
    ARRAY,
    DOCUMENT,
    STRING,
    UNDEFINED,
    MalformedText,
    RawValue,
    decode,
    document_of,
    raw_value,
)
from schemas.ids import id_from_readable, id_from_text, id_text, readable_id
from schemas.position import (
    AFTER_DATES,
    FIRST,
    FIRST_DATE,
    LAST,
    Position,
    place_in,
    position_from_text,
    position_in,
    timestamp_text,
)

NOON = datetime(2025, 1, 15, 12, tzinfo=UTC)
NOON_MS = 1_736_942_400_000
NOT_UTF8 = RawValue(STRING, struct.pack("<i", 3) + b"\xff\xfe\0")
OBJECT_ID = ObjectId("65a5000000000000000000a1")

TEXTS: list[tuple[Any, str]] = [
    (OBJECT_ID, '{"$oid": "65a5000000000000000000a1"}'),
    (43, '{"$numberInt": "43"}'),
    (Int64(43), '{"$numberLong": "43"}'),
    (7.5, '{"$numberDouble": "7.5"}'),
    ("doc-1", '"doc-1"'),
    ('a "quoted" é\n\x7f\u2028', r'"a \"quoted\" \u00e9\n\u007f\u2028"'),
    (None, "null"),
    ({"a": 1, "b": ["x", None]}, '{"a": {"$numberInt": "1"}, "b": ["x", null]}'),
    (Binary(bytes(16), 4), '{"$binary": {"base64": "AAAAAAAAAAAAAAAAAAAAAA==", "subType": "04"}}'),
]

# Each of these was once read back as another value, or not at all.
MISLEADING: list[Any] = [
    {"$date": "2030-01-01T00:00:00Z"},
    {"$date": "today"},
    {"$numberLong": "5"},
    {"$oid": "zz"},
    {"$oid": "65a5000000000000000000a1"},
    {"$bson": "AAAA"},
    {"a": {"$binary": 1}},
    {"a": [{"$uuid": 5}]},
    DBRef("c", 1),
    Binary(bytes(15), 4),
    Binary(bytes(16), 4),
    Binary(b"x", 2),
    Binary(b"x", 3),
    Code("a"),
    Code("a", {"$oid": 1}),
    Regex("a", "i"),
    Decimal128("1E+6000"),
    Decimal128("NaN"),
    float("nan"),
    -0.0,
    Timestamp(2**32 - 1, 2**32 - 1),
    DatetimeMS(2**63 - 1),
    DatetimeMS(-(2**63)),
    MinKey(),
    MaxKey(),
    NOT_UTF8,
    RawValue(UNDEFINED, b""),
    RawValue(DOCUMENT, document_of([(b"a", RawValue(UNDEFINED, b""))])),
]


def raw(*fields: tuple[str, Any]) -> bytes:
    """A document that may have duplicate names and `RawValue`s."""
    return document_of((name.encode(), raw_value(value)) for name, value in fields)


@pytest.mark.parametrize(("value", "text"), TEXTS)
def test_text_of_a_usual_id_is_canonical_extended_json(value: Any, text: str) -> None:
    """In ASCII, with control characters escaped, so that it fits a line of the log."""
    assert id_text(value) == text
    assert raw_value(id_from_text(text)) == raw_value(value)


@pytest.mark.parametrize("value", [*(value for value, _ in TEXTS), *MISLEADING])
def test_values_of_any_type_are_read_back_unchanged(value: Any) -> None:
    """To the byte, as `_id` and as timestamp."""
    text = id_text(value)
    assert text.isascii()
    assert text.isprintable()
    assert raw_value(id_from_text(text)) == raw_value(value)
    again = position_from_text(Position(value, value).text())
    assert (raw_value(again.timestamp), raw_value(again.id)) == (raw_value(value), raw_value(value))


def test_timestamp_that_looks_like_extended_json_is_no_date() -> None:
    """A sub-document sorts before all dates, also `{"$date": …}` of the year 2030."""
    text = Position({"$date": "2030-01-01T00:00:00Z"}, 1).text()
    assert text.startswith("<")
    assert position_from_text(text).ms is None


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        (DatetimeMS(NOON_MS), "1736942400000"),
        (DatetimeMS(-(2**63)), "-9223372036854775808"),
        (None, "<BwAAAAoAAA"),
        ("a b\nc", "<EQAAAAIABgAAAGEgYgpjAAA"),
        (Timestamp(0, 0), ">DwAAABEAAAAAAAAAAAAA"),
    ],
)
def test_first_character_of_a_timestamp_shows_its_class(timestamp: Any, text: str) -> None:
    """A digit or a minus: a date; `<`: sorts before all dates; `>`: sorts after them."""
    assert timestamp_text(timestamp) == text
    assert Position(timestamp, "a b").text() == f'{text} "a b"'


@pytest.mark.parametrize("position", [FIRST, FIRST_DATE, AFTER_DATES, LAST])
def test_ends_of_a_collection_have_texts(position: Position) -> None:
    assert position_from_text(position.text()) == position


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "x 1",
        "1_0 1",
        "9223372036854775808 1",
        "<!!! 1",
        "<AAAA 1",
        "<BgAAAAoAAA",
        '{"timestamp": {"$date": "today"}, "id": 1}',
        '5 {"$oid": "zz"}',
        '5 {"$uuid": 5}',
        '5 {"$binary": 1}',
        '5 {"$timestamp": 1}',
        '5 {"$numberDecimal": "x"}',
        '5 {"$code": 1}',
        '5 {"$regularExpression": 1}',
        '5 {"$dbPointer": 1}',
        '5 {"$date": []}',
        '5 {"$bson": "AAAA"}',
        "5 12345678901234567890",
        "5 {broken",
        '5 "\\ud800"',
        "5 " + "[" * 100_000,
    ],
)
def test_malformed_texts_raise_malformed_text(text: str) -> None:
    """Callers handle it: they read the document again or start over."""
    with pytest.raises(MalformedText):
        position_from_text(text)


def test_readable_ids_are_written_as_in_a_shell() -> None:
    """Bytes that are not UTF-8 are replaced."""
    uuid = Binary(bytes(range(16)), 4)
    assert readable_id(OBJECT_ID) == "ObjectId('65a5000000000000000000a1')"
    assert readable_id(uuid) == "UUID('00010203-0405-0607-0809-0a0b0c0d0e0f')"
    assert readable_id(Int64(43)) == "43"
    assert readable_id(Binary(b"a", 4)) == '{"$binary": {"base64": "YQ==", "subType": "04"}}'
    assert readable_id(NOT_UTF8) == r'"\ufffd\ufffd"'
    assert readable_id({"a": uuid}).startswith('{"a": {"$binary"')
    assert [id_from_readable(readable_id(one)) for one in (OBJECT_ID, uuid)] == [OBJECT_ID, uuid]
    with pytest.raises(MalformedText):
        id_from_readable("UUID('------------------------------------')")


@pytest.mark.parametrize("document_id", [OBJECT_ID, "a", 5, Int64(5), 5.5, True, None, {"a": 1}, b"x"])
@pytest.mark.parametrize("timestamp", [NOON, None, 5, "text", [NOON], DatetimeMS(2**60), {"$date": "today"}])
def test_place_in_equals_position_in(document_id: Any, timestamp: Any) -> None:
    """The fast and the general implementation agree."""
    document = raw(("_id", document_id), ("updated_at", timestamp), ("n", 1))
    place = place_in(decode(document), "updated_at", document)
    position = position_in(document, "updated_at")
    assert (
        place == position.place() == (timestamp_text(position.timestamp), position.ms, id_text(position.id))
    )
    assert order(position.id) == order(document_id)


def test_first_of_two_timestamps_counts() -> None:
    """As in MongoDB's index; the decoder of the driver keeps the last one."""
    for first in (NOON, "text", None, RawValue(UNDEFINED, b"")):
        document = raw(("_id", 1), ("updated_at", first), ("updated_at", datetime(2030, 1, 1, tzinfo=UTC)))
        once = raw(("_id", 1), ("updated_at", first))
        place = place_in(decode(document), "updated_at", document)
        assert place == position_in(document, "updated_at").place() == position_in(once, "updated_at").place()


def test_timestamp_inside_another_field_is_ignored() -> None:
    """Before and after the timestamp of the document, and without one."""
    inner = {"updated_at": datetime(2030, 1, 1, tzinfo=UTC)}
    for fields in (("a", inner), ("updated_at", NOON)), (("updated_at", NOON), ("a", inner)):
        document = raw(("_id", 1), *fields)
        assert place_in(decode(document), "updated_at", document)[1] == NOON_MS
    document = raw(("_id", 1), ("a", inner))
    assert place_in(decode(document), "updated_at", document)[1] is None


def test_dotted_timestamp_is_found() -> None:
    """Of a duplicate part the first one counts."""
    document = raw(("_id", 1), ("meta", {"at": {"ms": NOON}}), ("meta", {"at": 5}))
    assert place_in(decode(document), "meta.at.ms", document)[1] == NOON_MS
    for other in ("meta.at.x", "meta.x.ms", "meta.at.ms.x", "x.at.ms"):
        assert position_in(document, other).timestamp is None


@pytest.mark.parametrize(
    ("meta", "found"),
    [
        ([{"at": NOON}, {"at": 5}, {"x": 1}, 7, [{"at": 6}]], [DatetimeMS(NOON_MS), 5]),
        ([], []),
        ({"at": [NOON]}, [DatetimeMS(NOON_MS)]),
        ({"at": []}, []),
    ],
)
def test_path_through_an_array_gives_an_array(meta: Any, found: list[Any]) -> None:
    """Such a document has one index entry for each member, so no position to resume from."""
    position = position_in(raw(("_id", 1), ("meta", meta)), "meta.at")
    assert position.is_array()
    assert raw_value(position.timestamp) == raw_value(found)


def test_array_of_types_without_python_value_is_an_array() -> None:
    items = bson.encode({"0": 1}).replace(b"\x100\0\x01\0\0\0", b"\x060\0").replace(b"\x0c", b"\x08", 1)
    position = position_in(raw(("_id", 1), ("updated_at", RawValue(ARRAY, items))), "updated_at")
    assert position.is_array()
    assert raw_value(position.timestamp) == RawValue(ARRAY, items)


def test_document_without_id_has_the_position_of_null() -> None:
    """A time-series collection may contain such documents."""
    assert position_in(raw(("updated_at", NOON)), "updated_at") == Position(DatetimeMS(NOON_MS), None)
