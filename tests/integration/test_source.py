"""A checkpoint belongs to one source: another one is refused, and a collection created again is read again."""

from collections.abc import Callable
from typing import Any

import pytest
import redis
from pymongo import MongoClient
from pymongo.collection import Collection

from etl.app import App, BackfillOrder
from etl.errors import ConfigurationError
from etl.mongo.reader import MongoReader
from tests.factories import api
from tests.support.pipeline import NAME, STATE_PREFIX, Clock, OpenApp, sync
from tests.support.types import Document

COUNT = 40


def names(client: redis.Redis) -> set[str]:
    """The names of the entries in Redis."""
    return {str(key).removeprefix("config:api:") for key in client.scan_iter("config:api:*")}


def many(clock: Clock, prefix: str = "p", seconds: float = 900) -> list[Document]:
    """Documents with different keys, a second apart."""
    return [api(f"{prefix}{n}", clock.ago(seconds - n), _id=f"{prefix}{n}") for n in range(COUNT)]


def test_another_database_does_not_inherit_the_watermark(
    open_app: OpenApp,
    app: App,
    mongo_client: MongoClient[Document],
    collection: Collection[Document],
    redis_client: redis.Redis,
    clock: Clock,
) -> None:
    """Its older documents would be skipped. The error suggests a namespace, with which both work."""
    collection.insert_one(api("new", clock.ago(60)))
    sync(app)
    name = f"{collection.database.name}_b"
    other = mongo_client[name][NAME]
    try:
        other.insert_many([api("old", clock.ago(3600)), api("older", clock.ago(7200))])
        with open_app(database=name) as second:
            runs = [second.backfill(NAME, BackfillOrder(), lambda _: None), *second.sync()]
            for report in runs:
                assert (report.status, report.exit_code) == ("failed", 2)
                assert f"is about {collection.database.name}.{NAME} by updated_at, not {name}." in str(
                    report.error
                )
                assert "set `namespace`" in str(report.error)
            with pytest.raises(ConfigurationError, match="set `namespace`"):
                second.verify(NAME, repair=True)
            with pytest.raises(ConfigurationError, match="set `namespace`"):
                second.refresh("config:api")
            with pytest.raises(ConfigurationError, match="set `namespace`"):
                second.follow(NAME, lambda _: None)
        assert names(redis_client) == {"new"}
        with open_app(database=name, settings={"namespace": "b"}) as second:
            assert sync(second).records_processed == 2
            assert second.verify(NAME).true
        assert names(redis_client) == {"new", "old", "older"}
        collection.insert_one(api("newest", clock.now()))
        assert sync(app).records_processed == 1
        assert app.verify(NAME).true
    finally:
        mongo_client.drop_database(name)


def test_another_timestamp_field_does_not_inherit_the_watermark(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """After a purge everything is read by the new field."""
    collection.insert_one(api("a", clock.ago(60), changed=clock.ago(7200)))
    sync(open_app())
    app = open_app(timestamp_field="changed")
    [report] = app.sync()
    assert (report.exit_code, report.records_processed) == (2, 0)
    assert "etl purge" in str(report.error)
    app.delete_keys(app.own_keys(NAME, queues=False))
    redis_client.delete("config:api:a")
    assert sync(app).records_processed == 1
    assert names(redis_client) == {"a"}


def recreate(collection: Collection[Any], documents: list[Document]) -> None:
    """Drop the collection, and create another of the same name."""
    collection.drop()
    collection.create_index([("updated_at", 1), ("_id", 1)])
    collection.insert_many(documents)


def replace(collection: Collection[Any], documents: list[Document]) -> None:
    """Rename the collection, and rename another in its place."""
    other = collection.database["other"]
    recreate(other, documents)
    collection.rename("before")
    other.rename(collection.name)


@pytest.mark.parametrize("change", [recreate, replace])
def test_replaced_collection_is_read_again(
    app: App,
    collection: Collection[Document],
    redis_client: redis.Redis,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    change: Callable[..., None],
) -> None:
    """Its documents are older than the watermark."""
    collection.insert_many(many(clock))
    sync(app)
    older = many(clock, "older", 7200)
    change(collection, older)
    report = sync(app)
    assert (report.mode, report.records_processed) == ("cold_start", COUNT)
    assert names(redis_client) >= {str(one["_id"]) for one in older}
    assert caplog.messages == [
        "the collection was dropped and created again: everything is read once (a cold start)"
    ]
    assert sync(app).records_processed == 0


def test_missing_collection_fails_the_cycle(app: App, collection: Collection[Document], clock: Clock) -> None:
    """Created again, it is read completely."""
    collection.insert_many(many(clock))
    sync(app)
    collection.drop()
    [report] = app.sync()
    assert report.status == "failed"
    assert "the collection is gone (dropped or renamed)" in str(report.error)
    recreate(collection, many(clock))
    assert sync(app).mode == "cold_start"


@pytest.mark.parametrize("how", ["drop", "rename", "recreate"])
@pytest.mark.parametrize("run", ["sync", "backfill"])
def test_collection_replaced_during_a_run_fails_the_run(
    open_app: OpenApp,
    collection: Collection[Document],
    redis_client: redis.Redis,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
    run: str,
) -> None:
    """The next run reads the new collection."""
    collection.insert_many(many(clock))
    app = open_app(page_size=5)
    newer, happened = many(clock, "newer"), []
    real = MongoReader.page

    def page(self: MongoReader, *arguments: Any) -> Any:
        found = real(self, *arguments)
        happened.append(how)
        if len(happened) == 3:
            if how == "recreate":
                recreate(collection, newer)
            elif how == "drop":
                collection.drop()
            else:
                collection.rename("elsewhere")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(MongoReader, "page", page)
        report = (
            app.backfill(NAME, BackfillOrder(), lambda _: None) if run == "backfill" else next(app.sync())
        )
    assert len(happened) >= 3
    assert report.status == "failed", report
    assert "dropped" in str(report.error)
    if how != "recreate":
        recreate(collection, newer)
    assert sync(app).records_processed == COUNT
    assert names(redis_client) >= {str(one["_id"]) for one in newer}


@pytest.mark.parametrize(
    ("field", "value"),
    [("position", "zz {"), ("mongo_clock", "soon"), ("sweeps", "{"), ("scan_mongo_clock", "1")],
)
@pytest.mark.parametrize("published", [True, False])
def test_unreadable_checkpoint_counts_as_none(  # as another program may leave it
    app: App,
    collection: Collection[Document],
    redis_client: redis.Redis,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    field: str,
    value: str,
    published: bool,  # noqa: FBT001 (a case)
) -> None:
    """One line is logged; the next cycle has a new checkpoint."""
    collection.insert_many(many(clock))
    sync(app)
    redis_client.hset(f"{STATE_PREFIX}checkpoint", field, value)
    if not published:
        redis_client.delete(f"etl:last_sync:{NAME}")
    collection.insert_one(api("later", clock.now()))
    report = sync(app)
    assert report.mode == ("delta" if published else "cold_start")
    assert "later" in names(redis_client)
    assert "cannot be read" in caplog.messages[0]
    caplog.clear()
    assert sync(app).mode == "delta"
    assert caplog.messages == []
