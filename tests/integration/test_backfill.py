"""A backfill writes every document, resumes after an interruption, and never overwrites newer versions."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from bson import Decimal128, ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from etl.app import App, BackfillOrder
from etl.backfill import coordinator
from etl.backfill.executors import processes
from etl.errors import LeaseLost
from etl.interfaces import Stages
from etl.model.report import Report
from etl.model.result import TransformResult
from etl.model.scan import Bounds
from etl.sync.cycle import run_cycle
from etl.sync.planner import Limits
from etl.sync.processor import Processor
from tests.factories import api, campaign, requested, written
from tests.support.pipeline import STATE_PREFIX, Clock, OpenApp, sync
from tests.support.redis_dump import contents, hash_at, held
from tests.support.truth import truth
from tests.support.types import Document

NAME = "promptContent"
LEASE, BACKFILL = f"{STATE_PREFIX}lease", f"{STATE_PREFIX}backfill"
QUEUE = "queue:ai_generation:alta"
LONG_AGO = datetime(2025, 1, 15, tzinfo=UTC)

Step = Callable[[], object]


@pytest.fixture(autouse=True)
def _one_page_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few documents give several tasks."""
    monkeypatch.setattr(coordinator, "TASK_SECONDS", 0)


def run(
    app: App, order: BackfillOrder | None = None, on_progress: Callable[[Report], None] = lambda _: None
) -> Report:
    """Run a backfill and return its report."""
    return app.backfill(NAME, order or BackfillOrder(), on_progress)


def backfill(app: App, **order: Any) -> Report:
    """Run a successful backfill."""
    report = run(app, BackfillOrder(**order))
    assert (report.status, report.error) == ("ok", None)
    return report


def on_page(number: int, step: Step) -> Callable[[Report], None]:
    """A progress callback that calls `step` once `number` pages have been applied."""
    pages = iter([lambda: None] * (number - 1) + [step])

    def on_progress(_: Report) -> None:
        next(pages, lambda: None)()

    return on_progress


@contextmanager
def lease_held(client: redis.Redis, seconds: float) -> Iterator[None]:
    """Simulate a cycle of another process that takes `seconds`."""
    client.set(LEASE, "1 0 other:1", px=round(seconds * 1000))
    yield
    assert not client.exists(LEASE), "it did not wait"


def dated(count: int, moment: datetime = LONG_AGO) -> list[Document]:
    """Providers a second apart, the first at `moment`."""
    return [api(f"p{n}", moment + timedelta(seconds=n), _id=n) for n in range(count)]


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


def test_catch_up_waits_for_a_running_cycle(
    collection: Collection[Document], app: App, redis_client: redis.Redis
) -> None:
    collection.insert_many(dated(5))
    with lease_held(redis_client, 1):
        assert backfill(app).records_processed == 5


def test_catch_up_runs_again_if_another_process_takes_over_its_lease(
    collection: Collection[Document],
    open_app: OpenApp,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process is suspended until its lease has expired, and a daemon runs a cycle meanwhile."""
    collection.insert_many(dated(5))
    daemon, tokens = open_app(), []

    def suspended(stages: Stages, limits: Limits, token: str, *arguments: Any, **options: Any) -> None:
        tokens.append(token)
        if len(tokens) == 1:
            redis_client.delete(LEASE)
            sync(daemon)
        run_cycle(stages, limits, token, *arguments, **options)

    monkeypatch.setattr("etl.sync.runs.run_cycle", suspended)

    assert backfill(open_app()).records_processed == 5
    assert [entry["status"] for entry in daemon.history(NAME, 10)] == ["ok", "ok", "failed", "ok"]
    assert len(tokens) == 3
    assert held(redis_client) == truth(collection)


def test_backfill_fails_if_redis_is_flushed_during_the_catch_up(
    collection: Collection[Document],
    open_app: OpenApp,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No checkpoint says that all is written, so the next cycle is a cold start."""
    collection.insert_many(dated(5))

    def flushed(*arguments: Any, **options: Any) -> None:
        redis_client.flushdb()
        run_cycle(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr("etl.sync.runs.run_cycle", flushed)
        report = run(open_app())

    assert report.error == f"the catch-up cycle failed: {LeaseLost(None)}"
    assert sync(open_app()).mode == "cold_start"
    assert held(redis_client) == truth(collection)


def test_backfill_can_be_stopped_while_it_waits_for_a_cycle(
    collection: Collection[Document], open_app: OpenApp, redis_client: redis.Redis
) -> None:
    """The next backfill does not read again what was read."""
    collection.insert_many(dated(5))
    redis_client.set(LEASE, "1 0 other:1", px=30_000)
    app = open_app()
    threading.Timer(0.3, app.stop).start()

    assert run(app).exit_code == 130
    redis_client.delete(LEASE)
    assert backfill(open_app()).records_processed == 0


def changed_in_flight(collection: Collection[Document], app: App, name: str, **changes: Any) -> Step:
    """A step that changes a document which a worker has read, and applies the change with a cycle."""

    def step() -> None:
        collection.update_one({"_id": name}, {"$set": {**changes, "updated_at": datetime.now(UTC)}})
        assert sync(app).records_processed == 1

    return step


@pytest.mark.parametrize(
    "before", [written("c", 1, LONG_AGO), requested("c", LONG_AGO)], ids=["written", "requested"]
)
def test_request_queued_by_a_cycle_is_not_queued_again(
    collection: Collection[Document], open_app: OpenApp, redis_client: redis.Redis, before: Document
) -> None:
    """A worker has read an older version, which neither is queued nor removes the record of the request."""
    collection.insert_many([*dated(10), before | {"updated_at": LONG_AGO + timedelta(hours=1)}])
    daemon = open_app()
    sync(open_app(cold_start="now"))
    collection.insert_one(requested("other", datetime.now(UTC)))
    assert sync(daemon).enqueued == 1
    step = changed_in_flight(collection, daemon, "c", estado="pendiente", prioridad="alta")

    report = run(open_app(page_size=5), BackfillOrder(executors=processes(1)), on_page(1, step))

    assert report.status == "ok"
    assert sorted(redis_client.lrange(QUEUE, 0, -1)) == truth(collection)[QUEUE]
    assert sync(daemon).enqueued == 0


def test_document_moved_by_a_cycle_keeps_its_new_keys(
    collection: Collection[Document], open_app: OpenApp, redis_client: redis.Redis
) -> None:
    """A worker has read an older version, which never removes them."""
    collection.insert_many([*dated(10), api("old", LONG_AGO + timedelta(hours=1), _id="m")])
    daemon = open_app()
    sync(open_app(cold_start="now"))
    step, present = changed_in_flight(collection, daemon, "m", provider_name="new"), []

    def on_progress(report: Report) -> None:
        if report.records_processed <= 5:
            step()
        present.append(redis_client.exists("config:api:new"))

    assert run(open_app(page_size=5), BackfillOrder(executors=processes(1)), on_progress).status == "ok"

    assert present == [1] * 3
    assert held(redis_client) == truth(collection)


def test_newest_claim_wins_beside_a_cycle(
    collection: Collection[Document], open_app: OpenApp, redis_client: redis.Redis
) -> None:
    """A new document claims the key of one that a worker has read, and a cycle applies it first."""
    collection.insert_many([*dated(10), api("k", LONG_AGO + timedelta(hours=1), _id="a", status="older")])
    daemon = open_app()
    sync(open_app(cold_start="now"))
    statuses: list[str] = []

    def on_progress(report: Report) -> None:
        if report.records_processed <= 5:
            collection.insert_one(api("k", datetime.now(UTC), _id="b", status="newer"))
            sync(daemon)
        statuses.append(hash_at(redis_client, "config:api:k")["status"])

    assert run(open_app(page_size=5), BackfillOrder(executors=processes(1)), on_progress).status == "ok"

    assert set(statuses) == {"newer"}


def test_invalid_older_version_leaves_no_dead_letter(
    collection: Collection[Document], open_app: OpenApp, redis_client: redis.Redis
) -> None:
    """The document is corrected, and applied by a cycle, before the backfill rejects its older version."""
    collection.insert_many([*dated(10), api("x", LONG_AGO + timedelta(hours=1), _id="x", status=[1])])
    daemon = open_app()
    sync(open_app(cold_start="now"))
    step = changed_in_flight(collection, daemon, "x", status="mended")

    report = run(open_app(page_size=5), BackfillOrder(executors=processes(1)), on_page(1, step))

    assert (report.status, report.dead_lettered) == ("ok", 0)
    assert redis_client.hlen(f"{STATE_PREFIX}dead_letters") == 0
    assert held(redis_client) == truth(collection)


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
