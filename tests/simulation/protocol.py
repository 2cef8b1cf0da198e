"""The write protocol as pure functions: the registers in Redis, and the scripts that change them.

Each script takes the register that it changes, and returns the new register and an answer. `Rules` switches
single rules off: with it the tests show what each rule prevents.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

Document = str
Key = str

QUEUE: Key = "queue"


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of the protocol."""

    late: bool = True  # a call whose documents were read too long ago is refused
    read_ahead: bool = True  # also one whose documents were read in the future: the clock was set back
    stale_record: bool = True  # only a read younger than the last change of a record changes it
    stale_apply: bool = True  # also an entry of an owner register
    stale_queue: bool = True  # also an entry of a queue
    written_ahead: bool = True  # an entry written in the future makes no read stale
    repeat_renews: bool = True  # a repetition counts as a change
    older: bool = True  # a page gives no record an older date: it may come from a deposed primary
    older_gone: bool = True  # nor does it restore a deleted document
    union: bool = True  # a record keeps the keys of former versions until they are given up
    left: bool = True  # a document that gave up a key stays in the register of the key for a while
    lost: bool = True  # so does a live claim that is not the newest
    tie: bool = True  # equal dates are ordered by _id
    successor_in_same_call: bool = True  # a holder leaves only together with the content of its successor
    successor_recorded: bool = (
        True  # a successor, or a holder that changed, is recorded before its entry changes
    )
    holder_reread: bool = True  # a holder is read again before a claim loses against it
    done_token: bool = True  # a done mark names the change of the record that it completes
    invalid_unrecorded: bool = True  # an invalid document changes no register
    deferred_distrusted: bool = True  # a deferred document is written even if it is done
    queue_claimed: bool = True  # a queue counts among the claims of a record
    queue_recorded: bool = True  # a queue records that a document has no request any more
    queue_pushed: bool = True  # a queue remembers the version that was pushed
    queue_confirmed: bool = True  # only a confirmed read pushes, because a push cannot be undone
    sweep_exact: bool = True  # a sweep drops only entries that have not changed since it read them
    overflow: bool = True  # a register that dropped claims reports that when its holder leaves
    lookback: bool = True  # a cycle reads documents again that may have been committed late
    lookback_deadline: bool = True  # and those that may have been misread or undone within a deadline
    late_commit: bool = True  # the deadline applies to the commit, too
    cap: int = 9  # how many claims beside the newest a register keeps


class Kind(Enum):
    """The effect of a version."""

    CONTENT = auto()
    EVICTION = auto()  # a tombstone, or an archived document
    PENDING = auto()  # a generation request
    INVALID = auto()


class Version(NamedTuple):
    """A version of a document."""

    timestamp: int
    kind: Kind
    keys: frozenset[Key] = frozenset()


class Read(NamedTuple):
    """A document as MongoDB returned it."""

    document: Document
    version: Version | None  # None: there is no such document
    read_at: int  # the clock of Redis before the read
    confirmed: bool  # by _id and linearizable, so not from a deposed primary

    @property
    def timestamp(self) -> int | None:
        """The date of the version; None for a deleted document."""
        return self.version.timestamp if self.version else None

    @property
    def claims(self) -> frozenset[Key]:
        """The keys that the version fills, evicts or requests."""
        return self.version.keys if self.version else frozenset()

    @property
    def invalid(self) -> bool:
        """Whether the document is invalid."""
        return self.version is not None and self.version.kind is Kind.INVALID

    def __str__(self) -> str:
        if self.version is None:
            return f"{self.document} gone [{self.read_at}]"
        timestamp, kind, keys = self.version
        return f"{self.document}@{timestamp} {kind.name.lower()} {'+'.join(sorted(keys))} [{self.read_at}]"


class Clock(NamedTuple):
    """The clock of Redis in a script, and the maximal age of a read."""

    now: int
    deadline: int


class Answer(Enum):
    """The answer of a script."""

    PROCEED = auto()
    DONE = auto()
    STALE = auto()
    LATE = auto()
    NEED = auto()


def is_late(clock: Clock, read_at: int, rules: Rules) -> bool:
    """Whether a read is too old, or from before the clock was set back."""
    too_old = rules.late and clock.now - read_at > clock.deadline
    return too_old or (rules.read_ahead and read_at > clock.now)


def is_stale(clock: Clock, read_at: int, written_at: int, rules: Rules) -> bool:
    """Whether an entry changed after a read."""
    return read_at <= written_at and (written_at <= clock.now or not rules.written_ahead)


# The record of a document


class Record(NamedTuple):
    """The version of a document that was recorded last, and the keys to write for it."""

    timestamp: int | None  # None: deleted
    claims: frozenset[Key]
    written_at: int
    done: bool


class RecordAnswer(NamedTuple):
    """The answer of `record`."""

    answer: Answer
    given_up: frozenset[Key] = frozenset()
    token: int = 0


def record(old: Record | None, read: Read, clock: Clock, rules: Rules) -> tuple[Record | None, RecordAnswer]:
    """Record a version and its claims before anything is written for them."""
    if is_late(clock, read.read_at, rules):
        return old, RecordAnswer(Answer.LATE)
    claims = read.claims if rules.queue_claimed else read.claims - {QUEUE}
    if old is None:
        return Record(read.timestamp, claims, clock.now, done=False), RecordAnswer(
            Answer.PROCEED, token=clock.now
        )
    same = old.timestamp == read.timestamp
    if not same and _refuses_version(old, read, clock, rules):
        return old, RecordAnswer(Answer.STALE)
    done = same and old.done and old.claims == claims
    written_at = clock.now if rules.repeat_renews or not same else old.written_at
    new = Record(read.timestamp, claims | old.claims if rules.union else claims, written_at, done)
    return new, RecordAnswer(Answer.DONE if done else Answer.PROCEED, old.claims - claims, written_at)


def _refuses_version(old: Record, read: Read, clock: Clock, rules: Rules) -> bool:
    if rules.stale_record and is_stale(clock, read.read_at, old.written_at, rules):
        return True
    if read.confirmed or read.timestamp is None:
        return False
    if old.timestamp is None:
        return rules.older_gone
    return rules.older and read.timestamp < old.timestamp


def done(old: Record | None, read: Read, token: int, rules: Rules) -> Record | None:
    """Mark a version as written, and drop the keys that it gave up."""
    if old is None or old.timestamp != read.timestamp or (rules.done_token and old.written_at != token):
        return old
    return old._replace(claims=read.claims if rules.queue_claimed else read.claims - {QUEUE}, done=True)


# The owners of a key


class Entry(NamedTuple):
    """The last change of a key by a document."""

    timestamp: int | None
    live: bool
    written_at: int


class Claim(NamedTuple):
    """A live entry; the greatest claim decides the content of the key."""

    timestamp: int
    document: Document


class Owner(NamedTuple):
    """The documents that claim a key, and those that gave it up."""

    entries: Mapping[Document, Entry]
    overflow: bool = False  # claims were dropped

    def claims(self, rules: Rules) -> list[Claim]:
        """The live entries, the newest last."""
        claims = [Claim(e.timestamp or 0, d) for d, e in self.entries.items() if e.live]
        return sorted(
            claims if rules.tie else reversed(claims), key=lambda c: c if rules.tie else c.timestamp
        )


class Change(NamedTuple):
    """A change of a key by a document."""

    timestamp: int | None
    live: bool
    read_at: int

    def __repr__(self) -> str:
        return f"{'live' if self.live else 'left'}@{self.timestamp} [{self.read_at}]"


class ApplyAnswer(NamedTuple):
    """The answer of `apply`."""

    answer: Answer
    top: Claim | None = None
    write: bool = False  # the key gets the content of `top`, which is in the call
    remove: bool = False
    reconcile: bool = False  # a claim that was dropped may be the newest now


def apply(
    old: Owner, changes: Mapping[Document, Change], clock: Clock, rules: Rules
) -> tuple[Owner, ApplyAnswer]:
    """Change entries of a key; the newest live one decides the content."""
    if any(is_late(clock, change.read_at, rules) for change in changes.values()):
        return old, ApplyAnswer(Answer.LATE)
    entries = {d: e for d, e in old.entries.items() if e.live or clock.now - e.written_at <= clock.deadline}
    if any(_refuses_change(entries.get(d), change, clock, rules) for d, change in changes.items()):
        return old, ApplyAnswer(Answer.STALE)
    for document, change in changes.items():
        if change.live or rules.left:
            entries[document] = _entry(entries.get(document), change, clock, rules)
        else:
            entries.pop(document, None)
    new = Owner(entries, old.overflow)
    before, claims = old.claims(rules)[-1:], new.claims(rules)
    if not claims:
        return new, ApplyAnswer(Answer.PROCEED, remove=True, reconcile=rules.overflow and new.overflow)
    top = claims[-1]
    answer = ApplyAnswer(Answer.PROCEED, top, write=top.document in changes)
    if not answer.write and before != [top]:
        if rules.successor_in_same_call:
            return old, answer._replace(answer=Answer.NEED)
        answer = answer._replace(answer=Answer.NEED, remove=True)
    if rules.overflow and new.overflow and before > [top]:
        answer = answer._replace(reconcile=True)
    return _capped(new, claims[:-1], rules), answer


def _refuses_change(entry: Entry | None, change: Change, clock: Clock, rules: Rules) -> bool:
    if entry is None or not rules.stale_apply:
        return False
    same = entry.live == change.live and (not entry.live or entry.timestamp == change.timestamp)
    return not same and is_stale(clock, change.read_at, entry.written_at, rules)


def _entry(old: Entry | None, change: Change, clock: Clock, rules: Rules) -> Entry:
    repeats = old and old.live == change.live and old.timestamp == change.timestamp
    written_at = old.written_at if old and repeats and not rules.repeat_renews else clock.now
    return Entry(change.timestamp, change.live, written_at)


def _capped(owner: Owner, lost: list[Claim], rules: Rules) -> Owner:
    dropped = {claim.document for claim in (lost[: -rules.cap] if rules.lost else lost)}
    if not dropped:
        return owner
    entries = {d: e for d, e in owner.entries.items() if d not in dropped}
    return Owner(entries, overflow=rules.lost)


# The requests in a queue


class Request(NamedTuple):
    """The entry of a document in the register of a queue."""

    pushed: int | None
    written_at: int


class EnqueueAnswer(NamedTuple):
    """The answer of `enqueue`."""

    answer: Answer
    push: bool = False


def enqueue(
    old: Request | None, read: Read, clock: Clock, rules: Rules
) -> tuple[Request | None, EnqueueAnswer]:
    """Push a request unless its version was pushed before, or record that the document has none."""
    if is_late(clock, read.read_at, rules):
        return old, EnqueueAnswer(Answer.LATE)
    push = QUEUE in read.claims
    pushed = old.pushed if old and rules.queue_pushed else None
    if push and pushed == read.timestamp:
        return old, EnqueueAnswer(Answer.PROCEED)
    if old and rules.stale_queue and is_stale(clock, read.read_at, old.written_at, rules):
        return old, EnqueueAnswer(Answer.STALE)
    if push and rules.queue_confirmed and not read.confirmed:
        return old, EnqueueAnswer(Answer.STALE)
    if push:
        return Request(read.timestamp, clock.now), EnqueueAnswer(Answer.PROCEED, push=True)
    return Request(pushed, clock.now) if rules.queue_recorded else old, EnqueueAnswer(Answer.PROCEED)


def sweep(old: Request | None, seen: Request, rules: Rules) -> Request | None:
    """Drop the entry of a document that has had no request for a while."""
    return None if old == seen or not rules.sweep_exact else old
