"""Whether a key is true: pure decisions over what MongoDB and Redis said of it at one moment.

The newest claim on a key, by `(updated_at, _id)`, says what it should be. A key is accused only
where that claim has been applied, nobody waits for a lock, and the key is certainly this collection's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from etl.verify.compare import Looked, differences
from etl.verify.reading import Reading
from schemas.documents import FAMILIES
from schemas.families import GENERATION_LOCK, Family
from schemas.ids import readable_id
from schemas.operations import Evict, Put
from schemas.position import Position

Name = Literal[
    "matching", "different", "missing", "expired", "orphaned", "deferred", "pending", "left_alone", "absent"
]
ACCUSATIONS: Final = frozenset({"different", "missing", "orphaned"})
"""What makes a cache untrue."""

CLOCK_TOLERANCE_MS: Final = 1000
"""So much before the end of its TTL a key may be gone: the clocks of two servers and a writer differ."""


class Verdict(NamedTuple):
    """What a key is found to be, and why, for a person. `absent`: nothing is there and nothing should be."""

    name: Name
    why: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """How far the collection is, when keys are judged. Milliseconds are of MongoDB's clock."""

    now: int
    known: bool = False
    """Whether there is a checkpoint at all. Without one nobody is about to apply anything."""
    position: Position | None = None
    """The watermark."""
    window: int | None = None
    """What is dated before it was within reach of the last finished cycle."""
    seen: frozenset[str] = frozenset()
    """Names of versions that were handled."""
    deferred: Mapping[str, str] = field(default_factory=dict)
    """What waits: `_id` as canonical Extended JSON -> the key of the lock."""
    held: frozenset[str] = frozenset()
    """Keys of the locks that exist."""
    scheduled: Callable[[], bool] = lambda: False
    """Whether a daemon is at work, so that what is not applied yet will be without anyone's doing."""

    def reached(self, position: Position) -> bool:
        """Whether the cycles have passed this version of a document, and will not come back for it."""
        if not self.known or position.ms is None or position.name() in self.seen:
            return True
        if self.position is None or position.order() > self.position.order():
            return False
        return self.window is None or position.ms < self.window

    def waits(self, reading: Reading) -> bool:
        """Whether the document is put off, or would be."""
        return reading.lock in self.held or reading.id in self.deferred


class Case(NamedTuple):
    """What is known of one key."""

    key: str
    looked: Looked | None
    """What Redis holds; None where it holds nothing."""
    newest: Reading | None = None
    """The existing document that claims the key with the greatest position."""
    owner: Position | None = None
    """Which document claimed it last, as the cycles have recorded."""
    owning: Reading | None = None
    """That document as it is now; None where it is gone."""
    shared: bool = False
    """Whether another collection has claimed it too."""


class Rules(NamedTuple):
    """What the settings say: the life of each family in seconds, and who records which keys it fills."""

    ttls: Mapping[str, int | None]
    tracked: bool = True
    """Whether this collection does."""
    others_tracked: bool = True
    """Whether every other collection does."""


def family_of(key: str) -> Family | None:
    """The family that a key belongs to: that with the longest prefix."""
    fitting = [family for family in FAMILIES.values() if key.startswith(family.prefix)]
    return max(fitting, key=lambda family: len(family.prefix), default=None)


def lock_of(key: str) -> str | None:
    """The lock of the campaign that a key belongs to, read from the key itself: its document may be gone."""
    family = family_of(key)
    if family is None or family.parts[:1] != GENERATION_LOCK.parts:
        return None
    return GENERATION_LOCK.prefix + key.removeprefix(family.prefix).partition(":")[0]


def glance(entry: Put | Evict, ms: int | None, looked: Looked | None, rules: Rules, now: int) -> Name | None:
    """The verdict where one look is enough: the key is as the document says, or expired. None: look again."""
    if not isinstance(entry, Put):
        return "absent" if looked is None else None
    ttl = rules.ttls.get(entry.family)
    if looked is None:
        return None if _alive(ms, ttl, now) else "expired"
    return None if differences(entry, looked, ttl) else "matching"


def judge(case: Case, state: State, rules: Rules) -> Verdict:
    """The verdict on one key, all parts of the case being of one moment."""
    if case.newest is None:
        return _unclaimed(case, state, rules)
    entry = case.newest.claims[case.key]
    first = glance(entry, case.newest.ms, case.looked, rules, state.now)
    if first is not None:
        return Verdict(first)
    if case.shared:
        return Verdict("left_alone", "another collection claims it too")
    if state.waits(case.newest) or lock_of(case.key) in state.held:
        return Verdict("deferred", "its campaign is being generated")
    if _in_doubt(case, case.newest):
        return Verdict("left_alone", "the document that filled it last is invalid now")
    return _accused(case, case.newest, state, rules)


def _accused(case: Case, newest: Reading, state: State, rules: Rules) -> Verdict:
    entry = newest.claims[case.key]
    if not isinstance(entry, Put):
        return _unevicted(case, newest, state, rules)
    if not _applied(case, newest, state):
        return Verdict("pending", "its document has not been reached yet")
    if case.looked is None and (newest.ms or 0) > state.now:
        return Verdict("expired")  # dated in the future: when it changed is not known
    if case.looked is None:
        return Verdict("missing", "it is not there")
    return Verdict("different", "; ".join(differences(entry, case.looked, rules.ttls.get(entry.family))))


def _unevicted(case: Case, newest: Reading, state: State, rules: Rules) -> Verdict:
    """A key that its newest document says should be gone."""
    certain = case.owner is not None if rules.tracked else rules.others_tracked
    if not certain:
        return Verdict("left_alone", "nobody is known to have filled it")
    if not _applied(case, newest, state) and state.scheduled():
        return Verdict("pending", "its document has not been reached yet")
    return Verdict("orphaned", f"{_named(newest.position)} is archived, deleted, or has nothing for it")


def _unclaimed(case: Case, state: State, rules: Rules) -> Verdict:
    """A key that no existing document claims."""
    if case.looked is None:
        return Verdict("absent")
    if case.owner is None or case.shared or not _ours(case.key, case.looked, rules):
        return Verdict("left_alone", "nobody is known to have filled it")
    if lock_of(case.key) in state.held:
        return Verdict("deferred", "its campaign is being generated")
    if case.owning is None:
        return Verdict("orphaned", f"{_named(case.owner)} is gone")
    return _moved(case.owning, state)


def _moved(owning: Reading, state: State) -> Verdict:
    if owning.reject is not None:
        return Verdict("left_alone", "the document that filled it last is invalid now")
    if state.waits(owning):
        return Verdict("deferred", "its campaign is being generated")
    if not state.reached(owning.position) and state.scheduled():
        return Verdict("pending", "its document has not been reached yet")
    return Verdict("orphaned", f"{_named(owning.position)} no longer fills it")


def _applied(case: Case, newest: Reading, state: State) -> bool:
    """Whether this version of the document was applied, or the cycles have passed it."""
    if case.owner is None or case.owner.order() < newest.position.order():
        return state.reached(newest.position)
    if case.owner.order() == newest.position.order():
        return True
    # A newer one that has moved away leaves the key when it is reached.
    return case.owning is None or state.reached(case.owning.position)


def _in_doubt(case: Case, newest: Reading) -> bool:
    """What a document said before it became invalid still stands in the cache."""
    invalid = case.owning is not None and case.owning.reject is not None
    return invalid and case.owner is not None and case.owner.order() > newest.position.order()


def _ours(key: str, looked: Looked, rules: Rules) -> bool:
    """Whether the key looks as the ETL leaves one: of its family's type, with a life no longer than that."""
    family = family_of(key)
    if family is None or looked.type != family.type:
        return False
    ttl = rules.ttls.get(family.name)
    return ttl is None or (looked.ttl_ms is not None and looked.ttl_ms <= ttl * 1000)


def _alive(ms: int | None, ttl: int | None, now: int) -> bool:
    """Whether what the document filled must still be there, by the date of its last change."""
    if ms is None:  # when it changed is not known
        return False
    return ttl is None or now - ms < ttl * 1000 - CLOCK_TOLERANCE_MS


def _named(position: Position) -> str:
    return f"document {readable_id(position.id)}"
