"""The heart: one cycle of one collection over the four stages.

source → transform → cache → checkpoint, a page at a time. Here it is decided what is read, and where
the watermark moves; `apply` says how each batch is applied.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple

from etl.backfill.pipeline import Pipeline
from etl.errors import Interrupted
from etl.interfaces import Stages
from etl.model.moments import moment_text
from etl.model.outcome import Outcome
from etl.model.report import Progress, Report, unheard
from etl.model.state import Reached, State
from etl.mongo.pages import pages
from etl.sync.apply import Applier, Treatment
from etl.sync.batch import Decision
from etl.sync.planner import (
    Backfilled,
    Clocks,
    Limits,
    Scan,
    caught_up,
    earliest,
    latest,
    plan,
    remembered_since,
)
from etl.transform.sheet import Sheet
from schemas.ids import readable_id
from schemas.position import Position, after, at


class Rules(NamedTuple):
    """What the settings say of one collection."""

    collection: str
    limits: Limits
    page_size: int
    progress: Progress = unheard


class Cycle:
    """One run, under the lease whose fencing token is given. Used once."""

    def __init__(self, stages: Stages, rules: Rules, token: str, report: Report) -> None:
        self._stages = stages
        self._rules = rules
        self._token = token
        self._report = report
        self._position: Position | None = None
        self._scan: Scan
        self._since: int | None = None
        self._state = State()
        self._applier: Applier

    def run(self, again: Sequence[str] = (), since: Backfilled | None = None) -> Report:
        """Read what is new, apply it, and move the watermark.

        Args:
            again: documents to read again whatever the watermark says, by `_id` as canonical
                Extended JSON (dead letters a person wants retried).
            since: what a backfill has read: read all that changed since it began, whatever was seen.

        Raises:
            EtlError: the cycle ended early; what it had checkpointed stands, and the next one
                resumes there.
        """
        began = time.monotonic()
        self._begin(since)
        self._applier.reread(again, self._rules.page_size)
        self._read()
        self._retry_deferred()
        self._report.sync_duration_ms = round((time.monotonic() - began) * 1000)
        self._finish()
        return self._report

    def _begin(self, since: Backfilled | None) -> None:
        source, retry = self._stages.source, self._stages.retry
        self._state = self._stages.checkpoint.load()
        retry(source.prepare)
        now = Clocks(retry(source.clock), self._state.now)
        checkpoint, limits = self._state.checkpoint, self._rules.limits
        if since is None:
            self._scan = plan(checkpoint, now, limits)
        else:
            self._scan = caught_up(checkpoint, now, limits, since.began)
        # What a cache remembers that has lost its checkpoint is not to be trusted: all is applied anew.
        if checkpoint and since is None:
            self._since = remembered_since(checkpoint, self._scan, limits.overlap)
        self._position = checkpoint.position if checkpoint else since and since.position
        self._report.mode = self._scan.mode
        self._applier = Applier(self._stages, self._token, self._state, self._report, self._reached)

    def _read(self) -> None:
        # A start from now that was cut goes on as a plain scan: it may apply a document too many.
        fresh_from_now = self._state.checkpoint is None and self._rules.limits.cold_start == "now"
        treat = self._pass if fresh_from_now and self._scan.mode == "cold_start" else self._apply
        found = pages(self._stages.source, self._scan, self._rules.page_size, self._stages.retry)
        for sheet, last in self._pipeline()(found):
            if self._stages.stop.is_set():
                raise Interrupted("stopped between two batches; the next cycle goes on from there")
            self._move(sheet, last)
            if sheet:
                treat(sheet)
            self._rules.progress(self._report)

    def _pipeline(self) -> Pipeline[Sheet]:
        return self._stages.crew if self._scan.mode == "cold_start" else self._stages.inline

    def _move(self, sheet: Sheet, last: Position | None) -> None:
        """Advance the cursor, and the watermark as far as the server's clock allows."""
        if last is not None:
            self._scan = self._scan.moved(last)
        clock = self._scan.clocks.mongo
        newest = sheet.newest(clock)
        self._position = latest(self._position, newest.position if newest else None)

    def _apply(self, outcomes: Sequence[Outcome]) -> None:
        self._applier.apply(outcomes, Treatment(self._since, self._state.waiting))

    def _pass(self, outcomes: Sequence[Outcome]) -> None:
        """Leave out what was there when a cold start from now began, and apply what has come since."""
        began = after(self._scan.clocks.mongo)
        since = [o for o in outcomes if earliest(o.position, began) == began]
        self._applier.record(Decision(passed=[o for o in outcomes if earliest(o.position, began) != began]))
        if since:
            self._apply(since)

    def _retry_deferred(self) -> None:
        """Apply what waited for locks that are gone. What of it is newer by now is applied as it is now.

        Only after the scan: an older document that the scan meets late joins those that wait, and so
        cannot come after them.
        """
        if not self._state.deferred:
            return
        locks = sorted(self._state.waiting)
        held = self._stages.retry(lambda: self._stages.cache.held(locks))
        waiting = sorted(self._state.deferred.items(), key=lambda item: item[1].position.order())
        free = [key for key, deferral in waiting if deferral.lock not in held]
        self._applier.reread(free, self._rules.page_size)

    def _finish(self) -> None:
        report, reached = self._report, self._reached()
        report.unreachable = self._stages.retry(self._stages.source.unreachable)
        report.deferred = len(self._state.deferred)
        if reached.position is not None and reached.position.ms is not None:
            report.last_id = readable_id(reached.position.id)
            report.last_timestamp = moment_text(reached.position.ms)
        window = at(reached.window)
        # What waits must find out, when its turn comes, whether a newer document has claimed its keys.
        waiting = (deferral.position for deferral in self._state.deferred.values())
        forget = earliest(reached.position or window, window, *waiting)
        self._stages.checkpoint.finish(self._token, reached, forget.ms or 0, report)

    def _reached(self) -> Reached:
        window = self._scan.clocks.mongo - self._rules.limits.overlap
        return Reached(self._scan, self._position, window)
