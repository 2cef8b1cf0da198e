"""What to do with one batch of documents: pure decisions between transform and cache, no I/O.

A batch comes in `(updated_at, _id)` order. Of several documents that claim one key the greatest
pair decides, within the batch by order and against earlier batches by the claims in `Sight`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from schemas.entries import Enqueue, Evict, Projection, Put, Reject
from schemas.position import Position, id_text


class Outcome(NamedTuple):
    """One document after the transform: where it stands and what becomes of it."""

    position: Position
    projection: Projection | Reject

    @property
    def fills(self) -> list[Put | Evict]:
        """The entries that claim a key."""
        if isinstance(self.projection, Reject):
            return []
        return [entry for entry in self.projection.entries if not isinstance(entry, Enqueue)]

    @property
    def lock(self) -> str | None:
        """The key of the lock that puts the document off while it exists."""
        return self.projection.lock if isinstance(self.projection, Projection) else None


class Request(NamedTuple):
    """An item for a queue, once per `version` of its document."""

    queue: str
    item: str
    outcome: Outcome

    @property
    def document(self) -> str:
        """The `_id` of the document that asks."""
        return id_text(self.outcome.position.id)

    @property
    def version(self) -> str:
        """The version of the document that asks."""
        return self.outcome.position.name()


@dataclass(frozen=True, slots=True)
class Sight:
    """What Redis said about a batch just before it is written."""

    seen: frozenset[str] = frozenset()
    """Names of the versions that were handled before."""
    held: frozenset[str] = frozenset()
    """Keys of the locks that exist."""
    claims: Mapping[str, Position] = field(default_factory=dict)
    """The newest claim known of each key."""


@dataclass(slots=True)
class Decision:
    """What is done with a batch: each outcome that was not seen before is in one of the lists."""

    applied: list[Outcome] = field(default_factory=list)
    rejected: list[Outcome] = field(default_factory=list)
    deferred: list[Outcome] = field(default_factory=list)
    passed: list[Outcome] = field(default_factory=list)
    """Outcomes that count as seen though nothing is done: those before a cold start from `now`."""
    gone: list[str] = field(default_factory=list)
    """Documents that were to be read again and are no more, by `_id` as canonical Extended JSON."""
    writes: dict[str, Put | Evict] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    claims: dict[str, Position] = field(default_factory=dict)

    @property
    def handled(self) -> list[Outcome]:
        """Every outcome that must not be read again for this version."""
        return [*self.applied, *self.rejected, *self.deferred, *self.passed]

    def refuse(self, refused: Iterable[tuple[Outcome, Reject]]) -> None:
        """Turn outcomes that the cache could not carry out into rejected ones."""
        for outcome, reject in refused:
            if outcome in self.applied:
                self.applied.remove(outcome)
                self.rejected.append(Outcome(outcome.position, reject))


def contested(outcomes: Iterable[Outcome], sight: Sight) -> dict[str, Position]:
    """The claims, by key, that would hold back a document of the batch: all are worth a second look."""
    return {
        entry.key: claim
        for outcome in outcomes
        for entry in outcome.fills
        if (claim := sight.claims.get(entry.key)) and _outdated(outcome.position, claim)
    }


def confirmed(sight: Sight, doubtful: Mapping[str, Position], claimants: Iterable[Outcome]) -> Sight:
    """The sight with only those of the `doubtful` claims that their documents, as they are now, still make.

    A document may have been deleted, moved to another key, or given an earlier date since. One that
    has become invalid keeps its claim: what it said before still stands in the cache.
    """
    now = {id_text(claimant.position.id): claimant for claimant in claimants}
    claims = {key: claim for key, claim in sight.claims.items() if key not in doubtful}
    for key, claim in doubtful.items():
        claimant = now.get(id_text(claim.id))
        if claimant is not None and isinstance(claimant.projection, Reject):
            claims[key] = claim
        elif claimant is not None and key in {entry.key for entry in claimant.fills}:
            claims[key] = claimant.position
    return replace(sight, claims=claims)


def decide(outcomes: Sequence[Outcome], sight: Sight, waiting: frozenset[str]) -> Decision:
    """Sort a batch into what is applied, rejected and deferred.

    Args:
        outcomes: the batch, in order.
        sight: what Redis holds about it.
        waiting: locks for which earlier documents wait already: later ones of the same campaign
            join them, so that their order is kept.
    """
    decision = Decision()
    for outcome in outcomes:
        if sight.seen and outcome.position.name() in sight.seen:
            continue
        projection = outcome.projection
        if isinstance(projection, Reject):
            decision.rejected.append(outcome)
        elif projection.lock in sight.held or projection.lock in waiting:
            decision.deferred.append(outcome)
        else:
            _apply(decision, outcome, projection, sight.claims)
    return decision


def _apply(
    decision: Decision, outcome: Outcome, projection: Projection, claims: Mapping[str, Position]
) -> None:
    decision.applied.append(outcome)
    for entry in projection.entries:
        if isinstance(entry, Enqueue):
            decision.requests.append(Request(entry.key, entry.item, outcome))
        elif not _outdated(outcome.position, claims.get(entry.key)):
            decision.writes[entry.key] = entry
            decision.claims[entry.key] = outcome.position


def _outdated(position: Position, claim: Position | None) -> bool:
    """Whether a newer document has claimed the key already (one that committed earlier)."""
    return claim is not None and claim.order() > position.order()
