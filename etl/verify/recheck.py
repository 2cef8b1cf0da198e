"""The second look: what is suspect is looked at under a WATCH, with its documents read anew, and mended.

A verdict is of one moment: nobody has touched a key, or the lock of its campaign, from the look to the
verdict. So a key that a cycle writes meanwhile is looked at again instead of accused, and nothing that is
mended can displace what a cycle has written.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Any, Final, NamedTuple, Protocol

from etl.backfill.pipeline import Pipeline
from etl.errors import Interrupted
from etl.interfaces import Page
from etl.retry import Retry
from etl.sync.planner import earliest, latest
from etl.verify.classify import ACCUSATIONS, Case, Rules, State, Verdict, judge, lock_of
from etl.verify.compare import Looked
from etl.verify.findings import Suspect
from etl.verify.inspection import Inspection, Owners, members_of
from etl.verify.reading import Reader, Reading
from schemas.ids import id_from_text, id_text
from schemas.position import LAST, Position, after, at

_TRIES: Final = 4
_TURN_GAP: Final = 0.1  # of the interval: the turn of a daemon ends a tenth before the next begins
_LONGEST_GRACE_SECONDS: Final = 2.0


class Source(Protocol):
    """The documents, as a verification reads them: see `etl.mongo.reader.Source`."""

    def prepare(self) -> bool:
        """Look for the index."""
        ...

    def clock(self) -> int:
        """The server's clock, in milliseconds since the epoch."""
        ...

    def page(self, after: Position, end: Position, limit: int) -> Page:
        """The next documents after one position and before another."""
        ...

    def fetch(self, ids: Sequence[Any]) -> list[bytes]:
        """The documents with these `_id`s that exist, in order."""
        ...

    def count(self) -> int:
        """About how many documents there are."""
        ...

    def ask(self, command: Mapping[str, Any]) -> Mapping[str, Any]:
        """The answer to one command that only reads."""
        ...


@dataclass(frozen=True, slots=True)
class Subject:
    """One collection and its cache, and how it is looked at."""

    collection: str
    source: Source
    reader: Reader
    read: Pipeline[list[Reading]]
    """Reads many documents, whoever does it."""
    inspection: Inspection
    rules: Rules
    retry: Retry
    stop: Event
    page_size: int
    overlap: int
    """How late documents are committed, in milliseconds."""
    cycle_seconds: int

    def readings(self, start: Position) -> Iterator[list[Reading]]:
        """All documents from a position on, a page at a time.

        Past the present it jumps to those dated in the future: what was written since is for the next
        cycle, and a fast writer could keep this from ever ending.
        """
        for readings, _ in self.read(self._pages(start)):
            yield readings

    def _pages(self, start: Position) -> Iterator[Page]:
        cursor, present = start, after(self.clock())
        while True:
            if self.stop.is_set():
                raise Interrupted("stopped while verifying; nothing is half done")
            page = self.retry(lambda: self.source.page(cursor, LAST, self.page_size))  # noqa: B023 (called at once)
            yield page
            if not page.more or page.last is None:
                return
            cursor = page.last
            if earliest(cursor, present) == present:
                cursor = latest(cursor, after(self.clock())) or cursor

    def fetch(self, ids: Sequence[Any]) -> list[Reading]:
        """The documents with these `_id`s that exist."""
        return self.reader(self.retry(lambda: self.source.fetch(ids)))

    def clock(self) -> int:
        """MongoDB's clock, in milliseconds since the epoch."""
        return self.retry(self.source.clock)

    def state(self, positions: Iterable[Position], held: frozenset[str]) -> State:
        """How far the cycles are with these versions of documents, while these locks are held."""
        progress = self.inspection.progress(positions)
        return State(
            now=self.clock(),
            known=progress.known,
            position=progress.position,
            window=None if progress.began is None else progress.began - self.overlap,
            seen=progress.seen,
            deferred=progress.deferred,
            held=held,
        )


class Judged(NamedTuple):
    """The verdict on one key, and what it was given on."""

    case: Case
    verdict: Verdict

    @property
    def accused(self) -> bool:
        """Whether the key is not as it should be."""
        return self.verdict.name in ACCUSATIONS


class Mending(NamedTuple):
    """What is written for some accused keys: which document fills each, and which are removed."""

    filled: Mapping[str, Reading]
    removed: Sequence[str]


def mend(accused: Iterable[Case]) -> Mending:
    """Write every key as its newest document says; remove those that no document claims."""
    cases = [*accused]
    filled = {case.key: case.newest for case in cases if case.newest is not None}
    return Mending(filled, [case.key for case in cases if case.newest is None])


def spare(_: Iterable[Case]) -> Mending:
    """Write nothing."""
    return Mending({}, ())


@dataclass(slots=True)
class _Look:
    """What is known of some keys at one moment."""

    keys: Sequence[str]
    held: frozenset[str]
    owners: Owners
    readings: dict[str, Reading] = field(default_factory=dict)
    newest: dict[str, Reading] = field(default_factory=dict)

    def add(self, readings: Iterable[Reading]) -> bool:
        """Take account of documents; says whether any was not known."""
        fresh = [one for one in readings if self.readings.get(one.id) != one]
        self.readings |= {one.id: one for one in fresh}
        wanted = frozenset(self.keys)
        self.newest.clear()
        for reading in sorted(self.readings.values(), key=lambda one: one.position.order()):
            self.newest.update(dict.fromkeys(reading.claims.keys() & wanted, reading))
        return bool(fresh)

    def members(self) -> dict[str, int]:
        """How many members each key should have."""
        claimed = ((key, self.newest.get(key)) for key in self.keys)
        return {key: members_of(newest.claims[key] if newest else None) for key, newest in claimed}

    def case(self, key: str, looked: Looked | None) -> Case:
        """All that is known of one key."""
        owner = self.owners.mine.get(key)
        owning = None if owner is None else self.readings.get(id_text(owner.id))
        return Case(key, looked, self.newest.get(key), owner, owning, key in self.owners.shared)


class SecondLook:
    """That of one verification, begun at `began` by MongoDB's clock."""

    def __init__(self, subject: Subject, began: int) -> None:
        self._subject = subject
        self._began = began
        self._daemon: bool | None = None
        self.mended = 0
        """How many keys were written or removed."""

    def settle(self, suspects: Sequence[Suspect], *, repair: bool) -> list[Judged]:
        """The verdict on each, and with `repair` what is wrong written as it should be.

        Raises:
            EtlError: a server stays away, or refuses.
        """
        if self._subject.stop.is_set():
            raise Interrupted("stopped while verifying; nothing is half done")
        for _ in range(_TRIES):
            judged = self._subject.retry(lambda: self._moment(suspects, repair=repair))
            if judged is not None:
                return judged
        if len(suspects) == 1:
            hasty = Verdict("pending", "it changes faster than it can be looked at")
            return [Judged(Case(suspects[0].key, None), hasty)]
        half = len(suspects) // 2
        return self.settle(suspects[:half], repair=repair) + self.settle(suspects[half:], repair=repair)

    def _moment(self, suspects: Sequence[Suspect], *, repair: bool) -> list[Judged] | None:
        """The verdict on each; None where something touched one meanwhile."""
        inspection = self._subject.inspection
        keys = [suspect.key for suspect in suspects]
        held = inspection.watch(keys, sorted({lock for key in keys if (lock := lock_of(key))}))
        look = _Look(keys, held, inspection.owners(keys))
        ids = {suspect.document for suspect in suspects} | {id_text(p.id) for p in look.owners.mine.values()}
        look.add(self._subject.fetch([id_from_text(text) for text in ids]))
        judged = self._judged(look)
        if any(one.accused for one in judged) and look.add(self._recent(keys)):
            judged = self._judged(look)
        accused = [one.case for one in judged if one.accused]
        mending = mend(accused) if repair else spare(accused)
        if not inspection.settle(*mending):
            return None
        self.mended += len(mending.filled) + len(mending.removed)
        return judged

    def _judged(self, look: _Look) -> list[Judged]:
        looked = self._subject.inspection.look(look.members())
        state = self._subject.state((one.position for one in look.readings.values()), look.held)
        state = replace(state, scheduled=self._scheduled)
        cases = (look.case(key, looked.get(key)) for key in look.keys)
        return [Judged(case, judge(case, state, self._subject.rules)) for case in cases]

    def _recent(self, keys: Sequence[str]) -> list[Reading]:
        """The documents claiming any of these keys that may have come since the verification began."""
        wanted = frozenset(keys)
        pages = self._subject.readings(at(self._began - self._subject.overlap))
        return [reading for readings in pages for reading in readings if reading.claims.keys() & wanted]

    def _scheduled(self) -> bool:
        """Whether a daemon is at work. Between two turns of one there is a gap, which is waited for."""
        if self._daemon is None:
            grace = min(_LONGEST_GRACE_SECONDS, self._subject.cycle_seconds * _TURN_GAP + 0.2)
            end = time.monotonic() + grace
            while not (found := self._subject.inspection.scheduled()) and time.monotonic() < end:
                self._subject.stop.wait(0.1)
            self._daemon = found
        return self._daemon
