"""`etl run`, the daemon, as a process."""

import signal
from datetime import UTC, datetime

import redis
from pymongo.collection import Collection

from tests.acceptance.conftest import StartEtl
from tests.support.types import Document, StartRedis
from tests.support.waiting import eventually

EVERY_SECOND = {"ETL_SCHEDULE__CYCLE_SECONDS": "1"}
LAST_SYNC = "etl:last_sync:promptContent"


def provider(name: str) -> Document:
    """A document of `config:api`."""
    fields = {"tipo": "integracion_api", "provider_name": name, "status": "active"}
    return fields | {"updated_at": datetime.now(UTC)}


def test_it_follows_mongodb_until_it_is_asked_to_stop(
    start_etl: StartEtl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """The first cycle at once, the next ones by themselves; SIGTERM ends it well and gives the lease back."""
    collection.insert_one(provider("first"))
    process = start_etl("run", **EVERY_SECOND)
    assert eventually(lambda: bool(redis_client.exists("config:api:first")), seconds=10)
    for number in range(3):
        collection.insert_one(provider(f"p{number}"))
        key = f"config:api:p{number}"
        assert eventually(lambda key=key: bool(redis_client.exists(key)), seconds=4)  # type: ignore[misc]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 0
    assert not redis_client.exists("{etl:last_sync:promptContent}:lease")


def test_two_daemons_share_the_intervals_and_one_survives(
    start_etl: StartEtl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Two work as one; after kill -9 of either the cycles go on and nothing is lost."""
    first = start_etl("run", **EVERY_SECOND, ETL_LEASE__SECONDS="1")
    start_etl("run", **EVERY_SECOND, ETL_LEASE__SECONDS="1")
    collection.insert_one(provider("both"))
    assert eventually(lambda: bool(redis_client.exists("config:api:both")), seconds=10)
    history = "{etl:last_sync:promptContent}:history"
    before = redis_client.llen(history)
    assert eventually(lambda: redis_client.llen(history) >= before + 4, seconds=10)
    assert redis_client.llen(history) <= before + 5
    first.kill()
    collection.insert_one(provider("one"))
    assert eventually(lambda: bool(redis_client.exists("config:api:one")), seconds=10)


def test_the_order_of_starting_does_not_matter(
    start_etl: StartEtl, collection: Collection[Document], start_redis: StartRedis
) -> None:
    """With Redis away it waits, says so once and begins when it comes; it ends in time while it waits."""
    server = start_redis()
    server.stop()
    collection.insert_one(provider("late"))
    process = start_etl(
        "run", **EVERY_SECOND, ETL_REDIS__URL=server.url, ETL_RETRY__SECONDS="1", ETL_LEASE__SECONDS="1"
    )
    assert not eventually(lambda: process.poll() is not None, seconds=4)
    server.start()
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        assert eventually(lambda: bool(client.exists("config:api:late")), seconds=10)
    server.stop()
    assert not eventually(lambda: process.poll() is not None, seconds=2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=5)
    assert process.returncode == 0
    assert "does not answer" in said
    assert said.count("does not answer") <= 4 + 4  # a line when it begins, for each of the two jobs
    assert "Traceback" not in said


def test_a_family_is_refreshed_before_it_expires(
    start_etl: StartEtl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """`mcp:server:status` is never missing, though no cycle falls due."""
    document = {"tipo": "estado_servidor", "server_name": "content", "status": "active"}
    collection.insert_one(document | {"updated_at": datetime.now(UTC)})
    life = '{"mcp:server:status": {"ttl": 3, "refresh_seconds": 1}}'
    start_etl("run", ETL_FAMILIES=life)
    assert eventually(lambda: bool(redis_client.exists("mcp:server:status:content")), seconds=10)
    assert not eventually(lambda: not redis_client.exists("mcp:server:status:content"), seconds=7)
