"""What to do with one batch of documents: pure decisions between transform and cache, no I/O.

A batch comes in `(updated_at, _id)` order. Of several documents that claim one key the greatest
pair decides, within the batch by order and against earlier batches by the claims in `Sight`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from schemas.entries import Reject
from schemas.position import Position, id_in, is_after, position_from_text, version_name


class Fill(NamedTuple):
    """One key that a document claims, and the commands that fill it once it is removed."""

    key: str
    family: str
    commands: bytes
    """As Redis takes them; none where the key is to stay removed."""
    length: int
    """How many commands."""


class Outcome(NamedTuple):
    """One document after the transform: where it stands and what becomes of it.

    Of texts and numbers only, so that it travels from a worker in a tenth of the time its position would.
    """

    text: str
    """Its position, as `Position.text`."""
    ms: int | None
    """Its timestamp in milliseconds since the epoch; None where that is no date."""
    id: str
    """Its `_id` as canonical Extended JSON."""
    fills: tuple[Fill, ...] = ()
    requests: tuple[tuple[str, str], ...] = ()
    """Queues, and the item it asks each for."""
    lock: str | None = None
    """The key of the lock that puts it off while that exists."""
    reject: Reject | None = None
    """Why it cannot be applied."""

    @property
    def position(self) -> Position:
        """Its position."""
        return position_from_text(self.text)

    @property
    def version(self) -> str:
        """A short unique name of this version of the document."""
        return version_name(self.text)

    @property
    def filled(self) -> list[str]:
        """The keys that it fills."""
        return [fill.key for fill in self.fills if fill.commands]

    @property
    def claimed(self) -> list[str]:
        """The keys that it fills, or wants removed."""
        return [fill.key for fill in self.fills]


class Request(NamedTuple):
    """An item for a queue, once per version of its document."""

    queue: str
    item: str
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Sight:
    """What Redis said about a batch just before it is written."""

    seen: frozenset[str] = frozenset()
    """Names of the versions that were handled before."""
    held: frozenset[str] = frozenset()
    """Keys of the locks that exist."""
    claims: Mapping[str, str] = field(default_factory=dict)
    """The newest claim known of each key: the position of its document, as `Position.text`."""
    filled: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Which keys each document claimed when it was last applied, by `_id`."""


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
    writes: dict[str, Fill] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    claims: dict[str, Outcome] = field(default_factory=dict)
    vacated: dict[str, str] = field(default_factory=dict)
    """Keys whose document fills others now, each with the `_id` of that document."""
    rivals: list[tuple[str, str]] = field(default_factory=list)
    """Keys, and the `_id` of a document that claims them too but is not the newest."""

    @property
    def handled(self) -> list[Outcome]:
        """Every outcome that must not be read again for this version."""
        return [*self.applied, *self.rejected, *self.deferred, *self.passed]

    def refuse(self, refused: Iterable[tuple[Outcome, Reject]]) -> None:
        """Turn outcomes that the cache could not carry out into rejected ones."""
        for outcome, reject in refused:
            if outcome in self.applied:
                self.applied.remove(outcome)
                self.rejected.append(Outcome(outcome.text, outcome.ms, outcome.id, reject=reject))

    def claim(self, outcome: Outcome, fill: Fill, standing: str | None) -> None:
        """Let the document fill its key, unless the claim that is `standing` is of a newer one."""
        key = fill.key
        if (own := self.claims.get(key)) is not None:
            standing = own.text
        if standing is not None:
            newer, rival = is_after(standing, outcome.text), id_in(standing)
            if rival != outcome.id:
                self.rivals.append((key, outcome.id if newer else rival))
            if newer:
                return
        self.writes[key] = fill
        self.claims[key] = outcome
        if self.vacated:
            self.vacated.pop(key, None)

    def vacate(self, outcome: Outcome, keys: Iterable[str]) -> None:
        """Let the document give up these keys, but for those that another one claims in this batch."""
        for key in keys:
            if key not in self.claims:
                self.writes[key] = Fill(key, "", b"", 0)
                self.vacated[key] = outcome.id

    def inherit(self, heirs: Iterable[Outcome]) -> None:
        """Fill keys that were vacated from the documents that claim them too, given in order."""
        left = frozenset(self.vacated)
        for heir in heirs:
            for fill in heir.fills:
                if fill.key in left:
                    self.claim(heir, fill, None)


def contested(outcomes: Iterable[Outcome], sight: Sight) -> dict[str, str]:
    """The claims, by key, that would hold back a document of the batch: all are worth a second look."""
    if not sight.claims:
        return {}
    return {
        fill.key: claim
        for outcome in outcomes
        if not sight.seen or outcome.version not in sight.seen  # those are held back already
        for fill in outcome.fills
        if (claim := sight.claims.get(fill.key)) and is_after(claim, outcome.text)
    }


def confirmed(sight: Sight, doubtful: Mapping[str, str], claimants: Iterable[Outcome]) -> Sight:
    """The sight with only those of the `doubtful` claims that their documents, as they are now, still make.

    A document may have been deleted, moved to another key, or given an earlier date since. One that
    has become invalid keeps its claim: what it said before still stands in the cache.
    """
    now = {claimant.id: claimant for claimant in claimants}
    claims = {key: claim for key, claim in sight.claims.items() if key not in doubtful}
    for key, claim in doubtful.items():
        claimant = now.get(id_in(claim))
        if claimant is not None and claimant.reject is not None:
            claims[key] = claim
        elif claimant is not None and key in {fill.key for fill in claimant.fills}:
            claims[key] = claimant.text
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
    closed = sight.held | waiting
    for outcome in outcomes:
        if sight.seen and outcome.version in sight.seen:
            continue
        if outcome.reject is not None:
            decision.rejected.append(outcome)
        elif outcome.lock in closed:
            decision.deferred.append(outcome)
        else:
            _apply(decision, outcome, sight)
    return decision


def _apply(decision: Decision, outcome: Outcome, sight: Sight) -> None:
    decision.applied.append(outcome)
    for queue, item in outcome.requests:
        decision.requests.append(Request(queue, item, outcome))
    for fill in outcome.fills:
        decision.claim(outcome, fill, sight.claims.get(fill.key))
    # A document that claims nothing (it asks for messages) leaves what it filled before.
    if sight.filled and outcome.fills and (before := sight.filled.get(outcome.id)):
        decision.vacate(outcome, _left(outcome, before, sight.claims))


def _left(outcome: Outcome, before: Iterable[str], claims: Mapping[str, str]) -> list[str]:
    """The keys that it filled before, does not claim now, and was the newest to claim."""
    now = {fill.key for fill in outcome.fills}
    return [key for key in before if key not in now and key in claims and id_in(claims[key]) == outcome.id]
