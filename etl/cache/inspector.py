"""Reads contract keys and the two registers; writes nothing.

The formats of the registers are described in `lua/apply.lua` and `lua/record.lua`; they are parsed only here.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Final, NamedTuple

from etl.cache.client import Command, Wire, mapping
from etl.cache.keys import owner_key, record_key
from etl.cache.scripts import SCRIPTS
from etl.cache.writer import QUEUED
from etl.retry import Retry
from schemas.position import Position, position_from_text

SURPLUS: Final = 16
"""Members that are read beyond the expected number; a larger hash is not read at all."""

START: Final = "0"
"""The cursor at the start and at the end of a scan."""

_KEYS_PER_CALL: Final = 250  # Redis serves no other client during a call
_KEYS_PER_SCAN: Final = 500
_CLAIM: Final = re.compile(r"^\+(\d+) (\S+) (.+)$", re.MULTILINE)
_RECORD: Final = re.compile(r"([01])\d+ (\S+) (.*)")
_OWNER: Final = re.compile(r"\{(.*)\}:owner", re.DOTALL)

_READ: Final[Mapping[str, tuple[str, tuple[int, ...]]]] = {
    "hash": ("HGETALL", ()),
    "list": ("LRANGE", (0, -1)),
    "set": ("SMEMBERS", ()),
    "zset": ("ZRANGE", (0, -1)),
    "string": ("GET", ()),
}


class Shown(NamedTuple):
    """One key: its Redis type, remaining TTL in milliseconds (None: no TTL), and value."""

    key: str
    type: str
    ttl_ms: int | None
    value: str | list[str] | dict[str, str]


class Content(NamedTuple):
    """The content of a key: its type, remaining TTL in milliseconds (None: no TTL), size and value.

    The value is None for types that no document writes, and for a hash far larger than expected.
    """

    type: str
    ttl_ms: int | None
    size: int = 0
    value: Mapping[str, str] | Sequence[str] | None = None


class Claim(NamedTuple):
    """A document that claims a key, from the owner register of the key."""

    document: str
    """Its name among the documents of all collections: `<collection> <_id as canonical Extended JSON>`."""
    timestamp: str
    """The timestamp of the applied version."""
    written_at: str
    """When it was applied: Redis' clock in microseconds since the epoch."""

    @property
    def position(self) -> Position:
        """The position of that version in the index."""
        return position_from_text(f"{self.timestamp} {self.document.partition(' ')[2]}")


class Record(NamedTuple):
    """The newest version of a document that a writer has recorded."""

    timestamp: str
    done: bool
    """Whether all its keys were written."""
    keys: tuple[str, ...]
    """The contract keys that it claims."""


class Inspector:
    """Reads Redis for `verify`, `trace` and `show`. Methods raise `EtlError` if Redis does not answer, or refuses."""

    def __init__(self, wire: Wire, retry: Retry) -> None:
        self._wire = wire
        self._retry = retry

    def show(self, key: str) -> Shown | None:
        """The whole content of `key`; None if it does not exist."""
        [kind] = self._exchange([("TYPE", key)])
        if kind not in _READ:
            return None
        command, arguments = _READ[kind]
        ttl, value = self._exchange([("PTTL", key), (command, key, *arguments)])
        if value is None or value == []:
            return None  # it was removed between the two round trips
        if kind == "hash":
            value = mapping(value)
        return Shown(key, kind, ttl if ttl >= 0 else None, value)

    def contents(self, keys: Mapping[str, int]) -> dict[str, Content]:
        """The contents of these keys, given the expected number of members of each; without absent keys."""
        names = [*keys]
        groups = [*self._wire.groups(names, _KEYS_PER_CALL)]
        calls = []
        for places in groups:
            group = [names[place] for place in places]
            calls.append(SCRIPTS["inspect"].call(group, *map(keys.__getitem__, group), SURPLUS))
        replies = self._exchange(calls) if calls else []
        contents: dict[str, Content] = {}
        for places, reply in zip(groups, replies, strict=True):
            for place, content in zip(places, _contents(reply), strict=True):
                if content is not None:
                    contents[names[place]] = content
        return contents

    def claims(self, keys: Sequence[str]) -> dict[str, tuple[Claim, ...]]:
        """The documents that claim each of these keys."""
        texts = self._texts([owner_key(key) for key in keys])
        return {key: _claims(text) for key, text in zip(keys, texts, strict=True)}

    def records(self, documents: Sequence[str]) -> dict[str, Record]:
        """The records of these documents that exist."""
        texts = self._texts([record_key(document) for document in documents])
        records = zip(documents, map(_record, texts), strict=True)
        return {document: record for document, record in records if record is not None}

    def owned(self, cursor: str) -> tuple[str, list[str]]:
        """One step of a scan over all contract keys that have an owner register; a key may be returned twice.

        Args:
            cursor: `START`, then the cursor that the previous step returned.

        Returns:
            The next cursor, `START` after the last step; and the keys.
        """
        scan: Command = ("SCAN", cursor, "MATCH", owner_key("*"), "COUNT", _KEYS_PER_SCAN)
        [(cursor, found)] = self._exchange([scan])
        return cursor, [match[1] for name in found if (match := _OWNER.fullmatch(name))]

    def holder(self, lock: str) -> tuple[str, int | None] | None:
        """The value of a lock and its remaining TTL in milliseconds (None: no TTL); None if it is free."""
        value, ttl = self._exchange([("GET", lock), ("PTTL", lock)])
        return None if value is None else (value, ttl if ttl >= 0 else None)

    def exists(self, key: str) -> bool:
        """Whether the key exists."""
        return bool(self._exchange([("EXISTS", key)])[0])

    def field(self, key: str, name: str) -> str | None:
        """A field of a hash; None if it does not exist."""
        value: str | None = self._exchange([("HGET", key, name)])[0]
        return value

    def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        return self._retry(partial(self._wire.exchange, commands))

    def _texts(self, keys: Sequence[str]) -> list[str]:
        """The values of these strings; empty for an absent one."""
        groups = [keys[start : start + _KEYS_PER_CALL] for start in range(0, len(keys), _KEYS_PER_CALL)]
        replies = self._exchange([("MGET", *group) for group in groups]) if groups else []
        return [text or "" for text in chain.from_iterable(replies)]


def _claims(text: str) -> tuple[Claim, ...]:
    return tuple(
        Claim(document, timestamp, written_at) for written_at, timestamp, document in _CLAIM.findall(text)
    )


def _record(text: str) -> Record | None:
    match = _RECORD.fullmatch(text)
    if match is None:
        return None
    keys = tuple(key for key in match[3].split() if not key.startswith(QUEUED))
    return Record(match[2], match[1] == "1", keys)


def _contents(reply: Sequence[Any]) -> Iterator[Content | None]:
    """The content of each key from the reply of `lua/inspect.lua`."""
    place = 0
    while place < len(reply):
        kind = reply[place]
        place += 1
        if kind == "none":
            yield None
            continue
        ttl, size, count = reply[place : place + 3]
        values = reply[place + 3 : place + 3 + count]
        place += 3 + count
        yield Content(kind, ttl if ttl >= 0 else None, size, _value(kind, values))


def _value(kind: str, values: Sequence[str]) -> Mapping[str, str] | Sequence[str] | None:
    if not values:
        return None
    return mapping(values) if kind == "hash" else values
