"""`etl verify` as a person types it."""

import re
import threading
from datetime import UTC, datetime
from random import Random

import pytest
import redis
from pymongo.collection import Collection

from tests.factories import campaign
from tests.support.command import Etl, StartEtl
from tests.support.pipeline import OpenApp
from tests.support.types import Document
from tests.support.waiting import eventually

NAME = "promptContent"


@pytest.fixture(autouse=True)
def synced(samples: list[Document], typed: Etl, collection: Collection[Document]) -> list[Document]:
    """The samples are in Redis, as young as their keys, and their owners are known."""
    collection.update_many({}, [{"$set": {"updated_at": "$$NOW"}}])
    assert typed("sync").code == 0
    return samples


def test_a_true_cache_ends_with_0(typed: Etl) -> None:
    """With the numbers, and nothing on stderr."""
    result = typed("verify", NAME)
    assert (result.code, result.problems) == (0, "")
    assert re.search(r"matching +\d+  match their documents", result.out)
    assert result.out.splitlines()[-1].startswith("promptContent: all keys match; 6 documents read in ")


def test_what_is_wrong_ends_with_3_until_it_is_repaired(
    typed: Etl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Each key is named with what is wrong; after a complete repair nothing is."""
    redis_client.hset("config:api:openai", "status", "spoiled")
    redis_client.delete("mcp:server:status:content")
    collection.delete_one({"tipo": "cliente_mcp"})
    wrong = typed("verify", NAME)
    assert wrong.code == 3
    assert 'config:api:openai: field status is "spoiled", and should be' in wrong.out
    assert "mcp:server:status:content: it does not exist" in wrong.out
    assert re.search(r"config:client:marketing-web: document .* was deleted", wrong.out)
    assert "promptContent: 3 keys do not match;" in wrong.out
    repaired = typed("verify", NAME, "--repair")
    assert (repaired.code, "promptContent: 3 keys repaired;" in repaired.out) == (0, True)
    assert typed("verify", NAME).code == 0
    assert not redis_client.exists("config:client:marketing-web")


def test_the_answer_is_one_json_document(typed: Etl, redis_client: redis.Redis) -> None:
    """With every number, and the keys that are not as they should be."""
    redis_client.hset("config:api:openai", "status", "spoiled")
    result = typed("verify", NAME, "--json", "--sample", "100")
    answer = result.json
    assert (result.code, result.problems) == (3, "")
    assert [*answer] == [
        *("true", "collection", "documents", "matching", "different", "missing", "expired", "orphaned"),
        *("deferred", "pending", "left_alone", "invalid", "repaired", "sampled", "duration_ms", "keys"),
    ]
    assert (answer["true"], answer["different"], answer["sampled"]) == (False, 1, True)
    assert answer["keys"]["different"][0]["key"] == "config:api:openai"


@pytest.mark.parametrize(
    ("words", "code"),
    [(("verify", "nowhere"), 2), (("verify",), 2), (("verify", NAME, "--sample", "0"), 2)],
)
def test_a_wrong_usage_is_refused(typed: Etl, words: tuple[str, ...], code: int) -> None:
    """In one line."""
    result = typed(*words)
    assert (result.code, result.problems.count("\n")) == (code, 1)


def test_the_daemon_reconciles_if_it_is_told_to(
    start_etl: StartEtl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """What a hard delete left, and what others have spoiled, is repaired without anyone's doing."""
    collection.delete_one({"tipo": "cliente_mcp"})
    redis_client.hset("config:api:openai", "status", "spoiled")
    start_etl("run", ETL_RECONCILE__INTERVAL_SECONDS="1")
    assert eventually(lambda: not redis_client.exists("config:client:marketing-web"))
    assert eventually(lambda: redis_client.hget("config:api:openai", "status") != "spoiled")


def test_there_is_no_mismatch_beside_a_daemon_and_a_writer(
    open_app: OpenApp,
    start_etl: StartEtl,
    collection: Collection[Document],
    redis_client: redis.Redis,
) -> None:
    """Documents come, change, move to another segment and are archived; 20 verifications name none."""
    collection.insert_many([_written(number, Random(number)) for number in range(200)])
    start_etl("run", ETL_SCHEDULE__CYCLE_SECONDS="1")
    assert eventually(lambda: len(redis_client.keys("ai:generation:meta:*")) > 50)
    stop, chance = threading.Event(), Random(11)

    def write() -> None:
        while not stop.wait(0.002):
            document = _written(chance.randrange(300), chance)
            collection.replace_one({"_id": document["_id"]}, document, upsert=True)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with open_app(settings={"schedule": {"cycle_seconds": 1}}) as app:
            reports = [app.verify(NAME) for _ in range(20)]
    finally:
        stop.set()
        writer.join()
    assert [report.keys for report in reports if report.wrong] == []
    assert sum(report.pending for report in reports) > 0, "no run has met a key that moved"


def _written(number: int, chance: Random) -> Document:
    """Even ones move between segments, odd ones are archived and come back; two share their keys."""
    fields: Document = {"_id": number, "metadata": {"tokens_total": chance.randrange(99)}}
    archived = chance.choice([{}, {}, {"estado": "archivado"}])
    fields |= archived if number % 2 else {"segmento": chance.choice("abc")}
    return campaign(f"c{number % 150}", datetime.now(UTC), **fields)
