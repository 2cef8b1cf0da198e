"""Which document filled which key: kept beside the data, and expiring with it.

| companion      | type | holds                                                                      |
|----------------|------|----------------------------------------------------------------------------|
| `owners:<n>`   | hash | key -> the position of the document that claimed it last                    |
| `filled:<n>`   | hash | `_id` of a document -> the keys that it claimed when it was last applied    |
| `rivals:<n>`   | zset | `<key> <_id>` of documents that claim a key and are not the newest to do so |

`n` is the number of the period, as long as the longest TTL, in which that was written. A companion
expires as a whole, once nothing that was written in its period can be alive any more: an expiry for
each entry would take a sorted set as large again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple

from etl.cache.client import Wire
from etl.cache.resp import Command, Sent, arguments, call
from etl.model.encoded import Arguments
from schemas.families import LAST_SYNC
from schemas.keys import companion

_ROLES: Final = ("owners", "filled", "rivals")
_SCANNED: Final = 1000


class Owned(NamedTuple):
    """What is known of some keys and documents."""

    owners: Mapping[str, str]
    """Key -> the position of the document that claimed it last, as `Position.text`."""
    filled: Mapping[str, tuple[str, ...]]
    """`_id` as canonical Extended JSON -> the keys that the document claimed when it was last applied."""


class Ownership:
    """That of one collection. `life` is the longest TTL of what its documents fill, in seconds.

    Moments are milliseconds since the epoch by the clock of Redis. Those methods that ask Redis raise
    as `redis_wire.Wire.exchange` does.
    """

    def __init__(self, collection: str, life: int) -> None:
        self._published = LAST_SYNC.key(collection=collection)
        self._life = life
        self._first = -1  # the number of a period known to be the first in which anything was kept

    def record(
        self,
        owners: Arguments,
        filled: Arguments,
        rivals: Iterable[tuple[str, str]],
        vacated: Sequence[str],
        now: int,
    ) -> list[Sent]:
        """The commands that keep what a batch has changed.

        Args:
            owners: keys, each followed by the position of the document that claims it.
            filled: documents by `_id`, each followed by the keys that it claims, with spaces between them.
            rivals: keys, and the `_id` of a document that claims them too.
            vacated: keys that are nobody's now.
            now: by the clock of Redis.
        """
        ranked = arguments([*chain.from_iterable(("0", f"{key} {document}") for key, document in rivals)])
        return [
            *self._keep("HSET", "owners", now, owners),
            *self._keep("HSET", "filled", now, filled),
            *self._keep("ZADD", "rivals", now, ranked),
            *(("HDEL", name, *vacated) for name in self._names("owners", now) if vacated),
        ]

    def _keep(self, command: str, role: str, now: int, items: Arguments) -> list[Sent]:
        name = self._names(role, now)[0]
        return [call((command, name), items), ("EXPIRE", name, 2 * self._life)] if items.length else []

    def questions(self, keys: Arguments, documents: Arguments, now: int) -> list[Sent]:
        """The commands that ask for the owners of keys, and for what documents filled (by `_id`)."""
        # HMGET takes at least one field: the empty one stands for none and is never found.
        asked = (("owners", keys), ("filled", documents))
        return [call(("HMGET", name, ""), of) for role, of in asked for name in self._names(role, now)]

    def answers(
        self, keys: Sequence[str], documents: Sequence[str], replies: Sequence[Sequence[str | None]]
    ) -> Owned:
        """What the replies to `questions` say: of each field the newest period that has it."""
        half = len(replies) // 2
        filled = _newest(documents, replies[half:])
        return Owned(_newest(keys, replies[:half]), {i: tuple(text.split()) for i, text in filled.items()})

    def earlier(self, now: int) -> Command:
        """The command that counts what is left of the period before; its answer is for `is_first`."""
        return ("EXISTS", *(companion(self._published, f"{role}:{self._number(now) - 1}") for role in _ROLES))

    def is_first(self, now: int) -> None:
        """Take note that there is nothing left of the period before.

        Nobody adds to a period that is over. So it is asked for no more, which halves what a backfill
        of an empty cache asks.
        """
        self._first = self._number(now)

    def of(self, wire: Wire, keys: Sequence[str], documents: Sequence[str] = ()) -> Owned:
        """Who owns these keys, and what these documents filled."""
        asked = self.questions(arguments(keys), arguments(documents), _clock(wire))
        return self.answers(keys, documents, wire.exchange(asked))

    def rivals(self, wire: Wire, keys: Sequence[str], now: int) -> list[str]:
        """The `_id`s of documents that claimed one of these keys and were not the newest to do so."""
        commands: list[Command] = [
            ("ZRANGEBYLEX", name, f"[{key} ", f"[{key}!")  # "!" comes next after the space
            for name in self._names("rivals", now)
            for key in keys
        ]
        members = chain.from_iterable(wire.exchange(commands))
        return sorted({member.partition(" ")[2] for member in members})

    def everything(self, wire: Wire) -> Iterator[dict[str, str]]:
        """All keys that have an owner and the position of that, some at a time.

        A key may come twice: where it is claimed meanwhile, and where it was claimed in both periods.
        """
        for name in self._names("owners", _clock(wire)):
            cursor = "0"
            while True:
                [(cursor, pairs)] = wire.exchange([("HSCAN", name, cursor, "COUNT", _SCANNED)])
                if keys := pairs[::2]:
                    yield dict(self.of(wire, keys).owners)
                if cursor == "0":
                    break

    def _names(self, role: str, now: int) -> list[str]:
        """The companions of the periods in which something may be alive, at most two, the newest first."""
        number = self._number(now)
        numbers = (number,) if number == self._first else (number, number - 1)
        return [companion(self._published, f"{role}:{n}") for n in numbers]

    def _number(self, now: int) -> int:
        return now // 1000 // self._life


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
