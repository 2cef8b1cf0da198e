"""Backfill: every document of a collection into the caches, beside the cycles.

The same stages as a cycle's, over all of the index, with a lease and a checkpoint of their own: so it
resumes where it was cut, and moves no watermark. What a cycle wrote meanwhile stands: of each key the
newest claim is known while it is written. The cycle that follows reads again all that changed since.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from etl.backfill.pipeline import Executors
from etl.backfill.rate_limit import Pace
from etl.errors import Interrupted
from etl.interfaces import Page, Stages
from etl.model.moments import moment_text
from etl.model.report import Progress, Report
from etl.model.state import Reached, State, dead_letter
from etl.mongo.pages import pages
from etl.sync.apply import Applier, Treatment, tally
from etl.sync.batch import Sight, decide
from etl.sync.planner import Backfilled, Bounds, Clocks, Scan, backfill
from etl.transform.sheet import Sheet
from schemas.ids import readable_id
from schemas.position import Position

_NEVER = 2**63
"""A window that no document is in: what a backfill applies is for the cycles to remember."""


@dataclass(frozen=True, slots=True)
class BackfillOrder:
    """A backfill as a person asks for it."""

    bounds: Bounds = field(default_factory=Bounds)
    executors: Executors | None = None
    """Who transforms; by default as many processes as the settings say."""
    rate: float | None = None
    """At most so many documents a second."""
    restart: bool = False
    """Whether to begin anew where an earlier one was cut."""
    dry_run: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether it leaves nothing out."""
        return self.bounds == Bounds()


class Rules(NamedTuple):
    """How a backfill goes about it."""

    bounds: Bounds
    page_size: int
    pace: Pace
    restart: bool
    progress: Progress


class Backfill:
    """One run, under the backfill's lease whose fencing token is given. Used once."""

    def __init__(self, stages: Stages, rules: Rules, token: str, report: Report) -> None:
        self._stages = stages
        self._rules = rules
        self._token = token
        self._report = report
        self._began = time.monotonic()
        self._scan: Scan
        self._state = State()
        self._newest: Position | None = None

    def run(self) -> Backfilled:
        """Read and apply all of it; returns what that was.

        Raises:
            EtlError: it ended early; the next one goes on where it was.
        """
        self._begin()
        applier = Applier(self._stages, self._token, self._state, self._report, self._reached)
        for sheet, last in self._stages.crew(self._pages()):
            _check(self._stages)
            self._rules.pace.take(len(sheet))
            if last is not None:
                self._move(sheet, last)
            if sheet:
                applier.apply(sheet, Treatment(waiting=self._state.waiting, read_ahead=True))
            self._tell(sheet)
        return Backfilled(self._scan.clocks, self._newest)

    def end(self) -> None:
        """Record that it is done, once a cycle has caught up with what changed meanwhile."""
        self._report.unreachable = self._stages.retry(self._stages.source.unreachable)
        self._report.deferred = len(self._state.deferred)
        self._time()
        self._stages.checkpoint.end(self._token, self._scan, self._report)

    def _begin(self) -> None:
        source, retry = self._stages.source, self._stages.retry
        self._state = self._stages.checkpoint.load()
        retry(source.prepare)
        now = Clocks(retry(source.clock), self._state.now)
        before = None if self._rules.restart else self._state.checkpoint
        self._scan = backfill(before, now, self._rules.bounds)
        self._report.before = self._scan.done
        stood, clock = self._scan.cursor, self._scan.clocks.mongo
        self._newest = stood if stood != self._scan.begin and (stood.ms or clock) < clock else None

    def _move(self, sheet: Sheet, cursor: Position) -> None:
        self._scan = self._scan.moved(cursor, len(sheet))
        clock = self._scan.clocks.mongo
        newest = sheet.newest(clock)
        self._newest = newest.position if newest else self._newest

    def _pages(self) -> Iterator[Page]:
        return pages(self._stages.source, self._scan, self._rules.page_size, self._stages.retry)

    def _reached(self) -> Reached:
        return Reached(self._scan, None, _NEVER)

    def _tell(self, sheet: Sheet) -> None:
        _note_position(self._report, sheet)
        self._time()
        self._rules.progress(self._report)

    def _time(self) -> None:
        self._report.sync_duration_ms = round((time.monotonic() - self._began) * 1000)


def rehearse(stages: Stages, rules: Rules, report: Report) -> None:
    """Read and validate what a backfill would, and count what it would do; nothing is written.

    Raises:
        EtlError: MongoDB stays away, or refuses.
    """
    began = time.monotonic()
    stages.retry(stages.source.prepare)
    clock = stages.retry(stages.source.clock)
    scan = backfill(None, Clocks(clock, clock), rules.bounds)
    for sheet, _ in stages.crew(pages(stages.source, scan, rules.page_size, stages.retry)):
        _check(stages)
        rules.pace.take(len(sheet))
        decision = decide(sheet, Sight(), frozenset())
        now = moment_text(clock)
        letters = [dead_letter(o.id, o.reject, now, None) for o in decision.rejected if o.reject]
        tally(report, decision, letters)
        report.enqueued += len(decision.requests)
        _note_position(report, sheet)
        report.sync_duration_ms = round((time.monotonic() - began) * 1000)
        rules.progress(report)
    report.unreachable = stages.retry(stages.source.unreachable)


def _check(stages: Stages) -> None:
    if stages.stop.is_set():
        raise Interrupted("stopped between two batches; the same command goes on from there")


def _note_position(report: Report, sheet: Sheet) -> None:
    newest = sheet.newest()
    if newest is not None and newest.ms is not None:
        report.last_id = readable_id(newest.position.id)
        report.last_timestamp = moment_text(newest.ms)
