"""Every key of a Redis, for comparison."""

from collections.abc import Callable
from typing import Any

import redis


def contents(client: redis.Redis, keys: str = "*") -> dict[str, dict[str, Any]]:
    """Every key of Redis that fits the pattern: its type, its TTL in seconds, its value."""
    return {key: _content(client, key) for key in sorted(client.scan_iter(keys))}


def contract_keys(client: redis.Redis) -> dict[str, dict[str, Any]]:
    """The keys that the users' design names: all but the ETL's own."""
    return {
        key: content for key, content in contents(client).items() if not key.startswith(("{", "etl:record:"))
    }


def _content(client: redis.Redis, key: str) -> dict[str, Any]:
    read: dict[str, Callable[[], Any]] = {
        "hash": lambda: client.hgetall(key),
        "list": lambda: client.lrange(key, 0, -1),
        "set": lambda: client.smembers(key),
        "zset": lambda: client.zrange(key, 0, -1, withscores=True),
        "string": lambda: client.get(key),
    }
    kind = str(client.type(key))
    ttl = client.ttl(key)
    return {"type": kind, "ttl": None if ttl == -1 else ttl, "value": read[kind]()}
