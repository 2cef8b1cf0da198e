import json
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import redis
from pymongo.collection import Collection
from pymongo.database import Database

from etl.backfill import coordinator
from etl.cache.keys import state_keys
from etl.cli import run
from etl.demo import RedisServer
from schemas.position import FIRST, Position, position_from_text
from tests.factories import delta, requested
from tests.support.command import StartEtl, end_of
from tests.support.redis_dump import held
from tests.support.truth import truth
from tests.support.types import Document, StartRedis
from tests.support.waiting import eventually

# Several collections: while the lease of one killed process expires, another process starts.
COLLECTIONS = ("promptContent", "norte", "sur", "oeste")
KILLS_EACH = 13
MOST_VICTIMS_EACH = 3 * KILLS_EACH  # on a busy machine many are killed before they have recorded a page
DOCUMENTS_EACH = 900
PAGE = 5  # many batches in one cycle


@pytest.fixture
def seed() -> int:
    """The seed of a test; `CHAOS_SEED` repeats a run, as far as timing allows."""
    seed = int(os.environ.get("CHAOS_SEED") or time.time_ns())
    print(f"CHAOS_SEED={seed}")  # noqa: T201 (pytest shows it when the test fails)
    return seed


Start = Callable[[str], BaseProcess]
"""Starts `etl sync` of a collection."""


def sync(environment: Mapping[str, str], folder: Path, collection: str) -> None:
    """Run `etl sync` in this process; it records its position after each page."""
    coordinator.TASK_SECONDS = 0  # type: ignore[misc]
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.exit(run(["sync", collection]))


class Killer:
    """Starts `etl sync` of a collection repeatedly, and kills it at random times."""

    def __init__(
        self, collection: Collection[Document], client: redis.Redis, start: Start, seed: int
    ) -> None:
        self.kills = 0
        self.while_working = 0
        self.checkpoints: list[Position] = []
        self.cursors: set[str] = set()
        self._collection = collection
        self._redis = client
        self._start = start
        self._random = random.Random(f"{seed} {collection.name}")
        self._numbers = count()
        self._own = state_keys(collection.name)

    @property
    def has_killed_at_many_cursors(self) -> bool:
        """Whether more than half of the required kills happened at different cursors."""
        return len(self.cursors) > KILLS_EACH / 2

    def run(self, step: float) -> None:
        """Kill often enough. Each process runs up to two `step`s (seconds) after it got the lease.

        If one has made no progress, the next ones run longer.
        """
        for _ in range(MOST_VICTIMS_EACH):
            if self.kills >= KILLS_EACH and self.has_killed_at_many_cursors:
                return
            self._write_late()
            assert eventually(lambda: not self._redis.exists(self._own.lease))
            self._kill(self._start(self._collection.name), self._random.uniform(0, 2 * step))
            if not self._record_progress():
                step *= 1.3

    def _kill(self, process: BaseProcess, delay: float) -> None:
        assert eventually(lambda: self._is_working(process) or not process.is_alive())
        time.sleep(delay)
        process.kill()
        process.join()
        self.kills += process.exitcode == -signal.SIGKILL
        self.while_working += self._is_working(process)

    def _is_working(self, process: BaseProcess) -> bool:
        return str(self._redis.get(self._own.lease)).partition(f":{process.pid}:")[1] != ""

    def _write_late(self) -> None:
        """Insert requests behind the watermark, dated within the overlap."""
        now = datetime.now(UTC)
        self._collection.insert_many(
            requested(f"{self._collection.name}-late-{number}", now - timedelta(seconds=seconds))
            for seconds, number in zip(range(0, 110, 5), self._numbers, strict=False)
        )

    def _record_progress(self) -> bool:
        """Record position and cursor; returns whether no process was killed at that cursor before."""
        before = len(self.cursors)
        position, cursor = self._redis.hmget(self._own.checkpoint, "position", "scan_cursor")
        self.checkpoints.append(position_from_text(str(position)) if position else FIRST)
        self.cursors.add(str(cursor))
        return len(self.cursors) > before


@pytest.fixture
def collections(database: Database[Document]) -> Sequence[Collection[Document]]:
    """Collections with large deltas; half of each is older than the overlap."""
    found = [database[name] for name in COLLECTIONS]
    for collection in found:
        collection.create_index([("updated_at", 1), ("_id", 1)])
        documents = delta(DOCUMENTS_EACH, prefix=collection.name)
        for document in documents[: DOCUMENTS_EACH // 2]:
            document["updated_at"] -= timedelta(hours=1)
        collection.insert_many(documents)
    return found


@pytest.fixture
def processes(
    collections: Sequence[Collection[Document]], environment: dict[str, str], start_etl: StartEtl
) -> StartEtl:
    """Start real `etl` processes for these collections, with a lease of a second."""
    settings = [{"name": collection.name, "page_size": PAGE} for collection in collections]
    environment |= {"ETL_COLLECTIONS": json.dumps(settings), "ETL_LEASE__SECONDS": "1"}
    return start_etl


@pytest.fixture
def start_victim(
    processes: StartEtl,  # noqa: ARG001 (it completes the environment)
    environment: dict[str, str],
    tmp_path: Path,
) -> Start:
    """The same, forked from a process that has imported everything: imports take longer than a cycle."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["etl.app", "etl.cli", __name__])

    def start(collection: str) -> BaseProcess:
        victim = context.Process(target=sync, args=(environment, tmp_path, collection), daemon=True)
        victim.start()
        return victim

    return start


def cycle_seconds(processes: StartEtl, redis_server: RedisServer) -> float:
    """The seconds that a cycle takes on this machine, measured on a separate Redis."""
    result = end_of(processes("sync", COLLECTIONS[0], "--json", ETL_REDIS__URL=redis_server.url))
    [report] = result.json["collections"]
    assert report["records_processed"] == DOCUMENTS_EACH
    return float(report["sync_duration_ms"]) / 1000


@pytest.mark.slow
def test_sync_killed_at_any_time_loses_and_repeats_nothing(
    collections: Sequence[Collection[Document]],
    redis_client: redis.Redis,
    processes: StartEtl,
    start_victim: Start,
    start_redis: StartRedis,
    seed: int,
) -> None:
    """Nothing is missing, nothing is queued twice and no checkpoint goes back after at least 52 `kill -9`.

    The processes are killed at random times over the whole length of large deltas. Each resumes where the one
    before it was killed. Documents are committed late all the time.
    """
    step = 1.5 * cycle_seconds(processes, start_redis()) / KILLS_EACH  # they share the machine
    killers = [Killer(collection, redis_client, start_victim, seed) for collection in collections]

    with ThreadPoolExecutor(len(killers)) as pool:
        list(pool.map(lambda killer: killer.run(step), killers))
    assert eventually(lambda: not redis_client.keys("*:lease"))
    last = end_of(processes("sync", "--json"))

    assert last.code == 0, last
    assert held(redis_client) == truth(*collections)
    for killer in killers:
        assert killer.kills >= KILLS_EACH
        assert killer.while_working > KILLS_EACH / 2
        assert killer.has_killed_at_many_cursors
        assert killer.checkpoints == sorted(killer.checkpoints, key=Position.order)
    again = end_of(processes("sync", "--json"))
    assert [report["records_processed"] for report in again.json["collections"]] == [0] * len(collections)
