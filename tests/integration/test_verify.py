"""A verification finds what is not true, calls it by its name, accuses nothing else, and mends it."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import pytest
import redis
from pymongo.collection import Collection

from etl.app import App, VerifyReport
from schemas.families import CAMPAIGN_MESSAGES, GENERATION_META
from tests.support.owned import record_owners
from tests.support.pipeline import Clock, OpenApp, campaign, sync
from tests.support.truth import held, truth
from tests.support.types import Document

Applied = Callable[..., App]


@pytest.fixture
def applied(open_app: OpenApp, redis_url: str, collection: Collection[Document]) -> Applied:
    """Apply what is in MongoDB, with its owners; keyword arguments are settings of the collection."""

    def apply(**settings: Any) -> App:
        app = open_app(**settings)
        sync(app)
        record_owners(redis_url, collection)
        return app

    return apply


def generation(number: int, moment: datetime, **changes: Any) -> Document:
    """A document that fills a list and a hash."""
    return campaign(f"c{number}", moment, _id=number, metadata={"tokens_total": number}) | changes


def messages(number: int, segmento: str = "s") -> str:
    """The key of the messages of one."""
    return CAMPAIGN_MESSAGES.key(campana_id=f"c{number}", segmento=segmento)


def meta(number: int, segmento: str = "s") -> str:
    """The key of its metadata."""
    return GENERATION_META.key(campana_id=f"c{number}", segmento=segmento)


def found(report: VerifyReport) -> dict[str, int]:
    """The counts that are not zero."""
    names = ("matching", "different", "missing", "expired", "orphaned", "deferred", "pending", "left_alone")
    return {name: count for name in names if (count := getattr(report, name))}


def named(report: VerifyReport) -> Mapping[str, set[str]]:
    """The keys that are named, by kind."""
    return {name: {one.key for one in examples} for name, examples in report.keys.items()}


def test_everything_is_found_by_its_name_and_mended(
    applied: Applied, clock: Clock, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Changed, deleted and planted keys, deleted and moved documents; nothing else; and then it is true."""
    moment = clock.ago(900)
    collection.insert_many([generation(n, moment) for n in range(1000)])
    app = applied()
    assert found(app.verify("promptContent")) == {"matching": 2000}
    for n in range(10):
        redis_client.hset(meta(n), "tokens_total", "tampered")
        redis_client.delete(messages(100 + n))
        redis_client.hset(f"ai:generation:meta:foreign:{n:032}", "tokens_total", "1")
        collection.delete_one({"_id": 200 + n})
        collection.update_one({"_id": 300 + n}, {"$set": {"segmento": "other"}})
    report = app.verify("promptContent")
    gone = {"matching": 2000 - 60, "different": 10, "missing": 10 + 20, "orphaned": 20 + 20}
    assert found(report) == gone
    assert named(report)["different"] == {meta(n) for n in range(10)}
    assert not report.true
    mended = app.verify("promptContent", repair=True)
    assert (found(mended), mended.repaired, mended.true) == (gone, 80, True)
    assert found(app.verify("promptContent")) == {"matching": 1980}
    foreign = {f"ai:generation:meta:foreign:{n:032}" for n in range(10)}
    redis_client.delete(*foreign)
    assert held(redis_client) == truth(collection)
