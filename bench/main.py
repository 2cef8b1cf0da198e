"""The command: starts the servers, measures, prints the tables, and leaves JSON and a chart behind."""

import json
import platform
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple

import bson
import click
import psutil

from bench import chart, contenders, delta, report, results
from bench.documents import documents as generate
from bench.meter import Failed, Meter
from bench.results import Figures, Target
from bench.servers import Bench, Wrong, start

PARTS: Final = ("speed", "delta")


class Extent(NamedTuple):
    """How much is measured."""

    documents: int
    rounds: int
    sizes: tuple[int, ...]
    cycles: int


WHOLE: Final = Extent(200_000, 3, (10_000, 50_000, 100_000, 1_000_000), 7)
QUICK: Final = Extent(2_000, 1, (500, 1_000), 2)


@click.command()
@click.option(
    "--documents", type=click.IntRange(100), help=f"In the collection.  [default: {WHOLE.documents}]"
)
@click.option("--rounds", type=click.IntRange(1), help=f"Of all contenders.  [default: {WHOLE.rounds}]")
@click.option(
    "--size",
    "sizes",
    type=click.IntRange(156),
    multiple=True,
    help="Of a collection for the cycles; repeat it.",
)
@click.option(
    "--cycles", type=click.IntRange(1), help=f"Of each kind, at each size.  [default: {WHOLE.cycles}]"
)
@click.option("--only", type=click.Choice(PARTS), help="Leave the other part out.")
@click.option("--quick", is_flag=True, help="A look in half a minute: small figures mean little.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="Write bench.json and bench.svg there."
)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def main(*, quick: bool, only: str | None, out: Path | None, as_json: bool, **extent: Any) -> None:
    """Measure `etl backfill` and `etl sync` on real servers of their own.

    Without options it takes some twenty minutes on two cores.
    """
    given = {name: value for name, value in extent.items() if value}
    usual = QUICK if quick else WHOLE
    try:
        measured = measure(usual._replace(**given), (only,) if only else PARTS)
    except (Wrong, Failed) as error:
        raise click.ClickException(str(error)) from error
    if out is not None:
        save(measured, out)
    if as_json:
        click.echo(json.dumps(measured, indent=2))
    else:
        report.show(measured)


def measure(extent: Extent, parts: tuple[str, ...]) -> Figures:
    """Measure these parts.

    Raises:
        Wrong: a contender left something else in Redis than the documents give.
        Failed: a command ended with an error.
    """
    with start() as bench:
        meter = Meter(bench.pids)
        figures: Figures = {"machine": _machine(bench), **extent._asdict(), "workers": contenders.WORKERS}
        targets: list[Target] = []
        if "speed" in parts:
            targets += _speed(bench, meter, extent, figures)
        if "delta" in parts:
            targets += _delta(bench, meter, extent, figures)
    return {**figures, "targets": [asdict(target) for target in targets]}


def save(measured: Figures, folder: Path) -> None:
    """Write the results and their chart into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(measured, indent=2) + "\n", "utf-8")
    (folder / "bench.svg").write_text(chart.svg(measured), "utf-8")


def _speed(bench: Bench, meter: Meter, extent: Extent, figures: Figures) -> list[Target]:
    _say(f"Inserting {extent.documents:,} documents, and recording what a backfill sends ...")
    bench.grow(0, extent.documents)
    with tempfile.TemporaryDirectory() as folder:
        recordings = contenders.record(bench, meter, Path(folder))
        taking_part = contenders.contenders(bench, recordings)
        _say(f"Measuring {len(taking_part)} contenders {extent.rounds} times in turn ...")
        measured = contenders.rounds(bench, meter, taking_part, extent.documents, extent.rounds)
    figures["bytes_a_document"] = round(_mean(extent.documents))
    figures["speed"] = results.speed(measured, extent.documents)
    return results.speed_targets(measured)


def _delta(bench: Bench, meter: Meter, extent: Extent, figures: Figures) -> list[Target]:
    _say(
        f"Measuring cycles of collections of {', '.join(f'{size:,}' for size in extent.sizes)} documents ..."
    )
    measured = delta.sizes(bench, meter, extent.sizes, extent.cycles)
    figures["delta"] = results.delta(measured)
    return results.delta_targets(measured)


def _mean(documents: int) -> float:
    some = min(documents, 10_000)
    return sum(len(bson.encode(document)) for document in generate(0, some)) / some


def _machine(bench: Bench) -> dict[str, str | int]:
    return {
        "cores": contenders.WORKERS,
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "mongodb": str(bench.collection.database.client.server_info()["version"]),
        "redis": str(bench.redis.info("server")["redis_version"]),
    }


def _say(text: str) -> None:
    click.echo(text, err=True)
