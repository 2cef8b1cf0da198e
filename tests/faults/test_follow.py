"""Followers that are killed, suspended, disconnected and flooded: afterwards Redis equals MongoDB, without a cycle.

With LONG_RUNS=1 there are more kills and larger floods: `make soak`.
"""

import logging
import os
import random
import signal
import threading
import time
from base64 import b64decode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import bson
import pytest
import redis
from bson import Timestamp
from pymongo import MongoClient, UpdateOne
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from etl.app import App, BackfillOrder
from etl.demo import RedisServer
from etl.model.report import no_progress
from etl.sync.follow import Followed
from tests.factories import api
from tests.support.command import StartEtl, interrupt
from tests.support.daemons import Process
from tests.support.following import KEYS, Writer, following, has_begun, redis_agrees
from tests.support.pipeline import NAME, OpenApp, cycle, settings_for
from tests.support.redis_dump import held
from tests.support.truth import truth
from tests.support.types import Document, StartMongo, StartRedis
from tests.support.waiting import eventually

LONG = bool(os.environ.get("LONG_RUNS"))
KILLS = 30 if LONG else 5
FLOOD = 200_000 if LONG else 5_000
LEASE_SECONDS = 1
HISTORY_LOST = 286

SHORT = {
    "ETL_LEASE__SECONDS": str(LEASE_SECONDS),
    "ETL_COLLECTIONS": '[{"name": "promptContent", "page_size": 10}]',
}


def holder(client: redis.Redis) -> int | None:
    """The process id of the follower that holds the lease."""
    name = client.get(KEYS.follow_lease)
    return int(str(name).split(":")[-2]) if name else None


def another_holds(followers: dict[int, Process], client: redis.Redis, pid: int) -> bool:
    """Whether another follower than `pid` holds the lease."""
    return holder(client) in followers.keys() - {pid}


def resident_mb(pid: int) -> float:
    """The memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_second_follower_resumes_after_kills(
    collection: Collection[Document], redis_client: redis.Redis, start_etl: StartEtl, seed: int
) -> None:
    """`kill -9` of the active one of two followers, during changes of all kinds. No cycle is needed."""
    random_source = random.Random(seed)
    followers = {process.pid: process for process in (start_etl("follow", NAME, **SHORT) for _ in range(2))}
    assert eventually(lambda: has_begun(redis_client))
    cycles = redis_client.llen(KEYS.history)
    killed = 0
    with Writer(collection, seed) as writer:
        for _ in range(KILLS):
            assert eventually(lambda: holder(redis_client) in followers)
            pid = holder(redis_client) or 0
            time.sleep(random_source.uniform(0, 0.5))
            victim = followers.pop(pid)
            victim.kill()
            killed += victim.wait() == -signal.SIGKILL
            started = start_etl("follow", NAME, **SHORT)
            followers[started.pid] = started
    assert eventually(redis_agrees(redis_client, collection))
    assert redis_client.llen(KEYS.history) == cycles
    assert killed == KILLS
    assert (
        min(writer.done[change] for change in ("insert", "update", "move", "bury", "delete", "ask")) > KILLS
    )
    assert eventually(lambda: holder(redis_client) in followers)  # the last killed one may still hold it
    assert interrupt(followers[holder(redis_client) or 0]).code == 0
    print(f"{killed} kills among {sum(writer.done.values())} changes: {dict(writer.done)}")  # noqa: T201


def test_follower_suspended_past_its_lease_stands_by(
    collection: Collection[Document], redis_client: redis.Redis, start_etl: StartEtl, seed: int
) -> None:
    """Another one takes over; when it continues it writes nothing."""
    followers = {process.pid: process for process in (start_etl("follow", NAME, **SHORT) for _ in range(2))}
    assert eventually(lambda: has_begun(redis_client))
    cycles = redis_client.llen(KEYS.history)
    with Writer(collection, seed):
        for _ in range(3 if LONG else 1):
            assert eventually(lambda: holder(redis_client) in followers)
            pid = holder(redis_client) or 0
            followers[pid].send_signal(signal.SIGSTOP)
            assert eventually(lambda pid=pid: another_holds(followers, redis_client, pid))  # type: ignore[misc]
            token = redis_client.hget(KEYS.follow, "token")
            assert eventually(lambda token=token: redis_client.hget(KEYS.follow, "token") != token)  # type: ignore[misc]
            followers[pid].send_signal(signal.SIGCONT)
    assert eventually(redis_agrees(redis_client, collection))
    assert redis_client.llen(KEYS.history) == cycles
    log = "".join(interrupt(process).err for process in followers.values())
    assert "lost the lease" in log


def flush(_: RedisServer, client: redis.Redis, __: pytest.LogCaptureFixture) -> None:
    """Flush Redis."""
    client.flushall()


def restart(server: RedisServer, _: redis.Redis, log: pytest.LogCaptureFixture) -> None:
    """Stop Redis for a while; it keeps its data."""
    server.stop()
    assert eventually(lambda: "does not answer" in log.text)
    server.start()


def fill_up(_: RedisServer, client: redis.Redis, log: pytest.LogCaptureFixture) -> None:
    """Leave Redis without memory for a while."""
    client.config_set("maxmemory", 1)
    assert eventually(lambda: "used memory > 'maxmemory'" in log.text)
    client.config_set("maxmemory", 0)


@pytest.mark.parametrize("inject", [flush, restart, fill_up])
def test_follower_survives_faults_of_redis(
    start_redis: StartRedis,
    collection: Collection[Document],
    open_app: OpenApp,
    seed: int,
    caplog: pytest.LogCaptureFixture,
    inject: Callable[[RedisServer, redis.Redis, pytest.LogCaptureFixture], None],
) -> None:
    """A flush, a restart, and full memory, during changes of all kinds."""
    caplog.set_level(logging.DEBUG, "etl")
    server = start_redis(args=("--appendonly", "yes"))
    app = open_app(redis=server.url, patience=20)
    with redis.Redis.from_url(server.url, decode_responses=True) as client, following(app):
        assert eventually(lambda: has_begun(client))
        with Writer(collection, seed) as writer:
            assert writer.continues()
            inject(server, client, caplog)
            assert writer.continues()
        assert eventually(redis_agrees(client, collection))


def test_idle_follower_notices_a_flush(
    start_redis: StartRedis, collection: Collection[Document], open_app: OpenApp
) -> None:
    """It fills the cache again when its lease is missing, without an event."""
    server, batches = start_redis(), list[Followed]()
    app = open_app(redis=server.url)
    collection.insert_one(api("a", datetime.now(UTC), _id=1))
    with redis.Redis.from_url(server.url, decode_responses=True) as client, following(app, batches):
        assert eventually(lambda: bool(batches))  # an idle follower records its token every ten seconds only
        client.flushall()
        assert eventually(redis_agrees(client, collection), LEASE_SECONDS + 4)


@pytest.mark.parametrize("how", ["drop", "rename"])
def test_follower_survives_a_dropped_or_renamed_collection(
    collection: Collection[Document], redis_client: redis.Redis, open_app: OpenApp, seed: int, how: str
) -> None:
    """Redis has the documents of the new collection only; queued requests stay queued."""
    batches: list[Followed] = []
    with following(open_app(), batches):
        assert eventually(lambda: has_begun(redis_client))
        with Writer(collection, seed) as writer:
            assert writer.continues()
        collection.drop() if how == "drop" else collection.rename("elsewhere")
        collection.create_index([("updated_at", 1), ("_id", 1)])
        with Writer(collection, seed + 1) as writer:
            assert writer.continues()
        assert eventually(redis_agrees(redis_client, collection, without="queue:"))
    assert "invalidated" in [one.restarted for one in batches]


def all_at_once(collection: Collection[Document]) -> None:
    """Change all documents with one command."""
    collection.update_many({}, [{"$set": {"status": "all_at_once", "updated_at": "$$NOW"}}])


def steadily(collection: Collection[Document]) -> None:
    """Change all documents, 10,000 a second."""
    due = time.monotonic()
    for start in range(0, FLOOD, 1000):
        time.sleep(max(0.0, due - time.monotonic()))
        change = {"$set": {"status": "steadily", "updated_at": datetime.now(UTC)}}
        collection.bulk_write([UpdateOne({"_id": start + n}, change) for n in range(1000)], ordered=False)
        due += 0.1


def test_follower_catches_up_with_a_flood_of_changes(
    collection: Collection[Document], redis_client: redis.Redis, start_etl: StartEtl, open_app: OpenApp
) -> None:
    """The lag is reported, memory stays constant, and nothing is lost."""
    moment = datetime.now(UTC)
    for start in range(0, FLOOD, 1000):
        collection.insert_many(api(f"p{start + n}", moment, _id=start + n) for n in range(1000))
    process = start_etl("follow", NAME)
    assert eventually(lambda: has_begun(redis_client), 300)  # after its first cycle
    cycles = redis_client.llen(KEYS.history)
    for flood in (all_at_once, steadily) if LONG else (all_at_once,):
        check_catch_up(flood, collection, redis_client, open_app(), process.pid)
        assert held(redis_client) == truth(collection)
    assert redis_client.llen(KEYS.history) == cycles
    assert interrupt(process).code == 0


def check_catch_up(
    flood: Callable[[Collection[Document]], None],
    collection: Collection[Document],
    client: redis.Redis,
    app: App,
    pid: int,
) -> None:
    """Flood the follower with this process id, and wait until it has caught up."""
    before, peak, states, lags = resident_mb(pid), 0.0, set[str](), [0.0]
    began, written = time.monotonic(), list[float]()

    def write() -> None:
        flood(collection)
        written.append(time.monotonic() - began)

    def is_over() -> bool:
        nonlocal peak
        peak = max(peak, resident_mb(pid))
        follow = app.status()[0].follow or {}
        states.add(follow["state"])
        lags.append(follow["lag_seconds"] or 0.0)
        time.sleep(0.02)
        last = client.hget(f"config:api:p{FLOOD - 1}", "status")
        return bool(written) and last == flood.__name__ and follow["state"] == "following"

    flooding = threading.Thread(target=write)
    flooding.start()
    assert eventually(is_over, 600), "it has not caught up"
    flooding.join()
    seconds = time.monotonic() - began
    assert "behind" in states
    assert peak - before < 30
    print(  # noqa: T201
        f"{flood.__name__}: {FLOOD} changes, written at {FLOOD / written[0]:.0f}/s, "
        f"applied at {FLOOD / seconds:.0f}/s, lag up to {max(lags):.0f} s, memory {before:.0f} to {peak:.0f} MB"
    )


def test_idle_follower_resumes_after_the_oplog_dropped_its_last_event(
    start_mongod: StartMongo, redis_client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes of other collections drop it; the token of the follower advances without events."""
    monkeypatch.setattr("etl.sync.follow._IDLE_SECONDS", 0.2)
    batches: list[Followed] = []
    server = start_mongod(args=("--syncdelay", "1"))  # only entries before a checkpoint leave the oplog
    settings = settings_for(server.uri, "campaigns", redis_url)
    with MongoClient[Document](server.uri, tz_aware=True) as client:
        collection, other = client["campaigns"][NAME], client["campaigns"]["other"]
        collection.create_index([("updated_at", 1), ("_id", 1)])
        with App(settings) as app, following(app):
            assert eventually(lambda: has_begun(redis_client))
            collection.insert_one(api("a", datetime.now(UTC), _id=1))
            assert eventually(redis_agrees(redis_client, collection))
            event = end_of_oplog(client, -1)
            early = bson.decode(b64decode(redis_client.hget(KEYS.follow, "token") or ""))

            def is_over() -> bool:
                other.insert_many({"text": "x" * 1_000_000} for _ in range(8))
                return end_of_oplog(client, 1) > event

            assert eventually(is_over, 120)
            other.drop()
            token = redis_client.hget(KEYS.follow, "token")
            assert eventually(lambda: redis_client.hget(KEYS.follow, "token") != token)
        cycles = redis_client.llen(KEYS.history)
        with pytest.raises(OperationFailure) as lost, collection.watch(resume_after=early):
            pass
        assert lost.value.code == HISTORY_LOST

        collection.delete_one({"_id": 1})
        collection.insert_one(api("b", datetime.now(UTC), _id=2))
        with App(settings) as app, following(app, batches):
            assert eventually(redis_agrees(redis_client, collection))
        assert [one.restarted for one in batches if one.restarted] == []
        assert redis_client.llen(KEYS.history) == cycles


def end_of_oplog(client: MongoClient[Document], order: int) -> Timestamp:
    """The time of the oldest entry of the oplog, or with -1 of the newest."""
    [entry] = client.local["oplog.rs"].find({}, {"ts": 1}).sort("$natural", order).limit(1)
    moment: Timestamp = entry["ts"]
    return moment


def test_follower_backfill_and_sync_do_not_block_each_other(
    collection: Collection[Document], redis_client: redis.Redis, open_app: OpenApp, seed: int
) -> None:
    """Each succeeds during changes of all kinds, and `etl verify` never finds a mismatch."""
    follower, backfilling, other = (open_app(page_size=20) for _ in range(3))
    batches: list[Followed] = []
    with following(follower, batches), Writer(collection, seed) as writer:
        assert eventually(lambda: has_begun(redis_client))
        for _ in range(20 if LONG else 2):
            applied = len(batches)
            with ThreadPoolExecutor(1) as executor:
                backfill = executor.submit(backfilling.backfill, NAME, BackfillOrder(), no_progress)
                synced = cycle(other)  # waits for the cycle of the backfill, as one cycle runs at a time
                verified = other.verify(NAME)
            for report in (backfill.result(), synced):
                assert (report.status, report.error) == ("ok", None)
            assert verified.true, verified
            assert writer.continues(1)
            assert eventually(lambda applied=applied: len(batches) > applied)  # type: ignore[misc]
    # The follower has stopped within a batch: another one resumes there.
    with following(open_app()):
        assert eventually(redis_agrees(redis_client, collection))
    assert other.verify(NAME).true
