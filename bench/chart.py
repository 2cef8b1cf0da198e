"""The results as a chart in SVG."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report import number
from bench.results import Figures


class Panel(NamedTuple):
    """A bar chart. The bars of several series are stacked, or below each other."""

    title: str
    rows: Sequence[str]
    series: Mapping[str, Sequence[float]]
    stacked: bool = True
    scale: str = "linear"


def draw(figures: Figures, path: Path) -> None:
    """Draw a panel for each part that was measured."""
    panels = [*_panels(figures)]
    heights = [len(panel.rows) * (1 if panel.stacked else len(panel.series)) + 2 for panel in panels]
    # Without the date and random ids, a chart of the same figures hardly differs.
    with mpl.rc_context({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9, sum(heights) * 0.28), layout="constrained")
        grid = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
        for axes, panel in zip(grid[:, 0], panels, strict=True):
            _draw(axes, panel)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _panels(figures: Figures) -> Iterator[Panel]:
    if speed := _medians(figures, "speed"):
        rates = [run["documents_per_second"] for run in speed.values()]
        yield Panel(
            f"Documents per second ({figures['extent']['documents']:,} documents)", [*speed], {"": rates}
        )
        kinds = {"coordinator": "coordinator", "workers": "workers", "Redis": "redis", "MongoDB": "mongodb"}
        used = {name: [run[f"cpu_{key}"] for run in speed.values()] for name, key in kinds.items()}
        yield Panel("CPU seconds per 100,000 documents", [*speed], used)
    if readers := _medians(figures, "readers"):
        taken = {key: [run[f"read_{key}_ms"] for run in readers.values()] for key in ("p50", "p99", "max")}
        title = "Latency of a reader in ms"
        yield Panel(title, [*readers], taken, stacked=False, scale="log")
    if shapes := _medians(figures, "shapes"):
        rates = [run["documents_per_second"] for run in shapes.values()]
        yield Panel(
            f"Documents per second ({figures['extent']['shaped']:,} documents)", [*shapes], {"": rates}
        )
    if sizes := figures.get("sizes"):
        rows = [f"{size['documents']:,} documents" for size in sizes]
        kinds_of = zip(*(size["cycles"] for size in sizes), strict=True)
        cycles = {f"{kind[0]['changed']} changed": [one["median"] for one in kind] for kind in kinds_of}
        yield Panel("Cycle in ms", rows, cycles, stacked=False)


def _medians(figures: Figures, part: str) -> dict[str, dict[str, float]]:
    return {name: found["median"] for name, found in figures.get(part, {}).items()}


def _draw(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title, loc="left", fontweight="bold")
    height = 0.8 if panel.stacked else 0.8 / len(panel.series)
    lefts = [0.0] * len(panel.rows)
    for place, (name, values) in enumerate(panel.series.items()):
        shift = 0.0 if panel.stacked else height * (place - (len(panel.series) - 1) / 2)
        places = [row + shift for row in range(len(panel.rows))]
        bars = axes.barh(places, values, height, left=lefts, label=name)
        if panel.stacked:
            lefts = [left + value for left, value in zip(lefts, values, strict=True)]
        if not panel.stacked or len(panel.series) == 1:
            axes.bar_label(bars, [*map(number, values)], padding=3)
    axes.set_yticks(range(len(panel.rows)), panel.rows)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xscale(panel.scale)
    axes.margins(x=0.1)
    if len(panel.series) > 1:
        axes.legend(loc="best", frameon=False)
