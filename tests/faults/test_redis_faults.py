"""Redis restarts, is full, refuses writes or is flushed during a cycle."""

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
    """A Redis for this test that keeps its data over a restart."""
    return start_redis(args=("--appendonly", "yes", "--appendfsync", "always"))


@pytest.fixture
def documents(collection: Collection[Document]) -> Collection[Document]:
    """Documents for thirty pages."""
    collection.insert_many(delta(300))
    return collection


def client_of(server: RedisServer) -> redis.Redis:
    """A client to prepare and to inspect."""
    return redis.Redis.from_url(server.url, decode_responses=True)


def inject_at(monkeypatch: pytest.MonkeyPatch, batch: int, inject: Callable[[], object]) -> list[int]:
    """Call `inject` before this batch is written; the list is not empty afterwards."""
    injected: list[int] = []
    count = 0
    apply = CacheWriter.apply

    def counting(self: CacheWriter, *arguments: Any) -> Applied:
        nonlocal count
        count += 1
        if count == batch:
            inject()
            injected.append(batch)
        return apply(self, *arguments)

    monkeypatch.setattr(CacheWriter, "apply", counting)
    return injected


def test_cycle_survives_a_restart_of_redis(
    durable: RedisServer, documents: Collection[Document], open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost, and no request is queued twice."""

    def restart() -> None:
        durable.stop()
        threading.Timer(1.0, durable.start).start()

    injected = inject_at(monkeypatch, 7, restart)
    report = cycle(open_app(redis=durable.url, patience=PATIENCE))
    assert injected
    assert (report.status, report.records_processed) == ("ok", 300)
    with client_of(durable) as client:
        assert held(client) == truth(documents)


def test_cycle_fails_when_redis_is_flushed(
    durable: RedisServer, documents: Collection[Document], open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writes are lost, so it must not record them. The next cycle is a cold start."""
    with client_of(durable) as client:
        injected = inject_at(monkeypatch, 7, client.flushall)
        app = open_app(redis=durable.url)
        report = cycle(app)
        assert injected
        assert report.status == "failed"
        report = cycle(app)
        assert (report.status, report.mode) == ("ok", "cold_start")
        assert held(client) == truth(documents)


def test_flushed_scripts_are_loaded_again(
    durable: RedisServer, documents: Collection[Document], open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After SCRIPT FLUSH during a cycle."""
    with client_of(durable) as client:
        injected = inject_at(monkeypatch, 7, client.script_flush)
        assert cycle(open_app(redis=durable.url, patience=PATIENCE)).status == "ok"
        assert injected
        assert held(client) == truth(documents)


def test_cycle_waits_until_redis_has_memory_again(
    start_redis: StartRedis,
    documents: Collection[Document],
    open_app: OpenApp,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With `noeviction` a batch is refused and retried."""
    server = start_redis()
    with client_of(server) as client:

        def fill_up() -> None:
            client.config_set("maxmemory", int(client.info("memory")["used_memory"]))
            threading.Timer(1.0, client.config_set, ("maxmemory", 0)).start()

        client.config_set("maxmemory-policy", "noeviction")
        caplog.set_level(logging.DEBUG, "etl")
        injected = inject_at(monkeypatch, 7, fill_up)
        report = cycle(open_app(redis=server.url, patience=PATIENCE))
        assert injected
        assert "used memory > 'maxmemory'" in caplog.text, "memory never ran out"
        assert (report.status, report.error) == ("ok", None)
        assert held(client) == truth(documents)


def test_cycle_fails_when_redis_stays_out_of_memory(
    start_redis: StartRedis,
    documents: Collection[Document],
    open_app: OpenApp,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The checkpoint is before the refused batch, and the next cycle resumes there."""
    monkeypatch.setattr(coordinator, "TASK_SECONDS", 0)  # a checkpoint after each page
    documents.update_many({}, [{"$set": {"updated_at": {"$subtract": ["$updated_at", 3_600_000]}}}])
    server = start_redis()
    with client_of(server) as client:
        injected = inject_at(monkeypatch, 7, lambda: client.config_set("maxmemory", 1))
        report = cycle(open_app(redis=server.url, patience=1))
        assert injected
        assert report.status == "failed"
        assert "used memory > 'maxmemory'" in str(report.error)
        assert len(held(client)) < len(truth(documents))

        client.config_set("maxmemory", 0)
        report = cycle(open_app(redis=server.url))
        assert report.status == "ok"
        assert report.records_processed == 240  # six pages of ten were recorded
        assert held(client) == truth(documents)


def test_cycle_waits_until_its_replica_is_promoted(
    start_redis: StartRedis,
    documents: Collection[Document],
    open_app: OpenApp,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """READONLY is retried, as after a failover before the address is switched."""
    server, other = start_redis(), start_redis()
    with client_of(server) as client:

        def demote() -> None:
            # A replica of a stopped primary keeps its data.
            other.stop()
            client.replicaof("127.0.0.1", other.port)
            threading.Timer(1.0, client.replicaof, ("NO", "ONE")).start()

        caplog.set_level(logging.DEBUG, "etl")
        injected = inject_at(monkeypatch, 7, demote)
        report = cycle(open_app(redis=server.url, patience=PATIENCE))
        assert injected
        assert "read only replica" in caplog.text, "it never refused"
        assert report.status == "ok"
        assert held(client) == truth(documents)


@pytest.mark.parametrize("role", ["checkpoint", "deferred", "dead_letters", "fence"])
def test_state_key_of_the_wrong_type_fails_the_cycle(
    documents: Collection[Document], redis_client: redis.Redis, open_app: OpenApp, role: str
) -> None:
    """In one line. The key of the other program is kept."""
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


def test_reader_sees_complete_versions_only(
    collection: Collection[Document], redis_client: redis.Redis, redis_url: str, open_app: OpenApp
) -> None:
    """Two keys are replaced 150 times while they are read: each read gives one version, with a TTL."""
    document = delta(1)[0]
    collection.insert_one(document)
    app = open_app()
    cycle(app)
    [messages] = redis_client.keys("ai:campaign_messages:*")
    [meta] = redis_client.keys("ai:generation:meta:*")
    seen: set[str] = set()
    wrong: list[object] = []
    finished = threading.Event()

    def read() -> None:
        with redis.Redis.from_url(redis_url, decode_responses=True) as client:
            while not finished.is_set():
                pipeline = client.pipeline(transaction=True)
                pipeline.lrange(messages, 0, -1).ttl(messages).hgetall(meta).ttl(meta)
                texts, ttl, fields, other_ttl = pipeline.execute()
                version = fields.get("tokens_total", "")
                seen.add(version)
                whole = len(texts) == 3 and all(f'"texto {version}"' in text for text in texts)
                if not whole or min(ttl, other_ttl) <= 0:
                    wrong.append((texts, ttl, fields, other_ttl))
                alone = client.lrange(messages, 0, -1)
                if len(alone) != 3 or len({text.split('"texto":')[1] for text in alone}) != 1:
                    wrong.append(alone)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for version in range(2, 152):
            write_version(collection, document, version)
            cycle(app)
    finally:
        finished.set()
        thread.join()
    assert not wrong, wrong[:2]
    assert len(seen) > 50, "there were few reads"


def write_version(collection: Collection[Document], document: Document, version: int) -> None:
    """Write this version of the document."""
    texts = [{"numero": n, "texto": f"texto {version}", "tono": "casual"} for n in (1, 2, 3)]
    change = {"mensajes": texts, "metadata.tokens_total": version}
    stages = [{"$set": change | {"updated_at": "$$NOW"}}]
    collection.update_one({"_id": document["_id"]}, stages)


def test_role_read_is_enough(start_mongod: StartMongo, redis_client: redis.Redis, open_app: OpenApp) -> None:
    """Without it one line names the missing role."""
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
