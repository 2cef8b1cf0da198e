"""The recheck of keys that did not match: all that decides about a key, read as of one moment.

The documents that claim a key are read between two readings of the register of its claims. Where that has
changed, a writer was at work, and the key is checked again. So what was written meanwhile is no mismatch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from etl.cache.inspector import Claim, Inspector
from etl.errors import Interrupted
from etl.interfaces import Stages
from etl.model.result import GONE, TransformResult
from etl.sync.processor import Processor
from etl.verify.classify import MISMATCHES, KeyFacts, State, TTLs, Verdict, classify, lock_of
from etl.verify.findings import Finding
from schemas.operations import Evict, Put

_TRIES: Final = 4


@dataclass(frozen=True, slots=True)
class Scope:
    """One collection and its cache, and what the settings say of both."""

    collection: str
    stages: Stages
    inspector: Inspector
    processor: Processor
    source: str
    """What the names of its documents begin with."""
    ttls: TTLs
    overlap: int
    """How late documents are committed, in milliseconds."""
    leader_key: str
    """Exists while a daemon is at work."""

    def is_ours(self, claim: Claim) -> bool:
        """Whether a document of this collection claims the key."""
        return claim.document.partition(" ")[0] == self.source


class Rechecked(NamedTuple):
    """One key: what is known of it, the verdict, and all documents that may claim it."""

    facts: KeyFacts
    verdict: Verdict
    documents: frozenset[str] = frozenset()

    @property
    def is_mismatch(self) -> bool:
        """Whether the key is not as it should be."""
        return self.verdict.name in MISMATCHES


def recheck(scope: Scope, findings: Sequence[Finding]) -> list[Rechecked]:
    """The verdict on each of these keys.

    Raises:
        Interrupted: the command is to stop.
        EtlError: a server stays away, or refuses.
    """
    waiting = {finding.key: finding for finding in findings}
    rechecked: dict[str, Rechecked] = {}
    for _ in range(_TRIES):
        if scope.stages.stop.is_set():
            raise Interrupted("stopped while verifying; nothing is half done")
        rechecked |= _at_one_moment(scope, [*waiting.values()])
        waiting = {key: finding for key, finding in waiting.items() if key not in rechecked}
        if not waiting:
            break
    hasty = Verdict("pending", "it changes faster than it can be looked at")
    return [rechecked.get(f.key) or Rechecked(KeyFacts(f.key, None), hasty) for f in findings]


def write_of(result: TransformResult | None, key: str) -> Put | Evict | None:
    """What a document says of a key."""
    return next((write for write in result.writes if write.key == key), None) if result else None


def members_of(write: Put | Evict | None) -> int:
    """How many members a key should have."""
    return len(write.value) if isinstance(write, Put) else 0


def state_of(scope: Scope, documents: Sequence[str], held: frozenset[str] = frozenset()) -> State:
    """How far the cycles are, with these documents among others, while these locks are held."""
    stored = scope.stages.store.load()
    return State(
        now=scope.stages.retry(scope.stages.reader.clock),
        checkpoint=stored.checkpoint,
        overlap=scope.overlap,
        records=scope.inspector.records(documents),
        deferred=frozenset(stored.deferred),
        held=held,
        scheduled=scope.inspector.exists(scope.leader_key),
    )


def _at_one_moment(scope: Scope, findings: Sequence[Finding]) -> dict[str, Rechecked]:
    """The verdicts, but for keys that were written meanwhile."""
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
    """The documents of these `_id`s that exist, by name, and the newest of them that claims each key."""
    found: dict[str, TransformResult] = {}
    newest: dict[str, TransformResult] = {}
    wanted = frozenset(keys)
    for start in range(0, len(ids), scope.stages.page_size):
        _, results = scope.processor.read(ids[start : start + scope.stages.page_size])
        found |= {result.document: result for result in results if result.timestamp != GONE}
    for result in sorted(found.values(), key=lambda one: one.position.order()):
        newest |= {write.key: result for write in result.writes if write.key in wanted}
    return found, newest
