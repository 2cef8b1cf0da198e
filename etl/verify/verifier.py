"""Verification: compares the cache with MongoDB, key by key.

One pass over the documents, in index order, compares the keys of a page with Redis. One pass over the keys with an
owner register finds those that no document claims. Keys that do not match are rechecked, and repaired if requested.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Final, get_args

from etl.backfill.worker import read_ahead
from etl.cache.inspector import START
from etl.errors import Interrupted
from etl.model.result import GONE, TransformResult
from etl.model.scan import ScanRange
from etl.mongo.pages import pages
from etl.verify.classify import Name, classify_alone
from etl.verify.findings import Finding, Findings
from etl.verify.recheck import Scope, confirmed, members_of, recheck
from etl.verify.repair import repair_keys, sweep_requests
from etl.verify.report import SHOWN, VerifyReport
from schemas.operations import Evict, Put
from schemas.position import FIRST, LAST

VerifyProgress = Callable[[int, int], None]
"""Is called with the documents read, and their approximate total."""

_AT_A_TIME: Final = 250  # keys per recheck


def verify(scope: Scope, sample: int | None, progress: VerifyProgress, *, repair: bool) -> VerifyReport:
    """Compare the keys of a collection with its documents.

    Args:
        scope: the collection.
        sample: approximate number of documents, and of keys with a register, to compare; None for all.
        progress: is called after each page.
        repair: write the keys that do not match.

    Raises:
        EtlError: a server does not answer, or refuses.
    """
    began = time.monotonic()
    report = VerifyReport(scope.collection, sampled=sample is not None)
    stages = scope.stages
    stages.retry(stages.reader.prepare)
    present = stages.retry(stages.reader.clock)
    with closing(Findings()) as findings:
        if sample is None:
            total, pages_of_results = stages.retry(stages.reader.count), _all(scope, present)
        else:
            ids = stages.retry(partial(stages.reader.sample, sample))
            total, pages_of_results = len(ids), _sampled(scope, ids)
        for results in pages_of_results:
            findings.add(_compared(scope, results, present))
            report.documents += len(results)
            report.invalid += sum(result.reject is not None for result in results)
            progress(report.documents, total)
        _find_unclaimed(scope, findings, sample)
        if sample is not None:
            _find_newest(scope, findings, present)
        for batch in findings.unsettled(_AT_A_TIME):
            _settle(scope, batch, findings, report, repair=repair)
        if repair:
            sweep_requests(scope)
        for name in get_args(Name):
            if name != "absent":
                report.count(name, findings.count(name))
        for key in findings.some("expired", SHOWN):
            report.example(
                "expired", key, "its document changed longer ago than the TTL, or has no timestamp"
            )
    report.duration_ms = round((time.monotonic() - began) * 1000)
    return report


def _all(scope: Scope, present: int) -> Iterator[list[TransformResult]]:
    """All documents, page by page."""
    stages, everything = scope.stages, ScanRange(FIRST, LAST)
    found = pages(stages.reader, everything, stages.page_size, present, lambda: 0, stages.retry)
    for results in read_ahead(stages.transform(page.documents) for _, page in found):
        if stages.stop.is_set():
            raise Interrupted("stopped while verifying")
        yield results


def _sampled(scope: Scope, ids: Sequence[str]) -> Iterator[list[TransformResult]]:
    """The documents with these `_id`s that exist."""
    size = scope.stages.page_size
    for start in range(0, len(ids), size):
        _, results = scope.processor.read(ids[start : start + size])
        yield [result for result in results if result.timestamp != GONE]


def _compared(scope: Scope, results: Sequence[TransformResult], now: int) -> Iterator[Finding]:
    """Compare the keys of a page of documents with Redis."""
    claimed: dict[str, tuple[Put | Evict, TransformResult]] = {}
    for result in results:
        for write in result.writes:
            claimed[write.key] = write, result
    members = {key: members_of(write) for key, (write, _) in claimed.items()}
    contents = scope.inspector.contents(members)
    for key, (write, result) in claimed.items():
        verdict = classify_alone(write, result.ms, contents.get(key), scope.ttls, now)
        yield Finding(key, verdict, None if verdict else result.id)


def _find_unclaimed(scope: Scope, findings: Findings, limit: int | None) -> None:
    """Find keys that a document of the collection claimed once and none claims now."""
    inspector = scope.inspector
    cursor, read = START, 0
    while limit is None or read < limit:
        cursor, keys = inspector.owned(cursor)
        read += len(keys)
        if unknown := findings.unknown(keys[: None if limit is None else limit + len(keys) - read]):
            claims = inspector.claims(unknown)
            ours = {key: 0 for key in unknown if any(map(scope.is_ours, claims[key]))}
            findings.add(Finding(key, None) for key in inspector.contents(ours))
        if cursor == START:
            return


def _find_newest(scope: Scope, findings: Findings, present: int) -> None:
    """For keys that do not match, find the newest claim among all documents: a sample may contain an older one."""
    wrong: dict[str, Finding] = {}
    for batch in findings.unsettled(_AT_A_TIME):
        mismatches = {rechecked.facts.key for rechecked in recheck(scope, batch) if rechecked.is_mismatch}
        wrong |= {finding.key: finding for finding in batch if finding.key in mismatches}
    for results in _all(scope, present) if wrong else ():
        for result in results:
            for write in result.writes:
                if write.key in wrong:
                    wrong[write.key] = Finding(write.key, None, result.id)
    findings.add(wrong.values())


def _settle(
    scope: Scope, batch: Sequence[Finding], findings: Findings, report: VerifyReport, *, repair: bool
) -> None:
    """Recheck keys, repair mismatches, and report the verdicts."""
    rechecked = (recheck if repair else confirmed)(scope, batch)
    mismatches = {key.facts.key: key for key in rechecked if key.is_mismatch}
    for repaired in repair_keys(scope, [*mismatches.values()]) if repair and mismatches else ():
        if repaired.verdict.name in {"matching", "absent"}:
            report.repaired += 1
        elif not repaired.is_mismatch:
            mismatches[repaired.facts.key] = repaired
    settled = [mismatches.get(key.facts.key, key) for key in rechecked]
    findings.add(Finding(facts.key, verdict.name) for facts, verdict, _ in settled)
    for facts, verdict, _ in settled:
        if verdict.why:
            report.example(verdict.name, facts.key, verdict.why)
