"""The results as tables: what a person reads."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.results import Figures


def show(results: Figures) -> None:
    """Print everything there is, in 80 columns."""
    console = Console(highlight=False)
    console.print(_heading(results), soft_wrap=True)
    if "speed" in results:
        console.print(_speed(results), _cost(results["speed"]), sep="\n")
    if "delta" in results:
        console.print(_delta(results["delta"]))
    console.print("Targets")
    for target in results["targets"]:
        console.print(_verdict(target), soft_wrap=True)


def _heading(results: Figures) -> str:
    machine = results["machine"]
    return (
        f"{machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}; "
        f"Python {machine['python']}, MongoDB {machine['mongodb']}, Redis {machine['redis']}\n"
        f"Medians of {results['rounds']} rounds, or of {results['cycles']} cycles; memory is their most.\n"
    )


def _speed(results: Figures) -> Table:
    title = f"Speed with {results['documents']:,} documents of {results['bytes_a_document']} bytes"
    table = _table(title, ("", "documents/s", "min - max", "/ insertion", "/ script"))
    for row in results["speed"]:
        rate = row["documents_per_second"]
        table.add_row(
            row["name"],
            f"{rate['median']:,.0f}",
            f"{rate['min']:,.0f} - {rate['max']:,.0f}",
            f"{row['of_insertion']['median']:.2f}",
            f"{row['of_script']['median']:.2f}",
        )
    return table


def _cost(rows: Sequence[Figures]) -> Table:
    columns = ("", "wall", "own", "CPU", "mongod", "redis", "PSS", "processes")
    table = _table("Seconds (own: without the start of the process), PSS in MB", columns)
    for row in rows:
        cpu = row["cpu_seconds"]
        table.add_row(
            row["name"],
            f"{median(row['wall_seconds']):.2f}",
            f"{median(row['own_seconds']):.2f}" if row["own_seconds"] else "",
            *(f"{cpu[name]:.2f}" for name in ("ours", "mongod", "redis-server")),
            f"{row['peak_pss_mb']:.0f}",
            str(row["processes"]),
        )
    return table


def _delta(sizes: Sequence[Figures]) -> Table:
    columns = ("collection", "changed", "ms", "min - max", "with start", "documents", "keys")
    table = _table("One cycle in milliseconds, and what MongoDB examined for it", columns)
    for size in sizes:
        for cycles in size["cycles"]:
            own = cycles["milliseconds"]
            table.add_row(
                f"{size['documents']:,}",
                str(cycles["changed"]),
                f"{own['median']:.0f}",
                f"{own['min']:.0f} - {own['max']:.0f}",
                f"{cycles['wall_milliseconds']['median']:,.0f}",
                *(str(cycles[name]) for name in ("documents_examined", "keys_examined")),
            )
    return table


def _verdict(target: dict[str, Any]) -> str:
    verdict = "[green]met   [/]" if target["met"] else "[red]missed[/]"
    return f"  {verdict}  {target['what']}: {target['measured']}; wanted: {target['wanted']}"


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table
