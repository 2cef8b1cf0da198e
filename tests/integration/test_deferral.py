"""Documents that wait for a generation lock."""

from datetime import datetime

import pytest
import redis
from pymongo.collection import Collection

from tests.factories import api, campaign
from tests.support.pipeline import Clock, OpenApp, sync
from tests.support.redis_dump import held
from tests.support.truth import truth
from tests.support.types import Document

LOCK = "lock:content_generation:c"


def campaign_with_text(text: str, moment: datetime, **fields: object) -> Document:
    """The campaign with one message."""
    return campaign("c", moment, mensajes=[{"numero": 1, "texto": text, "tono": "casual"}], **fields)


def test_older_deferred_document_does_not_displace_a_newer_one(
    open_app: OpenApp, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """It committed late, and is applied when the newer one is long outside the overlap."""
    app = open_app()
    sync(app)
    clock.forward(1_000)
    older, newer = clock.ago(20), clock.ago(10)
    collection.insert_one(campaign_with_text("new", newer))
    sync(app)
    redis_client.set(LOCK, "process_id_123")
    collection.insert_one(campaign_with_text("old", older))
    assert sync(app).deferred == 1
    for _ in range(2):
        clock.forward(2_000)
        collection.insert_one(api("else", clock.ago(1)))
        assert sync(app).deferred == 1

    redis_client.delete(LOCK)
    report = sync(app)
    assert (report.records_processed, report.deferred) == (1, 0)
    assert held(redis_client) == truth(collection)


@pytest.mark.parametrize("page_size", [1, 500])
def test_deferred_documents_are_applied_in_order(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    page_size: int,
) -> None:
    """By other processes; several documents of a campaign claim one key, also on pages of one document."""
    redis_client.set(LOCK, "process_id_123")
    texts = ["first", "second", "third"]
    collection.insert_many(
        [campaign_with_text(text, clock.ago(30 - n), _id=9 - n) for n, text in enumerate(texts)]
    )
    assert sync(open_app(page_size=page_size)).deferred == 3
    clock.forward(5_000)
    assert sync(open_app(page_size=page_size)).deferred == 3

    redis_client.delete(LOCK)
    assert sync(open_app(page_size=page_size)).records_processed == 3
    assert held(redis_client) == truth(collection)


def test_changed_document_keeps_the_start_of_its_deferral(
    open_app: OpenApp, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    app = open_app()
    redis_client.set(LOCK, "process_id_123")
    collection.insert_one(campaign_with_text("one", clock.ago(1), _id=1))
    sync(app)
    before = [waiting["since"] for waiting in app.status()[0].deferred]
    collection.replace_one({"_id": 1}, campaign_with_text("two", clock.ago(0), _id=1))
    assert sync(app).deferred == 1
    assert [waiting["since"] for waiting in app.status()[0].deferred] == before
