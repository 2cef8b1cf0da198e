"""What changes while a verification looks is looked at again; nothing is a mismatch falsely, or put back."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest
import redis
from pymongo.collection import Collection

from etl.cache.inspector import Inspector
from etl.cache.keys import state_keys
from etl.cache.writer import CacheWriter
from etl.checkpoint.checkpoint import CheckpointStore
from etl.mongo.reader import MongoReader
from etl.sync.processor import Processor
from tests.factories import api, campaign
from tests.support.pipeline import Clock, OpenApp, sync
from tests.support.redis_dump import hash_at
from tests.support.types import Document
from tests.support.verification import found

KEY = "config:api:p"
STATE = state_keys("promptContent")


def once(
    patch: pytest.MonkeyPatch, of: type, name: str, step: Callable[[], Any], call: int = 1
) -> list[bool]:
    """Have `step` happen before a call of a method, the first by default; says of each call whether it did."""
    calls: list[bool] = []
    real = getattr(of, name)

    def method(*arguments: Any, **named: Any) -> Any:
        calls.append(len(calls) + 1 == call)
        if calls[-1]:
            step()
        return real(*arguments, **named)

    patch.setattr(of, name, method)
    return calls


@pytest.mark.parametrize(
    ("of", "name", "call"),
    [
        (Inspector, "contents", 1),
        (Inspector, "owned", 1),
        (Inspector, "claims", 1),
        (MongoReader, "fetch", 1),
        (CheckpointStore, "load", 1),
        (Inspector, "contents", 2),
        (Inspector, "claims", 2),
    ],
)
def test_a_key_written_by_a_cycle_meanwhile_is_no_mismatch(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    of: type,
    name: str,
    call: int,
) -> None:
    """Wherever in the verification that happens; what the cycle has written stays."""
    collection.insert_one(api("p", clock.ago(900), _id=1, status="old"))
    app, beside = open_app(), open_app()
    sync(app)
    redis_client.hset(KEY, "status", "spoiled")  # so that it is rechecked

    def change() -> None:
        collection.update_one({"_id": 1}, {"$set": {"status": "new", "updated_at": clock.now()}})
        sync(beside)

    calls = once(monkeypatch, of, name, change, call)
    report = app.verify("promptContent", repair=True)
    assert any(calls)
    assert (report.wrong, report.repaired, report.pending) == (0, 0, 0)
    assert hash_at(redis_client, KEY) == {"status": "new"}


@pytest.mark.parametrize(
    ("caught_up", "applied", "verdict"),
    [
        ("1", "nothing", "orphaned"),
        ("0", "nothing", "pending"),
        ("1", "deletion", "absent"),
        ("1", "other", "pending"),
    ],
)
def test_a_deletion_is_a_mismatch_only_if_a_follower_leaves_it(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caught_up: str,
    applied: str,
    verdict: str,
) -> None:
    """A follower needs some milliseconds for a deletion, and more if it is behind."""
    collection.insert_one(api("p", clock.ago(900), _id=1))
    app, beside = open_app(), open_app()
    sync(app)
    collection.delete_one({"_id": 1})
    redis_client.set(STATE.follow_lease, "host:1", px=60_000)
    redis_client.hset(STATE.follow, "caught_up", caught_up)

    def follow() -> None:
        if applied == "deletion":
            redis_client.delete(KEY)
        elif applied == "other":
            collection.insert_one(api("p", clock.ago(800), _id=2))
            sync(beside)
            collection.delete_one({"_id": 2})

    monkeypatch.setattr("etl.verify.recheck._FOLLOWER_SECONDS", 0.1)
    calls = once(monkeypatch, Inspector, "exists", follow, call=3)  # after the first recheck
    report = app.verify("promptContent")
    assert any(calls)
    assert found(report) == ({} if verdict == "absent" else {verdict: 1})


def test_a_repair_does_not_wait_for_a_follower(
    open_app: OpenApp, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """What a follower that is behind, or that repairs itself, has left is removed at once."""
    collection.insert_one(api("p", clock.ago(900), _id=1))
    app = open_app()
    sync(app)
    collection.delete_one({"_id": 1})
    redis_client.set(STATE.follow_lease, "host:1", px=60_000)
    redis_client.hset(STATE.follow, "caught_up", "")
    report = app.verify("promptContent", repair=True)
    assert (report.orphaned, report.repaired, report.pending) == (1, 1, 0)
    assert not redis_client.exists(KEY)


def test_a_repair_writes_the_current_version(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cycle has written a newer version after the recheck: the repair does not put the old one back."""
    collection.insert_one(api("p", clock.ago(900), _id=1, status="old"))
    app, beside = open_app(), open_app()
    sync(app)
    redis_client.hset(KEY, "status", "spoiled")

    def change() -> None:
        collection.update_one({"_id": 1}, {"$set": {"status": "new", "updated_at": clock.now()}})
        sync(beside)

    calls = once(monkeypatch, Processor, "repair", change)
    report = app.verify("promptContent", repair=True)
    assert any(calls)
    assert (report.different, report.repaired, report.true) == (1, 1, True)
    assert hash_at(redis_client, KEY) == {"status": "new"}


def test_a_document_inserted_after_the_read_decides(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though only an older document of the key was read with all the others."""
    collection.insert_one(api("p", clock.ago(900), status="old"))
    app, beside = open_app(), open_app()
    sync(app)

    def come() -> None:
        collection.insert_one(api("p", clock.now(), status="new"))
        beside.refresh("config:api")

    redis_client.hset(KEY, "status", "spoiled")
    calls = once(monkeypatch, Inspector, "claims", come)
    report = app.verify("promptContent")
    assert any(calls)
    assert (report.wrong, report.matching) == (0, 1)


def test_a_key_that_keeps_changing_is_pending(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its neighbours are checked all the same."""
    collection.insert_many([api(name, clock.ago(900)) for name in "pq"])
    app, beside = open_app(), open_app()
    sync(app)
    real = Inspector.claims

    def claims(self: Inspector, keys: Sequence[str]) -> Any:
        if KEY in keys:
            collection.update_one({"provider_name": "p"}, {"$set": {"updated_at": clock.now()}})
            sync(beside)
        return real(self, keys)

    monkeypatch.setattr(Inspector, "claims", claims)
    redis_client.hset(KEY, "status", "spoiled")
    redis_client.hset("config:api:q", "status", "spoiled")
    report = app.verify("promptContent", repair=True)
    assert (report.different, report.repaired, report.pending) == (1, 1, 1)


def test_a_lock_taken_during_a_repair_is_respected(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A repair writes nothing of a campaign that has begun to be generated after it looked."""
    collection.insert_one(campaign("c", clock.ago(900)))
    app = open_app()
    sync(app)
    [key] = redis_client.keys("ai:campaign_messages:*")
    redis_client.delete(key)
    once(monkeypatch, Processor, "repair", lambda: redis_client.set("lock:content_generation:c", "pid"))
    report = app.verify("promptContent", repair=True)
    assert (report.missing, report.repaired, report.deferred) == (0, 0, 1)
    assert not redis_client.exists(key)


def test_a_cycle_writes_nothing_older_after_a_repair(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An older document that was committed late does not displace what was repaired."""
    collection.insert_many([api("p", clock.ago(50), status="old"), api("p", clock.ago(40), _id="gone")])
    app, beside = open_app(), open_app()
    sync(beside)
    collection.delete_one({"_id": "gone"})
    collection.insert_one(api("p", clock.ago(60), status="late"))
    calls = once(monkeypatch, CacheWriter, "apply", lambda: app.verify("promptContent", repair=True))
    sync(beside)
    assert any(calls)
    assert hash_at(redis_client, KEY) == {"status": "old"}


def test_a_verification_ends_though_a_writer_is_faster(
    open_app: OpenApp, clock: Clock, collection: Collection[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written since it began is for the next cycle, but for documents dated in the future."""
    collection.insert_many([api(f"p{n}", clock.ago(900)) for n in range(100)])
    collection.insert_one(api("future", clock.ago(-9000)))
    app = open_app(page_size=50)
    sync(app)
    real, pages = MongoReader.page, list[int]()

    def page(self: MongoReader, *arguments: Any) -> Any:
        found = real(self, *arguments)
        collection.insert_many([api(f"n{len(pages)}-{n}", clock.now()) for n in range(60)])
        pages.append(len(found.documents))
        assert len(pages) < 20, "it never ends"
        time.sleep(0.005)
        return found

    monkeypatch.setattr(MongoReader, "page", page)
    report = app.verify("promptContent")
    assert (report.matching, report.wrong, report.pending > 0) == (101, 0, True)


@contextmanager
def running(*workers: Callable[[], Any]) -> Iterator[None]:
    """Have these called again and again, each in a thread of its own."""
    stop = threading.Event()

    def work(step: Callable[[], Any]) -> None:
        while not stop.is_set():
            step()

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_there_is_no_mismatch_while_a_writer_and_cycles_are_at_work(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Documents are inserted, changed and archived; 20 verifications meet keys that move, and name none."""
    chance = Random(7)
    app, beside = open_app(page_size=50), open_app(page_size=50)
    collection.insert_many([_written(n, chance) for n in range(150)])
    sync(beside)

    def write() -> None:
        for _ in range(10):
            document = _written(chance.randrange(250), chance)
            collection.replace_one({"_id": document["_id"]}, document, upsert=True)

    redis_client.set(STATE.leader, "a daemon", px=60_000)
    reports = []
    with running(write, lambda: sync(beside)):
        reports = [app.verify("promptContent", repair=number % 2 == 1) for number in range(20)]
    assert [report.keys.get(name) for report in reports for name in _MISMATCHES] == [None] * 3 * 20
    assert sum(report.pending for report in reports) > 0, "no run has met a key that moved"
    sync(beside)
    last = app.verify("promptContent")
    assert (last.wrong, last.pending) == (0, 0)


_MISMATCHES = ("different", "missing", "orphaned")


def _written(number: int, chance: Random) -> Document:
    fields = {"_id": number, "metadata": {"tokens_total": chance.randrange(1000)}}
    fields |= chance.choice([{}, {}, {}, {"estado": "archivado"}])
    return campaign(f"c{number % 100}", datetime.now(UTC), **fields)
