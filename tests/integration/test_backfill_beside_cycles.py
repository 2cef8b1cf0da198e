"""Cycles beside a backfill: the newest version wins, and the catch-up applies what changed meanwhile."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from pymongo.collection import Collection

from etl.app import App, BackfillOrder
from etl.backfill.executors import processes
from etl.errors import LeaseLost
from etl.interfaces import Stages
from etl.model.report import Report
from etl.sync.cycle import run_cycle
from etl.sync.planner import Limits
from tests.factories import api, requested, written
from tests.support.backfills import LONG_AGO, Step, backfill, dated, on_page, run
from tests.support.pipeline import NAME, STATE_PREFIX, OpenApp, sync
from tests.support.redis_dump import hash_at, held
from tests.support.truth import truth
from tests.support.types import Document

LEASE, BACKFILL = f"{STATE_PREFIX}lease", f"{STATE_PREFIX}backfill"
QUEUE = "queue:ai_generation:alta"

pytestmark = pytest.mark.usefixtures("one_page_a_task")


@contextmanager
def lease_held(client: redis.Redis, seconds: float) -> Iterator[None]:
    """Simulate a cycle of another process that takes `seconds`."""
    client.set(LEASE, "1 0 other:1", px=round(seconds * 1000))
    yield
    assert not client.exists(LEASE), "it did not wait"


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
