"""Refresh: warm a family again, whatever the watermark says.

It runs beside the cycles and takes no lease, so that a long cycle cannot let a family expire. What
keeps it from putting an old value over a new one: it reads the newest documents first and writes
each key once; it watches the keys of a page, then reads their documents again, with all that may
have come since it began, and writes only if no one has touched the keys since.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

from bson.datetime_ms import DatetimeMS

from etl.errors import CycleFailed
from etl.model.outcome import Fill, Outcome
from etl.model.report import RefreshReport
from etl.retry import Retry
from etl.sync.batch import Sight, decide
from etl.transform.transform import Transform
from schemas.documents import KINDS
from schemas.documents.kind import Kind
from schemas.ids import id_from_text

_TRIES = 10  # the keys of one page change at most once a cycle, so two are plenty


class Source(Protocol):
    """The documents, as a refresh reads them: see `etl.mongo.reader.Source`."""

    def clock(self) -> int:
        """The server's clock, in milliseconds since the epoch."""
        ...

    def of_kind(self, criteria: Mapping[str, Any], limit: int) -> Iterator[list[bytes]]:
        """All documents that match, the newest first, a page at a time."""
        ...

    def fetch(self, ids: Sequence[Any]) -> list[bytes]:
        """The documents with these `_id`s that exist, in order."""
        ...


class Keyspace(Protocol):
    """The keys, as a refresh writes them: see `etl.cache.keyspace.Keyspace`."""

    def watch(self, keys: Sequence[str], locks: Sequence[str]) -> frozenset[str]:
        """Begin a transaction over the keys; says which locks exist."""
        ...

    def replace(self, fills: Sequence[Fill]) -> bool:
        """Write the keys, unless a watched one has changed."""
        ...


@dataclass(frozen=True, slots=True)
class Refresh:
    """The refresh of one collection; `overlap` is how late documents are committed, in milliseconds."""

    source: Source
    transform: Transform
    keyspace: Keyspace
    retry: Retry
    page_size: int
    overlap: int

    def run(self, report: RefreshReport) -> None:
        """Warm `report.family`, or its entries called `report.name`, and count them in `report`.

        Raises:
            EtlError: a server stays away, or refuses.
        """
        for kind in KINDS.values():
            if report.family in {family.name for family in kind.families}:
                self._warm(kind, report)

    def _warm(self, kind: Kind, report: RefreshReport) -> None:
        criteria = self._criteria(kind, report.name)
        began = DatetimeMS(self.retry(self.source.clock) - self.overlap)
        recent = criteria | {self.transform.timestamp_field: {"$gte": began}}
        done: set[str] = set()
        # An iterator cannot be tried again, so a page lost on the way ends the refresh.
        for documents in self.source.of_kind(criteria, self.page_size):
            outcomes = self.transform(documents)
            report.rejected += sum(outcome.reject is not None for outcome in outcomes)
            named = {fill.key for o in outcomes for fill in o.fills if fill.family == report.family}
            keys = frozenset(named - done)
            page = [outcome for outcome in outcomes if _claims(outcome, keys)]
            if page:
                done |= self.retry(lambda: self._replace(page, keys, recent, report))  # noqa: B023 (called at once)

    def _criteria(self, kind: Kind, name: str | None) -> dict[str, Any]:
        untyped = kind.tipo == self.transform.tipo
        criteria: dict[str, Any] = {"tipo": {"$in": [kind.tipo, None]} if untyped else kind.tipo}
        if name is not None and kind.name_field is not None:
            criteria[kind.name_field] = name
        return criteria

    def _replace(
        self, page: Sequence[Outcome], keys: frozenset[str], recent: Mapping[str, Any], report: RefreshReport
    ) -> set[str]:
        """Write these keys from their newest documents; returns those that have one."""
        locks = sorted({outcome.lock for outcome in page if outcome.lock is not None})
        ids = [id_from_text(outcome.id) for outcome in page]
        for _ in range(_TRIES):
            held = self.keyspace.watch(sorted(keys), locks)
            claimants = self._claimants(ids, keys, recent)
            decision = decide(claimants, Sight(held=held), frozenset())
            fills = [fill for key, fill in decision.writes.items() if key in keys]
            if self.keyspace.replace(fills):
                report.written += sum(bool(fill.commands) for fill in fills)
                report.evicted += sum(not fill.commands for fill in fills)
                report.deferred += len(decision.deferred)
                return {fill.key for outcome in claimants for fill in outcome.fills} & keys
        raise CycleFailed(f"{report.family}: its keys change faster than they can be refreshed")

    def _claimants(
        self, ids: Sequence[Any], keys: frozenset[str], recent: Mapping[str, Any]
    ) -> list[Outcome]:
        """The documents that claim these keys now, in order: those known, and those that came since."""
        pages = chain([self.source.fetch(ids)], self.source.of_kind(recent, self.page_size))
        outcomes = (outcome for documents in pages for outcome in self.transform(documents))
        claimants = [outcome for outcome in outcomes if _claims(outcome, keys)]
        return sorted(claimants, key=lambda outcome: outcome.position.order())


def _claims(outcome: Outcome, keys: frozenset[str]) -> bool:
    return any(fill.key in keys for fill in outcome.fills)
