"""The daemon as a process, while its servers and other daemons fail.

With LONG_RUNS=1 the runs are long: `make soak`.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from pymongo.collection import Collection

from etl.demo import MongoServer, RedisServer
from tests.factories import estado_servidor
from tests.support.command import StartEtl
from tests.support.daemons import (
    HISTORY,
    Process,
    Reader,
    Writer,
    ended,
    every,
    is_ready,
    leader,
    provider,
    url_of,
)
from tests.support.http import get
from tests.support.types import Document, ProxyTo
from tests.support.waiting import eventually

LONG = bool(os.environ.get("LONG_RUNS"))

pytestmark = pytest.mark.timed


def test_every_write_is_in_redis_within_two_cycles(
    start_etl: StartEtl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Also when the leader of two daemons is killed, and the other one takes over."""
    cycle, seconds = 2, 60 if LONG else 8
    daemons = {daemon.pid: daemon for daemon in (start_etl("run", **every(cycle)) for _ in range(2))}
    assert eventually(lambda: leader(redis_client) is not None)
    writer = Writer(collection)
    reader = Reader(redis_client, writer)
    writing = threading.Thread(target=writer.write, args=(seconds,))
    reading = threading.Thread(target=reader.read, args=(lambda: not writing.is_alive() and reader.is_done,))
    for thread in (writing, reading):
        thread.start()
    time.sleep(seconds / 2)
    killed = daemons.pop(leader(redis_client) or 0)
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


def test_refreshed_family_is_never_missing(
    start_etl: StartEtl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """With the default intervals in seconds instead of minutes, past the first TTL, with continuous reads."""
    collection.insert_one(estado_servidor(updated_at=datetime.now(UTC)))
    families = '{"mcp:server:status": {"ttl": 5, "refresh_seconds": 4}}'
    start_etl("run", ETL_FAMILIES=families, ETL_SCHEDULE__CYCLE_SECONDS="11")
    assert eventually(lambda: bool(redis_client.exists("mcp:server:status:content")))
    end, reads, missing = time.monotonic() + (66 if LONG else 7), 0, 0
    while time.monotonic() < end:
        reads += 1
        missing += not redis_client.exists("mcp:server:status:content")
        time.sleep(1 / 60)
    print(f"{reads} reads, {missing} missing")  # noqa: T201
    assert reads > 200
    assert missing == 0


@pytest.mark.parametrize("which", ["mongo", "redis"] if LONG else ["mongo"])
def test_daemon_stops_in_time_while_a_server_does_not_answer(
    start_etl: StartEtl, collection: Collection[Document], proxies: Sequence[tuple[str, Any, str]], which: str
) -> None:
    """Within five seconds, with exit code 0."""
    process, proxy = daemon_behind_deaf_server(start_etl, collection, proxies, which)
    ended(process, seconds=5)
    assert proxy.swallowed > 0, "the server was never asked"


@pytest.mark.parametrize("which", ["mongo", "redis"] if LONG else ["redis"])
def test_second_signal_ends_the_daemon_at_once(
    start_etl: StartEtl, collection: Collection[Document], proxies: Sequence[tuple[str, Any, str]], which: str
) -> None:
    """While it waits for a server that does not answer."""
    process, proxy = daemon_behind_deaf_server(start_etl, collection, proxies, which)
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(1) == 128 + signal.SIGTERM
    assert time.monotonic() - began < 1
    assert proxy.swallowed > 0, "the server was never asked"


def test_readiness_answers_in_four_seconds_without_servers(
    start_etl: StartEtl, collection: Collection[Document], proxies: Sequence[tuple[str, Any, str]]
) -> None:
    """The daemon also stops in time while a probe waits, without an error in the log."""
    [(_, mongo, uri), (_, cache, address)] = proxies
    collection.insert_one(provider(0))
    settings = every(60) | {"ETL_MONGO__URI": uri, "ETL_REDIS__URL": address}
    process = start_etl("run", **settings)
    url = f"{url_of(settings)}/readyz"
    assert eventually(lambda: is_ready(url_of(settings)))
    for proxy in (mongo, cache):
        proxy.deafen()
    time.sleep(1.1)  # the cached snapshot has expired
    for _ in range(3 if LONG else 2):
        began = time.monotonic()
        answer = get(url)
        assert time.monotonic() - began < 4
        assert (answer.code, len(answer.json["problems"])) == (503, 2)
        time.sleep(1.1)
    probe = threading.Thread(target=get, args=(url,))
    probe.start()
    time.sleep(0.3)
    log = ended(process, seconds=5)
    probe.join()
    assert [line for line in log if line["level"] == "ERROR"] == []


@pytest.fixture
def proxies(
    proxy_to: ProxyTo, mongod: MongoServer, redis_server: RedisServer, redis_url: str
) -> Sequence[tuple[str, Any, str]]:
    """For each server its name, a proxy, and the address through it."""
    mongo, cache = proxy_to(mongod), proxy_to(redis_server)
    return (("mongo", mongo, mongo.through(mongod.uri)), ("redis", cache, cache.through(redis_url)))


def daemon_behind_deaf_server(
    start_etl: StartEtl, collection: Collection[Document], proxies: Sequence[tuple[str, Any, str]], which: str
) -> tuple[Process, Any]:
    """A daemon that waits for a server which does not answer any more."""
    [(_, mongo, uri), (_, cache, address)] = proxies
    settings = every(1) | {"ETL_MONGO__URI": uri, "ETL_REDIS__URL": address}
    process = start_etl("run", **settings)
    assert eventually(lambda: is_ready(url_of(settings)))
    proxy = mongo if which == "mongo" else cache
    collection.insert_one(provider(0))
    proxy.deafen()
    assert eventually(lambda: proxy.swallowed > 0)
    time.sleep(0.5)
    return process, proxy
