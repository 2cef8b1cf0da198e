"""Explains one document: its keys in Redis, and why each is there or not."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, NamedTuple

from etl.model.result import GONE, TransformResult, gone
from etl.model.state import DeadLetter
from etl.model.times import iso_utc
from etl.verify.classify import Name
from etl.verify.findings import Finding
from etl.verify.recheck import Rechecked, Scope, confirmed, state_of, write_of
from schemas.ids import id_from_text, readable_id
from schemas.operations import Put

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

FindDeadLetters = Callable[[Sequence[str]], Mapping[str, DeadLetter]]
"""Finds the dead letters of documents, by `_id` as canonical Extended JSON."""


class KeyStory(NamedTuple):
    """One key of the document: its state in Redis, and the verdict."""

    key: str
    role: Role
    """What the document does with the key: `left` is a key that an earlier version filled."""
    verdict: Name
    why: str
    type: str | None
    ttl_ms: int | None
    """Remaining milliseconds; None for an absent key or one without TTL."""
    newest: str | None
    """The `_id` of the document that decides, readable form."""


@dataclass(slots=True)
class Trace:
    """The explanation of one document."""

    collection: str
    id: str
    """The `_id`, readable form."""
    found: bool
    updated_at: str | None = None
    reason: str | None = None
    """Why it is invalid; None for one that is not."""
    errors: list[dict[str, str]] = field(default_factory=list)
    keys: list[KeyStory] = field(default_factory=list)
    dead_letter: dict[str, Any] | None = None
    deferred: bool = False
    """Whether it is deferred."""
    lock: str | None = None
    """The key of its lock; None for kinds without a lock."""
    lock_holder: str | None = None
    """The holder of the lock, if it is held."""
    lock_ttl_ms: int | None = None
    reached: bool | None = None
    """Whether the cycles have passed this version; None without a document."""
    outcome: Outcome = "gone"
    story: str = ""
    """The reason as one line."""

    def as_dict(self) -> dict[str, Any]:
        """The trace as `etl trace --json` prints it."""
        return asdict(self) | {"keys": [one._asdict() for one in self.keys]}


def trace_document(scope: Scope, find_dead_letters: FindDeadLetters, ids: Sequence[str]) -> Trace:
    """Explain the document with the first of these `_id`s (canonical Extended JSON) that exists.

    Raises:
        EtlError: a server does not answer, or refuses.
    """
    inspector = scope.inspector
    _, results = scope.processor.read(ids)
    existing = {result.id: result for result in results if result.timestamp != GONE}
    records = inspector.records([f"{scope.source} {text}" for text in ids])
    recorded = {name.partition(" ")[2]: record.keys for name, record in records.items()}
    found = [text for text in ids if text in existing] or [*existing]
    document = next(iter([*found, *recorded, *ids]))
    result = existing.get(document) or gone(f"{scope.source} {document}")
    trace = Trace(scope.collection, readable_id(id_from_text(document)), found=bool(found))
    keys = dict.fromkeys([*(write.key for write in result.writes), *recorded.get(document, ())])
    rechecked = confirmed(scope, [Finding(key, None, document) for key in keys]) if keys else []
    kept = {keep.key for keep in result.keeps}
    trace.keys = [
        _key_story(one, result) for one in rechecked if one.facts.content or one.facts.key not in kept
    ]
    letter = find_dead_letters([document]).get(document)
    trace.dead_letter = letter.as_dict() if letter else None
    if not found:
        left = sum(one.verdict == "orphaned" for one in trace.keys)
        rest = f"keys that remain: {left}; etl verify --repair removes them"
        waits = any(one.verdict == "pending" for one in trace.keys)
        end = rest if left else "the follower removes its keys" if waits else "none of its keys is left"
        trace.story = f"not in MongoDB: no document has this _id; {end}"
        return trace
    trace.updated_at = None if result.ms is None else iso_utc(result.ms)
    trace.lock = result.lock
    if result.lock and (holder := inspector.holder(result.lock)):
        trace.lock_holder, trace.lock_ttl_ms = holder
    state = state_of(scope, [result.document])
    trace.reached = state.checkpoint is not None and state.reached(result)
    trace.deferred = document in state.deferred
    if result.reject is not None:
        trace.reason = result.reject.reason
        trace.errors = [error._asdict() for error in result.reject.errors]
    trace.outcome = next(_outcomes(trace, rechecked, result))
    trace.story = _story(trace)
    return trace


def _key_story(one: Rechecked, result: TransformResult) -> KeyStory:
    facts, verdict, _ = one
    content, write = facts.content, write_of(result, facts.key)
    return KeyStory(
        key=facts.key,
        role="left" if write is None else "fills" if isinstance(write, Put) else "evicts",
        verdict=verdict.name,
        why=verdict.why,
        type=content.type if content else None,
        ttl_ms=content.ttl_ms if content else None,
        newest=readable_id(facts.newest.position.id) if facts.newest else None,
    )


def _outcomes(trace: Trace, rechecked: Sequence[Rechecked], result: TransformResult) -> Iterator[Outcome]:
    """The outcomes that apply; the first one counts."""
    own = [one for one in rechecked if write_of(result, one.facts.key)]
    verdicts = {one.verdict.name for one in own}
    decides = {one.facts.newest.document == result.document for one in own if one.facts.newest}
    settled = verdicts <= {"matching", "absent"}
    if trace.reason is not None:
        yield "invalid"
    if trace.deferred or (trace.lock_holder is not None and not (settled and trace.reached)):
        yield "deferred"
    if "pending" in verdicts or not (trace.reached or (verdicts and settled)):
        yield "pending"
    if True not in decides and decides:
        yield "superseded"
    yield from (outcome for name, outcome in _BY_VERDICT if name in verdicts)
    if any(one.role == "left" and one.verdict == "orphaned" for one in trace.keys):
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


def _story(trace: Trace) -> str:
    match trace.outcome:
        case "invalid":
            errors = "; ".join(f"{error['field']} {error['problem']}" for error in trace.errors)
            return f"invalid: {errors or trace.reason}; it is not applied until it is valid"
        case "deferred":
            return f"deferred: {_lock(trace)}"
        case "superseded":
            newest = next(one.newest for one in trace.keys if one.newest and one.newest != trace.id)
            return f"superseded: document {newest} is newer and claims the same key, so it decides"
        case "expired" if trace.updated_at is None:
            return "expired: it has no timestamp, so no cycle writes its keys; set one, or run etl backfill"
        case outcome:
            return _STORIES[outcome]


def _lock(trace: Trace) -> str:
    if trace.lock_holder is None:
        lock = trace.lock or "the lock of its campaign"
        return f"it waited for {lock}, which is free now; the next cycle applies it"
    left = "" if trace.lock_ttl_ms is None else f" for {-(-trace.lock_ttl_ms // 1000)} s more"
    held = f"its campaign is being generated, {trace.lock} is held by {trace.lock_holder}{left}"
    return f"{held}; the first cycle after its release applies it"


_STORIES: Final[Mapping[str, str]] = {
    "pending": "not yet reached: it changed after the read of the last cycle; the next cycle applies it",
    "overwritten": "overwritten: it was applied, and its key was changed by another program since;"
    " etl verify --repair writes it again",
    "missing": "lost: it was applied less than its TTL ago, but its key was removed by another program, or Redis"
    " evicted it; etl verify --repair writes it again",
    "left_behind": "left behind: a key still exists that its document does not fill any more;"
    " etl verify --repair removes it",
    "evicted": "evicted: it is archived or marked as deleted, so its keys are removed on purpose",
    "expired": "expired: it changed longer ago than the TTL of its keys; a change or a refresh writes them again",
    "shared": "not judged: another collection claims its key too, or no document is known to have filled it",
    "queued": "queued: it requests a generation and fills no key",
    "well": "all well: its keys match it",
}
