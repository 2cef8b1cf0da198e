"""The content and the TTLs that CacheWriter.apply writes."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
import redis

from etl.cache.client import Wire
from etl.cache.writer import DEADLINE_SECONDS, CacheWriter, KeyWrite, WriteConflict
from etl.errors import CycleFailed
from schemas.families import CAMPAIGN_MESSAGES, CONFIG_API, GENERATION_QUEUE
from schemas.operations import Evict, Put
from tests.support.batches import KEY, status, status_put
from tests.support.claims import NOTHING, OWNER, apply, blocked, change, claim, leave, name


def test_eviction_is_a_claim(writer: CacheWriter, client: redis.Redis) -> None:
    """Older claims do not restore the key."""
    apply(writer, claim(1, 1_000))
    evict = change(2, Evict(CONFIG_API.name, KEY), 2_000)
    assert apply(writer, evict) == NOTHING
    assert not client.exists(KEY)
    assert apply(writer, claim(1, 1_500)) == blocked(2, holds=True)
    assert apply(writer, claim(1, 1_500), evict) == NOTHING
    assert not client.exists(KEY)
    assert apply(writer, claim(1, 1_500), leave(2, 3_000)) == NOTHING
    assert status(client) == "1 1500"


def test_empty_value_is_an_eviction(writer: CacheWriter, client: redis.Redis) -> None:
    """Redis has no empty hashes and lists."""
    apply(writer, claim(1, 1_000))
    assert apply(writer, change(1, Put(CONFIG_API.name, KEY, {}), 2_000)) == NOTHING
    assert not client.exists(KEY)


@pytest.mark.parametrize("before", [{"x": "1"}, ["1"], None, "a string"])
@pytest.mark.parametrize("after", [{"y": "2"}, ["2"]])
def test_type_of_a_key_may_change(writer: CacheWriter, client: redis.Redis, before: Any, after: Any) -> None:
    if isinstance(before, str):
        client.set(KEY, before)
    elif before is not None:
        apply(writer, change(1, Put(CONFIG_API.name, KEY, before)))
    apply(writer, change(1, Put(CONFIG_API.name, KEY, after), 2_000))
    assert client.hgetall(KEY) == after if isinstance(after, dict) else client.lrange(KEY, 0, -1) == after


def test_hash_is_replaced_completely(writer: CacheWriter, client: redis.Redis) -> None:
    apply(writer, change(1, Put(CONFIG_API.name, KEY, {"status": "a", "rate_limit": "5"})))
    client.hset(KEY, "foreign", "1")
    apply(writer, change(1, Put(CONFIG_API.name, KEY, {"status": "b", "endpoints": "[]"}), 2_000))
    assert client.hgetall(KEY) == {"status": "b", "endpoints": "[]"}


@pytest.mark.parametrize("lengths", [(3, 2), (2, 3), (3, 3), (1, 1), (9_000, 9_000), (9_000, 1), (1, 9_000)])
def test_list_is_replaced_completely(
    writer: CacheWriter, client: redis.Redis, lengths: Sequence[int]
) -> None:
    """Also a list longer than the stack of Lua."""
    for ms, length in enumerate(lengths):
        members = [f"{ms} {number}" for number in range(length)]
        apply(writer, change(1, Put(CAMPAIGN_MESSAGES.name, KEY, members), ms))
        assert client.lrange(KEY, 0, -1) == members


@pytest.mark.parametrize("sizes", [(9_000, 9_001), (9_001, 9_000), (9_000, 1)])
def test_large_hash_is_replaced_completely(
    writer: CacheWriter, client: redis.Redis, sizes: Sequence[int]
) -> None:
    """Larger than the stack of Lua."""
    for ms, size in enumerate(sizes):
        fields = {f"{ms if number % 2 else ''} {number}": f"{ms}" for number in range(size)}
        apply(writer, change(1, Put(CONFIG_API.name, KEY, fields), ms))
        assert client.hgetall(KEY) == fields


def test_members_may_be_bytes_or_text(writer: CacheWriter, client: redis.Redis) -> None:
    apply(writer, change(1, Put(CAMPAIGN_MESSAGES.name, KEY, ["ñ\n \x00", "ñ\n \x00".encode()])))
    assert client.lrange(KEY, 0, -1) == ["ñ\n \x00"] * 2


def test_write_renews_the_ttl_of_key_and_register(writer: CacheWriter, client: redis.Redis) -> None:
    """The register outlives the key by twice the deadline."""
    margin = 2 * DEADLINE_SECONDS
    for write, ttl in [(status_put("a"), 3_600), (Put(CAMPAIGN_MESSAGES.name, KEY, ["1"]), 10_800)]:
        for number in range(3):
            apply(writer, change(1, write, number))
            ttls: list[Any] = [client.ttl(KEY), client.ttl(OWNER)]
            assert ttls == pytest.approx([ttl, ttl + margin], abs=2)
            client.expire(KEY, 5)
            client.expire(OWNER, 5)


def test_keys_of_a_family_without_ttl_do_not_expire(writer: CacheWriter, client: redis.Redis) -> None:
    """An earlier TTL is removed, that of the register too."""
    client.hset(KEY, "x", "1")
    client.expire(KEY, 5)
    for ms in (1_000, 2_000):
        apply(writer, change(1, Put(GENERATION_QUEUE.name, KEY, {"status": "a"}), ms))
        assert (client.ttl(KEY), client.ttl(OWNER)) == (-1, -1)
    apply(writer, leave(2, 3_000))
    assert client.ttl(OWNER) == -1
    apply(writer, leave(1, 3_000))
    assert 0 < int(str(client.pttl(OWNER))) <= 2_000 * DEADLINE_SECONDS


def test_release_is_kept_until_the_deadline(writer: CacheWriter, client: redis.Redis) -> None:
    apply(writer, claim(1), claim(2, 2_000))
    client.pexpire(OWNER, 1_000)
    apply(writer, leave(1, 3_000))
    ttl: Any = client.pttl(OWNER)
    assert ttl >= 1_000 * DEADLINE_SECONDS


def test_register_of_an_evicted_key_has_the_ttl_of_the_family(
    writer: CacheWriter, client: redis.Redis
) -> None:
    """So older claims do not restore the key."""
    apply(writer, change(1, Evict(CONFIG_API.name, KEY)))
    ttl: Any = client.ttl(OWNER)
    assert ttl == pytest.approx(3_600 + 2 * DEADLINE_SECONDS, abs=2)


def test_any_claim_is_written_after_the_register_expired(writer: CacheWriter, client: redis.Redis) -> None:
    apply(writer, claim(2, 2_000))
    client.delete(OWNER)
    assert apply(writer, claim(1, 1_000)) == NOTHING
    assert status(client) == "1 1000"


def test_conflicts_among_many_keys_are_named(writer: CacheWriter, client: redis.Redis) -> None:
    keys = [f"config:api:{number}" for number in range(180)]

    def at(document_id: int, ms: int) -> dict[str, list[KeyWrite]]:
        return {
            key: [change(document_id, Put(CONFIG_API.name, key, {"status": f"{ms}"}), ms)] for key in keys
        }

    assert writer.apply(at(1, 1_000), [], writer.now(), 100) == NOTHING
    assert writer.apply({key: at(2, 2_000)[key] for key in keys[::7]}, [], writer.now(), 100) == NOTHING
    reply = writer.apply(at(1, 1_500), [], writer.now(), 100)
    assert reply.conflicts == [WriteConflict(key, name(2), holds=True) for key in keys[::7]]
    texts = [client.hget(key, "status") for key in keys]
    assert texts == ["1500" if number % 7 else "2000" for number in range(180)]
    assert writer.apply({}, [], writer.now(), 0) == NOTHING


def test_large_documents_are_sent_in_separate_calls(
    wire: Wire, writer: CacheWriter, client: redis.Redis
) -> None:
    keys = [f"config:api:{number}" for number in range(5)]
    text = "x" * 300_000
    changes = {key: [change(1, Put(CONFIG_API.name, key, {"status": text}))] for key in keys}
    before = calls(wire)
    assert writer.apply(changes, [], writer.now(), len(text)) == NOTHING
    assert calls(wire) - before in {5, 0}  # the fake Redis does not count
    assert all(client.hget(key, "status") == text for key in keys)


def calls(wire: Wire) -> int:
    """The number of scripts that ran on all nodes; unknown ones are not counted."""
    try:
        reports = [node.exchange([("INFO", "commandstats")])[0] for node in wire.nodes()]
    except CycleFailed:  # the fake Redis has no INFO
        return 0
    found = re.findall(r"cmdstat_evalsha:calls=(\d+),.*failed_calls=(\d+)", "\n".join(reports))
    return sum(int(all_of_them) - int(failed) for all_of_them, failed in found)
