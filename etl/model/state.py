"""What the heart knows of a collection while it works: read once, then kept in step with Redis."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from etl.sync.planner import Checkpoint, Scan
from schemas.operations import FieldError, Reject
from schemas.position import Position, position_from_text

SEEN_CAP: Final = 100_000
"""So many versions are remembered as handled. Beyond it all are forgotten and the documents of the
overlap are applied again by the next cycle: more work, never a gap."""

DEAD_LETTER_CAP: Final = 10_000
"""So many dead letters are kept per collection; further ones are counted only."""


@dataclass(frozen=True, slots=True)
class Deferral:
    """A document that waits for the generation lock of its campaign."""

    lock: str
    """The full key of the lock."""
    since: str
    """When it was first put off, ISO 8601 in UTC."""
    position: Position

    def text(self) -> str:
        """As it is kept in Redis."""
        return json.dumps({"lock": self.lock, "since": self.since, "position": self.position.text()})

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {"lock": self.lock, "since": self.since}


def deferral_from_text(text: str) -> Deferral:
    """The inverse of `Deferral.text`."""
    value = json.loads(text)
    return Deferral(value["lock"], value["since"], position_from_text(value["position"]))


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why one document could not be applied; never its content. Times are ISO 8601 in UTC."""

    id: str
    """The `_id` as canonical Extended JSON."""
    reason: str
    errors: tuple[FieldError, ...]
    first_seen: str
    last_seen: str
    attempts: int

    def text(self) -> str:
        """As it is kept in Redis."""
        return json.dumps(self.as_dict(), ensure_ascii=False)

    def why(self) -> str:
        """The reason with every field that is wrong, in one line."""
        problems = "; ".join(f"{error.field}: {error.problem}" for error in self.errors)
        return f"{self.reason} ({problems})" if problems else self.reason

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self) | {"errors": [error._asdict() for error in self.errors]}


def dead_letter(document_id: str, reject: Reject, now: str, before: DeadLetter | None) -> DeadLetter:
    """The dead letter of a document that was refused at `now`, perhaps not for the first time."""
    first, attempts = (now, 0) if before is None else (before.first_seen, before.attempts)
    return DeadLetter(document_id, reject.reason, reject.errors, first, now, attempts + 1)


def dead_letter_from_text(text: str) -> DeadLetter:
    """The inverse of `DeadLetter.text`."""
    value = json.loads(text)
    return DeadLetter(**value | {"errors": tuple(FieldError(**error) for error in value["errors"])})


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a cycle is: its scan, the watermark, and from which millisecond on the next one reads again."""

    scan: Scan
    position: Position | None
    window: int


@dataclass(slots=True)
class State:
    """A collection as Redis has it. The holder of the lease is the only one who changes it."""

    checkpoint: Checkpoint | None = None
    now: int = 0
    """The clock of Redis when the state was read, in milliseconds since the epoch."""
    deferred: dict[str, Deferral] = field(default_factory=dict)
    """What waits for a lock, by `_id` as canonical Extended JSON."""
    dead_letters: int = 0
    seen: int = 0
    """How many versions are remembered as handled."""
    claims: int = 0
    """How many keys have a remembered newest claim."""
    queues: frozenset[str] = frozenset()
    """Keys of the queues that the collection feeds."""
    overflowed: bool = False
    """Whether this scan met more than `SEEN_CAP` documents, and remembers none."""

    @property
    def waiting(self) -> frozenset[str]:
        """The locks that documents wait for."""
        return frozenset(deferral.lock for deferral in self.deferred.values())
