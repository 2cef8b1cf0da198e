import re

import pytest
import redis
from pymongo.collection import Collection

from tests.support.command import Etl
from tests.support.redis_dump import contract_keys
from tests.support.types import Document

SHOWN = {
    ("config:api", "openai"): '{"servicio":"image_generation","modelos":["dall-e-3"]}',
    ("mcp:tool", "content", "getContent", '{"limit": 10, "query": "Arenal"}'): "0.0041",
    (
        "ai:campaign_messages",
        "camp_2025_tech",
        "Costa Rica_28-40_masculino",
    ): "Domina Arenal con energía",
    ("queue:ai_generation", "alta"): "no TTL",
    ("mcp:server:status:content",): "requests_last_min  45",
}


@pytest.fixture
def synced(samples: list[Document], etl_in_process: Etl) -> list[Document]:
    """The samples, synced to Redis."""
    assert etl_in_process("sync").code == 0
    return samples


@pytest.mark.usefixtures("synced")
def test_show_prints_ttl_and_decoded_value(etl: Etl, etl_in_process: Etl) -> None:
    """Of an entry given by parts or by key."""
    for words, expected in SHOWN.items():
        result = etl_in_process("show", *words)

        assert (result.code, result.err) == (0, ""), words
        assert expected in result.out
    words = ("show", "config:api", "openai")
    here, there = (re.sub(r"\d+ s left", "", one(*words).out) for one in (etl_in_process, etl))
    assert here == there


@pytest.mark.usefixtures("synced")
def test_show_json_has_type_ttl_and_decoded_value(etl_in_process: Etl) -> None:
    shown = etl_in_process(
        "show", "ai:campaign_messages", "camp_2025_tech", "Costa Rica_28-40_masculino", "--json"
    ).json

    assert shown["type"] == "list"
    assert [message["numero"] for message in shown["value"]] == [1, 2, 3]
    assert 10_790_000 < shown["ttl_ms"] <= 10_800_000


@pytest.mark.usefixtures("synced")
def test_refresh_writes_a_lost_entry_again(etl: Etl, redis_client: redis.Redis) -> None:
    """The watermark is past its document, and does not move."""
    before = contract_keys(redis_client)
    redis_client.delete("config:api:openai")

    result = etl("refresh", "config:api", "openai", "--json")

    assert result.json == {
        "family": "config:api",
        "name": "openai",
        "documents": 1,
        "written": 1,
        "evicted": 0,
        "rejected": 0,
        "deferred": 0,
    }
    after = contract_keys(redis_client)
    assert after["config:api:openai"]["value"] == before["config:api:openai"]["value"]
    assert after["etl:last_sync:promptContent"]["value"] == before["etl:last_sync:promptContent"]["value"]


def test_refresh_writes_a_whole_family_again(
    etl: Etl, synced: list[Document], collection: Collection[Document], redis_client: redis.Redis
) -> None:
    collection.insert_one({**synced[4], "_id": 1, "client_name": "otro"})
    redis_client.delete("config:client:marketing-web", "config:api:openai")

    result = etl("refresh", "config:client")

    assert result.out == "config:client: 2 written, 0 evicted, 0 rejected, 0 deferred\n"
    assert redis_client.exists("config:client:marketing-web", "config:client:otro") == 2
    assert redis_client.exists("config:api:openai") == 0


@pytest.mark.parametrize("family", ["etl:last_sync", "lock:content_generation"])
def test_refresh_of_a_family_without_documents_is_refused(etl_in_process: Etl, family: str) -> None:
    result = etl_in_process("refresh", family)

    assert result.code == 2
    assert family in result.err
