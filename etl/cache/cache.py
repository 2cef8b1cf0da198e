"""Stage 3, the cache: looks at what Redis holds about a batch, and writes it in one transaction.

Each key is replaced as a whole inside one MULTI, so no reader meets it empty, partial or without its
TTL. The transaction is fenced: it WATCHes the key of the newest fencing token, so that a process that
was stopped while another took over writes nothing when it wakes up. It also WATCHes the turnstile, a
counter that every such transaction moves: whoever else has written since the look (a backfill beside
a cycle, or a batch that the network delivers a second time) makes it fail, and the look is repeated.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final, NamedTuple

from etl.cache.client import SCRIPTS, Wire
from etl.cache.keys import Companions
from etl.cache.ownership import Owned, Ownership
from etl.cache.resp import Command, Sent, arguments, call, pairs
from etl.errors import LeaseLost, Overtaken
from etl.model.encoded import Arguments, Encoded, Packed
from etl.model.outcome import Fill, Outcome
from etl.sync.batch import Decision, Request, Sight
from etl.transform.encoding import encode
from etl.transform.sheet import Sheet, since
from schemas.keys import companion
from schemas.operations import Reject

_REQUESTS_A_CALL: Final = 1000  # three arguments each; Lua takes some 8,000 at once


def replacement(fills: Iterable[Fill]) -> list[Sent]:
    """The commands that replace each of these keys as a whole; atomic only inside a MULTI."""
    fills = list(fills)
    if not fills:
        return []
    data = b"".join([fill.commands for fill in fills])
    return [("DEL", *(fill.key for fill in fills)), Packed(data, sum(fill.length for fill in fills))]


class Written(NamedTuple):
    """What came of a batch: how many requests were pushed, and the outcomes Redis had no place for."""

    pushed: int
    refused: list[tuple[Outcome, Reject]]


class Cache:
    """The contract keys of Redis, as one collection writes them.

    `ownership` is None where it is not kept. Every method raises `Transient`, `Misconfigured` or
    `CycleFailed` (see `redis_wire.Wire`), and `LeaseLost` where another holder has taken over.
    """

    def __init__(
        self, wire: Wire, collection: str, own: Companions, ownership: Ownership | None = None
    ) -> None:
        self._wire = wire
        self._collection = collection
        self._own = own
        self._ownership = ownership
        self._generation = 0
        self._now = 0
        self._first: int | None = None  # a moment of a period before which nothing was kept, when last looked

    def look(self, outcomes: Sequence[Outcome], token: str, dated: int | None, *, has_claims: bool) -> Sight:
        """What Redis holds about a batch, in one round trip that also begins its fenced transaction.

        Args:
            outcomes: the batch.
            token: the fencing token of the lease under which it is written.
            dated: ask for versions handled before only where dated from this millisecond on;
                None asks for none.
            has_claims: whether any key has a claim at all, apart from its owner.
        """
        page = outcomes.encoded if isinstance(outcomes, Sheet) else encode(outcomes)
        names = [] if dated is None else [outcome.version for outcome in since(outcomes, dated)]
        scores, claims, held = self._begin(page, names, token, has_claims=has_claims)
        owned = self._owned(page, outcomes)
        return Sight(
            seen=_found(names, scores),
            held=self.held(_locks(outcomes)) if held else frozenset(),
            claims=_known(outcomes, claims) | dict(owned.owners),
            filled=owned.filled,
        )

    def _begin(
        self, page: Encoded, names: Sequence[str], token: str, *, has_claims: bool
    ) -> tuple[Any, Any, Any]:
        """Begin the transaction; returns which versions were seen, the claims, and how many locks exist."""
        own, before = self._own, self._now
        # A batch that wrote nothing has left its WATCH behind, which a later lease has since broken.
        commands: list[Sent] = [("UNWATCH",), ("WATCH", own.fence, own.turnstile)]
        # The last three take at least one member: the empty one stands for none and is never found.
        commands += [("GET", own.fence), ("TIME",), ("ZMSCORE", own.seen, "", *names)]
        commands.append(call(("HMGET", own.claimants, ""), page.keys if has_claims else _NOTHING))
        commands.append(call(("EXISTS", ""), page.locks))
        if self._ownership is not None:
            commands.append(self._ownership.earlier(before))
        _, _, newest, (seconds, micros), scores, claims, held, *left = self._wire.exchange(commands)
        self._generation = self._wire.generation
        self._now = int(seconds) * 1000 + int(micros) // 1000
        if newest != token:
            raise LeaseLost(newest)
        self._first = before if left == [0] else None
        return scores, claims, held

    def held(self, locks: Sequence[str]) -> frozenset[str]:
        """Which of these locks exist."""
        replies = self._wire.exchange([("EXISTS", lock) for lock in locks])
        return frozenset(lock for lock, exists in zip(locks, replies, strict=True) if exists)

    def rivals(self, keys: Sequence[str]) -> list[str]:
        """The `_id`s of documents that claimed one of these keys and were not the newest to do so."""
        if self._ownership is None:
            return []
        return self._ownership.rivals(self._wire, keys, self._now)

    def write(self, decision: Decision, queues: frozenset[str]) -> Written:
        """Carry out a decision in one transaction, bound to the `look` before it.

        `queues` are those the collection feeds: in them the documents that ask for nothing any
        more are forgotten, so that a later request counts as new.

        Raises:
            Overtaken: somebody else has written since the look.
        """
        calls = [*self._calls(decision.requests)]
        commands: list[Sent] = [
            *_data(decision),
            *self._record(decision),
            *self._forget(decision, queues),
            *(command for command, _ in calls),
        ]
        if not commands:
            return Written(0, [])
        results = self._carry_out(commands)
        answers = results[len(results) - len(calls) :]
        return _written(
            pair
            for (_, asked), reply in zip(calls, answers, strict=True)
            for pair in zip(asked, reply, strict=True)
        )

    def _carry_out(self, commands: Sequence[Sent]) -> Sequence[Any]:
        sent: list[Sent] = [("MULTI",), ("INCR", self._own.turnstile), *commands, ("EXEC",)]
        results: Sequence[Any] | None = self._wire.exchange(sent, self._generation)[-1]
        if results is None:
            raise Overtaken("somebody else has written since this batch was looked at")
        if self._ownership is not None and self._first is not None:
            # Only now: who looked earlier, and would still write into the period before, is overtaken.
            self._ownership.is_first(self._first)
        return results

    def _owned(self, page: Encoded, outcomes: Sequence[Outcome]) -> Owned:
        if self._ownership is None or not outcomes:
            return _NOBODY
        replies = self._ask(page.keys, page.documents)
        if not any(map(_has_any, replies)):
            return _NOBODY
        keys = _keys(outcomes)
        owned = self._ownership.answers(keys, [outcome.id for outcome in outcomes], replies)
        # Documents rarely move: only then who owns the keys that they filled before is asked too.
        known = frozenset(keys)
        left = [key for before in owned.filled.values() for key in before if key not in known]
        if not left:
            return owned
        others = self._ownership.answers(left, (), self._ask(arguments(left), _NOTHING))
        return Owned({**owned.owners, **others.owners}, owned.filled)

    def _ask(self, keys: Arguments, documents: Arguments) -> list[Any]:
        if self._ownership is None:
            return []
        return self._wire.exchange(self._ownership.questions(keys, documents, self._now), self._generation)

    def _record(self, decision: Decision) -> list[Sent]:
        if self._ownership is None:
            return []
        owners, filled = _claims(decision)
        return self._ownership.record(owners, filled, decision.rivals, list(decision.vacated), self._now)

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
        fields = ((self._member(r.outcome.id), r.outcome.version, r.item) for r in requests)
        keys = (queue, companion(queue, "enqueued"))
        return SCRIPTS["enqueue"].call(keys, *chain.from_iterable(fields))

    def _forget(self, decision: Decision, queues: frozenset[str]) -> list[Command]:
        if not queues:
            return []
        asking = {request.outcome.id for request in decision.requests}
        idle = [self._member(outcome.id) for outcome in decision.applied if outcome.id not in asking]
        if not idle:
            return []
        return [("HDEL", companion(queue, "enqueued"), *idle) for queue in sorted(queues)]

    def _member(self, document: str) -> str:
        """A document among those of all collections that feed one queue."""
        return f"{self._collection} {document}"


_NOBODY: Final = Owned({}, {})
_NOTHING: Final = arguments(())


def _data(decision: Decision) -> list[Sent]:
    page = decision.page
    if page is None:
        return replacement(decision.writes.values())
    return [call(("DEL",), page.keys), page.fills] if page.keys.length else []


def _claims(decision: Decision) -> tuple[Arguments, Arguments]:
    """Each key that is claimed with its owner, and each document with the keys that it claims."""
    draft = decision.draft
    if draft is not None:
        return draft.owners, draft.filled
    claiming = (outcome for outcome in decision.applied if outcome.fills)
    return (
        pairs((key, outcome.text) for key, outcome in decision.claims.items()),
        pairs((outcome.id, " ".join(outcome.claimed)) for outcome in claiming),
    )


def _has_any(reply: Sequence[Any]) -> bool:
    return reply.count(None) < len(reply)


def _found(names: Sequence[str], scores: Sequence[Any]) -> frozenset[str]:
    return frozenset(name for name, score in zip(names, scores[1:], strict=True) if score is not None)


def _known(outcomes: Sequence[Outcome], claims: Sequence[str | None]) -> dict[str, str]:
    """The claims by key, of which there may be none: then the outcomes are left alone."""
    if not _has_any(claims):
        return {}
    return {key: claim for key, claim in zip(_keys(outcomes), claims[1:], strict=True) if claim}


def _locks(outcomes: Sequence[Outcome]) -> list[str]:
    return sorted({outcome.lock for outcome in outcomes if outcome.lock is not None})


def _keys(outcomes: Sequence[Outcome]) -> list[str]:
    """As `encode` orders them."""
    return list(dict.fromkeys([fill.key for outcome in outcomes for fill in outcome.fills]))


def _written(answers: Iterable[tuple[Request, int]]) -> Written:
    pushed = 0
    refused = []
    for request, answer in answers:
        pushed += answer == 1
        if answer < 0:
            reason = f"{request.queue} holds something that is not a list: move it away"
            refused.append((request.outcome, Reject(reason)))
    return Written(pushed, refused)
