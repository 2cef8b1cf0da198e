"""`etl follow` in the foreground."""

from datetime import UTC, datetime

import redis
from pymongo.collection import Collection

from tests.factories import api
from tests.support.command import StartEtl, interrupt
from tests.support.daemons import Process
from tests.support.pipeline import NAME
from tests.support.types import Document, StartRedis


def line(process: Process) -> str:
    """The next line on stdout."""
    assert process.stdout is not None
    return process.stdout.readline()


def test_follow_prints_batches_and_ends_with_ctrl_c(
    start_etl: StartEtl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Also as JSON. A second one prints that it stands by."""
    process = start_etl("follow", NAME)
    assert line(process) == f"following {NAME}\n"
    collection.insert_one(api("a", datetime.now(UTC), _id=1))
    assert line(process) == "1 insert\n"
    other = start_etl("follow", NAME)
    assert other.stderr is not None
    assert "this one stands by" in other.stderr.readline()
    assert interrupt(process).code == 0
    assert line(other) == f"following {NAME}\n"
    assert interrupt(other).code == 0

    collection.delete_one({"_id": 1})
    collection.insert_one(api("b", datetime.now(UTC), _id=2))
    third = start_etl("follow", NAME, "--json")
    assert line(third) == '{"events": {"delete": 1, "insert": 1}, "restarted": null}\n'
    assert redis_client.keys("config:api:*") == ["config:api:b"]
    assert interrupt(third).code == 0


def test_follow_survives_an_outage_of_redis(
    start_etl: StartEtl, collection: Collection[Document], start_redis: StartRedis
) -> None:
    """It prints one line, and applies the changes afterwards."""
    server = start_redis(args=("--appendonly", "yes"))
    process = start_etl("follow", NAME, ETL_REDIS__URL=server.url, ETL_RETRY__SECONDS="0.5")
    assert line(process) == f"following {NAME}\n"
    server.stop()
    assert process.stderr is not None
    error = process.stderr.readline()
    assert f"Redis at {server.address} does not answer" in error
    assert error.endswith("; trying again\n")
    assert line(process) == "opens the stream again: failure\n"
    collection.insert_one(api("a", datetime.now(UTC), _id=1))
    server.start()
    assert [line(process), line(process)] == ["opens the stream again: failover\n", f"following {NAME}\n"]
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        assert client.keys("config:api:*") == ["config:api:a"]
    collection.insert_one(api("b", datetime.now(UTC), _id=2))
    assert line(process) == "1 insert\n"
    ended = interrupt(process)
    assert ended.code == 0
    assert "does not answer" not in ended.err, "the outage is printed once"
