"""Unusual documents that MongoDB accepts: they neither hide other documents nor win by mistake."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import redis
from bson import Binary, Code, DBRef, MaxKey, MinKey
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from etl.app import App, BackfillOrder
from schemas import codec
from schemas.codec import RawValue, document_of, raw_value
from tests.factories import api, resultado_mcp
from tests.support.pipeline import NAME, Clock, OpenApp, sync
from tests.support.types import Document

UNDEFINED: Any = RawValue(codec.UNDEFINED, b"")


def raw(document: Document, *more: tuple[str, Any]) -> RawBSONDocument:
    """A document of any values, followed by fields that may be duplicates."""
    fields = (*document.items(), *more)
    return RawBSONDocument(document_of((name.encode(), raw_value(value)) for name, value in fields))


def key_count(client: redis.Redis) -> int:
    """The number of written keys."""
    return len(client.keys("config:api:*"))


def synced(app: App) -> tuple[int, int]:
    """The numbers of documents that a cycle applies and rejects."""
    report = sync(app)
    return report.records_processed, report.dead_lettered


def backfilled(app: App) -> tuple[int, int]:
    """The same numbers for a backfill."""
    report = app.backfill(NAME, BackfillOrder(), lambda _: None)
    assert (report.status, report.error) == ("ok", None)
    return report.records_processed, report.dead_lettered


RUNS = [synced, backfilled]


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("second", [timedelta(minutes=59), -timedelta(days=1)], ids=["later", "earlier"])
@pytest.mark.parametrize("indexed", [True, False])
def test_document_with_two_dates_is_read_once(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Any],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    run: Callable[[App], tuple[int, int]],
    second: timedelta,
    *,
    indexed: bool,
) -> None:
    """The index has the first date. A later second one skips nothing, and with an earlier one the scan ends."""
    start = clock.ago(3600)
    moments = [start + timedelta(seconds=n) for n in range(7)]
    documents = [raw(api(f"p{n}", moment, _id=n)) for n, moment in enumerate(moments)]
    for n in (1, 3):
        twice = ("updated_at", moments[n] + second)
        documents[n] = raw(api(f"p{n}", moments[n], _id=n), twice)
    collection.insert_many(documents)
    if not indexed:
        collection.drop_indexes()
        monkeypatch.setattr("etl.mongo.reader._UNINDEXED_PAGE", 2)
    app = open_app(page_size=2)
    assert run(app) == (7, 0)
    assert key_count(redis_client) == 7
    report = app.verify(NAME)
    assert (report.true, report.documents) == (True, 7)


def test_first_of_two_dates_decides_which_document_is_newest(
    app: App, clock: Clock, collection: Collection[Any], redis_client: redis.Redis
) -> None:
    """The decoder of the driver keeps the last one."""
    old, new = clock.ago(300), clock.ago(200)
    collection.insert_many(
        [raw(api("p", old, _id=1, status="old"), ("updated_at", clock.ago(1))), api("p", new, status="new")]
    )
    sync(app)
    assert redis_client.hget("config:api:p", "status") == "new"
    assert app.verify(NAME).true


DATES: list[Any] = [
    {"$date": "2030-01-01T00:00:00Z"},
    {"$date": "today"},
    {"$numberLong": "5"},
    {"$oid": "zz"},
]


@pytest.mark.parametrize("timestamp", DATES, ids=str)
def test_timestamp_that_looks_like_extended_json_is_older_than_any_date(
    open_app: OpenApp, clock: Clock, collection: Collection[Any], redis_client: redis.Redis, timestamp: Any
) -> None:
    """Also after a round trip through Redis."""
    collection.insert_many(
        [
            raw(api("p", timestamp, _id=1, status="object")),
            api("p", clock.ago(60), _id=2, status="date"),
            api("q", clock.ago(60), _id=3),
        ]
    )
    app = open_app(page_size=1)
    assert sync(app).dead_lettered == 0
    assert (key_count(redis_client), redis_client.hget("config:api:p", "status")) == (2, "date")
    collection.update_one({"_id": 2}, {"$set": {"updated_at": clock.now(), "status": "newer"}})
    assert sync(app).records_processed == 1
    assert redis_client.hget("config:api:p", "status") == "newer"
    assert app.verify(NAME).true


def test_cold_start_resumes_among_timestamps_that_look_like_extended_json(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Any],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its cursor is read back unchanged."""
    timestamp = [raw(api(f"o{n}", {"$date": clock.ago(5).isoformat()}, _id=n)) for n in range(20)]
    dated = [api(f"d{n}", clock.ago(3600 - n), _id=100 + n) for n in range(10)]
    collection.insert_many([*timestamp, *dated])
    monkeypatch.setattr("etl.backfill.coordinator.TASK_SECONDS", 0)  # a page each
    app = open_app(page_size=1)

    def stop(report: Any) -> None:
        if report.records_processed >= 5:
            app.stop()

    [stopped] = app.sync(progress=stop)
    assert stopped.status == "failed"
    assert 5 <= key_count(redis_client) < 20
    sync(open_app(page_size=1))
    assert key_count(redis_client) == 30


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("indexed", [True, False])
def test_timestamp_path_through_an_array_is_a_dead_letter(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Any],
    redis_client: redis.Redis,
    run: Callable[[App], tuple[int, int]],
    *,
    indexed: bool,
) -> None:
    """Also for more than a page of documents."""
    moment = clock.ago(3600)
    documents = [
        api(f"p{n}", None, _id=n, meta=[{"updated_at": moment + timedelta(milliseconds=n)}])
        for n in range(604)
    ]
    plain = api("plain", None, _id="plain", meta={"updated_at": moment})
    collection.insert_many([*documents, plain])
    if indexed:
        collection.create_index([("meta.updated_at", 1), ("_id", 1)])
    app = open_app(timestamp_field="meta.updated_at")
    assert run(app) == (1, 604)
    assert key_count(redis_client) == 1
    [letter] = app.dead_letters(NAME).find(['{"$numberInt": "0"}']).values()
    assert letter.reason == "meta.updated_at is an array"


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("page_size", [1, 2, 500])
def test_undefined_null_and_missing_dates_are_all_read(
    open_app: OpenApp,
    collection: Collection[Any],
    redis_client: redis.Redis,
    run: Callable[[App], tuple[int, int]],
    page_size: int,
) -> None:
    """By a cold start and a backfill, with any page size."""
    moments = [UNDEFINED] * 5 + [None] * 15
    numbers = [*range(1, 6), *range(11, 26)]
    collection.insert_many(
        [raw(api(f"p{n}", moment, _id=n)) for n, moment in zip(numbers, moments, strict=True)]
    )
    assert run(open_app(page_size=page_size)) == (20, 0)
    assert key_count(redis_client) == 20


def test_binary_ids_are_ordered_as_in_mongodb(
    app: App, clock: Clock, collection: Collection[Any], redis_client: redis.Redis
) -> None:
    """The length of subtype 2 is four bytes more."""
    moment = clock.ago(60)
    collection.insert_many(
        [
            api("p", moment, _id=Binary(b"\0", 2), status="subtype 2"),
            api("p", moment, _id=Binary(b"\0\0\0\0", 0), status="subtype 0"),
        ]
    )
    sync(app)
    [last] = collection.find({}, {"status": 1}).sort({"updated_at": -1, "_id": -1}).limit(1)
    assert redis_client.hget("config:api:p", "status") == last["status"] == "subtype 2"


ODD_IDS: list[Any] = [
    Binary(bytes(16), 4),
    Binary(bytes(15), 4),
    {"a": Binary(bytes(16), 4)},
    {"a": RawValue(codec.UNDEFINED, b"")},
    RawValue(codec.DOCUMENT, document_of([(b"a", raw_value(1)), (b"a", raw_value(2))])),
    Binary(b"\0", 2),
    Code("a", {"x": 1}),
    MinKey(),
    MaxKey(),
    "\n\t\u2028",
]


def odd_id(value: Any) -> Any:
    """An `_id` as a value for `raw`; one of them nests a type without Python value."""
    if isinstance(value, dict) and isinstance(value["a"], RawValue):
        return RawValue(codec.DOCUMENT, document_of([(b"a", value["a"])]))
    return value


@pytest.mark.parametrize("page_size", [1, 500])
def test_unusual_ids_are_applied_and_verified(
    open_app: OpenApp, clock: Clock, collection: Collection[Any], redis_client: redis.Redis, page_size: int
) -> None:
    """Also in samples; the next cycle processes none."""
    documents = [api(f"p{n}", clock.ago(60), _id=odd_id(value)) for n, value in enumerate(ODD_IDS)]
    collection.insert_many(list(map(raw, documents)))
    app = open_app(page_size=page_size)
    assert synced(app) == (len(ODD_IDS), 0)
    assert key_count(redis_client) == len(ODD_IDS)
    assert synced(app) == (0, 0)
    for sample in (None, len(ODD_IDS), 5):
        assert app.verify(NAME, sample=sample).true


@pytest.mark.parametrize(
    "other_field",
    [
        {"trace_id": Binary(bytes(15), 4)},
        {"reference": DBRef("c", 1)},
        {"notes": RawValue(codec.STRING, b"\2\0\0\0\xff\0")},
        {"big": RawValue(codec.DATE, b"\xff" * 7 + b"\x7f")},
        {"pattern": Code("f()")},
    ],
    ids=str,
)
def test_fields_outside_the_contract_are_not_read(
    app: App, clock: Clock, collection: Collection[Any], other_field: Any
) -> None:
    collection.insert_one(raw(api("p", clock.ago(60)) | {"_id": 1} | other_field))
    assert synced(app) == (1, 0)
    assert app.verify(NAME).true


def test_json_schema_reference_is_written_as_an_object(
    app: App, clock: Clock, collection: Collection[Any], redis_client: redis.Redis
) -> None:
    """Its fields keep their order, also in a list."""
    schema = {"$id": "https://e/x.json", "$ref": "#/definitions/A"}
    tool = resultado_mcp(result={"schema": schema, "n": [schema]}, updated_at=clock.ago(60))
    collection.insert_many([api("p", clock.ago(60), endpoints=[schema]), tool])
    assert synced(app) == (2, 0)
    text = '{"$id":"https://e/x.json","$ref":"#/definitions/A"}'
    assert redis_client.hget("config:api:p", "endpoints") == f"[{text}]"
    [key] = redis_client.keys("mcp:tool:*")
    assert redis_client.hget(key, "result") == f'{{"schema":{text},"n":[{text}]}}'


def test_index_hidden_between_two_cycles_is_reported(
    app: App, clock: Clock, collection: Collection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The next cycle reads without it, and logs one line."""
    collection.insert_one(api("a", clock.ago(60)))
    assert synced(app) == (1, 0)
    hide: dict[str, Any] = {"name": "updated_at_1__id_1", "hidden": True}
    collection.database.command({"collMod": NAME, "index": hide})
    collection.insert_one(api("b", clock.now()))
    with caplog.at_level("WARNING", "etl"):
        assert synced(app) == (1, 0)
    [line] = [message for message in caplog.messages if "every page reads the whole collection" in message]
    assert "is hidden" in line
