"""A failover of Redis that loses writes, behind Sentinel and in a cluster: the daemon repairs them."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
import redis
from pymongo.collection import Collection
from redis.crc import key_slot
from redis.exceptions import RedisClusterException

from etl.cache.keys import state_keys
from etl.demo import RedisServer
from tests.support.cluster import start_cluster
from tests.support.command import Etl, StartEtl
from tests.support.daemons import ended, every, key, provider
from tests.support.pipeline import NAME
from tests.support.redis_dump import held
from tests.support.sentinel import start_sentinel
from tests.support.truth import truth
from tests.support.types import Document
from tests.support.waiting import eventually


class Topology(NamedTuple):
    """A Redis with a primary that will be killed, and its replica."""

    options: Mapping[str, str]
    """Variables for commands that use it."""
    primary: RedisServer
    replica: RedisServer
    client: Callable[[], Any]
    """A client of the whole Redis."""
    has: Callable[[str], bool]
    """Whether a key belongs to this primary."""


@pytest.fixture
def sentinel() -> Iterator[Topology]:
    """A primary with a replica, and three Sentinels."""
    with start_sentinel() as watched:
        section = watched.settings()
        options = {
            "ETL_REDIS__URL": section["url"],
            "ETL_REDIS__SENTINEL__SERVICE": section["sentinel"]["service"],
            "ETL_REDIS__SENTINEL__NODES": json.dumps(section["sentinel"]["nodes"]),
            "ETL_REDIS__SENTINEL__PASSWORD": section["sentinel"]["password"],
        }
        primary, replica = watched.servers
        yield Topology(options, primary, replica, watched.client, lambda _: True)


@pytest.fixture
def cluster() -> Iterator[Topology]:
    """Three primaries with a replica each; the one to be killed does not hold the checkpoint."""
    with start_cluster(replicas=1) as cluster:
        number = next(n for n in (1, 2) if n != _primary_of(state_keys(NAME).checkpoint))
        yield Topology(
            {"ETL_REDIS__URL": cluster.url},
            cluster.primaries[number],
            cluster.replicas[number],
            cluster.client,
            lambda key: _primary_of(key) == number,
        )


def _primary_of(key: str) -> int:
    return key_slot(key.encode()) * 3 // 16_384


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
def test_daemon_repairs_writes_that_a_failover_lost(
    kind: str,
    request: pytest.FixtureRequest,
    collection: Collection[Document],
    start_etl: StartEtl,
    etl: Etl,
) -> None:
    """Writes of its cycles, of a manual sync and of a backfill."""
    topology: Topology = request.getfixturevalue(kind)
    options = {**every(1), "ETL_LEASE__SECONDS": "5", **topology.options}
    number = next(n for n in range(100, 200) if topology.has(key(n)))
    old = datetime.now(UTC) - timedelta(minutes=15)  # no cycle reads it

    def redis_agrees() -> bool:
        # A key may expire while it is read, and the primary may be failing.
        with suppress(AssertionError, redis.RedisError, RedisClusterException), topology.client() as client:
            return held(client) == truth(collection)
        return False

    collection.insert_many([provider(n) for n in range(30)])
    daemon = start_etl("run", **options)
    assert eventually(redis_agrees)
    with redis.Redis.from_url(topology.primary.url) as client:
        assert client.wait(1, 10_000) == 1
        topology.replica.pause()
        client.execute_command("CLIENT KILL TYPE REPLICA")  # it will not get the following writes
    collection.update_many({}, {"$set": {"rate_limit": "new", "updated_at": datetime.now(UTC)}})
    assert etl("sync", **options).code in {0, 75}  # 75: the daemon runs a cycle
    collection.insert_one(provider(number) | {"updated_at": old})
    assert etl("backfill", NAME, **options).code == 0
    assert eventually(redis_agrees)

    topology.primary.kill()
    topology.replica.resume()
    with redis.Redis.from_url(topology.replica.url, single_connection_client=True) as client:
        if kind == "cluster":
            client.execute_command("READONLY")
        assert not client.exists(key(number)), "nothing was lost"
    assert eventually(redis_agrees, 60)

    lines = ended(daemon)
    assert any(line["action"] == "failover" for line in lines), lines
    assert sum(line["missing"] for line in lines if line["action"] == "reconciliation") >= 1, lines
