"""Edge cases of pages, of the overlap, and of positions."""

from datetime import datetime, timedelta
from typing import Any

import pytest
import redis
from bson import BSON, Decimal128, Int64, ObjectId, Timestamp
from bson.binary import Binary, UuidRepresentation
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.collection import Collection

from etl.app import App
from tests.factories import api
from tests.support.pipeline import Clock, OpenApp, sync
from tests.support.types import Document


@pytest.fixture
def unindexed(collection: Collection[Document], monkeypatch: pytest.MonkeyPatch) -> None:
    """Drop the index, and use pages of the configured size instead of 10,000 documents."""
    collection.drop_indexes()
    monkeypatch.setattr("etl.mongo.reader._UNINDEXED_PAGE", 1)


def test_late_commits_on_a_timestamp_already_read_are_applied(
    open_app: OpenApp, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """With `_id`s before, between and after those that were applied."""
    moment = clock.ago(10)
    app = open_app(page_size=7)
    collection.insert_many([api(f"n{number}", moment, _id=number) for number in range(100, 200, 2)])
    assert sync(app).records_processed == 50

    late = [*range(50, 60), *range(101, 201, 2), *range(300, 310)]
    collection.insert_many([api(f"n{number}", moment, _id=number) for number in late])
    assert sync(app).records_processed == len(late)
    assert len(redis_client.keys("config:api:n*")) == 50 + len(late)


@pytest.mark.parametrize(("overlap", "found"), [(120, 1), (30, 0)])
def test_late_commit_is_found_within_the_overlap_only(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    mongo_client: MongoClient[Document],
    overlap: int,
    found: int,
) -> None:
    """A document in a transaction, dated 60 s before the watermark.

    A shorter overlap does not find it: the setting must fit the transactions.
    """
    app = open_app(overlap_seconds=overlap)
    late, newer = clock.ago(60), clock.ago(0)
    with mongo_client.start_session() as session:
        with session.start_transaction():
            collection.insert_one(api("late", late), session=session)
            collection.insert_one(api("newer", newer))
            first = sync(app)
            assert first.records_processed == 1
            assert str(first.last_timestamp) > late.isoformat()
        assert collection.count_documents({}) == 2
    assert sync(app).records_processed == found


IDS: list[Any] = [
    ObjectId(),
    7,
    Int64(2**40),
    7.5,
    Decimal128("7.25"),
    float("nan"),
    float("-inf"),
    "text",
    "",
    Binary(bytes(16), 4),
    Binary(b"raw", 0),
    Binary(b"own", 128),
    True,
    False,
    None,
    Timestamp(5, 1),
    {"a": 1, "b": {"c": [1, "x", None]}},
    {"a": 1.5},
    {},
]


def check_ids_of_every_type(app: App, collection: Collection[Document], moment: datetime) -> None:
    """Insert a document of each type, then update all: a cycle applies each, and the next one none."""
    ids = [*IDS, moment]
    standard = CodecOptions[Document](uuid_representation=UuidRepresentation.STANDARD)
    mixed = collection.with_options(standard)
    mixed.insert_many([api(f"n{number}", moment, _id=value) for number, value in enumerate(ids)])
    assert [sync(app).records_processed for _ in range(2)] == [len(ids), 0]

    mixed.update_many({}, {"$set": {"updated_at": moment + timedelta(seconds=1), "status": "touched"}})
    assert [sync(app).records_processed for _ in range(2)] == [len(ids), 0]


@pytest.mark.parametrize("page_size", [1, 3, 500])
def test_ids_of_every_type_on_one_timestamp_are_read(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    page_size: int,
) -> None:
    """No type of `_id` hides another, wherever a page ends."""
    check_ids_of_every_type(open_app(page_size=page_size), collection, clock.ago(10))
    statuses = [redis_client.hget(key, "status") for key in redis_client.scan_iter("config:api:n*")]
    assert statuses == ["touched"] * (len(IDS) + 1)


@pytest.mark.parametrize("page_size", [1, 3, 500])
@pytest.mark.usefixtures("unindexed")
def test_ids_of_every_type_are_read_without_the_index(
    open_app: OpenApp, clock: Clock, collection: Collection[Document], page_size: int
) -> None:
    check_ids_of_every_type(open_app(page_size=page_size), collection, clock.ago(10))


def test_undated_documents_are_counted_without_the_index(
    app: App, clock: Clock, collection: Collection[Document]
) -> None:
    collection.drop_indexes()
    collection.insert_many([api("a", None), api("b", "text"), api("c", clock.ago(1))])
    assert sync(app).unreachable == 2


def test_document_with_an_array_without_dates_is_unreachable(
    app: App, collection: Collection[Document]
) -> None:
    """No delta reads it."""
    sync(app)
    collection.insert_many([api("a", []), api("b", [1, "x"])])
    report = sync(app)
    assert (report.unreachable, report.dead_lettered) == (2, 0)


def damaged(document: Document, old: bytes, new: bytes) -> RawBSONDocument:
    """The document with some bytes replaced."""
    raw = bytes(BSON.encode(document))
    assert raw.count(old) == 1
    assert len(old) == len(new)
    return RawBSONDocument(raw.replace(old, new))


@pytest.mark.parametrize("page_size", [1, 2, 500])
def test_ids_that_are_not_utf8_hide_no_others(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    page_size: int,
) -> None:
    """More of them than fit a page, with valid documents before, between and after."""
    moment = clock.ago(10)
    broken = [damaged(api("x", moment, _id=f"bYZ{n}"), b"YZ", b"\x80\xff") for n in range(5)]
    bad: Collection[Any] = collection
    bad.insert_many(broken)
    collection.insert_many([api(name, moment, _id=name) for name in ("a", "bz", "b\xe9", "b\uffff", "c")])

    report = sync(open_app(page_size=page_size))
    assert (report.records_processed, report.dead_lettered) == (5, 5)
    assert len(redis_client.keys("config:api:*")) == 5
    assert sync(open_app(page_size=page_size)).records_processed == 0


def test_documents_written_before_the_clock_was_set_forward_are_found(
    app: App, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    sync(app)
    collection.insert_one(api("before", clock.ago(0)))
    clock.forward(3_600)
    collection.insert_one(api("after", clock.ago(0)))
    assert sync(app).records_processed == 2
    assert sync(app).records_processed == 0
    assert redis_client.exists("config:api:before", "config:api:after") == 2
