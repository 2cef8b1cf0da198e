"""Redis restarts, fills up, refuses to write and forgets, in the middle of a cycle."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database

from etl.app import App
from etl.backfill import coordinator
from etl.cache.writer import Applied, CacheWriter
from etl.demo import RedisServer
from tests.factories import delta
from tests.support.pipeline import STATE_PREFIX, OpenApp, cycle
from tests.support.redis_dump import held
from tests.support.truth import truth
from tests.support.types import Document, StartMongo, StartRedis

PATIENCE = 20.0


@pytest.fixture
def durable(start_redis: StartRedis) -> RedisServer:
    """A Redis of this test's own that keeps its data over a restart."""
    return start_redis(args=("--appendonly", "yes", "--appendfsync", "always"))


@pytest.fixture
def documents(collection: Collection[Document]) -> Collection[Document]:
    """Thirty pages."""
    collection.insert_many(delta(300))
    return collection


def client_of(server: RedisServer) -> redis.Redis:
    """A client to arrange and to look."""
    return redis.Redis.from_url(server.url, decode_responses=True)


def strike_at(monkeypatch: pytest.MonkeyPatch, batch: int, strike: Callable[[], object]) -> list[int]:
    """Carry out `strike` just before the batch of that number is written; the list says that it did."""
    struck: list[int] = []
    count = 0
    apply = CacheWriter.apply

    def watched(self: CacheWriter, *arguments: Any) -> Applied:
        nonlocal count
        count += 1
        if count == batch:
            strike()
            struck.append(batch)
        return apply(self, *arguments)

    monkeypatch.setattr(CacheWriter, "apply", watched)
    return struck


def test_a_cycle_survives_a_restart_of_redis(
    durable: RedisServer, documents: Collection[Document], open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cycle waits for it to come back and goes on; nothing is lost, no request queued twice."""

    def restart() -> None:
        durable.stop()
        threading.Timer(1.0, durable.start).start()

    struck = strike_at(monkeypatch, 7, restart)
    report = cycle(open_app(redis=durable.url, patience=PATIENCE))
    assert struck
    assert (report.status, report.records_processed) == ("ok", 300)
    with client_of(durable) as client:
        assert held(client) == truth(documents)


def test_a_cycle_fails_when_redis_is_flushed(
    durable: RedisServer, documents: Collection[Document], open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the cycle wrote is gone and must not be recorded: it fails, and the next is a cold start."""
    with client_of(durable) as client:
        struck = strike_at(monkeypatch, 7, client.flushall)
        app = open_app(redis=durable.url)
        report = cycle(app)
        assert struck
        assert report.status == "failed"
        report = cycle(app)
        assert (report.status, report.mode) == ("ok", "cold_start")
        assert held(client) == truth(documents)


def test_flushed_scripts_are_loaded_again(
    durable: RedisServer, documents: Collection[Document], open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SCRIPT FLUSH while it works: they are loaded again."""
    with client_of(durable) as client:
        struck = strike_at(monkeypatch, 7, client.script_flush)
        assert cycle(open_app(redis=durable.url, patience=PATIENCE)).status == "ok"
        assert struck
        assert held(client) == truth(documents)


def test_a_cycle_waits_until_redis_has_memory_again(
    start_redis: StartRedis,
    documents: Collection[Document],
    open_app: OpenApp,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With `noeviction` a batch is refused and tried again until there is room; all of it is there, once."""
    server = start_redis()
    with client_of(server) as client:

        def fill_up() -> None:
            client.config_set("maxmemory", int(client.info("memory")["used_memory"]))
            threading.Timer(1.0, client.config_set, ("maxmemory", 0)).start()

        client.config_set("maxmemory-policy", "noeviction")
        caplog.set_level(logging.DEBUG, "etl")
        struck = strike_at(monkeypatch, 7, fill_up)
        report = cycle(open_app(redis=server.url, patience=PATIENCE))
        assert struck
        assert "used memory > 'maxmemory'" in caplog.text, "memory never ran out"
        assert (report.status, report.error) == ("ok", None)
        assert held(client) == truth(documents)


def test_a_cycle_fails_when_redis_stays_out_of_memory(
    start_redis: StartRedis,
    documents: Collection[Document],
    open_app: OpenApp,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cycle fails and says why; the checkpoint stands before what was refused, and the next goes on."""
    monkeypatch.setattr(coordinator, "TASK_SECONDS", 0)  # a checkpoint after each page
    documents.update_many({}, [{"$set": {"updated_at": {"$subtract": ["$updated_at", 3_600_000]}}}])
    server = start_redis()
    with client_of(server) as client:
        struck = strike_at(monkeypatch, 7, lambda: client.config_set("maxmemory", 1))
        report = cycle(open_app(redis=server.url, patience=1))
        assert struck
        assert report.status == "failed"
        assert "used memory > 'maxmemory'" in str(report.error)
        assert len(held(client)) < len(truth(documents))

        client.config_set("maxmemory", 0)
        report = cycle(open_app(redis=server.url))
        assert report.status == "ok"
        assert report.records_processed == 240  # six pages of ten were recorded
        assert held(client) == truth(documents)


def test_a_cycle_waits_until_its_replica_is_promoted(
    start_redis: StartRedis,
    documents: Collection[Document],
    open_app: OpenApp,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """READONLY, as after a failover that the address has not followed yet, is tried again."""
    server, other = start_redis(), start_redis()
    with client_of(server) as client:

        def demote() -> None:
            # Of a master that is not there, so that it keeps its data.
            other.stop()
            client.replicaof("127.0.0.1", other.port)
            threading.Timer(1.0, client.replicaof, ("NO", "ONE")).start()

        caplog.set_level(logging.DEBUG, "etl")
        struck = strike_at(monkeypatch, 7, demote)
        report = cycle(open_app(redis=server.url, patience=PATIENCE))
        assert struck
        assert "read only replica" in caplog.text, "it never refused"
        assert report.status == "ok"
        assert held(client) == truth(documents)


@pytest.mark.parametrize("role", ["checkpoint", "deferred", "dead_letters", "fence"])
def test_a_state_key_of_the_wrong_type_is_named(
    documents: Collection[Document], redis_client: redis.Redis, open_app: OpenApp, role: str
) -> None:
    """Somebody's own key under one of our names: the cycle fails in one line, and leaves it there."""
    key = f"{STATE_PREFIX}{role}"
    if role == "fence":
        redis_client.hset(key, "mine", "1")
    else:
        redis_client.set(key, "mine")
    report = cycle(open_app())
    assert report.status == "failed"
    assert "WRONGTYPE" in str(report.error)
    assert "\n" not in str(report.error)
    assert redis_client.exists(key)

    redis_client.delete(key)
    assert cycle(open_app()).status == "ok"
    assert held(redis_client) == truth(documents)


def test_a_reader_never_sees_half(
    collection: Collection[Document], redis_client: redis.Redis, redis_url: str, open_app: OpenApp
) -> None:
    """Two keys are replaced 150 times while a reader hammers them: each look is one version, with a TTL."""
    document = delta(1)[0]
    collection.insert_one(document)
    app = open_app()
    cycle(app)
    [messages] = redis_client.keys("ai:campaign_messages:*")
    [meta] = redis_client.keys("ai:generation:meta:*")
    seen: set[str] = set()
    wrong: list[object] = []
    rest = threading.Event()

    def hammer() -> None:
        with redis.Redis.from_url(redis_url, decode_responses=True) as client:
            while not rest.is_set():
                pipeline = client.pipeline(transaction=True)
                pipeline.lrange(messages, 0, -1).ttl(messages).hgetall(meta).ttl(meta)
                texts, life, fields, other_life = pipeline.execute()
                version = fields.get("tokens_total", "")
                seen.add(version)
                whole = len(texts) == 3 and all(f'"texto {version}"' in text for text in texts)
                if not whole or min(life, other_life) <= 0:
                    wrong.append((texts, life, fields, other_life))
                alone = client.lrange(messages, 0, -1)
                if len(alone) != 3 or len({text.split('"texto":')[1] for text in alone}) != 1:
                    wrong.append(alone)

    thread = threading.Thread(target=hammer)
    thread.start()
    try:
        for version in range(2, 152):
            write_version(collection, document, version)
            cycle(app)
    finally:
        rest.set()
        thread.join()
    assert not wrong, wrong[:2]
    assert len(seen) > 50, "the reader hardly looked"


def write_version(collection: Collection[Document], document: Document, version: int) -> None:
    """The next version of the one document."""
    texts = [{"numero": n, "texto": f"texto {version}", "tono": "casual"} for n in (1, 2, 3)]
    change = {"mensajes": texts, "metadata.tokens_total": version}
    stages = [{"$set": change | {"updated_at": "$$NOW"}}]
    collection.update_one({"_id": document["_id"]}, stages)


def test_the_role_read_is_enough(
    start_mongod: StartMongo, redis_client: redis.Redis, open_app: OpenApp
) -> None:
    """A guest in MongoDB: with `read` all works; without it one line says what is missing."""
    server = start_mongod(password="hunter2")
    with MongoClient[Document](server.uri, tz_aware=True) as admin:
        database: Database[Document] = admin["campaigns"]
        collection = database["promptContent"]
        collection.create_index([("updated_at", 1), ("_id", 1)])
        collection.insert_many(delta(30))
        for name, roles in (("guest", [{"role": "read", "db": "campaigns"}]), ("nobody", [])):
            admin["admin"].command("createUser", name, pwd="s3cr3t", roles=roles)
        uri = server.uri.partition("@")[2].split("/")[0]

        def opened(user: str) -> App:
            return open_app(
                mongo=f"mongodb://{user}@{uri}/?authSource=admin&directConnection=true",
                database="campaigns",
                patience=2,
            )

        with opened("guest:s3cr3t") as app:
            report = cycle(app)
            assert (report.status, report.records_processed) == ("ok", 30)
            assert app.refresh("ai:campaign_messages").written == 15
            assert cycle(app).records_processed == 0
        assert held(redis_client) == truth(collection)

        with opened("nobody:s3cr3t") as app:
            report = cycle(app)
            assert (report.status, report.exit_code) == ("failed", 2)
            assert "role read" in str(report.error)
        with opened("guest:wr0ng") as app:
            report = cycle(app)
            assert (report.status, report.exit_code) == ("failed", 2)
            assert "wr0ng" not in str(report.error)
