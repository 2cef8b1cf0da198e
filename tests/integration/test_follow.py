"""A follower applies the changes of a collection without a cycle, also deletes."""

import json
from datetime import UTC, datetime

import pytest
import redis
from pymongo.collection import Collection

from etl.cache.writer import CacheWriter
from etl.errors import CycleFailed, StreamRefusedError
from etl.sync.follow import Followed
from tests.factories import api, campaign
from tests.support.failpoint import fail_command
from tests.support.following import KEYS, following, has_begun, redis_agrees
from tests.support.pipeline import NAME, OpenApp
from tests.support.redis_dump import held
from tests.support.truth import truth
from tests.support.types import Document, StartMongo
from tests.support.waiting import eventually

LOCK = "lock:content_generation:c"


def now() -> datetime:
    """The present, to the millisecond."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def test_changes_are_applied_without_a_cycle(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """An insert, an update, a move, a tombstone, a hard delete, and a request."""
    with following(open_app()):
        assert eventually(lambda: has_begun(redis_client))
        collection.insert_many([api("a", now(), _id=1), api("a", now(), _id=2, status="older")])
        collection.insert_one(campaign("c", now(), _id=3, estado="pendiente", prioridad="alta"))
        collection.update_one({"_id": 1}, {"$set": {"status": "changed", "updated_at": now()}})
        assert eventually(redis_agrees(redis_client, collection))

        collection.update_one({"_id": 1}, {"$set": {"provider_name": "b", "updated_at": now()}})
        assert eventually(redis_agrees(redis_client, collection))
        assert redis_client.hget("config:api:a", "status") == "older"

        collection.update_one({"_id": 1}, {"$set": {"eliminado": True, "updated_at": now()}})
        collection.delete_one({"_id": 2})
        assert eventually(redis_agrees(redis_client, collection))
        assert redis_client.keys("config:api:*") == []
        assert redis_client.llen("queue:ai_generation:alta") == 1


def test_mapped_changes_are_applied_without_a_cycle(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Also beside a document whose expression fails; and a mapped tombstone."""
    fields = {
        "tipo": {"$literal": "integracion_api"},
        "provider_name": "$de.nombre",
        "status": {"$toString": {"$divide": [100, "$parte"]}},
        "eliminado": {"$not": ["$activo"]},
    }
    document = {"de": {"nombre": "a"}, "parte": 4, "activo": True}
    with following(open_app(fields=fields)):
        assert eventually(lambda: has_begun(redis_client))
        bad = document | {"_id": 2, "parte": 0, "updated_at": now()}
        collection.insert_many([document | {"_id": 1, "updated_at": now()}, bad])
        assert eventually(lambda: redis_client.hget("config:api:a", "status") == "25")
        assert eventually(lambda: redis_client.hlen(KEYS.dead_letters) == 1)
        collection.update_one({"_id": 1}, {"$set": {"activo": False, "updated_at": now()}})
        assert eventually(lambda: not redis_client.exists("config:api:a"))


def test_cycle_does_not_apply_again_what_the_follower_applied(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """It reads the versions again within its overlap, but they are marked as done."""
    batches: list[Followed] = []
    with following(open_app(), batches):
        assert eventually(lambda: has_begun(redis_client))
        collection.insert_many([api(f"p{n}", now(), _id=n) for n in range(10)])
        assert eventually(lambda: sum(one.operations.get("insert", 0) for one in batches) == 10)
    [report] = open_app().sync()
    assert (report.status, report.records_processed) == ("ok", 0)


def test_documents_are_applied_after_their_lock_is_released(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """As after a generator that writes twenty documents."""
    with following(open_app()):
        assert eventually(lambda: has_begun(redis_client))
        redis_client.set(LOCK, "process_id_123")
        collection.insert_many([campaign("c", now(), _id=n, segmento=f"s{n}") for n in range(20)])
        assert eventually(lambda: redis_client.hlen(KEYS.deferred) == 20)
        assert redis_client.keys("ai:*") == []

        redis_client.delete(LOCK)
        assert eventually(lambda: len(redis_client.keys("ai:campaign_messages:*")) == 20, 5)
        assert eventually(lambda: redis_client.hlen(KEYS.deferred) == 0)
        assert held(redis_client) == truth(collection)


def test_follower_resumes_where_the_last_one_stopped(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Changes and deletes in between come from the stream, without a cycle."""
    with following(open_app()):
        assert eventually(lambda: has_begun(redis_client))
        collection.insert_many([api(f"p{n}", now(), _id=n) for n in range(10)])
        assert eventually(redis_agrees(redis_client, collection))
    cycles = redis_client.llen(KEYS.history)

    collection.delete_many({"_id": {"$lt": 5}})
    collection.update_many({}, {"$set": {"status": "later", "updated_at": now()}})
    with following(open_app()):
        assert eventually(redis_agrees(redis_client, collection))
    assert redis_client.llen(KEYS.history) == cycles


@pytest.mark.parametrize("step", ["record", "apply"])
def test_failed_batch_is_applied_at_the_next_attempt(
    open_app: OpenApp,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    """The resume token is stored after the writes, so the events are read again."""
    with following(open_app()):
        assert eventually(lambda: has_begun(redis_client))
        collection.insert_many([api("old", now(), _id=1), api("changed", now(), _id=2)])
        assert eventually(redis_agrees(redis_client, collection))
    cycles = redis_client.llen(KEYS.history)
    collection.delete_one({"_id": 1})
    collection.update_one({"_id": 2}, {"$set": {"status": "later", "updated_at": now()}})
    collection.insert_one(campaign("c", now(), _id=3, estado="pendiente", prioridad="alta"))

    original = getattr(CacheWriter, step)
    batches: list[Followed] = []

    def fail(*_: object, **__: object) -> None:
        monkeypatch.setattr(CacheWriter, step, original)
        raise CycleFailed("injected")

    monkeypatch.setattr("etl.app.FOLLOW_AGAIN_SECONDS", 0.1)
    monkeypatch.setattr(CacheWriter, step, fail)
    with following(open_app(), batches):
        assert eventually(redis_agrees(redis_client, collection), 10)
    assert [one.restarted for one in batches if one.restarted] == ["failure"]
    assert redis_client.llen(KEYS.history) == cycles


def test_second_follower_waits_and_takes_over(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """While the first one holds the lease."""
    first: list[Followed] = []
    second: list[Followed] = []
    with following(open_app(), first):
        assert eventually(lambda: has_begun(redis_client))
        with following(open_app(), second):
            collection.insert_one(api("a", now(), _id=1))
            assert eventually(redis_agrees(redis_client, collection))
            assert second == []
    with following(open_app(), second):
        collection.insert_one(api("b", now(), _id=2))
        assert eventually(redis_agrees(redis_client, collection))
        assert eventually(lambda: bool(second))


def test_lost_token_causes_a_cycle_and_a_reconciliation(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """So deletes that the stream has lost are applied too."""
    batches: list[Followed] = []
    with following(open_app()):
        assert eventually(lambda: has_begun(redis_client))
        collection.insert_many([api(f"p{n}", now(), _id=n) for n in range(3)])
        assert eventually(redis_agrees(redis_client, collection))
    collection.delete_one({"_id": 0})
    collection.insert_one(api("new", now(), _id=9))

    lost_history = fail_command(
        collection.database.client, "aggregate", appName="promptcontent-etl", errorCode=286
    )
    with lost_history, following(open_app(), batches):
        assert eventually(redis_agrees(redis_client, collection))
    assert [one.restarted for one in batches if one.restarted] == ["token_lost"]


def test_dropped_collection_is_followed_again(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Redis has the documents of the new collection only."""
    batches: list[Followed] = []
    with following(open_app(), batches):
        assert eventually(lambda: has_begun(redis_client))
        collection.insert_many([api(f"p{n}", now(), _id=n) for n in range(3)])
        assert eventually(redis_agrees(redis_client, collection))
        collection.drop()
        assert eventually(lambda: any(one.restarted for one in batches))
        collection.create_index([("updated_at", 1), ("_id", 1)])
        collection.insert_one(api("new", now(), _id=9))
        assert eventually(redis_agrees(redis_client, collection))
        collection.insert_one(api("next", now(), _id=10))
        assert eventually(redis_agrees(redis_client, collection))
    assert [one.restarted for one in batches if one.restarted] == ["invalidated"]


def test_follower_reads_in_the_session_of_the_stream(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """With read concern majority after the event; a linearizable read waits up to 100 ms for the journal."""
    with following(open_app()):
        assert eventually(lambda: has_begun(redis_client))
        collection.database.command("profile", 2)
        collection.insert_many([api(f"p{n}", now(), _id=n) for n in range(300)])
        assert eventually(redis_agrees(redis_client, collection))
        collection.database.command("profile", 0)
    reads = list(
        collection.database["system.profile"].find({"appName": "promptcontent-etl", "command.find": NAME})
    )
    assert reads
    assert {one["command"]["readConcern"]["level"] for one in reads} == {"majority"}
    assert all("afterClusterTime" in one["command"]["readConcern"] for one in reads)
    assert all(one.get("cursorExhausted") for one in reads)


def open_streams(collection: Collection[Document]) -> set[int]:
    """The open cursors of change streams of this collection."""
    operations: list[Document] = [
        {"$currentOp": {"idleCursors": True, "allUsers": True}},
        {"$match": {"ns": collection.full_name}},
    ]
    return {
        one["cursor"]["cursorId"]
        for one in collection.database.client.admin.aggregate(operations)
        if "cursor" in one and "$changeStream" in str(one["cursor"].get("originatingCommand"))
    }


def test_follower_has_one_cursor_and_leaves_none(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """It is opened for the first cycle, opened again to follow, and closed at the end."""
    with following(open_app()):
        assert eventually(lambda: has_begun(redis_client))
        assert eventually(lambda: bool(open_streams(collection)))
        assert max(len(open_streams(collection)) for _ in range(20)) == 1
    assert open_streams(collection) == set()


def test_killed_cursor_is_opened_again(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Events that arrived meanwhile are applied."""
    batches: list[Followed] = []

    def is_reopened() -> bool:
        if cursors := open_streams(collection):
            collection.database.command("killCursors", collection.name, cursors=[*cursors])
        return "connection" in [one.restarted for one in batches]

    with following(open_app(), batches):
        assert eventually(lambda: has_begun(redis_client))
        assert eventually(is_reopened)
        collection.insert_one(api("a", now(), _id=1))
        assert eventually(redis_agrees(redis_client, collection))


def test_status_shows_the_follower(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """State, lag, last event and holder."""
    app = open_app()
    [before] = app.status()
    assert before.follow is None
    with following(open_app()):
        assert eventually(lambda: has_begun(redis_client))
        collection.insert_one(api("a", now(), _id=1))
        assert eventually(redis_agrees(redis_client, collection))
        assert eventually(lambda: (app.status()[0].follow or {}).get("last_event") is not None)
        [during] = app.status()
        assert during.follow is not None
        assert (during.follow["state"], during.follow["lag_seconds"]) == ("following", 0.0)
        assert during.follow["holder"]
        assert during.lag_seconds == 0, "no cycle has seen the document, but the follower has applied it"
    [after] = app.status()
    assert after.follow is not None
    assert (after.follow["state"], after.follow["lag_seconds"]) == ("stopped", None)
    assert after.lag_seconds is not None
    assert after.lag_seconds > 0


def test_follower_reports_at_once_that_it_has_caught_up(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Also after a full batch, when more events might be waiting."""
    with following(open_app(page_size=10)):
        assert eventually(lambda: has_begun(redis_client))
    collection.insert_many([api(f"p{n}", now(), _id=n) for n in range(20)])
    app, batches = open_app(), list[Followed]()
    with following(open_app(page_size=10), batches):
        assert eventually(redis_agrees(redis_client, collection))
        assert eventually(lambda: (app.status()[0].follow or {})["state"] == "following", 5)
    assert [one.operations for one in batches[:2]] == [{"insert": 10}] * 2


def test_missing_privilege_for_change_streams_is_one_line(
    open_app: OpenApp,
    start_mongod: StartMongo,
) -> None:
    server = start_mongod(password="geheim")
    from pymongo import MongoClient  # noqa: PLC0415

    with MongoClient[Document](server.uri) as client:
        finder = {"resource": {"db": "campaigns", "collection": NAME}, "actions": ["find", "listIndexes"]}
        client.campaigns.command("createRole", "finder", privileges=[finder], roles=[])
        client.campaigns.command("createUser", "guest", pwd="geheim", roles=["finder"])
    guest = f"mongodb://guest:geheim@{server.address}/campaigns?replicaSet=rs0"
    with (
        open_app(mongo=guest, database="campaigns") as app,
        pytest.raises(StreamRefusedError, match="no change stream") as refused,
    ):
        app.follow(NAME, lambda _: None)
    assert "\n" not in str(refused.value)


def test_status_of_a_followed_collection_is_json(open_app: OpenApp, collection: Collection[Document]) -> None:
    collection.insert_one(api("a", now(), _id=1))
    assert json.dumps(open_app().status()[0].as_dict())
