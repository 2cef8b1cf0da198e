"""Which document filled which key: kept beside the data, and expiring with it.

Two hashes for each period of a third of the longest TTL: `owners:<n>` says of each key which document
claimed it last, `filled:<n>` of each document which keys it filled. `n` is the number of the period in
which that was written. A hash expires as a whole when nothing that was written in its period can be
alive any more: an expiry for each entry would take a sorted set as large again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple

from etl.redis_wire import Command, Wire
from schemas.families import LAST_SYNC
from schemas.keys import companion

_PERIODS_A_LIFE: Final = 3
_SCANNED: Final = 1000


class Owned(NamedTuple):
    """What is known of some keys and documents."""

    owners: Mapping[str, str]
    """Key -> the position of the document that claimed it last, as `Position.text`."""
    filled: Mapping[str, tuple[str, ...]]
    """`_id` as canonical Extended JSON -> the keys that the document filled when it was last applied."""


class Ownership:
    """That of one collection. `life` is the longest TTL of what its documents fill, in seconds.

    Those methods that ask Redis raise as `redis_wire.Wire.exchange` does.
    """

    def __init__(self, collection: str, life: int) -> None:
        self._published = LAST_SYNC.key(collection=collection)
        self._period = -(-life // _PERIODS_A_LIFE)

    def record(
        self, owners: Mapping[str, str], filled: Mapping[str, Iterable[str]], now: int
    ) -> list[Command]:
        """The commands that keep this; `now` is the clock of Redis, in milliseconds since the epoch."""
        ownerships, fillings = self._names(now)[0]
        life = self._period * (_PERIODS_A_LIFE + 1)
        commands: list[Command] = []
        if owners:
            commands += [("HSET", ownerships, *chain(*owners.items())), ("EXPIRE", ownerships, life)]
        if filled:
            texts = ((document, " ".join(keys)) for document, keys in filled.items())
            commands += [("HSET", fillings, *chain(*texts)), ("EXPIRE", fillings, life)]
        return commands

    def forget(self, keys: Sequence[str], now: int) -> list[Command]:
        """The commands that make these keys nobody's."""
        return [("HDEL", owners, *keys) for owners, _ in self._names(now) if keys]

    def questions(self, keys: Sequence[str], documents: Sequence[str], now: int) -> list[Command]:
        """The commands that ask for the owners of keys, and for what documents filled (by `_id`)."""
        # HMGET takes at least one field: the empty one stands for none and is never found.
        hashes = self._names(now)
        asked: list[Command] = [("HMGET", owners, "", *keys) for owners, _ in hashes]
        return asked + [("HMGET", filled, "", *documents) for _, filled in hashes]

    def answers(
        self, keys: Sequence[str], documents: Sequence[str], replies: Sequence[Sequence[str | None]]
    ) -> Owned:
        """What the replies to `questions` say: of each field the newest period that has it."""
        half = len(replies) // 2
        filled = _newest(documents, replies[half:])
        return Owned(_newest(keys, replies[:half]), {i: tuple(text.split()) for i, text in filled.items()})

    def of(self, wire: Wire, keys: Sequence[str], documents: Sequence[str] = ()) -> Owned:
        """Who owns these keys, and what these documents filled."""
        asked = self.questions(keys, documents, _clock(wire))
        return self.answers(keys, documents, wire.exchange(asked))

    def everything(self, wire: Wire) -> Iterator[dict[str, str]]:
        """All keys that have an owner and the position of that, some at a time.

        A key that is claimed meanwhile may come twice; the same key is in more than one period where it
        was claimed in several, and only its newest owner is returned.
        """
        for owners, _ in self._names(_clock(wire)):
            cursor = "0"
            while True:
                [(cursor, pairs)] = wire.exchange([("HSCAN", owners, cursor, "COUNT", _SCANNED)])
                keys = pairs[::2]
                if keys:
                    yield dict(self.of(wire, keys).owners)
                if cursor == "0":
                    break

    def _names(self, now: int) -> list[tuple[str, str]]:
        """The hashes of each period in which something may be alive, the newest first."""
        number = now // 1000 // self._period
        periods = range(number, number - _PERIODS_A_LIFE - 1, -1)
        return [
            (companion(self._published, f"owners:{n}"), companion(self._published, f"filled:{n}"))
            for n in periods
        ]


def _newest(fields: Sequence[str], replies: Iterable[Sequence[str | None]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for _, *values in replies:
        for field, value in zip(fields, values, strict=True):
            if value is not None:
                found.setdefault(field, value)
    return found


def _clock(wire: Wire) -> int:
    [(seconds, micros)] = wire.exchange([("TIME",)])
    return int(seconds) * 1000 + int(micros) // 1000
