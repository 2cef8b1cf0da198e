import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
import redis
from pymongo.collection import Collection
from pymongo.database import Database

from etl.embedded import RedisServer
from schemas.position import FIRST, Position, position_from_text
from tests.acceptance.conftest import StartEtl, end_of
from tests.support.generations import delta, requested
from tests.support.truth import held, truth
from tests.support.types import Document, StartRedis
from tests.support.waiting import eventually

# Several collections at a time: while the lease of one victim runs out, another one starts.
COLLECTIONS = ("promptContent", "norte", "sur", "oeste")
KILLS_EACH = 13
DOCUMENTS_EACH = 900
PAGE = 5  # so that there are many instructions between two batches


@pytest.fixture
def seed() -> int:
    """Of everything random in a test; `CHAOS_SEED` repeats it, as far as the machine's pace allows."""
    seed = int(os.environ.get("CHAOS_SEED") or time.time_ns())
    print(f"CHAOS_SEED={seed}")  # noqa: T201 (pytest shows it when the test fails)
    return seed


class Killer:
    """Starts `etl sync` of one collection again and again, and kills it at random moments."""

    def __init__(
        self, collection: Collection[Document], client: redis.Redis, start_etl: StartEtl, seed: int
    ) -> None:
        self.kills = 0
        self.while_working = 0
        self.checkpoints: list[Position] = []
        self.moments: list[str] = []
        self._collection = collection
        self._redis = client
        self._start = start_etl
        self._random = random.Random(f"{seed} {collection.name}")
        self._numbers = count()
        self._own = f"{{etl:last_sync:{collection.name}}}"

    def run(self, step: float) -> None:
        """Kill until it is enough. Each process lives up to two `step`s (seconds) after it got the lease."""
        while self.kills < KILLS_EACH:
            self._write_late()
            assert eventually(lambda: not self._redis.exists(f"{self._own}:lease"))
            self._kill(self._start("sync", self._collection.name), self._random.uniform(0, 2 * step))
            self._note()

    def _kill(self, process: "subprocess.Popen[str]", moment: float) -> None:
        assert eventually(lambda: self._is_working(process) or process.poll() is not None, seconds=30)
        time.sleep(moment)
        process.kill()
        process.communicate()
        self.kills += process.returncode == -signal.SIGKILL
        self.while_working += self._is_working(process)

    def _is_working(self, process: "subprocess.Popen[str]") -> bool:
        return str(self._redis.get(f"{self._own}:lease")).endswith(f":{process.pid}")

    def _write_late(self) -> None:
        """Requests that are committed behind the watermark, dated within the overlap."""
        now = datetime.now(UTC)
        self._collection.insert_many(
            requested(f"{self._collection.name}-late-{number}", now - timedelta(seconds=seconds))
            for seconds, number in zip(range(0, 110, 5), self._numbers, strict=False)
        )

    def _note(self) -> None:
        position, cursor = self._redis.hmget(f"{self._own}:checkpoint", "position", "scan_cursor")
        self.checkpoints.append(position_from_text(str(position)) if position else FIRST)
        self.moments.append(str(cursor))


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


def pace(processes: StartEtl, redis_server: RedisServer) -> float:
    """How many seconds a whole cycle takes here and now, found on a Redis of its own."""
    result = end_of(processes("sync", COLLECTIONS[0], "--json", ETL_REDIS__URL=redis_server.url))
    [report] = result.json["collections"]
    assert report["records_processed"] == DOCUMENTS_EACH
    return float(report["sync_duration_ms"]) / 1000


@pytest.mark.slow
def test_kill_at_any_moment(
    collections: Sequence[Collection[Document]],
    redis_client: redis.Redis,
    processes: StartEtl,
    start_redis: StartRedis,
    seed: int,
) -> None:
    """Nothing is missing, nothing queued twice and no checkpoint went back after 52 times `kill -9`.

    The victims are real `etl sync` processes in the middle of their cycles, at random moments over the whole
    length of large deltas. Each goes on where the one before it was killed, and documents are committed late
    all the time.
    """
    step = 1.5 * pace(processes, start_redis()) / KILLS_EACH  # they start slowly, all at once
    killers = [Killer(collection, redis_client, processes, seed) for collection in collections]

    with ThreadPoolExecutor(len(killers)) as pool:
        list(pool.map(lambda killer: killer.run(step), killers))
    assert eventually(lambda: not redis_client.keys("*:lease"))
    last = end_of(processes("sync", "--json"))

    assert last.code == 0, last
    assert held(redis_client) == truth(*collections)
    for killer in killers:
        assert killer.kills == KILLS_EACH
        assert killer.while_working > KILLS_EACH / 2
        assert len(set(killer.moments)) > KILLS_EACH / 2
        assert killer.checkpoints == sorted(killer.checkpoints, key=Position.order)
    again = end_of(processes("sync", "--json"))
    assert [report["records_processed"] for report in again.json["collections"]] == [0] * len(collections)
