"""A Redis Cluster whose primary is killed, or whose slots migrate, while documents are written.

With LONG_RUNS=1 the backfill has 60,000 documents: `make soak`.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
import redis
from pymongo.collection import Collection
from redis.crc import key_slot

from etl.app import App, BackfillOrder
from etl.backfill.executors import processes
from etl.cache.client import Command
from etl.cache.cluster import ClusterWire
from etl.cache.keys import state_keys
from tests.factories import api
from tests.support.cluster import Cluster, start_cluster
from tests.support.pipeline import NAME, OpenApp, sync
from tests.support.truth import truth
from tests.support.types import Document
from tests.support.waiting import eventually

LONG = bool(os.environ.get("LONG_RUNS"))
DOCUMENTS, REQUESTS = (58_500, 1_500) if LONG else (8_000, 200)


def now() -> datetime:
    """The present, to the millisecond."""
    moment = datetime.now(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three primaries with a replica each."""
    with start_cluster(replicas=1) as cluster:
        yield cluster


@pytest.fixture
def open_on_cluster(open_app: OpenApp, cluster: Cluster) -> Callable[..., App]:
    """Open an application on the cluster, with a lease longer than a failover."""
    return partial(open_app, redis=cluster.url, settings={"lease": {"seconds": 30}})


@pytest.mark.slow
def test_backfill_survives_a_killed_primary(
    open_on_cluster: Callable[..., App], collection: Collection[Document], cluster: Cluster
) -> None:
    """It ends, or is resumed by the same command. After a reconciliation nothing is missing."""
    documents = [api(f"p{n}", now(), _id=n) for n in range(DOCUMENTS)]
    documents += [
        {"_id": f"r{n}", "campana_id": f"c{n}", "segmento": "s", "estado": "pendiente", "updated_at": now()}
        for n in range(REQUESTS)
    ]
    collection.insert_many(documents)
    killed, began = threading.Event(), time.monotonic()

    def kill(report: Any) -> None:
        if report.records_processed > DOCUMENTS // 8 and not killed.is_set():
            killed.set()
            print(f"killed after {report.records_processed:,} documents, {time.monotonic() - began:.1f} s")  # noqa: T201
            cluster.primaries[1].kill()

    with open_on_cluster(page_size=500) as app:
        reports = [app.backfill(NAME, BackfillOrder(executors=processes(2)), kill)]
        assert killed.is_set()

        def resumed() -> bool:
            if reports[-1].status != "ok":
                reports.append(app.backfill(NAME, BackfillOrder(executors=processes(2)), kill))
            return reports[-1].status == "ok"

        assert eventually(resumed, 60), [one.error for one in reports]
        seconds = time.monotonic() - began
        assert app.reconciliation_due(NAME)
        found = app.reconcile(NAME)
        assert found is not None
        figures = f"{len(reports)} run(s) in {seconds:.1f} s"
        print(f"{figures}; {found.missing} keys were missing, {found.repaired} repaired")  # noqa: T201
        assert app.verify(NAME).true
    assert cluster.held() == truth(collection)


def test_redirected_command_has_the_same_reply(cluster: Cluster) -> None:
    """Of each kind of reply that redis-py would convert."""
    wire = ClusterWire(cluster.url, 5)
    wire.exchange([("HSET", "{k}h", "a", 1), ("SADD", "{k}s", "a"), ("SET", "{k}t", 1)])
    commands: list[Command] = [
        *(("HGETALL", "{k}h"), ("HSCAN", "{k}h", 0), ("SMEMBERS", "{k}s"), ("SET", "{k}t", 2)),
        *(("EXPIRE", "{k}t", 9), ("HMGET", "{k}h", "a", "b"), ("TYPE", "{k}h"), ("GET", "{k}t")),
    ]
    before = wire.exchange(commands)
    slot = key_slot(b"k")
    home = slot * 3 // 16_384

    assert cluster.migrate(slot, home, (home + 1) % 3) == 3

    after = wire.exchange(commands)
    assert after == before
    assert [*map(type, after)] == [*map(type, before)]
    wire.close()


def test_writes_to_a_migrating_slot_are_redirected(
    open_on_cluster: Callable[..., App], collection: Collection[Document], cluster: Cluster
) -> None:
    slot = key_slot(b"config:api:p0")
    owners: list[Any] = [
        redis.Redis.from_url(f"redis://{node.address}", decode_responses=True) for node in cluster.primaries
    ]
    names = [str(client.execute_command("CLUSTER MYID")) for client in owners]
    first = slot * len(owners) // 16_384
    here, there = first, (first + 1) % len(owners)
    with open_on_cluster(page_size=500) as app:
        for number in range(6):
            collection.replace_one({"_id": 0}, api("p0", now(), _id=0, rate_limit=f"{number}"), upsert=True)
            collection.insert_many([api(f"p{100 * number + n}", now()) for n in range(1, 50)])
            owners[there].execute_command("CLUSTER SETSLOT", slot, "IMPORTING", names[here])
            owners[here].execute_command("CLUSTER SETSLOT", slot, "MIGRATING", names[there])
            cycle = threading.Thread(target=sync, args=(app,))
            cycle.start()
            time.sleep(0.3)  # a new key of the slot is refused until it has migrated
            host, port = cluster.primaries[there].address.split(":")
            keys: Any = owners[here].execute_command("CLUSTER GETKEYSINSLOT", slot, 1000)
            for key in keys:
                owners[here].execute_command("MIGRATE", host, port, key, 0, 5000)
            for client in owners:
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", names[there])
            here, there = there, here
            cycle.join()
            sync(app)
    for client in owners:
        client.close()
    assert cluster.held() == truth(collection)


def test_backfill_survives_migrating_slots(
    open_on_cluster: Callable[..., App], collection: Collection[Document], cluster: Cluster
) -> None:
    """Every key is written, and each request is queued once."""
    collection.insert_many([api(f"p{n}", now(), _id=n) for n in range(2_000)])
    collection.insert_many(
        [
            {
                "_id": f"r{n}",
                "campana_id": f"c{n}",
                "segmento": "s",
                "estado": "pendiente",
                "updated_at": now(),
            }
            for n in range(100)
        ]
    )
    keys = ["queue:ai_generation:media", *(f"config:api:p{n}" for n in range(0, 2_000, 80))]
    migrating = {key_slot(key.encode()) for key in keys}
    begun, ended, moved = threading.Event(), threading.Event(), list[int]()

    def migrate() -> None:
        begun.wait()
        while not ended.is_set():
            for slot in migrating:
                home = slot * 3 // 16_384
                moved.append(cluster.migrate(slot, home, (home + 1) % 3))
                moved.append(cluster.migrate(slot, (home + 1) % 3, home))
                if ended.is_set():
                    return

    thread = threading.Thread(target=migrate)
    thread.start()
    with open_on_cluster(page_size=20) as app:
        report = app.backfill(NAME, BackfillOrder(executors=processes(2)), lambda _: begun.set())
        ended.set()
        thread.join()
    assert sum(moved) > 50, "hardly a key was moved"
    assert report.status == "ok", report.error
    assert cluster.held() == truth(collection)


def test_writes_lost_in_a_failover_are_reconciled(
    open_on_cluster: Callable[..., App],
    collection: Collection[Document],
    cluster: Cluster,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The checkpoint on another node has advanced. The next cycle notices the new primary."""
    node = key_slot(state_keys(NAME).checkpoint.encode()) * 3 // 16_384
    primary, replica = cluster.primaries[node - 1], cluster.replicas[node - 1]
    collection.insert_many([api(f"p{n}", now(), _id=n) for n in range(100)])
    with open_on_cluster(page_size=500) as app:
        sync(app)
        assert not app.reconciliation_due(NAME)
        replica.pause()
        with redis.Redis.from_url(f"redis://{primary.address}") as client:
            client.execute_command("CLIENT KILL TYPE REPLICA")  # it will not get the following writes
        collection.update_many({}, {"$set": {"rate_limit": "new", "updated_at": now()}})
        assert sync(app).records_processed == 100
        assert cluster.held() == truth(collection)
        primary.kill()
        replica.resume()
        promoted: Any = redis.Redis.from_url(f"redis://{replica.address}", decode_responses=True)
        with promoted as client:
            assert eventually(lambda: client.info("replication")["role"] == "master")
            assert eventually(lambda: _is_ok(client))
        assert cluster.held() != truth(collection), "nothing was lost"
        sync(app)
        assert "etl verify --repair" in caplog.text
        assert app.reconciliation_due(NAME)
        app.reconcile(NAME)
        assert cluster.held() == truth(collection)
        assert not app.reconciliation_due(NAME)
        sync(app)
        assert not app.reconciliation_due(NAME)


def _is_ok(client: Any) -> bool:
    info: Any = client.execute_command("CLUSTER INFO")
    return bool(info["cluster_state"] == "ok")
