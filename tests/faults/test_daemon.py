"""The daemon as a process, for longer, while what it needs comes and goes.

With LONG_RUNS=1 each run takes the time that is worth boasting about: `make soak`.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
import redis
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database

from etl.embedded import MongoServer, RedisServer
from tests.acceptance.conftest import StartEtl
from tests.support.daemons import (
    HISTORY,
    TURN,
    Process,
    Reader,
    Writer,
    ended,
    every,
    is_ready,
    key,
    provider,
    url_of,
)
from tests.support.http import get
from tests.support.soak import Row
from tests.support.types import Document, ProxyTo, StartMongo, StartRedis
from tests.support.waiting import eventually

LONG = bool(os.environ.get("LONG_RUNS"))


def test_every_write_is_there_within_two_cycles(
    start_etl: StartEtl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Under a steady writer, also while the one of two daemons that works is killed: the other takes over."""
    cycle, seconds = 2, 60 if LONG else 10
    daemons = {daemon.pid: daemon for daemon in (start_etl("run", **every(cycle)) for _ in range(2))}
    assert eventually(lambda: bool(redis_client.exists(TURN)), seconds=10)
    writer = Writer(collection)
    reader = Reader(redis_client, writer)
    writing = threading.Thread(target=writer.write, args=(seconds,))
    reading = threading.Thread(target=reader.read, args=(lambda: not writing.is_alive() and reader.is_done,))
    for thread in (writing, reading):
        thread.start()
    time.sleep(seconds / 2)
    killed = daemons.pop(int(str(redis_client.get(TURN)).rpartition(":")[2]))
    killed.kill()
    for thread in (writing, reading):
        thread.join(seconds)
    assert reader.is_done
    delays = reader.delays()
    print(f"{len(delays)} writes, the slowest seen after {max(delays):.2f} s")  # noqa: T201
    assert len(delays) > seconds * 10
    assert max(delays) < 2 * cycle
    assert killed.wait(5) == -signal.SIGKILL
    for other in daemons.values():
        ended(other)
    runs = redis_client.llen(HISTORY)
    assert seconds / cycle - 2 <= runs <= seconds / cycle + 4, "not one cycle per interval"


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
        self._url = url_of(settings)
        self.process = start_etl("run", **settings, ETL_RETRY__SECONDS=str(patience))
        assert eventually(self.is_ready, seconds=10)

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
            assert eventually(lambda: not self.is_ready(), seconds=4)
            time.sleep(seconds)
            assert not self.is_ready()
            answers = [get(f"{self._url}/{path}").code for path in ("healthz", "metrics")]
            assert answers == [200, 200]
        assert eventually(self.is_ready, seconds=20), get(f"{self._url}/readyz").text
        self.write()
        assert eventually(self.has_all, seconds=10)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()
        self._cache.close()


def test_outages_pass(start_etl: StartEtl, servers: Servers, database: Database[Document]) -> None:
    """MongoDB away, then Redis, then both: nothing is lost, and a handful of lines says what happened."""
    seconds, patience = (15, 20) if LONG else (3, 1)
    with closing(Follower(start_etl, servers, database.name, patience)) as follower:
        for names in (("mongo",), ("redis",), ("mongo", "redis")):
            follower.outlasts(names, seconds)
    lines = ended(follower.process)
    troubles = [line for line in lines if line["action"] == "trouble"]
    print(f"{len(lines)} lines, {len(troubles)} of trouble")  # noqa: T201
    assert {line["message"].split()[0] for line in troubles} == {"MongoDB", "Redis"}
    assert all("cycle" in line for line in troubles if "collection" in line)
    assert any(line["action"] == "recovered" for line in lines)
    assert len(lines) <= 36, lines


def test_a_family_that_is_refreshed_is_never_missing(
    start_etl: StartEtl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """The eleven minutes of the default schedule in as many seconds, read sixty times a second."""
    document = {"tipo": "estado_servidor", "server_name": "content", "status": "active"}
    collection.insert_one(document | {"updated_at": datetime.now(UTC)})
    life = '{"mcp:server:status": {"ttl": 5, "refresh_seconds": 4}}'
    start_etl("run", ETL_FAMILIES=life, ETL_SCHEDULE__CYCLE_SECONDS="11")
    assert eventually(lambda: bool(redis_client.exists("mcp:server:status:content")), seconds=10)
    end, reads, missing = time.monotonic() + (66 if LONG else 11), 0, 0
    while time.monotonic() < end:
        reads += 1
        missing += not redis_client.exists("mcp:server:status:content")
        time.sleep(1 / 60)
    print(f"{reads} reads, {missing} missing")  # noqa: T201
    assert reads > 300
    assert missing == 0


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


@pytest.mark.parametrize("which", ["mongo", "redis"])
def test_it_ends_in_time_though_a_server_is_deaf(
    start_etl: StartEtl, collection: Collection[Document], lines: Sequence[tuple[str, Any, str]], which: str
) -> None:
    """Exit code 0 in under five seconds, however long the server keeps it waiting."""
    process, proxy = deaf(start_etl, collection, lines, which)
    ended(process)
    assert proxy.swallowed > 0, "the server was never asked"


@pytest.mark.parametrize("which", ["redis"])
def test_a_second_signal_ends_it_at_once(
    start_etl: StartEtl, collection: Collection[Document], lines: Sequence[tuple[str, Any, str]], which: str
) -> None:
    """While it waits for a server that is deaf."""
    process, proxy = deaf(start_etl, collection, lines, which)
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(1) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 1
    assert proxy.swallowed > 0, "the server was never asked"


@pytest.fixture
def lines(
    proxy_to: ProxyTo, mongod: MongoServer, redis_server: RedisServer, redis_url: str
) -> Sequence[tuple[str, Any, str]]:
    """A proxy to each server: its name, itself, the address through it."""
    mongo, cache = proxy_to(mongod), proxy_to(redis_server)
    return (("mongo", mongo, mongo.through(mongod.uri)), ("redis", cache, cache.through(redis_url)))


def deaf(
    start_etl: StartEtl, collection: Collection[Document], lines: Sequence[tuple[str, Any, str]], which: str
) -> tuple[Process, Any]:
    """A daemon in the middle of a step that a server does not answer."""
    [(_, mongo, uri), (_, cache, address)] = lines
    settings = every(1) | {"ETL_MONGO__URI": uri, "ETL_REDIS__URL": address}
    process = start_etl("run", **settings)
    assert eventually(lambda: is_ready(url_of(settings)), seconds=10)
    proxy = mongo if which == "mongo" else cache
    collection.insert_one(provider(0))
    proxy.deafen()
    assert eventually(lambda: proxy.swallowed > 0, seconds=5)
    time.sleep(0.5)
    return process, proxy


def test_one_that_is_cut_off_from_mongodb_makes_way(
    start_etl: StartEtl,
    collection: Collection[Document],
    redis_client: redis.Redis,
    lines: Sequence[tuple[str, Any, str]],
) -> None:
    """It had the turn; the other daemon, which still reaches MongoDB, takes it over."""
    [(_, proxy, uri), _] = lines
    first = start_etl(
        "run", **every(1), ETL_MONGO__URI=uri, ETL_MONGO__TIMEOUT_SECONDS="1", ETL_RETRY__SECONDS="1"
    )
    assert eventually(lambda: str(redis_client.get(TURN)).endswith(f":{first.pid}"), seconds=10)
    second = start_etl("run", **every(1))
    assert not eventually(lambda: second.poll() is not None, seconds=2)
    assert proxy.cut() > 0
    assert eventually(lambda: str(redis_client.get(TURN)).endswith(f":{second.pid}"), seconds=8)
    collection.insert_one(provider(1))
    assert eventually(lambda: bool(redis_client.exists(key(1))), seconds=8)
    assert str(redis_client.get(TURN)).endswith(f":{second.pid}")
