"""The write protocol as pure functions: the registers in Redis and the scripts that change them.

Each script takes the register that it changes, and returns the new register and an answer. `Rules` switches
single rules off: the tests show with it what each rule prevents.
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
    read_ahead: bool = True  # likewise one whose documents were read "later than now": the clock was set back
    overtaken_record: bool = True  # only a read younger than the last change of a record changes it
    overtaken_apply: bool = True  # likewise an entry of an owner register
    overtaken_queue: bool = True  # likewise an entry of a queue
    written_ahead: bool = True  # what was written "later than now" overtakes nothing
    repeat_renews: bool = True  # a repetition counts as a change
    older: bool = True  # a page puts no record back to an older date: a deposed primary may have sent it
    older_gone: bool = True  # nor does it bring a deleted document back
    union: bool = True  # a record keeps the keys of former versions until they are given up
    left: bool = True  # a document that gave up a key stays in the register of the key for a while
    lost: bool = True  # so does a live claim that is not the newest
    tie: bool = True  # equal dates are ordered by _id
    heir_in_same_call: bool = True  # a holder leaves only together with the content of its heir
    heir_recorded: bool = True  # an heir, or a holder that changed, is recorded before its entry changes
    holder_reread: bool = True  # a holder is read again before it refuses a claim
    done_token: bool = True  # a done mark names the change of the record that it completes
    invalid_unrecorded: bool = True  # an invalid document changes no register
    deferred_distrusted: bool = True  # a deferred document is written even if it is done
    queue_claimed: bool = True  # a queue counts among the claims of a record
    queue_noted: bool = True  # a queue notes when a document asks for nothing any more
    queue_pushed: bool = True  # a queue remembers the version that was pushed
    queue_confirmed: bool = True  # only a confirmed read pushes: what was pushed is not taken back
    sweep_exact: bool = True  # a sweep drops only what has not changed since it looked
    overflow: bool = True  # a register that dropped claims says so when its holder leaves
    lookback: bool = True  # a cycle reads again what may have been committed late
    lookback_deadline: bool = True  # and what may have been misread or undone within a deadline
    late_commit: bool = True  # the deadline holds for the commit, too
    cap: int = 9  # how many claims beside the newest a register keeps


class Kind(Enum):
    """What a document asks for."""

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
    confirmed: bool  # by _id, linearizable: no deposed primary answers so

    @property
    def timestamp(self) -> int | None:
        """The date of the version; None for a document that is gone."""
        return self.version.timestamp if self.version else None

    @property
    def claims(self) -> frozenset[Key]:
        """The keys that the version fills, evicts or asks for."""
        return self.version.keys if self.version else frozenset()

    @property
    def invalid(self) -> bool:
        """Whether the document does not fit its kind."""
        return self.version is not None and self.version.kind is Kind.INVALID

    def __str__(self) -> str:
        if self.version is None:
            return f"{self.document} gone [{self.read_at}]"
        timestamp, kind, keys = self.version
        return f"{self.document}@{timestamp} {kind.name.lower()} {'+'.join(sorted(keys))} [{self.read_at}]"


class Clock(NamedTuple):
    """The clock of Redis as a script sees it, and how old a read may be."""

    now: int
    deadline: int


class Answer(Enum):
    """What a script answers."""

    GO = auto()
    DONE = auto()
    OVERTAKEN = auto()
    LATE = auto()
    NEED = auto()


def is_late(clock: Clock, read_at: int, rules: Rules) -> bool:
    """Whether a read is too old, or comes from a clock that was set back since."""
    too_old = rules.late and clock.now - read_at > clock.deadline
    return too_old or (rules.read_ahead and read_at > clock.now)


def is_overtaken(clock: Clock, read_at: int, written_at: int, rules: Rules) -> bool:
    """Whether an entry changed after a read."""
    return read_at <= written_at and (written_at <= clock.now or not rules.written_ahead)


# The record of a document


class Record(NamedTuple):
    """The version of a document that was met last, and the keys to write for it."""

    timestamp: int | None  # None: gone
    claims: frozenset[Key]
    written_at: int
    done: bool


class RecordAnswer(NamedTuple):
    """The answer of `record`."""

    answer: Answer
    given_up: frozenset[Key] = frozenset()
    token: int = 0


def record(old: Record | None, read: Read, clock: Clock, rules: Rules) -> tuple[Record | None, RecordAnswer]:
    """Note a version and its claims before anything is written for them."""
    if is_late(clock, read.read_at, rules):
        return old, RecordAnswer(Answer.LATE)
    claims = read.claims if rules.queue_claimed else read.claims - {QUEUE}
    if old is None:
        return Record(read.timestamp, claims, clock.now, done=False), RecordAnswer(Answer.GO, token=clock.now)
    same = old.timestamp == read.timestamp
    if not same and _refuses_version(old, read, clock, rules):
        return old, RecordAnswer(Answer.OVERTAKEN)
    done = same and old.done and old.claims == claims
    written_at = clock.now if rules.repeat_renews or not same else old.written_at
    new = Record(read.timestamp, claims | old.claims if rules.union else claims, written_at, done)
    return new, RecordAnswer(Answer.DONE if done else Answer.GO, old.claims - claims, written_at)


def _refuses_version(old: Record, read: Read, clock: Clock, rules: Rules) -> bool:
    if rules.overtaken_record and is_overtaken(clock, read.read_at, old.written_at, rules):
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
    """What a document last said about a key."""

    timestamp: int | None
    live: bool
    written_at: int


class Claim(NamedTuple):
    """A live entry; the greatest claim decides what the key shows."""

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
    """What a document says about a key now."""

    timestamp: int | None
    live: bool
    read_at: int

    def __repr__(self) -> str:
        return f"{'live' if self.live else 'left'}@{self.timestamp} [{self.read_at}]"


class ApplyAnswer(NamedTuple):
    """The answer of `apply`."""

    answer: Answer
    top: Claim | None = None
    write: bool = False  # the key shows the top, whose content is in the call
    remove: bool = False
    reconcile: bool = False  # a claim that was dropped may be the newest now


def apply(
    old: Owner, changes: Mapping[Document, Change], clock: Clock, rules: Rules
) -> tuple[Owner, ApplyAnswer]:
    """Change entries of a key; the newest live one decides what the key shows."""
    if any(is_late(clock, change.read_at, rules) for change in changes.values()):
        return old, ApplyAnswer(Answer.LATE)
    entries = {d: e for d, e in old.entries.items() if e.live or clock.now - e.written_at <= clock.deadline}
    if any(_refuses_change(entries.get(d), change, clock, rules) for d, change in changes.items()):
        return old, ApplyAnswer(Answer.OVERTAKEN)
    for document, change in changes.items():
        if change.live or rules.left:
            entries[document] = _entry(entries.get(document), change, clock, rules)
        else:
            entries.pop(document, None)
    new = Owner(entries, old.overflow)
    before, claims = old.claims(rules)[-1:], new.claims(rules)
    if not claims:
        return new, ApplyAnswer(Answer.GO, remove=True, reconcile=rules.overflow and new.overflow)
    top = claims[-1]
    answer = ApplyAnswer(Answer.GO, top, write=top.document in changes)
    if not answer.write and before != [top]:
        if rules.heir_in_same_call:
            return old, answer._replace(answer=Answer.NEED)
        answer = answer._replace(answer=Answer.NEED, remove=True)
    if rules.overflow and new.overflow and before > [top]:
        answer = answer._replace(reconcile=True)
    return _capped(new, claims[:-1], rules), answer


def _refuses_change(entry: Entry | None, change: Change, clock: Clock, rules: Rules) -> bool:
    if entry is None or not rules.overtaken_apply:
        return False
    same = entry.live == change.live and (not entry.live or entry.timestamp == change.timestamp)
    return not same and is_overtaken(clock, change.read_at, entry.written_at, rules)


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
    """What a queue remembers of a document."""

    pushed: int | None
    written_at: int


class EnqueueAnswer(NamedTuple):
    """The answer of `enqueue`."""

    answer: Answer
    push: bool = False


def enqueue(
    old: Request | None, read: Read, clock: Clock, rules: Rules
) -> tuple[Request | None, EnqueueAnswer]:
    """Push a request unless its version was pushed before, or note that the document asks for nothing."""
    if is_late(clock, read.read_at, rules):
        return old, EnqueueAnswer(Answer.LATE)
    push = QUEUE in read.claims
    pushed = old.pushed if old and rules.queue_pushed else None
    if push and pushed == read.timestamp:
        return old, EnqueueAnswer(Answer.GO)
    if old and rules.overtaken_queue and is_overtaken(clock, read.read_at, old.written_at, rules):
        return old, EnqueueAnswer(Answer.OVERTAKEN)
    if push and rules.queue_confirmed and not read.confirmed:
        return old, EnqueueAnswer(Answer.OVERTAKEN)
    if push:
        return Request(read.timestamp, clock.now), EnqueueAnswer(Answer.GO, push=True)
    return Request(pushed, clock.now) if rules.queue_noted else old, EnqueueAnswer(Answer.GO)


def sweep(old: Request | None, seen: Request, rules: Rules) -> Request | None:
    """Forget a document that has asked for nothing for a while."""
    return None if old == seen or not rules.sweep_exact else old
