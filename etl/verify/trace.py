"""The story of one document: where it is, what Redis holds of it, and why its keys are there or not."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, NamedTuple

from etl.model.moments import moment_text
from etl.model.state import DeadLetter
from etl.verify.classify import Name
from etl.verify.findings import Suspect
from etl.verify.reading import Reading
from etl.verify.recheck import Judged, SecondLook, Subject
from schemas.ids import id_from_text, readable_id
from schemas.operations import Evict, Put

Outcome = Literal[
    "gone",
    "invalid",
    "deferred",
    "pending",
    "superseded",
    "overwritten",
    "missing",
    "left_behind",
    "evicted",
    "expired",
    "shared",
    "queued",
    "well",
]

Role = Literal["fills", "evicts", "left"]

FindDead = Callable[[Sequence[str]], Mapping[str, DeadLetter]]
"""Finds the dead letters of documents, by `_id` as canonical Extended JSON."""


class KeyStory(NamedTuple):
    """One key of the document: what Redis holds, and the verdict on it."""

    key: str
    role: Role
    """What the document does with it: `left` is a key that it filled before it changed."""
    verdict: Name
    why: str
    type: str | None
    ttl_ms: int | None
    """Milliseconds left; None for a key that is absent or stays."""
    newest: str | None
    """The `_id` of the document whose claim decides, as people read it."""


@dataclass(slots=True)
class Trace:
    """All that is known of one document."""

    collection: str
    id: str
    """The `_id` as people read it."""
    found: bool
    updated_at: str | None = None
    reason: str | None = None
    """Why it is invalid; None for one that is not."""
    errors: list[dict[str, str]] = field(default_factory=list)
    keys: list[KeyStory] = field(default_factory=list)
    dead_letter: dict[str, Any] | None = None
    deferred: bool = False
    """Whether it waits for the lock of its campaign."""
    lock: str | None = None
    """The key of that lock; None for kinds that have none."""
    lock_holder: str | None = None
    """Who holds it, if anyone does."""
    lock_ttl_ms: int | None = None
    reached: bool | None = None
    """Whether the cycles have passed this version; None where there is no document."""
    outcome: Outcome = "gone"
    story: str = ""
    """Why its keys are there, or are not."""

    def as_dict(self) -> dict[str, Any]:
        """The trace as `etl trace --json` prints it."""
        return asdict(self) | {"keys": [one._asdict() for one in self.keys]}


class Tracer:
    """Traces documents of one collection. Raises as the source, `Inspection` and `Retry` do."""

    def __init__(self, subject: Subject, find_dead: FindDead) -> None:
        self._subject = subject
        self._find_dead = find_dead
        self._second = SecondLook(subject, subject.clock())

    def trace(self, ids: Sequence[str]) -> Trace:
        """The document with the first of these `_id`s (canonical Extended JSON) that exists."""
        found = self._subject.fetch([id_from_text(text) for text in ids])
        by_id = {reading.id: reading for reading in found}
        document = next((text for text in ids if text in by_id), None)
        if document is None:
            return self._gone(ids)
        return self._there(document, by_id[document])

    def _gone(self, ids: Sequence[str]) -> Trace:
        filled = {text: self._subject.inspection.filled(text) for text in ids}
        document = next((text for text, keys in filled.items() if keys), ids[0])
        told = Trace(self._subject.collection, readable_id(id_from_text(document)), found=False)
        told.keys = [_key_story(one, None) for one in self._judged(document, filled[document])]
        self._bury(told, document)
        left = sum(one.verdict == "orphaned" for one in told.keys)
        rest = f"{left} of its keys are still there: etl verify --repair removes them"
        told.story = f"not in MongoDB: no document has this _id; {rest if left else 'nothing of it is left'}"
        return told

    def _there(self, document: str, reading: Reading) -> Trace:
        inspection, ms = self._subject.inspection, reading.ms
        told = Trace(self._subject.collection, readable_id(reading.position.id), found=True)
        told.updated_at = None if ms is None else moment_text(ms)
        told.lock = reading.lock
        if reading.lock and (holder := inspection.holder(reading.lock)):
            told.lock_holder, told.lock_ttl_ms = holder
        state = self._subject.state([reading.position], frozenset())
        told.reached = state.known and state.reached(reading.position)
        told.deferred = document in state.deferred
        self._bury(told, document)
        if reading.reject is not None:
            told.reason = reading.reject.reason
            told.errors = [error._asdict() for error in reading.reject.errors]
        judged = self._judged(document, [*dict.fromkeys((*reading.claims, *inspection.filled(document)))])
        told.keys = [_key_story(one, reading) for one in judged]
        told.outcome = _outcome(told, judged, reading)
        told.story = _story(told)
        return told

    def _judged(self, document: str, keys: Sequence[str]) -> list[Judged]:
        suspects = [Suspect(key, document) for key in keys]
        return self._second.settle(suspects, repair=False) if suspects else []

    def _bury(self, told: Trace, document: str) -> None:
        letter = self._find_dead([document]).get(document)
        told.dead_letter = letter.as_dict() if letter else None


def _key_story(judged: Judged, reading: Reading | None) -> KeyStory:
    case, verdict = judged
    looked = case.looked
    return KeyStory(
        key=case.key,
        role=_role(reading.claims.get(case.key) if reading else None),
        verdict=verdict.name,
        why=verdict.why,
        type=looked.type if looked else None,
        ttl_ms=looked.ttl_ms if looked else None,
        newest=readable_id(case.newest.position.id) if case.newest else None,
    )


def _role(entry: Put | Evict | None) -> Role:
    if entry is None:
        return "left"
    return "fills" if isinstance(entry, Put) else "evicts"


def _outcome(told: Trace, judged: Sequence[Judged], reading: Reading) -> Outcome:
    """The one thing that explains the keys, the first that fits."""
    return next(_outcomes(told, judged, reading))


def _outcomes(told: Trace, judged: Sequence[Judged], reading: Reading) -> Iterator[Outcome]:
    own = [one for one in judged if one.case.key in reading.claims]
    verdicts = {one.verdict.name for one in own}
    decides = {one.case.newest.text == reading.text for one in own if one.case.newest}
    settled = verdicts <= {"matching", "absent"}
    if told.reason is not None:
        yield "invalid"
    if told.deferred or (told.lock_holder is not None and not (settled and told.reached)):
        yield "deferred"
    if "pending" in verdicts or not (told.reached or (verdicts and settled)):
        yield "pending"
    if True not in decides and decides:
        yield "superseded"
    yield from (outcome for name, outcome in _BY_VERDICT if name in verdicts)
    if any(one.role == "left" and one.verdict == "orphaned" for one in told.keys):
        yield "left_behind"
    if not verdicts:
        yield "queued"
    yield "evicted" if verdicts == {"absent"} else "well"


_BY_VERDICT: Final[Sequence[tuple[Name, Outcome]]] = (
    ("different", "overwritten"),
    ("missing", "missing"),
    ("orphaned", "left_behind"),
    ("deferred", "deferred"),
    ("expired", "expired"),
    ("left_alone", "shared"),
)


def _story(told: Trace) -> str:
    match told.outcome:
        case "invalid":
            errors = "; ".join(f"{error['field']} {error['problem']}" for error in told.errors)
            return f"invalid: {errors or told.reason}; nothing of it is applied until it is mended"
        case "deferred":
            return f"deferred: {_lock(told)}"
        case "superseded":
            newest = next(one.newest for one in told.keys if one.newest and one.newest != told.id)
            return f"superseded: document {newest} is newer and claims the same key, so it decides"
        case outcome:
            return _STORIES[outcome]


def _lock(told: Trace) -> str:
    if told.lock_holder is None:
        lock = told.lock or "the lock of its campaign"
        return f"it waited for {lock}, which is free by now; the next cycle applies it"
    left = "" if told.lock_ttl_ms is None else f" for {-(-told.lock_ttl_ms // 1000)} s more"
    held = f"its campaign is being generated, {told.lock} is held by {told.lock_holder}{left}"
    return f"{held}; the first cycle after that applies it"


_STORIES: Final[Mapping[str, str]] = {
    "pending": "not yet reached: it changed after the last cycle had read; the next cycle applies it",
    "overwritten": "overwritten: it was applied, and someone else has changed its key since;"
    " etl verify --repair writes it again",
    "missing": "lost: it was applied less than its TTL ago, and someone has removed its key, or Redis had to"
    " make room; etl verify --repair writes it again",
    "left_behind": "left behind: a key is still there that its document does not fill any more;"
    " etl verify --repair removes it",
    "evicted": "evicted: it is archived or marked as deleted, so its keys are removed on purpose",
    "expired": "expired: it changed longer ago than its keys live; a change or a refresh warms them again",
    "shared": "not judged: another collection claims its key too, or nobody is known to have filled it",
    "queued": "queued: it asks for a generation, and fills no key",
    "well": "all well: its keys hold what it says",
}
