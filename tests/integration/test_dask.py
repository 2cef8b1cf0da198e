"""A backfill on a Dask cluster: a scheduler and two workers, each in its own process."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
from distributed import Client
from pymongo.collection import Collection

from etl.app import App, BackfillOrder
from etl.backfill import executors as workers
from etl.backfill.executors import OnDask, dask
from etl.demo import MongoServer
from etl.demo.process import free_port
from etl.model.report import Report
from tests.factories import api
from tests.support.pipeline import OpenApp
from tests.support.redis_dump import held
from tests.support.truth import truth
from tests.support.types import Document
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
PYTHONPATH = os.pathsep.join((str(ROOT), str(ROOT / "examples" / "plantillas")))
LONG_AGO = datetime(2025, 1, 15, tzinfo=UTC)
COUNT = 1500


class Cluster(NamedTuple):
    """The address of the scheduler, and the processes."""

    address: str
    scheduler: "subprocess.Popen[bytes]"
    workers: list["subprocess.Popen[bytes]"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster on loopback until the test ends."""
    port, file = free_port(), tmp_path / "scheduler.json"
    with ExitStack() as stack:

        def start(*arguments: str) -> "subprocess.Popen[bytes]":
            process = subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": PYTHONPATH},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        loopback = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
        scheduler = start("scheduler", *loopback, "--port", f"{port}", "--scheduler-file", f"{file}")
        assert eventually(file.exists)
        address = f"tcp://127.0.0.1:{port}"
        single = (*loopback, "--nthreads", "1", "--no-nanny", "--no-dashboard")
        started = [start("worker", address, *single) for _ in range(2)]
        with Client(address, timeout=30, set_as_default=False) as client:  # type: ignore[no-untyped-call]
            client.wait_for_workers(2, 30)
        yield Cluster(address, scheduler, started)


@pytest.fixture
def short_scheduler_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up on a lost scheduler after two seconds."""
    monkeypatch.setattr(workers, "DASK_SECONDS", 2.0)


def dated(count: int) -> list[Document]:
    """Providers a second apart; every hundredth is invalid."""
    moments = (LONG_AGO + timedelta(seconds=n) for n in range(count))
    status = ("active", [1])
    return [api(f"p{n}", moment, _id=n, status=status[n % 100 == 99]) for n, moment in enumerate(moments)]


def backfill(app: App, cluster: Cluster, step: Callable[[], object]) -> Report:
    """Run a backfill on the cluster; `step` is called once a page has been applied."""
    steps = iter([step])

    def on_progress(_: Report) -> None:
        next(steps, lambda: None)()

    return app.backfill("promptContent", BackfillOrder(executors=dask(cluster.address)), on_progress)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "workers", "scheduler"])
@pytest.mark.usefixtures("short_scheduler_timeout")
def test_backfill_survives_killed_workers_and_scheduler(
    collection: Collection[Document],
    redis_client: redis.Redis,
    open_app: OpenApp,
    cluster: Cluster,
    victim: str,
) -> None:
    """The other worker processes the rest, or this process if there is none."""
    collection.insert_many(dated(COUNT))
    parts = {"worker": cluster.workers[:1], "workers": cluster.workers, "scheduler": [cluster.scheduler]}
    victims = parts[victim]

    def kill() -> None:
        for process in victims:
            process.kill()

    report = backfill(open_app(page_size=20), cluster, kill)

    assert all(process.wait(5) < 0 for process in victims)
    assert (report.status, report.error) == ("ok", None)
    assert (report.records_processed, report.dead_lettered) == (COUNT - COUNT // 100, COUNT // 100)
    collection.delete_many({"status": [1]})
    assert held(redis_client) == truth(collection)


def test_close_does_not_wait_for_a_hanging_scheduler(cluster: Cluster) -> None:
    """Its tasks are not abandoned, because it may still be working."""
    with dask(cluster.address)() as started:
        assert started is not None
        executor, _ = started
        assert isinstance(executor, OnDask)
        cluster.scheduler.send_signal(signal.SIGSTOP)
        try:
            time.sleep(1)  # by then it has been asked for its workers
            answer = executor.submit(int, "7")
            closing = threading.Thread(target=executor.close, daemon=True)
            closing.start()
            closing.join(5)
            assert not closing.is_alive()
            assert not answer.done()
        finally:
            cluster.scheduler.send_signal(signal.SIGCONT)
        assert answer.result(10) == 7


@pytest.mark.usefixtures("short_scheduler_timeout", "collection")
def test_missing_scheduler_is_a_one_line_error(open_app: OpenApp) -> None:
    """With its address."""
    address = f"tcp://127.0.0.1:{free_port()}"

    report = open_app().backfill("promptContent", BackfillOrder(executors=dask(address)), lambda _: None)

    assert report.exit_code == 1
    assert str(report.error).startswith(f"no Dask scheduler at {address}: ")


def test_dask_workers_use_the_kinds_and_mapping_of_the_settings(
    cluster: Cluster,
    mongod: MongoServer,
    collection: Collection[Document],
    redis_client: redis.Redis,
    redis_url: str,
    tmp_path: Path,
) -> None:
    """The kind is named by the settings only, and the documents need a mapping."""
    collection.insert_many(
        [{"n": {"de": f"n{n}"}, "texto": "hola", "updated_at": LONG_AGO} for n in range(COUNT)]
    )
    fields = {"tipo": {"$literal": "plantilla"}, "nombre": "$n.de"}
    variables = {
        "PYTHONPATH": PYTHONPATH,
        "ETL_MONGO__URI": mongod.uri,
        "ETL_MONGO__DATABASE": collection.database.name,
        "ETL_REDIS__URL": redis_url,
        "ETL_KINDS": '["acme_plantillas"]',
        "ETL_COLLECTIONS": json.dumps([{"name": collection.name, "fields": fields}]),
    }
    command = ["backfill", collection.name, "--executor", "dask", "--scheduler", cluster.address, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "etl", *command],
        env=os.environ | variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "without workers" not in done.stderr
    assert json.loads(done.stdout)["dead_lettered"] == 0
    assert sum(1 for _ in redis_client.scan_iter("ai:template:*", count=1000)) == COUNT
