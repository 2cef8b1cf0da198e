"""A verification finds what is not true, calls it by its name, finds nothing else, and repairs it."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import bson
import pytest
import redis
from bson import Binary, Decimal128, Int64
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from etl.app import App, BackfillOrder, VerifyReport
from etl.cache.keys import state_keys
from etl.demo import MongoServer
from etl.settings import Settings
from schemas.families import CAMPAIGN_MESSAGES, GENERATION_META
from tests.support.pipeline import Clock, OpenApp, api, campaign, hash_at, settings_for, sync
from tests.support.truth import held, truth
from tests.support.types import Document

Applied = Callable[..., App]


@pytest.fixture
def applied(open_app: OpenApp) -> Applied:
    """Apply what is in MongoDB; keyword arguments are settings of the collection."""

    def apply(**settings: Any) -> App:
        app = open_app(**settings)
        sync(app)
        return app

    return apply


def generation(number: int, moment: datetime, **changes: Any) -> Document:
    """A document that fills a list and a hash."""
    return campaign(f"c{number}", moment, _id=number, metadata={"tokens_total": number}) | changes


def messages(number: int, segmento: str = "s") -> str:
    """The key of the messages of one."""
    return CAMPAIGN_MESSAGES.key(campana_id=f"c{number}", segmento=segmento)


def meta(number: int, segmento: str = "s") -> str:
    """The key of its metadata."""
    return GENERATION_META.key(campana_id=f"c{number}", segmento=segmento)


def found(report: VerifyReport) -> dict[str, int]:
    """The counts that are not zero."""
    names = ("matching", "different", "missing", "expired", "orphaned", "deferred", "pending", "left_alone")
    return {name: count for name in names if (count := getattr(report, name))}


def named(report: VerifyReport) -> Mapping[str, set[str]]:
    """The keys that are named, by kind."""
    return {name: {one.key for one in examples} for name, examples in report.keys.items()}


def test_everything_is_found_by_its_name_and_repaired(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Changed, deleted and planted keys, deleted and moved documents; nothing else; and then it is true."""
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
    gone = {"matching": 2000 - 60, "different": 10, "missing": 10 + 20, "orphaned": 20 + 20}
    assert found(report) == gone
    assert named(report)["different"] == {meta(n) for n in range(10)}
    assert not report.true
    repaired = app.verify("promptContent", repair=True)
    assert (found(repaired), repaired.repaired, repaired.true) == (gone, 80, True)
    assert found(app.verify("promptContent")) == {"matching": 1980}
    foreign = {f"ai:generation:meta:foreign:{n:032}" for n in range(10)}
    redis_client.delete(*foreign)
    assert held(redis_client) == truth(collection)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda r: (r.delete(meta(1)), r.set(meta(1), "x")), "it is a string, not a hash"),
        (lambda r: r.hset(meta(1), "extra", "1"), 'field "extra" should not exist: "1"'),
        (lambda r: r.hset(meta(1), "tokens_total", "2"), 'field tokens_total is "2", and should be "1"'),
        (lambda r: r.persist(meta(1)), "it has no TTL, and should have one of at most 10800 s"),
        (lambda r: r.hset(meta(1), mapping={str(n): n for n in range(40)}), "it has 41 fields, not 1"),
    ],
    ids=["another type", "a field too many", "another value", "without a TTL", "far too many fields"],
)
def test_every_difference_is_shown(
    applied: Applied,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    spoil: Callable[[redis.Redis], Any],
    why: str,
) -> None:
    """A key is different in its type, its value, or the presence of its TTL."""
    collection.insert_one(generation(1, clock.ago(900)))
    app = applied()
    spoil(redis_client)
    report = app.verify("promptContent", repair=True)
    assert found(report) == {"matching": 1, "different": 1}
    assert report.keys["different"] == [(meta(1), why)]
    assert (held(redis_client), report.true) == (truth(collection), True)


def test_a_list_in_another_order_is_different(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """All its members are right, but not where they are."""
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


def test_what_changed_longer_ago_than_it_lives_has_expired(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """An absent key is missing only where it must still be there; without a date that is not known."""
    ages = {"old": 3605, "young": 3590}
    collection.insert_many([api(name, clock.ago(age)) for name, age in ages.items()])
    collection.insert_many([api("undated", None), api("future", clock.ago(-9000))])
    app = applied()
    redis_client.delete(*(f"config:api:{name}" for name in (*ages, "undated", "future")))
    report = app.verify("promptContent")
    assert found(report) == {"missing": 1, "expired": 3}
    assert named(report)["missing"] == {"config:api:young"}


def test_the_newest_claim_is_the_truth(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Each key counts once, whatever its older documents say, on whichever page they are."""
    collection.insert_many([api("p", clock.ago(900 - n), status=str(n % 3)) for n in range(9)])
    collection.insert_one(api("p", clock.ago(800), status="newest"))
    app = applied(page_size=2)
    assert found(app.verify("promptContent")) == {"matching": 1}
    redis_client.hset("config:api:p", "status", "2")  # what an older document says
    assert found(app.verify("promptContent", repair=True)) == {"different": 1}
    assert hash_at(redis_client, "config:api:p") == {"status": "newest"}


def test_what_a_deleted_document_left_goes_to_the_one_before(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """A key that an older document claims too is different, not orphaned."""
    collection.insert_many([api("p", clock.ago(900), _id=1, status="old"), api("p", clock.ago(800), _id=2)])
    app = applied()
    collection.delete_one({"_id": 2})
    assert found(app.verify("promptContent", repair=True)) == {"different": 1}
    assert hash_at(redis_client, "config:api:p") == {"status": "old"}


@pytest.mark.parametrize("change", [{"eliminado": True}, {"provider_name": "q"}], ids=["archived", "moved"])
def test_what_no_cycle_has_evicted_yet_is_orphaned_unless_a_daemon_is_at_work(
    applied: Applied,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    change: Document,
) -> None:
    """With a daemon it is only a matter of time."""
    collection.insert_one(api("p", clock.ago(900), _id=1))
    app = applied()
    collection.update_one({"_id": 1}, {"$set": {**change, "updated_at": clock.now()}})
    redis_client.set(state_keys("promptContent").leader, "host:1", px=60_000)
    assert "orphaned" not in found(app.verify("promptContent"))
    redis_client.delete(state_keys("promptContent").leader)
    assert named(app.verify("promptContent", repair=True))["orphaned"] == {"config:api:p"}
    assert not redis_client.exists("config:api:p")


def test_keys_of_others_are_left_alone(
    mongod: MongoServer,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    redis_url: str,
) -> None:
    """What another collection claims too is not judged; a key without a register is not counted."""
    beside = collection.database["beside"]
    collection.insert_many([api("mine", clock.ago(900)), api("both", clock.ago(900), status="here")])
    beside.insert_one(api("both", clock.ago(300), status="there"))
    settings = settings_for(mongod.uri, collection.database.name, redis_url).model_dump()
    settings["collections"] += ({**settings["collections"][0], "name": "beside"},)
    redis_client.hset("config:api:foreign", "status", "x")
    redis_client.expire("config:api:foreign", 60)
    redis_client.hset("{config:api:foreign}:owner", "name", "of another program")
    redis_client.set("{another}:owner", "+1 2")
    with App(Settings.model_validate(settings)) as app:
        assert [report.status for report in app.sync()] == ["ok", "ok"]
        before = held(redis_client)
        report = app.verify("promptContent", repair=True)
    assert (found(report), report.repaired) == ({"matching": 1, "left_alone": 1}, 0)
    assert held(redis_client) == before
    assert hash_at(redis_client, "config:api:both") == {"status": "there"}


def test_what_waits_for_a_lock_is_no_mismatch_and_not_repaired(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """While the lock is held, and afterwards until the cycle that applies it."""
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


def test_what_no_cycle_has_reached_is_pending(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Documents new or changed since the last cycle began; not those it has applied a moment ago."""
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


def test_what_an_invalid_document_said_is_no_mismatch(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """What it said before it became invalid still stands, also over an older document's claim."""
    collection.insert_many([api("p", clock.ago(900), status="old"), api("p", clock.ago(800), _id=2)])
    collection.insert_one(api("q", clock.ago(800), _id=3))
    app = applied()
    collection.update_many({"_id": {"$in": [2, 3]}}, {"$set": {"status": 5, "updated_at": clock.now()}})
    sync(app)
    before = held(redis_client)
    report = app.verify("promptContent", repair=True)
    assert (found(report), report.invalid) == ({"left_alone": 2}, 2)
    assert held(redis_client) == before


def test_an_empty_cache_is_filled_again(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Where Redis has lost everything there is no cycle to wait for."""
    collection.insert_many([generation(n, clock.ago(5)) for n in range(20)])
    app = applied()
    redis_client.flushdb()
    report = app.verify("promptContent", repair=True)
    assert (found(report), report.true) == ({"missing": 40}, True)
    assert held(redis_client) == truth(collection)


def test_what_was_repaired_has_an_owner_again_and_what_was_removed_has_none(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """So that a later hard delete is found, and a key that others make of a removed one is left alone."""
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


def test_a_sample_finds_nothing_falsely(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """An owner that is gone is no reason to call a key orphaned that a document outside the sample claims."""
    ages = [api(f"p{n % 10}", clock.ago(900 - n), _id=n, status=str(n)) for n in range(200)]
    collection.insert_many(ages)
    app = applied()
    report = app.verify("promptContent", sample=20)
    assert (report.true, report.sampled, report.documents) == (True, True, 20)
    redis_client.hset("config:api:p1", "status", "spoiled")
    assert named(app.verify("promptContent", sample=200))["different"] == {"config:api:p1"}
    collection.delete_many({"_id": {"$gte": 190}})
    report = app.verify("promptContent", sample=2, repair=True)
    assert (report.orphaned, report.different > 0, report.true) == (0, True, True)
    assert {hash_at(redis_client, key)["status"] for key in named(report)["different"]} <= {
        str(n) for n in range(180, 190)
    }


def test_a_sample_takes_ids_of_every_kind(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """UUIDs, nested documents, and text that is not UTF-8."""
    ids = [
        Binary(bytes(16), 4),
        Binary(b"short", 3),
        {"a": Binary(bytes(16), 4)},
        Int64(5),
        Decimal128("1.0"),
        "é",
    ]
    collection.insert_many([api(f"p{n}", clock.ago(900), _id=one) for n, one in enumerate(ids)])
    raw = bson.encode(api("raw", clock.ago(900), _id="?")).replace(b"?\0", b"\xff\0")
    collection.insert_one(RawBSONDocument(raw))
    app = applied()
    report = app.verify("promptContent", sample=50)
    assert (found(report), report.invalid) == ({"matching": 6}, 1)
    redis_client.delete(*(f"config:api:p{n}" for n in range(6)))
    report = app.verify("promptContent", sample=50, repair=True)
    assert (report.missing, report.repaired) == (6, 6)


def test_a_sample_repairs_with_the_newest_claim(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Though it holds an older one, and Redis has lost the register that names the newest."""
    collection.insert_many([api("p", clock.ago(900 - n), status=str(n)) for n in range(200)])
    app = applied()
    redis_client.flushdb()
    assert app.verify("promptContent", sample=3, repair=True).repaired == 1
    assert hash_at(redis_client, "config:api:p") == {"status": "199"}


def test_a_sample_without_records_finds_nothing_falsely(
    applied: Applied, clock: Clock, collection: Collection[Document]
) -> None:
    """Though it holds old claims and the newest ones are not in it."""
    collection.insert_many([api("p", clock.ago(900 - n), status=str(n)) for n in range(200)])
    app = applied(track_keys=False)
    report = app.verify("promptContent", sample=3)
    assert (report.documents, found(report)) == (3, {"matching": 1})


def test_orphans_are_found_without_the_records_of_documents(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """The registers of keys tell which document filled each."""
    collection.insert_many([api(name, clock.ago(900), _id=name) for name in "pqrs"])
    app = applied(track_keys=False)
    redis_client.delete(*redis_client.keys("etl:record:*"))
    collection.update_one({"_id": "p"}, {"$set": {"eliminado": True}})
    collection.delete_one({"_id": "q"})
    collection.update_one({"_id": "r"}, {"$set": {"provider_name": "moved"}})
    report = app.verify("promptContent", repair=True)
    assert named(report)["orphaned"] == {f"config:api:{name}" for name in "pqr"}
    assert (report.repaired, held(redis_client)) == (4, truth(collection))


def test_a_document_that_moves_leaves_nothing_behind(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """The cycle that applies it evicts its old keys; one that another document claims goes to that one."""
    collection.insert_many([generation(n, clock.ago(900 - n)) for n in range(3)])
    collection.insert_one(generation(0, clock.ago(950), _id="older"))
    app = applied()
    for n in range(2):
        collection.update_one({"_id": n}, {"$set": {"segmento": "other", "updated_at": clock.now()}})
    sync(app)
    assert found(app.verify("promptContent")) == {"matching": 10 - 2}
    assert held(redis_client) == truth(collection)


def test_messages_stay_while_new_ones_are_asked_for(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Until they are replaced, or expire; an older document of the segment does not take their place."""
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


def test_a_document_that_asks_for_messages_elsewhere_leaves_its_old_ones(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """They belong to a segment that it has nothing to do with any more."""
    collection.insert_one(generation(1, clock.ago(900)))
    app = applied()
    collection.update_one({"_id": 1}, {"$set": {"estado": "pendiente", "updated_at": clock.now()}})
    sync(app)
    assert redis_client.exists(messages(1), meta(1)) == 2
    clock.forward(1)
    collection.update_one({"_id": 1}, {"$set": {"segmento": "another", "updated_at": clock.now()}})
    sync(app)
    assert redis_client.exists(messages(1), meta(1)) == 0


def test_a_request_for_messages_does_not_keep_those_of_another_document_away(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Where Redis has lost them, the document that has some fills the keys again."""
    collection.insert_many([generation(1, clock.ago(900)), generation(1, clock.ago(800), _id="asks")])
    collection.update_one({"_id": "asks"}, {"$set": {"estado": "pendiente"}})
    applied()
    assert hash_at(redis_client, meta(1)) == {"tokens_total": "1"}


def test_a_repair_sweeps_the_requests_of_documents_that_make_none(
    applied: Applied,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gone, generated or asked anew; what is still asked for is remembered, so that it is queued once."""
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


def test_what_too_many_claims_have_hidden_is_repaired(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """A key keeps its newest claims only; where those are gone, a repair is due until a full one was done."""
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
