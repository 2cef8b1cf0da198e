"""`etl verify`."""

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
def synced(samples: list[Document], etl_in_process: Etl, collection: Collection[Document]) -> list[Document]:
    """The samples, dated now and synced."""
    collection.update_many({}, [{"$set": {"updated_at": "$$NOW"}}])
    assert etl_in_process("sync").code == 0
    return samples


def test_matching_cache_gives_exit_code_0(etl_in_process: Etl) -> None:
    """With counts, and nothing on stderr."""
    result = etl_in_process("verify", NAME)
    assert (result.code, result.problems) == (0, "")
    assert re.search(r"matching +\d+  match their documents", result.out)
    assert result.out.splitlines()[-1].startswith("promptContent: all keys match; 6 documents read in ")


def test_mismatch_gives_exit_code_3_until_it_is_repaired(
    etl_in_process: Etl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Each key is printed with its difference."""
    redis_client.hset("config:api:openai", "status", "spoiled")
    redis_client.delete("mcp:server:status:content")
    collection.delete_one({"tipo": "cliente_mcp"})
    wrong = etl_in_process("verify", NAME)
    assert wrong.code == 3
    assert 'config:api:openai: field status is "spoiled", and should be' in wrong.out
    assert "mcp:server:status:content: it does not exist" in wrong.out
    assert re.search(r"config:client:marketing-web: document .* was deleted", wrong.out)
    assert "promptContent: 3 keys do not match;" in wrong.out
    repaired = etl_in_process("verify", NAME, "--repair")
    assert (repaired.code, "promptContent: 3 keys repaired;" in repaired.out) == (0, True)
    assert etl_in_process("verify", NAME).code == 0
    assert not redis_client.exists("config:client:marketing-web")


def test_verify_json_has_counts_and_keys(etl_in_process: Etl, redis_client: redis.Redis) -> None:
    redis_client.hset("config:api:openai", "status", "spoiled")
    result = etl_in_process("verify", NAME, "--json", "--sample", "100")
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
def test_wrong_usage_of_verify_is_one_line(etl_in_process: Etl, words: tuple[str, ...], code: int) -> None:
    result = etl_in_process(*words)
    assert (result.code, result.problems.count("\n")) == (code, 1)


def test_daemon_reconciles_at_the_configured_interval(
    start_etl: StartEtl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Keys of a hard-deleted document and changed keys are repaired."""
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
    """20 verifications, while documents are inserted, changed, moved and archived."""
    collection.insert_many([_random_document(number, Random(number)) for number in range(200)])
    start_etl("run", ETL_SCHEDULE__CYCLE_SECONDS="1")
    assert eventually(lambda: len(redis_client.keys("ai:generation:meta:*")) > 50)
    stop, random = threading.Event(), Random(11)

    def write() -> None:
        while not stop.wait(0.002):
            document = _random_document(random.randrange(300), random)
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
    assert sum(report.pending for report in reports) > 0, "no verification met a changing key"


def _random_document(number: int, random: Random) -> Document:
    """Even ones move between segments, odd ones are archived and restored; two share their keys."""
    fields: Document = {"_id": number, "metadata": {"tokens_total": random.randrange(99)}}
    archived = random.choice([{}, {}, {"estado": "archivado"}])
    fields |= archived if number % 2 else {"segmento": random.choice("abc")}
    return campaign(f"c{number % 150}", datetime.now(UTC), **fields)
