"""What to do with one batch of documents: pure decisions between transform and cache, no I/O.

A batch comes in `(updated_at, _id)` order. Of several documents that claim one key the greatest
pair decides, within the batch by order and against earlier batches by the claims in `Sight`. Where nothing
in sight concerns a page, and its documents do not concern one another, it is applied by its draft.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from etl.model.encoded import Draft, Encoded
from etl.model.outcome import Fill, Outcome
from etl.transform.sheet import Sheet, since
from schemas.operations import Reject
from schemas.position import id_in, is_after


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

    @property
    def is_clear(self) -> bool:
        """Whether Redis holds nothing that concerns the batch."""
        return not (self.seen or self.held or self.claims or self.filled)


class Counts(NamedTuple):
    """What a decision comes to: documents applied, those that fill keys or evict them, keys by family."""

    applied: int
    written: int
    evicted: int
    families: Mapping[str, int]


@dataclass(slots=True)
class Decision:
    """What is done with a batch: each document that was not seen before is in one of the lists."""

    applied: Sequence[Outcome] = field(default_factory=list)
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
    page: Encoded | None = None
    """The page that is applied as a whole, by its draft; `writes` and `claims` hold nothing of it then."""

    @property
    def draft(self) -> Draft | None:
        """How that page is claimed."""
        return self.page.draft if self.page else None

    def handled_since(self, ms: int) -> list[Outcome]:
        """Every outcome dated from `ms` on that must not be read again for this version."""
        lists = (self.applied, self.rejected, self.deferred, self.passed)
        return [outcome for some in lists for outcome in since(some, ms)]

    def claims_since(self, ms: int) -> dict[str, Outcome]:
        """The keys that documents dated from `ms` on claim, each with the newest."""
        claims = {key: one for key, one in self.claims.items() if one.ms is not None and one.ms >= ms}
        if self.draft is not None:
            claims |= {fill.key: one for one in since(self.applied, ms) for fill in one.fills}
        return claims

    def counts(self) -> Counts:
        """What it comes to."""
        applied, draft = len(self.applied), self.draft
        if draft is not None:
            return Counts(applied, draft.written, draft.evicted, draft.families)
        claiming = [outcome for outcome in self.applied if outcome.fills]
        written = sum(bool(outcome.filled) for outcome in claiming)
        families = Counter([fill.family for fill in self.writes.values() if fill.commands])
        return Counts(applied, written, len(claiming) - written, families)

    def refuse(self, refused: Iterable[tuple[Outcome, Reject]]) -> None:
        """Turn outcomes that the cache could not carry out into rejected ones."""
        for outcome, reject in refused:
            if outcome in self.applied:
                self.applied = [one for one in self.applied if one is not outcome]
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
    if isinstance(outcomes, Sheet) and outcomes.draft and sight.is_clear and not waiting:
        return _whole(outcomes, outcomes.draft.valid)
    return _one_by_one(outcomes, sight, sight.held | waiting)


def _whole(sheet: Sheet, count: int) -> Decision:
    if count == len(sheet):
        return Decision(sheet, page=sheet.encoded)
    valid = [outcome for outcome in sheet if outcome.reject is None]
    return Decision(valid, [outcome for outcome in sheet if outcome.reject is not None], page=sheet.encoded)


def _one_by_one(outcomes: Sequence[Outcome], sight: Sight, closed: frozenset[str]) -> Decision:
    applied: list[Outcome] = []
    decision = Decision(applied)
    latest = {outcome.id: outcome for outcome in outcomes}
    for outcome in outcomes:
        if sight.seen and outcome.version in sight.seen:
            continue
        # Written again while the page was read, which then met it twice.
        if latest[outcome.id] is not outcome:
            continue
        if outcome.reject is not None:
            decision.rejected.append(outcome)
        elif outcome.lock in closed:
            decision.deferred.append(outcome)
        else:
            applied.append(outcome)
            _apply(decision, outcome, sight)
    return decision


def _apply(decision: Decision, outcome: Outcome, sight: Sight) -> None:
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
