"""One batch of documents into the cache: record, apply, mark as done. Every run writes through here.

Cycles, backfill workers, refreshes, repairs and the follower write at the same time and in any order. A document
that was read too early, and a document that decides about a key of the batch, is read again by `_id` and joins the
batch, until every key was changed by reads that were young enough: see docs/guarantees.md.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple

from etl.cache.writer import DONE, QUEUED, STALE, Applied, CacheWriter, Change, Conflict, Request
from etl.errors import Transient
from etl.model.batch import BatchOutcome, Deferred, Rejected
from etl.model.result import GONE, TransformResult, gone
from etl.retry import Retry
from schemas.operations import Put, Reject

_ROUNDS: Final = 50
"""How often documents are read again for one batch before that counts as a failure."""

Reread = Callable[[Collection[str]], list[TransformResult]]
"""The documents of these names that exist, as they are now: read by `_id` from the primary with read concern
linearizable, in ascending order. Those of collections that the settings do not name are left out."""

Contested = Mapping[str, tuple[frozenset[str], Conflict | None]]
"""Keys that could not be changed yet: the documents that were read again for each, and why, if one of them is not to
be had."""


class Going(NamedTuple):
    """A document that is to be written, and the keys that it gives up."""

    result: TransformResult
    given_up: Sequence[str]


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
        contested: Contested = MappingProxyType({}),
    ) -> BatchOutcome:
        """Write the documents of a page, given in ascending order of their positions.

        Args:
            page: results of the transform.
            read_at: the clock of Redis before they were read, in microseconds.
            remember_from: versions dated from this millisecond on are marked as done, as a delta reads them again;
                None marks none.
            trust: whether a version that is marked as done is left alone.
            contested: keys that documents of the page leave where they do not claim them: see `repair`.
        """
        met = Counter([result.document for result in page])
        again = {document for document, count in met.items() if count > 1}  # written while the page was read
        results: Sequence[TransformResult] = (
            [one for one in page if one.document not in again] if again else page
        )
        outcome = BatchOutcome()
        latest: dict[str, TransformResult] = {}
        applied: dict[str, TransformResult] = {}
        locks: dict[str, str] = {}
        filled: dict[str, str | None] = {}
        for number in range(_ROUNDS):
            if number:
                read_at, results = self._read(again)
            valid = [result for result in results if result.reject is None] if results else []
            latest.update([(result.document, result) for result in results])
            answers, held = self.retry(partial(self.writer.record, valid, read_at, confirmed=number > 0))
            going: list[Going] = []
            again = set()
            for result, answer in zip(valid, answers, strict=True):
                document = result.document
                if answer == STALE:
                    again.add(document)
                elif held and result.lock in held and document in met:
                    locks[document] = result.lock or ""
                elif answer == DONE and trust:
                    if contested:  # left alone, but for keys that others need it for
                        writes = tuple([write for write in result.writes if write.key in contested])
                        going.append(Going(result._replace(writes=writes, pushes=()), ()))
                else:
                    locks.pop(document, None)
                    applied[document] = result
                    going.append(Going(result, answer.split(" ") if type(answer) is str else ()))
            changes, requests = plan(going, contested)
            reply = self.retry(partial(self.writer.apply, changes, requests, read_at))
            contested = _contested(reply, changes, contested, again)
            filled |= {key: _family(several) for key, several in changes.items() if key not in contested}
            outcome.enqueued += reply.pushed
            outcome.queues |= {request.queue for request in requests if request.item}
            outcome.incomplete += len(reply.incomplete)
            latest |= {name: latest[name]._replace(reject=_NO_QUEUE) for name in reply.refused}
            again |= {*reply.stale, *(name for documents, _ in contested.values() for name in documents)}
            if not again:
                break
        else:
            raise Transient("documents change faster than they can be written")
        if remember_from is not None:
            self._mark_done(
                [one for one in applied.values() if latest[one.document] is one], locks, remember_from
            )
        outcome.entries = Counter([family for family in filled.values() if family is not None])
        for document in met:
            result = latest[document]
            if result.reject is not None:
                outcome.rejected.append(Rejected(result.id, result.reject))
            elif document in locks:
                outcome.deferred.append(Deferred(result.id, locks[document]))
            else:
                outcome.handled.append(result.id)
                if document in applied and result.timestamp != GONE:
                    fills = any([type(write) is Put for write in result.writes])
                    outcome.processed += 1
                    outcome.written += fills
                    outcome.evicted += bool(result.writes) and not fills
        return outcome

    def repair(self, claimants: Mapping[str, Collection[str]]) -> BatchOutcome:
        """Read these documents, and write each key as they say; those that do not claim it any more leave it.

        Args:
            claimants: by key, the names of the documents that may claim it.
        """
        read_at, results = self._read({name for names in claimants.values() for name in names})
        contested = {key: (frozenset(names), None) for key, names in claimants.items()}
        return self.process(results, read_at, remember_from=None, trust=False, contested=contested)

    def now(self) -> int:
        """The clock of Redis in microseconds since the epoch."""
        return self.writer.now()

    def held(self, locks: Sequence[str]) -> frozenset[str]:
        """Which of these locks exist."""
        return self.retry(partial(self.writer.held, locks))

    def read(self, ids: Sequence[str]) -> tuple[int, list[TransformResult]]:
        """The clock of Redis, and then documents of the collection as they are now, those that are gone among them.

        Args:
            ids: their `_id`s as canonical Extended JSON.
        """
        return self._read([f"{self.source} {document_id}" for document_id in ids])

    def _read(self, documents: Collection[str]) -> tuple[int, list[TransformResult]]:
        read_at = self.retry(self.writer.now)
        found = self.retry(partial(self.reread, documents))
        there = {result.document for result in found}
        missing = [gone(name) for name in sorted(documents) if name not in there and self.knows(name)]
        return read_at, [*missing, *found]

    def pass_over(self, page: Sequence[TransformResult], read_at: int) -> None:
        """Mark documents as done without writing them."""
        valid = [result for result in page if result.reject is None]
        self.retry(partial(self.writer.record, valid, read_at, confirmed=False))
        self.retry(partial(self.writer.mark_done, valid))

    def _mark_done(
        self, applied: Sequence[TransformResult], locks: Mapping[str, str], remember_from: int
    ) -> None:
        recent = (one for one in applied if one.ms is not None and one.ms >= remember_from)
        done = [one for one in recent if one.document not in locks]
        if done:
            self.retry(partial(self.writer.mark_done, done))


_NO_QUEUE: Final = Reject("its queue holds something that is not a list: move it away")


def plan(going: Sequence[Going], contested: Contested) -> tuple[dict[str, list[Change]], list[Request]]:
    """What is done to each key and queue, in the order of the documents.

    A document that was read again for a key and does not claim it any more leaves it. One that says nothing of it (it
    is invalid, or of a collection that the settings do not name, or leaves it as it is) keeps the key that it holds,
    and inherits none.
    """
    changes: dict[str, list[Change]] = {}
    requests: list[Request] = []
    for (document, timestamp, _, writes, pushes, *_), given_up in going:
        for write in writes:
            changes.setdefault(write.key, []).append(Change(document, timestamp, write))
        for push in pushes:
            requests.append(Request(push.key, document, timestamp, push.item))
        for key in given_up:
            if key.startswith(QUEUED):
                requests.append(Request(key.removeprefix(QUEUED), document, timestamp, ""))
            else:
                changes.setdefault(key, []).append(Change(document, timestamp, None))
    read = {one.result.document: one.result for one in going} if contested else {}
    for key, (documents, conflict) in contested.items():
        here = {
            name for name in documents if name in read and all(keep.key != key for keep in read[name].keeps)
        }
        several = changes.setdefault(key, [])
        acting = {change.document for change in several}
        several += [Change(name, read[name].timestamp, None) for name in here - acting]
        if conflict is not None and conflict.blocker not in here:
            if conflict.holds:
                several[:] = [change for change in several if change.write is None]
            else:
                several.append(Change(conflict.blocker, GONE, None))
        if not several:
            del changes[key]
    return changes, requests


def _contested(
    reply: Applied, changes: Mapping[str, Sequence[Change]], before: Contested, stale: Collection[str]
) -> Contested:
    """The keys to try again, and the documents to read again for each."""
    waiting = {key: (documents, None) for key, (documents, _) in before.items() if documents & set(stale)}
    refused = {
        one.key: (
            frozenset([*(change.document for change in changes[one.key]), *filter(None, [one.blocker])]),
            one,
        )
        for one in reply.conflicts
    }
    return {
        **waiting,
        **{key: (names, one if one.blocker else None) for key, (names, one) in refused.items()},
    }


def _family(changes: Sequence[Change]) -> str | None:
    """The family of what fills the key after these changes, None where it is removed."""
    write = next((change.write for change in reversed(changes) if change.write is not None), None)
    return write.family if isinstance(write, Put) else None
