"""One key of Redis, as a person asks for it."""

from collections.abc import Mapping
from typing import NamedTuple

from etl.cache.client import Command, Wire

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


def show(wire: Wire, key: str) -> Shown | None:
    """What `key` holds now; None where there is no such key. Raises as `Wire.exchange` does."""
    [kind] = wire.exchange([("TYPE", key)])
    if kind not in _READ:
        return None
    command, arguments = _READ[kind]
    look: list[Command] = [("MULTI",), ("PTTL", key), (command, key, *arguments), ("EXEC",)]
    ttl, value = wire.exchange(look)[-1]
    if value is None or value == []:
        return None  # it went away between the two looks
    if kind == "hash":
        value = dict(zip(value[::2], value[1::2], strict=True))
    return Shown(key, kind, ttl if ttl >= 0 else None, value)
