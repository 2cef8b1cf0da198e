"""A reconciliation during an outage."""

import time

import redis
from pymongo.collection import Collection

from etl.demo import MongoServer
from tests.support.command import StartEtl
from tests.support.daemons import HISTORY, STATE_PREFIX, ended, every, key, provider
from tests.support.types import Document, ProxyTo
from tests.support.waiting import eventually

INTERVAL = 20


def test_failed_reconciliation_is_repeated_when_mongodb_answers(
    start_etl: StartEtl,
    mongod: MongoServer,
    proxy_to: ProxyTo,
    collection: Collection[Document],
    redis_client: redis.Redis,
) -> None:
    """Not an interval later. Only then it has recovered; its lease is released."""
    collection.insert_one(provider(1))
    proxy = proxy_to(mongod)
    settings = {**every(600), "ETL_MONGO__URI": proxy.through(mongod.uri), "ETL_MONGO__TIMEOUT_SECONDS": "1"}
    short_times = {"ETL_RETRY__SECONDS": "1", "ETL_RECONCILE__INTERVAL_SECONDS": str(INTERVAL)}
    daemon = start_etl("run", **settings, **short_times)
    if not eventually(lambda: bool(redis_client.exists(HISTORY))):
        daemon.terminate()
        raise AssertionError(daemon.communicate()[1])
    began = time.monotonic()
    redis_client.delete(key(1))
    time.sleep(INTERVAL - 3)
    proxy.cut()
    time.sleep(6)
    assert not redis_client.exists(f"{STATE_PREFIX}reconciliation_lease")
    proxy.resume()
    assert eventually(lambda: bool(redis_client.exists(key(1))), began + 2 * INTERVAL - 3 - time.monotonic())

    lines = ended(daemon)
    relevant = [line for line in lines if line["action"] in {"trouble", "recovered", "reconciliation"}]
    actions = [line["action"] for line in relevant if "cycle" not in line]
    assert actions == ["trouble", "reconciliation", "recovered"], lines
