"""A schedule for each rule of the protocol that ends wrong without the rule.

The schedule `event, worker until apply, follower` means: an event happens, a worker runs until its next step
is an apply, a follower runs to its end.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.simulation.explore import Run
from tests.simulation.protocol import Rules
from tests.simulation.scenarios import story


@dataclass(frozen=True)
class Counterexample:
    """A schedule, and the check of its result."""

    rule: str
    why: str
    events: tuple[str, ...]
    schedule: str
    check: Callable[[Run], list[str]] = Run.end
    documents: str = "ED"
    ttl: int | None = None
    cap: int = 9
    synced: bool = True

    def play(self, *, without: bool) -> tuple[Run, list[str]]:
        """Play it with or without the rule; returns the run and its faults."""
        rules = replace(Rules(cap=self.cap), **{self.rule: not without})
        run = Run(story(self.why, *self.events, documents=self.documents, ttl=self.ttl), (), rules)
        if self.synced:
            run.sync()
        run.play_by_hand(self.schedule)
        return run, self.check(run)


COUNTEREXAMPLES = [
    Counterexample(
        "late",
        "the entry that refuses a suspended worker has been deleted",
        ("3 write D B",),
        "worker until apply, event, follower, sleep, worker",
        synced=False,
    ),
    Counterexample(
        "read_ahead",
        "the clock was ahead when the worker read",
        ("20 write D C", "0 set-back -8", "1 write D B"),
        "event, worker until apply, event, event, follower, wait, worker",
    ),
    Counterexample(
        "written_ahead",
        "no call is accepted until the clock has caught up",
        ("3 write D B", "0 set-back -8", "1 write D A"),
        "event, follower, event, event, follower",
    ),
    Counterexample(
        "stale_record",
        "a successor moves, and is deleted before its move is recorded",
        ("30 write D C", "1 write E B", "1 delete E"),
        "event, cycle until find, event, cycle until record, event, follower, cycle",
    ),
    Counterexample(
        "stale_apply",
        "a tombstone is written after its document has come back",
        ("3 evict D", "3 write D A"),
        "event, worker until apply, event, follower, worker",
    ),
    Counterexample(
        "stale_queue",
        "a request is queued after it was answered",
        ("3 ask G", "2 write G B"),
        "event, worker until find, worker until enqueue, event, follower, worker",
    ),
    Counterexample(
        "queue_recorded",
        "the queue does not know that the request was answered",
        ("3 ask G", "2 write G B"),
        "event, worker until find, worker until enqueue, event, follower, worker",
    ),
    Counterexample(
        "queue_claimed",
        "the later version does not know of the request",
        ("3 ask G", "2 write G B"),
        "event, worker until find, worker until enqueue, event, follower, worker",
    ),
    Counterexample(
        "queue_pushed",
        "two actors read one request",
        ("3 ask D",),
        "event, worker, follower",
    ),
    Counterexample(
        "queue_confirmed",
        "a deposed primary returns a request that was dated in the future",
        ("3 ask D @999", "3 ask D"),
        "event, follower, event, follower, worker until page, stale worker, worker",
    ),
    Counterexample(
        "sweep_exact",
        "a document becomes pending again while a cycle checks its old request",
        ("3 ask D", "2 write D A", "20 tick", "1 ask D"),
        "event, follower, event, follower, event, cycle until sweep, event, follower, cycle, reconcile",
    ),
    Counterexample(
        "repeat_renews",
        "a deletion is written after the document was restored, as a repetition",
        ("3 delete D", "1 write D A @2"),
        "event, follower until record, event, second follower, follower",
    ),
    Counterexample(
        "older",
        "a deposed primary returns a former version",
        ("3 write D B",),
        "event, follower, worker until page, stale worker, worker",
    ),
    Counterexample(
        "older_gone",
        "a deposed primary returns a deleted document",
        ("3 delete D",),
        "event, follower, worker until page, stale worker, worker",
    ),
    Counterexample(
        "union",
        "a worker crashes before it removes D from A",
        ("3 write D B",),
        "event, worker until apply, crash worker, follower",
    ),
    Counterexample(
        "left",
        "a document is written after its deletion",
        ("3 write G B", "1 delete G"),
        "event, worker until apply, event, follower, worker",
    ),
    Counterexample(
        "lost",
        "the successor is not known",
        ("3 write D B",),
        "event, follower",
    ),
    Counterexample(
        "tie",
        "two documents of one date claim one key",
        ("3 write E B", "0 write D B"),
        "event, event, follower",
    ),
    Counterexample(
        "successor_in_same_call",
        "the key is gone until its successor is written",
        ("3 write D B",),
        "event, follower",
    ),
    Counterexample(
        "successor_recorded",
        "the record of a successor has expired when the successor moves",
        ("30 write D A", "20 write D B", "1 write E C"),
        "event, follower, event, follower, event, follower",
        ttl=30,
    ),
    Counterexample(
        "holder_reread",
        "no actor learned that the holder was deleted",
        ("6 write D A", "1 delete D", "1 write E A -4"),
        "event, cycle, event, event, second cycle",
        Run.settle,
    ),
    Counterexample(
        "done_token",
        "a worker marks a version that another one was about to write when it crashed",
        ("3 write D A", "1 delete D", "1 write D A @8"),
        "event, worker until done, event, reconcile, "
        "event, second worker until apply, crash second worker, worker",
        Run.settle,
    ),
    Counterexample(
        "invalid_unrecorded",
        "an invalid document takes the key of its former version",
        ("3 break D",),
        "event, cycle",
        Run.settle,
    ),
    Counterexample(
        "deferred_distrusted",
        "a reconciliation finds the document of a lost key locked",
        ("1 lock D", "1 lose A"),
        "event, event, reconcile",
        Run.settle,
    ),
    Counterexample(
        "overflow",
        "the successor is older than a claim that was dropped",
        ("6 write D B", "0 write H A @0", "2 write G B"),
        "event, event, follower, event, follower",
        Run.settle_or_reconcile,
        documents="EDG",
        cap=1,
    ),
    Counterexample(
        "lookback",
        "a version is committed late, while a cycle runs",
        ("30 write G B", "1 write E C -10"),
        "event, cycle until commit, event, cycle",
        Run.settle,
    ),
    Counterexample(
        "lookback_deadline",
        "a deposed primary hides a version that was committed late",
        ("30 write G B", "0 write E C -10", "1 tick"),
        "event, event, event, cycle until page, stale cycle, cycle",
        Run.settle,
    ),
    Counterexample(
        "lookback_deadline",
        "a worker drops a dead letter that is younger than its reads",
        ("30 write G C", "1 break D -10", "1 write G C"),
        "event, worker until commit, event, event, cycle, worker",
        Run.settle,
    ),
    Counterexample(
        "late_commit",
        "a suspended worker removes a dead letter that no cycle reads again",
        ("30 write G C", "0 break D -10", "12 write G C"),
        "worker until commit, event, event, cycle, sleep, event, second cycle, worker",
        Run.settle,
    ),
]
