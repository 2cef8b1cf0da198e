"""Followers that are killed, stopped, cut off and flooded: afterwards Redis holds what MongoDB says, without a cycle.

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
from tests.support.following import KEYS, Writer, following, has_begun, is_true
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


def the_other(followers: dict[int, Process], client: redis.Redis, pid: int) -> bool:
    """Whether another one of these followers holds the lease."""
    return holder(client) in followers.keys() - {pid}


def resident_mb(pid: int) -> float:
    """The memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text("utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_a_follower_is_killed_at_any_moment(
    collection: Collection[Document], redis_client: redis.Redis, start_etl: StartEtl, seed: int
) -> None:
    """`kill -9` of one of two followers among changes of all kinds: the other goes on where it was, without a cycle."""
    chance = random.Random(seed)
    followers = {process.pid: process for process in (start_etl("follow", NAME, **SHORT) for _ in range(2))}
    assert eventually(lambda: has_begun(redis_client))
    cycles = redis_client.llen(KEYS.history)
    killed = 0
    with Writer(collection, seed) as writer:
        for _ in range(KILLS):
            assert eventually(lambda: holder(redis_client) in followers)
            pid = holder(redis_client) or 0
            time.sleep(chance.uniform(0, 0.5))
            victim = followers.pop(pid)
            victim.kill()
            killed += victim.wait() == -signal.SIGKILL
            started = start_etl("follow", NAME, **SHORT)
            followers[started.pid] = started
    assert eventually(is_true(redis_client, collection))
    assert redis_client.llen(KEYS.history) == cycles
    assert killed == KILLS
    assert (
        min(writer.done[change] for change in ("insert", "update", "move", "bury", "delete", "ask")) > KILLS
    )
    assert eventually(lambda: holder(redis_client) in followers)  # the last victim may hold it still
    assert interrupt(followers[holder(redis_client) or 0]).code == 0
    print(f"{killed} kills among {sum(writer.done.values())} changes: {dict(writer.done)}")  # noqa: T201


def test_a_follower_sleeps_past_the_end_of_its_lease(
    collection: Collection[Document], redis_client: redis.Redis, start_etl: StartEtl, seed: int
) -> None:
    """Stopped (SIGSTOP) while another takes over: when it wakes it changes nothing, and stands by."""
    followers = {process.pid: process for process in (start_etl("follow", NAME, **SHORT) for _ in range(2))}
    assert eventually(lambda: has_begun(redis_client))
    cycles = redis_client.llen(KEYS.history)
    with Writer(collection, seed):
        for _ in range(3 if LONG else 1):
            assert eventually(lambda: holder(redis_client) in followers)
            pid = holder(redis_client) or 0
            followers[pid].send_signal(signal.SIGSTOP)
            assert eventually(lambda pid=pid: the_other(followers, redis_client, pid))  # type: ignore[misc]
            asleep = redis_client.hget(KEYS.follow, "token")
            assert eventually(lambda asleep=asleep: redis_client.hget(KEYS.follow, "token") != asleep)  # type: ignore[misc]
            followers[pid].send_signal(signal.SIGCONT)
    assert eventually(is_true(redis_client, collection))
    assert redis_client.llen(KEYS.history) == cycles
    said = "".join(interrupt(process).err for process in followers.values())
    assert "lost the lease" in said


def flush(_: RedisServer, client: redis.Redis, __: pytest.LogCaptureFixture) -> None:
    """Redis loses everything."""
    client.flushall()


def restart(server: RedisServer, _: redis.Redis, log: pytest.LogCaptureFixture) -> None:
    """Redis is away for a while, and keeps its data."""
    server.stop()
    assert eventually(lambda: "does not answer" in log.text)
    server.start()


def fill_up(_: RedisServer, client: redis.Redis, log: pytest.LogCaptureFixture) -> None:
    """Redis has no memory left for a while."""
    client.config_set("maxmemory", 1)
    assert eventually(lambda: "used memory > 'maxmemory'" in log.text)
    client.config_set("maxmemory", 0)


@pytest.mark.parametrize("strike", [flush, restart, fill_up])
def test_redis_is_treated_badly_while_it_is_followed(
    start_redis: StartRedis,
    collection: Collection[Document],
    open_app: OpenApp,
    seed: int,
    caplog: pytest.LogCaptureFixture,
    strike: Callable[[RedisServer, redis.Redis, pytest.LogCaptureFixture], None],
) -> None:
    """Flushed, restarted, out of memory among changes of all kinds."""
    caplog.set_level(logging.DEBUG, "etl")
    server = start_redis(args=("--appendonly", "yes"))
    app = open_app(redis=server.url, patience=20)
    with redis.Redis.from_url(server.url, decode_responses=True) as client, following(app):
        assert eventually(lambda: has_begun(client))
        with Writer(collection, seed) as writer:
            assert writer.goes_on()
            strike(server, client, caplog)
            assert writer.goes_on()
        assert eventually(is_true(client, collection))


def test_a_flush_is_noticed_while_nothing_happens(
    start_redis: StartRedis, collection: Collection[Document], open_app: OpenApp
) -> None:
    """No event comes, yet the follower fills the cache again as soon as it learns that its lease is gone."""
    server, batches = start_redis(), list[Followed]()
    app = open_app(redis=server.url)
    collection.insert_one(api("a", datetime.now(UTC), _id=1))
    with redis.Redis.from_url(server.url, decode_responses=True) as client, following(app, batches):
        assert eventually(lambda: bool(batches))  # the next record of an idle follower is ten seconds away
        client.flushall()
        assert eventually(is_true(client, collection), LEASE_SECONDS + 4)


@pytest.mark.parametrize("leave", ["drop", "rename"])
def test_the_collection_goes_and_comes_back_among_changes(
    collection: Collection[Document], redis_client: redis.Redis, open_app: OpenApp, seed: int, leave: str
) -> None:
    """What was deleted with it is not in the cache any more; what came after is. What was queued stays queued."""
    batches: list[Followed] = []
    with following(open_app(), batches):
        assert eventually(lambda: has_begun(redis_client))
        with Writer(collection, seed) as writer:
            assert writer.goes_on()
        collection.drop() if leave == "drop" else collection.rename("elsewhere")
        collection.create_index([("updated_at", 1), ("_id", 1)])
        with Writer(collection, seed + 1) as writer:
            assert writer.goes_on()
        assert eventually(is_true(redis_client, collection, without="queue:"))
    assert "invalidated" in [one.restarted for one in batches]


def in_one_go(collection: Collection[Document]) -> None:
    """All documents are changed by one command."""
    collection.update_many({}, [{"$set": {"status": "in_one_go", "updated_at": "$$NOW"}}])


def steadily(collection: Collection[Document]) -> None:
    """All documents are changed, 10,000 a second."""
    due = time.monotonic()
    for start in range(0, FLOOD, 1000):
        time.sleep(max(0.0, due - time.monotonic()))
        change = {"$set": {"status": "steadily", "updated_at": datetime.now(UTC)}}
        collection.bulk_write([UpdateOne({"_id": start + n}, change) for n in range(1000)], ordered=False)
        due += 0.1


def test_a_flood_of_changes_is_caught_up_with(
    collection: Collection[Document], redis_client: redis.Redis, start_etl: StartEtl, open_app: OpenApp
) -> None:
    """The lag is seen, memory stays, nothing is lost."""
    moment = datetime.now(UTC)
    for start in range(0, FLOOD, 1000):
        collection.insert_many(api(f"p{start + n}", moment, _id=start + n) for n in range(1000))
    process = start_etl("follow", NAME)
    assert eventually(lambda: has_begun(redis_client), 300)  # after its first cycle
    cycles = redis_client.llen(KEYS.history)
    for flood in (in_one_go, steadily) if LONG else (in_one_go,):
        is_caught_up_with(flood, collection, redis_client, open_app(), process.pid)
        assert held(redis_client) == truth(collection)
    assert redis_client.llen(KEYS.history) == cycles
    assert interrupt(process).code == 0


def is_caught_up_with(
    flood: Callable[[Collection[Document]], None],
    collection: Collection[Document],
    client: redis.Redis,
    app: App,
    pid: int,
) -> None:
    """Flood the follower with this process id, and watch it until it has caught up."""
    before, most, states, lags = resident_mb(pid), 0.0, set[str](), [0.0]
    began, written = time.monotonic(), list[float]()

    def write() -> None:
        flood(collection)
        written.append(time.monotonic() - began)

    def is_over() -> bool:
        nonlocal most
        most = max(most, resident_mb(pid))
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
    assert most - before < 30
    print(  # noqa: T201
        f"{flood.__name__}: {FLOOD} changes, written at {FLOOD / written[0]:.0f}/s, "
        f"applied at {FLOOD / seconds:.0f}/s, lag up to {max(lags):.0f} s, memory {before:.0f} to {most:.0f} MB"
    )


def test_an_idle_follower_outlives_the_oplog(
    start_mongod: StartMongo, redis_client: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other collections push its last event out of the oplog: its token moves all the same, and it resumes."""
    monkeypatch.setattr("etl.sync.follow._IDLE_SECONDS", 0.2)
    batches: list[Followed] = []
    server = start_mongod(args=("--syncdelay", "1"))  # only what a checkpoint holds leaves the oplog
    settings = settings_for(server.uri, "campaigns", redis_url)
    with MongoClient[Document](server.uri, tz_aware=True) as client:
        collection, other = client["campaigns"][NAME], client["campaigns"]["other"]
        collection.create_index([("updated_at", 1), ("_id", 1)])
        with App(settings) as app, following(app):
            assert eventually(lambda: has_begun(redis_client))
            collection.insert_one(api("a", datetime.now(UTC), _id=1))
            assert eventually(is_true(redis_client, collection))
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
            assert eventually(is_true(redis_client, collection))
        assert [one.restarted for one in batches if one.restarted] == []
        assert redis_client.llen(KEYS.history) == cycles


def end_of_oplog(client: MongoClient[Document], order: int) -> Timestamp:
    """The time of its oldest entry, or with -1 of its newest."""
    [entry] = client.local["oplog.rs"].find({}, {"ts": 1}).sort("$natural", order).limit(1)
    moment: Timestamp = entry["ts"]
    return moment


def test_a_follower_a_backfill_and_a_sync_do_not_block_each_other(
    collection: Collection[Document], redis_client: redis.Redis, open_app: OpenApp, seed: int
) -> None:
    """Among changes of all kinds each of them ends well, and `etl verify` finds nothing at any time."""
    follower, filling, other = (open_app(page_size=20) for _ in range(3))
    batches: list[Followed] = []
    with following(follower, batches), Writer(collection, seed) as writer:
        assert eventually(lambda: has_begun(redis_client))
        for _ in range(20 if LONG else 2):
            applied = len(batches)
            with ThreadPoolExecutor(1) as beside:
                backfill = beside.submit(filling.backfill, NAME, BackfillOrder(), no_progress)
                synced = cycle(other)  # waits for the cycle of the backfill, as one cycle runs at a time
                verified = other.verify(NAME)
            for report in (backfill.result(), synced):
                assert (report.status, report.error) == ("ok", None)
            assert verified.true, verified
            assert writer.goes_on(1)
            assert eventually(lambda applied=applied: len(batches) > applied)  # type: ignore[misc]
    # The follower has ended within a batch: another one goes on there.
    with following(open_app()):
        assert eventually(is_true(redis_client, collection))
    assert other.verify(NAME).true
