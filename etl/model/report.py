"""What one run of a collection did: the numbers `etl sync` prints and the history keeps."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from etl.model.batch import BatchOutcome
from etl.model.state import DeadLetter

Status = Literal["ok", "failed", "locked"]
Mode = Literal["delta", "cold_start", "backfill"]

SHOWN_DEAD_LETTERS: Final = 10
"""How many rejected documents a report names; `etl dead-letters list` has them all."""


@dataclass(slots=True)
class Report:
    """The tally of one run; every count is in documents.

    `records_processed` counts documents applied (warmed, evicted or enqueued): not those skipped
    because they were applied before, deferred, or dead-lettered. `deferred` and `unreachable` say
    how many there are at the end of the run, the other counts what the run itself did.
    """

    collection: str
    status: Status = "ok"
    mode: Mode = "delta"
    records_processed: int = 0
    written: int = 0
    evicted: int = 0
    enqueued: int = 0
    dead_lettered: int = 0
    deferred: int = 0
    unreachable: int = 0
    sync_duration_ms: int = 0
    last_id: str | None = None
    last_timestamp: str | None = None
    error: str | None = None
    dead_letters: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int = 0
    entries: Counter[str] = field(default_factory=Counter)
    """How many entries of each family were written."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why documents were not applied, and how many for each reason."""
    incomplete: int = 0
    """Keys that were removed though older documents may claim them: a reconciliation finds those."""
    before: int = 0
    """How many documents were done before, where this goes on with a backfill that was cut short."""

    def as_dict(self) -> dict[str, Any]:
        """The report as `etl sync --json` prints it, in the order of the fields above."""
        shown = asdict(self)
        for inner in ("exit_code", "entries", "reasons", "incomplete", "before"):
            del shown[inner]
        return shown

    def add(self, outcome: BatchOutcome, letters: Sequence[DeadLetter]) -> None:
        """Count one batch, and the dead letters that were made of it."""
        self.records_processed += outcome.processed
        self.written += outcome.written
        self.evicted += outcome.evicted
        self.enqueued += outcome.enqueued
        self.deferred += len(outcome.deferred)
        self.entries.update(outcome.entries)
        self.dead_lettered += len(letters)
        self.reasons.update(letter.why() for letter in letters)
        self.dead_letters += [
            letter.as_dict() for letter in letters[: SHOWN_DEAD_LETTERS - len(self.dead_letters)]
        ]
        self.incomplete += outcome.incomplete

    def failed(self, error: str, exit_code: int, status: Status = "failed") -> "Report":
        """This report, ended by an error: `exit_code` is what the command line ends with."""
        self.status, self.error, self.exit_code = status, error, exit_code
        return self


@dataclass(slots=True)
class RefreshReport:
    """What `etl refresh` did; `written` and `evicted` count keys, the others documents."""

    family: str
    name: str | None
    written: int = 0
    evicted: int = 0
    rejected: int = 0
    deferred: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The report as `etl refresh --json` prints it."""
        return asdict(self)


Progress = Callable[[Report], None]
"""Is told after each page how far a run is."""


def unheard(_: Report) -> None:
    """The progress that nobody wants to know."""
