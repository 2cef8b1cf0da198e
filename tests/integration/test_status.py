import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from bson import ObjectId
from pymongo.collection import Collection
from pymongo.database import Database

from etl.app import App
from etl.cache.keys import state_keys
from etl.demo import MongoServer
from etl.errors import ConfigurationError, EtlError
from etl.monitoring.status import CollectionStatus
from tests.factories import api, campaign
from tests.support.command import Etl
from tests.support.pipeline import NAME, OpenApp, sync
from tests.support.types import Document, ProxyTo, StartMongo

LOCK = "lock:content_generation:camp-1"
KEYS = state_keys(NAME)


def status(app: App) -> CollectionStatus:
    """The status of the collection."""
    [one] = app.status()
    return one


def ago(seconds: float) -> datetime:
    """The time `seconds` ago, to the millisecond."""
    moment = datetime.now(UTC) - timedelta(seconds=seconds)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def test_status_after_a_cycle_has_watermark_report_and_next_cycle(
    app: App, collection: Collection[Document]
) -> None:
    """There is no lag. The next cycle is an interval after the start of the last one."""
    collection.insert_many([api("a", ago(20)), api("b", ago(10))])
    report = sync(app)

    one = status(app)

    assert (one.last_id, one.last_timestamp) == (report.last_id, report.last_timestamp)
    assert one.lag_seconds == 0
    assert one.last_cycle is not None
    assert one.last_cycle["records_processed"] == 2
    began = datetime.fromisoformat(one.last_cycle["began"])
    assert datetime.fromisoformat(str(one.next_cycle)) - began == timedelta(seconds=660)
    assert one.seconds_since_success is not None
    assert 0 <= one.seconds_since_success < 5
    assert (one.lease_holder, one.error) == (None, None)


def test_lag_is_the_age_of_the_oldest_unapplied_document(app: App, collection: Collection[Document]) -> None:
    """Time without writes before it does not count."""
    collection.insert_one(api("old", ago(7200)))
    sync(app)
    assert status(app).lag_seconds == 0
    collection.insert_many([api("newer", ago(10)), api("new", ago(60)), api("future", ago(-3600))])
    collection.insert_one(api("undated", "text"))

    assert status(app).lag_seconds == pytest.approx(60, abs=3)


def test_document_on_the_timestamp_of_the_watermark_counts_in_the_lag(
    app: App, collection: Collection[Document]
) -> None:
    """With any type of `_id`; the document at the watermark itself does not count."""
    moment = ago(30)
    collection.insert_one({"_id": 5} | api("at the watermark", moment))
    sync(app)
    assert status(app).lag_seconds == 0
    collection.insert_one({"_id": ObjectId()} | api("beside it", moment))

    assert status(app).lag_seconds == pytest.approx(30, abs=3)


def test_lag_of_an_empty_collection_counts_from_its_last_cycle(
    app: App, collection: Collection[Document]
) -> None:
    """There is no watermark then."""
    sync(app)
    assert (status(app).last_id, status(app).lag_seconds) == (None, 0)
    collection.insert_one(api("first", datetime.now(UTC)))

    lag = status(app).lag_seconds
    assert lag is not None
    assert 0 < lag < 3


def test_lag_is_known_without_the_index(app: App, database: Database[Document]) -> None:
    database[NAME].insert_one(api("a", ago(10)))
    sync(app)
    assert status(app).lag_seconds == 0
    database[NAME].insert_one(api("b", ago(5)))
    assert status(app).lag_seconds == pytest.approx(5, abs=3)


def test_unfinished_backfill_is_reported(
    app: App, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """With progress, start and holder, which is None if it was interrupted."""
    collection.insert_many([api(str(number), ago(10)) for number in range(8)])
    sync(app)
    assert status(app).scans == []
    fields = {"scan_mode": "backfill", "scan_done": "3", "scan_mongo_clock": "1767225600000"}
    redis_client.hset(KEYS.backfill, mapping=fields)  # type: ignore[arg-type]

    [scan] = status(app).scans
    assert scan == {
        "mode": "backfill",
        "done": 3,
        "total": 8,
        "began": "2026-01-01T00:00:00Z",
        "holder": None,
    }
    redis_client.set(KEYS.backfill_lease, "worker-1:4711:0123456789ab")
    assert status(app).scans == [scan | {"holder": "worker-1:4711:0123456789ab"}]


def test_status_names_the_leader(app: App, redis_client: redis.Redis) -> None:
    assert status(app).leader is None
    redis_client.set(KEYS.leader, "etl-1:4711:0123456789ab")
    assert status(app).leader == "etl-1:4711:0123456789ab"


def test_status_has_the_counts_of_the_last_reconciliation(app: App, collection: Collection[Document]) -> None:
    collection.insert_many([api("a", ago(10)), api("b", ago(10))])
    sync(app)
    assert status(app).reconciliation is None
    assert app.reconcile(NAME) is not None

    counts = status(app).reconciliation
    assert counts is not None
    ended = datetime.fromisoformat(counts.pop("ended"))
    assert abs(datetime.now(UTC) - ended) < timedelta(seconds=5)
    assert counts.pop("duration_ms") >= 0
    assert counts == {"documents": 2, "different": 0, "missing": 0, "orphaned": 0, "repaired": 0}


def test_dead_letters_and_unreachable_documents_are_counted(
    app: App, collection: Collection[Document]
) -> None:
    """Those beyond the cap are counted separately."""
    collection.insert_many([{"updated_at": ago(10), "tipo": "unknown"}, api("undated", None)])
    sync(app)
    one = status(app)
    assert (one.dead_letters, one.dead_letters_beyond, one.unreachable) == (1, 0, 1)


def test_status_names_deferred_documents(
    app: App, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """With lock and start; at most ten are named, and all are counted."""
    redis_client.set(LOCK, "4711")
    collection.insert_many([campaign("camp-1", ago(60), segmento=str(number)) for number in range(25)])
    sync(app)

    one = status(app)

    assert one.deferred_count == 25
    assert len(one.deferred) == 10
    assert {waiting["lock"] for waiting in one.deferred} == {LOCK}
    assert one.deferred[0].keys() == {"id", "lock", "since"}


def test_status_has_the_lengths_of_the_queues_of_a_collection(
    app: App, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """A queue of another type has no length, and does not fail the status."""
    collection.insert_many(
        campaign(f"camp-{number}", ago(10), estado="pendiente", prioridad=priority)
        for number, priority in enumerate(("alta", "alta", "baja"))
    )
    sync(app)
    assert status(app).queues == {"queue:ai_generation:alta": 2, "queue:ai_generation:baja": 1}

    redis_client.delete("queue:ai_generation:alta")
    redis_client.set("queue:ai_generation:baja", "somebody's")
    assert status(app).queues == {"queue:ai_generation:alta": 0}


def test_status_names_the_holder_of_the_lease(app: App, redis_client: redis.Redis) -> None:
    redis_client.set(KEYS.lease, "worker-1:4711:0123456789ab")
    assert status(app).lease_holder == "worker-1:4711:0123456789ab"


def test_last_success_is_found_before_many_failures(app: App, redis_client: redis.Redis) -> None:
    """Backfills do not count as cycles. Unreachable documents are those of the last cycle that counted them."""
    app_history = KEYS.history
    good = {"began": "2025-01-01T00:00:00Z", "status": "ok", "mode": "delta", "sync_duration_ms": 1500}
    bad = {**good, "began": "2025-01-02T00:00:00Z", "status": "failed"}
    backfill = {**good, "began": "2025-01-03T00:00:00Z", "mode": "backfill"}
    entries = [{**good, "unreachable": 7}, *[bad] * 250, backfill]
    redis_client.lpush(app_history, *(json.dumps(entry) for entry in entries))

    one = status(app)

    assert one.last_cycle == bad
    assert one.unreachable == 7
    finished = datetime(2025, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    since = (datetime.now(UTC) - finished).total_seconds()
    assert one.seconds_since_success == pytest.approx(since, abs=5)


def test_status_of_an_unknown_collection_is_refused(app: App) -> None:
    """The error lists the known ones."""
    with pytest.raises(ConfigurationError, match=NAME):
        app.status(["nonsense"])


def test_status_without_mongodb_lacks_only_the_lag(
    open_app: OpenApp, mongod: MongoServer, proxy_to: ProxyTo
) -> None:
    """The error names the server."""
    proxy = proxy_to(mongod)
    with open_app(mongo=proxy.through(mongod.uri)) as app:
        sync(app)
        proxy.cut()
        one = status(app)
        ended = time.monotonic()
    assert time.monotonic() - ended < 3, "closing waited for MongoDB"
    assert one.lag_seconds is None
    assert "does not answer" in str(one.error)
    assert one.last_cycle is not None


def test_status_without_redis_is_an_error(open_app: OpenApp) -> None:
    """MongoDB is not asked."""
    with open_app(redis="redis://127.0.0.1:1/0") as app, pytest.raises(EtlError, match=r"127.0.0.1:1"):
        app.status()


def test_status_json_is_one_document_for_all_collections(etl: Etl, collection: Collection[Document]) -> None:
    """With every field of the status, in order."""
    collection.insert_one(api("a", ago(10)))
    assert etl("sync").code == 0

    answer = etl("status", "--json")

    assert (answer.code, answer.err) == (0, "")
    [one] = json.loads(answer.out)["collections"]
    assert tuple(one) == CollectionStatus.__dataclass_fields__.keys() or list(one) == [
        *CollectionStatus.__dataclass_fields__
    ]
    assert one["lag_seconds"] == 0


def test_status_prints_a_block_of_lines_per_collection(
    etl: Etl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Before the first cycle, and after one with a deferred document."""
    fresh = etl("status").out
    assert "  last cycle    none yet\n" in fresh
    assert "  lag           unknown\n" in fresh

    redis_client.set(LOCK, "4711")
    collection.insert_many([campaign("camp-1", ago(60)), campaign("c", ago(9), estado="pendiente")])
    assert etl("sync").code == 0
    redis_client.hset(KEYS.backfill, mapping={"scan_mode": "backfill", "scan_done": "1"})
    counts = {"ended": "2026-01-01T00:00:00Z", "different": 2, "missing": 1, "orphaned": 0, "repaired": 3}
    redis_client.set(KEYS.reconciliation, json.dumps(counts))
    out = etl("status", NAME).out

    assert out.startswith(f"{NAME}\n  position      20")
    assert "  lag           0 s\n" in out
    assert "  last cycle    ok, began 20" in out
    assert "  deferred      1\n" in out
    assert f", for {LOCK}\n" in out
    assert "  queue         queue:ai_generation:media holds 1\n" in out
    assert "  daemon        none\n" in out
    assert "  backfill      1 of about 2 documents, interrupted, resumes\n" in out
    assert "  reconciled    2026-01-01T00:00:00Z, 3 wrong, 3 repaired\n" in out


def test_status_command_without_mongodb_fails_in_one_line(etl: Etl, start_mongod: StartMongo) -> None:
    """The values from Redis are printed."""
    server = start_mongod()
    server.stop()

    answer = etl("status", mongo=server.uri)

    assert answer.code == 1
    assert "  lag           unknown\n" in answer.out
    assert answer.err.startswith("error: the lag is unknown: MongoDB at ")
    assert answer.err.count("\n") == 1


def lines_of(text: str) -> list[Any]:
    """The lines of a text."""
    return text.splitlines()


@pytest.fixture
def small_page_app(open_app: OpenApp) -> App:
    """The application with small pages, so that a cycle has several."""
    return open_app(page_size=2)


def test_status_can_be_read_during_a_cycle(small_page_app: App, collection: Collection[Document]) -> None:
    """It has its own connection."""
    collection.insert_many([api(str(number), ago(10)) for number in range(20)])
    cycle = small_page_app.sync()
    assert status(small_page_app).last_cycle is None
    assert next(cycle).records_processed == 20
    assert status(small_page_app).last_cycle is not None
