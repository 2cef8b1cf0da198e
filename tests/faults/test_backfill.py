"""A backfill that is killed, or loses a worker or a server, resumes without losing documents."""

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
APP_NAME = "promptcontent-etl"
LONG = bool(os.environ.get("LONG_RUNS"))
PAGE, WORKERS, KILLS = 20, 2, 5 if LONG else 3
SEED = int(os.environ.get("CHAOS_SEED") or time.time_ns())


def contested(count: int, random_source: random.Random) -> list[Document]:
    """Providers; 5% of the keys are claimed by three documents, and the newest is not inserted last."""
    documents = [api(f"p{n}", LONG_AGO + timedelta(seconds=n), _id=f"{n}") for n in range(count)]
    for n in random_source.sample(range(count), count // 20):
        for seconds, status in ((2, "newest"), (-1, "older")):
            moment = LONG_AGO + timedelta(seconds=n + seconds * count)
            documents.append(api(f"p{n}", moment, _id=f"{n}-{status}", status=status))
    return documents


def backfill(app: App, on_progress: Callable[[Report], None] = lambda _: None, workers: int = 0) -> Report:
    """Run a successful backfill."""
    order = BackfillOrder(executors=processes(workers) if workers else None)
    report = app.backfill(NAME, order, on_progress)
    assert (report.status, report.error) == ("ok", None)
    return report


def cursor(client: redis.Redis) -> Any:
    """The cursor of the backfill."""
    return client.hget(f"{STATE_PREFIX}backfill", "scan_cursor")


def after_first_page(step: Callable[[], object]) -> Callable[[Report], None]:
    """A progress callback that calls `step` after the first page."""
    steps = iter([step])

    def on_progress(_: Report) -> None:
        next(steps, lambda: None)()

    return on_progress


@pytest.fixture
def short_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit each task to a page, so that a few documents give many tasks."""
    monkeypatch.setattr(coordinator, "TASK_SECONDS", 0)


@pytest.fixture
def start_backfill(environment: dict[str, str], start_etl: StartEtl) -> Callable[[], "subprocess.Popen[str]"]:
    """Start a backfill with two workers and a short lease."""
    environment |= {
        "ETL_LEASE__SECONDS": "1",
        "ETL_COLLECTIONS": f'[{{"name": "{NAME}", "page_size": {PAGE}}}]',
    }
    return lambda: start_etl("backfill", NAME, "--workers", f"{WORKERS}", "--json")


@pytest.mark.slow
def test_backfill_killed_repeatedly_resumes(
    collection: Collection[Document],
    redis_client: redis.Redis,
    start_backfill: Callable[[], "subprocess.Popen[str]"],
) -> None:
    """After three `kill -9` the fourth run ends it; no recorded page is read again, no process is left over.

    With LONG_RUNS=1 five times.
    """
    print(f"CHAOS_SEED={SEED}")  # noqa: T201 (pytest shows it when the test fails)
    random_source = random.Random(SEED)
    documents = contested(5_000 * KILLS, random_source)
    collection.insert_many(documents)
    children, cursors = list[psutil.Process](), set[str]()

    for _ in range(KILLS):
        before = cursor(redis_client)
        process = start_backfill()
        assert eventually(lambda: cursor(redis_client) != before)  # noqa: B023 (called at once)
        time.sleep(random_source.uniform(0, 0.2))
        children += psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()  # not communicate(): a child left over would keep the pipe open
        assert process.returncode == -signal.SIGKILL
        cursors.add(cursor(redis_client))
        assert eventually(lambda: not redis_client.exists(f"{STATE_PREFIX}backfill_lease"))
    last_position = position_from_text(cursor(redis_client))
    last = end_of(start_backfill())

    assert (last.code, last.json["status"]) == (0, "ok")
    assert len(cursors) == KILLS, "they were killed before they recorded a page"
    assert len(children) >= KILLS * WORKERS
    assert eventually(lambda: not any(child.is_running() for child in children)), "a process is left over"
    assert held(redis_client) == truth(collection)
    remaining = [
        d for d in documents if position_of(d["updated_at"], d["_id"]).order() > last_position.order()
    ]
    assert last.json["records_processed"] == len(remaining) < len(documents)


@pytest.mark.usefixtures("short_tasks")
def test_backfill_continues_without_a_killed_worker(
    collection: Collection[Document],
    redis_client: redis.Redis,
    open_app: OpenApp,
    caplog: pytest.LogCaptureFixture,
) -> None:
    collection.insert_many(contested(500, random.Random(1)))

    def kill() -> None:
        victims = [p for p in psutil.Process().children(recursive=True) if p.name().startswith("python")]
        workers = [p for p in victims if p.ppid() != os.getpid()]
        assert workers
        workers[-1].kill()

    report = backfill(open_app(), after_first_page(kill), workers=2)

    assert report.records_processed == collection.count_documents({})
    assert "going on without workers" in caplog.text
    assert held(redis_client) == truth(collection)


def test_ctrl_c_while_workers_import_modules_is_silent() -> None:
    """SIGINT reaches the whole process group, but the workers leave it to the process that started them."""
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


def test_backfill_waits_for_mongodb(
    collection: Collection[Document], redis_client: redis.Redis, open_app: OpenApp
) -> None:
    collection.insert_many(contested(500, random.Random(1)))
    with fail_command(
        collection.database.client, "find", mode={"skip": 20}, appName=APP_NAME, errorCode=10107
    ) as failure:
        healer = threading.Thread(target=lambda: _heal_after(collection, failure, 4))
        healer.start()

        report = backfill(open_app(patience=20), workers=2)

        healer.join()
        assert failure.injected() >= 4
    assert report.records_processed == collection.count_documents({})
    assert held(redis_client) == truth(collection)


def _heal_after(collection: Collection[Document], failure: Any, count: int) -> None:
    assert eventually(lambda: failure.injected() >= count)
    collection.database.client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


@pytest.mark.usefixtures("short_tasks")
def test_backfill_waits_for_redis(
    collection: Collection[Document],
    redis_client: redis.Redis,
    redis_proxy: "tuple[str, Proxy]",
    open_app: OpenApp,
) -> None:
    collection.insert_many(contested(500, random.Random(1)))
    url, proxy = redis_proxy
    before: list[int] = []

    def cut() -> None:
        before.append(proxy.connections)
        proxy.cut()
        threading.Timer(0.7, proxy.resume).start()

    report = backfill(open_app(redis=url), after_first_page(cut), workers=2)

    assert proxy.connections > before[0]
    assert report.sync_duration_ms > 700
    assert report.records_processed == collection.count_documents({})
    assert held(redis_client) == truth(collection)


@pytest.fixture
def redis_proxy(redis_url: str, redis_server: RedisServer, proxy_to: ProxyTo) -> "tuple[str, Proxy]":
    """The URL of Redis through a proxy, and the proxy."""
    proxy = proxy_to(redis_server)
    return redis_url.replace(redis_server.address, proxy.address), proxy


@contextmanager
def concurrent_writer(collection: Collection[Document]) -> Iterator[list[int]]:
    """Insert and update documents until the block ends; the list has the number of writes."""
    stop, writes = threading.Event(), [0]

    def write() -> None:
        random_source = random.Random(SEED)
        while not stop.wait(0.002):
            number, status = random_source.randrange(3000), f"live {writes[0]}"
            change = {"status": status, "provider_name": f"p{number}", "tipo": "integracion_api"}
            update = {"$set": {**change, "updated_at": datetime.now(UTC)}}
            collection.update_one({"_id": f"{random_source.choice([number, -number])}"}, update, upsert=True)
            writes[0] += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield writes
    finally:
        stop.set()
        writer.join()


@pytest.mark.slow
def test_backfill_beside_a_daemon_and_a_writer_overwrites_nothing_newer(
    collection: Collection[Document], redis_client: redis.Redis, open_app: OpenApp, start_etl: StartEtl
) -> None:
    """After the next cycle Redis equals MongoDB."""
    collection.insert_many(contested(2000, random.Random(SEED)))
    collections = f'[{{"name": "{NAME}", "cold_start": "now"}}]'
    daemon = start_etl("run", **every(1), ETL_COLLECTIONS=collections)
    assert eventually(lambda: bool(redis_client.exists(f"etl:last_sync:{NAME}")))

    with no_key_goes_back(redis_client) as checks, concurrent_writer(collection) as writes:
        backfill(open_app(), workers=2)
        finished = redis_client.hget(f"{STATE_PREFIX}checkpoint", "mongo_clock")
    assert min(writes[0], checks[0]) > 5

    assert eventually(lambda: redis_client.hget(f"{STATE_PREFIX}checkpoint", "mongo_clock") != finished)
    assert eventually(lambda: held(redis_client) == truth(collection))
    ended(daemon)


@contextmanager
def no_key_goes_back(client: redis.Redis) -> Iterator[list[int]]:
    """Check until the block ends that no key goes back to an older value; the list has the number of checks."""
    stop, checks, newest, older = threading.Event(), [0], dict[str, int](), set[str]()

    def watch() -> None:
        while not stop.wait(0.01):
            now = {key: _rank(value) for key, value in held(client).items()}
            older.update(key for key, age in now.items() if age < newest.get(key, age))
            newest.update(now)
            checks[0] += 1

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield checks
    finally:
        stop.set()
        watcher.join()
    assert older == set()


def _rank(value: Any) -> int:
    """A number by which the values of a key are ordered by age."""
    status: str = value["status"]
    number = status.removeprefix("live ")
    return int(number) if number != status else ("older", "active", "newest").index(status) - 3


def test_backfill_of_ten_megabyte_documents_needs_little_memory(
    collection: Collection[Document], redis_client: redis.Redis, open_app: OpenApp
) -> None:
    """Few of them are in memory at a time. The dead letters are complete."""
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
    # About 200 MB; without a limit to the size of a page it is more than 500.
    assert peak[0] < 300_000_000, f"{peak[0]:,} bytes more than before"


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """The greatest memory of this process and its children, less that of this process before, in bytes."""
    stop, peak, before = threading.Event(), [0], _memory()

    def watch() -> None:
        while not stop.wait(0.02):
            peak[0] = max(peak[0], _memory() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        stop.set()
        watcher.join()


def _memory() -> int:
    """Unique memory in bytes; the servers of the tests are children too, but do not count."""
    this = psutil.Process()
    total = 0
    for process in (this, *this.children(recursive=True)):
        try:
            if process == this or process.name().startswith("python"):
                total += process.memory_full_info().uss
        except psutil.Error:
            continue
    return total
