"""Stage 3, write: the contract keys, and the two registers that decide which document fills a key.

Any number of processes may write at the same time: `lua/record.lua` and `lua/apply.lua` make every write atomic,
idempotent and commutative (docs/guarantees.md). Each call is short, so that it does not delay readers of the cache.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Final, NamedTuple

from etl.cache.client import Command, Wire, mapping
from etl.cache.keys import owner_key, record_key, requests_key
from etl.cache.scripts import SCRIPTS
from etl.model.result import TransformResult
from schemas.operations import Evict, Put, Reject

DEADLINE_SECONDS: Final = 30.0
"""Maximum age of a read when it is written; documents that were read earlier are read again."""

# These limits keep a call of Redis below one millisecond: see the slow log in docs/bench.json.
_DOCUMENTS_PER_CALL: Final = 50
_CHANGES_PER_CALL: Final = 50
_REQUESTS_PER_CALL: Final = 100
_BYTES_PER_CALL: Final = 256 * 1024
_CLAIMS_PER_KEY: Final = 8  # as many lines as `lua/apply.lua` keeps
# Redis accepts no limit below 1 MiB, and a character takes at most four bytes.
_LARGE: Final = 256 * 1024
_LEFT_OUT: Final = "- -"

QUEUED: Final = ">"
"""Prefix of a queue among the claims of a document."""

DONE: Final = 1
STALE: Final = 2
Answer = int | str
"""For a document: `DONE`, `STALE` (read it again), 0 (write it), or the keys that it releases, separated by spaces."""


class KeyWrite(NamedTuple):
    """The change of one key by one document: a write, or its release if `write` is None."""

    document: str
    line: str
    """The timestamp and the name of the document."""
    write: Put | Evict | None
    loses: bool = False
    """Whether the write only records a claim below the document that holds the key."""


class QueuePush(NamedTuple):
    """The request of one document to a queue; an empty `item` withdraws an earlier request."""

    queue: str
    document: str
    timestamp: str
    item: str


class WriteConflict(NamedTuple):
    """A key that was not changed: another document decides its content, or the read was too old."""

    key: str
    blocker: str
    """The other document, which must be read too; empty if the read was too old."""
    holds: bool
    """Whether the key holds the content of that document."""


class Recorded(NamedTuple):
    """The result of `CacheWriter.record`: one answer per document, in the same order."""

    answers: list[Answer]
    at: list[str]
    """The time of recording, by Redis' clock in microseconds since the epoch; empty for a stale document."""
    held: frozenset[str]
    """The locks of these documents that exist."""


class Applied(NamedTuple):
    """The result of `CacheWriter.apply`."""

    conflicts: list[WriteConflict]
    stale: list[str]
    """Documents to read again: the reads for their queue requests are too old."""
    pushed: int
    """Number of queue requests pushed."""
    refused: list[str]
    """Documents whose queue key has another type than list."""
    incomplete: list[str]
    """Keys that their newest document released, and that may lack the content of a claim that was dropped."""


class CacheWriter:
    """Writes the contract keys of Redis. Methods raise as `Wire.exchange` does.

    Args:
        wire: the connection.
        ttls: the TTL of each family in seconds; None for no TTL.
        memory_seconds: the minimum TTL of the record of a document.
        track_keys: whether the record outlives the keys that the document claims.
    """

    def __init__(
        self, wire: Wire, ttls: Mapping[str, int | None], memory_seconds: int, *, track_keys: bool = True
    ) -> None:
        self._wire = wire
        self._ttls = {family: ttl or 0 for family, ttl in ttls.items()}
        self._deadline_us = int(DEADLINE_SECONDS * 1_000_000)
        self._min_record_ms = int((memory_seconds + 2 * DEADLINE_SECONDS) * 1000)
        tracked = ttls.items() if track_keys else ()
        self._family_ms = {family: (ttl or 0) * 1000 + self._min_record_ms for family, ttl in tracked}
        self._record_ms = cache(self._longest_ms)  # documents of one kind claim keys of the same families

    def now(self) -> int:
        """The clock of Redis in microseconds since the epoch; call this before documents are read."""
        return self._wire.now()

    def record(self, results: Sequence[TransformResult], read_at: int, *, confirmed: bool) -> Recorded:
        """Record these versions, and check which of their locks exist.

        Args:
            results: valid documents, each once.
            read_at: the clock of Redis before they were read.
            confirmed: whether they were read by `_id` from a primary that was still one afterwards.
        """
        keys = [record_key(result.document) for result in results]
        groups = [*self._wire.groups(keys, _DOCUMENTS_PER_CALL)]
        calls: list[Command] = []
        for places in groups:
            arguments: list[str | bytes | int] = [read_at, self._deadline_us, int(confirmed)]
            for place in places:
                result = results[place]
                families = tuple([operation.family for operation in result.writes + result.keeps])
                arguments += (self._record_ms(families), statement(result))
            calls.append(SCRIPTS["record"].call([keys[place] for place in places], *arguments))
        locks = list({result.lock for result in results if result.lock is not None})
        # Usually no lock exists: one number shows that.
        held, *replies = (
            self._wire.exchange([("EXISTS", *locks), *calls]) if locks else [0, *self._wire.exchange(calls)]
        )
        answers: list[Answer] = [STALE] * len(results)
        at = [""] * len(results)
        for places, reply in zip(groups, replies, strict=True):
            if reply != 0:
                for place, answer in zip(places, reply[1:], strict=True):
                    answers[place], at[place] = answer, reply[0]
        return Recorded(answers, at, self.held(locks) if held else frozenset())

    def held(self, locks: Sequence[str]) -> frozenset[str]:
        """The locks that exist."""
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
            changes: the changes by key, in ascending order of their documents.
            requests: the requests, in the same order.
            read_at: the clock of Redis before these documents were read.
            largest: the size of the largest document in bytes; it limits the number of keys per call.
        """
        keys_per_call, calls = [], []
        for keys, call in self._calls(changes, read_at, largest):
            keys_per_call.append(keys)
            calls.append(call)
        requests_per_call = [*_by_queue(requests)]
        calls += [self._enqueue(group, read_at) for group in requests_per_call]
        replies = self._wire.exchange(calls) if calls else []
        conflicts: list[WriteConflict] = []
        incomplete: list[str] = []
        for keys, reply in zip(keys_per_call, replies, strict=False):
            if reply == 0:
                conflicts += [WriteConflict(key, "", holds=False) for key in keys[1::2]]
                continue
            for number, blocker, holds in zip(reply[::3], reply[1::3], reply[2::3], strict=True):
                key = keys[2 * number - 1]
                if blocker == "!":
                    incomplete.append(key)
                else:
                    conflicts.append(WriteConflict(key, blocker, holds == 1))
        answers: list[tuple[QueuePush, int]] = []
        for group, reply in zip(
            requests_per_call, replies[len(calls) - len(requests_per_call) :], strict=True
        ):
            answers += zip(group, [STALE] * len(group) if reply == 0 else reply, strict=True)
        return Applied(
            conflicts,
            stale=[request.document for request, answer in answers if answer == STALE],
            pushed=sum(answer == 1 for _, answer in answers),
            refused=[request.document for request, answer in answers if answer < 0],
            incomplete=incomplete,
        )

    def mark_done(self, results: Sequence[tuple[TransformResult, str]]) -> None:
        """Mark these versions as done: their keys are written, and the keys of earlier versions released.

        Args:
            results: each with the time at which it was recorded, as `record` returned it.
        """
        keys = [record_key(result.document) for result, _ in results]
        calls: list[Command] = []
        for places in self._wire.groups(keys, _DOCUMENTS_PER_CALL):
            statements = [f"{at} {statement(result)}" for result, at in map(results.__getitem__, places)]
            calls.append(SCRIPTS["done"].call([keys[place] for place in places], *statements))
        if calls:
            self._wire.exchange(calls)

    def requests(self, queue: str, cursor: str) -> tuple[str, dict[str, str]]:
        """One page of the recorded requests to a queue, by document, in the format of `lua/enqueue.lua`.

        Args:
            queue: the key of the queue.
            cursor: "0" for the first page, else the cursor that the previous call returned.

        Returns:
            The next cursor, "0" after the last page; and the requests.
        """
        scan: Command = ("HSCAN", requests_key(queue), cursor, "COUNT", _REQUESTS_PER_CALL)
        [(cursor, page)] = self._wire.exchange([scan])
        return cursor, mapping(page)

    def forget(self, queue: str, requests: Mapping[str, str]) -> None:
        """Delete these records of requests, except those that have changed since `requests` returned them."""
        entries = [*requests.items()]
        groups = [entries[i : i + _REQUESTS_PER_CALL] for i in range(0, len(entries), _REQUESTS_PER_CALL)]
        script, key = SCRIPTS["forget"], requests_key(queue)
        if groups:
            self._wire.exchange([script.call([key], *chain.from_iterable(group)) for group in groups])

    def _enqueue(self, requests: Sequence[QueuePush], read_at: int) -> Command:
        """The call of `lua/enqueue.lua` for requests to one queue."""
        queue = requests[0].queue
        arguments = chain.from_iterable((push.document, push.timestamp, push.item) for push in requests)
        keys = (queue, requests_key(queue))
        return SCRIPTS["enqueue"].call(keys, read_at, self._deadline_us, *arguments)

    def _longest_ms(self, families: tuple[str, ...]) -> int:
        """The TTL in milliseconds of the record of a document that claims keys of these families."""
        minimum = self._min_record_ms
        return max([self._family_ms.get(family, minimum) for family in families], default=minimum)

    def _calls(
        self, changes: Mapping[str, Sequence[KeyWrite]], read_at: int, largest: int
    ) -> Iterator[tuple[list[str], Command]]:
        """The keys of each call of `lua/apply.lua`, and the call."""
        script, ttls = SCRIPTS["apply"], self._ttls
        head: tuple[str | bytes | int, ...] = (read_at, self._deadline_us)
        widest = min(_CLAIMS_PER_KEY, max(map(len, changes.values()), default=1))
        most = max(1, min(_CHANGES_PER_CALL // widest, _BYTES_PER_CALL // max(1, largest)))
        names = [*changes]
        for places in self._wire.groups(names, most):
            keys: list[str] = []
            arguments: list[str | bytes | int] = [*head]
            for key in map(names.__getitem__, places):
                writes = changes[key]
                keys += (owner_key(key), key)
                sent, newest = (writes, writes[0]) if len(writes) == 1 else _newest(writes)
                arguments.append(len(sent))
                for change in sent:
                    _, line, write, loses = change
                    if write is None:
                        arguments += (line, "-")
                    elif loses:
                        arguments += (line, "~")
                    elif change is not newest:  # it cannot decide the content, so its own is not sent
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


def _newest(changes: Sequence[KeyWrite]) -> tuple[Sequence[KeyWrite], KeyWrite | None]:
    """The changes without the claims that the register of the key would drop, in the same order; the newest claim."""
    claiming = [change for change in changes if change.write is not None]
    newest = claiming[-1] if claiming else None
    if len(claiming) <= _CLAIMS_PER_KEY:
        return changes, newest
    left_out = {change.document for change in claiming[:-_CLAIMS_PER_KEY]}
    mark = claiming[0]._replace(line=_LEFT_OUT)
    return [mark, *(change for change in changes if change.document not in left_out)], newest


def refuse_unsendable(
    results: Sequence[TransformResult], longest_argument: Callable[[], int]
) -> list[TransformResult]:
    """The same results, with a rejection for each document with an argument longer than Redis accepts.

    Args:
        results: results of the transform.
        longest_argument: asks Redis for the maximum length of an argument in bytes; called only if a document is large.
    """
    large = [result for result in results if result.size >= _LARGE]
    if not large:
        return [*results]
    limit = longest_argument()
    refused = {id(result) for result in large if _longest(result) > limit}
    reject = Reject(f"it has a value longer than Redis takes: proto-max-bulk-len is {limit:,} bytes")
    return [
        result._replace(writes=(), pushes=(), keeps=(), reject=reject) if id(result) in refused else result
        for result in results
    ]


def _longest(result: TransformResult) -> int:
    """The bytes of the longest argument of all calls about a document."""
    arguments: list[str | bytes] = [statement(result), *(push.item for push in result.pushes)]
    for write in result.writes:
        if isinstance(write, Put):
            arguments += write.value.values() if isinstance(write.value, Mapping) else write.value
    return max(len(text) if isinstance(text, bytes) else len(text.encode()) for text in arguments)


def statement(result: TransformResult) -> str:
    """The text of a record: the timestamp, the keys and the queues that a document claims, each followed by a space."""
    keys = [result.timestamp, *[write.key for write in result.writes]]
    if result.pushes:
        keys += [QUEUED + push.key for push in result.pushes]
    if result.keeps:
        keys += [keep.key for keep in result.keeps]
    return " ".join(keys) + " "


def _by_queue(requests: Sequence[QueuePush]) -> Iterator[list[QueuePush]]:
    """The requests in groups for one call each: of one queue, up to the maximum number."""
    queues: dict[str, list[QueuePush]] = {}
    for request in requests:
        queues.setdefault(request.queue, []).append(request)
    for of_queue in queues.values():
        for start in range(0, len(of_queue), _REQUESTS_PER_CALL):
            yield of_queue[start : start + _REQUESTS_PER_CALL]
