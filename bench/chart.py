"""The results as an SVG: bars of documents per second, and of the milliseconds of a cycle by size."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

from bench.results import Figures

_WIDTH: Final = 860
_LEFT: Final = 230  # of the bars; the names are before it
_LONGEST: Final = 480
_STEP: Final = 30
_STYLE: Final = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 15px }
.bar { fill: #8c959f }
.ours { fill: #1f6feb }
.range { stroke: #24292f; stroke-width: 1.5 }
.page { fill: #ffffff }
"""


class Bar(NamedTuple):
    """One figure with its range."""

    name: str
    value: float
    low: float
    high: float
    ours: bool


def svg(results: Figures) -> str:
    """The whole picture."""
    y = 10
    parts = []
    for title, bars in _panels(results):
        parts += list(_panel(title, bars, y))
        y += 50 + _STEP * len(bars)
    box = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}"'
    page = f'<rect class="page" width="{_WIDTH}" height="{y}"/>'
    return "\n".join([f"<svg {box}>", f"<style>{_STYLE}</style>", page, *parts, "</svg>", ""])


def _panels(results: Figures) -> Iterator[tuple[str, list[Bar]]]:
    if "speed" in results:
        yield f"Documents per second, {results['documents']:,} documents", _speed(results["speed"])
    if "delta" in results:
        yield "Milliseconds of one cycle, by size of the collection", _delta(results["delta"])


def _speed(rows: Sequence[Figures]) -> list[Bar]:
    return [
        _bar(row["name"], row["documents_per_second"], ours=row["name"].startswith("etl")) for row in rows
    ]


def _delta(sizes: Sequence[Figures]) -> list[Bar]:
    return [
        _bar(f"{size['documents']:,}, {cycles['changed']} changed", cycles["milliseconds"], ours=True)
        for place in range(len(sizes[0]["cycles"]))
        for size in sizes
        for cycles in [size["cycles"][place]]
    ]


def _bar(name: str, spread: Figures, *, ours: bool) -> Bar:
    return Bar(name, spread["median"], spread["min"], spread["max"], ours)


def _panel(title: str, bars: Sequence[Bar], top: int) -> Iterator[str]:
    yield f'<text class="title" x="16" y="{top + 20}">{escape(title)}</text>'
    scale = _LONGEST / max(bar.high for bar in bars)
    for number, bar in enumerate(bars):
        yield from _row(bar, top + 36 + _STEP * number, scale)


def _row(bar: Bar, y: int, scale: float) -> Iterator[str]:
    low, value, high = (round(figure * scale, 1) for figure in (bar.low, bar.value, bar.high))
    kind = "ours" if bar.ours else "bar"
    yield f'<text x="{_LEFT - 10}" y="{y + 14}" text-anchor="end">{escape(bar.name)}</text>'
    yield f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{value}" height="20" rx="2"/>'
    yield f'<line class="range" x1="{_LEFT + low}" x2="{_LEFT + high}" y1="{y + 10}" y2="{y + 10}"/>'
    yield f'<text x="{_LEFT + high + 8}" y="{y + 14}">{bar.value:,.0f}</text>'
