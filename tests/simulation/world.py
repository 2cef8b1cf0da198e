"""MongoDB and Redis for the actors, and an observer that checks every step."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from tests.simulation import protocol
from tests.simulation.protocol import (
    QUEUE,
    Answer,
    ApplyAnswer,
    Change,
    Clock,
    Document,
    EnqueueAnswer,
    Key,
    Kind,
    Owner,
    Read,
    Record,
    RecordAnswer,
    Request,
    Rules,
    Version,
    is_late,
)

UNIT = 1000  # a unit of MongoDB's clock, in ticks of the clock of Redis; a step of an actor is one tick
OVERLAP = 10  # units between the date of a version and its commit, at most
DEADLINE = 10  # units between a read and the calls based on it, at most
STALENESS = 3  # units that a deposed primary still acts as primary, at most
INTERVAL = 100  # units between two cycles
NEVER = 10**9

Value = TypeVar("Value")


class Event(NamedTuple):
    """An event in MongoDB, `wait` units after the previous one."""

    wait: int
    action: str
    document: Document = "D"
    keys: str = ""
    late: int = 0  # units between the date of the version and its commit
    date: int | None = None  # an absolute date

    def __str__(self) -> str:
        date = f"@{self.date}" if self.date is not None else f"-{self.late}" if self.late else ""
        return f"+{self.wait} {self.action} {self.document}{date} {self.keys}".strip()


class Expiring(dict[str, Value]):
    """Keys of Redis with a TTL."""

    def __init__(self, ttl: int | None) -> None:
        super().__init__()
        self.ttl = ttl
        self.expiry: dict[str, int] = {}

    def put(self, key: str, value: Value, now: int) -> None:
        """Write a key and renew its TTL."""
        self[key] = value
        self.expiry[key] = NEVER * UNIT if self.ttl is None else now + self.ttl

    def expire(self, now: int) -> None:
        """Drop expired keys."""
        for key in [key for key in self if self.expiry[key] <= now]:
            del self[key]


@dataclass
class Outcome:
    """The result of a batch for its commit."""

    settled: set[Document] = field(default_factory=set)
    deferred: set[Document] = field(default_factory=set)
    dead: set[Document] = field(default_factory=set)

    def move(self, document: Document, to: set[Document]) -> None:
        """Put a document into one of the three sets."""
        for each in (self.settled, self.deferred, self.dead):
            each.discard(document)
        to.add(document)


class World:
    """The two servers, the clock and the observer of one run."""

    def __init__(self, rules: Rules, documents: Mapping[Document, Version], ttl: int | None = None) -> None:
        self.rules = rules
        self.ticks = 5 * UNIT
        self.set_back = 0
        # MongoDB
        self.documents = dict(documents)
        self.stale = dict(documents)  # the documents that a deposed primary returns
        self.stale_until = 0
        self.history: dict[Document, list[Version | None]] = {d: [v] for d, v in documents.items()}
        self.changed_at: dict[Document, int] = {}
        self.events: list[Document] = []
        self.locked: set[Document] = set()
        # Redis
        self.ttl = ttl
        ticks = None if ttl is None else ttl * UNIT
        longer = None if ttl is None else (ttl + DEADLINE) * UNIT
        self.shown: Expiring[tuple[Document, int]] = Expiring(ticks)
        self.owners: Expiring[Owner] = Expiring(longer)
        self.records: Expiring[Record] = Expiring(longer)
        self.requests: dict[Document, Request] = {}
        self.queue: list[tuple[Document, int, int]] = []
        self.deferred: set[Document] = set()
        self.dead: set[Document] = set()
        self.position = -NEVER
        self.checked = -NEVER
        self.token = 0
        # The observer
        self.watched: frozenset[Document] = frozenset()
        self.wrong: list[str] = []
        self.handled: dict[Document, tuple[int | None, int]] = {}
        self.claimed: set[tuple[Key, Document]] = set()
        self.invalid_successors: set[Document] = set()
        self.newest_shown: dict[tuple[Key, Document], int] = {}
        self.reconcile_due = False
        self.beyond_overlap = False
        self.misled = False

    # The clocks

    @property
    def today(self) -> int:
        """The clock of MongoDB."""
        return self.ticks // UNIT

    @property
    def now(self) -> int:
        """The clock of Redis."""
        return self.ticks - self.set_back

    @property
    def clock(self) -> Clock:
        """The clock of Redis with the deadline."""
        return Clock(self.ticks - self.set_back, DEADLINE * UNIT)

    def pass_time(self, ticks: int) -> None:
        """Let time pass."""
        self.ticks += ticks
        if self.ttl is not None:
            self.shown.expire(self.ticks)
            self.owners.expire(self.ticks)
            self.records.expire(self.ticks)

    # MongoDB

    def happen(self, event: Event) -> None:
        """Let an event happen."""
        self.pass_time(event.wait * UNIT)
        match event.action:
            case "lock":
                self.locked.add(event.document)
            case "unlock":
                self.locked.discard(event.document)
            case "set-back":
                self.set_back += event.late * UNIT
            case "lose":
                self.shown.pop(event.document, None)
                self.owners.pop(event.document, None)
            case "delete":
                if event.document in self.documents:
                    self._change(event.document, None)
            case "write" | "evict" | "ask" | "break":
                self._change(event.document, self._version(event))

    def _version(self, event: Event) -> Version:
        timestamp = self.today - event.late if event.date is None else event.date
        match event.action:
            case "write":
                return Version(timestamp, Kind.CONTENT, frozenset(event.keys))
            case "ask":
                return Version(timestamp, Kind.PENDING, frozenset({QUEUE}))
            case "evict":
                now = self.documents.get(event.document)
                keys = now.keys - {QUEUE} if now and not event.keys else frozenset(event.keys)
                return Version(timestamp, Kind.EVICTION, keys or frozenset("A"))
        return Version(timestamp, Kind.INVALID)

    def _change(self, document: Document, version: Version | None) -> None:
        self.stale = dict(self.documents)
        self.stale_until = self.ticks + STALENESS * UNIT
        if version:
            self.documents[document] = version
            self.beyond_overlap |= version.timestamp < self.today - OVERLAP
        else:
            del self.documents[document]
        self.history.setdefault(document, []).append(version)
        self.changed_at[document] = self.ticks
        self.events.append(document)

    def page(self, since: int, read_at: int, *, stale: bool = False) -> list[Read]:
        """Read the documents dated later than `since`."""
        self.misled |= stale
        documents = self.stale if stale else self.documents
        found = [Read(d, v, read_at, confirmed=False) for d, v in documents.items() if v.timestamp >= since]
        return sorted(found, key=lambda read: (read.timestamp, read.document))

    def find(self, document: Document, read_at: int) -> Read:
        """Read a document by its _id."""
        return Read(document, self.documents.get(document), read_at, confirmed=True)

    # Redis

    def record(self, read: Read) -> tuple[RecordAnswer, bool]:
        """Call the script, and check whether the campaign of the document is locked."""
        new, answer = protocol.record(self.records.get(read.document), read, self.clock, self.rules)
        if new and answer.answer in {Answer.PROCEED, Answer.DONE}:
            self.records.put(read.document, new, self.ticks)
        return answer, read.version is not None and read.document in self.locked

    def done(self, read: Read, token: int) -> None:
        """Call the script."""
        new = protocol.done(self.records.get(read.document), read, token, self.rules)
        if new:
            self.records[read.document] = new

    def apply(
        self, key: Key, changes: Mapping[Document, Change], reads: Mapping[Document, Read]
    ) -> ApplyAnswer:
        """Call the script, which changes register and key atomically."""
        old = self.owners.get(key) or Owner({})
        new, answer = protocol.apply(old, changes, self.clock, self.rules)
        if new is old:
            return answer
        self.owners.put(key, new, self.ticks)
        self.claimed |= {(key, claim.document) for claim in new.claims(self.rules)}
        self.reconcile_due |= answer.reconcile
        version = reads[answer.top.document].version if answer.top and answer.write else None
        if answer.top and version and version.kind is Kind.CONTENT:
            self.shown.put(key, (answer.top.document, version.timestamp), self.ticks)
            self._check_step_back(key, answer.top.document, version)
        elif (answer.write or answer.remove) and key in self.shown:
            del self.shown[key]
            if not answer.reconcile:
                self._check_gap(key)
        return answer

    def enqueue(self, read: Read) -> EnqueueAnswer:
        """Call the script."""
        document = read.document
        new, answer = protocol.enqueue(self.requests.get(document), read, self.clock, self.rules)
        if new:
            self.requests[document] = new
        if answer.push and read.version:
            self.queue.append((document, read.version.timestamp, self._number(document, read.version)))
            self._check_stale_request(read)
        return answer

    def old_requests(self) -> list[tuple[Document, Request]]:
        """The entries of the queue that are older than the deadline."""
        deadline = DEADLINE * UNIT
        return sorted((d, r) for d, r in self.requests.items() if self.now - r.written_at > deadline)

    def sweep(self, document: Document, seen: Request) -> None:
        """Call the script."""
        if protocol.sweep(self.requests.get(document), seen, self.rules) is None:
            self.requests.pop(document, None)

    def commit(self, outcome: Outcome, read_at: int) -> bool:
        """Record deferrals and dead letters; False if the call was too late."""
        if self.rules.late_commit and is_late(self.clock, read_at, self.rules):
            return False
        self.deferred = self.deferred - outcome.settled - outcome.dead | outcome.deferred
        self.dead = self.dead - outcome.settled | outcome.dead
        return True

    # The observer

    def queued(self) -> Counter[tuple[Document, int, int]]:
        """How often each version was queued; a restored version counts as another one."""
        return Counter(self.queue)

    def _check_gap(self, key: Key) -> None:
        """A key that a document filled all the time is never missing, unless a tombstone claimed it."""
        versions = [v for history in self.history.values() for v in history]
        if any(v and v.kind is Kind.EVICTION and key in v.keys for v in versions):
            return
        for document in self.watched:
            if all(v and v.kind is Kind.CONTENT and key in v.keys for v in self.history[document]):
                self.wrong.append(f"gap at {key}")

    def _check_step_back(self, key: Key, document: Document, version: Version) -> None:
        number = self._number(document, version)
        newest = self.newest_shown.get((key, document), 0)
        if number < newest and not self.misled:
            self.wrong.append(f"{key} went back to {document}@{version.timestamp}")
        self.newest_shown[key, document] = max(number, newest)

    def _number(self, document: Document, version: Version) -> int:
        return max(n for n, each in enumerate(self.history[document]) if each == version)

    def _check_stale_request(self, read: Read) -> None:
        now = self.documents.get(read.document)
        current = now.timestamp if now else None
        handled, when = self.handled.get(read.document, (None, -1))
        if read.timestamp != current == handled and when > self.changed_at.get(read.document, -1):
            self.wrong.append(f"{read.document}@{read.timestamp} queued after a later version was handled")
