"""A document that moves to other keys releases its old ones in the same cycle."""

from typing import Any

import pytest
import redis
from pymongo.collection import Collection

from etl.app import App
from etl.cache.keys import record_key
from tests.factories import api, campaign
from tests.support.pipeline import Clock, OpenApp, sync
from tests.support.redis_dump import hash_at, held
from tests.support.truth import truth
from tests.support.types import Document


def move(collection: Collection[Document], clock: Clock, document_id: object, **changes: object) -> None:
    """Change a document now."""
    collection.update_one({"_id": document_id}, {"$set": {**changes, "updated_at": clock.now()}})


def test_move_evicts_the_old_keys(
    app: App, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """Both keys of the document, and no others."""
    meta = {"tokens_total": 5}
    collection.insert_many([campaign(name, clock.ago(60), _id=name, metadata=meta) for name in ("c", "d")])
    sync(app)
    move(collection, clock, "c", segmento="other")
    assert sync(app).records_processed == 1
    assert held(redis_client) == truth(collection)
    assert len(held(redis_client)) == 4


@pytest.mark.parametrize("change", [{"provider_name": "q"}, {"provider_name": "q", "eliminado": True}])
def test_released_key_goes_to_the_second_newest_document(
    app: App,
    collection: Collection[Document],
    redis_client: redis.Redis,
    clock: Clock,
    change: dict[str, object],
) -> None:
    """The newest of three moves, also as a tombstone."""
    claims = [api("p", clock.ago(60 - n), _id=n, status=f"of {n}") for n in range(3)]
    collection.insert_many(claims)
    sync(app)
    assert hash_at(redis_client, "config:api:p")["status"] == "of 2"
    move(collection, clock, 2, **change)
    assert sync(app).records_processed == 1
    assert hash_at(redis_client, "config:api:p")["status"] == "of 1"
    assert bool(redis_client.exists("config:api:q")) is ("eliminado" not in change)


def test_released_key_goes_to_a_document_of_an_earlier_cycle(
    app: App, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """Also long after the overlap. Documents that were moved or deleted meanwhile are skipped."""
    for number, name in enumerate(("first", "elsewhere", "gone", "newest")):
        collection.insert_one(api("p", clock.now(), _id=name, status=f"of {number}"))
        sync(app)
        clock.forward(600)
    collection.update_one({"_id": "elsewhere"}, {"$set": {"provider_name": "r"}})  # no cycle sees it
    collection.delete_one({"_id": "gone"})
    move(collection, clock, "newest", provider_name="q")
    sync(app)
    assert hash_at(redis_client, "config:api:p")["status"] == "of 0"
    assert hash_at(redis_client, "config:api:q")["status"] == "of 3"


def test_tombstone_that_moves_releases_its_first_key(
    app: App, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """The older document of the first key is written again."""
    collection.insert_many([api(name, clock.ago(60), _id=name) for name in ("p", "q")])
    collection.insert_one(api("p", clock.ago(30), _id="tombstone", eliminado=True))
    sync(app)
    assert held(redis_client).keys() == {"config:api:q"}
    move(collection, clock, "tombstone", provider_name="q")
    sync(app)
    assert held(redis_client).keys() == {"config:api:p"}


def test_document_that_lost_its_key_does_not_evict_it(
    app: App, collection: Collection[Document], redis_client: redis.Redis, clock: Clock
) -> None:
    """A newer document has claimed the key meanwhile."""
    collection.insert_one(api("p", clock.ago(60), _id="older", status="older"))
    sync(app)
    collection.insert_one(api("p", clock.ago(30), _id="newer", status="newer"))
    sync(app)
    move(collection, clock, "older", provider_name="q")
    assert sync(app).records_processed == 1
    assert hash_at(redis_client, "config:api:p")["status"] == "newer"


@pytest.mark.parametrize(("tracked", "least", "most"), [(True, 5_100, 5_160), (False, 1_500, 1_560)])
def test_records_without_track_keys_expire_after_two_cycles(
    open_app: OpenApp,
    collection: Collection[Document],
    redis_client: redis.Redis,
    clock: Clock,
    tracked: bool,  # noqa: FBT001 (a parameter of the test)
    least: int,
    most: int,
) -> None:
    """With `track_keys` they also outlive the keys of the document."""
    app = open_app(track_keys=tracked)
    collection.insert_one(api("p", clock.ago(60), _id=1))
    sync(app)
    [record] = redis_client.scan_iter(record_key("*"))
    ttl: Any = redis_client.ttl(record)
    assert least - 10 <= ttl <= most

    redis_client.delete(record)
    move(collection, clock, 1, provider_name="q")
    sync(app)
    assert held(redis_client).keys() == {"config:api:p", "config:api:q"}
