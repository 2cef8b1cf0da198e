"""One cycle of one collection over the four stages: read, transform, write, checkpoint."""

import time
from collections.abc import Sequence
from functools import partial

from etl.backfill.coordinator import run_scan
from etl.checkpoint.origin import check_origin, load_state
from etl.interfaces import Process, Processor, Stages
from etl.model.batch import BatchOutcome
from etl.model.report import ProgressCallback, Report
from etl.model.result import TransformResult
from etl.model.scan import Backfilled, Scan, ServerTimes
from etl.model.times import iso_utc
from etl.sync.planner import Limits, plan, plan_catch_up
from schemas.ids import readable_id
from schemas.position import Position


def run_cycle(
    stages: Stages,
    limits: Limits,
    token: str,
    report: Report,
    progress: ProgressCallback,
    ids: Sequence[str] = (),
    since: Backfilled | None = None,
) -> None:
    """Read what has changed, write it, and move the watermark.

    Args:
        stages: of the collection.
        limits: how far back to read.
        token: the fencing token of the lease.
        report: is filled in.
        progress: is called after each batch.
        ids: documents to write in any case, by `_id` as canonical Extended JSON.
        since: the finished backfill of a catch-up: everything that changed since it began is read.

    Raises:
        EtlError: the cycle ended early; the next one resumes at the last recorded batch.
    """
    began = time.monotonic()
    store, retry, processor = stages.store, stages.retry, stages.processor
    state, origin = load_state(stages, token)
    now = ServerTimes(retry(stages.reader.clock), state.now)
    checkpoint = state.checkpoint
    primaries = state.primaries if checkpoint else store.remember_primaries(token)
    scan = plan_catch_up(checkpoint, now, limits, since.began) if since else plan(checkpoint, now, limits)
    report.mode = scan.mode
    position = checkpoint.position if checkpoint else since and since.position
    process = partial(
        processor.process,
        remember_from=now.mongo - limits.lookback,
        # Without a checkpoint done marks are not trusted: everything is written again.
        skip_done=scan.mode == "delta",
    )
    write_by_id(stages, scan, position, token, report, ids)
    if checkpoint is None and limits.cold_start == "now" and since is None:
        # If this is interrupted, the next cycle continues as a normal scan.
        process = partial(_pass_over, processor, process, now.mongo)
    scan, position = run_scan(stages, scan, position, token, report, progress, process)
    if state.deferred or report.deferred:
        deferred = store.load().deferred
        held = processor.held(sorted({deferral.lock for deferral in deferred.values()}))
        unlocked = [document_id for document_id, deferral in deferred.items() if deferral.lock not in held]
        write_by_id(stages, scan, position, token, report, unlocked)
    check_origin(stages, origin)
    report.sync_duration_ms = round((time.monotonic() - began) * 1000)
    report.unreachable = retry(stages.reader.unreachable)
    report.deferred = len(store.load().deferred)
    if position is not None and position.ms is not None:
        report.last_id = readable_id(position.id)
        report.last_timestamp = iso_utc(position.ms)
    sweeps = {queue: processor.sweep(queue, state.sweeps.get(queue, "0")) for queue in sorted(state.queues)}
    store.finish(token, scan, position, report, sweeps, primaries)


def write_by_id(
    stages: Stages,
    scan: Scan,
    position: Position | None,
    token: str,
    report: Report,
    ids: Sequence[str],
) -> None:
    """Read documents by `_id` (canonical Extended JSON) and write them, even versions that are marked as done."""
    for start in range(0, len(ids), stages.page_size):
        read_at, results = stages.processor.read(ids[start : start + stages.page_size])
        outcome = stages.processor.process(results, read_at, remember_from=0, skip_done=False)
        report.add(outcome, stages.store.advance(token, scan, position, outcome, retried=True))


def _pass_over(
    processor: Processor, process: Process, present: int, results: Sequence[TransformResult], read_at: int
) -> BatchOutcome:
    """For a cold start `now`: mark documents dated until `present` (milliseconds) as done, and write later ones."""
    earlier = [result for result in results if result.ms is None or result.ms <= present]
    processor.pass_over(earlier, read_at)
    return process([result for result in results if result.ms is not None and result.ms > present], read_at)
