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

# Several collections at a time: while the lease of one victim runs out, another one starts.
COLLECTIONS = ("promptContent", "norte", "sur", "oeste")
KILLS_EACH = 13
MOST_VICTIMS_EACH = 3 * KILLS_EACH  # a machine may be so busy that many die before they have done anything
DOCUMENTS_EACH = 900
PAGE = 5  # so that there are many instructions between two batches


@pytest.fixture
def seed() -> int:
    """Of everything random in a test; `CHAOS_SEED` repeats it, as far as the machine's pace allows."""
    seed = int(os.environ.get("CHAOS_SEED") or time.time_ns())
    print(f"CHAOS_SEED={seed}")  # noqa: T201 (pytest shows it when the test fails)
    return seed


Start = Callable[[str], BaseProcess]
"""Starts `etl sync` of a collection."""


def sync(environment: Mapping[str, str], folder: Path, collection: str) -> None:
    """What a victim is: the command line, alone in its process; it records its position after each page."""
    coordinator.TASK_SECONDS = 0  # type: ignore[misc]
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.exit(run(["sync", collection]))


class Killer:
    """Starts `etl sync` of one collection again and again, and kills it at random moments."""

    def __init__(
        self, collection: Collection[Document], client: redis.Redis, start: Start, seed: int
    ) -> None:
        self.kills = 0
        self.while_working = 0
        self.checkpoints: list[Position] = []
        self.moments: set[str] = set()
        self._collection = collection
        self._redis = client
        self._start = start
        self._random = random.Random(f"{seed} {collection.name}")
        self._numbers = count()
        self._own = state_keys(collection.name)

    @property
    def has_hit_many_moments(self) -> bool:
        """Whether more than half of the kills that are wanted met a cycle at a place of their own."""
        return len(self.moments) > KILLS_EACH / 2

    def run(self, step: float) -> None:
        """Kill until it is enough. Each process lives up to two `step`s (seconds) after it got the lease.

        Where none has come any further since the last one, the next ones are given longer.
        """
        for _ in range(MOST_VICTIMS_EACH):
            if self.kills >= KILLS_EACH and self.has_hit_many_moments:
                return
            self._write_late()
            assert eventually(lambda: not self._redis.exists(self._own.lease))
            self._kill(self._start(self._collection.name), self._random.uniform(0, 2 * step))
            if not self._note():
                step *= 1.3

    def _kill(self, process: BaseProcess, moment: float) -> None:
        assert eventually(lambda: self._is_working(process) or not process.is_alive())
        time.sleep(moment)
        process.kill()
        process.join()
        self.kills += process.exitcode == -signal.SIGKILL
        self.while_working += self._is_working(process)

    def _is_working(self, process: BaseProcess) -> bool:
        return str(self._redis.get(self._own.lease)).partition(f":{process.pid}:")[1] != ""

    def _write_late(self) -> None:
        """Requests that are committed behind the watermark, dated within the overlap."""
        now = datetime.now(UTC)
        self._collection.insert_many(
            requested(f"{self._collection.name}-late-{number}", now - timedelta(seconds=seconds))
            for seconds, number in zip(range(0, 110, 5), self._numbers, strict=False)
        )

    def _note(self) -> bool:
        """Note how far the cycles are; says whether that is a place where none was killed before."""
        before = len(self.moments)
        position, cursor = self._redis.hmget(self._own.checkpoint, "position", "scan_cursor")
        self.checkpoints.append(position_from_text(str(position)) if position else FIRST)
        self.moments.add(str(cursor))
        return len(self.moments) > before


@pytest.fixture
def collections(database: Database[Document]) -> Sequence[Collection[Document]]:
    """Large deltas: one half of each is older than the overlap."""
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
    """Real `etl` processes for these collections; one that was killed keeps the others out for a second."""
    rules = [{"name": collection.name, "page_size": PAGE} for collection in collections]
    environment |= {"ETL_COLLECTIONS": json.dumps(rules), "ETL_LEASE__SECONDS": "1"}
    return start_etl


@pytest.fixture
def start_victim(
    processes: StartEtl,  # noqa: ARG001 (it completes the environment)
    environment: dict[str, str],
    tmp_path: Path,
) -> Start:
    """Likewise, forked from a process that has loaded everything: to load it takes longer than a cycle."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["etl.app", "etl.cli", __name__])

    def start(collection: str) -> BaseProcess:
        victim = context.Process(target=sync, args=(environment, tmp_path, collection), daemon=True)
        victim.start()
        return victim

    return start


def pace(processes: StartEtl, redis_server: RedisServer) -> float:
    """How many seconds a whole cycle takes here and now, found on a Redis of its own."""
    result = end_of(processes("sync", COLLECTIONS[0], "--json", ETL_REDIS__URL=redis_server.url))
    [report] = result.json["collections"]
    assert report["records_processed"] == DOCUMENTS_EACH
    return float(report["sync_duration_ms"]) / 1000


@pytest.mark.slow
def test_a_sync_killed_at_any_moment_loses_and_repeats_nothing(
    collections: Sequence[Collection[Document]],
    redis_client: redis.Redis,
    processes: StartEtl,
    start_victim: Start,
    start_redis: StartRedis,
    seed: int,
) -> None:
    """Nothing is missing, nothing queued twice and no checkpoint went back after 52 times `kill -9` or more.

    The victims are processes of their own in the middle of their cycles, at random moments over the whole
    length of large deltas. Each goes on where the one before it was killed, and documents are committed late
    all the time.
    """
    step = 1.5 * pace(processes, start_redis()) / KILLS_EACH  # they share the machine
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
        assert killer.has_hit_many_moments
        assert killer.checkpoints == sorted(killer.checkpoints, key=Position.order)
    again = end_of(processes("sync", "--json"))
    assert [report["records_processed"] for report in again.json["collections"]] == [0] * len(collections)
