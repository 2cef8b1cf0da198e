"""`etl backfill`: every document of a collection."""

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from etl.cli import output
from etl.cli.progress import Bar
from etl.cli.runtime import Runtime, json_option, pass_runtime
from etl.cli.sync import show_reports

if TYPE_CHECKING:
    from etl.app import App, BackfillOrder
    from etl.interfaces import Executors
    from etl.model.report import Report


class _Moment(click.ParamType[int]):
    """An ISO 8601 date; UTC if it has no zone."""

    name = "DATE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Milliseconds since the epoch."""
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(
                f"{value!r} is no ISO 8601 date, such as 2025-01-15 or 2025-01-15T10:30:00Z", param, ctx
            )
        utc = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return round(utc.timestamp() * 1000)


class _Rate(click.FloatRange):
    """Documents per second. click's own range accepts NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """A number within the range."""
        rate = float(super().convert(value, param, ctx))
        if math.isnan(rate):
            self.fail(f"{value!r} is no number", param, ctx)
        return rate


@click.command()
@click.argument("collection")
@click.option("--since", type=_Moment(), help="Only documents dated at or after this (ISO 8601).")
@click.option("--until", type=_Moment(), help="Only documents dated before this (ISO 8601).")
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="Number of worker processes; else transform.workers.",
)
@click.option("--rate", type=_Rate(0.001, 1_000_000), help="Upper bound in documents per second.")
@click.option("--restart", is_flag=True, help="Start anew instead of resuming an interrupted backfill.")
@click.option("--dry-run", is_flag=True, help="Read and validate only; print what would be written.")
@click.option(
    "--executor",
    type=click.Choice(["processes", "dask"]),
    default="processes",
    show_default=True,
    help="Where the workers run.",
)
@click.option("--scheduler", metavar="URL", help="Address of the Dask scheduler, tcp://host:8786.")
@json_option
@pass_runtime
def backfill(runtime: Runtime, /, collection: str, *, as_json: bool, **options: Any) -> int:
    """Write every document of a collection to the caches.

    Runs beside the daemon. An interrupted backfill resumes when the same command is given again. At the end one
    cycle applies what changed in the meantime.
    """
    order = _order(**options)
    with runtime.app() as app:
        report = _run(app, collection, order)
    _show(report, dry_run=order.dry_run, as_json=as_json)
    return report.exit_code


def _order(since: int | None, until: int | None, rate: float | None, **options: Any) -> "BackfillOrder":
    if since is not None and until is not None and since >= until:
        raise click.UsageError("--since must be earlier than --until")
    restart, dry_run = options.pop("restart"), options.pop("dry_run")
    executors = _executors(**options)
    from etl.app import BackfillOrder  # noqa: PLC0415 (the drivers load slowly, and `--help` does not need them)
    from etl.model.scan import Bounds  # noqa: PLC0415

    return BackfillOrder(Bounds(since, until), executors, rate, restart, dry_run)


def _executors(executor: str, scheduler: str | None, workers: int | None) -> "Executors | None":
    from etl.backfill.executors import dask, make_ready, processes  # noqa: PLC0415 (likewise)

    if executor == "dask":
        if scheduler is None or workers is not None:
            raise click.UsageError("--executor dask takes --scheduler tcp://host:8786, and no --workers")
        return dask(scheduler)
    if scheduler is not None:
        raise click.UsageError("--scheduler goes with --executor dask")
    make_ready()
    return processes(workers) if workers else None


def _run(app: "App", collection: str, order: "BackfillOrder") -> "Report":
    whole = order.is_whole
    with Bar(f"Backfilling {collection}", app.count(collection) if whole else None) as bar:
        return app.backfill(collection, order, bar.update)


def _show(report: "Report", *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        extra = {"dry_run": True, "reasons": dict(report.reasons)} if dry_run else {}
        output.document(report.as_dict() | extra)
    else:
        show_reports([report])
    if dry_run and not as_json:
        output.say(
            "dry run: nothing was written; locks, and what Redis holds, may lower the counts of a real backfill"
        )
        output.table(("documents", "reason"), [(n, why) for why, n in report.reasons.most_common()])
    if report.error:
        output.error(f"{report.collection}: {report.error}")
