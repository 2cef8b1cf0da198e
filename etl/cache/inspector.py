"""What Redis holds: contract keys, and the two registers beside them. Nothing here writes.

`lua/apply.lua` and `lua/record.lua` say how the registers are written. This is the one place that parses
them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Final, NamedTuple

from etl.cache.client import Command, Wire
from etl.cache.keys import owner_key, record_key
from etl.cache.scripts import SCRIPTS
from etl.cache.writer import QUEUED
from etl.retry import Retry
from schemas.position import Position, position_from_text

SURPLUS: Final = 16
"""How many members beyond the expected ones are read of a key; of a hash with more, none is read."""

START: Final = "0"
"""The cursor at which a scan begins and ends."""

_KEYS_A_CALL: Final = 250  # Redis serves no other client during one
_KEYS_A_SCAN: Final = 500
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
    """One key: its Redis type, the milliseconds it has left (None: it stays), and its value."""

    key: str
    type: str
    ttl_ms: int | None
    value: str | list[str] | dict[str, str]


class Content(NamedTuple):
    """What a key holds: its type, milliseconds left (None: it stays), size and value.

    The value is None for types that no document fills, and for a hash far larger than it should be.
    """

    type: str
    ttl_ms: int | None
    size: int = 0
    value: Mapping[str, str] | Sequence[str] | None = None


class Claim(NamedTuple):
    """A document that claims a key, as the register of the key says."""

    document: str
    """Its name among the documents of all collections: `<collection> <_id as canonical Extended JSON>`."""
    timestamp: str
    """Of the version that was applied."""
    written_at: str
    """Redis' clock when that was, in microseconds since the epoch."""

    @property
    def position(self) -> Position:
        """Where that version stands in the index."""
        return position_from_text(f"{self.timestamp} {self.document.partition(' ')[2]}")


class Record(NamedTuple):
    """The newest version of a document that a writer has met."""

    timestamp: str
    done: bool
    """Whether all its keys were written."""
    keys: tuple[str, ...]
    """The contract keys that it claims."""


class Inspector:
    """Reads Redis for `verify`, `trace` and `show`. Methods raise `EtlError` where it stays away, or refuses."""

    def __init__(self, wire: Wire, retry: Retry) -> None:
        self._wire = wire
        self._retry = retry

    def show(self, key: str) -> Shown | None:
        """All that `key` holds; None where there is no such key."""
        [kind] = self._exchange([("TYPE", key)])
        if kind not in _READ:
            return None
        command, arguments = _READ[kind]
        ttl, value = self._exchange([("PTTL", key), (command, key, *arguments)])
        if value is None or value == []:
            return None  # it was removed between the two round trips
        if kind == "hash":
            value = dict(zip(value[::2], value[1::2], strict=True))
        return Shown(key, kind, ttl if ttl >= 0 else None, value)

    def contents(self, keys: Mapping[str, int]) -> dict[str, Content]:
        """What these keys hold, given how many members each should have; absent keys are left out."""
        names = [*keys]
        groups = [*self._wire.together(names, _KEYS_A_CALL)]
        calls = []
        for places in groups:
            some = [names[place] for place in places]
            calls.append(SCRIPTS["look"].call(some, *map(keys.__getitem__, some), SURPLUS))
        replies = self._exchange(calls) if calls else []
        found: dict[str, Content] = {}
        for places, reply in zip(groups, replies, strict=True):
            for place, content in zip(places, _contents(reply), strict=True):
                if content is not None:
                    found[names[place]] = content
        return found

    def claims(self, keys: Sequence[str]) -> dict[str, tuple[Claim, ...]]:
        """The documents that claim each of these keys."""
        texts = self._texts([owner_key(key) for key in keys])
        return {key: _claims(text) for key, text in zip(keys, texts, strict=True)}

    def records(self, documents: Sequence[str]) -> dict[str, Record]:
        """The records of these documents, as far as there are any."""
        texts = self._texts([record_key(document) for document in documents])
        records = zip(documents, map(_record, texts), strict=True)
        return {document: record for document, record in records if record is not None}

    def owned(self, cursor: str) -> tuple[str, list[str]]:
        """One step over the keys that have a register of claims, of all collections; a key may be met twice.

        Args:
            cursor: `START`, then what the step before returned.

        Returns:
            The next cursor, `START` after the last step; and keys.
        """
        scan: Command = ("SCAN", cursor, "MATCH", owner_key("*"), "COUNT", _KEYS_A_SCAN)
        [(cursor, found)] = self._exchange([scan])
        return cursor, [match[1] for name in found if (match := _OWNER.fullmatch(name))]

    def holder(self, lock: str) -> tuple[str, int | None] | None:
        """The value of a lock, and how many milliseconds it is held yet (None: until it is released)."""
        value, ttl = self._exchange([("GET", lock), ("PTTL", lock)])
        return None if value is None else (value, ttl if ttl >= 0 else None)

    def exists(self, key: str) -> bool:
        """Whether there is such a key."""
        return bool(self._exchange([("EXISTS", key)])[0])

    def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        return self._retry(partial(self._wire.exchange, commands))

    def _texts(self, keys: Sequence[str]) -> list[str]:
        """What these strings hold; empty for an absent one."""
        pieces = [keys[start : start + _KEYS_A_CALL] for start in range(0, len(keys), _KEYS_A_CALL)]
        replies = self._exchange([("MGET", *some) for some in pieces]) if pieces else []
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
    """What `lua/look.lua` says of each key."""
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
    return dict(zip(values[::2], values[1::2], strict=True)) if kind == "hash" else values
