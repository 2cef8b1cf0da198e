"""The transforms of a backfill on a Dask cluster: a scheduler and two workers, each a process of its own."""

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
    """Where the scheduler is, and the processes."""

    address: str
    scheduler: "subprocess.Popen[bytes]"
    workers: list["subprocess.Popen[bytes]"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster on loopback; gone when the test ends."""
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
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost scheduler is given up sooner."""
    monkeypatch.setattr(workers, "DASK_SECONDS", 2.0)


def dated(count: int) -> list[Document]:
    """Providers a second apart; every hundredth is invalid."""
    moments = (LONG_AGO + timedelta(seconds=n) for n in range(count))
    status = ("active", [1])
    return [api(f"p{n}", moment, _id=n, status=status[n % 100 == 99]) for n, moment in enumerate(moments)]


def backfill(app: App, cluster: Cluster, step: Callable[[], object]) -> Report:
    """One that transforms on the cluster; `step` is done once a page is applied."""
    steps = iter([step])

    def tell(_: Report) -> None:
        next(steps, lambda: None)()

    return app.backfill("promptContent", BackfillOrder(executors=dask(cluster.address)), tell)


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "workers", "scheduler"])
@pytest.mark.usefixtures("impatient")
def test_a_backfill_ends_though_a_part_of_the_cluster_is_killed(
    collection: Collection[Document],
    redis_client: redis.Redis,
    open_app: OpenApp,
    cluster: Cluster,
    victim: str,
) -> None:
    """Mid-way: the other worker does what is left, or without any this process; nothing is lost."""
    collection.insert_many(dated(COUNT))
    parts = {"worker": cluster.workers[:1], "workers": cluster.workers, "scheduler": [cluster.scheduler]}
    doomed = parts[victim]

    def kill() -> None:
        for process in doomed:
            process.kill()

    report = backfill(open_app(page_size=20), cluster, kill)

    assert all(process.wait(5) < 0 for process in doomed)
    assert (report.status, report.error) == ("ok", None)
    assert (report.records_processed, report.dead_lettered) == (COUNT - COUNT // 100, COUNT // 100)
    collection.delete_many({"status": [1]})
    assert held(redis_client) == truth(collection)


def test_closing_does_not_wait_for_a_scheduler_that_hangs(cluster: Cluster) -> None:
    """It may be at work, so it is not given up; but closing does not wait for it."""
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


@pytest.mark.usefixtures("impatient", "collection")
def test_a_missing_scheduler_is_named_in_one_line(open_app: OpenApp) -> None:
    """One line that names the address."""
    address = f"tcp://127.0.0.1:{free_port()}"

    report = open_app().backfill("promptContent", BackfillOrder(executors=dask(address)), lambda _: None)

    assert report.exit_code == 1
    assert str(report.error).startswith(f"no Dask scheduler at {address}: ")


def test_dask_workers_have_the_kinds_and_the_mapping_of_the_settings(
    cluster: Cluster,
    mongod: MongoServer,
    collection: Collection[Document],
    redis_client: redis.Redis,
    redis_url: str,
    tmp_path: Path,
) -> None:
    """All documents are applied by the cluster: of a kind that only the settings name, and in a shape of their own."""
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
