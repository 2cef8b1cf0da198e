"""The verdict on one key, from facts of MongoDB and Redis that were read together; pure.

The newest claim on a key, by `(updated_at, _id)`, decides what it should be. A key is a mismatch only if that claim
was applied, no lock defers it, and the key certainly belongs to this collection.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from etl.cache.inspector import Claim, Content, Record
from etl.model.result import TransformResult
from etl.model.scan import Checkpoint
from etl.verify.compare import differences
from schemas.documents import family_of
from schemas.families import GENERATION_LOCK
from schemas.ids import readable_id
from schemas.operations import Evict, Put
from schemas.position import Position

Name = Literal[
    "matching", "different", "missing", "expired", "orphaned", "deferred", "pending", "left_alone", "absent"
]
MISMATCHES: Final = frozenset({"different", "missing", "orphaned"})
"""The verdicts that count as mismatches."""

CLOCK_TOLERANCE_MS: Final = 1000
"""A key may be absent this much before the end of its TTL: clocks differ."""

TTLs = Mapping[str, int | None]
"""The TTL of each family in seconds; None for no TTL."""


class Verdict(NamedTuple):
    """The verdict on a key, with the reason as text. `absent`: the key does not exist and should not."""

    name: Name
    why: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """The progress of the cycles. Milliseconds are of MongoDB's clock."""

    now: int
    checkpoint: Checkpoint | None = None
    """None if the next cycle is a cold start."""
    overlap: int = 0
    """The overlap in milliseconds: documents are committed at most this long after their date."""
    records: Mapping[str, Record] = field(default_factory=dict)
    """By the name of the document."""
    deferred: frozenset[str] = frozenset()
    """Deferred documents: their `_id`s as canonical Extended JSON."""
    held: frozenset[str] = frozenset()
    """Keys of the locks that exist."""
    scheduled: bool = False
    """Whether a daemon or a follower is running, which will apply pending changes soon."""

    def reached(self, result: TransformResult) -> bool:
        """Whether the cycles have passed this version of a document for good."""
        if self.checkpoint is None or result.ms is None:
            return True
        record = self.records.get(result.document)
        if record is not None and record.done and record.timestamp == result.timestamp:
            return True
        position, clocks = self.checkpoint.position, self.checkpoint.clocks
        if position is None or result.position.order() > position.order():
            return False
        return clocks is None or result.ms < clocks.mongo - self.overlap

    def waits(self, result: TransformResult) -> bool:
        """Whether the document is deferred, or would be."""
        return result.lock in self.held or result.id in self.deferred


class KeyFacts(NamedTuple):
    """What is known of one key."""

    key: str
    content: Content | None
    """The content in Redis; None if the key is absent."""
    newest: TransformResult | None = None
    """The existing document that claims the key with the greatest position."""
    owner: Claim | None = None
    """The newest claim that was applied, of the documents of this collection."""
    owning: TransformResult | None = None
    """That document as it is now; None if it was deleted."""
    shared: bool = False
    """Whether a document of another collection claims it too."""

    @property
    def is_overtaken(self) -> bool:
        """Whether a claim newer than that of the newest existing claimant was applied."""
        owner, newest = self.owner, self.newest
        if owner is None or newest is None:
            return owner is not None
        return owner.position.order() > newest.position.order()


def lock_of(key: str) -> str | None:
    """The campaign lock of a key, derived from the key itself: its document may be deleted."""
    family = family_of(key)
    if family is None or family.parts[:1] != GENERATION_LOCK.parts:
        return None
    return GENERATION_LOCK.prefix + key.removeprefix(family.prefix).partition(":")[0]


def classify_alone(
    write: Put | Evict, ms: int | None, content: Content | None, ttls: TTLs, now: int
) -> Name | None:
    """The verdict if the document and the key suffice for it (matching, absent or expired); else None."""
    if not isinstance(write, Put):
        return "absent" if content is None else None
    ttl = ttls.get(write.family)
    if content is None:
        return None if _within_ttl(ms, ttl, now) else "expired"
    return None if differences(write, content, ttl) else "matching"


def classify(facts: KeyFacts, state: State, ttls: TTLs) -> Verdict:
    """The verdict on one key."""
    owning, newest = facts.owning, facts.newest
    if facts.is_overtaken and owning is not None and any(keep.key == facts.key for keep in owning.keeps):
        return Verdict("absent" if facts.content is None else "matching")
    if newest is None:
        return _unclaimed(facts, state, ttls)
    write = next(one for one in newest.writes if one.key == facts.key)
    alone = classify_alone(write, newest.ms, facts.content, ttls, state.now)
    if alone is not None:
        return Verdict(alone)
    return _exempt(facts, newest, state) or _mismatch(facts, newest, write, state, ttls)


def _exempt(facts: KeyFacts, newest: TransformResult, state: State) -> Verdict | None:
    """The verdict on a key that need not match its newest document."""
    if facts.shared:
        return Verdict("left_alone", "another collection claims it too")
    if state.waits(newest) or lock_of(facts.key) in state.held:
        return _DEFERRED
    if facts.is_overtaken and facts.owning is not None and facts.owning.reject is not None:
        return _INVALID
    return None


def _mismatch(
    facts: KeyFacts, newest: TransformResult, write: Put | Evict, state: State, ttls: TTLs
) -> Verdict:
    """The verdict on a key that does not match its newest document."""
    owner, owning = facts.owner, facts.owning
    if facts.is_overtaken:  # a newer document that moved away leaves the key when a cycle applies it
        applied = owning is None or state.reached(owning)
    else:
        applied = state.reached(newest) or (owner is not None and _is_of(owner, newest))
    if isinstance(write, Evict) and owner is None:
        return _UNKNOWN
    if not applied and (state.scheduled or isinstance(write, Put)):
        return _PENDING
    if isinstance(write, Evict):
        return Verdict("orphaned", f"{_named(newest.position)} is archived, deleted or has no content for it")
    if facts.content is not None:
        why = "; ".join(differences(write, facts.content, ttls.get(write.family)))
        return Verdict("different", why)
    # The time of change of a document dated in the future is unknown.
    return Verdict("expired") if (newest.ms or 0) > state.now else Verdict("missing", "it does not exist")


def _unclaimed(facts: KeyFacts, state: State, ttls: TTLs) -> Verdict:
    """A key that no existing document claims."""
    owner, owning = facts.owner, facts.owning
    if facts.content is None:
        return Verdict("absent")
    if owner is None or facts.shared or not _looks_like_ours(facts.key, facts.content, ttls):
        return _UNKNOWN
    if lock_of(facts.key) in state.held or (owning is not None and state.waits(owning)):
        return _DEFERRED
    if owning is None:
        return Verdict("orphaned", f"{_named(owner.position)} was deleted")
    if owning.reject is not None:
        return _INVALID
    moved = Verdict("orphaned", f"{_named(owning.position)} does not fill it any more")
    return _PENDING if state.scheduled and not state.reached(owning) else moved


_DEFERRED: Final = Verdict("deferred", "its campaign is being generated")
_INVALID: Final = Verdict("left_alone", "the document that filled it last is invalid now")
_PENDING: Final = Verdict("pending", "no cycle has reached its document yet")
_UNKNOWN: Final = Verdict("left_alone", "no document is known to have filled it")


def _is_of(owner: Claim, result: TransformResult) -> bool:
    return (owner.document, owner.timestamp) == (result.document, result.timestamp)


def _looks_like_ours(key: str, content: Content, ttls: TTLs) -> bool:
    """Whether the key looks like one of the ETL: the type of its family, and a TTL not longer than the family's."""
    family = family_of(key)
    if family is None or content.type != family.type:
        return False
    ttl = ttls.get(family.name)
    return ttl is None or (content.ttl_ms is not None and content.ttl_ms <= ttl * 1000)


def _within_ttl(ms: int | None, ttl: int | None, now: int) -> bool:
    """Whether a key written at the date of the document must still exist."""
    if ms is None:  # time of change unknown
        return False
    return ttl is None or now - ms < ttl * 1000 - CLOCK_TOLERANCE_MS


def _named(position: Position) -> str:
    return f"document {readable_id(position.id)}"
