"""Stage 3, the cache: looks at what Redis holds about a batch, and writes it in one transaction.

Each key is replaced as a whole inside one MULTI, so no reader meets it empty, partial or without
its TTL. The transaction is fenced: it WATCHes the key of the newest fencing token, so that a
process that was stopped while another took over writes nothing when it wakes up.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple

from etl.batch import Decision, Outcome, Request, Sight
from etl.companions import companions
from etl.errors import LeaseLost
from etl.redis_wire import SCRIPTS, Command, Wire
from schemas.entries import Evict, Put, Reject
from schemas.keys import companion
from schemas.position import id_text, position_from_text

_REQUESTS_A_CALL: Final = 1000  # three arguments each; Lua takes some 8,000 at once


def replacement(entry: Put | Evict, ttls: Mapping[str, int | None]) -> list[Command]:
    """The commands that replace one key as a whole; atomic only inside a MULTI.

    `ttls` gives the life of each family in seconds, None for ever.
    """
    if isinstance(entry, Evict):
        return [("DEL", entry.key)]
    if isinstance(entry.value, Mapping):
        fill: Command = ("HSET", entry.key, *chain.from_iterable(entry.value.items()))
    else:
        fill = ("RPUSH", entry.key, *entry.value)
    ttl = ttls.get(entry.family)
    expiry: list[Command] = [] if ttl is None else [("EXPIRE", entry.key, ttl)]
    return [("DEL", entry.key), fill, *expiry]


class Written(NamedTuple):
    """What came of a batch: how many requests were pushed, and the outcomes Redis had no place for."""

    pushed: int
    refused: list[tuple[Outcome, Reject]]


class Cache:
    """The contract keys of Redis, as one collection writes them.

    Every method raises `Transient`, `Misconfigured` or `CycleFailed` (see `redis_wire.Wire`), and
    `LeaseLost` where another holder has taken over.
    """

    def __init__(self, wire: Wire, collection: str, ttls: Mapping[str, int | None]) -> None:
        self._wire = wire
        self._collection = collection
        self._ttls = ttls
        self._own = companions(collection)
        self._generation = 0

    def look(self, outcomes: Sequence[Outcome], token: str, since: int | None, *, has_claims: bool) -> Sight:
        """What Redis holds about a batch, in one round trip that also begins its fenced transaction.

        Args:
            outcomes: the batch.
            token: the fencing token of the lease under which it is written.
            since: ask for versions handled before only where dated from this millisecond on;
                None asks for none.
            has_claims: whether any key has a claim at all.
        """
        names = _versions(outcomes, since)
        locks = _locks(outcomes)
        keys = _keys(outcomes) if has_claims else []
        # A batch that wrote nothing has left its WATCH behind, which a later lease has since broken.
        commands: list[Command] = [("UNWATCH",), ("WATCH", self._own.fence), ("GET", self._own.fence)]
        # Both take at least one member: the empty one stands for none and is never found.
        commands += [("ZMSCORE", self._own.seen, "", *names), ("HMGET", self._own.claimants, "", *keys)]
        commands += [("EXISTS", lock) for lock in locks]
        _, _, newest, scores, claims, *existing = self._wire.exchange(commands)
        self._generation = self._wire.generation
        if newest != token:
            raise LeaseLost("another holder has taken over the lease")
        return Sight(
            seen=frozenset(n for n, score in zip(names, scores[1:], strict=True) if score is not None),
            held=frozenset(lock for lock, exists in zip(locks, existing, strict=True) if exists),
            claims={k: position_from_text(c) for k, c in zip(keys, claims[1:], strict=True) if c},
        )

    def held(self, locks: Sequence[str]) -> frozenset[str]:
        """Which of these locks exist."""
        replies = self._wire.exchange([("EXISTS", lock) for lock in locks])
        return frozenset(lock for lock, exists in zip(locks, replies, strict=True) if exists)

    def write(self, decision: Decision, queues: frozenset[str]) -> Written:
        """Carry out a decision in one transaction, bound to the `look` before it.

        `queues` are those the collection feeds: in them the documents that ask for nothing any
        more are forgotten, so that a later request counts as new.
        """
        calls = [*self._calls(decision.requests)]
        commands: list[Command] = [
            *chain.from_iterable(replacement(entry, self._ttls) for entry in decision.writes.values()),
            *self._forget(decision, queues),
            *(command for command, _ in calls),
        ]
        if not commands:
            return Written(0, [])
        sent: list[Command] = [("MULTI",), *commands, ("EXEC",)]
        results = self._wire.exchange(sent, self._generation)[-1]
        if results is None:
            raise LeaseLost("another holder took over while a batch was written")
        answers = results[len(commands) - len(calls) :]
        return _written(
            pair
            for (_, asked), reply in zip(calls, answers, strict=True)
            for pair in zip(asked, reply, strict=True)
        )

    def _calls(self, requests: Sequence[Request]) -> list[tuple[Command, Sequence[Request]]]:
        by_queue: dict[str, list[Request]] = {}
        for request in requests:
            by_queue.setdefault(request.queue, []).append(request)
        return [
            (self._call(queue, some), some)
            for queue, asked in by_queue.items()
            for start in range(0, len(asked), _REQUESTS_A_CALL)
            for some in [asked[start : start + _REQUESTS_A_CALL]]
        ]

    def _call(self, queue: str, requests: Sequence[Request]) -> Command:
        fields = ((self._member(r.document), r.version, r.item) for r in requests)
        keys = (queue, companion(queue, "enqueued"))
        return SCRIPTS["enqueue"].call(keys, *chain.from_iterable(fields))

    def _forget(self, decision: Decision, queues: frozenset[str]) -> list[Command]:
        if not queues:
            return []
        asking = {request.document for request in decision.requests}
        applied = (id_text(outcome.position.id) for outcome in decision.applied)
        idle = [self._member(document) for document in applied if document not in asking]
        if not idle:
            return []
        return [("HDEL", companion(queue, "enqueued"), *idle) for queue in sorted(queues)]

    def _member(self, document: str) -> str:
        """A document among those of all collections that feed one queue."""
        return f"{self._collection} {document}"


def _versions(outcomes: Sequence[Outcome], since: int | None) -> list[str]:
    if since is None:
        return []
    return [o.position.name() for o in outcomes if o.position.ms is not None and o.position.ms >= since]


def _locks(outcomes: Sequence[Outcome]) -> list[str]:
    return sorted({outcome.lock for outcome in outcomes if outcome.lock is not None})


def _keys(outcomes: Sequence[Outcome]) -> list[str]:
    return sorted({entry.key for outcome in outcomes for entry in outcome.fills})


def _written(answers: Iterable[tuple[Request, int]]) -> Written:
    pushed = 0
    refused = []
    for request, answer in answers:
        pushed += answer == 1
        if answer < 0:
            reason = f"{request.queue} holds something that is not a list: move it away"
            refused.append((request.outcome, Reject(reason)))
    return Written(pushed, refused)
