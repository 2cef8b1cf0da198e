"""Every key of a Redis, for comparison."""

from typing import Any, cast

from schemas.families import GENERATION_QUEUE

_OWN = ("{", "etl:record:")

Contents = dict[str, list[str] | dict[str, str]]
"""Key -> value of all keys filled from documents. The items of a queue are sorted: their order depends on
when documents were read, but not their number."""


def contents(client: Any, keys: str = "*") -> dict[str, dict[str, Any]]:
    """Every key of a Redis or a cluster that matches the pattern: type, TTL in seconds, value."""
    found = sorted(client.scan_iter(keys, count=1000))
    pipeline = client.pipeline(transaction=False)
    for key in found:
        pipeline.type(key)
        pipeline.ttl(key)
    answers = pipeline.execute()
    kinds = {key: kind for key, kind in zip(found, answers[::2], strict=True) if kind != "none"}
    ttls = dict(zip(found, answers[1::2], strict=True))
    for key, kind in kinds.items():
        read = {
            "hash": (pipeline.hgetall, ()),
            "list": (pipeline.lrange, (0, -1)),
            "set": (pipeline.smembers, ()),
            "zset": (pipeline.zrange, (0, -1, False, True)),
            "string": (pipeline.get, ()),
        }[kind]
        read[0](key, *read[1])
    return {
        key: {"type": kind, "ttl": None if ttls[key] == -1 else ttls[key], "value": value}
        for (key, kind), value in zip(kinds.items(), pipeline.execute(), strict=True)
    }


def values(client: Any, keys: str = "*", but: str | tuple[str, ...] = ()) -> dict[str, Any]:
    """The value of every key that matches the pattern and does not end with any of these words."""
    return {key: one["value"] for key, one in contents(client, keys).items() if not key.endswith(but)}


def contract_keys(client: Any) -> dict[str, dict[str, Any]]:
    """All keys except state keys and registers."""
    return {key: one for key, one in contents(client).items() if not key.startswith(_OWN)}


def entries(client: Any) -> dict[str, dict[str, Any]]:
    """The keys filled from documents: the contract keys without `etl:last_sync`."""
    return {key: one for key, one in contract_keys(client).items() if not key.startswith("etl:")}


def held(client: Any) -> Contents:
    """The values of the keys filled from documents.

    Raises `AssertionError` for a key without a TTL that should have one.
    """
    found = entries(client)
    for key, one in found.items():
        assert one["ttl"] is not None or key.startswith(GENERATION_QUEUE.prefix), f"{key} has no TTL"
    return {key: canonical(key, one["value"]) for key, one in found.items()}


def canonical(key: str, value: list[str] | dict[str, str]) -> list[str] | dict[str, str]:
    """The value with the items of a queue sorted."""
    return sorted(value) if key.startswith(GENERATION_QUEUE.prefix) else value


def hash_at(client: Any, key: str) -> dict[str, str]:
    """The hash at `key`; empty if the key is absent."""
    return cast("dict[str, str]", client.hgetall(key))
