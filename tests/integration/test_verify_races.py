"""Changes during a verification are checked again: no false mismatch, no restored old value."""

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


def before_call(
    patch: pytest.MonkeyPatch, of: type, name: str, step: Callable[[], Any], call: int = 1
) -> list[bool]:
    """Call `step` before the given call of a method. The list tells for each call whether it was that one."""
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
def test_key_written_during_a_verification_is_no_mismatch(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    of: type,
    name: str,
    call: int,
) -> None:
    """At any step of the verification; the new value is kept."""
    collection.insert_one(api("p", clock.ago(900), _id=1, status="old"))
    app, other_app = open_app(), open_app()
    sync(app)
    redis_client.hset(KEY, "status", "damaged")  # so that it is rechecked

    def change() -> None:
        collection.update_one({"_id": 1}, {"$set": {"status": "new", "updated_at": clock.now()}})
        sync(other_app)

    calls = before_call(monkeypatch, of, name, change, call)
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
def test_deletion_is_a_mismatch_only_if_the_follower_missed_it(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caught_up: str,
    applied: str,
    verdict: str,
) -> None:
    """A follower needs milliseconds to apply a deletion, and more if it is behind."""
    collection.insert_one(api("p", clock.ago(900), _id=1))
    app, other_app = open_app(), open_app()
    sync(app)
    collection.delete_one({"_id": 1})
    redis_client.set(STATE.follow_lease, "host:1", px=60_000)
    redis_client.hset(STATE.follow, "caught_up", caught_up)

    def follow() -> None:
        if applied == "deletion":
            redis_client.delete(KEY)
        elif applied == "other":
            collection.insert_one(api("p", clock.ago(800), _id=2))
            sync(other_app)
            collection.delete_one({"_id": 2})

    monkeypatch.setattr("etl.verify.recheck._FOLLOWER_SECONDS", 0.1)
    calls = before_call(monkeypatch, Inspector, "exists", follow, call=3)  # after the first recheck
    report = app.verify("promptContent")
    assert any(calls)
    assert found(report) == ({} if verdict == "absent" else {verdict: 1})


def test_repair_does_not_wait_for_a_follower(
    open_app: OpenApp, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Also if it is behind, or reconciles itself."""
    collection.insert_one(api("p", clock.ago(900), _id=1))
    app = open_app()
    sync(app)
    collection.delete_one({"_id": 1})
    redis_client.set(STATE.follow_lease, "host:1", px=60_000)
    redis_client.hset(STATE.follow, "caught_up", "")
    report = app.verify("promptContent", repair=True)
    assert (report.orphaned, report.repaired, report.pending) == (1, 1, 0)
    assert not redis_client.exists(KEY)


def test_repair_writes_the_current_version(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A cycle has written a newer version after the recheck."""
    collection.insert_one(api("p", clock.ago(900), _id=1, status="old"))
    app, other_app = open_app(), open_app()
    sync(app)
    redis_client.hset(KEY, "status", "damaged")

    def change() -> None:
        collection.update_one({"_id": 1}, {"$set": {"status": "new", "updated_at": clock.now()}})
        sync(other_app)

    calls = before_call(monkeypatch, Processor, "repair", change)
    report = app.verify("promptContent", repair=True)
    assert any(calls)
    assert (report.different, report.repaired, report.true) == (1, 1, True)
    assert hash_at(redis_client, KEY) == {"status": "new"}


def test_document_inserted_after_the_read_decides(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The verification has read only an older document of the key."""
    collection.insert_one(api("p", clock.ago(900), status="old"))
    app, other_app = open_app(), open_app()
    sync(app)

    def insert() -> None:
        collection.insert_one(api("p", clock.now(), status="new"))
        other_app.refresh("config:api")

    redis_client.hset(KEY, "status", "damaged")
    calls = before_call(monkeypatch, Inspector, "claims", insert)
    report = app.verify("promptContent")
    assert any(calls)
    assert (report.wrong, report.matching) == (0, 1)


def test_key_that_keeps_changing_is_pending(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others are checked."""
    collection.insert_many([api(name, clock.ago(900)) for name in "pq"])
    app, other_app = open_app(), open_app()
    sync(app)
    real = Inspector.claims

    def claims(self: Inspector, keys: Sequence[str]) -> Any:
        if KEY in keys:
            collection.update_one({"provider_name": "p"}, {"$set": {"updated_at": clock.now()}})
            sync(other_app)
        return real(self, keys)

    monkeypatch.setattr(Inspector, "claims", claims)
    redis_client.hset(KEY, "status", "damaged")
    redis_client.hset("config:api:q", "status", "damaged")
    report = app.verify("promptContent", repair=True)
    assert (report.different, report.repaired, report.pending) == (1, 1, 1)


def test_lock_taken_during_a_repair_is_respected(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    collection.insert_one(campaign("c", clock.ago(900)))
    app = open_app()
    sync(app)
    [key] = redis_client.keys("ai:campaign_messages:*")
    redis_client.delete(key)
    before_call(
        monkeypatch, Processor, "repair", lambda: redis_client.set("lock:content_generation:c", "pid")
    )
    report = app.verify("promptContent", repair=True)
    assert (report.missing, report.repaired, report.deferred) == (0, 0, 1)
    assert not redis_client.exists(key)


def test_cycle_does_not_overwrite_a_repair_with_an_older_document(
    open_app: OpenApp,
    clock: Clock,
    collection: Collection[Document],
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The older document was committed late."""
    collection.insert_many([api("p", clock.ago(50), status="old"), api("p", clock.ago(40), _id="gone")])
    app, other_app = open_app(), open_app()
    sync(other_app)
    collection.delete_one({"_id": "gone"})
    collection.insert_one(api("p", clock.ago(60), status="late"))
    calls = before_call(monkeypatch, CacheWriter, "apply", lambda: app.verify("promptContent", repair=True))
    sync(other_app)
    assert any(calls)
    assert hash_at(redis_client, KEY) == {"status": "old"}


def test_verification_ends_beside_a_faster_writer(
    open_app: OpenApp, clock: Clock, collection: Collection[Document], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It skips documents written since it began, except those dated in the future."""
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
    """Call each worker repeatedly in its own thread."""
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


def test_there_is_no_mismatch_beside_a_writer_and_cycles(
    open_app: OpenApp, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """20 verifications, while documents are inserted, changed and archived."""
    random = Random(7)
    app, other_app = open_app(page_size=50), open_app(page_size=50)
    collection.insert_many([_random_document(n, random) for n in range(150)])
    sync(other_app)

    def write() -> None:
        for _ in range(10):
            document = _random_document(random.randrange(250), random)
            collection.replace_one({"_id": document["_id"]}, document, upsert=True)

    redis_client.set(STATE.leader, "a daemon", px=60_000)
    reports = []
    with running(write, lambda: sync(other_app)):
        reports = [app.verify("promptContent", repair=number % 2 == 1) for number in range(20)]
    assert [report.keys.get(name) for report in reports for name in _MISMATCHES] == [None] * 3 * 20
    assert sum(report.pending for report in reports) > 0, "no verification met a changing key"
    sync(other_app)
    last = app.verify("promptContent")
    assert (last.wrong, last.pending) == (0, 0)


_MISMATCHES = ("different", "missing", "orphaned")


def _random_document(number: int, random: Random) -> Document:
    fields = {"_id": number, "metadata": {"tokens_total": random.randrange(1000)}}
    fields |= random.choice([{}, {}, {}, {"estado": "archivado"}])
    return campaign(f"c{number % 100}", datetime.now(UTC), **fields)
