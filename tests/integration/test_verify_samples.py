"""Verification of a sample, and of a collection without records."""

import bson
import redis
from bson import Binary, Decimal128, Int64
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from tests.factories import api
from tests.support.pipeline import Clock
from tests.support.redis_dump import hash_at, held
from tests.support.truth import truth
from tests.support.types import Document
from tests.support.verification import Applied, found, named


def test_sample_reports_no_false_mismatch(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """A key with a deleted owner is not orphaned if a document outside the sample claims it."""
    ages = [api(f"p{n % 10}", clock.ago(900 - n), _id=n, status=str(n)) for n in range(200)]
    collection.insert_many(ages)
    app = applied()
    report = app.verify("promptContent", sample=20)
    assert (report.true, report.sampled, report.documents) == (True, True, 20)
    redis_client.hset("config:api:p1", "status", "spoiled")
    assert named(app.verify("promptContent", sample=200))["different"] == {"config:api:p1"}
    collection.delete_many({"_id": {"$gte": 190}})
    report = app.verify("promptContent", sample=2, repair=True)
    assert (report.orphaned, report.different > 0, report.true) == (0, True, True)
    assert {hash_at(redis_client, key)["status"] for key in named(report)["different"]} <= {
        str(n) for n in range(180, 190)
    }


def test_sample_reads_ids_of_every_type(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    ids = [
        Binary(bytes(16), 4),
        Binary(b"short", 3),
        {"a": Binary(bytes(16), 4)},
        Int64(5),
        Decimal128("1.0"),
        "é",
    ]
    collection.insert_many([api(f"p{n}", clock.ago(900), _id=one) for n, one in enumerate(ids)])
    raw = bson.encode(api("raw", clock.ago(900), _id="?")).replace(b"?\0", b"\xff\0")
    collection.insert_one(RawBSONDocument(raw))
    app = applied()
    report = app.verify("promptContent", sample=50)
    assert (found(report), report.invalid) == ({"matching": 6}, 1)
    redis_client.delete(*(f"config:api:p{n}" for n in range(6)))
    report = app.verify("promptContent", sample=50, repair=True)
    assert (report.missing, report.repaired) == (6, 6)


def test_sample_repairs_with_the_newest_claim(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Although the sample has an older one, and Redis has lost the register with the newest."""
    collection.insert_many([api("p", clock.ago(900 - n), status=str(n)) for n in range(200)])
    app = applied()
    redis_client.flushdb()
    assert app.verify("promptContent", sample=3, repair=True).repaired == 1
    assert hash_at(redis_client, "config:api:p") == {"status": "199"}


def test_sample_without_records_reports_no_false_mismatch(
    applied: Applied, clock: Clock, collection: Collection[Document]
) -> None:
    """Although the newest claims are not in the sample."""
    collection.insert_many([api("p", clock.ago(900 - n), status=str(n)) for n in range(200)])
    app = applied(track_keys=False)
    report = app.verify("promptContent", sample=3)
    assert (report.documents, found(report)) == (3, {"matching": 1})


def test_orphans_are_found_without_records(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """The owner registers have the document of each key."""
    collection.insert_many([api(name, clock.ago(900), _id=name) for name in "pqrs"])
    app = applied(track_keys=False)
    redis_client.delete(*redis_client.keys("etl:record:*"))
    collection.update_one({"_id": "p"}, {"$set": {"eliminado": True}})
    collection.delete_one({"_id": "q"})
    collection.update_one({"_id": "r"}, {"$set": {"provider_name": "moved"}})
    report = app.verify("promptContent", repair=True)
    assert named(report)["orphaned"] == {f"config:api:{name}" for name in "pqr"}
    assert (report.repaired, held(redis_client)) == (4, truth(collection))
