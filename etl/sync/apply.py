"""How a batch is applied: look, decide, write, and only then record. What cycle and backfill share.

The order of the last two is what keeps the checkpoint from lying: it moves only after every reply of
the batch was read and was no error. Every step is idempotent, so `retry` may repeat it while a server
is away.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from etl.errors import Overtaken
from etl.interfaces import Stages
from etl.model.moments import moment_text
from etl.model.outcome import Outcome
from etl.model.report import SHOWN_DEAD_LETTERS, Report
from etl.model.state import DeadLetter, Reached, State, dead_letter
from etl.sync.batch import Decision, Sight, confirmed, contested, decide
from etl.transform.sheet import Sheet
from schemas.ids import id_from_text
from schemas.position import id_in

_LOOKS: Final = 100
"""So often a batch is looked at again at once when others write meanwhile; then that counts as a failure."""


class Treatment(NamedTuple):
    """How one batch is to be taken."""

    since: int | None = None
    """Versions dated from this millisecond on are passed over if they were handled before; None: none is."""
    waiting: frozenset[str] = frozenset()
    """Locks for which earlier documents wait already."""
    read_ahead: bool = False
    """Whether the batch was read a while ago, and others apply newer versions of its documents meanwhile."""
    gone: Sequence[str] = ()
    """Documents that were to be read again and are no more, by `_id` as canonical Extended JSON."""


class Applier:
    """Applies the batches of one run, under the lease whose fencing token is given.

    `reached` says how far the run is; it is asked whenever that is recorded. Methods raise `EtlError`
    where the run cannot go on; what was recorded stands.
    """

    def __init__(
        self, stages: Stages, token: str, state: State, report: Report, reached: Callable[[], Reached]
    ) -> None:
        self._stages = stages
        self._token = token
        self._state = state
        self._report = report
        self._reached = reached

    def apply(self, outcomes: Sequence[Outcome], treatment: Treatment) -> None:
        """Write one batch and, when Redis has taken all of it, record it."""
        decision, pushed = self._stages.retry(lambda: self._write(outcomes, treatment))
        decision.gone.extend(treatment.gone)
        self._report.enqueued += pushed
        self.record(decision)

    def reread(self, ids: Sequence[str], size: int) -> None:
        """Read documents by `_id`, `size` at a time, and apply them whatever was seen before."""
        for start in range(0, len(ids), size):
            self._reread(ids[start : start + size])

    def record(self, decision: Decision) -> None:
        """Move the checkpoint to where the run is, with what a decision did."""
        letters = self._letters(decision)
        self._stages.checkpoint.advance(self._token, self._state, self._reached(), decision, letters)
        tally(self._report, decision, letters)

    def _reread(self, ids: Sequence[str]) -> None:
        outcomes = self._stages.retry(lambda: self._fetch(ids))
        found = {outcome.id for outcome in outcomes}
        self.apply(outcomes, Treatment(gone=[text for text in ids if text not in found]))

    def _write(self, outcomes: Sequence[Outcome], treatment: Treatment) -> tuple[Decision, int]:
        for _ in range(_LOOKS - 1):
            try:
                return self._try(outcomes, treatment)
            except Overtaken:
                continue
        return self._try(outcomes, treatment)

    def _try(self, outcomes: Sequence[Outcome], treatment: Treatment) -> tuple[Decision, int]:
        cache, state = self._stages.cache, self._state
        sight = cache.look(outcomes, self._token, treatment.since, has_claims=state.claims > 0)
        if treatment.read_ahead:
            outcomes = self._current(outcomes, sight)
        decision = decide(outcomes, self._confirmed(outcomes, sight), treatment.waiting)
        if decision.vacated:
            decision.inherit(self._heirs(decision))
        # What asks for nothing here may have asked for something since, which is not to be forgotten.
        written = cache.write(decision, frozenset() if treatment.read_ahead else state.queues)
        decision.refuse(written.refused)
        return decision, written.pushed

    def _current(self, outcomes: Sequence[Outcome], sight: Sight) -> Sequence[Outcome]:
        """The batch without documents that were written again since, where the older version would do harm.

        It would be queued after the newer one, or take its keys away. Whoever applies the newer version
        from now on breaks the transaction that the look has begun; what is left out here is caught up with.
        """
        if sight.is_clear and isinstance(outcomes, Sheet) and outcomes.draft:
            return outcomes  # it asks for nothing, and takes no key away
        harmful = {o.id for o in outcomes if o.requests or set(sight.filled.get(o.id, ())) - set(o.claimed)}
        now = {outcome.id: outcome.text for outcome in self._fetch(harmful)}
        return [o for o in outcomes if o.id not in harmful or now.get(o.id) == o.text]

    def _confirmed(self, outcomes: Sequence[Outcome], sight: Sight) -> Sight:
        """The sight without claims of documents that no longer make them; rarely is one in doubt."""
        doubtful = contested(outcomes, sight)
        if not doubtful:
            return sight
        return confirmed(sight, doubtful, self._fetch({id_in(claim) for claim in doubtful.values()}))

    def _heirs(self, decision: Decision) -> Sequence[Outcome]:
        """The documents that claim keys which the newest one has left, as they are now."""
        left = set(decision.vacated.values())
        return self._fetch(i for i in self._stages.cache.rivals(list(decision.vacated)) if i not in left)

    def _fetch(self, ids: Iterable[str]) -> Sequence[Outcome]:
        found = [id_from_text(text) for text in ids]
        return self._stages.transform(self._stages.source.fetch(found)) if found else []

    def _letters(self, decision: Decision) -> list[DeadLetter]:
        if not decision.rejected:
            return []
        known = self._stages.checkpoint.known_dead(decision.rejected)
        now = moment_text(self._reached().scan.clocks.mongo)
        return [
            dead_letter(o.id, o.reject, now, known.get(o.id))
            for o in decision.rejected
            if o.reject is not None
        ]


def tally(report: Report, decision: Decision, letters: Sequence[DeadLetter]) -> None:
    """Count what a decision did."""
    counts = decision.counts()
    report.records_processed += counts.applied
    report.written += counts.written
    report.evicted += counts.evicted
    report.entries.update(counts.families)
    report.dead_lettered += len(letters)
    report.reasons.update(letter.why() for letter in letters)
    room = SHOWN_DEAD_LETTERS - len(report.dead_letters)
    report.dead_letters += [letter.as_dict() for letter in letters[:room]]
