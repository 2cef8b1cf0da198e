"""Stage 1 and its twin: pages in index order, over every BSON type."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import bson
import pytest
from bson import Binary, Code, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp
from bson.datetime_ms import DatetimeMS

from schemas import codec
from schemas.codec import LENIENT, RawValue, document_of, raw_value
from schemas.position import AFTER_DATES, FIRST, LAST, Position, after, at, position_in, position_of
from tests.support.store import Store

NOON = datetime(2025, 1, 15, 12, tzinfo=UTC)
NOON_MS = 1_736_942_400_000
LATER = NOON + timedelta(milliseconds=1)

# In MongoDB's order; all of these can be an _id.
IDS: Sequence[Any] = (
    MinKey(),
    Int64(-1),
    0,
    0.5,
    Decimal128("0.75"),
    1,
    Int64(2**53 + 1),
    "",
    "B",
    "a",
    "é",
    {"a": 1},
    {"a": 1, "b": 1},
    {"a": "1"},
    b"z",
    Binary(b"z", 5),
    b"aa",
    b"\0\0\0\0",
    Binary(b"\0", 2),
    Binary.from_uuid(UUID(int=5)),
    ObjectId("5f5f5f5f5f5f5f5f5f5f5f5f"),
    False,
    True,
    DatetimeMS(0),
    Timestamp(1, 1),
    Code("b"),
    Code("a", {}),
    MaxKey(),
)

UNDEFINED: Any = RawValue(codec.UNDEFINED, b"")

# In MongoDB's order; a missing one counts as null.
MOMENTS: Sequence[Any] = (
    MinKey(),
    UNDEFINED,
    None,
    5,
    "2025-01-15T12:00:00Z",
    RawValue(codec.STRING, b"\2\0\0\0\xff\0"),
    {"seconds": 5},
    {"$date": "2030-01-01T00:00:00Z"},
    {"$numberLong": "5"},
    True,
    DatetimeMS(-(2**63)),
    DatetimeMS(-1),
    NOON,
    LATER,
    DatetimeMS(2**60),
    Timestamp(1, 1),
    Code("b"),
    Code("a", {"x": 1}),
    MaxKey(),
)


def numbers(pages: Sequence[Sequence[bytes]]) -> list[int]:
    """The documents of these pages, by number."""
    return [bson.decode(raw, LENIENT)["n"] for page in pages for raw in page]


def number(raws: Sequence[bytes]) -> list[int]:
    """The documents, by number."""
    return numbers([raws])


def document(document_id: Any, moment: Any, n: int = 0, **more: Any) -> dict[str, Any]:
    """A document of which only its position and its number matter."""
    return {"_id": document_id, "updated_at": moment, "n": n} | more


def broken(document_id: bytes, n: int) -> bytes:
    """A document whose `_id` is a string that is not UTF-8."""
    whole = bson.encode(document("?" * len(document_id), NOON, n))
    return whole.replace(b"?" * len(document_id), document_id)


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_of_mixed_ids(store: Store, limit: int) -> None:
    """Every document comes once, in the order of the types and values of its `_id`, at any page size."""
    store.add(*(document(i, NOON, n) for n, i in reversed(list(enumerate(IDS)))))
    assert numbers(store.pages(limit)) == list(range(len(IDS)))


@pytest.mark.parametrize("limit", [1, 4, 100])
def test_pages_of_mixed_timestamps(store: Store, limit: int) -> None:
    """Whatever the timestamp is, its document comes once and in order."""
    store.add(*(document(-n, moment, n) for n, moment in enumerate(MOMENTS)))
    assert numbers(store.pages(limit)) == list(range(len(MOMENTS)))


def test_a_missing_timestamp_stands_where_null_does(store: Store) -> None:
    """Both are told apart by their `_id` only, and come before every other."""
    store.add(document(2, None, 1), {"_id": 1, "n": 0}, {"_id": 3, "n": 2}, document(0, NOON, 3))
    assert numbers(store.pages(1)) == [0, 1, 2, 3]


def test_ties(store: Store) -> None:
    """Documents on one timestamp that do not fit a page are read on by their `_id`."""
    store.add(*(document(n, NOON, n) for n in range(10)), document(-1, LATER, 10))
    assert numbers(store.pages(3)) == list(range(11))


def test_the_lower_bound_is_exclusive(store: Store) -> None:
    """The document at the position is left out; a position between documents leaves none out."""
    store.add(*(document(n, NOON, n) for n in range(3)))
    here = position_of(NOON, 1)
    assert number(store.reader.page(here, LAST, 10).documents) == [2]
    assert number(store.reader.page(position_of(NOON, 0.5), LAST, 10).documents) == [1, 2]
    assert number(store.reader.page(at(NOON_MS), LAST, 10).documents) == [0, 1, 2]
    assert store.reader.page(after(NOON_MS), LAST, 10).documents == []


def test_the_upper_bound_is_exclusive(store: Store) -> None:
    """The document at the end is left out."""
    store.add(*(document(n, NOON, n) for n in range(3)))
    assert number(store.reader.page(FIRST, position_of(NOON, 2), 10).documents) == [0, 1]
    assert store.reader.page(FIRST, at(NOON_MS), 10).documents == []


def test_dates_end_where_timestamps_begin(store: Store) -> None:
    """A scan of the dates has the last one there can be, and no BSON timestamp."""
    store.add(document(1, DatetimeMS(2**63 - 1), 1), document(2, Timestamp(0, 1), 2), document(3, None, 3))
    assert number(store.reader.page(at(0), AFTER_DATES, 10).documents) == [1]


def test_what_a_page_says(store: Store) -> None:
    """The last page says that it is, and each one where to read on."""
    store.add(document("a", NOON), document("b", LATER))
    page = store.reader.page(FIRST, LAST, 10)
    assert (page.last, page.more) == (position_of(LATER, "b"), False)
    page = store.reader.page(position_of(LATER, "b"), LAST, 10)
    assert (page.documents, page.last, page.more) == ([], None, False)


def test_a_document_behind_the_position_is_not_seen(store: Store) -> None:
    """Between two pages, what is inserted ahead is found, and what is inserted behind is not."""
    store.add(document(5, NOON, 5))
    [[_]] = store.pages(10)
    store.add(document(4, NOON, 4), document(6, NOON, 6))
    assert number(store.reader.page(position_of(NOON, 5), LAST, 10).documents) == [6]


def test_fetch(store: Store) -> None:
    """The documents that exist come in order of position, not of the question; missing ones are left out."""
    store.add(document("a", LATER, 1), document({"x": 1}, NOON, 0), document(3, NOON, 9))
    assert number(store.reader.fetch(["missing", "a", {"x": 1}])) == [0, 1]
    assert store.reader.fetch([]) == []


@pytest.mark.parametrize("moment", [None, 5, "2025-01-15T12:00:00Z", True, Timestamp(1, 1), {"a": NOON}])
def test_a_document_without_a_date_is_unreachable(store: Store, moment: Any) -> None:
    """Whatever else the timestamp is, the document is counted."""
    store.add(document(1, moment), document(2, NOON), document(3, DatetimeMS(2**63 - 1)))
    assert store.reader.unreachable() == 1


def test_nothing_is_unreachable(store: Store) -> None:
    """Dates are reached, however far away; so is nothing at all."""
    assert store.reader.unreachable() == 0
    store.add(document(1, DatetimeMS(-(2**63))), document(2, NOON))
    assert store.reader.unreachable() == 0


def test_a_missing_timestamp_is_unreachable(store: Store) -> None:
    """A document that has none is counted."""
    store.add({"_id": 1})
    assert store.reader.unreachable() == 1


def test_of_kind(store: Store) -> None:
    """What matches comes newest first, some at a time; a missing field is matched by null."""
    typed = [document(n, NOON - timedelta(n), n, tipo="a" if n % 2 else None) for n in range(5)]
    store.documents.insert_many([*typed, {"_id": "without", "updated_at": LATER, "n": 5}])
    assert numbers(list(store.reader.of_kind({"tipo": ["a"]}, 1))) == [1, 3]
    assert numbers(list(store.reader.of_kind({"tipo": ["b", None]}, 2))) == [5, 0, 2, 4]


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_ids_that_are_not_utf8(store: Store, limit: int) -> None:
    """They are read on from as any other: by their bytes, in the order of those."""
    store.add_raw(broken(b"\xff\xff", 3))
    store.add_raw(broken(b"\xff\xfe", 2))
    store.add(document("a", NOON, 1), document(ObjectId(), NOON, 4), document(1, NOON, 0))
    assert numbers(store.pages(limit)) == [0, 1, 2, 3, 4]
    [raw] = store.reader.fetch([RawValue(codec.STRING, b"\3\0\0\0\xff\xfe\0")])
    assert number([raw]) == [2]


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_undefined_among_null_and_missing(store: Store, limit: int) -> None:
    """It comes before both, which are one to the index."""
    for n in range(4):
        store.add_raw(document_of([*fields(_id=n, n=n), (b"updated_at", UNDEFINED)]))
    store.add(*({"_id": n, "n": n} | ({"updated_at": None} if n % 2 else {}) for n in range(4, 9)))
    assert numbers(store.pages(limit)) == list(range(9))


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_a_timestamp_that_is_there_twice(store: Store, limit: int) -> None:
    """The document stands where the first one says: a later second one skips nothing, an earlier one ends."""
    for n in range(7):
        moments = [NOON + timedelta(seconds=n)]
        if n in {1, 4}:
            moments.append(NOON + timedelta(days=1 if n == 1 else -1))
        store.add_raw(
            document_of([*fields(_id=n, n=n), *((b"updated_at", raw_value(one)) for one in moments)])
        )
    assert numbers(store.pages(limit)) == list(range(7))
    assert [position_in(raw, "updated_at").ms for raw in store.reader.fetch([1, 4])] == [
        NOON_MS + 1000,
        NOON_MS + 4000,
    ]


def fields(**values: Any) -> list[tuple[bytes, RawValue]]:
    """Fields for a document made of bytes."""
    return [(name.encode(), raw_value(value)) for name, value in values.items()]


def test_an_undecodable_field_comes_as_it_is(store: Store) -> None:
    """The bytes of a document that cannot be decoded are handed on."""
    raw = bson.encode(document(1, NOON, texto="?")).replace(b"?", b"\xff")
    store.add_raw(raw)
    assert store.reader.page(FIRST, LAST, 10).documents == [raw]
    assert store.reader.fetch([1]) == [raw]


def test_positions_are_read_on_from_after_any_document(store: Store) -> None:
    """Wherever a reader stopped, exactly the documents after that one are left."""
    store.add(*(document(i, NOON, n) for n, i in enumerate(IDS)))
    for n, document_id in enumerate(IDS):
        rest = store.pages(5, Position(DatetimeMS(NOON_MS), document_id))
        assert numbers(rest) == list(range(n + 1, len(IDS)))


def test_the_clock_tells_milliseconds(store: Store) -> None:
    """It is near that of this machine, on which the server runs."""
    assert abs(store.reader.clock() - time.time() * 1000) < 10_000
