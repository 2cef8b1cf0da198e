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
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import bson
import pytest
import redis
from bson import Timestamp
from pymongo import MongoClient, UpdateOne
from pymongo.collection import Collection
from pymongo.errors import OperationFailure

from etl.app import App, BackfillOrder
from etl.cache.keys import state_keys
from etl.demo import RedisServer
from etl.model.report import no_progress
from etl.sync.follow import Followed
from tests.factories import api, campaign
from tests.support.command import StartEtl, interrupt
from tests.support.daemons import Process
from tests.support.following import following
from tests.support.pipeline import NAME, OpenApp, cycle, settings_for
from tests.support.redis_dump import held
from tests.support.truth import truth
from tests.support.types import Document, StartMongo, StartRedis
from tests.support.waiting import eventually

LONG = bool(os.environ.get("LONG_RUNS"))
KILLS = 30 if LONG else 5
FLOOD = 200_000 if LONG else 10_000
LEASE_SECONDS = 1
HISTORY_LOST = 286

KEYS = state_keys(NAME)
SHORT = {
    "ETL_LEASE__SECONDS": str(LEASE_SECONDS),
    "ETL_COLLECTIONS": '[{"name": "promptContent", "page_size": 10}]',
}


@pytest.fixture
def seed() -> int:
    """Of everything random in a test; `CHAOS_SEED` repeats it, as far as the machine's pace allows."""
    seed = int(os.environ.get("CHAOS_SEED") or time.time_ns())
    print(f"CHAOS_SEED={seed}")  # noqa: T201 (pytest shows it when the test fails)
    return seed


class Writer:
    """Inserts, updates, moves, buries and deletes documents that share keys, and asks for messages."""

    def __init__(self, collection: Collection[Document], seed: int) -> None:
        self.done: Counter[str] = Counter()
        self._collection = collection
        self._random = random.Random(seed)
        self._last = datetime.now(UTC)
        self._number = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write_until_stopped)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def write(self) -> None:
        """One change, dated after the one before."""
        change = self._random.choice(
            [self._insert, self._insert, self._update, self._move, self._bury, self._delete, self._ask]
        )
        change()
        self.done[change.__name__.strip("_")] += 1

    def _write_until_stopped(self) -> None:
        while not self._stop.wait(self._random.uniform(0, 0.01)):
            self.write()

    def _moment(self) -> datetime:
        now = datetime.now(UTC)
        self._last = max(
            self._last + timedelta(milliseconds=1), now.replace(microsecond=now.microsecond // 1000 * 1000)
        )
        return self._last

    def _insert(self) -> None:
        self._number += 1
        kind = api if self._random.random() < 0.5 else campaign
        self._collection.insert_one(kind(self._name(), self._moment(), _id=self._number, content=True))

    def _update(self) -> None:
        self._set(
            status=f"v{self._random.random()}",
            mensajes=[{"numero": 1, "texto": str(self._random.random()), "tono": "casual"}],
        )

    def _move(self) -> None:
        self._set(provider_name=self._name(), campana_id=self._name())

    def _bury(self) -> None:
        self._set(eliminado=True)

    def _delete(self) -> None:
        self._collection.delete_one(self._one())

    def _ask(self) -> None:
        self._number += 1
        self._collection.insert_one(
            campaign(
                f"q{self._number}", self._moment(), _id=self._number, estado="pendiente", prioridad="alta"
            )
        )

    def _set(self, **fields: object) -> None:
        self._collection.update_one(self._one(), {"$set": {**fields, "updated_at": self._moment()}})

    def _one(self) -> Document:
        return {"_id": self._random.randint(max(1, self._number - 40), self._number + 1), "content": True}

    def _name(self) -> str:
        return f"n{self._random.randrange(15)}"


def is_true(
    client: redis.Redis, collection: Collection[Document], *, without: str = "-"
) -> Callable[[], bool]:
    """Whether Redis holds what MongoDB says, but for keys that begin with `without`."""

    def fact() -> bool:
        with suppress(AssertionError):  # a key that goes while it is looked at has no TTL
            found, expected = (
                {key: value for key, value in one.items() if not key.startswith(without)}
                for one in (held(client), truth(collection))
            )
            return found == expected
        return False

    return fact


def has_begun(client: redis.Redis) -> bool:
    """Whether a follower has recorded where it is."""
    return bool(client.hexists(KEYS.follow, "token"))


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


@pytest.mark.alone
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


@pytest.mark.alone
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
    server = start_redis(args=("--appendonly", "yes", "--appendfsync", "always"))
    app = open_app(redis=server.url, patience=20)
    with redis.Redis.from_url(server.url, decode_responses=True) as client, following(app):
        assert eventually(lambda: has_begun(client))
        with Writer(collection, seed) as writer:
            assert eventually(lambda: sum(writer.done.values()) > 50)
            strike(server, client, caplog)
            done = sum(writer.done.values())
            assert eventually(lambda: sum(writer.done.values()) > done + 50)
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
            assert eventually(lambda: sum(writer.done.values()) > 50)
        collection.drop() if leave == "drop" else collection.rename("elsewhere")
        collection.create_index([("updated_at", 1), ("_id", 1)])
        with Writer(collection, seed + 1) as writer:
            assert eventually(lambda: sum(writer.done.values()) > 50)
        assert eventually(is_true(redis_client, collection, without="queue:"))
    assert "invalidated" in [one.restarted for one in batches]


def in_one_go(collection: Collection[Document]) -> None:
    """All documents are changed by one command."""
    collection.update_many({}, [{"$set": {"status": "flood", "updated_at": "$$NOW"}}])


def steadily(collection: Collection[Document]) -> None:
    """All documents are changed, 10,000 a second."""
    due = time.monotonic()
    for start in range(0, FLOOD, 1000):
        time.sleep(max(0.0, due - time.monotonic()))
        change = {"$set": {"status": "flood", "updated_at": datetime.now(UTC)}}
        collection.bulk_write([UpdateOne({"_id": start + n}, change) for n in range(1000)], ordered=False)
        due += 0.1


@pytest.mark.alone
@pytest.mark.parametrize("flood", [in_one_go, steadily] if LONG else [in_one_go])
def test_a_flood_of_changes_is_caught_up_with(
    collection: Collection[Document],
    redis_client: redis.Redis,
    start_etl: StartEtl,
    open_app: OpenApp,
    flood: Callable[[Collection[Document]], None],
) -> None:
    """The lag is seen, memory stays, nothing is lost."""
    process = start_etl("follow", NAME)
    assert eventually(lambda: has_begun(redis_client))
    moment = datetime.now(UTC)
    for start in range(0, FLOOD, 1000):
        collection.insert_many(api(f"p{start + n}", moment, _id=start + n) for n in range(1000))
    assert eventually(lambda: redis_client.exists(f"config:api:p{FLOOD - 1}") == 1, 300)
    app, cycles = open_app(), redis_client.llen(KEYS.history)
    before, most, states, lags = resident_mb(process.pid), 0.0, Counter[str](), [0.0]
    began = time.monotonic()
    flooding = threading.Thread(target=flood, args=(collection,))
    flooding.start()

    def is_caught_up() -> bool:
        nonlocal most
        most = max(most, resident_mb(process.pid))
        follow = app.status()[0].follow or {}
        states[follow["state"]] += 1
        lags.append(follow["lag_seconds"] or 0.0)
        time.sleep(0.02)
        last = redis_client.hget(f"config:api:p{FLOOD - 1}", "status")
        return not flooding.is_alive() and last == "flood" and follow["state"] == "following"

    assert eventually(is_caught_up, 300)
    seconds = time.monotonic() - began
    assert held(redis_client) == truth(collection)
    assert redis_client.llen(KEYS.history) == cycles
    assert states["behind"] > 0
    assert most - before < 30
    print(  # noqa: T201
        f"{flood.__name__}: {FLOOD} changes in {seconds:.1f} s, {FLOOD / seconds:.0f}/s, "
        f"lag up to {max(lags):.0f} s, memory {before:.0f} to {most:.0f} MB"
    )
    assert interrupt(process).code == 0


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
            done, applied = sum(writer.done.values()), len(batches)
            with ThreadPoolExecutor(1) as beside:
                backfill = beside.submit(filling.backfill, NAME, BackfillOrder(), no_progress)
                synced = cycle(other)  # waits for the cycle of the backfill, as one cycle runs at a time
                verified = other.verify(NAME)
            for report in (backfill.result(), synced):
                assert (report.status, report.error) == ("ok", None)
            assert verified.true, verified
            assert eventually(lambda done=done: sum(writer.done.values()) > done)  # type: ignore[misc]
            assert eventually(lambda applied=applied: len(batches) > applied)  # type: ignore[misc]
    # The follower has ended within a batch: another one goes on there.
    with following(open_app()):
        assert eventually(is_true(redis_client, collection))
    assert other.verify(NAME).true
