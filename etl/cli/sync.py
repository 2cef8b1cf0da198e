"""`etl sync`: run one cycle now."""

from collections.abc import Iterator, Sequence

import click

from etl.cli import output
from etl.cli.progress import Bar
from etl.cli.runtime import Runtime, json_option, pass_runtime
from etl.model.report import Report

# A failure outweighs a lock; a wrong setting outweighs a failure that may be temporary.
_FROM_BEST_TO_WORST = (0, 75, 1, 2, 130)

# These columns fit into 80 characters; the rest is printed below the table.
_COLUMNS = ("collection", "status", "mode", "processed", "written", "evicted", "enqueued")


@click.command()
@click.argument("collections", nargs=-1, metavar="[COLLECTION]...")
@json_option
@pass_runtime
def sync(runtime: Runtime, collections: tuple[str, ...], *, as_json: bool) -> int:
    """Run one cycle now.

    For the named collections, by default all of the settings: read the documents that changed in MongoDB since
    the last cycle, and update the caches.
    """
    with runtime.app() as app, Bar("Syncing") as bar:
        reports = list(app.sync(collections, bar.update))
    return end_with_reports(reports, as_json=as_json)


def end_with_reports(reports: Sequence[Report], *, as_json: bool) -> int:
    """Print the reports, and their errors on stderr; return the exit code of the worst."""
    if as_json:
        output.document({"collections": [report.as_dict() for report in reports]})
    else:
        show_reports(reports)
    for report in reports:
        if report.error:
            output.error(f"{report.collection}: {report.error}")
    return max((report.exit_code for report in reports), key=_FROM_BEST_TO_WORST.index, default=0)


def show_reports(reports: Sequence[Report]) -> None:
    """Print the reports as a table, with notes below."""
    output.table(_COLUMNS, [_row(report) for report in reports])
    for report in reports:
        for note in _notes(report):
            output.say(f"{report.collection}: {note}")


def _row(report: Report) -> tuple[object, ...]:
    return (
        report.collection,
        report.status,
        report.mode,
        report.records_processed,
        report.written,
        report.evicted,
        report.enqueued,
    )


def _notes(report: Report) -> Iterator[str]:
    if report.status == "ok":
        position = f" up to {report.last_timestamp}, {report.last_id}" if report.last_timestamp else ""
        state = "read" if report.mode == "backfill" else "in sync"
        yield f"{state}{position}; it took {report.sync_duration_ms} ms"
    if report.dead_lettered:
        yield f"{report.dead_lettered} invalid, not applied:"
    for letter in report.dead_letters:
        problems = "; ".join(f"{error['field']}: {error['problem']}" for error in letter["errors"])
        yield f"  {letter['id']}: {letter['reason']}" + (f" ({problems})" if problems else "")
    if report.dead_lettered > len(report.dead_letters):
        yield f"  and {report.dead_lettered - len(report.dead_letters)} more"
    if report.deferred:
        yield f"{report.deferred} deferred: their campaign is being generated"
    if report.unreachable:
        yield f"{report.unreachable} without a timestamp: only a cold start or a backfill applies them"
