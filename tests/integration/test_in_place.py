"""A live key is changed in place: it is correct after each single Redis command."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import redis

from etl.cache.client import Wire, open_pool
from etl.cache.writer import CacheWriter, KeyWrite
from schemas.operations import Evict, Put
from tests.support.results import TTLS, result

LIST, HASH = "ai:campaign_messages:c:s", "config:api:a"


@pytest.fixture
def writer(redis_url: str) -> Iterator[CacheWriter]:
    """Stage 3 on the Redis of this test."""
    pool = open_pool(redis_url, 5)
    yield CacheWriter(Wire(pool), TTLS, 60)
    pool.disconnect()


def write(writer: CacheWriter, document: int, ms: int, *writes: Put | Evict | str) -> None:
    """A document claims the keys of the writes, and releases the keys given by name."""
    version = result(document, ms=ms)
    line = f"{version.timestamp} {version.document}"
    changes = {
        one if isinstance(one, str) else one.key: [
            KeyWrite(version.document, line, None if isinstance(one, str) else one)
        ]
        for one in writes
    }
    assert writer.apply(changes, [], writer.now(), 100).conflicts == []


def messages(*members: str) -> Put:
    """A write of a list."""
    return Put("ai:campaign_messages", LIST, members)


def fields(**values: str) -> Put:
    """A write of a hash."""
    return Put("config:api", HASH, values)


@contextmanager
def monitored(client: redis.Redis) -> Iterator[list[str]]:
    """The commands that scripts run in the block."""
    commands: list[str] = []
    with client.monitor() as monitor:  # type: ignore[no-untyped-call]
        yield commands
        client.echo("the end")
        while "the end" not in (event := monitor.next_command())["command"]:
            if event["client_type"] == "lua":
                commands.append(event["command"])


def commands_on(key: str, commands: Sequence[str]) -> list[str]:
    """The names of the commands on a key."""
    return [one.split()[0].upper() for one in commands if key in one.split()[1:2]]


def test_live_key_is_never_removed_and_filled_again(writer: CacheWriter, redis_client: redis.Redis) -> None:
    """A removal within a script would be visible in a migrating slot of a cluster."""
    write(writer, 1, 1, messages("1", "2", "3"), fields(a="1", b="2"))
    with monitored(redis_client) as commands:
        write(writer, 1, 2, messages("4", "5"), fields(b="3"))
        write(writer, 2, 3, messages(*"6789"), fields(c="4"))
        write(writer, 2, 4, messages("x"), fields(c="4"))
    assert commands_on(LIST, commands) == ["RPUSH", "LTRIM", "EXPIRE"] * 3
    assert commands_on(HASH, commands) == [
        *("HSET", "HLEN", "HKEYS", "HDEL", "EXPIRE") * 2,
        *("HSET", "HLEN", "EXPIRE"),
    ]


def test_key_is_removed_by_eviction_and_wrong_type_only(
    writer: CacheWriter, redis_client: redis.Redis
) -> None:
    """With UNLINK, so that a large key does not block Redis."""
    write(writer, 1, 1, messages("1"), fields(a="1"))
    redis_client.delete(HASH)
    redis_client.set(HASH, "a string")
    with monitored(redis_client) as commands:
        write(writer, 1, 2, Evict("ai:campaign_messages", LIST), fields(a="2"))
    assert commands_on(LIST, commands) == ["UNLINK"]
    assert commands_on(HASH, commands).count("UNLINK") == 1


def test_repeated_write_does_not_shorten_a_list(writer: CacheWriter, redis_client: redis.Redis) -> None:
    """The list is pushed to before it is trimmed."""
    write(writer, 1, 1, messages(*"123"))
    with monitored(redis_client) as commands:
        write(writer, 1, 1, messages(*"123"))
    assert commands_on(LIST, commands) == ["RPUSH", "LTRIM", "EXPIRE"]
    assert redis_client.lrange(LIST, 0, -1) == ["1", "2", "3"]


def test_readers_see_complete_values_while_writers_alternate(writer: CacheWriter, redis_url: str) -> None:
    """Two documents claim the key in turn; it is never absent, mixed, or without TTL."""
    large = {number: tuple(f"{number} {n}" for n in range(200 * number)) for number in (1, 2)}
    writes = {
        number: (messages(*large[number]), fields(**dict.fromkeys("ab"[:number], f"{number}")))
        for number in (1, 2)
    }
    write(writer, 1, 1, *writes[1])
    done, wrong = threading.Event(), []

    def read() -> None:
        with redis.Redis.from_url(redis_url, decode_responses=True) as reader:
            while not done.is_set():
                pipeline = reader.pipeline(transaction=False)
                pipeline.lrange(LIST, 0, -1).hgetall(HASH).ttl(LIST).ttl(HASH)
                members, hashed, *ttls = pipeline.execute()
                if (
                    tuple(members) not in large.values()
                    or hashed not in ({"a": "1"}, {"a": "2", "b": "2"})
                    or min(ttls) < 60
                ):
                    wrong.append((len(members), hashed, ttls))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for one in readers:
        one.start()
    try:
        for ms in range(2, 200, 2):
            write(writer, 2, ms, *writes[2])
            # It releases the key, and the other one gets it, in the same call.
            pair = [result(1, ms=1), result(2, ms=ms + 1)]
            changes = {
                put.key: [
                    KeyWrite(pair[0].document, f"1 {pair[0].document}", put),
                    KeyWrite(pair[1].document, f"{ms + 1} {pair[1].document}", None),
                ]
                for put in writes[1]
            }
            assert writer.apply(changes, [], writer.now(), 5_000).conflicts == []
    finally:
        done.set()
        for one in readers:
            one.join()
    assert wrong == []
