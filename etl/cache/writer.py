"""Stage 3, write: the contract keys, and the two registers that decide about them.

Any number of processes may write at once. What keeps them apart is in the scripts: see `lua/record.lua`,
`lua/apply.lua` and docs/guarantees.md. Each call is short, so that no reader of the cache waits for it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from etl.cache.client import Command, Wire
from etl.cache.keys import owner_key, record_key, requests_key
from etl.cache.scripts import SCRIPTS
from etl.model.result import TransformResult
from schemas.operations import Evict, Put

DEADLINE_SECONDS: Final = 30.0
"""How old a read may be when it is written: documents that were read earlier are read again."""

# One call occupies Redis for less than a millisecond: see the slow log in docs/bench.json.
_DOCUMENTS_A_CALL: Final = 50
_CHANGES_A_CALL: Final = 50
_REQUESTS_A_CALL: Final = 100
_BYTES_A_CALL: Final = 256 * 1024
_CLAIMS_A_KEY: Final = 8  # as many lines as `lua/apply.lua` keeps
_LEFT_OUT: Final = "-"

QUEUED: Final = ">"
"""What the name of a queue begins with among the claims of a document."""

DONE: Final = 1
STALE: Final = 2
Answer = int | str
"""About a document: `DONE`, `STALE` (read it again), 0 (go on), or the keys that it gives up, with spaces between."""


class Change(NamedTuple):
    """What one document does to a key: it writes it, or leaves it where `write` is None."""

    document: str
    timestamp: str
    write: Put | Evict | None


class Request(NamedTuple):
    """What one document asks of a queue: an item, or nothing any more where `item` is empty."""

    queue: str
    document: str
    timestamp: str
    item: str


class Conflict(NamedTuple):
    """A key that was not changed, as a document that is not in the call decides about it, or a read was too old."""

    key: str
    blocker: str
    """The document to read too; empty where it is one of the changes that was read too early."""
    holds: bool
    """Whether what the key holds is of that document."""


class Applied(NamedTuple):
    """What came of a plan."""

    conflicts: list[Conflict]
    stale: list[str]
    """Documents whose requests were read too early."""
    pushed: int
    refused: list[str]
    """Documents whose queue is no list."""
    incomplete: list[str]
    """Keys that were removed though older documents may claim them."""


class CacheWriter:
    """Writes the contract keys of Redis. Methods raise as `Wire.exchange` does.

    Args:
        wire: the connection.
        ttls: the life of each family in seconds, None for ever.
        memory_seconds: how long the record of a document lives at least.
        track_keys: whether it lives as long as the keys that the document claims.
    """

    def __init__(
        self, wire: Wire, ttls: Mapping[str, int | None], memory_seconds: int, *, track_keys: bool = True
    ) -> None:
        self._wire = wire
        self._ttls = {family: ttl or 0 for family, ttl in ttls.items()}
        self._least = int((memory_seconds + 2 * DEADLINE_SECONDS) * 1000)
        tracked = ttls.items() if track_keys else ()
        self._lives = {family: (ttl or 0) * 1000 + self._least for family, ttl in tracked}

    def now(self) -> int:
        """The clock of Redis in microseconds since the epoch: take it before documents are read."""
        [(seconds, micros)] = self._wire.exchange([("TIME",)])
        return int(seconds) * 1_000_000 + int(micros)

    def record(
        self, results: Sequence[TransformResult], read_at: int, *, confirmed: bool
    ) -> tuple[list[Answer], frozenset[str]]:
        """Record these versions; returns the answer for each, and which of their locks exist.

        Args:
            results: valid documents, each once.
            read_at: the clock of Redis before they were read.
            confirmed: whether they were read by `_id` from a primary that was still one afterwards.
        """
        deadline = int(DEADLINE_SECONDS * 1_000_000)
        script, calls = SCRIPTS["record"], []
        for start in range(0, len(results), _DOCUMENTS_A_CALL):
            some = results[start : start + _DOCUMENTS_A_CALL]
            arguments: list[str | bytes | int] = [read_at, deadline, int(confirmed)]
            for result in some:
                arguments += (result.timestamp, self._life(result), claims(result))
            calls.append(script.call([record_key(result.document) for result in some], *arguments))
        locks = list({result.lock for result in results if result.lock is not None})
        count: list[Command] = [("EXISTS", *locks)] if locks else []
        held, *replies = self._wire.exchange([*count, *calls]) if locks else [0, *self._wire.exchange(calls)]
        answers: list[Answer] = []
        for start, reply in zip(range(0, len(results), _DOCUMENTS_A_CALL), replies, strict=True):
            late = [STALE] * len(results[start : start + _DOCUMENTS_A_CALL])
            answers += late if reply == 0 else reply
        return answers, self.held(locks) if held else frozenset()

    def held(self, locks: Sequence[str]) -> frozenset[str]:
        """Which of these locks exist."""
        replies = self._wire.exchange([("EXISTS", lock) for lock in locks]) if locks else []
        return frozenset(lock for lock, exists in zip(locks, replies, strict=True) if exists)

    def apply(
        self, changes: Mapping[str, Sequence[Change]], requests: Sequence[Request], read_at: int
    ) -> Applied:
        """Change these keys, each in one step, and push these requests.

        Args:
            changes: by key, in ascending order of the documents.
            requests: likewise.
            read_at: the clock of Redis before their documents were read.
        """
        pieces, calls = [], []
        for keys, arguments in self._pieces(changes, read_at):
            pieces.append(keys)
            calls.append(SCRIPTS["apply"].call(keys, *arguments))
        queued = [*_by_queue(requests)]
        calls += [_enqueue(some, read_at) for some in queued]
        replies = self._wire.exchange(calls) if calls else []
        conflicts: list[Conflict] = []
        incomplete: list[str] = []
        for keys, reply in zip(pieces, replies, strict=False):
            if reply == 0:
                conflicts += [Conflict(key, "", holds=False) for key in keys[1::2]]
                continue
            for number, blocker, holds in zip(reply[::3], reply[1::3], reply[2::3], strict=True):
                key = keys[2 * number - 1]
                if blocker == "!":
                    incomplete.append(key)
                else:
                    conflicts.append(Conflict(key, blocker, holds == 1))
        answers = [*_answers(queued, replies[len(pieces) :])]
        return Applied(
            conflicts,
            stale=[request.document for request, answer in answers if answer == STALE],
            pushed=sum(answer == 1 for _, answer in answers),
            refused=[request.document for request, answer in answers if answer < 0],
            incomplete=incomplete,
        )

    def mark_done(self, results: Sequence[TransformResult]) -> None:
        """Remember that these versions need not be applied again, and what they gave up as given up."""
        calls = []
        for start in range(0, len(results), _DOCUMENTS_A_CALL):
            some = results[start : start + _DOCUMENTS_A_CALL]
            said = chain.from_iterable((result.timestamp, claims(result)) for result in some)
            calls.append(SCRIPTS["done"].call([record_key(result.document) for result in some], *said))
        if calls:
            self._wire.exchange(calls)

    def _life(self, result: TransformResult) -> int:
        """Milliseconds that the record of a document lives."""
        lives, least = self._lives, self._least
        return max([lives.get(one.family, least) for one in result.writes + result.keeps], default=least)

    def _pieces(
        self, changes: Mapping[str, Sequence[Change]], read_at: int
    ) -> Iterator[tuple[list[str], list[str | bytes | int]]]:
        """The keys and arguments of each call of `lua/apply.lua`: what a document writes is not kept apart."""
        deadline, ttls = int(DEADLINE_SECONDS * 1_000_000), self._ttls
        keys: list[str] = []
        arguments: list[str | bytes | int] = [read_at, deadline]
        count = weight = 0
        for key, several in changes.items():
            keys += (owner_key(key), key)
            shown = several if len(several) <= _CLAIMS_A_KEY else _newest(several)
            arguments.append(len(shown))
            # Only the newest claim can decide, so only its content is carried.
            carried = len(shown) - 1
            while carried and shown[carried].write is None:
                carried -= 1
            for place, (document, timestamp, write) in enumerate(shown):
                if write is None:
                    arguments += (document, timestamp, "-")
                elif document == _LEFT_OUT:
                    arguments += (document, timestamp, "!")
                elif place != carried:
                    arguments += (document, timestamp, "+")
                elif type(write) is Put and write.value:
                    value = write.value
                    if type(value) is dict:
                        arguments += (document, timestamp, "h", ttls[write.family], 2 * len(value))
                        arguments += chain.from_iterable(value.items())
                        weight += sum(map(len, value.values()))
                    else:
                        arguments += (document, timestamp, "l", ttls[write.family], len(value))
                        arguments += value
                        weight += sum(map(len, value))
                else:
                    arguments += (document, timestamp, "0", ttls[write.family], 0)
            count += len(shown)
            if count >= _CHANGES_A_CALL or weight >= _BYTES_A_CALL:
                yield keys, arguments
                keys, arguments, count, weight = [], [read_at, deadline], 0, 0
        if keys:
            yield keys, arguments


def _newest(changes: Sequence[Change]) -> list[Change]:
    """The changes without the oldest claims, in the same order: a key keeps only the newest few."""
    claiming = [change for change in changes if change.write is not None]
    if len(claiming) <= _CLAIMS_A_KEY:
        return [*changes]
    left_out = {change.document for change in claiming[:-_CLAIMS_A_KEY]}
    mark = claiming[0]._replace(document=_LEFT_OUT, timestamp=_LEFT_OUT)
    return [mark, *(change for change in changes if change.document not in left_out)]


def claims(result: TransformResult) -> str:
    """The keys that a document claims, queues among them, with spaces between them."""
    keys = [write.key for write in result.writes]
    if result.pushes:
        keys += [QUEUED + push.key for push in result.pushes]
    if result.keeps:
        keys += [keep.key for keep in result.keeps]
    return " ".join(keys)


def _by_queue(requests: Sequence[Request]) -> Iterator[list[Request]]:
    """The requests of each queue, as many as one call takes."""
    queues: dict[str, list[Request]] = {}
    for request in requests:
        queues.setdefault(request.queue, []).append(request)
    for asked in queues.values():
        for start in range(0, len(asked), _REQUESTS_A_CALL):
            yield asked[start : start + _REQUESTS_A_CALL]


def _enqueue(requests: Sequence[Request], read_at: int) -> Command:
    queue = requests[0].queue
    said = chain.from_iterable((one.document, one.timestamp, one.item) for one in requests)
    deadline = int(DEADLINE_SECONDS * 1_000_000)
    return SCRIPTS["enqueue"].call((queue, requests_key(queue)), read_at, deadline, *said)


def _answers(queued: Iterable[Sequence[Request]], replies: Sequence[Any]) -> Iterator[tuple[Request, int]]:
    for asked, reply in zip(queued, replies, strict=True):
        yield from zip(asked, [STALE] * len(asked) if reply == 0 else reply, strict=True)
