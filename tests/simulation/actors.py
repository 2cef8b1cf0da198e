"""The actors: generators that yield one step at a time.

A step is one command to one server. Any event may happen between two steps, also a crash.
"""

from collections.abc import Callable, Collection, Generator, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeVar

from tests.simulation.protocol import QUEUE, Answer, ApplyAnswer, Change, Claim, Document, Key, Read
from tests.simulation.world import DEADLINE, NEVER, OVERLAP, Outcome, World

Result = TypeVar("Result")


class Step(NamedTuple):
    """A command that an actor is about to send."""

    name: str
    call: Callable[..., Any]
    subject: object = ""

    @property
    def writes(self) -> bool:
        """Whether the command changes Redis; such a call may arrive twice or late."""
        return self.name in {"record", "apply", "enqueue", "done", "commit", "sweep"}


Steps = Generator[Step, Any, Result]
Actor = Steps[None]


class LateError(Exception):
    """The documents of a batch were read too long ago."""


class Batch:
    """The processor: documents on their way into the cache."""

    def __init__(
        self, world: World, reads: Iterable[Read], since: int, distrusted: Collection[Document] = ()
    ) -> None:
        self.world = world
        self.rules = world.rules
        self.reads = {read.document: read for read in reads}
        self.since = since  # documents dated later are read again, so they are marked as done
        self.distrusted = set(distrusted)
        self.outcome = Outcome()
        self.asking = list(self.reads)
        self.open: set[tuple[Key, Document]] = set()  # entries to change
        self.successors: set[tuple[Key, Document]] = set()  # those of them that let another document leave
        self.tokens: dict[Document, int] = {}
        self.now = 0

    def run(self) -> Steps[bool]:
        """Record, write and mark; False if the documents must be read again."""
        try:
            while self.asking or self.open:
                while self.asking:
                    yield from self._ask(self.asking.pop(0))
                for key in sorted({key for key, _ in self.open}):
                    yield from (self._enqueue() if key == QUEUE else self._apply(key))
            yield from self._mark()
        except LateError:
            return False
        return True

    def _ask(self, document: Document) -> Steps[None]:
        """Record a version, and find out which entries it changes."""
        self.tokens.pop(document, None)
        read = self.reads[document]
        if read.invalid and self.rules.invalid_unrecorded:
            self._set_aside(document, self.outcome.dead)
            return
        answer, locked = yield Step("record", partial(self.world.record, read), read)
        self._check(answer.answer)
        if answer.answer is Answer.STALE:
            yield from self._read_again(document)
            self.asking.append(document)
            return
        todo = answer.answer is Answer.PROCEED or document in self.distrusted
        if todo and locked:
            self._set_aside(document, self.outcome.deferred)
            return
        self.outcome.move(document, self.outcome.settled)
        if todo:
            self.open |= {(key, document) for key in read.claims | answer.given_up}
            self.tokens[document] = answer.token

    def _set_aside(self, document: Document, where: set[Document]) -> None:
        """Leave a document to a later batch, unless another document needs its entry to leave a key."""
        self.outcome.move(document, where)
        self.open = {pair for pair in self.open if pair[1] != document or pair in self.successors}
        if self.reads[document].invalid and any(pair[1] == document for pair in self.open):
            self.world.invalid_successors.add(document)

    def _apply(self, key: Key) -> Steps[None]:
        """Change the open entries of a key in one call."""
        documents = sorted(document for each, document in self.open if each == key)
        changes = {document: self._change(key, document) for document in documents}
        call = partial(self.world.apply, key, changes, dict(self.reads))
        answer: ApplyAnswer = yield Step("apply", call, (key, changes))
        self._check(answer.answer)
        if answer.answer is Answer.STALE:
            for document in documents:
                yield from self._read_again(document)
                self._join(document)
        elif answer.answer is Answer.NEED and answer.top:
            yield from self._fetch_successor(key, answer.top.document)
        else:
            self.open -= {(key, document) for document in documents}
            if answer.top and not answer.write and any(change.live for change in changes.values()):
                yield from self._check_holder(key, answer.top)

    def _change(self, key: Key, document: Document) -> Change:
        read = self.reads[document]
        return Change(read.timestamp, key in read.claims, read.read_at)

    def _fetch_successor(self, key: Key, successor: Document) -> Steps[None]:
        """Read the document whose claim is the newest after another one has left."""
        self.open.add((key, successor))
        self.successors.add((key, successor))
        read = yield from self._read_again(successor)
        if self.rules.successor_recorded or read.invalid:
            self._join(successor)

    def _check_holder(self, key: Key, top: Claim) -> Steps[None]:
        """Read the document of the newest claim again; the claim may be out of date."""
        if not self.rules.holder_reread or (key, top.document) in self.open:
            return
        holder = top.document
        read: Read = yield Step("find", partial(self.world.find, holder, self.now), holder)
        if read.invalid or (read.timestamp == top.timestamp and key in read.claims):
            return
        self.reads[holder] = read
        self.open.add((key, holder))
        if self.rules.successor_recorded:
            self._join(holder)

    def _enqueue(self) -> Steps[None]:
        for document in sorted(document for key, document in self.open if key == QUEUE):
            read = self.reads[document]
            answer = yield Step("enqueue", partial(self.world.enqueue, read), read)
            self._check(answer.answer)
            if answer.answer is Answer.STALE:
                yield from self._read_again(document)
                self._join(document)
            else:
                self.open.discard((QUEUE, document))

    def _mark(self) -> Steps[None]:
        for document, token in sorted(self.tokens.items()):
            read = self.reads[document]
            self.world.handled[document] = (read.timestamp, self.world.ticks)
            if read.timestamp is None or read.timestamp >= self.since:
                yield Step("done", partial(self.world.done, read, token), read)

    def _read_again(self, document: Document) -> Steps[Read]:
        """Read a document by its _id; its read time is the last answer of Redis."""
        read: Read = yield Step("find", partial(self.world.find, document, self.now), document)
        self.reads[document] = read
        return read

    def _join(self, document: Document) -> None:
        """Record a document again that was read again; its open entries are written even if it is done."""
        self.distrusted.discard(document)
        if document not in self.asking:
            self.asking.append(document)

    def _check(self, answer: Answer) -> None:
        self.now = self.world.now
        if answer is Answer.LATE:
            raise LateError


def worker(world: World) -> Actor:
    """Backfill: read all documents once."""
    written = False
    while not written:
        read_at = yield Step("time", lambda: world.now)
        page = yield Step("page", partial(world.page, -NEVER, read_at))
        batch = Batch(world, page, world.today - OVERLAP)
        written = (yield from batch.run()) and (
            yield Step("commit", partial(world.commit, batch.outcome, read_at))
        )


def cycle(world: World) -> Actor:
    """Read changed and deferred documents."""
    rules = world.rules
    reach = (OVERLAP + DEADLINE * rules.lookback_deadline) * rules.lookback
    since, began = yield Step("begin", lambda: (min(world.position, world.checked - reach), world.today))
    written = False
    while not written:
        read_at, deferred = yield Step("time", lambda: (world.now, sorted(world.deferred)))
        page = yield Step("page", partial(world.page, since, read_at))
        reads = {read.document: read for read in page}
        for document in deferred:
            reads[document] = yield Step("find", partial(world.find, document, read_at), document)
        batch = Batch(
            world, reads.values(), began - reach, distrusted=deferred if rules.deferred_distrusted else ()
        )
        dates = [read.timestamp for read in page if read.timestamp <= began]

        def commit(
            outcome: Outcome = batch.outcome, read_at: int = read_at, dates: list[int] = dates
        ) -> bool:
            if not world.commit(outcome, read_at):
                return False
            world.position = max([world.position, *dates])
            world.checked = max(world.checked, began)
            return True

        written = (yield from batch.run()) and (yield Step("commit", commit))
    for document, request in (yield Step("old requests", world.old_requests)):
        read = yield Step("find", partial(world.find, document, world.now), document)
        if read.timestamp != request.pushed or QUEUE not in read.claims:
            yield Step("sweep", partial(world.sweep, document, request), document)


def follower(world: World) -> Actor:
    """Read the documents of the change stream."""
    written = False
    while not written:
        read_at = yield Step("time", lambda: world.now)

        def events(read_at: int = read_at) -> tuple[int, list[Read]]:
            names = sorted(set(world.events[world.token :]))
            return len(world.events), [world.find(name, read_at)._replace(confirmed=False) for name in names]

        token, reads = yield Step("events", events)
        for number, read in enumerate(reads):
            if read.version is None:
                reads[number] = yield Step("find", partial(world.find, read.document, read_at), read.document)
        batch = Batch(world, reads, world.today - OVERLAP, distrusted=[read.document for read in reads])

        def commit(outcome: Outcome = batch.outcome, read_at: int = read_at, token: int = token) -> bool:
            if not world.commit(outcome, read_at):
                return False
            world.token = max(world.token, token)
            return True

        written = (yield from batch.run()) and (yield Step("commit", commit))


def reconcile(world: World) -> Actor:
    """Read every document in MongoDB, in a record or in a live entry."""

    def everything() -> list[tuple[Document, set[Key]]]:
        keys: dict[Document, set[Key]] = {name: set() for name in (*world.documents, *world.records)}
        for key, owner in world.owners.items():
            for claim in owner.claims(world.rules):
                keys.setdefault(claim.document, set()).add(key)
        return sorted(keys.items())

    for document, keys in (yield Step("list", everything)):
        written = False
        while not written:
            read_at = yield Step("time", lambda: world.now)
            read = yield Step("find", partial(world.find, document, read_at), document)
            batch = Batch(world, [read], world.today - OVERLAP, distrusted=[document])
            batch.open = {(key, document) for key in keys}
            written = (yield from batch.run()) and (
                yield Step("commit", partial(world.commit, batch.outcome, read_at))
            )


ACTORS: dict[str, Callable[[World], Actor]] = {
    "worker": worker,
    "second worker": worker,
    "cycle": cycle,
    "second cycle": cycle,
    "follower": follower,
    "second follower": follower,
    "reconcile": reconcile,
}
