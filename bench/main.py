"""The command: start the servers, measure, print tables, write JSON and a chart."""

import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import psutil

from bench import before, chart, contenders, follow, report, results, topology
from bench.contenders import BEFORE, ONE, START, TWO, Contender
from bench.documents import LARGE, MAPPED, PLAIN, SHARED
from bench.insertion import Refused, pack
from bench.meter import Failed, Meter
from bench.results import Figures
from bench.servers import Bench, Source, Wrong, start
from bench.sizes import sizes

PARTS: Final = ("speed", "readers", "shapes", "topology", "sizes", "follow")


class Extent(NamedTuple):
    """The size of a run."""

    documents: int
    shaped: int
    rounds: int
    sizes: tuple[int, ...]
    cycles: int
    follow_seconds: int
    """How long a follower is measured at each rate."""


WHOLE: Final = Extent(200_000, 50_000, 3, (50_000, 1_000_000, 2_000_000), 7, 10)
QUICK: Final = Extent(8_000, 6_000, 1, (6_000, 8_000), 1, 1)

_COUNT: Final = click.IntRange(START.documents + 1)


@click.command()
@click.option("--documents", type=_COUNT, help=f"Documents to copy.  [default: {WHOLE.documents}]")
@click.option("--shaped", type=_COUNT, help=f"Documents of each shape.  [default: {WHOLE.shaped}]")
@click.option(
    "--rounds", type=click.IntRange(1), help=f"Rounds of all contenders.  [default: {WHOLE.rounds}]"
)
@click.option(
    "--size",
    "sizes",
    type=_COUNT,
    multiple=True,
    help="Documents of the collection that grows; may be repeated.",
)
@click.option("--cycles", type=click.IntRange(1), help=f"Cycles at each size.  [default: {WHOLE.cycles}]")
@click.option(
    "--only", type=click.Choice(PARTS), multiple=True, help="Measure this part only; may be repeated."
)
@click.option("--quick", is_flag=True, help="A small run of about a minute; its figures mean little.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Write bench.json and bench.svg there."
)
def main(*, quick: bool, only: tuple[str, ...], out: Path | None, **extent: Any) -> None:
    """Measure `etl backfill`, `etl sync` and `etl follow` on real servers.

    Without options this takes about half an hour on two cores.
    """
    given = {name: value for name, value in extent.items() if value}
    try:
        measured = measure((QUICK if quick else WHOLE)._replace(**given), only or PARTS)
    except (Wrong, Failed, Refused) as error:
        raise click.ClickException(str(error)) from error
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "bench.json").write_text(json.dumps(measured, indent=1) + "\n", "utf-8")
        chart.draw(measured, out / "bench.svg")
    report.show(measured)


def measure(extent: Extent, parts: tuple[str, ...]) -> Figures:
    """Measure these parts. The figures hold each part under its name, with four significant digits.

    Raises:
        Wrong: Redis does not hold the expected content after a run.
        Failed: a command ended with an error.
    """
    with start() as bench, before.worktree() as old:
        if old is None:
            _say("Without the version before: this repository does not have its commit.")
        bench.fill(START)
        meter = Meter(bench.pids)
        figures: Figures = {"machine": _machine(bench), "extent": extent._asdict()}
        if "speed" in parts or "readers" in parts:
            _measure_speed(bench, meter, extent, parts, old, figures)
        if "shapes" in parts:
            _say(f"Shapes: four collections of {extent.shaped:,} documents, {extent.rounds} rounds")
            taking_part = _shapes(bench, extent.shaped, old)
            figures["shapes"] = results.summary(contenders.rounds(bench, meter, taking_part, extent.rounds))
        if "topology" in parts:
            _say(f"Topology: {extent.shaped:,} documents, {extent.rounds} rounds")
            source = Source("shape_0", extent.shaped)
            bench.fill(source)
            figures["topology"] = results.summary(topology.rounds(bench, source, extent.rounds))
        if "sizes" in parts:
            _say(f"Sizes: {', '.join(f'{size:,}' for size in sorted(extent.sizes))} documents")
            figures["sizes"] = results.sizes([*sizes(bench, meter, extent.sizes, extent.cycles)])
        if "follow" in parts:
            _say(f"Latency of a follower: {extent.rounds} rounds of {extent.follow_seconds} s at each rate")
            figures["follow"] = results.summary(follow.rounds(bench, extent.follow_seconds, extent.rounds))
    figures["targets"] = [target._asdict() for target in results.targets(figures)]
    rounded: Figures = json.loads(json.dumps(figures), parse_float=lambda text: float(f"{float(text):.4g}"))
    return rounded


def _measure_speed(
    bench: Bench, meter: Meter, extent: Extent, parts: tuple[str, ...], old: Path | None, figures: Figures
) -> None:
    """Measure the contenders on plain documents, and once more while a reader runs."""
    source = Source("plain", extent.documents)
    _say(f"Speed: {source.documents:,} documents, {extent.rounds} rounds")
    bench.fill(source)
    with tempfile.TemporaryDirectory() as folder:
        insertion = contenders.insertion(bench, source, pack(source, Path(folder, "commands")))
        script = contenders.script(bench, source)
        earlier = [contenders.backfill(bench, source, BEFORE, root=old)] if old else []
        one, two = contenders.backfill(bench, source, ONE, 1), contenders.backfill(bench, source, TWO)
        if "speed" in parts:
            taking_part = [insertion, script, *earlier, one, two]
            figures["speed"] = results.summary(contenders.rounds(bench, meter, taking_part, extent.rounds))
        if "readers" in parts:
            _say(f"Latency of a reader: {extent.rounds} rounds")
            read = [contenders.with_reader(bench, each) for each in (insertion, script, *earlier, two)]
            with bench.prioritised() as allowed:
                if not allowed:
                    _say("Without permission to raise priorities: latencies include waiting for a core.")
                figures["readers"] = results.summary(contenders.rounds(bench, meter, read, extent.rounds))


def _shapes(bench: Bench, count: int, old: Path | None) -> list[Contender]:
    """The product and the version before, on documents of each shape."""
    taking_part = []
    for number, shape in enumerate((PLAIN, LARGE, SHARED, MAPPED)):
        source = Source(f"shape_{number}", count, shape)
        bench.fill(source)
        if old and not shape.mapped:  # the version before has no mapping
            taking_part.append(contenders.backfill(bench, source, shape.name + results.OLD, root=old))
        taking_part.append(contenders.backfill(bench, source, shape.name))
    return taking_part


def _machine(bench: Bench) -> dict[str, str | int]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "mongodb": str(bench.mongo.server_info()["version"]),
        "redis": str(bench.redis.info("server")["redis_version"]),
    }


def _say(text: str) -> None:
    click.echo(text, err=True)
