"""The daemon as a process: outages of its servers, and many cycles.

With LONG_RUNS=1 the runs are long: `make soak`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import NamedTuple

import pytest
import redis
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database

from etl.demo import MongoServer, RedisServer
from tests.support.command import StartEtl
from tests.support.daemons import (
    Writer,
    ended,
    every,
    is_ready,
    key,
    leader,
    provider,
    url_of,
)
from tests.support.http import get
from tests.support.soak import Row
from tests.support.types import Document, ProxyTo, StartMongo, StartRedis
from tests.support.waiting import eventually

LONG = bool(os.environ.get("LONG_RUNS"))


class Servers(NamedTuple):
    """Servers to stop and start; Redis persists its data."""

    mongo: MongoServer
    redis: RedisServer

    @contextmanager
    def stopped(self, *names: str) -> Iterator[None]:
        """Stop these servers until the block ends."""
        for name in names:
            getattr(self, name).stop()
        yield
        for name in names:
            getattr(self, name).start()


@pytest.fixture
def servers(start_mongod: StartMongo, start_redis: StartRedis) -> Servers:
    """A MongoDB and a Redis for this test."""
    return Servers(start_mongod(), start_redis(args=("--appendonly", "yes")))


class WatchedDaemon:
    """A daemon on these servers, and the documents that are written meanwhile."""

    def __init__(self, start_etl: StartEtl, servers: Servers, database: str, patience: float) -> None:
        self.servers = servers
        self._client = MongoClient[Document](servers.mongo.uri, tz_aware=True)
        self._collection = self._client[database]["promptContent"]
        self._collection.create_index([("updated_at", 1), ("_id", 1)])
        self._cache = redis.Redis.from_url(servers.redis.url)
        self._written: list[str] = []
        settings = every(2) | {"ETL_MONGO__URI": servers.mongo.uri, "ETL_REDIS__URL": servers.redis.url}
        settings["ETL_RECONCILE__INTERVAL_SECONDS"] = "86400"  # its lines of trouble have no cycle
        self._url = url_of(settings)
        self.process = start_etl("run", **settings, ETL_RETRY__SECONDS=str(patience))
        assert eventually(self.is_ready)

    def is_ready(self) -> bool:
        """Whether `/readyz` is green."""
        return is_ready(self._url)

    def write(self) -> None:
        """Insert a document."""
        number = len(self._written)
        self._collection.insert_one(provider(number))
        self._written.append(key(number))

    def has_all(self) -> bool:
        """Whether Redis has all documents."""
        return self._cache.exists(*self._written) == len(self._written)

    def survives_outage(self, names: Sequence[str], seconds: float) -> None:
        """Check that it stays alive, becomes unready and ready again, and applies what was written meanwhile."""
        self.write()
        with self.servers.stopped(*names):
            if "mongo" not in names:
                self.write()
            assert eventually(lambda: not self.is_ready())
            time.sleep(seconds)
            assert not self.is_ready()
            answers = [get(f"{self._url}/{path}").code for path in ("healthz", "metrics")]
            assert answers == [200, 200]
        assert eventually(self.is_ready), get(f"{self._url}/readyz").text
        self.write()
        assert eventually(self.has_all)

    def close(self) -> None:
        self._client.close()
        self._cache.close()


def test_daemon_survives_outages(start_etl: StartEtl, servers: Servers, database: Database[Document]) -> None:
    """Of both servers, and in a long run of each: nothing is lost, and the log is short."""
    seconds, patience = (15, 20) if LONG else (8, 1)  # longer than a wait for MongoDB
    with closing(WatchedDaemon(start_etl, servers, database.name, patience)) as daemon:
        for names in (("mongo",), ("redis",), ("mongo", "redis")) if LONG else (("mongo", "redis"),):
            daemon.survives_outage(names, seconds)
    lines = ended(daemon.process)
    trouble_lines = [line for line in lines if line["action"] == "trouble"]
    print(f"{len(lines)} lines, {len(trouble_lines)} of trouble")  # noqa: T201
    servers_named = {line["message"].split()[0] for line in trouble_lines}
    assert (
        servers_named == {"MongoDB", "Redis"} if LONG else servers_named
    )  # with both stopped, either may be found first
    assert all("cycle" in line for line in trouble_lines if "collection" in line)
    assert any(line["action"] == "recovered" for line in lines)
    assert len(lines) <= (36 if LONG else 16), lines


def test_many_cycles_leak_no_resources(environment: dict[str, str], collection: Collection[Document]) -> None:
    """Memory, threads, sockets and files stay constant, with refreshes and scrapes."""
    cycles = 1000 if LONG else 60
    command = [sys.executable, "-m", "tests.support.soak", str(cycles), "0.1"]
    writer = Writer(collection)
    # Short, because every cycle reads documents within it again.
    overlap = '[{"name": "promptContent", "overlap_seconds": 1}]'
    variables = environment | {"ETL_COLLECTIONS": overlap}
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            writer.write(0.5)
        assert process.stdout is not None
        rows = [Row(**json.loads(line)) for line in process.stdout]
    assert process.returncode == 0
    print(*rows, sep="\n")  # noqa: T201
    warm, last = rows[len(rows) * 2 // 5], rows[-1]
    assert last.cycles >= cycles
    assert last.threads <= warm.threads + 2
    assert last.sockets <= warm.sockets + 2
    assert last.files <= warm.files + 2
    assert last.memory <= warm.memory + 4096


def test_leader_without_mongodb_hands_over(
    start_etl: StartEtl,
    mongod: MongoServer,
    proxy_to: ProxyTo,
    collection: Collection[Document],
    redis_client: redis.Redis,
) -> None:
    """Another daemon, which reaches MongoDB, takes over."""
    proxy = proxy_to(mongod)
    cut_off = {"ETL_MONGO__URI": proxy.through(mongod.uri), "ETL_MONGO__TIMEOUT_SECONDS": "1"}
    first = start_etl("run", **every(1), **cut_off, ETL_RETRY__SECONDS="1")
    assert eventually(lambda: leader(redis_client) == first.pid)
    second = start_etl("run", **every(1))
    assert not eventually(lambda: second.poll() is not None, seconds=2)
    assert proxy.cut() > 0
    assert eventually(lambda: leader(redis_client) == second.pid)
    collection.insert_one(provider(1))
    assert eventually(lambda: bool(redis_client.exists(key(1))))
    assert leader(redis_client) == second.pid
