"""The daemon as a process, for longer: outages of its servers, cycle after cycle.

With LONG_RUNS=1 each run takes the time that is worth boasting about: `make soak`.
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
    """Servers to be stopped and started; Redis keeps what it has."""

    mongo: MongoServer
    redis: RedisServer

    @contextmanager
    def away(self, *names: str) -> Iterator[None]:
        """Without these for the length of the block."""
        for name in names:
            getattr(self, name).stop()
        yield
        for name in names:
            getattr(self, name).start()


@pytest.fixture
def servers(start_mongod: StartMongo, start_redis: StartRedis) -> Servers:
    """One of each."""
    return Servers(start_mongod(), start_redis(args=("--appendonly", "yes")))


class Follower:
    """A daemon that follows these servers, and the documents that are written meanwhile."""

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
        """One document more."""
        number = len(self._written)
        self._collection.insert_one(provider(number))
        self._written.append(key(number))

    def has_all(self) -> bool:
        """Whether Redis has all that was written."""
        return self._cache.exists(*self._written) == len(self._written)

    def outlasts(self, names: Sequence[str], seconds: float) -> None:
        """It lives without these servers, is red and then green, and catches up with what was written."""
        self.write()
        with self.servers.away(*names):
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
        """Give the connections back."""
        self._client.close()
        self._cache.close()


def test_outages_pass(start_etl: StartEtl, servers: Servers, database: Database[Document]) -> None:
    """Of each server alone when there is time, and of both: nothing is lost, and the log is short."""
    seconds, patience = (15, 20) if LONG else (8, 1)  # longer than a wait for MongoDB
    with closing(Follower(start_etl, servers, database.name, patience)) as follower:
        for names in (("mongo",), ("redis",), ("mongo", "redis")) if LONG else (("mongo", "redis"),):
            follower.outlasts(names, seconds)
    lines = ended(follower.process)
    troubles = [line for line in lines if line["action"] == "trouble"]
    print(f"{len(lines)} lines, {len(troubles)} of trouble")  # noqa: T201
    told = {line["message"].split()[0] for line in troubles}
    assert told == {"MongoDB", "Redis"} if LONG else told  # with both away, either is met first
    assert all("cycle" in line for line in troubles if "collection" in line)
    assert any(line["action"] == "recovered" for line in lines)
    assert len(lines) <= (36 if LONG else 16), lines


def test_a_soak_leaves_nothing_behind(environment: dict[str, str], collection: Collection[Document]) -> None:
    """Cycle after cycle, with refreshes and scrapes: memory, threads, sockets and files stay as they are."""
    cycles = 1000 if LONG else 60
    command = [sys.executable, "-m", "tests.support.soak", str(cycles), "0.1"]
    writer = Writer(collection)
    # As short as the rest: what is dated within it is read again by every cycle.
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


def test_one_that_is_cut_off_from_mongodb_makes_way(
    start_etl: StartEtl,
    mongod: MongoServer,
    proxy_to: ProxyTo,
    collection: Collection[Document],
    redis_client: redis.Redis,
) -> None:
    """It led; the other daemon, which still reaches MongoDB, takes it over."""
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
