"""Single keys of Redis: what one holds, and replacing some when nobody else does so meanwhile."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from etl.cache.cache import replacement
from etl.cache.client import Wire
from etl.cache.resp import Command, Sent
from etl.model.outcome import Fill

_READ: Mapping[str, tuple[str, tuple[int, ...]]] = {
    "hash": ("HGETALL", ()),
    "list": ("LRANGE", (0, -1)),
    "set": ("SMEMBERS", ()),
    "zset": ("ZRANGE", (0, -1)),
    "string": ("GET", ()),
}


class Shown(NamedTuple):
    """One key: its Redis type, the milliseconds it has left (None: it stays), and its value."""

    key: str
    type: str
    ttl_ms: int | None
    value: str | list[str] | dict[str, str]


class Keyspace:
    """Contract keys outside a cycle. Methods raise as `redis_wire.Wire.exchange` does."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._generation = 0

    def show(self, key: str) -> Shown | None:
        """What `key` holds now; None where there is no such key."""
        [_, kind] = self._wire.exchange([("UNWATCH",), ("TYPE", key)])
        if kind not in _READ:
            return None
        command, arguments = _READ[kind]
        look: list[Command] = [("MULTI",), ("PTTL", key), (command, key, *arguments), ("EXEC",)]
        ttl, value = self._wire.exchange(look)[-1]
        if value is None or value == []:
            return None  # it went away between the two looks
        if kind == "hash":
            value = dict(zip(value[::2], value[1::2], strict=True))
        return Shown(key, kind, ttl if ttl >= 0 else None, value)

    def watch(self, keys: Iterable[str], locks: Sequence[str]) -> frozenset[str]:
        """Begin a transaction that fails when one of `keys` changes; says which locks exist."""
        commands: list[Command] = [("UNWATCH",), *(("WATCH", key) for key in keys)]
        replies = self._wire.exchange([*commands, *(("EXISTS", lock) for lock in locks)])
        self._generation = self._wire.generation
        exists = replies[len(commands) :]
        return frozenset(lock for lock, found in zip(locks, exists, strict=True) if found)

    def replace(self, fills: Iterable[Fill]) -> bool:
        """Write the keys in one transaction; False when a watched key changed, and nothing was written."""
        sent: list[Sent] = [("MULTI",), *replacement(fills), ("EXEC",)]
        return self._wire.exchange(sent, self._generation)[-1] is not None
