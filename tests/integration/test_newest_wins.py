"""Of several documents that claim one key the greatest `(updated_at, _id)` decides, in any order of commits."""

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from pymongo.collection import Collection

from etl.cache.writer import Applied, CacheWriter
from tests.factories import api, campaign
from tests.support.pipeline import STATE_PREFIX, Clock, OpenApp, sync
from tests.support.redis_dump import hash_at, held
from tests.support.truth import truth
from tests.support.types import Document

KEY = "config:api:p"
QUEUE = "queue:ai_generation:media"
LOCK = "lock:content_generation:c"


def status(client: redis.Redis) -> str | None:
    """The status in the contested key."""
    return hash_at(client, KEY).get("status")


def claim(text: str, moment: Any, **fields: Any) -> Document:
    """A document that claims the contested key."""
    return api("p", moment, status=text, **fields)


@pytest.mark.parametrize("page_size", [1, 100])
def test_newest_document_of_a_cycle_wins(
    open_app: OpenApp,
    collection: Collection[Document],
    redis_client: redis.Redis,
    clock: Clock,
    page_size: int,
) -> None:
    """By date, then by `_id`, not by order of insertion."""
    now, before = clock.now(), clock.ago(1)
    collection.insert_many(
        [
            claim("z", now, _id="z"),
            claim("old", before, _id="zz"),
            claim("a", now, _id="a"),
            claim("1", now, _id=1),
        ]
    )
    assert sync(open_app(page_size=page_size)).records_processed == 4
    assert status(redis_client) == "z"


@pytest.mark.parametrize("seconds", [30, 0])
def test_older_document_that_commits_late_displaces_nothing(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis, clock: Clock, seconds: int
) -> None:
    """It counts as processed. At one date the `_id` decides."""
    app = open_app()
    sync(app)
    now = clock.now()
    collection.insert_one(claim("new", now, _id="b"))
    sync(app)
    collection.insert_one(claim("late", clock.ago(seconds) if seconds else now, _id="a"))
    assert sync(app).records_processed == 1
    assert status(redis_client) == "new"


def test_tombstone_is_not_undone_by_an_older_document(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    app = open_app()
    collection.insert_one(claim("x", clock.ago(60), _id="x"))
    sync(app)
    collection.insert_one(claim("y", clock.now(), _id="y", eliminado=True))
    sync(app)
    assert status(redis_client) is None
    collection.insert_one(claim("late", clock.ago(30), _id="late"))
    sync(app)
    assert status(redis_client) is None


def test_claim_of_a_deleted_or_redated_document_ends(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """The document was dated 2099."""
    app = open_app()
    future = datetime(2099, 1, 1, tzinfo=UTC)
    collection.insert_many([claim("future", future, _id=1), claim("now", clock.now(), _id=2)])
    sync(app)
    assert status(redis_client) == "future"
    collection.update_one({"_id": 1}, {"$set": {"updated_at": clock.now(), "status": "back"}})
    sync(app)
    assert status(redis_client) == "back"

    collection.insert_one(claim("future", future, _id=3))
    sync(app)
    collection.delete_one({"_id": 3})
    collection.update_one({"_id": 2}, {"$set": {"updated_at": clock.now(), "status": "again"}})
    sync(app)
    assert status(redis_client) == "again"


def test_documents_of_a_locked_campaign_are_deferred(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """They are applied in order after the release of the lock.

    By another process, when they are older than the overlap and the watermark.
    """
    redis_client.set(LOCK, "process_id_123")
    pending = {"mensajes": None, "estado": "pendiente"}
    collection.insert_many(
        [
            campaign("c", clock.ago(3), _id="a"),
            campaign("c", clock.ago(2), _id="b", estado="archivado"),
            campaign("c", clock.ago(1), _id="w", **pending),
            campaign("other", clock.now(), _id="o"),
        ]
    )
    app = open_app()
    report = sync(app)
    assert (report.records_processed, report.deferred) == (1, 3)
    clock.forward(3600)
    collection.insert_one(campaign("other", clock.now(), _id="o2"))
    report = sync(app)
    assert (report.records_processed, report.deferred) == (1, 3)
    assert not redis_client.exists(QUEUE)

    redis_client.delete(LOCK)
    report = sync(open_app())
    assert (report.records_processed, report.deferred, report.enqueued) == (3, 0, 1)
    assert held(redis_client) == truth(collection)


def test_newer_document_wins_over_a_deferred_one(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """A deferred document that is deleted is not deferred any more."""
    app = open_app()
    redis_client.set(LOCK, "process_id_123")
    collection.insert_one(campaign("c", clock.ago(2), _id="waits"))
    sync(app)
    redis_client.delete(LOCK)
    message = {"numero": 1, "texto": "nuevo", "tono": "formal"}
    collection.insert_one(campaign("c", clock.now(), _id="newer", mensajes=[message]))
    sync(app)
    assert held(redis_client) == truth(collection)

    redis_client.set(LOCK, "process_id_123")
    collection.update_one({"_id": "newer"}, {"$set": {"updated_at": clock.now(), "eliminado": True}})
    assert sync(app).deferred == 1
    collection.delete_one({"_id": "newer"})
    redis_client.delete(LOCK)
    assert sync(app).deferred == 0


def test_documents_stay_in_order_if_a_lock_ends_within_a_cycle(
    open_app: OpenApp,
    collection: Collection[Document],
    redis_client: redis.Redis,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both are applied, and the newer one decides."""
    redis_client.set(LOCK, "process_id_123")
    message = {"numero": 1, "texto": "nuevo", "tono": "formal"}
    collection.insert_one(campaign("c", clock.ago(9001), _id="waits"))
    collection.insert_one(campaign("c", clock.ago(9000), _id="newer", mensajes=[message]))
    dropped: list[object] = []
    apply = CacheWriter.apply

    def then_drop(self: CacheWriter, *arguments: Any) -> Applied:
        applied = apply(self, *arguments)
        dropped.append(redis_client.delete(LOCK))
        return applied

    monkeypatch.setattr(CacheWriter, "apply", then_drop)
    report = sync(open_app(page_size=1))
    assert dropped[0] == 1
    assert (report.records_processed, report.deferred) == (2, 0)
    assert held(redis_client) == truth(collection)


def test_each_version_of_a_request_is_queued_once(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """Again only after a change of the document: neither after a pop nor by a cold start."""
    app = open_app()

    def write(**fields: Any) -> int:
        fields |= {"updated_at": clock.now(), "campana_id": "c", "segmento": "s"}
        collection.update_one({"_id": 1}, {"$set": fields}, upsert=True)
        clock.forward(1)
        return sync(app).enqueued

    assert write(estado="pendiente") == 1
    assert sync(app).enqueued == 0
    assert redis_client.lpop(QUEUE) == '{"campana_id":"c","segmento":"s"}'
    assert sync(app).enqueued == 0
    assert write(estado="pendiente", prioridad="alta") == 1
    assert redis_client.llen("queue:ai_generation:alta") == 1
    assert write(estado="archivado") == 0
    assert write(estado="pendiente", prioridad="alta") == 1
    assert redis_client.llen("queue:ai_generation:alta") == 2

    redis_client.delete(f"{STATE_PREFIX}checkpoint", "etl:last_sync:promptContent")
    report = sync(app)
    assert (report.mode, report.records_processed, report.enqueued) == ("cold_start", 1, 0)


def test_queue_of_the_wrong_type_rejects_only_its_requests(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """The request becomes a dead letter with that reason, and a retry succeeds once the key is deleted."""
    redis_client.set(QUEUE, "mine")
    pending = campaign("c", clock.ago(1), _id="w", estado="pendiente", mensajes=None)
    collection.insert_many([pending, api("p", clock.now())])
    app = open_app()
    report = sync(app)
    assert (report.records_processed, report.dead_lettered) == (1, 1)
    assert "not a list" in report.dead_letters[0]["reason"]
    assert redis_client.get(QUEUE) == "mine"

    redis_client.delete(QUEUE)
    report = app.retry_dead_letters("promptContent", [report.dead_letters[0]["id"]])
    assert report.enqueued == 1
    assert app.dead_letters("promptContent").list() == []


def test_contract_key_of_another_type_is_replaced(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    redis_client.rpush(KEY, "not a hash")
    collection.insert_one(claim("x", clock.now()))
    sync(open_app())
    assert status(redis_client) == "x"


def test_refresh_beside_a_writer_ends_with_the_newest_version(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """Refreshes and cycles race while the document changes."""
    collection.insert_one(claim("0", clock.now(), _id=1))
    finished = threading.Event()
    refreshed: list[int] = []

    def refresh() -> None:
        while not finished.is_set():
            refreshed.append(open_app().refresh("config:api").written)

    thread = threading.Thread(target=refresh)
    thread.start()
    app = open_app()
    try:
        for version in range(1, 60):
            change = {"$set": {"status": str(version), "updated_at": datetime.now(UTC)}}
            collection.update_one({"_id": 1}, change)
            sync(app)
    finally:
        finished.set()
        thread.join()
    assert sum(refreshed) > 5, "the refresh did not race"
    sync(app)
    assert status(redis_client) == "59"
