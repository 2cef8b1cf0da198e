"""Redis as a verification looks at it: keys, their owners, how far the cycles are; and how it mends keys.

A key is looked at and mended under a WATCH, so that a verdict is of one moment: when anything has
touched a key or a lock since, nothing is written and the look counts for nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from etl.cache.client import SCRIPTS, Wire
from etl.cache.keys import companions
from etl.cache.ownership import Ownership
from etl.cache.resp import Command, Sent, arguments, pairs
from etl.model.state import deferral_from_text
from etl.transform.transform import commands
from etl.verify.compare import SURPLUS, Looked
from etl.verify.reading import Reading
from schemas.ids import id_text
from schemas.operations import Evict, Put
from schemas.position import Position, position_from_text

_KEYS_A_CALL: Final = 250  # Redis serves nobody else during one

Keys = Mapping[str, int]
"""Keys to look at, and how many members each should have."""


class Progress(NamedTuple):
    """How far the cycles are with some documents; see `etl.verify.classify.State`."""

    known: bool
    position: Position | None
    began: int | None
    """MongoDB's clock when the last finished cycle began, in milliseconds since the epoch."""
    seen: frozenset[str]
    deferred: Mapping[str, str]


class Owners(NamedTuple):
    """Who claimed some keys last, and which of them other collections have claimed too."""

    mine: Mapping[str, Position]
    shared: frozenset[str]


class Inspection:
    """Redis, for one collection. Methods raise as `redis_wire.Wire.exchange` does.

    Args:
        wire: the connection.
        collection: its name.
        ttls: the life of each family in seconds, None for ever.
        ownership: that of the collection, None where it is not kept.
        others: that of other collections.
    """

    def __init__(
        self,
        wire: Wire,
        collection: str,
        ttls: Mapping[str, int | None],
        ownership: Ownership | None,
        others: Sequence[Ownership],
    ) -> None:
        self._wire = wire
        self._own = companions(collection)
        self._ttls = ttls
        self._ownership = ownership
        self._others = others
        self._generation: int | None = None

    def look(self, keys: Keys) -> dict[str, Looked]:
        """What these keys hold now; those that are absent are left out."""
        names = [*keys]
        pieces = [names[start : start + _KEYS_A_CALL] for start in range(0, len(names), _KEYS_A_CALL)]
        look = SCRIPTS["look"]
        calls = [look.call(piece, *(keys[key] for key in piece), SURPLUS) for piece in pieces]
        found = zip(names, chain.from_iterable(map(_looked, self._exchange(calls))), strict=True)
        return {key: looked for key, looked in found if looked is not None}

    def owned(self) -> Iterator[dict[str, str]]:
        """All keys that the collection has claimed, and the position of the document that did, in pieces."""
        return iter(()) if self._ownership is None else self._ownership.everything(self._wire)

    def owners(self, keys: Sequence[str]) -> Owners:
        """Who claimed these keys last."""
        now = self._clock()
        mine = self._owners(self._ownership, keys, now) if self._ownership else {}
        shared = (key for other in self._others for key in self._owners(other, keys, now))
        return Owners({key: position_from_text(text) for key, text in mine.items()}, frozenset(shared))

    def filled(self, document: str) -> tuple[str, ...]:
        """The keys that a document (by `_id` as canonical Extended JSON) filled when last applied."""
        if self._ownership is None:
            return ()
        return self._ownership.of(self._wire, (), (document,)).filled.get(document, ())

    def watch(self, keys: Iterable[str], locks: Sequence[str]) -> frozenset[str]:
        """Begin a moment that ends with `settle`; says which locks exist."""
        self._generation = None
        watches: list[Command] = [("WATCH", key) for key in (*keys, *locks)]
        replies = self._wire.exchange([("UNWATCH",), *watches, *(("EXISTS", lock) for lock in locks)])
        self._generation = self._wire.generation
        found = replies[len(watches) + 1 :]
        return frozenset(lock for lock, exists in zip(locks, found, strict=True) if exists)

    def settle(self, readings: Mapping[str, Reading], evicted: Sequence[str]) -> bool:
        """End the moment: fill keys from these documents, remove others, and record both.

        False when a key or a lock has changed since `watch`: nothing was written then.
        """
        now = self._clock()
        sent: list[Sent] = [("MULTI",), *self._mending(readings, evicted, now), ("EXEC",)]
        done = self._exchange(sent)[-1] is not None
        self._generation = None
        return done

    def progress(self, positions: Iterable[Position]) -> Progress:
        """How far the cycles are with these versions of documents."""
        named = {id_text(position.id): position.name() for position in positions}
        # Both take at least one member: the empty one stands for none and is never found.
        asked: list[Command] = [
            ("HMGET", self._own.checkpoint, "position", "mongo_clock", "scan_mongo_clock"),
            ("HMGET", self._own.deferred, "", *named),
            ("ZMSCORE", self._own.seen, "", *named.values()),
        ]
        (position, began, scanning), (_, *waiting), (_, *scores) = self._exchange(asked)
        return Progress(
            known=began is not None or scanning is not None,
            position=position_from_text(position) if position else None,
            began=int(began) if began else None,
            seen=frozenset(n for n, score in zip(named.values(), scores, strict=True) if score is not None),
            deferred={i: deferral_from_text(x).lock for i, x in zip(named, waiting, strict=True) if x},
        )

    def scheduled(self) -> bool:
        """Whether a daemon leads the cycles of this collection."""
        return bool(self._exchange([("EXISTS", self._own.leader)])[0])

    def holder(self, lock: str) -> tuple[str, int | None] | None:
        """Who holds a lock and for how many milliseconds more (None: until it is released)."""
        value, ttl = self._exchange([("GET", lock), ("PTTL", lock)])
        return None if value is None else (value, ttl if ttl >= 0 else None)

    def _mending(self, readings: Mapping[str, Reading], evicted: Sequence[str], now: int) -> Iterator[Sent]:
        if not readings and not evicted:
            return
        yield ("INCR", self._own.turnstile)  # whoever is about to write by what it saw looks again
        yield ("DEL", *readings, *evicted)
        for key, reading in readings.items():
            if isinstance(entry := reading.claims[key], Put):
                yield from commands(key, entry.value, self._ttls.get(entry.family))
        if self._ownership is not None:
            filled = pairs((reading.id, " ".join(reading.fills)) for reading in readings.values())
            owners = pairs((key, reading.text) for key, reading in readings.items())
            yield from self._ownership.record(owners, filled, (), evicted, now)

    def _owners(self, ownership: Ownership, keys: Sequence[str], now: int) -> Mapping[str, str]:
        replies = self._exchange(ownership.questions(arguments(keys), arguments(()), now))
        return ownership.answers(keys, (), replies).owners

    def _exchange(self, commands: Sequence[Sent]) -> list[Any]:
        """Over the connection of the watch, where there is one."""
        return self._wire.exchange(commands, self._generation)

    def _clock(self) -> int:
        [(seconds, micros)] = self._exchange([("TIME",)])
        return int(seconds) * 1000 + int(micros) // 1000


def members_of(entry: Put | Evict | None) -> int:
    """How many members the key of an entry should have."""
    return len(entry.value) if isinstance(entry, Put) else 0


def _looked(reply: Sequence[Any]) -> Iterator[Looked | None]:
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
        yield Looked(kind, ttl if ttl >= 0 else None, size, _value(kind, values))


def _value(kind: str, values: Sequence[str]) -> Mapping[str, str] | Sequence[str] | None:
    if not values:
        return None
    return dict(zip(values[::2], values[1::2], strict=True)) if kind == "hash" else values
