from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from pymongo import MongoClient
from pymongo.collection import Collection
from pymongo.database import Database

from etl.cache.keys import state_keys
from tests.factories import delta
from tests.support.failpoint import after, fail_command, times
from tests.support.pipeline import OpenApp, cycle
from tests.support.redis_dump import held
from tests.support.truth import truth
from tests.support.types import Document, StartMongo
from tests.support.waiting import eventually

UNKNOWN_ERROR = 8
OURS = "promptcontent-etl"  # the failpoint spares the clients that arrange and look

COUNT = 42

# What a failover, a killed cursor and the network do.
FAULTS: dict[str, dict[str, Any]] = {
    "not primary": {"errorCode": 10107},
    "cursor lost": {"errorCode": 43},
    "connection closed": {"closeConnection": True},
}


@pytest.fixture
def documents(collection: Collection[Document]) -> Collection[Document]:
    """Five pages."""
    collection.insert_many(delta(COUNT))
    return collection


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", ["find", "hello", "listIndexes"])
def test_a_temporary_error_is_retried(
    documents: Collection[Document],
    redis_client: redis.Redis,
    open_app: OpenApp,
    command: str,
    fault: str,
) -> None:
    """The cycle tries again until the command succeeds, and loses and repeats nothing.

    Twice in a row is more than the driver tries by itself.
    """
    with fail_command(
        documents.database.client, command, mode=times(2), appName=OURS, **FAULTS[fault]
    ) as failure:
        report = cycle(open_app())
        assert failure.injected() == 2

    assert (report.status, report.records_processed) == ("ok", COUNT)
    assert held(redis_client) == truth(documents)


def test_a_persistent_error_fails_the_cycle(
    documents: Collection[Document],
    redis_client: redis.Redis,
    open_app: OpenApp,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cycle fails with the address and the reason; the next one applies the rest."""
    monkeypatch.setattr("etl.backfill.coordinator.TASK_SECONDS", 0)  # a page each
    app = open_app(patience=0.5)

    with fail_command(documents.database.client, "find", mode=after(3), appName=OURS, errorCode=10107):
        report = cycle(app)
        assert (report.status, report.exit_code) == ("failed", 1)
        assert str(report.error).startswith("MongoDB at 127.0.0.1:")
        assert "failCommand" in str(report.error)  # the server's own words
    done = report.records_processed
    assert 0 < done < COUNT

    assert cycle(app).records_processed >= COUNT - done  # more: what is within the overlap is read again
    assert held(redis_client) == truth(documents)


def test_a_permanent_error_is_not_retried(
    documents: Collection[Document],
    redis_client: redis.Redis,
    open_app: OpenApp,
) -> None:
    """It ends the cycle at once, whatever patience is left; nothing is lost."""
    app = open_app(patience=60)

    with fail_command(
        documents.database.client, "find", mode=times(1), appName=OURS, errorCode=UNKNOWN_ERROR
    ) as failure:
        assert cycle(app).status == "failed"
        assert failure.injected() == 1

    assert cycle(app).records_processed == COUNT
    assert held(redis_client) == truth(documents)


def test_a_cycle_waits_until_a_killed_mongodb_is_back(
    start_mongod: StartMongo,
    database: Database[Document],
    redis_client: redis.Redis,
    open_app: OpenApp,
) -> None:
    """A cycle that is under way waits for it, and goes on as if nothing had happened."""
    server = start_mongod()
    with MongoClient[Document](server.uri, tz_aware=True) as client, ThreadPoolExecutor(1) as pool:
        app = open_app(mongo=server.uri, page_size=1)
        documents = client[database.name]["promptContent"]
        documents.create_index([("updated_at", 1), ("_id", 1)])
        documents.insert_many(delta(1000))

        running = pool.submit(cycle, app)
        assert eventually(lambda: bool(redis_client.exists(state_keys("promptContent").checkpoint)))
        server.kill()
        assert not running.done()
        server.start()

        assert running.result().records_processed == 1000
        assert held(redis_client) == truth(documents)
