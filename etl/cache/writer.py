"""Stage 3, write: the contract keys, and the two registers that decide about them.

Any number of processes may write at once. What keeps them apart is in the scripts: see `lua/record.lua`,
`lua/apply.lua` and docs/guarantees.md. Each call is short, so that no reader of the cache waits for it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from etl.cache.client import Command, Wire
from etl.cache.keys import owner_key, record_key, requests_key
from etl.cache.scripts import SCRIPTS
from etl.model.result import TransformResult
from schemas.operations import Evict, Put, Reject

DEADLINE_SECONDS: Final = 30.0
"""How old a read may be when it is written: documents that were read earlier are read again."""

# One call occupies Redis for less than a millisecond: see the slow log in docs/bench.json.
_DOCUMENTS_A_CALL: Final = 50
_CHANGES_A_CALL: Final = 50
_REQUESTS_A_CALL: Final = 100
_BYTES_A_CALL: Final = 256 * 1024
_CLAIMS_A_KEY: Final = 8  # as many lines as `lua/apply.lua` keeps
# Redis accepts no limit below 1 MiB, and a character takes at most four bytes.
_LARGE: Final = 256 * 1024
_LEFT_OUT: Final = "- -"

QUEUED: Final = ">"
"""What the name of a queue begins with among the claims of a document."""

DONE: Final = 1
STALE: Final = 2
Answer = int | str
"""About a document: `DONE`, `STALE` (read it again), 0 (go on), or the keys that it gives up, with spaces between."""


class KeyWrite(NamedTuple):
    """What one document does to a key: it writes it, or leaves it where `write` is None."""

    document: str
    line: str
    """Its timestamp and its name."""
    write: Put | Evict | None
    loses: bool = False
    """Whether it is known to claim the key below the document that holds it."""


class QueuePush(NamedTuple):
    """What one document asks of a queue: an item, or nothing any more where `item` is empty."""

    queue: str
    document: str
    timestamp: str
    item: str


class WriteConflict(NamedTuple):
    """A key that was not changed, as a document that is not in the call decides about it, or a read was too old."""

    key: str
    blocker: str
    """The document to read too; empty where it is one of the changes that was read too early."""
    holds: bool
    """Whether what the key holds is of that document."""


class Recorded(NamedTuple):
    """What the records said of some documents, in their order."""

    answers: list[Answer]
    at: list[str]
    """When each was recorded, by the clock of Redis in microseconds; empty where it is stale."""
    held: frozenset[str]
    """Those of their locks that exist."""


class Applied(NamedTuple):
    """What came of a plan."""

    conflicts: list[WriteConflict]
    stale: list[str]
    """Documents whose requests were read too early."""
    pushed: int
    refused: list[str]
    """Documents whose queue is no list."""
    incomplete: list[str]
    """Keys that their newest document gave up, and whose heir may be one that was not kept."""


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
        return self._wire.now()

    def record(self, results: Sequence[TransformResult], read_at: int, *, confirmed: bool) -> Recorded:
        """Record these versions, and look which of their locks exist.

        Args:
            results: valid documents, each once.
            read_at: the clock of Redis before they were read.
            confirmed: whether they were read by `_id` from a primary that was still one afterwards.
        """
        deadline = int(DEADLINE_SECONDS * 1_000_000)
        keys = [record_key(result.document) for result in results]
        groups = [*self._wire.together(keys, _DOCUMENTS_A_CALL)]
        calls: list[Command] = []
        for places in groups:
            arguments: list[str | bytes | int] = [read_at, deadline, int(confirmed)]
            for place in places:
                result = results[place]
                arguments += (self._life(result), statement(result))
            calls.append(SCRIPTS["record"].call([keys[place] for place in places], *arguments))
        locks = list({result.lock for result in results if result.lock is not None})
        count: list[Command] = [("EXISTS", *locks)] if locks else []
        held, *replies = self._wire.exchange([*count, *calls]) if locks else [0, *self._wire.exchange(calls)]
        answers: list[Answer] = [STALE] * len(results)
        at = [""] * len(results)
        for places, reply in zip(groups, replies, strict=True):
            if reply != 0:
                for place, answer in zip(places, reply[1:], strict=True):
                    answers[place], at[place] = answer, reply[0]
        return Recorded(answers, at, self.held(locks) if held else frozenset())

    def held(self, locks: Sequence[str]) -> frozenset[str]:
        """Which of these locks exist."""
        replies = self._wire.exchange([("EXISTS", lock) for lock in locks]) if locks else []
        return frozenset(lock for lock, exists in zip(locks, replies, strict=True) if exists)

    def apply(
        self,
        changes: Mapping[str, Sequence[KeyWrite]],
        requests: Sequence[QueuePush],
        read_at: int,
        largest: int,
    ) -> Applied:
        """Change these keys, each in one step, and push these requests.

        Args:
            changes: by key, in ascending order of the documents.
            requests: likewise.
            read_at: the clock of Redis before their documents were read.
            largest: bytes that one of the documents becomes at most, so that a call stays short.
        """
        pieces, calls = [], []
        for keys, call in self._calls(changes, read_at, largest):
            pieces.append(keys)
            calls.append(call)
        queued = [*_by_queue(requests)]
        calls += [_enqueue(some, read_at) for some in queued]
        replies = self._wire.exchange(calls) if calls else []
        conflicts: list[WriteConflict] = []
        incomplete: list[str] = []
        for keys, reply in zip(pieces, replies, strict=False):
            if reply == 0:
                conflicts += [WriteConflict(key, "", holds=False) for key in keys[1::2]]
                continue
            for number, blocker, holds in zip(reply[::3], reply[1::3], reply[2::3], strict=True):
                key = keys[2 * number - 1]
                if blocker == "!":
                    incomplete.append(key)
                else:
                    conflicts.append(WriteConflict(key, blocker, holds == 1))
        answers = [*_answers(queued, replies[len(pieces) :])]
        return Applied(
            conflicts,
            stale=[request.document for request, answer in answers if answer == STALE],
            pushed=sum(answer == 1 for _, answer in answers),
            refused=[request.document for request, answer in answers if answer < 0],
            incomplete=incomplete,
        )

    def mark_done(self, results: Sequence[tuple[TransformResult, str]]) -> None:
        """Remember that these versions need not be applied again, and what they gave up as given up.

        Args:
            results: each with the moment when it was recorded, as `record` returned it.
        """
        keys = [record_key(result.document) for result, _ in results]
        calls: list[Command] = []
        for places in self._wire.together(keys, _DOCUMENTS_A_CALL):
            said = [f"{at} {statement(result)}" for result, at in map(results.__getitem__, places)]
            calls.append(SCRIPTS["done"].call([keys[place] for place in places], *said))
        if calls:
            self._wire.exchange(calls)

    def requests(self, queue: str, cursor: str) -> tuple[str, dict[str, str]]:
        """Some of the requests that documents have made of a queue: by document, as `lua/enqueue.lua` keeps them.

        Args:
            queue: its key.
            cursor: "0", then the one that the call before returned; "0" again after the last.
        """
        scan: Command = ("HSCAN", requests_key(queue), cursor, "COUNT", _REQUESTS_A_CALL)
        [(cursor, found)] = self._wire.exchange([scan])
        return cursor, dict(zip(found[::2], found[1::2], strict=True))

    def forget(self, queue: str, requests: Mapping[str, str]) -> None:
        """Forget these requests, as far as each is still as `requests` has returned it."""
        entries = [*requests.items()]
        pieces = [entries[i : i + _REQUESTS_A_CALL] for i in range(0, len(entries), _REQUESTS_A_CALL)]
        script, key = SCRIPTS["forget"], requests_key(queue)
        if pieces:
            self._wire.exchange([script.call([key], *chain.from_iterable(some)) for some in pieces])

    def _life(self, result: TransformResult) -> int:
        """Milliseconds that the record of a document lives."""
        lives, least = self._lives, self._least
        return max([lives.get(one.family, least) for one in result.writes + result.keeps], default=least)

    def _calls(
        self, changes: Mapping[str, Sequence[KeyWrite]], read_at: int, largest: int
    ) -> Iterator[tuple[list[str], Command]]:
        """The keys of each call of `lua/apply.lua`, and the call."""
        script, ttls = SCRIPTS["apply"], self._ttls
        head: tuple[str | bytes | int, ...] = (read_at, int(DEADLINE_SECONDS * 1_000_000))
        widest = min(_CLAIMS_A_KEY, max(map(len, changes.values()), default=1))
        most = max(1, min(_CHANGES_A_CALL // widest, _BYTES_A_CALL // max(1, largest)))
        names = [*changes]
        for places in self._wire.together(names, most):
            keys: list[str] = []
            arguments: list[str | bytes | int] = [*head]
            for key in map(names.__getitem__, places):
                several = changes[key]
                keys += (owner_key(key), key)
                shown = several if len(several) == 1 else _newest(several)
                arguments.append(len(shown))
                # Only the newest claim can decide, so only its content is carried.
                claims = [place for place, change in enumerate(shown) if change.write is not None]
                for place, (_, line, write, loses) in enumerate(shown):
                    if write is None:
                        arguments += (line, "-")
                    elif loses:
                        arguments += (line, "~")
                    elif place != claims[-1]:
                        arguments += (line, "!" if line is _LEFT_OUT else "+")
                    elif type(write) is Put and write.value:
                        value = write.value
                        if type(value) is dict:
                            arguments += (line, "h", ttls[write.family], 2 * len(value))
                            arguments += chain.from_iterable(value.items())
                        else:
                            arguments += (line, "l", ttls[write.family], len(value))
                            arguments += value
                    else:
                        arguments += (line, "0", ttls[write.family], 0)
            yield keys, script.call(keys, *arguments)


def _newest(changes: Sequence[KeyWrite]) -> Sequence[KeyWrite]:
    """The changes without the oldest claims, in the same order: a key keeps only the newest few."""
    claiming = [change for change in changes if change.write is not None]
    if len(claiming) <= _CLAIMS_A_KEY:
        return changes
    left_out = {change.document for change in claiming[:-_CLAIMS_A_KEY]}
    mark = claiming[0]._replace(line=_LEFT_OUT)
    return [mark, *(change for change in changes if change.document not in left_out)]


def refuse_unsendable(
    results: Sequence[TransformResult], longest_argument: Callable[[], int]
) -> list[TransformResult]:
    """The same results; a document with an argument longer than Redis takes is rejected.

    Args:
        results: of the transform.
        longest_argument: asks Redis for the most bytes of one argument; called where a document is large.
    """
    large = [result for result in results if result.size >= _LARGE]
    if not large:
        return [*results]
    most = longest_argument()
    refused = {id(result) for result in large if _longest(result) > most}
    reject = Reject(f"it has a value longer than Redis takes: proto-max-bulk-len is {most:,} bytes")
    return [
        one._replace(writes=(), pushes=(), keeps=(), reject=reject) if id(one) in refused else one
        for one in results
    ]


def _longest(result: TransformResult) -> int:
    """The bytes of the longest argument of all calls about a document."""
    arguments: list[str | bytes] = [statement(result), *(push.item for push in result.pushes)]
    for write in result.writes:
        if isinstance(write, Put):
            arguments += write.value.values() if isinstance(write.value, Mapping) else write.value
    return max(len(one) if isinstance(one, bytes) else len(one.encode()) for one in arguments)


def statement(result: TransformResult) -> str:
    """What a document says: its timestamp and the keys that it claims, queues too, each followed by a space."""
    keys = [result.timestamp, *[write.key for write in result.writes]]
    if result.pushes:
        keys += [QUEUED + push.key for push in result.pushes]
    if result.keeps:
        keys += [keep.key for keep in result.keeps]
    return " ".join(keys) + " "


def _by_queue(requests: Sequence[QueuePush]) -> Iterator[list[QueuePush]]:
    """The requests of each queue, as many as one call takes."""
    queues: dict[str, list[QueuePush]] = {}
    for request in requests:
        queues.setdefault(request.queue, []).append(request)
    for asked in queues.values():
        for start in range(0, len(asked), _REQUESTS_A_CALL):
            yield asked[start : start + _REQUESTS_A_CALL]


def _enqueue(requests: Sequence[QueuePush], read_at: int) -> Command:
    queue = requests[0].queue
    said = chain.from_iterable((one.document, one.timestamp, one.item) for one in requests)
    deadline = int(DEADLINE_SECONDS * 1_000_000)
    return SCRIPTS["enqueue"].call((queue, requests_key(queue)), read_at, deadline, *said)


def _answers(
    queued: Iterable[Sequence[QueuePush]], replies: Sequence[Any]
) -> Iterator[tuple[QueuePush, int]]:
    for asked, reply in zip(queued, replies, strict=True):
        yield from zip(asked, [STALE] * len(asked) if reply == 0 else reply, strict=True)
