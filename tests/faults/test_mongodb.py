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
APP_NAME = "promptcontent-etl"  # the failpoint does not affect the clients of the test

COUNT = 42

# The effects of a failover, a killed cursor and the network.
FAULTS: dict[str, dict[str, Any]] = {
    "not primary": {"errorCode": 10107},
    "cursor lost": {"errorCode": 43},
    "connection closed": {"closeConnection": True},
}


@pytest.fixture
def documents(collection: Collection[Document]) -> Collection[Document]:
    """Documents for five pages."""
    collection.insert_many(delta(COUNT))
    return collection


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("command", ["find", "hello", "listIndexes"])
def test_transient_error_is_retried(
    documents: Collection[Document],
    redis_client: redis.Redis,
    open_app: OpenApp,
    command: str,
    fault: str,
) -> None:
    """Until the command succeeds; nothing is lost or repeated.

    Two failures in a row are more than the driver retries.
    """
    with fail_command(
        documents.database.client, command, mode=times(2), appName=APP_NAME, **FAULTS[fault]
    ) as failure:
        report = cycle(open_app())
        assert failure.injected() == 2

    assert (report.status, report.records_processed) == ("ok", COUNT)
    assert held(redis_client) == truth(documents)


def test_persistent_error_fails_the_cycle(
    documents: Collection[Document],
    redis_client: redis.Redis,
    open_app: OpenApp,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With address and reason; the next cycle applies the rest."""
    monkeypatch.setattr("etl.backfill.coordinator.TASK_SECONDS", 0)  # a page each
    app = open_app(patience=0.5)

    with fail_command(documents.database.client, "find", mode=after(3), appName=APP_NAME, errorCode=10107):
        report = cycle(app)
        assert (report.status, report.exit_code) == ("failed", 1)
        assert str(report.error).startswith("MongoDB at 127.0.0.1:")
        assert "failCommand" in str(report.error)  # the message of the server
    done = report.records_processed
    assert 0 < done < COUNT

    assert cycle(app).records_processed >= COUNT - done  # more: documents within the overlap are read again
    assert held(redis_client) == truth(documents)


def test_permanent_error_is_not_retried(
    documents: Collection[Document],
    redis_client: redis.Redis,
    open_app: OpenApp,
) -> None:
    """The next cycle applies everything."""
    app = open_app(patience=60)

    with fail_command(
        documents.database.client, "find", mode=times(1), appName=APP_NAME, errorCode=UNKNOWN_ERROR
    ) as failure:
        assert cycle(app).status == "failed"
        assert failure.injected() == 1

    assert cycle(app).records_processed == COUNT
    assert held(redis_client) == truth(documents)


def test_cycle_waits_for_a_killed_mongodb(
    start_mongod: StartMongo,
    database: Database[Document],
    redis_client: redis.Redis,
    open_app: OpenApp,
) -> None:
    """It continues once the server is started again."""
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
