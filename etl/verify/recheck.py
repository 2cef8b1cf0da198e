"""The recheck of keys that did not match.

The documents that claim a key are read between two reads of its owner register. If the register has changed, a writer
was at work, and the key is checked again. So a concurrent write is never reported as a mismatch.

A deletion changes no register. If a follower is at work, a mismatch counts only if it lasts longer than the follower
needs to apply a deletion.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from etl.cache.inspector import Claim, Inspector
from etl.cache.keys import StateKeys
from etl.errors import Interrupted
from etl.interfaces import Stages
from etl.model.result import GONE, TransformResult
from etl.sync.processor import Processor
from etl.verify.classify import MISMATCHES, KeyFacts, State, TTLs, Verdict, classify, lock_of
from etl.verify.findings import Finding
from schemas.operations import Evict, Put

_TRIES: Final = 4
_FOLLOWER_SECONDS: Final = 2.0
"""Time for a follower to apply a deletion: many times the usual one."""


@dataclass(frozen=True, slots=True)
class Scope:
    """A collection and its cache, with their settings."""

    collection: str
    stages: Stages
    inspector: Inspector
    processor: Processor
    source: str
    """The prefix of the names of its documents."""
    ttls: TTLs
    overlap: int
    """The overlap in milliseconds."""
    keys: StateKeys

    def is_ours(self, claim: Claim) -> bool:
        """Whether a document of this collection claims the key."""
        return claim.document.partition(" ")[0] == self.source


class Rechecked(NamedTuple):
    """One key: facts, verdict, and all documents that may claim it."""

    facts: KeyFacts
    verdict: Verdict
    documents: frozenset[str] = frozenset()

    @property
    def is_mismatch(self) -> bool:
        """Whether the verdict is a mismatch."""
        return self.verdict.name in MISMATCHES


def recheck(scope: Scope, findings: Sequence[Finding]) -> list[Rechecked]:
    """Recheck these keys.

    Raises:
        Interrupted: the command is to stop.
        EtlError: a server does not answer, or refuses.
    """
    waiting = {finding.key: finding for finding in findings}
    rechecked: dict[str, Rechecked] = {}
    for _ in range(_TRIES):
        if scope.stages.stop.is_set():
            raise Interrupted("stopped while verifying")
        rechecked |= _recheck_once(scope, [*waiting.values()])
        waiting = {key: finding for key, finding in waiting.items() if key not in rechecked}
        if not waiting:
            break
    unstable = Verdict("pending", "it changes faster than it can be checked")
    return [rechecked.get(f.key) or Rechecked(KeyFacts(f.key, None), unstable) for f in findings]


def confirmed(scope: Scope, findings: Sequence[Finding]) -> list[Rechecked]:
    """Recheck these keys; where a follower is at work, recheck the mismatches once more after a pause.

    For reports only: a repair takes nothing from a follower, which itself repairs what it has missed.

    Raises:
        Interrupted: the command is to stop.
        EtlError: a server does not answer, or refuses.
    """
    first = recheck(scope, findings)
    suspects = {one.facts.key for one in first if one.is_mismatch}
    if not suspects or not scope.inspector.exists(scope.keys.follow_lease):
        return first
    scope.stages.stop.wait(_FOLLOWER_SECONDS)
    again = {one.facts.key: one for one in recheck(scope, [f for f in findings if f.key in suspects])}
    behind = scope.inspector.field(scope.keys.follow, "caught_up") != "1"
    return [
        _lasting(one, again[one.facts.key], behind=behind) if one.facts.key in suspects else one
        for one in first
    ]


def write_of(result: TransformResult | None, key: str) -> Put | Evict | None:
    """The write of a document to a key; None if it does not claim the key."""
    return next((write for write in result.writes if write.key == key), None) if result else None


def members_of(write: Put | Evict | None) -> int:
    """The number of members of a write."""
    return len(write.value) if isinstance(write, Put) else 0


def state_of(scope: Scope, documents: Sequence[str], held: frozenset[str] = frozenset()) -> State:
    """The progress of the cycles, the records of these documents, and the locks held."""
    stored = scope.stages.store.load()
    return State(
        now=scope.stages.retry(scope.stages.reader.clock),
        checkpoint=stored.checkpoint,
        overlap=scope.overlap,
        records=scope.inspector.records(documents),
        deferred=frozenset(stored.deferred),
        held=held,
        scheduled=any(map(scope.inspector.exists, (scope.keys.leader, scope.keys.follow_lease))),
    )


def _lasting(first: Rechecked, second: Rechecked, *, behind: bool) -> Rechecked:
    """The second of two rechecks of a mismatch; pending if the follower may not have applied the cause yet."""
    if second.is_mismatch and (behind or second.facts.owner != first.facts.owner):
        return second._replace(verdict=Verdict("pending", "the follower has not applied the change yet"))
    return second


def _recheck_once(scope: Scope, findings: Sequence[Finding]) -> dict[str, Rechecked]:
    """The verdicts from one consistent read; keys that were written meanwhile are left out."""
    inspector = scope.inspector
    keys = [finding.key for finding in findings]
    locks = sorted({lock for key in keys if (lock := lock_of(key))})
    claims = inspector.claims(keys)
    documents = {
        finding.key: frozenset(
            [claim.document for claim in claims[finding.key] if scope.is_ours(claim)]
            + ([f"{scope.source} {finding.document}"] if finding.document else [])
        )
        for finding in findings
    }
    ids = sorted({name.partition(" ")[2] for names in documents.values() for name in names})
    found, newest = _read(scope, ids, keys)
    state = state_of(scope, [*found], scope.processor.held(locks))
    contents = inspector.contents({key: members_of(write_of(newest.get(key), key)) for key in keys})
    unchanged = {key for key, now in inspector.claims(keys).items() if now == claims[key]}
    rechecked = {}
    for key in unchanged:
        ours = [claim for claim in claims[key] if scope.is_ours(claim)]
        owner = max(ours, key=lambda claim: claim.position.order(), default=None)
        facts = KeyFacts(
            key,
            contents.get(key),
            newest.get(key),
            owner,
            found.get(owner.document) if owner else None,
            shared=len(ours) < len(claims[key]),
        )
        rechecked[key] = Rechecked(facts, classify(facts, state, scope.ttls), documents[key])
    return rechecked


def _read(
    scope: Scope, ids: Sequence[str], keys: Sequence[str]
) -> tuple[dict[str, TransformResult], Mapping[str, TransformResult]]:
    """Read the documents of these `_id`s; return them by name, and the newest claimant of each key."""
    found: dict[str, TransformResult] = {}
    newest: dict[str, TransformResult] = {}
    wanted = frozenset(keys)
    for start in range(0, len(ids), scope.stages.page_size):
        _, results = scope.processor.read(ids[start : start + scope.stages.page_size])
        found |= {result.document: result for result in results if result.timestamp != GONE}
    for result in sorted(found.values(), key=lambda one: one.position.order()):
        newest |= {write.key: result for write in result.writes if write.key in wanted}
    return found, newest
