"""A failover of MongoDB or Redis during following: Redis equals MongoDB afterwards."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from pymongo.collection import Collection
from pymongo.write_concern import WriteConcern

from etl.app import App
from etl.demo import MongoServer
from etl.settings import Settings
from etl.sync.follow import Followed
from tests.support.daemons import key, provider
from tests.support.following import KEYS, Writer, following, has_begun, redis_agrees
from tests.support.pipeline import NAME
from tests.support.replica_set import Member, ReplicaSet
from tests.support.sentinel import start_sentinel
from tests.support.types import Document
from tests.support.waiting import eventually

pytestmark = pytest.mark.timed

_LOST, _OLD = 1_000, 2_000  # numbers of documents


@pytest.fixture
def documents(replica_set: ReplicaSet) -> Iterator[Collection[Document]]:
    """An empty collection with write concern majority."""
    with replica_set.client() as client:
        client.drop_database("campaigns")
        majority = WriteConcern(w="majority", j=True)
        documents = client["campaigns"].get_collection(NAME, write_concern=majority)
        documents.create_index([("updated_at", 1), ("_id", 1)])
        yield documents


def application(uri: str, database: str, redis: Mapping[str, Any]) -> App:
    """An application that retries longer than an election takes."""
    settings = {
        "mongo": {"uri": uri, "database": database},
        "redis": redis,
        "collections": [{"name": NAME, "page_size": 10}],
        "lease": {"seconds": 1},
        "retry": {"seconds": 60},
    }
    return App(Settings.model_validate(settings))


@pytest.fixture
def app(replica_set: ReplicaSet, documents: Collection[Document], redis_url: str) -> Iterator[App]:
    """An application on the replica set."""
    with application(replica_set.uri, documents.database.name, {"url": redis_url}) as app:
        yield app


def step_down(replica_set: ReplicaSet) -> Member:
    """Step down the primary."""
    return replica_set.step_down()


def kill(replica_set: ReplicaSet) -> Member:
    """Kill the primary."""
    primary = replica_set.primary()
    primary.kill()
    return primary


@pytest.mark.parametrize("replace_primary", [step_down, kill])
def test_follower_survives_a_failover_of_mongodb(
    replica_set: ReplicaSet,
    documents: Collection[Document],
    app: App,
    redis_client: redis.Redis,
    seed: int,
    replace_primary: Callable[[ReplicaSet], Member],
) -> None:
    """The stream resumes on the new primary, without a cycle."""
    batches: list[Followed] = []
    with following(app, batches):
        assert eventually(lambda: has_begun(redis_client))
        cycles = redis_client.llen(KEYS.history)
        with Writer(documents, seed) as writer:
            assert writer.continues()
            old = replace_primary(replica_set)
            assert writer.continues()
        assert replica_set.primary() is not old
        assert eventually(redis_agrees(redis_client, documents))
        assert redis_client.llen(KEYS.history) == cycles
    assert {one.restarted for one in batches if one.restarted} == {"connection"}


def test_follower_never_applies_writes_that_are_rolled_back(
    replica_set: ReplicaSet, documents: Collection[Document], app: App, redis_client: redis.Redis, seed: int
) -> None:
    """Writes of a primary without a majority, which is deposed."""
    batches: list[Followed] = []
    with following(app, batches):
        assert eventually(lambda: has_begun(redis_client))
        cycles = redis_client.llen(KEYS.history)
        documents.insert_many([{"_id": f"s{n}", **provider(n)} for n in range(3)])
        assert eventually(redis_agrees(redis_client, documents))
        primary = replica_set.cut_off()
        with replica_set.direct(primary) as client:
            without_majority = client[documents.database.name].get_collection(
                NAME, write_concern=WriteConcern(w=1, j=True)
            )
            without_majority.insert_one({"_id": "lost", **provider(_LOST)})
            without_majority.replace_one({"_id": "s1"}, provider(_LOST + 1))
            without_majority.delete_one({"_id": "s2"})
            assert without_majority.find_one({"_id": "lost"})
        replica_set.depose(primary)
        with Writer(documents, seed) as writer:
            assert writer.continues()
        primary.start()
        assert eventually(lambda: replica_set.has_rolled_back(primary), 60), "nothing was rolled back"
        assert eventually(redis_agrees(redis_client, documents))
        assert redis_client.llen(KEYS.history) == cycles
    assert not redis_client.exists(key(_LOST), key(_LOST + 1))
    assert {one.restarted for one in batches if one.restarted} == {"connection"}


def test_follower_repairs_writes_lost_in_a_failover_of_redis(
    mongod: MongoServer, collection: Collection[Document], seed: int
) -> None:
    """It notices that another server is the primary."""
    batches: list[Followed] = []
    long_ago = datetime.now(UTC) - timedelta(minutes=15)  # no cycle reads it again
    with start_sentinel() as watched:
        old = watched.primary()
        app = application(mongod.uri, collection.database.name, watched.settings())
        with app, following(app, batches), Writer(collection, seed) as writer:
            with watched.client() as client:
                assert eventually(lambda: has_begun(client))
                collection.insert_one({"_id": "old", **provider(_OLD), "updated_at": long_ago})
                assert eventually(lambda: client.exists(key(_OLD)) == 1)
                assert client.wait(1, 10_000) == 1
                replica = watched.cut_off()
                collection.insert_one(provider(_LOST))
                collection.delete_one({"_id": "old"})
                assert eventually(lambda: client.exists(key(_LOST)) == 1 and not client.exists(key(_OLD)))
            assert writer.continues()
            with redis.Redis.from_url(replica.url) as client:
                assert (client.exists(key(_LOST)), client.exists(key(_OLD))) == (0, 1)
                old.kill()
            assert writer.continues()
            assert eventually(lambda: watched.primary() is replica)
            assert writer.continues()
            with watched.client() as client:
                assert eventually(lambda: client.exists(key(_LOST)) == 1 and not client.exists(key(_OLD)))
                writer.stop()
                assert eventually(redis_agrees(client, collection))
    assert {one.restarted for one in batches if one.restarted} == {"failover"}
