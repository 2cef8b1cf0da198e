"""The results as tables in a terminal."""

from collections.abc import Iterable, Mapping
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.contenders import BEFORE, INSERTION, ONE, SCRIPT
from bench.follow import DELETES, FOLLOW, RATES, WATCH
from bench.results import Figures, ratio

_RATE: Final = {"documents/s": "documents_per_second", "without start": "own_documents_per_second"}
_CPU: Final = {
    "ours": "cpu_ours",
    "coordinator": "cpu_coordinator",
    "Redis": "cpu_redis",
    "MongoDB": "cpu_mongodb",
}
_MEMORY: Final = {"PSS": "pss_mb", "a worker": "worker_pss_mb"}
_READS: Final = {"p50": "read_p50_ms", "p99": "read_p99_ms", "max": "read_max_ms"}
_SLOW: Final = {"slowest": "slowest_ms", "over 2 ms": "slow_commands"}


def heading(figures: Figures) -> str:
    """The machine, and the number of measurements."""
    machine, extent = figures["machine"], figures["extent"]
    return (
        f"{machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}; "
        f"Python {machine['python']}, MongoDB {machine['mongodb']}, Redis {machine['redis']}; "
        f"medians of {extent['rounds']} rounds or {extent['cycles']} cycles"
    )


def show(figures: Figures) -> None:
    """Print all parts that were measured."""
    console = Console(highlight=False, width=120)
    console.print(heading(figures), soft_wrap=True)
    for title, columns, part in (
        ("Speed", _RATE | _MEMORY, "speed"),
        ("CPU seconds per 100,000 documents", _CPU, "speed"),
        ("Latency of a reader in ms, and commands in the slow log of Redis", _READS | _SLOW, "readers"),
        ("Shapes of documents", _RATE | _CPU | _MEMORY, "shapes"),
        ("Topologies of Redis", _RATE | _CPU | _MEMORY, "topology"),
    ):
        if found := figures.get(part):
            console.print(_runs(title, columns, {name: each["median"] for name, each in found.items()}))
    if speed := figures.get("speed"):
        console.print(_ratios(speed))
    if sizes := figures.get("sizes"):
        filled = {f"{size['documents']:,} documents": size["backfill"] for size in sizes}
        console.print(_runs("Backfill by size of the collection", _RATE | _CPU | _MEMORY, filled))
        console.print(_cycles(sizes))
    if followed := figures.get("follow"):
        title = "Latency from an acknowledged write to the value in Redis, ms"
        console.print(_table(title, ("", *followed, f"{FOLLOW} / {WATCH}"), latencies(followed)))
    console.print(_table("Targets", ("", "before", "now", "wanted", ""), targets(figures)))


def latencies(followed: Figures) -> list[list[str]]:
    """A row per rate and percentile: the bare loop, the follower, and the ratio within a round."""
    whats = [(f"{rate}", f"{rate:,} writes/s") for rate in RATES] + [("deletes", f"{DELETES} deletes/s")]
    return [
        [
            f"{label}, {part}",
            *(number(each["median"][f"{what}_{part}_ms"]) for each in followed.values()),
            number(ratio(followed, FOLLOW, f"{what}_{part}_ms", WATCH)),
        ]
        for what, label in whats
        for part in ("p50", "p99")
    ]


def targets(figures: Figures) -> list[list[str]]:
    """A row per target, and whether it is reached."""
    return [
        [
            t["what"],
            number(t["before"]),
            number(t["measured"]),
            t["wanted"],
            "reached" if t["reached"] else "missed",
        ]
        for t in figures["targets"]
    ]


def number(value: float | None) -> str:
    """A figure with three significant digits, or as a whole number; empty for None."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"  # noqa: PLR2004


def _runs(title: str, columns: Mapping[str, str], runs: Mapping[str, Mapping[str, float]]) -> Table:
    rows = ((name, *(number(run[key]) for key in columns.values())) for name, run in runs.items())
    return _table(title, ("", *columns), rows)


def _ratios(speed: Figures) -> Table:
    rate = "documents_per_second"
    rows = []
    for name in speed:
        rates = (ratio(speed, name, rate, other) for other in (INSERTION, SCRIPT, BEFORE, ONE))
        costs = (ratio(speed, name, f"cpu_{key}", INSERTION, "cpu_redis") for key in ("ours", "redis"))
        rows.append((name, *map(number, rates), *map(number, costs)))
    columns = ("", "/ insertion", "/ script", "/ before", "/ 1 worker", "our CPU", "CPU of Redis")
    return _table(
        "Ratios of documents/s; CPU as a multiple of that of Redis at bare insertion", columns, rows
    )


def _cycles(sizes: Iterable[Figures]) -> Table:
    columns = {"changed": "changed", "ms": "median"}
    columns |= {"documents": "documents_examined", "keys": "keys_examined", "commands": "commands"}
    rows = (
        (f"{size['documents']:,} documents", *(number(kind[key]) for key in columns.values()))
        for size in sizes
        for kind in size["cycles"]
    )
    return _table("Cycle by size of the collection, and the work of MongoDB", ("", *columns), rows)


def _table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    table = Table(title=f"\n{title}", title_justify="left", title_style="bold", box=None, pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
