"""Follow: apply the change stream of a collection within milliseconds, deletes included.

The cycles continue as a safety net. The document of an event is read again by `_id` and written by the same processor.
The resume token moves in a fenced step of its own, after the writes. If events were missed, a cycle and a
reconciliation of deletes follow, so there is no gap.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple, Protocol

from etl import logs
from etl.checkpoint.follow_store import FollowStore
from etl.checkpoint.lease import Lease
from etl.checkpoint.origin import refuse_other_source
from etl.errors import (
    CycleFailed,
    FailoverError,
    Interrupted,
    InvalidatedError,
    LeaseHeldError,
    LeaseLost,
    MissedError,
    TransientError,
)
from etl.interfaces import Reread, Stages
from etl.model.batch import BatchOutcome
from etl.model.events import Events, ResumeToken
from etl.model.report import Report
from etl.model.state import Deferral

WAIT_SECONDS: Final = 0.25
"""How often the follower checks the locks that documents wait for."""

_IDLE_SECONDS: Final = 10.0
"""How often the resume token is recorded while no event arrives, so that the oplog still contains it at a restart."""

_ABSENT_SECONDS: Final = 1.0
"""How often the follower checks whether a dropped collection exists again."""

_log = logging.getLogger("etl.follow")


class Stream(Protocol):
    """A change stream: see `etl.mongo.change_stream.ChangeStream`."""

    def open(self, token: ResumeToken | None) -> Events:
        """Open the stream after a token, or at the present; return the events that are available immediately."""
        ...

    def next(self, wait_seconds: float) -> Events:
        """The events that have arrived; waits for the first one only."""
        ...

    def close(self) -> None:
        """Close the stream."""
        ...


class Followed(NamedTuple):
    """One batch of a follower, for metrics and output."""

    operations: Mapping[str, int]
    outcome: BatchOutcome | None
    restarted: str | None = None
    """The reason for opening the stream again: `connection`, `failure`, or that of a `MissedError`."""


@dataclass(frozen=True, slots=True)
class Follower:
    """Follows one collection until it is asked to stop."""

    stages: Stages
    store: FollowStore
    stream: Stream
    reread: Reread
    """Reads documents in the session of the stream; a version newer than the one read arrives as another event."""
    lease: Lease
    cycle: Callable[[], Report]
    reconcile: Callable[[], object]
    """Verifies and repairs, for documents that were deleted while no stream was open, and writes that Redis lost."""
    on_batch: Callable[[Followed], None]

    def follow(self) -> None:
        """Follow until `stages.stop` is set; stand by while another process follows.

        Raises:
            StreamRefusedError: the server has no change streams, or the user may not open one.
            EtlError: a server does not answer, or refuses.
        """
        stop = self.stages.stop
        standby = False
        while not stop.is_set():
            try:
                with self.lease.hold() as token:
                    standby = False
                    self._follow(token)
            except LeaseHeldError as error:
                if not standby:
                    text = "another follower is at work, this one stands by: %s"
                    _log.warning(text, error.holder, extra=logs.event("follow", reason="standby"))
                standby = True
                stop.wait(min(1.0, error.seconds))
            except Interrupted:
                return
            except LeaseLost as error:
                _log.warning("%s", error, extra=logs.event("follow"))
            finally:
                self.stream.close()

    def _follow(self, token: str) -> None:
        refuse_other_source(self.stages)
        self.store.begin(token)
        resume = self.store.token() or self._start_anew(token, None)
        events = self._open(token, resume)
        checked_at = recorded_at = float("-inf")
        caught_up = True
        while not self.stages.stop.is_set():
            now = time.monotonic()
            unlocked: list[str] = []
            if now - checked_at >= WAIT_SECONDS:
                state = self.stages.store.load()
                if self.store.replaced(state.primaries):
                    failover = FailoverError("a primary of Redis was replaced or restarted")
                    events = self._open(token, self._start_anew(token, failover))
                unlocked, checked_at = self._unlocked(state.deferred), now
            # If the lease may be lost (Redis may have been flushed), recording the token shows it.
            due = now - recorded_at >= _IDLE_SECONDS or not self.lease.held
            if events.ids or unlocked or due or not caught_up:
                outcome = self._apply([*dict.fromkeys([*events.ids, *unlocked])])
                caught_up = sum(events.operations.values()) < self.stages.page_size
                self.store.advance(token, events.token, events.seconds, outcome, caught_up=caught_up)
                self.on_batch(Followed(events.operations, outcome))
                recorded_at = now
            resume = events.token
            try:
                events = self.stream.next(max(0.0, checked_at + WAIT_SECONDS - time.monotonic()))
            except (TransientError, CycleFailed):  # a failover, or the cursor was killed
                self.on_batch(Followed({}, None, "connection"))
                events = self._open(token, resume)
            except InvalidatedError as error:
                events = self._open(token, self._start_anew(token, error))

    def _open(self, token: str, resume: ResumeToken) -> Events:
        """Open the stream after a token; if events after it are lost, apply all changes and start at the present."""
        while True:
            try:
                return self.stages.retry(partial(self.stream.open, resume))
            except MissedError as error:
                resume = self._start_anew(token, error)

    def _start_anew(self, token: str, missed: MissedError | None) -> ResumeToken:
        """Return a resume token of the present, after a cycle has applied all earlier changes."""
        if missed is not None:
            self.store.begin(token)
            text = "%s: a cycle and a reconciliation find what was missed"
            _log.warning(text, missed, extra=logs.event("follow", reason=missed.reason))
            self.on_batch(Followed({}, None, missed.reason))
            while not self.stages.retry(self.stages.reader.identity) and not self.stages.stop.is_set():
                self.stages.stop.wait(_ABSENT_SECONDS)
        events = self.stages.retry(partial(self.stream.open, None))
        report = self.cycle()
        while report.status == "locked" and not self.stages.stop.wait(WAIT_SECONDS):
            report = self.cycle()
        if self.stages.stop.is_set():
            raise Interrupted("stopped before following")
        if report.status == "failed":
            raise CycleFailed(f"the cycle before following failed: {report.error}")
        if missed is not None:
            self.reconcile()
        self.store.advance(token, events.token, events.seconds, BatchOutcome(), caught_up=True)
        return events.token

    def _unlocked(self, deferred: Mapping[str, Deferral]) -> list[str]:
        """The `_id`s of at most a page of deferred documents whose locks are released, whichever run deferred them."""
        if not deferred:
            return []
        held = self.stages.processor.held(sorted({deferral.lock for deferral in deferred.values()}))
        unlocked = [name for name, deferral in deferred.items() if deferral.lock not in held]
        return unlocked[: self.stages.page_size]

    def _apply(self, ids: list[str]) -> BatchOutcome:
        """Read these documents and write them, even versions that are marked as done."""
        if not ids:
            return BatchOutcome()
        read_at, results = self.stages.processor.read(ids, self.reread)
        return self.stages.processor.process(results, read_at, remember_from=0, skip_done=False)
