"""The state of a collection in Redis: dead letters, deferrals, checkpoint."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from etl.model.batch import Rejected
from etl.model.scan import Checkpoint, Origin
from schemas.operations import FieldError

DEAD_LETTER_CAP: Final = 10_000
"""Maximum of dead letters per collection; further ones are only counted."""


@dataclass(frozen=True, slots=True)
class Deferral:
    """A document that waits for the generation lock of its campaign."""

    lock: str
    """The full key of the lock."""
    since: str
    """When it was first deferred, ISO 8601 in UTC."""

    def text(self) -> str:
        """As it is kept in Redis."""
        return json.dumps(asdict(self))

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self)


def deferral_from_text(text: str) -> Deferral:
    """The inverse of `Deferral.text`."""
    return Deferral(**json.loads(text))


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The reason why a document could not be applied; never its content. Times are ISO 8601 in UTC."""

    id: str
    """The `_id` as canonical Extended JSON."""
    reason: str
    errors: tuple[FieldError, ...]
    first_seen: str
    last_seen: str
    attempts: int
    version: str = ""
    """The timestamp of the version that was refused last."""

    def text(self) -> str:
        """As it is kept in Redis."""
        return json.dumps(self.as_dict(), ensure_ascii=False)

    def why(self) -> str:
        """The reason with every invalid field, in one line."""
        problems = "; ".join(f"{error.field}: {error.problem}" for error in self.errors)
        return f"{self.reason} ({problems})" if problems else self.reason

    def as_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self) | {"errors": [error._asdict() for error in self.errors]}


def dead_letter(rejected: Rejected, now: str, before: DeadLetter | None) -> DeadLetter:
    """The dead letter of a document rejected at `now`; `before` is its earlier one."""
    first, attempts = (now, 0) if before is None else (before.first_seen, before.attempts)
    reject = rejected.reject
    return DeadLetter(rejected.id, reject.reason, reject.errors, first, now, attempts + 1, rejected.version)


def dead_letter_from_text(text: str) -> DeadLetter:
    """The inverse of `DeadLetter.text`."""
    value = json.loads(text)
    return DeadLetter(**value | {"errors": tuple(FieldError(**error) for error in value["errors"])})


@dataclass(frozen=True, slots=True)
class State:
    """The state of a collection at the start of a run."""

    checkpoint: Checkpoint | None = None
    origin: Origin | None = None
    """The source of the checkpoint; None before the first run."""
    now: int = 0
    """The clock of Redis when the state was read, in milliseconds since the epoch."""
    deferred: Mapping[str, Deferral] = field(default_factory=dict)
    """Deferred documents, by `_id` as canonical Extended JSON."""
    dead_letters: int = 0
    sweeps: Mapping[str, str] = field(default_factory=dict)
    """The cursor of the sweep of each queue's requests."""
    queues: frozenset[str] = frozenset()
    """Keys of the queues that the collection feeds."""
    primaries: frozenset[str] = frozenset()
    """The replication ids of the primaries of Redis when the last cycle ended, or the first or a backfill began."""
