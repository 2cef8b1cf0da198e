"""The report of a run: printed by `etl sync`, kept in the history."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from etl.model.batch import BatchOutcome
from etl.model.state import DeadLetter

Status = Literal["ok", "failed", "locked"]
Mode = Literal["delta", "cold_start", "backfill"]

SHOWN_DEAD_LETTERS: Final = 10
"""Number of dead letters in a report; `etl dead-letters list` has all."""


@dataclass(slots=True)
class Report:
    """The counts of one run, in documents.

    `records_processed` counts documents applied (written, evicted or enqueued): not those skipped as done, deferred or
    dead-lettered. `deferred` and `unreachable` are the numbers at the end of the run, the other counts are of the run
    itself.
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
    """Entries written per family."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Number of documents per reason why they were not applied."""
    incomplete: int = 0
    """Keys removed although older documents may claim them: a reconciliation is due."""
    before: int = 0
    """Documents read before the interruption, if the run resumes a backfill."""

    def as_dict(self) -> dict[str, Any]:
        """The report as `etl sync --json` prints it, in the order of the fields above."""
        internal = {"exit_code", "entries", "reasons", "incomplete", "before"}
        return {name: value for name, value in asdict(self).items() if name not in internal}

    def add(self, outcome: BatchOutcome, letters: Sequence[DeadLetter]) -> None:
        """Add the counts of one batch and its dead letters."""
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
        """Mark the report as failed; `exit_code` is that of the command line."""
        self.status, self.error, self.exit_code = status, error, exit_code
        return self


@dataclass(slots=True)
class RefreshReport:
    """The report of `etl refresh`; `written` and `evicted` count keys, the others documents."""

    family: str
    name: str | None
    documents: int = 0
    """Documents of that family, and of that name, in MongoDB."""
    written: int = 0
    evicted: int = 0
    rejected: int = 0
    deferred: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The report as `etl refresh --json` prints it."""
        return asdict(self)


ProgressCallback = Callable[[Report], None]
"""Is called with the report after each page."""


def no_progress(_: Report) -> None:
    """No-op progress callback."""
