"""A backfill that is killed, or loses a worker or a server, goes on, and nothing is lost."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest
import redis
from pymongo.collection import Collection

from etl.app import App, BackfillOrder
from etl.backfill import coordinator
from etl.backfill.executors import processes
from etl.demo import RedisServer
from etl.model.report import Report
from schemas.position import position_from_text, position_of
from tests.factories import api
from tests.support.command import StartEtl, end_of
from tests.support.daemons import ended, every
from tests.support.failpoint import fail_command
from tests.support.pipeline import STATE_PREFIX, OpenApp
from tests.support.proxy import Proxy
from tests.support.redis_dump import held
from tests.support.truth import truth
from tests.support.types import Document, ProxyTo
from tests.support.waiting import eventually

NAME = "promptContent"
LONG_AGO = datetime(2025, 1, 15, tzinfo=UTC)
OURS = "promptcontent-etl"
LONG = bool(os.environ.get("LONG_RUNS"))
PAGE, WORKERS, KILLS = 20, 2, 5 if LONG else 3
SEED = int(os.environ.get("CHAOS_SEED") or time.time_ns())


def contested(count: int, chaos: random.Random) -> list[Document]:
    """Providers; 5% of the keys are claimed by three documents, the newest of which is not inserted last."""
    documents = [api(f"p{n}", LONG_AGO + timedelta(seconds=n), _id=f"{n}") for n in range(count)]
    for n in chaos.sample(range(count), count // 20):
        for seconds, status in ((2, "newest"), (-1, "older")):
            moment = LONG_AGO + timedelta(seconds=n + seconds * count)
            documents.append(api(f"p{n}", moment, _id=f"{n}-{status}", status=status))
    return documents


def backfill(app: App, tell: Callable[[Report], None] = lambda _: None, workers: int = 0) -> Report:
    """One that goes well."""
    order = BackfillOrder(executors=processes(workers) if workers else None)
    report = app.backfill(NAME, order, tell)
    assert (report.status, report.error) == ("ok", None)
    return report


def cursor(client: redis.Redis) -> Any:
    """Where the backfill stands."""
    return client.hget(f"{STATE_PREFIX}backfill", "scan_cursor")


def once(step: Callable[[], object]) -> Callable[[Report], None]:
    """Does something after the first page."""
    steps = iter([step])

    def tell(_: Report) -> None:
        next(steps, lambda: None)()

    return tell


@pytest.fixture
def short_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page each, so that a few documents make many of them."""
    monkeypatch.setattr(coordinator, "TASK_SECONDS", 0)


@pytest.fixture
def begin(environment: dict[str, str], start_etl: StartEtl) -> Callable[[], "subprocess.Popen[str]"]:
    """Start a backfill with two workers; what is left of one that was killed keeps nobody out for long."""
    environment |= {
        "ETL_LEASE__SECONDS": "1",
        "ETL_COLLECTIONS": f'[{{"name": "{NAME}", "page_size": {PAGE}}}]',
    }
    return lambda: start_etl("backfill", NAME, "--workers", f"{WORKERS}", "--json")


@pytest.mark.slow
def test_a_backfill_that_is_killed_repeatedly_resumes(
    collection: Collection[Document],
    redis_client: redis.Redis,
    begin: Callable[[], "subprocess.Popen[str]"],
) -> None:
    """After three times `kill -9` the fourth run ends it; no recorded page is done twice, no process left over.

    With LONG_RUNS=1 five times.
    """
    print(f"CHAOS_SEED={SEED}")  # noqa: T201 (pytest shows it when the test fails)
    chaos = random.Random(SEED)
    documents = contested(5_000 * KILLS, chaos)
    collection.insert_many(documents)
    families, moments = list[psutil.Process](), set[str]()

    for _ in range(KILLS):
        before = cursor(redis_client)
        process = begin()
        assert eventually(lambda: cursor(redis_client) != before)  # noqa: B023 (called at once)
        time.sleep(chaos.uniform(0, 0.2))
        families += psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()  # not for the end of its output: a process left over would hold that
        assert process.returncode == -signal.SIGKILL
        moments.add(cursor(redis_client))
        assert eventually(lambda: not redis_client.exists(f"{STATE_PREFIX}backfill_lease"))
    stood = position_from_text(cursor(redis_client))
    last = end_of(begin())

    assert (last.code, last.json["status"]) == (0, "ok")
    assert len(moments) == KILLS, "they were not killed at work"
    assert len(families) >= KILLS * WORKERS
    assert eventually(lambda: not any(child.is_running() for child in families)), "a process is left over"
    assert held(redis_client) == truth(collection)
    left = [d for d in documents if position_of(d["updated_at"], d["_id"]).order() > stood.order()]
    assert last.json["records_processed"] == len(left) < len(documents)


@pytest.mark.usefixtures("short_tasks")
def test_a_backfill_ends_without_its_killed_worker(
    collection: Collection[Document],
    redis_client: redis.Redis,
    open_app: OpenApp,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The run goes on without workers, and nothing is lost."""
    collection.insert_many(contested(500, random.Random(1)))

    def kill() -> None:
        victims = [p for p in psutil.Process().children(recursive=True) if p.name().startswith("python")]
        workers = [p for p in victims if p.ppid() != os.getpid()]
        assert workers
        workers[-1].kill()

    report = backfill(open_app(), once(kill), workers=2)

    assert report.records_processed == collection.count_documents({})
    assert "going on without workers" in caplog.text
    assert held(redis_client) == truth(collection)


def test_ctrl_c_while_workers_import_modules_is_silent() -> None:
    """It reaches the whole group; who started them decides what becomes of them, and they say nothing."""
    script = (
        "import os, signal, time\n"
        "import psutil\n"
        "from etl.backfill.executors import make_ready, processes\n"
        "make_ready()\n"
        "loading = set(psutil.Process().children())\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "for _ in range(10):\n"
        "    os.killpg(0, signal.SIGINT)\n"
        "    time.sleep(0.03)\n"
        "with processes(1)() as (executor, _):\n"
        "    print(executor.submit(int, '7').result(), set(psutil.Process().children()) == loading)\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        start_new_session=True,
    )

    assert (done.returncode, done.stderr, done.stdout) == (0, "", "7 True\n")


def test_a_backfill_waits_for_mongodb(
    collection: Collection[Document], redis_client: redis.Redis, open_app: OpenApp
) -> None:
    collection.insert_many(contested(500, random.Random(1)))
    with fail_command(
        collection.database.client, "find", mode={"skip": 20}, appName=OURS, errorCode=10107
    ) as failure:
        healed = threading.Thread(target=lambda: _heal_after(collection, failure, 4))
        healed.start()

        report = backfill(open_app(patience=20), workers=2)

        healed.join()
        assert failure.injected() >= 4
    assert report.records_processed == collection.count_documents({})
    assert held(redis_client) == truth(collection)


def _heal_after(collection: Collection[Document], failure: Any, count: int) -> None:
    assert eventually(lambda: failure.injected() >= count)
    collection.database.client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


@pytest.mark.usefixtures("short_tasks")
def test_a_backfill_waits_for_redis(
    collection: Collection[Document],
    redis_client: redis.Redis,
    cut_off: "tuple[str, Proxy]",
    open_app: OpenApp,
) -> None:
    collection.insert_many(contested(500, random.Random(1)))
    url, proxy = cut_off
    before: list[int] = []

    def cut() -> None:
        before.append(proxy.connections)
        proxy.cut()
        threading.Timer(0.7, proxy.resume).start()

    report = backfill(open_app(redis=url), once(cut), workers=2)

    assert proxy.connections > before[0]
    assert report.sync_duration_ms > 700
    assert report.records_processed == collection.count_documents({})
    assert held(redis_client) == truth(collection)


@pytest.fixture
def cut_off(redis_url: str, redis_server: RedisServer, proxy_to: ProxyTo) -> "tuple[str, Proxy]":
    """The address of Redis behind a proxy, and that."""
    proxy = proxy_to(redis_server)
    return redis_url.replace(redis_server.address, proxy.address), proxy


@contextmanager
def writing(collection: Collection[Document]) -> Iterator[list[int]]:
    """Inserts and updates all the time, to the end of the block; how many is in the list."""
    stop, writes = threading.Event(), [0]

    def write() -> None:
        chaos = random.Random(SEED)
        while not stop.wait(0.002):
            number, status = chaos.randrange(3000), f"live {writes[0]}"
            change = {"status": status, "provider_name": f"p{number}", "tipo": "integracion_api"}
            wish = {"$set": {**change, "updated_at": datetime.now(UTC)}}
            collection.update_one({"_id": f"{chaos.choice([number, -number])}"}, wish, upsert=True)
            writes[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield writes
    finally:
        stop.set()
        writer.join()


@pytest.mark.slow
def test_a_backfill_beside_a_daemon_and_a_writer_overwrites_nothing_newer(
    collection: Collection[Document], redis_client: redis.Redis, open_app: OpenApp, start_etl: StartEtl
) -> None:
    """At the end nothing older stands on something newer; one cycle later all is what MongoDB says."""
    collection.insert_many(contested(2000, random.Random(SEED)))
    rules = f'[{{"name": "{NAME}", "cold_start": "now"}}]'
    daemon = start_etl("run", **every(1), ETL_COLLECTIONS=rules)
    assert eventually(lambda: bool(redis_client.exists(f"etl:last_sync:{NAME}")))

    with watching(redis_client) as looks, writing(collection) as writes:
        backfill(open_app(), workers=2)
        finished = redis_client.hget(f"{STATE_PREFIX}checkpoint", "mongo_clock")
    assert min(writes[0], looks[0]) > 5

    assert eventually(lambda: redis_client.hget(f"{STATE_PREFIX}checkpoint", "mongo_clock") != finished)
    assert eventually(lambda: held(redis_client) == truth(collection))
    ended(daemon)


@contextmanager
def watching(client: redis.Redis) -> Iterator[list[int]]:
    """No key ever goes back to what is older; how often that was looked at is in the list."""
    stop, looks, newest, older = threading.Event(), [0], dict[str, int](), set[str]()

    def watch() -> None:
        while not stop.wait(0.01):
            now = {key: _age(value) for key, value in held(client).items()}
            older.update(key for key, age in now.items() if age < newest.get(key, age))
            newest.update(now)
            looks[0] += 1

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield looks
    finally:
        stop.set()
        watcher.join()
    assert older == set()


def _age(value: Any) -> int:
    """Which of the documents that claim a key comes after which."""
    status: str = value["status"]
    number = status.removeprefix("live ")
    return int(number) if number != status else ("older", "active", "newest").index(status) - 3


def test_a_backfill_of_ten_megabyte_documents_needs_little_memory(
    collection: Collection[Document], redis_client: redis.Redis, open_app: OpenApp
) -> None:
    """Few of them are in memory at a time, and 5% dead letters are the right ones."""
    for n in range(20):
        collection.insert_one(api(f"big{n}", LONG_AGO, _id=n, note="x" * 10_000_000))
    small = [api(f"s{n}", LONG_AGO, _id=f"s{n}") for n in range(380)]
    for document in small[::20]:
        document["status"] = [1]
    collection.insert_many(small)
    with peak_memory() as peak:
        report = backfill(open_app(), workers=2)

    assert (report.records_processed, report.dead_lettered) == (400 - 19, 19)
    dead = redis_client.hkeys(f"{STATE_PREFIX}dead_letters")
    assert set(dead) == {f'"s{n}"' for n in range(0, 380, 20)}
    # About 200 MB; without a limit to the weight of a page it is more than 500.
    assert peak[0] < 300_000_000, f"{peak[0]:,} bytes more than before"


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """The most that this process and its children took beyond what this one had, in bytes."""
    stop, peak, before = threading.Event(), [0], _taken()

    def watch() -> None:
        while not stop.wait(0.02):
            peak[0] = max(peak[0], _taken() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


def _taken() -> int:
    """Unique bytes of memory; the servers of the tests are children too, and do not count."""
    this = psutil.Process()
    taken = 0
    for process in (this, *this.children(recursive=True)):
        try:
            if process == this or process.name().startswith("python"):
                taken += process.memory_full_info().uss
        except psutil.Error:
            continue
    return taken
