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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
import redis
from pymongo import MongoClient
from pymongo.collection import Collection

from etl.embedded import MongoServer, RedisServer
from tests.acceptance.conftest import StartEtl
from tests.support.daemons import HISTORY, TURN, Process, ended, every, is_ready, key, provider, url_of
from tests.support.http import get
from tests.support.soak import Row
from tests.support.types import Document, ProxyTo, StartMongo, StartRedis
from tests.support.waiting import eventually

LONG = bool(os.environ.get("LONG_RUNS"))


class Writer:
    """Writes twenty documents a second; when each was written is in `written`."""

    def __init__(self, collection: Collection[Document]) -> None:
        self._collection = collection
        self.written: list[float] = []

    def write(self, seconds: float) -> None:
        """For so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._collection.insert_one(provider(len(self.written)))
            self.written.append(time.monotonic())
            time.sleep(0.05)


class Reader:
    """Looks all the time which documents have come; when each was first seen is in `seen`."""

    def __init__(self, client: redis.Redis, writer: Writer) -> None:
        self._client = client
        self._writer = writer
        self.seen: dict[int, float] = {}

    def read(self, until: Callable[[], bool]) -> None:
        """Until then."""
        while not until():
            missing = [n for n in range(len(self._writer.written)) if n not in self.seen]
            there = [n for n in missing if self._client.exists(key(n))]
            self.seen |= dict.fromkeys(there, time.monotonic())
            time.sleep(0.02)

    @property
    def is_done(self) -> bool:
        """Whether all that was written has been seen."""
        return len(self.seen) == len(self._writer.written)

    def delays(self) -> list[float]:
        """How long each write took to be seen."""
        return [self.seen[n] - at for n, at in enumerate(self._writer.written)]


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


def test_outages_pass(start_etl: StartEtl, servers: Servers, database: Any) -> None:
    """MongoDB, Redis, then both: the daemon lives, is red and then green, loses nothing and says little."""
    seconds, patience = (15, 20) if LONG else (3, 1)
    settings = every(2) | {"ETL_MONGO__URI": servers.mongo.uri, "ETL_REDIS__URL": servers.redis.url}
    url = url_of(settings)
    with (
        MongoClient[Document](servers.mongo.uri, tz_aware=True) as client,
        redis.Redis.from_url(servers.redis.url, decode_responses=True) as cache,
    ):
        collection = client[database.name]["promptContent"]
        collection.create_index([("updated_at", 1), ("_id", 1)])
        process = start_etl("run", **settings, ETL_RETRY__SECONDS=str(patience))
        assert eventually(lambda: is_ready(url), seconds=10)
        numbers = iter(range(1000))
        written = []

        def write() -> None:
            number = next(numbers)
            collection.insert_one(provider(number))
            written.append(key(number))

        for names in (("mongo",), ("redis",), ("mongo", "redis")):
            write()
            with servers.away(*names):
                assert eventually(lambda: not is_ready(url), seconds=4)
                if "mongo" not in names:
                    write()
                time.sleep(seconds)
                assert get(f"{url}/healthz").code == 200
                assert get(f"{url}/metrics").code == 200
                assert not is_ready(url)
            assert eventually(lambda: is_ready(url), seconds=15), get(f"{url}/readyz").text
            write()
            assert eventually(lambda: cache.exists(*written) == len(written), seconds=10)
    lines = ended(process)
    troubles = [line for line in lines if line["action"] == "trouble"]
    ends = [line for line in lines if line["action"] == "recovered"]
    print(f"{len(lines)} lines, {len(troubles)} of trouble")  # noqa: T201
    assert troubles
    assert ends
    assert all(line["level"] == "warning" and "cycle" in line for line in troubles if "collection" in line)
    assert {"MongoDB", "Redis"} <= {line["message"].split()[0] for line in troubles}
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
