"""Stage 1 and its fake: pages in index order, for every BSON type."""

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

# In the order of MongoDB; each may be an _id.
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

# In the order of MongoDB; a missing one counts as null.
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
    """The numbers of the documents on these pages."""
    return [bson.decode(raw, LENIENT)["n"] for page in pages for raw in page]


def number(raws: Sequence[bytes]) -> list[int]:
    """The numbers of the documents."""
    return numbers([raws])


def document(document_id: Any, moment: Any, n: int = 0, **more: Any) -> dict[str, Any]:
    """A document with a position and a number."""
    return {"_id": document_id, "updated_at": moment, "n": n} | more


def broken(document_id: bytes, n: int) -> bytes:
    """A document whose `_id` is a string that is not UTF-8."""
    whole = bson.encode(document("?" * len(document_id), NOON, n))
    return whole.replace(b"?" * len(document_id), document_id)


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_contain_ids_of_every_type_in_order(store: Store, limit: int) -> None:
    """At any page size."""
    store.add(*(document(i, NOON, n) for n, i in reversed(list(enumerate(IDS)))))
    assert numbers(store.pages(limit)) == list(range(len(IDS)))


@pytest.mark.parametrize("limit", [1, 4, 100])
def test_pages_contain_timestamps_of_every_type_in_order(store: Store, limit: int) -> None:
    store.add(*(document(-n, moment, n) for n, moment in enumerate(MOMENTS)))
    assert numbers(store.pages(limit)) == list(range(len(MOMENTS)))


def test_missing_timestamp_is_ordered_as_null(store: Store) -> None:
    """By `_id`, and before all others."""
    store.add(document(2, None, 1), {"_id": 1, "n": 0}, {"_id": 3, "n": 2}, document(0, NOON, 3))
    assert numbers(store.pages(1)) == [0, 1, 2, 3]


def test_pages_continue_by_id_within_one_timestamp(store: Store) -> None:
    store.add(*(document(n, NOON, n) for n in range(10)), document(-1, LATER, 10))
    assert numbers(store.pages(3)) == list(range(11))


def test_lower_bound_is_exclusive(store: Store) -> None:
    """A position between documents excludes none."""
    store.add(*(document(n, NOON, n) for n in range(3)))
    here = position_of(NOON, 1)
    assert number(store.reader.page(here, LAST, 10).documents) == [2]
    assert number(store.reader.page(position_of(NOON, 0.5), LAST, 10).documents) == [1, 2]
    assert number(store.reader.page(at(NOON_MS), LAST, 10).documents) == [0, 1, 2]
    assert store.reader.page(after(NOON_MS), LAST, 10).documents == []


def test_upper_bound_is_exclusive(store: Store) -> None:
    store.add(*(document(n, NOON, n) for n in range(3)))
    assert number(store.reader.page(FIRST, position_of(NOON, 2), 10).documents) == [0, 1]
    assert store.reader.page(FIRST, at(NOON_MS), 10).documents == []


def test_dates_end_before_bson_timestamps(store: Store) -> None:
    """A scan of the dates includes the greatest possible date."""
    store.add(document(1, DatetimeMS(2**63 - 1), 1), document(2, Timestamp(0, 1), 2), document(3, None, 3))
    assert number(store.reader.page(at(0), AFTER_DATES, 10).documents) == [1]


def test_page_has_last_position_and_whether_more_follow(store: Store) -> None:
    store.add(document("a", NOON), document("b", LATER))
    page = store.reader.page(FIRST, LAST, 10)
    assert (page.last, page.more) == (position_of(LATER, "b"), False)
    page = store.reader.page(position_of(LATER, "b"), LAST, 10)
    assert (page.documents, page.last, page.more) == ([], None, False)


def test_insertion_ahead_of_the_position_is_read(store: Store) -> None:
    """An insertion behind it is not."""
    store.add(document(5, NOON, 5))
    [[_]] = store.pages(10)
    store.add(document(4, NOON, 4), document(6, NOON, 6))
    assert number(store.reader.page(position_of(NOON, 5), LAST, 10).documents) == [6]


def test_fetch_returns_documents_in_order(store: Store) -> None:
    """Of position, not of the arguments; missing ones are left out."""
    store.add(document("a", LATER, 1), document({"x": 1}, NOON, 0), document(3, NOON, 9))
    assert number(store.reader.fetch(["missing", "a", {"x": 1}])) == [0, 1]
    assert store.reader.fetch([]) == []


@pytest.mark.parametrize("moment", [None, 5, "2025-01-15T12:00:00Z", True, Timestamp(1, 1), {"a": NOON}])
def test_undated_document_is_unreachable(store: Store, moment: Any) -> None:
    """With a timestamp of any other type."""
    store.add(document(1, moment), document(2, NOON), document(3, DatetimeMS(2**63 - 1)))
    assert store.reader.unreachable() == 1


def test_dated_documents_are_reachable(store: Store) -> None:
    """Also with extreme dates; an empty collection has no unreachable documents."""
    assert store.reader.unreachable() == 0
    store.add(document(1, DatetimeMS(-(2**63))), document(2, NOON))
    assert store.reader.unreachable() == 0


def test_document_without_timestamp_is_unreachable(store: Store) -> None:
    store.add({"_id": 1})
    assert store.reader.unreachable() == 1


def test_of_kind_returns_matching_documents_newest_first(store: Store) -> None:
    """In batches. Null matches a missing field."""
    typed = [document(n, NOON - timedelta(n), n, tipo="a" if n % 2 else None) for n in range(5)]
    store.documents.insert_many([*typed, {"_id": "without", "updated_at": LATER, "n": 5}])
    assert numbers(list(store.reader.of_kind({"tipo": ["a"]}, 1))) == [1, 3]
    assert numbers(list(store.reader.of_kind({"tipo": ["b", None]}, 2))) == [5, 0, 2, 4]


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_pages_continue_after_ids_that_are_not_utf8(store: Store, limit: int) -> None:
    """They are ordered by their bytes."""
    store.add_raw(broken(b"\xff\xff", 3))
    store.add_raw(broken(b"\xff\xfe", 2))
    store.add(document("a", NOON, 1), document(ObjectId(), NOON, 4), document(1, NOON, 0))
    assert numbers(store.pages(limit)) == [0, 1, 2, 3, 4]
    [raw] = store.reader.fetch([RawValue(codec.STRING, b"\3\0\0\0\xff\xfe\0")])
    assert number([raw]) == [2]


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_undefined_timestamp_is_ordered_before_null_and_missing(store: Store, limit: int) -> None:
    """Null and missing are equal in the index."""
    for n in range(4):
        store.add_raw(document_of([*fields(_id=n, n=n), (b"updated_at", UNDEFINED)]))
    store.add(*({"_id": n, "n": n} | ({"updated_at": None} if n % 2 else {}) for n in range(4, 9)))
    assert numbers(store.pages(limit)) == list(range(9))


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_first_of_two_timestamps_gives_the_position(store: Store, limit: int) -> None:
    """With a later second one nothing is skipped, and with an earlier one the scan ends."""
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
    """Fields as arguments of `document_of`."""
    return [(name.encode(), raw_value(value)) for name, value in values.items()]


def test_undecodable_document_is_returned_unchanged(store: Store) -> None:
    raw = bson.encode(document(1, NOON, texto="?")).replace(b"?", b"\xff")
    store.add_raw(raw)
    assert store.reader.page(FIRST, LAST, 10).documents == [raw]
    assert store.reader.fetch([1]) == [raw]


def test_scan_resumes_after_any_document(store: Store) -> None:
    store.add(*(document(i, NOON, n) for n, i in enumerate(IDS)))
    for n, document_id in enumerate(IDS):
        rest = store.pages(5, Position(DatetimeMS(NOON_MS), document_id))
        assert numbers(rest) == list(range(n + 1, len(IDS)))


def test_clock_is_in_milliseconds(store: Store) -> None:
    """The server runs on this machine."""
    assert abs(store.reader.clock() - time.time() * 1000) < 10_000
