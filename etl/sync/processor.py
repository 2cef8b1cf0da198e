"""Writes one batch of documents to the cache: record, apply, mark as done. Every run writes through this module.

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

_ATTEMPTS: Final = 50
"""Maximum number of attempts for one batch; each but the first reads documents again."""


class ContestedKey(NamedTuple):
    """A key that an attempt could not change."""

    documents: frozenset[str]
    """The documents to read again for the next attempt."""
    blocker: str = ""
    """The document among them that decides the content of the key; empty if the read was too old."""
    holds: bool = False
    """Whether the key holds the content of the blocker."""


class PendingWrite(NamedTuple):
    """A document to be written, with the keys and queues that it releases."""

    result: TransformResult
    released: Collection[str]


@dataclass(frozen=True, slots=True)
class Processor:
    """Writes batches of documents. Methods raise `EtlError` if a server does not answer, or refuses."""

    writer: CacheWriter
    source: str
    """The prefix of the names of its documents: see `TransformResult.document`."""
    reread: Reread
    is_configured: Callable[[str], bool]
    """Whether the settings name the collection of a document."""
    retry: Retry

    def process(
        self,
        page: Sequence[TransformResult],
        read_at: int,
        *,
        remember_from: int | None,
        skip_done: bool = True,
        releases: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> BatchOutcome:
        """Write the documents of a page.

        Args:
            page: results of the transform, in ascending order of their positions.
            read_at: the clock of Redis before the documents were read, in microseconds since the epoch.
            remember_from: mark versions with this date or a later one as done, because a delta reads them again;
                milliseconds since the epoch. None marks no version.
            skip_done: whether to skip versions that are marked as done.
            releases: keys, by document, that it releases unless it claims them, besides those of its record.

        Raises:
            TransientError: a server does not answer, or documents change faster than they can be written.
            EtlError: a server refuses.
        """
        counts = Counter([result.document for result in page])
        # A document that is in the page twice was written while the page was read.
        to_reread = {document for document, count in counts.items() if count > 1}
        results: Sequence[TransformResult] = (
            [result for result in page if result.document not in to_reread] if to_reread else page
        )
        outcome = BatchOutcome()
        latest: dict[str, TransformResult] = {}
        written: dict[str, tuple[TransformResult, str]] = {}
        locks: dict[str, str] = {}
        families: dict[str, str | None] = {}
        contested: dict[str, ContestedKey] = {}
        # Each attempt records and applies what was read. The next one reads again what was stale, and the documents
        # that decide about a key. A key leaves `contested` once it was changed by reads that were young enough.
        for attempt in range(_ATTEMPTS):
            if attempt:
                read_at, results = self._read(to_reread)
            valid = [result for result in results if result.reject is None]
            latest.update([(result.document, result) for result in results])
            record = self.retry(partial(self.writer.record, valid, read_at, confirmed=attempt > 0))
            pending: list[PendingWrite] = []
            stale: set[str] = set() if attempt else to_reread
            for result, answer, recorded_at in zip(valid, record.answers, record.at, strict=True):
                document = result.document
                if answer == STALE:
                    stale.add(document)
                    continue
                done = answer == DONE and skip_done
                locked = not done and result.lock in record.held
                if locked:
                    locks[document] = result.lock or ""
                elif not done:
                    locks.pop(document, None)
                    written[document] = result, recorded_at
                    released: Collection[str] = answer.split(" ") if type(answer) is str else ()
                    if releases:
                        claimed = statement(result).split(" ")
                        released = {*released, *releases.get(document, ())}.difference(claimed)
                    pending.append(PendingWrite(result, released))
                if contested and document not in written:
                    # Done or locked, but contested keys may need its content, or its release.
                    writes = [
                        write
                        for write in result.writes
                        if _is_needed(document, contested.get(write.key), locked)
                    ]
                    if writes or not locked:
                        pending.append(PendingWrite(result._replace(writes=tuple(writes), pushes=()), ()))
            changes, requests = plan(pending, contested, stale)
            largest = max([result.size for result in valid], default=0)
            reply = self.retry(partial(self.writer.apply, changes, requests, read_at, largest))
            contested = _contested(reply, changes, contested, stale)
            families |= {key: _family(writes) for key, writes in changes.items() if key not in contested}
            outcome.enqueued += reply.pushed
            outcome.queues |= {request.queue for request in requests if request.item}
            outcome.incomplete += len(reply.incomplete)
            latest |= {document: latest[document]._replace(reject=_NO_QUEUE) for document in reply.refused}
            to_reread = stale.union(reply.stale, *(key.documents for key in contested.values()))
            if not to_reread:
                break
        else:
            raise TransientError("documents change faster than they can be written")
        # Only after every reply: a version that is marked as done is not written again.
        if remember_from is not None:
            finished = [
                (result, recorded_at)
                for result, recorded_at in written.values()
                if result.ms is not None and result.ms >= remember_from and latest[result.document] is result
            ]
            self.retry(partial(self.writer.mark_done, finished))
        outcome.entries = Counter([family for family in families.values() if family is not None])
        for document in counts:
            result = latest[document]
            if result.reject is not None:
                outcome.rejected.append(Rejected(result.id, result.reject, result.timestamp))
            elif document in locks:
                outcome.deferred.append(Deferred(result.id, locks[document]))
            else:
                outcome.handled.append(result.id)
                if document in written and result.timestamp != GONE:
                    fills = Put in map(type, result.writes)
                    outcome.processed += 1
                    outcome.written += fills
                    outcome.evicted += bool(result.writes) and not fills
        return outcome

    def repair(self, claimants: Mapping[str, Collection[str]]) -> BatchOutcome:
        """Read documents and write their keys; a document releases each given key that it does not claim.

        Args:
            claimants: the names of the documents that may claim a key, by key.
        """
        releases: dict[str, list[str]] = {}
        for key, documents in claimants.items():
            for document in documents:
                releases.setdefault(document, []).append(key)
        read_at, results = self._read(releases)
        return self.process(results, read_at, remember_from=None, skip_done=False, releases=releases)

    def sweep(self, queue: str, cursor: str) -> str:
        """Delete records of requests that are not needed any more, from one page of the records of a queue.

        A record keeps a version from being pushed twice. It is not needed once it is older than the deadline, so that
        no older read can arrive, and its document does not ask for that version any more.

        Args:
            queue: the key of the queue.
            cursor: "0" for the first page, else the cursor that the previous call returned.

        Returns:
            The next cursor, "0" after the last page.
        """
        cursor, records = self.retry(partial(self.writer.requests, queue, cursor))
        if not records:
            return cursor
        deadline = self.retry(self.writer.now) - int(DEADLINE_SECONDS * 1_000_000)
        parts = {document: text.split(" ") for document, text in records.items()}
        old = {document: pushed for document, (at, pushed) in parts.items() if int(at) < deadline}
        pushed_by = [document for document, pushed in old.items() if pushed != "-"]
        _, results = self._read(pushed_by) if pushed_by else (0, [])
        # An invalid document may ask for the version again once it is valid.
        unneeded = {
            result.document
            for result in results
            if old[result.document] != result.timestamp
            or (result.reject is None and all(push.key != queue for push in result.pushes))
        }
        unneeded |= {document for document, pushed in old.items() if pushed == "-"}
        self.retry(partial(self.writer.forget, queue, {name: records[name] for name in unneeded}))
        return cursor

    def now(self) -> int:
        """The clock of Redis in microseconds since the epoch."""
        return self.writer.now()

    def held(self, locks: Sequence[str]) -> frozenset[str]:
        """The locks that exist."""
        return self.retry(partial(self.writer.held, locks))

    def read(self, ids: Sequence[str], reread: Reread | None = None) -> tuple[int, list[TransformResult]]:
        """Read the current versions of documents of the collection.

        Args:
            ids: their `_id`s as canonical Extended JSON.
            reread: the function that reads them, for a caller that is informed of newer versions; `self.reread` by
                default.

        Returns:
            The clock of Redis before the read, in microseconds since the epoch; and a result for each document, also
            for a deleted one.
        """
        return self._read([f"{self.source} {document_id}" for document_id in ids], reread)

    def _read(
        self, documents: Collection[str], reread: Reread | None = None
    ) -> tuple[int, list[TransformResult]]:
        read_at = self.retry(self.writer.now)
        results = self.retry(partial(reread or self.reread, documents))
        existing = {result.document for result in results}
        missing = [
            gone(name) for name in sorted(documents) if name not in existing and self.is_configured(name)
        ]
        return read_at, [*missing, *results]

    def pass_over(self, page: Sequence[TransformResult], read_at: int) -> None:
        """Mark documents as done without writing them."""
        valid = [result for result in page if result.reject is None]
        record = self.retry(partial(self.writer.record, valid, read_at, confirmed=False))
        self.retry(partial(self.writer.mark_done, [*zip(valid, record.at, strict=True)]))


_NO_QUEUE: Final = Reject("its queue holds something that is not a list: move it away")


def plan(
    pending: Sequence[PendingWrite], contested: Mapping[str, ContestedKey], stale: AbstractSet[str]
) -> tuple[dict[str, list[KeyWrite]], list[QueuePush]]:
    """The changes of each key, and the queue requests, in the order of the documents.

    For a contested key the documents were read again:

    - If one of them is stale, the key waits for the next attempt.
    - A document that does not claim the key any more releases it.
    - The blocker may have no result here: it is invalid, locked, of a collection that the settings do not name, or it
      keeps the key as it is. If the key holds its content, the content stays, and the others claim the key below it.
      If not, the blocker releases the key.
    """
    changes: dict[str, list[KeyWrite]] = {}
    requests: list[QueuePush] = []
    for (document, timestamp, _, writes, pushes, *_), released in pending:
        line = f"{timestamp} {document}"
        for write in writes:
            changes.setdefault(write.key, []).append(KeyWrite(document, line, write))
        for push in pushes:
            requests.append(QueuePush(push.key, document, timestamp, push.item))
        for key in released:
            if key.startswith(QUEUED):
                requests.append(QueuePush(key.removeprefix(QUEUED), document, timestamp, ""))
            else:
                changes.setdefault(key, []).append(KeyWrite(document, line, None))
    results = {write.result.document: write.result for write in pending} if contested else {}
    for key, (documents, blocker, holds) in contested.items():
        key_changes = changes.pop(key, [])
        if documents & stale:
            continue
        deciding = {
            name
            for name in documents
            if name in results and all(keep.key != key for keep in results[name].keeps)
        }
        releasing = deciding - {change.document for change in key_changes}
        key_changes += [KeyWrite(name, f"{results[name].timestamp} {name}", None) for name in releasing]
        if blocker and blocker not in deciding:
            if holds:
                key_changes = [change._replace(loses=change.write is not None) for change in key_changes]
            else:
                key_changes.append(KeyWrite(blocker, f"{GONE} {blocker}", None))
        if key_changes:
            changes[key] = key_changes
    return changes, requests


def _is_needed(document: str, contested: ContestedKey | None, locked: bool) -> bool:  # noqa: FBT001
    """Whether a contested key needs the content of a document that is done or locked."""
    if contested is None or document not in contested.documents:
        return False
    return not (locked and contested.holds and contested.blocker == document)


def _contested(
    reply: Applied,
    changes: Mapping[str, Sequence[KeyWrite]],
    before: Mapping[str, ContestedKey],
    stale: AbstractSet[str],
) -> dict[str, ContestedKey]:
    """The keys to change in the next attempt."""
    contested = {key: value for key, value in before.items() if value.documents & stale}
    for key, blocker, holds in reply.conflicts:
        documents = {change.document for change in changes[key]} | ({blocker} if blocker else set())
        contested[key] = ContestedKey(frozenset(documents), blocker, holds)
    return contested


def _family(changes: Sequence[KeyWrite]) -> str | None:
    """The family of a key that has content after these changes; None if it is removed."""
    for change in reversed(changes):
        if change.write is not None:
            return change.write.family if type(change.write) is Put else None
    return None
