"""Verification of documents that move, keep their messages, or request new messages."""

import pytest
import redis
from pymongo.collection import Collection

from etl.app import BackfillOrder
from tests.factories import api, generation
from tests.support.pipeline import Clock, sync
from tests.support.redis_dump import hash_at, held
from tests.support.truth import truth
from tests.support.types import Document
from tests.support.verification import Applied, found, messages, meta


def test_moved_document_leaves_no_key(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """A key that another document claims goes to that document."""
    collection.insert_many([generation(n, clock.ago(900 - n)) for n in range(3)])
    collection.insert_one(generation(0, clock.ago(950), _id="older"))
    app = applied()
    for n in range(2):
        collection.update_one({"_id": n}, {"$set": {"segmento": "other", "updated_at": clock.now()}})
    sync(app)
    assert found(app.verify("promptContent")) == {"matching": 10 - 2}
    assert held(redis_client) == truth(collection)


def test_messages_are_kept_while_new_ones_are_requested(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """An older document of the segment does not replace them."""
    older = generation(1, clock.ago(950), _id="older", metadata={"tokens_total": 7})
    collection.insert_many([generation(1, clock.ago(900)), older])
    app = applied()
    before = held(redis_client)
    collection.update_one({"_id": 1}, {"$set": {"estado": "pendiente", "updated_at": clock.now()}})
    sync(app)
    [queue] = redis_client.keys("queue:*")
    assert redis_client.llen(queue) == 1
    report = app.verify("promptContent", repair=True)
    assert (found(report), report.true) == ({"matching": 2}, True)
    backfill = app.backfill("promptContent", BackfillOrder(), lambda _: None)
    assert (backfill.status, {key: held(redis_client)[key] for key in before}) == ("ok", before)
    collection.update_one({"_id": 1}, {"$set": {"segmento": "another", "updated_at": clock.now()}})
    sync(app)
    assert hash_at(redis_client, meta(1)) == {"tokens_total": "7"}
    assert found(app.verify("promptContent")) == {"matching": 2}


def test_request_for_another_segment_removes_the_old_messages(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    collection.insert_one(generation(1, clock.ago(900)))
    app = applied()
    collection.update_one({"_id": 1}, {"$set": {"estado": "pendiente", "updated_at": clock.now()}})
    sync(app)
    assert redis_client.exists(messages(1), meta(1)) == 2
    clock.forward(1)
    collection.update_one({"_id": 1}, {"$set": {"segmento": "another", "updated_at": clock.now()}})
    sync(app)
    assert redis_client.exists(messages(1), meta(1)) == 0


def test_request_does_not_block_the_messages_of_another_document(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """In an empty cache the other document writes the keys."""
    collection.insert_many([generation(1, clock.ago(900)), generation(1, clock.ago(800), _id="asks")])
    collection.update_one({"_id": "asks"}, {"$set": {"estado": "pendiente"}})
    applied()
    assert hash_at(redis_client, meta(1)) == {"tokens_total": "1"}


def test_repair_deletes_the_records_of_withdrawn_requests(
    applied: Applied,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Deleted or generated documents. Pending ones keep theirs, so that they are queued once."""
    pending = [generation(n, clock.ago(900), estado="pendiente") for n in range(300)]
    collection.insert_many(pending)
    app = applied()
    queue = "queue:ai_generation:media"
    collection.delete_many({"_id": {"$lt": 100}})
    collection.update_many({"_id": {"$lt": 200}}, {"$set": {"estado": "generado", "updated_at": clock.now()}})
    sync(app)
    app.verify("promptContent", repair=True)
    assert redis_client.hlen(f"{{{queue}}}:requests") == 300  # an older read might still arrive
    monkeypatch.setattr("etl.sync.processor.DEADLINE_SECONDS", -1)
    app.verify("promptContent", repair=True)
    assert redis_client.hlen(f"{{{queue}}}:requests") == 100
    monkeypatch.undo()
    app.backfill("promptContent", BackfillOrder(), lambda _: None)
    assert redis_client.llen(queue) == 300


def test_claim_that_the_register_dropped_is_repaired(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """After the newer claims have left, a reconciliation is due until a full repair."""
    collection.insert_many([api("p", clock.ago(900 - n), _id=n, status=str(n)) for n in range(20)])
    app = applied()
    moved = {"$set": {"provider_name": "q", "updated_at": clock.now()}}
    collection.update_many({"_id": {"$gte": 5}}, moved)
    sync(app)
    assert not redis_client.exists("config:api:p")
    assert app.reconciliation_due("promptContent")
    app.verify("promptContent")
    app.verify("promptContent", sample=5, repair=True)
    assert app.reconciliation_due("promptContent")
    report = app.reconcile("promptContent")
    assert report is not None
    assert report.true
    assert hash_at(redis_client, "config:api:p") == {"status": "4"}
    assert not app.reconciliation_due("promptContent")
