"""A backfill writes every document, resumes after an interruption, and never overwrites newer versions."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from bson import Decimal128, ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from etl.app import App, BackfillOrder
from etl.model.report import Report
from etl.model.result import TransformResult
from etl.model.scan import Bounds
from etl.sync.processor import Processor
from tests.factories import api, campaign, requested
from tests.support.backfills import LONG_AGO, backfill, dated, on_page, run
from tests.support.pipeline import NAME, STATE_PREFIX, Clock, OpenApp, sync
from tests.support.redis_dump import contents, hash_at, held
from tests.support.truth import truth
from tests.support.types import Document

LEASE, BACKFILL = f"{STATE_PREFIX}lease", f"{STATE_PREFIX}backfill"
QUEUE = "queue:ai_generation:alta"

pytestmark = pytest.mark.usefixtures("one_page_a_task")


def test_backfill_reads_every_type_of_date_and_id(
    collection: Collection[Document], open_app: OpenApp, redis_client: redis.Redis
) -> None:
    """Also documents that no delta can reach. The next delta finds nothing."""
    dates: list[Any] = [None, 5, "text", True, {"a": 1}, LONG_AGO, datetime(2099, 1, 1, tzinfo=UTC)]
    ids: list[Any] = [1, "1", 1.5, ObjectId(), b"1", Decimal128("7"), {"a": [1]}, LONG_AGO, True]
    documents = [api(f"d{n}", date, _id=f"d{n}") for n, date in enumerate(dates)]
    documents += [api(f"i{n}", LONG_AGO, _id=key) for n, key in enumerate(ids)]
    missing = api("without", None)
    del missing["updated_at"]
    collection.insert_many([*documents, missing])
    app = open_app(page_size=3)

    report = backfill(app)

    assert report.records_processed == len(documents) + 1
    assert held(redis_client) == truth(collection)
    again = sync(app)
    assert (again.mode, again.records_processed) == ("delta", 0)


def test_cycle_after_a_full_backfill_is_an_empty_delta(
    collection: Collection[Document], app: App, clock: Clock, redis_client: redis.Redis
) -> None:
    """Also without a cycle before it. `etl:last_sync` names the newest document."""
    collection.insert_many([*dated(20), api("fresh", clock.ago(30), _id="fresh")])

    backfill(app)

    published = hash_at(redis_client, f"etl:last_sync:{NAME}")
    assert published["last_id"] == '"fresh"'
    report = sync(app)
    assert (report.mode, report.records_processed) == ("delta", 0)


def test_backfill_of_old_documents_moves_the_watermark(
    collection: Collection[Document], app: App, redis_client: redis.Redis
) -> None:
    """All are older than the overlap, so the catch-up reads nothing, but publishes the watermark."""
    collection.insert_many(dated(20))

    backfill(app)

    assert hash_at(redis_client, f"etl:last_sync:{NAME}")["last_timestamp"] == "2025-01-15T00:00:19Z"


@pytest.mark.parametrize("first", [False, True], ids=["before any cycle", "after a cycle"])
def test_bounds_are_half_open(
    collection: Collection[Document], app: App, redis_client: redis.Redis, *, first: bool
) -> None:
    """They include `since` and exclude `until`. A first cycle after a partial backfill reads all documents."""
    collection.insert_many(dated(10))
    if first:
        sync(app)
        redis_client.delete(*redis_client.keys("config:*"))
    day = int(LONG_AGO.timestamp() * 1000)

    report = backfill(app, bounds=Bounds(day + 3000, day + 6000))

    assert report.records_processed == 3
    assert set(redis_client.keys("config:*")) == {f"config:api:p{n}" for n in (3, 4, 5)}
    cycle = sync(app)
    assert (cycle.mode, cycle.records_processed) == (("delta", 0) if first else ("cold_start", 10))


def test_interrupted_backfill_resumes(
    collection: Collection[Document], open_app: OpenApp, redis_client: redis.Redis
) -> None:
    """Applied documents are not read again. Other bounds are refused."""
    collection.insert_many(dated(100))
    app = open_app(page_size=10)
    interrupted = run(app, on_progress=on_page(3, app.stop))
    assert (interrupted.exit_code, interrupted.records_processed) == (130, 30)

    other = run(open_app(), BackfillOrder(Bounds(until=5)))
    resumed = backfill(open_app(page_size=10))

    assert other.exit_code == 2
    assert other.error == "the interrupted backfill had other bounds: give those, or --restart"
    assert (resumed.before, resumed.records_processed) == (30, 70)
    assert held(redis_client) == truth(collection)
    again = backfill(open_app(page_size=10))
    assert (again.before, again.records_processed) == (0, 100), "a finished backfill was resumed"


def test_restart_starts_the_backfill_over(collection: Collection[Document], open_app: OpenApp) -> None:
    collection.insert_many(dated(100))
    app = open_app(page_size=10)
    run(app, on_progress=on_page(3, app.stop))

    assert backfill(open_app(page_size=10), restart=True).records_processed == 100


def test_backfill_of_older_documents_may_follow_a_full_one(
    collection: Collection[Document], open_app: OpenApp
) -> None:
    """Its bounds are before the position of the first one."""
    collection.insert_many(dated(100))
    app = open_app(page_size=10)
    backfill(app)

    part = backfill(app, bounds=Bounds(until=int(LONG_AGO.timestamp() * 1000) + 30_000))

    assert part.records_processed == 30


def test_second_backfill_is_refused(collection: Collection[Document], open_app: OpenApp) -> None:
    """The error names the holder. A cycle may run at the same time."""
    collection.insert_many(dated(100))
    seen: list[Report] = []
    beside = open_app()
    step = lambda: seen.extend([run(open_app()), *beside.sync()])  # noqa: E731

    first = run(open_app(page_size=10), on_progress=on_page(3, step))

    second, cycle = seen
    assert (second.status, second.exit_code, cycle.status, first.status) == ("locked", 75, "ok", "ok")
    assert "is at work on it" in str(second.error)


def test_backfill_defers_a_locked_campaign(
    collection: Collection[Document], app: App, redis_client: redis.Redis
) -> None:
    """The first cycle after the release of the lock applies it."""
    collection.insert_many([campaign("c", LONG_AGO, _id="c"), *dated(3)])
    redis_client.set("lock:content_generation:c", "1")
    report = backfill(app)
    assert (report.records_processed, report.deferred) == (3, 1)
    redis_client.delete("lock:content_generation:c")
    assert sync(app).records_processed == 1
    assert held(redis_client) == truth(collection)


def test_dry_run_writes_nothing(
    collection: Collection[Document], app: App, redis_client: redis.Redis
) -> None:
    """No key, lease or history, also if it fails. It counts the reasons of rejections."""
    sync(app)
    good = [*dated(6), campaign("c", LONG_AGO), requested("r", LONG_AGO)]
    bad = [api(f"b{n}", LONG_AGO, status=[1]) for n in range(3)]
    collection.insert_many([*good, *bad, api("t", LONG_AGO, tipo="nonsense")])
    collection.insert_one(
        RawBSONDocument(
            b"\x17\x00\x00\x00\x02_id\x00\x02\x00\x00\x00\x61\x00\x10\x61\x00\x01\x00\x00\x00\x00"
        )
    )
    before = _without_time(contents(redis_client))

    report = backfill(app, dry_run=True)

    assert _without_time(contents(redis_client)) == before
    assert (report.records_processed, report.written, report.enqueued) == (8, 7, 1)
    assert report.dead_lettered == sum(report.reasons.values()) == 5
    assert max(report.reasons.values()) == 3
    app.stop()
    assert run(app, BackfillOrder(dry_run=True)).exit_code == 130
    assert _without_time(contents(redis_client)) == before


def _without_time(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {key: content["value"] for key, content in found.items()}


def test_dry_run_counts_the_same_as_the_backfill(collection: Collection[Document], open_app: OpenApp) -> None:
    collection.insert_many([*dated(50), *(api(f"b{n}", LONG_AGO, status=[1]) for n in range(5))])
    app = open_app(page_size=10)
    counts = ("records_processed", "written", "evicted", "enqueued", "dead_lettered", "unreachable")

    dry, real = backfill(app, dry_run=True), backfill(app)

    assert [getattr(dry, name) for name in counts] == [getattr(real, name) for name in counts]
    assert dry.reasons == real.reasons


def test_backfill_without_the_index_warns_and_works(
    collection: Collection[Document], app: App, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning has the command that creates it, and is logged once for each scan; also by a cold start."""
    collection.drop_indexes()
    collection.insert_many(dated(30))

    backfill(app)

    [line, again] = [record.getMessage() for record in caplog.records if record.name == "etl.backfill"]
    assert line == again
    assert f".getCollection('{NAME}').createIndex({{'updated_at': 1, '_id': 1}}" in line
    assert held(redis_client) == truth(collection)
    redis_client.flushdb()
    caplog.clear()
    sync(app)
    assert len([record for record in caplog.records if record.name == "etl.backfill"]) == 1


def test_stop_waits_for_part_of_a_page_without_the_index(
    collection: Collection[Document],
    open_app: OpenApp,
    monkeypatch: pytest.MonkeyPatch,
    redis_client: redis.Redis,
) -> None:
    """Such a page has 10,000 documents, too many for a stop to wait for. The next run resumes after the part."""
    collection.drop_indexes()
    collection.insert_many(dated(100))
    app = open_app(page_size=10)
    parts: list[int] = []
    process = Processor.process

    def second_stops(self: Processor, results: Sequence[TransformResult], *args: Any, **flags: Any) -> Any:
        parts.append(len(results))
        if len(parts) == 2:
            app.stop()
        return process(self, results, *args, **flags)

    monkeypatch.setattr(Processor, "process", second_stops)
    [interrupted] = app.sync()
    assert (interrupted.status, interrupted.records_processed, parts) == ("failed", 20, [10, 10])

    assert sync(open_app(page_size=10)).records_processed == 80
    assert held(redis_client) == truth(collection)
