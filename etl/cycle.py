"""The heart: one cycle of one collection over the four stages.

source → transform → cache → checkpoint, a page at a time. The order of the last two is what keeps
the checkpoint from lying: it moves only after every reply of the batch was read and was no error.
Every step is idempotent, so `retry` may repeat it while a server is away.
"""

import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from etl.batch import Decision, Outcome, Sight, confirmed, contested, decide
from etl.errors import CycleFailed, Interrupted
from etl.moments import moment_text
from etl.ports import Page, Stages
from etl.report import SHOWN_DEAD_LETTERS, Report
from etl.scan import Clocks, Limits, Scan, earliest, latest, plan, remembered_since
from etl.state import DeadLetter, Reached, State, dead_letter
from schemas.entries import Evict, Put, Reject
from schemas.position import Position, after, at, id_from_text, id_text, readable_id


class Rules(NamedTuple):
    """What the settings say of one collection."""

    collection: str
    limits: Limits
    page_size: int


class Cycle:
    """One run, under the lease whose fencing token is given. Used once."""

    def __init__(self, stages: Stages, rules: Rules, token: str, report: Report) -> None:
        self._stages = stages
        self._rules = rules
        self._token = token
        self._report = report
        self._state = State()
        self._position: Position | None = None
        self._scan: Scan
        self._since: int | None = None

    def run(self, again: Sequence[str] = ()) -> Report:
        """Read what is new, apply it, and move the watermark.

        Args:
            again: documents to read again whatever the watermark says, by `_id` as canonical
                Extended JSON (dead letters a person wants retried).

        Raises:
            EtlError: the cycle ended early; what it had checkpointed stands, and the next one
                resumes there.
        """
        began = time.monotonic()
        self._begin()
        self._reread(again)
        self._read()
        self._retry_deferred()
        self._report.sync_duration_ms = round((time.monotonic() - began) * 1000)
        self._finish()
        return self._report

    def _begin(self) -> None:
        source, retry = self._stages.source, self._stages.retry
        self._state = self._stages.checkpoint.load()
        retry(source.prepare)
        now = Clocks(retry(source.clock), self._state.now)
        checkpoint, limits = self._state.checkpoint, self._rules.limits
        self._scan = plan(checkpoint, now, limits)
        # What a cache remembers that has lost its checkpoint is not to be trusted: all is applied anew.
        self._since = remembered_since(checkpoint, self._scan, limits.overlap) if checkpoint else None
        self._position = checkpoint.position if checkpoint else None
        self._report.mode = self._scan.mode

    def _read(self) -> None:
        # A start from now that was cut goes on as a plain scan: it may apply a document too many.
        fresh_from_now = self._state.checkpoint is None and self._rules.limits.cold_start == "now"
        treat = self._pass if fresh_from_now else self._apply
        for page in self._pages():
            if self._stages.stop.is_set():
                raise Interrupted("stopped between two batches; the next cycle goes on from there")
            outcomes = self._stages.transform(page.documents)
            self._move(outcomes, page.last)
            if outcomes:
                treat(outcomes)

    def _pages(self) -> Iterator[Page]:
        """The pages of the scan; past its own clock it jumps to the present.

        What was written since belongs to the next scan, and only documents dated in the future are
        left to be read. Otherwise a fast writer could keep a cycle from ever ending.
        """
        cursor, present = self._scan.cursor, after(self._scan.clocks.mongo)
        while True:
            page = self._page(cursor)
            yield page
            if not page.more:
                return
            if page.last is None:
                raise CycleFailed("no document of a whole page has a position to read on from")
            cursor = page.last
            if earliest(cursor, present) == present:
                cursor = latest(cursor, after(self._stages.retry(self._stages.source.clock))) or cursor

    def _page(self, cursor: Position) -> Page:
        size = self._rules.page_size
        return self._stages.retry(lambda: self._stages.source.page(cursor, self._scan.end, size))

    def _move(self, outcomes: Sequence[Outcome], last: Position | None) -> None:
        """Advance the cursor, and the watermark as far as the server's clock allows."""
        if last is not None:
            self._scan = self._scan.moved(last)
        past = (o.position for o in reversed(outcomes) if o.position.ms is not None)
        newest = next((p for p in past if p.ms is not None and p.ms <= self._scan.clocks.mongo), None)
        self._position = latest(self._position, newest)

    def _apply(self, outcomes: Sequence[Outcome]) -> None:
        self._carry_out(outcomes, self._since, self._state.waiting)

    def _pass(self, outcomes: Sequence[Outcome]) -> None:
        """Leave out what was there when a cold start from now began, and apply what has come since."""
        began = after(self._scan.clocks.mongo)
        since = [o for o in outcomes if earliest(o.position, began) == began]
        self._checkpoint(Decision(passed=[o for o in outcomes if earliest(o.position, began) != began]))
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
        self._reread([key for key, deferral in waiting if deferral.lock not in held])

    def _reread(self, ids: Sequence[str]) -> None:
        """Read documents by `_id`, a page at a time, and apply them whatever was seen before."""
        size = self._rules.page_size
        for start in range(0, len(ids), size):
            self._reread_page(ids[start : start + size])

    def _reread_page(self, ids: Sequence[str]) -> None:
        keys = [id_from_text(text) for text in ids]
        documents = self._stages.retry(lambda: self._stages.source.fetch(keys))
        outcomes = self._stages.transform(documents)
        found = {id_text(outcome.position.id) for outcome in outcomes}
        gone = [text for text in ids if text not in found]
        self._carry_out(outcomes, None, frozenset(), gone)

    def _carry_out(
        self,
        outcomes: Sequence[Outcome],
        since: int | None,
        waiting: frozenset[str],
        gone: Sequence[str] = (),
    ) -> None:
        """Write one batch and, when Redis has taken all of it, move the checkpoint."""
        decision, pushed = self._stages.retry(lambda: self._write(outcomes, since, waiting))
        decision.gone.extend(gone)
        self._report.enqueued += pushed
        self._checkpoint(decision)

    def _write(
        self, outcomes: Sequence[Outcome], since: int | None, waiting: frozenset[str]
    ) -> tuple[Decision, int]:
        cache, state = self._stages.cache, self._state
        sight = cache.look(outcomes, self._token, since, has_claims=state.claims > 0)
        decision = decide(outcomes, self._confirmed(outcomes, sight), waiting)
        written = cache.write(decision, state.queues)
        decision.refuse(written.refused)
        return decision, written.pushed

    def _confirmed(self, outcomes: Sequence[Outcome], sight: Sight) -> Sight:
        """The sight without claims of documents that no longer make them; rarely is one in doubt."""
        doubtful = contested(outcomes, sight)
        if not doubtful:
            return sight
        ids = [id_from_text(text) for text in {id_text(claim.id) for claim in doubtful.values()}]
        claimants = self._stages.transform(self._stages.source.fetch(ids))
        return confirmed(sight, doubtful, claimants)

    def _checkpoint(self, decision: Decision) -> None:
        letters = self._letters(decision)
        self._stages.checkpoint.advance(self._token, self._state, self._reached(), decision, letters)
        self._tally(decision, letters)

    def _letters(self, decision: Decision) -> list[DeadLetter]:
        if not decision.rejected:
            return []
        known = self._stages.checkpoint.known_dead(decision.rejected)
        now = moment_text(self._scan.clocks.mongo)
        return [
            dead_letter(o.position.id, o.projection, now, known.get(id_text(o.position.id)))
            for o in decision.rejected
            if isinstance(o.projection, Reject)
        ]

    def _tally(self, decision: Decision, letters: Sequence[DeadLetter]) -> None:
        report = self._report
        report.records_processed += len(decision.applied)
        for outcome in decision.applied:
            kinds = {type(entry) for entry in getattr(outcome.projection, "entries", ())}
            report.written += Put in kinds
            report.evicted += Evict in kinds and Put not in kinds
        report.entries.update(e.family for e in decision.writes.values() if isinstance(e, Put))
        report.dead_lettered += len(letters)
        room = SHOWN_DEAD_LETTERS - len(report.dead_letters)
        report.dead_letters += [letter.as_dict() for letter in letters[:room]]

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
