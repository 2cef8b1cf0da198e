"""One batch of documents into the cache: record, apply, mark as done. Every run writes through here.

Cycles, backfill workers, refreshes, repairs and the follower write at the same time and in any order. A document
that was read too early, and a document that decides about a key of the batch, is read again by `_id` and joins the
batch, until every key was changed by reads that were young enough: see docs/guarantees.md.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple

from etl.cache.writer import (
    DEADLINE_SECONDS,
    DONE,
    QUEUED,
    STALE,
    Applied,
    CacheWriter,
    KeyWrite,
    QueuePush,
    statement,
)
from etl.errors import TransientError
from etl.interfaces import Reread
from etl.model.batch import BatchOutcome, Deferred, Rejected
from etl.model.result import GONE, TransformResult, gone
from etl.retry import Retry
from schemas.operations import Put, Reject

_ROUNDS: Final = 50
"""How often documents are read again for one batch before that counts as a failure."""


class ContestedKey(NamedTuple):
    """A key that could not be changed yet."""

    documents: frozenset[str]
    """Those to read again for it."""
    blocker: str = ""
    """The one of them that decides and was not in the call, if that was the reason."""
    holds: bool = False
    """Whether what the key holds is of the blocker."""


class PendingWrite(NamedTuple):
    """A document that is to be written, and the keys that it gives up."""

    result: TransformResult
    given_up: Collection[str]


@dataclass(frozen=True, slots=True)
class Processor:
    """Writes batches of documents. Methods raise `EtlError` where a server stays away, or refuses."""

    writer: CacheWriter
    source: str
    """What the names of documents of its collection begin with."""
    reread: Reread
    knows: Callable[[str], bool]
    """Whether the settings name the collection of a document."""
    retry: Retry

    def process(
        self,
        page: Sequence[TransformResult],
        read_at: int,
        *,
        remember_from: int | None,
        trust: bool = True,
        left: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> BatchOutcome:
        """Write the documents of a page, given in ascending order of their positions.

        Args:
            page: results of the transform.
            read_at: the clock of Redis before they were read, in microseconds.
            remember_from: versions dated from this millisecond on are marked as done, as a delta reads them again;
                None marks none.
            trust: whether a version that is marked as done is left alone.
            left: by document, keys that it leaves unless it claims them, whatever its record says.
        """
        met = Counter([result.document for result in page])
        again = {document for document, count in met.items() if count > 1}  # written while the page was read
        results: Sequence[TransformResult] = (
            [one for one in page if one.document not in again] if again else page
        )
        outcome = BatchOutcome()
        latest: dict[str, TransformResult] = {}
        applied: dict[str, tuple[TransformResult, str]] = {}
        locks: dict[str, str] = {}
        filled: dict[str, str | None] = {}
        contested: dict[str, ContestedKey] = {}
        for number in range(_ROUNDS):
            if number:
                read_at, results = self._read(again)
            valid = [result for result in results if result.reject is None]
            latest.update([(result.document, result) for result in results])
            record = self.retry(partial(self.writer.record, valid, read_at, confirmed=number > 0))
            going: list[PendingWrite] = []
            stale: set[str] = set() if number else again
            for result, answer, at in zip(valid, record.answers, record.at, strict=True):
                document = result.document
                if answer == STALE:
                    stale.add(document)
                    continue
                done = answer == DONE and trust
                locked = not done and result.lock in record.held
                if locked:
                    locks[document] = result.lock or ""
                elif not done:
                    locks.pop(document, None)
                    applied[document] = result, at
                    given_up: Collection[str] = answer.split(" ") if type(answer) is str else ()
                    if left:
                        given_up = {*given_up, *left.get(document, ())}.difference(
                            statement(result).split(" ")
                        )
                    going.append(PendingWrite(result, given_up))
                if contested and document not in applied:
                    # Left alone, but for keys that it inherits or has left.
                    writes = [
                        one for one in result.writes if _inherits(document, contested.get(one.key), locked)
                    ]
                    if writes or not locked:
                        going.append(PendingWrite(result._replace(writes=tuple(writes), pushes=()), ()))
            changes, requests = plan(going, contested, stale)
            largest = max([result.size for result in valid], default=0)
            reply = self.retry(partial(self.writer.apply, changes, requests, read_at, largest))
            contested = _contested(reply, changes, contested, stale)
            filled |= {key: _family(several) for key, several in changes.items() if key not in contested}
            outcome.enqueued += reply.pushed
            outcome.queues |= {request.queue for request in requests if request.item}
            outcome.incomplete += len(reply.incomplete)
            latest |= {name: latest[name]._replace(reject=_NO_QUEUE) for name in reply.refused}
            again = stale.union(reply.stale, *(one.documents for one in contested.values()))
            if not again:
                break
        else:
            raise TransientError("documents change faster than they can be written")
        if remember_from is not None:
            recent = (one for one in applied.values() if one[0].ms is not None and one[0].ms >= remember_from)
            finished = [one for one in recent if latest[one[0].document] is one[0]]
            self.retry(partial(self.writer.mark_done, finished))
        outcome.entries = Counter([family for family in filled.values() if family is not None])
        for document in met:
            result = latest[document]
            if result.reject is not None:
                outcome.rejected.append(Rejected(result.id, result.reject, result.timestamp))
            elif document in locks:
                outcome.deferred.append(Deferred(result.id, locks[document]))
            else:
                outcome.handled.append(result.id)
                if document in applied and result.timestamp != GONE:
                    fills = Put in map(type, result.writes)
                    outcome.processed += 1
                    outcome.written += fills
                    outcome.evicted += bool(result.writes) and not fills
        return outcome

    def repair(self, claimants: Mapping[str, Collection[str]]) -> BatchOutcome:
        """Read these documents, and write each key as they say; those that do not claim it leave it.

        Args:
            claimants: by key, the names of the documents that may claim it.
        """
        left: dict[str, list[str]] = {}
        for key, documents in claimants.items():
            for document in documents:
                left.setdefault(document, []).append(key)
        read_at, results = self._read(left)
        return self.process(results, read_at, remember_from=None, trust=False, left=left)

    def sweep(self, queue: str, cursor: str) -> str:
        """Forget some requests that guard against nothing any more: no older read can arrive, and none is made again.

        Args:
            queue: the key of the queue.
            cursor: "0", then the one that the call before returned; "0" again after the last.
        """
        cursor, requests = self.retry(partial(self.writer.requests, queue, cursor))
        if not requests:
            return cursor
        deadline = self.retry(self.writer.now) - int(DEADLINE_SECONDS * 1_000_000)
        parts = {document: text.split(" ") for document, text in requests.items()}
        old = {document: pushed for document, (at, pushed) in parts.items() if int(at) < deadline}
        asked = [document for document, pushed in old.items() if pushed != "-"]
        _, results = self._read(asked) if asked else (0, [])
        made = {one.document for one in results if old[one.document] == one.timestamp and _asks(one, queue)}
        read = {one.document for one in results}
        over = {name for name, pushed in old.items() if pushed == "-" or name in read - made}
        self.retry(partial(self.writer.forget, queue, {name: requests[name] for name in over}))
        return cursor

    def now(self) -> int:
        """The clock of Redis in microseconds since the epoch."""
        return self.writer.now()

    def held(self, locks: Sequence[str]) -> frozenset[str]:
        """Which of these locks exist."""
        return self.retry(partial(self.writer.held, locks))

    def read(self, ids: Sequence[str], reread: Reread | None = None) -> tuple[int, list[TransformResult]]:
        """The clock of Redis, and then documents of the collection as they are now, those that are gone among them.

        Args:
            ids: their `_id`s as canonical Extended JSON.
            reread: another way to read them, for a caller that learns of whatever is newer.
        """
        return self._read([f"{self.source} {document_id}" for document_id in ids], reread)

    def _read(
        self, documents: Collection[str], reread: Reread | None = None
    ) -> tuple[int, list[TransformResult]]:
        read_at = self.retry(self.writer.now)
        found = self.retry(partial(reread or self.reread, documents))
        there = {result.document for result in found}
        missing = [gone(name) for name in sorted(documents) if name not in there and self.knows(name)]
        return read_at, [*missing, *found]

    def pass_over(self, page: Sequence[TransformResult], read_at: int) -> None:
        """Mark documents as done without writing them."""
        valid = [result for result in page if result.reject is None]
        record = self.retry(partial(self.writer.record, valid, read_at, confirmed=False))
        self.retry(partial(self.writer.mark_done, [*zip(valid, record.at, strict=True)]))


_NO_QUEUE: Final = Reject("its queue holds something that is not a list: move it away")


def plan(
    going: Sequence[PendingWrite], contested: Mapping[str, ContestedKey], stale: AbstractSet[str]
) -> tuple[dict[str, list[KeyWrite]], list[QueuePush]]:
    """What is done to each key and queue, in the order of the documents.

    A document that was read again for a key and does not claim it any more leaves it. One that could not be read
    (invalid, or of a collection that the settings do not name), is locked, or leaves the key as it is, keeps the key
    that it holds: the others claim it below. It inherits none. Where a document is stale, its contested keys wait
    until it is read again.
    """
    changes: dict[str, list[KeyWrite]] = {}
    requests: list[QueuePush] = []
    for (document, timestamp, _, writes, pushes, *_), given_up in going:
        line = f"{timestamp} {document}"
        for write in writes:
            changes.setdefault(write.key, []).append(KeyWrite(document, line, write))
        for push in pushes:
            requests.append(QueuePush(push.key, document, timestamp, push.item))
        for key in given_up:
            if key.startswith(QUEUED):
                requests.append(QueuePush(key.removeprefix(QUEUED), document, timestamp, ""))
            else:
                changes.setdefault(key, []).append(KeyWrite(document, line, None))
    read = {one.result.document: one.result for one in going} if contested else {}
    for key, (documents, blocker, holds) in contested.items():
        several = changes.pop(key, [])
        if documents & stale:
            continue
        here = {
            name for name in documents if name in read and all(keep.key != key for keep in read[name].keeps)
        }
        acting = {change.document for change in several}
        several += [KeyWrite(name, f"{read[name].timestamp} {name}", None) for name in here - acting]
        if blocker and blocker not in here:
            if holds:
                several = [change._replace(loses=change.write is not None) for change in several]
            else:
                several.append(KeyWrite(blocker, f"{GONE} {blocker}", None))
        if several:
            changes[key] = several
    return changes, requests


def _asks(result: TransformResult, queue: str) -> bool:
    """Whether a document asks for what it has pushed; an invalid one may do so again once it is valid."""
    return result.reject is not None or any(push.key == queue for push in result.pushes)


def _inherits(document: str, contested: ContestedKey | None, locked: bool) -> bool:  # noqa: FBT001
    """Whether a document that is not to be written now is needed for a contested key all the same."""
    if contested is None or document not in contested.documents:
        return False
    return not (locked and contested.holds and contested.blocker == document)


def _contested(
    reply: Applied,
    changes: Mapping[str, Sequence[KeyWrite]],
    before: Mapping[str, ContestedKey],
    stale: AbstractSet[str],
) -> dict[str, ContestedKey]:
    """The keys to try again, and the documents to read again for each."""
    waiting = {key: one for key, one in before.items() if one.documents & stale}
    for key, blocker, holds in reply.conflicts:
        documents = {change.document for change in changes[key]} | ({blocker} if blocker else set())
        waiting[key] = ContestedKey(frozenset(documents), blocker, holds)
    return waiting


def _family(changes: Sequence[KeyWrite]) -> str | None:
    """The family of what fills the key after these changes, None where it is removed."""
    if type(write := changes[-1].write) is Put:
        return write.family
    write = next((change.write for change in reversed(changes) if change.write is not None), None)
    return write.family if isinstance(write, Put) else None
