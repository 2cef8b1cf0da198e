"""The tables of docs/speed.md.

`python -m bench.page` writes the figures of docs/bench.json between two comments of the page; `make bench` runs it.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Final

from bench.contenders import BEFORE, INSERTION, SCRIPT
from bench.documents import MEAN_BYTES
from bench.meter import ROOT
from bench.report import heading, latencies, number, targets
from bench.results import Figures, ratio

FIGURES: Final = ROOT / "docs" / "bench.json"
PAGE: Final = ROOT / "docs" / "speed.md"

_BLOCK: Final = re.compile(r"(?<=<!-- python -m bench.page -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)


def tables(figures: Figures) -> str:
    """The tables as Markdown; empty for no figures."""
    return "".join(f"\n{part}\n" for part in _parts(figures)) + "\n" if figures else "\n"


def updated(page: str, figures: Figures) -> str:
    """The page with the tables of these figures between the two comments.

    Raises:
        ValueError: the comments are missing.
    """
    text, count = _BLOCK.subn(lambda _: tables(figures), page)
    if count != 1:
        raise ValueError("docs/speed.md must have the two comments around the figures once")
    return text


def _parts(figures: Figures) -> Iterator[str]:
    yield f"{heading(figures)}."
    if speed := figures.get("speed"):
        columns = [f"{figures['extent']['documents']:,} documents of {MEAN_BYTES} bytes"]
        columns += [
            "documents/s",
            "/ insertion",
            "/ script",
            "/ before",
            "our CPU",
            "CPU of Redis",
            "memory, MB",
        ]
        yield _table(columns, (_row(speed, name) for name in speed))
    if followed := figures.get("follow"):
        columns = ["latency from an acknowledged write to the value in Redis, ms", *followed, "ratio"]
        yield _table(columns, latencies(followed))
    yield _table(["", "before", "now", "wanted", ""], targets(figures))


def _row(speed: Figures, name: str) -> list[str]:
    rates = [ratio(speed, name, "documents_per_second", other) for other in (INSERTION, SCRIPT, BEFORE)]
    costs = [ratio(speed, name, key, INSERTION, "cpu_redis") for key in ("cpu_ours", "cpu_redis")]
    found = speed[name]["median"]
    values = [found["documents_per_second"], *rates, *costs, found["pss_mb"]]
    return [name, *map(number, values)]


def _table(columns: list[str], rows: Iterable[list[str]]) -> str:
    lines = [columns, ["---", *["--:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text("utf-8"), json.loads(FIGURES.read_text("utf-8"))), "utf-8")
