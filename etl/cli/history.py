"""`etl history`: the last runs."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from etl.cli import output
from etl.cli.runtime import Runtime, json_option, pass_runtime

if TYPE_CHECKING:
    from etl.app import Entry

_COLUMNS = ("began", "status", "mode", "records", "ms", "error")
_BLOCKS = "▁▂▃▄▅▆▇█"
_CHART_WIDTH = 60


@click.command()
@click.argument("collection", required=False)
@click.option(
    "--limit",
    type=click.IntRange(1, 1_000_000),
    default=20,
    show_default=True,
    help="Number of runs per collection.",
)
@json_option
@pass_runtime
def history(runtime: Runtime, collection: str | None, limit: int, *, as_json: bool) -> None:
    """Show the last runs: start, documents, duration.

    The newest first. On a terminal a chart shows the newest run at the right.
    """
    with runtime.app() as app:
        names = [collection] if collection else app.collections
        entries_of = {name: app.history(name, limit) for name in names}
    if as_json:
        runs = [{"collection": name, "runs": entries} for name, entries in entries_of.items()]
        output.document({"collections": runs})
        return
    for name, entries in entries_of.items():
        _show(name, entries)


def sparkline(numbers: Sequence[int]) -> str:
    """One block per number, scaled to the greatest."""
    top = max(numbers, default=0) or 1
    return "".join(_BLOCKS[min(number * len(_BLOCKS) // top, len(_BLOCKS) - 1)] for number in numbers)


def _show(name: str, entries: "Sequence[Entry]") -> None:
    output.heading(name)
    if not entries:
        output.say("  no run yet (try: etl sync)")
        return
    output.table(_COLUMNS, [_row(entry) for entry in entries])
    if sys.stdout.isatty() and sys.stdout.encoding.lower().replace("-", "") == "utf8":
        _chart(entries[:_CHART_WIDTH])


def _row(entry: "Entry") -> tuple[object, ...]:
    numbers = (entry["records_processed"], entry["sync_duration_ms"])
    return (entry["began"], entry["status"], entry["mode"], *numbers, entry["error"] or "")


def _chart(entries: "Sequence[Entry]") -> None:
    for label, field in (("records", "records_processed"), ("ms", "sync_duration_ms")):
        numbers = [entry[field] for entry in reversed(entries)]
        output.say(f"{label:8}{sparkline(numbers)}  at most {max(numbers)}")
