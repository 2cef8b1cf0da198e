"""Every command on a Redis Cluster of three primaries."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import redis
from pymongo.collection import Collection
from redis.crc import key_slot

from etl.app import App, BackfillOrder
from tests.factories import api, expected_of_documents, samples
from tests.support.cluster import Cluster, start_cluster
from tests.support.pipeline import NAME, OpenApp, sync
from tests.support.truth import truth
from tests.support.types import Document


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster for the tests of this module."""
    with start_cluster() as cluster:
        yield cluster


@pytest.fixture
def app(open_app: OpenApp, cluster: Cluster) -> App:
    """The application on an empty cluster."""
    client = cluster.client()
    client.flushall(target_nodes="primaries")
    client.close()
    return open_app(redis=cluster.url)


def now() -> datetime:
    """The present, to the millisecond."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def test_samples_give_the_same_keys_on_a_cluster(
    app: App, collection: Collection[Document], cluster: Cluster
) -> None:
    collection.insert_many(samples())
    assert sync(app).records_processed == 6
    expected_values = {key: entry["value"] for key, entry in expected_of_documents().items()}
    assert cluster.held() == expected_values
    assert sync(app).records_processed == 0


def test_keys_of_several_slots_are_moved_and_removed(
    app: App, collection: Collection[Document], cluster: Cluster
) -> None:
    """By a move, a tombstone and an older claim."""
    collection.insert_many([api("a", now(), _id=1), api("b", now(), _id=2)])
    collection.insert_one(api("a", now(), _id=3, status="newest"))
    sync(app)
    collection.update_one({"_id": 3}, {"$set": {"provider_name": "c", "updated_at": now()}})
    collection.update_one({"_id": 2}, {"$set": {"eliminado": True, "updated_at": now()}})
    sync(app)
    assert cluster.held() == truth(collection)
    assert set(cluster.held()) == {"config:api:a", "config:api:c"}


def test_every_command_works_on_a_cluster(
    app: App, collection: Collection[Document], cluster: Cluster
) -> None:
    """Worker processes write by slot; verification scans every node and repairs."""
    collection.insert_many([api(f"p{n}", now(), _id=n) for n in range(6_000)])
    report = app.backfill(NAME, BackfillOrder(), lambda _: None)
    assert (report.status, report.records_processed) == ("ok", 6_000)
    assert cluster.held() == truth(collection)

    client = cluster.client()
    client.delete("config:api:p7")
    client.hset("config:api:p8", "status", "changed")
    collection.delete_one({"_id": 9})
    assert app.verify(NAME).wrong == 3
    assert app.verify(NAME, repair=True).repaired == 3
    assert cluster.held() == truth(collection)
    assert app.show("config:api:p7") is not None
    assert app.trace(NAME, ["7"]).outcome == "well"
    assert app.refresh("config:api", "p7").written == 1
    assert app.status()[0].last_cycle is not None
    client.close()


@pytest.mark.usefixtures("collection")
def test_doctor_checks_slots_and_eviction_of_each_node(app: App, cluster: Cluster) -> None:
    found = app.doctor()
    assert [finding for finding in found if finding.level == "finding"] == []
    assert [one.text for one in found if one.check == "slots"] == [
        "a cluster of 3 nodes, which serve all 16384 slots"
    ]
    with redis.Redis.from_url(f"redis://{cluster.nodes[1].address}") as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        odd = [finding for finding in app.doctor() if finding.level == "finding"]
        client.config_set("maxmemory", "0")
    assert [(one.check, one.subject) for one in odd] == [("eviction", f"Redis {cluster.nodes[1].address}")]

    slot = key_slot(b"config:api:p0")
    owner: Any = redis.Redis.from_url(f"redis://{cluster.nodes[slot * 3 // 16_384].address}")
    with owner:
        owner.execute_command("CLUSTER DELSLOTS", slot)
        [unserved] = [one for one in app.doctor() if one.check == "slots"]
        owner.execute_command("CLUSTER ADDSLOTS", slot)
    assert unserved.level == "finding"
    assert "16383 of 16384" in unserved.text
