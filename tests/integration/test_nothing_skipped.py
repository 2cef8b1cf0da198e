"""Every document is read once, in order, with any date, `_id` and time of commit."""

import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from bson import Binary, Decimal128, Int64, ObjectId, Timestamp
from bson.datetime_ms import DatetimeMS
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database

from etl.mongo.reader import MongoReader
from schemas.bson_order import order
from tests.factories import api, campaign
from tests.support.pipeline import STATE_PREFIX, Clock, OpenApp, sync
from tests.support.redis_dump import hash_at, held
from tests.support.truth import truth
from tests.support.types import Document

IDS: list[Any] = [
    ObjectId(),
    7,
    Int64(2**60),
    2.5,
    -1.0,
    Decimal128("2.75"),
    "text",
    "",
    {"a": 1},
    {"a": 1, "b": [1, 2]},
    {"a": "x"},
    uuid.uuid4(),
    b"\x00",
    Binary(b"zz", 128),
    True,
    None,
    datetime(2025, 1, 1, tzinfo=UTC),
    Timestamp(5, 5),
]
"""`_id`s of many types."""


def named(number: int, moment: Any, **fields: Any) -> Document:
    """A document with its own key."""
    return api(f"p{number}", moment, **fields)


def stored(document_id: Any) -> Any:
    """An `_id` as the driver accepts it."""
    return Binary.from_uuid(document_id) if isinstance(document_id, uuid.UUID) else document_id


@pytest.mark.parametrize(("count", "page_size"), [(10_000, 500), (1_000, 7)])
def test_thousands_of_documents_on_one_timestamp_are_read_once(
    open_app: OpenApp,
    collection: Collection[Document],
    redis_client: redis.Redis,
    clock: Clock,
    count: int,
    page_size: int,
) -> None:
    """Pages end between equal dates."""
    app = open_app(page_size=page_size)
    sync(app)
    moment = clock.now()
    collection.insert_many([named(number, moment) for number in range(count)])

    assert sync(app).records_processed == count
    assert sum(1 for _ in redis_client.scan_iter("config:api:*", count=5000)) == count
    assert sync(app).records_processed == 0


def test_nothing_is_skipped_without_the_index(
    open_app: OpenApp, database: Database[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """Each page reads the whole collection, in the same order."""
    collection = database["promptContent"]
    collection.insert_many([named(n, clock.now(), _id=stored(i)) for n, i in enumerate(IDS)])
    assert [*collection.index_information()] == ["_id_"]
    app = open_app(page_size=3)
    assert sync(app).records_processed == len(IDS)

    collection.insert_many([named(100 + number, clock.now()) for number in range(50)])
    assert sync(app).records_processed == 50
    assert held(redis_client) == truth(collection)


@pytest.mark.parametrize("page_size", [1, 4])
def test_ids_of_many_types_on_one_timestamp_are_read_once(
    open_app: OpenApp,
    collection: Collection[Document],
    redis_client: redis.Redis,
    clock: Clock,
    page_size: int,
) -> None:
    app = open_app(page_size=page_size)
    sync(app)
    moment = clock.now()
    collection.insert_many([named(n, moment, _id=stored(i)) for n, i in enumerate(IDS)])

    assert sync(app).records_processed == len(IDS)
    assert held(redis_client) == truth(collection)
    assert sync(app).records_processed == 0


def test_positions_sort_as_mongodb_sorts(database: Database[Document]) -> None:
    """`order` agrees with the server, across types and in nested values."""
    values = [
        *(stored(value) for value in IDS),
        *[float("nan"), float("-inf"), float("inf"), 0, -0.0, 0.1, Decimal128("0.1"), Int64(2**53 + 1)],
        *[2.0**53, Decimal128("NaN"), "a", "B", "á", "z\u0301", "\U0001f600", "\uffff", [], [1], [1, 2]],
        *[{}, {"b": 1}, {"a": 2}, {"a": None}, b"", b"\xff" * 3, False, DatetimeMS(-1), DatetimeMS(2**60)],
    ]
    # Wrapped in a document, as a plain array would be sorted by its smallest member.
    database["wrapped"].insert_many([{"_id": n, "value": {"v": value}} for n, value in enumerate(values)])
    found = list(database["wrapped"].find({}, {"_id": 1}).sort({"value": 1, "_id": 1}))

    mongodb_order = [document["_id"] for document in found]
    local_order = sorted(range(len(values)), key=lambda n: (order({"v": values[n]}), n))
    assert local_order == mongodb_order


def test_documents_dated_in_the_future_hide_no_others(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """Ten minutes and 73 years ahead. They are applied once, and later documents too."""
    app = open_app()
    sync(app)
    collection.insert_one(named(1, clock.ago(-600)))
    collection.insert_one(named(2, clock.now() + timedelta(days=73 * 365)))
    assert sync(app).records_processed == 2
    assert sync(app).records_processed == 0

    for number in range(3, 6):
        collection.insert_one(named(number, clock.now()))
        report = sync(app)
        assert report.records_processed == 1
        assert report.last_timestamp is not None
        assert report.last_timestamp < clock.ago(-60).isoformat()
        clock.forward(300)
    assert held(redis_client) == truth(collection)


def test_transaction_committed_behind_the_watermark_is_found(
    open_app: OpenApp,
    mongo_client: MongoClient[Document],
    collection: Collection[Document],
    redis_client: redis.Redis,
    clock: Clock,
) -> None:
    """It is dated 60 seconds before its commit; newer documents were applied meanwhile."""
    app = open_app(overlap_seconds=120)
    sync(app)
    with mongo_client.start_session() as session:
        session.start_transaction()
        collection.insert_one(named(1, clock.now()), session=session)
        for number in range(2, 5):
            clock.forward(20)
            collection.insert_one(named(number, clock.now()))
            assert sync(app).records_processed == 1
        session.commit_transaction()
    assert sync(app).records_processed == 1
    assert hash_at(redis_client, "config:api:p1")
    assert sync(app).records_processed == 0


def test_undated_documents_are_counted(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """Deltas cannot reach them; a cold start applies them."""
    dates: list[Any] = [None, "2025-01-01T00:00:00Z", 1735689600000, Timestamp(1735689600, 1), True]
    documents = [named(number, moment) for number, moment in enumerate(dates)]
    del documents[0]["updated_at"]
    collection.insert_many(documents)

    report = sync(open_app())
    assert (report.mode, report.records_processed, report.unreachable) == ("cold_start", 5, 5)
    assert len(held(redis_client)) == 5

    collection.insert_one(named(9, None))
    collection.insert_one(named(10, clock.now()))
    report = sync(open_app())
    assert (report.mode, report.records_processed, report.unreachable) == ("delta", 1, 6)


def test_document_with_an_array_of_dates_is_a_dead_letter(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """It makes the index multikey. All others are applied."""
    collection.insert_many([named(number, clock.now()) for number in range(20)])
    collection.insert_one(named(99, [clock.ago(5), clock.ago(1)]))
    app = open_app(page_size=3)
    report = sync(app)
    assert (report.records_processed, report.dead_lettered > 0) == (20, True)
    collection.insert_one(named(21, clock.now()))
    assert sync(app).records_processed == 1
    assert not hash_at(redis_client, "config:api:p99")


def test_documents_written_after_the_clock_was_set_back_are_found(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """The clock steps back by ten minutes."""
    app = open_app()
    collection.insert_one(named(1, clock.now()))
    before = sync(app).last_timestamp
    clock.forward(-600)
    collection.insert_one(named(2, clock.now()))
    report = sync(app)
    assert hash_at(redis_client, "config:api:p2")
    assert report.last_timestamp == before
    collection.insert_one(named(3, clock.now()))
    sync(app)
    assert held(redis_client) == truth(collection)


@pytest.mark.parametrize("cold_start", ["full", "recent", "now"])
def test_documents_written_during_a_cold_start_are_applied(
    open_app: OpenApp,
    collection: Collection[Document],
    redis_client: redis.Redis,
    clock: Clock,
    cold_start: str,
) -> None:
    """After the writer has ended, a third sync processes none."""
    old = [named(number, clock.ago(86_400)) for number in range(600)]
    collection.insert_many(old)
    written: dict[str, datetime] = {}
    finished = threading.Event()

    def write() -> None:
        number = 10_000
        while not finished.is_set():
            moment = datetime.now(UTC)
            collection.insert_one(named(number, moment))
            written[f"config:api:p{number}"] = moment
            number += 1
            time.sleep(0.002)

    app = open_app(page_size=10, cold_start=cold_start)
    writer = threading.Thread(target=write)
    writer.start()
    while len(written) < 20:
        time.sleep(0.01)
    began = len(written)
    try:
        first = sync(app)
    finally:
        finished.set()
        writer.join()
    assert first.mode == "cold_start"
    assert len(written) > began, "nothing was written meanwhile"
    clock_then = int(redis_client.hget(f"{STATE_PREFIX}checkpoint", "mongo_clock") or 0)
    sync(app)
    assert sync(app).records_processed == 0

    keys = set(redis_client.scan_iter("config:api:*"))
    since = {key for key, moment in written.items() if moment.timestamp() * 1000 >= clock_then + 1}
    assert since
    assert (since if cold_start == "now" else set(written)) <= keys
    assert (len(keys) >= 600) == (cold_start == "full")
    assert ("config:api:p10000" in keys) == (cold_start != "now")


def test_cycle_ends_beside_a_faster_writer(
    open_app: OpenApp, collection: Collection[Document], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a page is written for every page that is read; the next cycle reads the rest."""
    app = open_app(page_size=5)
    sync(app)
    page = MongoReader.page
    pages = 0

    def page_and_insert(self: MongoReader, *arguments: Any) -> Any:
        nonlocal pages
        pages += 1
        assert pages < 50, "this cycle never ends"
        found = page(self, *arguments)
        clock.forward(0.01)
        collection.insert_many([named(100 * pages + number, clock.now()) for number in range(6)])
        return found

    collection.insert_many([named(number, clock.now()) for number in range(6)])
    with monkeypatch.context() as patch:
        patch.setattr(MongoReader, "page", page_and_insert)
        sync(app)
    sync(app)
    assert sync(app).records_processed == 0


def test_cycle_after_a_flush_is_a_cold_start(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """It enqueues requests too."""
    collection.insert_many([named(1, clock.ago(9000)), campaign("c", clock.ago(8000), estado="pendiente")])
    app = open_app()
    sync(app)
    redis_client.flushdb()
    report = sync(app)
    assert (report.mode, report.records_processed, report.enqueued) == ("cold_start", 2, 1)
    assert held(redis_client) == truth(collection)


def test_published_watermark_replaces_a_missing_checkpoint(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """The next cycle is a delta from `etl:last_sync` less the overlap."""
    collection.insert_one(named(1, clock.ago(9000)))
    app = open_app()
    sync(app)
    for key in redis_client.scan_iter("{etl:last_sync:*"):
        redis_client.delete(key)
    collection.insert_one(named(2, clock.now()))
    report = sync(app)
    assert (report.mode, report.records_processed) == ("delta", 2)
    assert sync(app).records_processed == 0


def test_page_ends_by_size(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """Also by size, not only by number."""
    for number in range(4):
        collection.insert_one(named(number, clock.now(), notas="x" * 10_000_000))
    assert sync(open_app()).records_processed == 4
    assert len(held(redis_client)) == 4
