"""Verification names every key that does not match its documents, and no others, and repairs it."""

from collections.abc import Callable
from typing import Any

import pytest
import redis
from pymongo.collection import Collection

from etl.cache.keys import state_keys
from tests.factories import api, campaign, generation
from tests.support.pipeline import Clock, OpenApp, sync
from tests.support.redis_dump import hash_at, held
from tests.support.truth import truth
from tests.support.types import Document
from tests.support.verification import Applied, found, messages, meta, named


def test_every_kind_of_mismatch_is_found_and_repaired(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Changed, deleted and foreign keys, deleted and moved documents."""
    moment = clock.ago(900)
    collection.insert_many([generation(n, moment) for n in range(1000)])
    app = applied()
    assert found(app.verify("promptContent")) == {"matching": 2000}
    for n in range(10):
        redis_client.hset(meta(n), "tokens_total", "tampered")
        redis_client.delete(messages(100 + n))
        redis_client.hset(f"ai:generation:meta:foreign:{n:032}", "tokens_total", "1")
        collection.delete_one({"_id": 200 + n})
        collection.update_one({"_id": 300 + n}, {"$set": {"segmento": "other"}})
    report = app.verify("promptContent")
    mismatches = {"matching": 2000 - 60, "different": 10, "missing": 10 + 20, "orphaned": 20 + 20}
    assert found(report) == mismatches
    assert named(report)["different"] == {meta(n) for n in range(10)}
    assert not report.true
    repaired = app.verify("promptContent", repair=True)
    assert (found(repaired), repaired.repaired, repaired.true) == (mismatches, 80, True)
    assert found(app.verify("promptContent")) == {"matching": 1980}
    foreign = {f"ai:generation:meta:foreign:{n:032}" for n in range(10)}
    redis_client.delete(*foreign)
    assert held(redis_client) == truth(collection)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda r: (r.delete(meta(1)), r.set(meta(1), "x")), "it is a string, not a hash"),
        (lambda r: r.hset(meta(1), "extra", "1"), 'field "extra" should not exist: "1"'),
        (lambda r: r.hset(meta(1), "tokens_total", "2"), 'field tokens_total is "2", and should be "1"'),
        (lambda r: r.persist(meta(1)), "it has no TTL, and should have one of at most 10800 s"),
        (lambda r: r.hset(meta(1), mapping={str(n): n for n in range(40)}), "it has 41 fields, not 1"),
    ],
    ids=["another type", "a field too many", "another value", "without a TTL", "far too many fields"],
)
def test_every_kind_of_difference_is_described(
    applied: Applied,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    damage: Callable[[redis.Redis], Any],
    why: str,
) -> None:
    """In type, value, or presence of the TTL."""
    collection.insert_one(generation(1, clock.ago(900)))
    app = applied()
    damage(redis_client)
    report = app.verify("promptContent", repair=True)
    assert found(report) == {"matching": 1, "different": 1}
    assert report.keys["different"] == [(meta(1), why)]
    assert (held(redis_client), report.true) == (truth(collection), True)


def test_list_in_another_order_is_different(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    three = [{"numero": n, "texto": f"texto {n}", "tono": "casual"} for n in (1, 2, 3)]
    collection.insert_one(campaign("c1", clock.ago(900), mensajes=three))
    app = applied()
    first, second, third = redis_client.lrange(messages(1), 0, -1)
    redis_client.delete(messages(1))
    redis_client.rpush(messages(1), first, third, second)
    redis_client.expire(messages(1), 60)
    report = app.verify("promptContent")
    why = "the members are right but in another order, from member 2 on"
    assert report.keys == {"different": [(messages(1), why)]}


def test_absent_key_past_its_ttl_is_expired(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Also if the age of its document is unknown. A younger one is missing."""
    ages = {"old": 3605, "young": 3590}
    collection.insert_many([api(name, clock.ago(age)) for name, age in ages.items()])
    collection.insert_many([api("undated", None), api("future", clock.ago(-9000))])
    app = applied()
    redis_client.delete(*(f"config:api:{name}" for name in (*ages, "undated", "future")))
    report = app.verify("promptContent")
    assert found(report) == {"missing": 1, "expired": 3}
    assert named(report)["missing"] == {"config:api:young"}


def test_key_is_compared_with_its_newest_claim(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Each key counts once, although its documents are on several pages."""
    collection.insert_many([api("p", clock.ago(900 - n), status=str(n % 3)) for n in range(9)])
    collection.insert_one(api("p", clock.ago(800), status="newest"))
    app = applied(page_size=2)
    assert found(app.verify("promptContent")) == {"matching": 1}
    redis_client.hset("config:api:p", "status", "2")  # the value of an older document
    assert found(app.verify("promptContent", repair=True)) == {"different": 1}
    assert hash_at(redis_client, "config:api:p") == {"status": "newest"}


def test_key_of_a_deleted_document_is_repaired_from_the_older_claim(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Such a key is different, not orphaned."""
    collection.insert_many([api("p", clock.ago(900), _id=1, status="old"), api("p", clock.ago(800), _id=2)])
    app = applied()
    collection.delete_one({"_id": 2})
    assert found(app.verify("promptContent", repair=True)) == {"different": 1}
    assert hash_at(redis_client, "config:api:p") == {"status": "old"}


@pytest.mark.parametrize("lease", ["leader", "follow_lease"])
@pytest.mark.parametrize("change", [{"eliminado": True}, {"provider_name": "q"}], ids=["archived", "moved"])
def test_key_to_evict_is_orphaned_unless_a_daemon_or_follower_runs(
    applied: Applied,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    change: Document,
    lease: str,
) -> None:
    """They will evict it."""
    held = getattr(state_keys("promptContent"), lease)
    collection.insert_one(api("p", clock.ago(900), _id=1))
    app = applied()
    collection.update_one({"_id": 1}, {"$set": {**change, "updated_at": clock.now()}})
    redis_client.hset(state_keys("promptContent").follow, "caught_up", "1")
    redis_client.set(held, "host:1", px=60_000)
    assert "orphaned" not in found(app.verify("promptContent"))
    redis_client.delete(held)
    assert named(app.verify("promptContent", repair=True))["orphaned"] == {"config:api:p"}
    assert not redis_client.exists("config:api:p")


def test_keys_of_other_collections_are_left_alone(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
) -> None:
    """Keys that another collection claims are left alone; keys without a register are not counted."""
    other = collection.database["other"]
    collection.insert_many([api("mine", clock.ago(900)), api("both", clock.ago(900), status="here")])
    other.insert_one(api("both", clock.ago(300), status="there"))
    redis_client.hset("config:api:foreign", "status", "x")
    redis_client.expire("config:api:foreign", 60)
    redis_client.hset("{config:api:foreign}:owner", "name", "of another program")
    redis_client.set("{another}:owner", "+1 2")
    with open_app(settings={"collections": [{"name": "promptContent"}, {"name": "other"}]}) as app:
        assert [report.status for report in app.sync()] == ["ok", "ok"]
        before = held(redis_client)
        report = app.verify("promptContent", repair=True)
    assert (found(report), report.repaired) == ({"matching": 1, "left_alone": 1}, 0)
    assert held(redis_client) == before
    assert hash_at(redis_client, "config:api:both") == {"status": "there"}


def test_deferred_document_is_no_mismatch(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    collection.insert_many([generation(n, clock.ago(900)) for n in (1, 2)])
    app = applied()
    redis_client.delete(messages(1))
    collection.delete_one({"_id": 2})
    for number in (1, 2):
        redis_client.set(f"lock:content_generation:c{number}", "pid", ex=30)
    report = app.verify("promptContent", repair=True)
    assert (found(report), report.repaired) == ({"matching": 1, "deferred": 3}, 0)
    collection.update_one({"_id": 1}, {"$set": {"updated_at": clock.now()}})
    assert sync(app).deferred == 1
    redis_client.delete("lock:content_generation:c1")
    assert found(app.verify("promptContent"))["deferred"] == 3
    sync(app)
    assert redis_client.exists(messages(1))


def test_change_that_no_cycle_has_reached_is_pending(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Unlike documents that the last cycle has applied."""
    collection.insert_many([api(f"p{n}", clock.ago(10), _id=n) for n in range(3)])
    app = applied()
    redis_client.delete("config:api:p0")
    collection.update_one({"_id": 1}, {"$set": {"status": "new", "updated_at": clock.now()}})
    collection.insert_one(api("late", clock.ago(20)))
    report = app.verify("promptContent")
    assert found(report) == {"matching": 1, "missing": 1, "pending": 2}
    assert named(report)["pending"] == {"config:api:p1", "config:api:late"}
    sync(app)
    assert found(app.verify("promptContent")) == {"matching": 3, "missing": 1}


def test_key_of_a_document_that_became_invalid_is_no_mismatch(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Its last valid content is kept, also against an older claim."""
    collection.insert_many([api("p", clock.ago(900), status="old"), api("p", clock.ago(800), _id=2)])
    collection.insert_one(api("q", clock.ago(800), _id=3))
    app = applied()
    collection.update_many({"_id": {"$in": [2, 3]}}, {"$set": {"status": 5, "updated_at": clock.now()}})
    sync(app)
    before = held(redis_client)
    report = app.verify("promptContent", repair=True)
    assert (found(report), report.invalid) == ({"left_alone": 2}, 2)
    assert held(redis_client) == before


def test_repair_fills_an_empty_cache(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Redis has also lost the checkpoint."""
    collection.insert_many([generation(n, clock.ago(5)) for n in range(20)])
    app = applied()
    redis_client.flushdb()
    report = app.verify("promptContent", repair=True)
    assert (found(report), report.true) == ({"missing": 40}, True)
    assert held(redis_client) == truth(collection)


def test_repair_restores_the_owner_register(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """So that a later hard delete is found. A removed key that another program writes is left alone."""
    collection.insert_many([api("p", clock.ago(900), _id=1), api("q", clock.ago(900))])
    app = applied()
    redis_client.flushdb()
    assert app.verify("promptContent", repair=True).repaired == 2
    collection.delete_one({"_id": 1})
    assert named(app.verify("promptContent", repair=True)) == {"orphaned": {"config:api:p"}}
    redis_client.hset("config:api:p", "status", "of others")
    redis_client.expire("config:api:p", 60)
    assert found(app.verify("promptContent", repair=True)) == {"matching": 1}
    assert redis_client.exists("config:api:p")
