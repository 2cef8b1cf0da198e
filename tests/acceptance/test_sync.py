import json
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from pymongo.collection import Collection

from etl.demo import MongoServer
from tests.factories import expected, generacion
from tests.support.command import Etl, StartEtl, interrupt
from tests.support.daemons import LEASE
from tests.support.redis_dump import contents, contract_keys
from tests.support.types import Document, ProxyTo
from tests.support.waiting import eventually

MESSAGES = "ai:campaign_messages:camp_2025_tech:f6b35068c7d8b26da3ac7573d2658ca0"
META = "ai:generation:meta:camp_2025_tech:f6b35068c7d8b26da3ac7573d2658ca0"
LAST_SYNC = "etl:last_sync:promptContent"
QUEUE = "queue:ai_generation:alta"


def single_report(result: Any) -> dict[str, Any]:
    """The report of the only collection."""
    [report] = result.json["collections"]
    return dict(report)


def change(collection: Collection[Document], document: Document, **fields: Any) -> None:
    """Update a document as the application of a user does: new values and timestamp."""
    collection.update_one({"_id": document["_id"]}, {"$set": {**fields, "updated_at": datetime.now(UTC)}})


def test_samples_become_the_expected_keys(
    etl: Etl, samples: list[Document], redis_client: redis.Redis
) -> None:
    """Keys, types, TTLs, fields, order and values; and no other keys."""
    result = etl("sync", "--json")

    assert (result.code, result.problems) == (0, "")
    expected_keys = expected()
    found = contract_keys(redis_client)
    assert found.keys() == expected_keys.keys()
    duration = found[LAST_SYNC]["value"].pop("sync_duration_ms")
    del expected_keys[LAST_SYNC]["value"]["sync_duration_ms"]
    assert duration.isdecimal()
    for key, content in expected_keys.items():
        assert found[key]["type"] == content["type"], key
        assert found[key]["value"] == content["value"], key
        ttl = found[key]["ttl"]
        assert ttl == content["ttl"] or 0 <= content["ttl"] - ttl <= 2, key
    report = single_report(result)
    assert (report["mode"], report["records_processed"], report["written"]) == ("cold_start", len(samples), 5)
    assert (report["enqueued"], report["last_timestamp"]) == (1, "2025-01-15T10:31:00Z")
    assert report["last_id"] == "ObjectId('65a5000000000000000000a6')"
    # Fields outside the contract are in no key of Redis, state keys included.
    everything = repr(contents(redis_client))
    assert "openai" in everything
    assert "api_key" not in everything
    assert "sk-must-never-leave-mongo" not in everything


@pytest.mark.usefixtures("samples")
def test_second_sync_processes_nothing(etl: Etl, etl_in_process: Etl, redis_client: redis.Redis) -> None:
    """Nothing is queued twice, and `etl:last_sync` is written again."""
    etl_in_process("sync")
    redis_client.expire(LAST_SYNC, 100)

    result = etl("sync", "--json")

    report = single_report(result)
    assert (report["mode"], report["records_processed"]) == ("delta", 0)
    assert redis_client.llen(QUEUE) == 1
    assert 1318 <= redis_client.ttl(LAST_SYNC) <= 1320
    assert redis_client.hget(LAST_SYNC, "records_processed") == "0"


def test_changed_message_processes_one_document(
    etl: Etl,
    etl_in_process: Etl,
    samples: list[Document],
    collection: Collection[Document],
    redis_client: redis.Redis,
) -> None:
    """Its list is replaced, and the TTL renewed."""
    etl_in_process("sync")
    redis_client.expire(MESSAGES, 100)
    messages = [{**message, "texto": "Nuevo"} for message in samples[0]["mensajes"]]
    change(collection, samples[0], mensajes=messages)

    result = etl("sync", "--json")

    assert single_report(result)["records_processed"] == 1
    texts = [json.loads(member)["texto"] for member in redis_client.lrange(MESSAGES, 0, -1)]
    assert texts == ["Nuevo"] * 3
    assert redis_client.ttl(MESSAGES) > 10790


class Reader(threading.Thread):
    """A consumer that reads a list continuously, and collects the different values."""

    def __init__(self, url: str, key: str) -> None:
        super().__init__()
        self.seen: set[tuple[str, ...]] = set()
        self.without_ttl = 0
        self.reads = 0
        self._url = url
        self._key = key
        self._done = threading.Event()

    def run(self) -> None:
        with redis.Redis.from_url(self._url, decode_responses=True) as client:
            while not self._done.is_set():
                members, ttl = client.pipeline().lrange(self._key, 0, -1).pttl(self._key).execute()
                self.seen.add(tuple(json.loads(member)["texto"] for member in members))
                self.without_ttl += ttl <= 0
                self.reads += 1

    def finish(self) -> None:
        """Stop reading."""
        self._done.set()
        self.join()


def test_reader_sees_complete_lists_only(
    etl: Etl, etl_in_process: Etl, samples: list[Document], collection: Collection[Document], redis_url: str
) -> None:
    """The old one or the new one, with TTL, while the list is replaced."""
    before = [{"numero": number, "texto": "viejo", "tono": "casual"} for number in range(200)]
    after = [{"numero": number, "texto": "nuevo", "tono": "casual"} for number in range(300)]
    change(collection, samples[0], mensajes=before)
    etl_in_process("sync")
    reader = Reader(redis_url, MESSAGES)
    reader.start()
    try:
        change(collection, samples[0], mensajes=after)
        assert single_report(etl("sync", "--json"))["records_processed"] == 1
    finally:
        reader.finish()

    assert reader.reads > 100
    assert reader.seen == {("viejo",) * 200, ("nuevo",) * 300}
    assert reader.without_ttl == 0


@pytest.mark.parametrize("fields", [{"estado": "archivado"}, {"eliminado": True}])
def test_archived_or_deleted_document_loses_its_keys(
    etl: Etl,
    etl_in_process: Etl,
    samples: list[Document],
    collection: Collection[Document],
    redis_client: redis.Redis,
    fields: dict[str, Any],
) -> None:
    """Other documents keep theirs."""
    etl_in_process("sync")
    assert redis_client.exists(MESSAGES, META) == 2
    change(collection, samples[0], **fields)

    report = single_report(etl("sync", "--json"))

    assert (report["records_processed"], report["evicted"]) == (1, 1)
    assert redis_client.exists(MESSAGES, META) == 0
    assert redis_client.exists("config:api:openai") == 1


def test_invalid_document_does_not_affect_others(
    etl: Etl, samples: list[Document], collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """It is reported with `_id`, reason and fields, but without content."""
    moment = samples[0]["updated_at"] + timedelta(milliseconds=1)
    bad = generacion(mensajes=[{"texto": "secreto"}], updated_at=moment)
    document_id = collection.insert_one(bad).inserted_id

    result = etl("sync", "--json")

    report = single_report(result)
    assert result.code == 0
    assert (report["records_processed"], report["dead_lettered"]) == (len(samples), 1)
    [letter] = report["dead_letters"]
    assert str(document_id) in letter["id"]
    assert letter["reason"]
    assert "mensajes.0.numero" in {error["field"] for error in letter["errors"]}
    assert "secreto" not in result.out
    assert redis_client.exists(MESSAGES) == 1


def test_plain_report_names_invalid_documents(etl_in_process: Etl, collection: Collection[Document]) -> None:
    document_id = collection.insert_one({"tipo": "otro", "updated_at": datetime.now(UTC)}).inserted_id

    result = etl_in_process("sync")

    assert result.code == 0
    assert "1 invalid, not applied:" in result.out
    assert str(document_id) in result.out


def test_all_collections_are_synced(
    etl: Etl, samples: list[Document], collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Each with its own watermark and kind."""
    clients = collection.database["clientes"]
    client = {key: value for key, value in samples[4].items() if key != "tipo"}
    clients.insert_one({**client, "client_name": "otro"})
    both = json.dumps([{"name": "promptContent"}, {"name": "clientes", "tipo": "cliente_mcp"}])

    result = etl("sync", "--json", ETL_COLLECTIONS=both)

    reports = {report["collection"]: report["records_processed"] for report in result.json["collections"]}
    assert reports == {"promptContent": 6, "clientes": 1}
    assert redis_client.exists("config:client:otro", "config:client:marketing-web") == 2
    assert redis_client.exists(LAST_SYNC, "etl:last_sync:clientes") == 2
    named = etl("sync", "clientes", "--json", ETL_COLLECTIONS=both)
    assert [report["collection"] for report in named.json["collections"]] == ["clientes"]


@pytest.mark.usefixtures("samples")
def test_ttl_of_the_settings_file_is_used(etl: Etl, tmp_path: Path, redis_client: redis.Redis) -> None:
    """config/etl.yaml in the current folder."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "etl.yaml").write_text('families: {"config:api": {ttl: 50}}')

    assert etl("sync").code == 0

    assert 48 <= redis_client.ttl("config:api:openai") <= 50


@pytest.mark.usefixtures("samples")
def test_second_sync_of_a_collection_is_refused(waiting_sync: "subprocess.Popen[str]", etl: Etl) -> None:
    """With exit code 75 and the holder."""
    second = etl("sync", "--json")

    assert second.code == 75
    report = single_report(second)
    assert report["status"] == "locked"
    assert f":{waiting_sync.pid}:" in report["error"]


@pytest.mark.usefixtures("samples")
def test_ctrl_c_ends_a_waiting_sync(waiting_sync: "subprocess.Popen[str]", etl_in_process: Etl) -> None:
    """With exit code 130 and one line; the lease is released."""
    result = interrupt(waiting_sync)

    assert result.code == 130
    assert result.problems.startswith("error: ")
    assert result.problems.count("\n") == 1
    assert single_report(etl_in_process("sync", "--json"))["records_processed"] == 6


@pytest.fixture
def waiting_sync(
    start_etl: StartEtl, proxy_to: ProxyTo, mongod: MongoServer, redis_client: redis.Redis
) -> "subprocess.Popen[str]":
    """A sync that holds the lease and waits for MongoDB."""
    proxy = proxy_to(mongod)
    proxy.cut()
    process = start_etl("sync", ETL_MONGO__URI=proxy.through(mongod.uri), ETL_MONGO__TIMEOUT_SECONDS="1")
    assert eventually(lambda: bool(redis_client.exists(LEASE)))
    return process
