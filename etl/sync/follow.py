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
from typing import Any, Final, NamedTuple, Protocol

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
from etl.model.report import Report
from etl.model.state import Deferral

WAIT_SECONDS: Final = 0.25
"""How long the follower waits for events before it looks at the locks that documents wait for."""

_IDLE_SECONDS: Final = 10.0
"""How often the token is recorded while nothing happens, so that it does not fall out of the oplog."""

_ABSENT_SECONDS: Final = 1.0
"""How often a dropped collection is looked for."""

_log = logging.getLogger("etl.follow")

Token = Mapping[str, Any]


class Events(Protocol):
    """What has arrived: see `etl.mongo.change_stream.Events`."""

    @property
    def ids(self) -> list[str]:
        """`_id`s of the documents that were written or deleted, each once."""
        ...

    @property
    def operations(self) -> Mapping[str, int]:
        """How many events there were of each kind."""
        ...

    @property
    def token(self) -> Token:
        """Where to resume after these."""
        ...

    @property
    def seconds(self) -> float | None:
        """When the last of them happened, by MongoDB's clock."""
        ...


class Stream(Protocol):
    """A change stream: see `etl.mongo.change_stream.ChangeStream`."""

    def open(self, token: Token | None) -> Events:
        """Begin after a token, or with what happens from now on."""
        ...

    def next(self, wait_seconds: float) -> Events:
        """The events that have arrived; waits for the first one only."""
        ...

    def close(self) -> None:
        """End it."""
        ...


class Followed(NamedTuple):
    """One batch of a follower, for metrics and output."""

    operations: Mapping[str, int]
    outcome: BatchOutcome | None
    restarted: str | None = None
    """Why the stream is opened again: `connection`, `failure`, or the reason of a `MissedError`."""


@dataclass(frozen=True, slots=True)
class Follower:
    """Follows one collection until it is asked to stop. `follow` raises `EtlError` where it cannot go on."""

    stages: Stages
    store: FollowStore
    stream: Stream
    reread: Reread
    """Reads documents in the session of the stream: what is newer comes as another event."""
    lease: Lease
    cycle: Callable[[], Report]
    reconcile: Callable[[], object]
    """Verifies and repairs: finds documents that were deleted while no stream was open, and writes that Redis lost."""
    on_batch: Callable[[Followed], None]

    def follow(self) -> None:
        """Follow, as soon as no other holder does.

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
        resume = self.store.token() or self._begin(token, None)
        events = self._open(token, resume)
        looked = recorded = float("-inf")
        caught_up = True
        while not self.stages.stop.is_set():
            now = time.monotonic()
            free: list[str] = []
            if now - looked >= WAIT_SECONDS:
                state = self.stages.store.load()
                if self.store.replaced(state.primaries):
                    failover = FailoverError("a primary of Redis was replaced or restarted")
                    events = self._open(token, self._begin(token, failover))
                free, looked = self._free(state.deferred), now
            # A lost lease is noticed by recording, also while nothing happens: Redis may have been flushed.
            due = now - recorded >= _IDLE_SECONDS or not self.lease.held
            if events.ids or free or due or not caught_up:
                outcome = self._apply([*dict.fromkeys([*events.ids, *free])])
                caught_up = sum(events.operations.values()) < self.stages.page_size
                self.store.advance(token, events.token, events.seconds, outcome, caught_up=caught_up)
                self.on_batch(Followed(events.operations, outcome))
                recorded = now
            resume = events.token
            try:
                events = self.stream.next(max(0.0, looked + WAIT_SECONDS - time.monotonic()))
            except (TransientError, CycleFailed):  # a failover, or a cursor that was killed
                self.on_batch(Followed({}, None, "connection"))
                events = self._open(token, resume)
            except InvalidatedError as error:
                events = self._open(token, self._begin(token, error))

    def _open(self, token: str, resume: Token) -> Events:
        """The stream after a token; begun anew where that is lost."""
        while True:
            try:
                return self.stages.retry(partial(self.stream.open, resume))
            except MissedError as error:
                resume = self._begin(token, error)

    def _begin(self, token: str, missed: MissedError | None) -> Token:
        """A token of the present, and a cycle after it: so nothing that happened before is missed."""
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

    def _free(self, deferred: Mapping[str, Deferral]) -> list[str]:
        """Deferred documents whose lock is gone, also those that a cycle or a backfill deferred."""
        if not deferred:
            return []
        held = self.stages.processor.held(sorted({one.lock for one in deferred.values()}))
        return [name for name, one in deferred.items() if one.lock not in held][: self.stages.page_size]

    def _apply(self, ids: list[str]) -> BatchOutcome:
        """Read these documents and write them, also versions marked as done."""
        if not ids:
            return BatchOutcome()
        read_at, results = self.stages.processor.read(ids, self.reread)
        return self.stages.processor.process(results, read_at, remember_from=0, trust=False)
