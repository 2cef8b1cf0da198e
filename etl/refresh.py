"""Refresh: warm a family again, whatever the watermark says.

It runs beside the cycles and takes no lease, so that a long cycle cannot let a family expire. What
keeps it from putting an old value over a new one: it watches the keys first, reads the documents
after that, and writes only if no one has touched the keys since.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from etl.batch import Outcome
from etl.errors import CycleFailed
from etl.report import RefreshReport
from etl.retry import Retry
from etl.transform import Transform
from schemas.documents import KINDS
from schemas.documents.kind import Kind
from schemas.entries import Enqueue, Evict, Projection, Put, Reject

_TRIES = 10  # the keys of one page change at most once a cycle, so two are plenty


class Source(Protocol):
    """The documents, as a refresh reads them: see `etl.source.Source`."""

    def of_kind(self, criteria: Mapping[str, Any], limit: int) -> Iterator[list[bytes]]:
        """All documents that match, a page at a time."""
        ...

    def fetch(self, ids: Sequence[Any]) -> list[bytes]:
        """The documents with these `_id`s that exist, in order."""
        ...


class Keyspace(Protocol):
    """The keys, as a refresh writes them: see `etl.keyspace.Keyspace`."""

    def watch(self, keys: Sequence[str], locks: Sequence[str]) -> frozenset[str]:
        """Begin a transaction over the keys; says which locks exist."""
        ...

    def replace(self, entries: Sequence[Put | Evict]) -> bool:
        """Write the entries, unless a watched key has changed."""
        ...


@dataclass(frozen=True, slots=True)
class Refresh:
    """The refresh of one collection."""

    source: Source
    transform: Transform
    keyspace: Keyspace
    retry: Retry
    page_size: int

    def run(self, report: RefreshReport) -> None:
        """Warm `report.family`, or its entries called `report.name`, and count them in `report`.

        Raises:
            EtlError: a server stays away, or refuses.
        """
        for kind in KINDS.values():
            if report.family in {family.name for family in kind.families}:
                self._warm(kind, report)

    def _warm(self, kind: Kind, report: RefreshReport) -> None:
        # An iterator cannot be tried again, so a page lost on the way ends the refresh.
        for documents in self.source.of_kind(self._criteria(kind, report.name), self.page_size):
            outcomes = self.transform(documents)
            report.rejected += sum(isinstance(outcome.projection, Reject) for outcome in outcomes)
            if any(_entries(outcomes, report.family)):
                self.retry(lambda: self._replace(outcomes, report))  # noqa: B023 (called at once)

    def _criteria(self, kind: Kind, name: str | None) -> dict[str, Any]:
        untyped = kind.tipo == self.transform.tipo
        criteria: dict[str, Any] = {"tipo": {"$in": [kind.tipo, None]} if untyped else kind.tipo}
        if name is not None and kind.name_field is not None:
            criteria[kind.name_field] = name
        return criteria

    def _replace(self, before: Sequence[Outcome], report: RefreshReport) -> None:
        keys = sorted({entry.key for entry in _entries(before, report.family)})
        locks = sorted({outcome.lock for outcome in before if outcome.lock is not None})
        ids = [outcome.position.id for outcome in before]
        for _ in range(_TRIES):
            held = self.keyspace.watch(keys, locks)
            now = self.transform(self.source.fetch(ids))
            ready = [outcome for outcome in now if outcome.lock not in held]
            entries = {entry.key: entry for entry in _entries(ready, report.family)}
            if self.keyspace.replace(list(entries.values())):
                _tally(report, entries.values(), deferred=len(now) - len(ready))
                return
        raise CycleFailed(f"{report.family}: its keys change faster than they can be refreshed")


def _entries(outcomes: Sequence[Outcome], family: str) -> Iterator[Put | Evict]:
    for outcome in outcomes:
        if isinstance(outcome.projection, Projection):
            for entry in outcome.projection.entries:
                if not isinstance(entry, Enqueue) and entry.family == family:
                    yield entry


def _tally(report: RefreshReport, entries: Any, deferred: int) -> None:
    report.written += sum(isinstance(entry, Put) for entry in entries)
    report.evicted += sum(isinstance(entry, Evict) for entry in entries)
    report.deferred += deferred
