"""Refresh: write a family again from MongoDB, independent of the watermark.

It runs beside the cycles and takes no lease, so that a long cycle cannot let a family expire. It reads the newest
documents first and skips the older ones that claim the same keys.
"""

from collections.abc import Sequence
from unicodedata import normalize

from etl.interfaces import Stages
from etl.model.report import RefreshReport
from schemas.documents import KINDS
from schemas.documents.kind import Kind


def refresh(stages: Stages, default_tipo: str, report: RefreshReport) -> None:
    """Write `report.family`, or its entries called `report.name`, and count them in `report`.

    Args:
        stages: of one collection.
        default_tipo: the kind of documents without `tipo`.
        report: is filled in.

    Raises:
        EtlError: a server does not answer, or refuses.
    """
    for kind in KINDS.values():
        if report.family in {family.name for family in kind.families}:
            _warm(stages, kind, kind.tipo == default_tipo, report)


def _warm(stages: Stages, kind: Kind, untyped: bool, report: RefreshReport) -> None:  # noqa: FBT001
    criteria: dict[str, Sequence[str | None]] = {"tipo": [kind.tipo, None] if untyped else [kind.tipo]}
    if report.name is not None and kind.name_field is not None:
        # A key is the same however accents are composed, so a document may have either form.
        forms = {report.name, normalize("NFC", report.name), normalize("NFD", report.name)}
        criteria[kind.name_field] = sorted(forms)
    seen: set[str] = set()
    # The cursor sorts at its start: later pages were read at that time too.
    read_at = stages.retry(stages.processor.now)
    for documents in stages.reader.of_kind(criteria, stages.page_size):
        report.documents += len(documents)
        newest = []
        for result in stages.transform(documents):
            keys = {write.key for write in result.writes}
            if result.reject is not None or keys - seen:
                newest.append(result)
            seen |= keys
        outcome = stages.processor.process(newest[::-1], read_at, remember_from=None, skip_done=False)
        report.written += outcome.entries[report.family]
        report.evicted += outcome.evicted
        report.rejected += len(outcome.rejected)
        report.deferred += len(outcome.deferred)
