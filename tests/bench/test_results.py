"""What is told of measurements."""

import xml.etree.ElementTree as ET

import pytest
from bench.delta import Cycles, Size

from bench import chart, results
from bench.contenders import BACKFILL_ALL, INSERTION, SCRIPT, WORKERS, Rounds, Run
from bench.meter import Measured, Memory

MB = 100.0
LIMIT = results.BASE_MB + results.MB_A_WORKER * WORKERS


def rounds(*, backfill: float = 4.0, memory: float = MB) -> Rounds:
    """Three rounds in which the machine got slower and slower, for all alike."""

    def runs(seconds: float) -> list[Run]:
        return [Run(seconds * slow, measured(seconds * slow)) for slow in (1, 2, 3)]

    def measured(seconds: float) -> Measured:
        return Measured(seconds, Memory(memory, memory, 1), {"ours": seconds}, {})

    return {INSERTION: runs(2.5), SCRIPT: runs(20.0), BACKFILL_ALL: runs(backfill)}


def size(documents: int, *, ms: int = 10, examined: int = 156, memory: float = MB) -> Size:
    """One size with cycles of 0 and 156."""
    idle = Cycles(0, [ms], [ms], 1, 1, 4)
    return Size(documents, 1.0, Memory(memory, memory, 1), [idle, Cycles(156, [ms], [ms], examined, 1, 4)])


def test_a_ratio_is_taken_within_a_round() -> None:
    """A machine that slows down from round to round changes speeds, not ratios."""
    assert results.ratio(rounds(), BACKFILL_ALL, INSERTION) == results.Spread(0.625, 0.625, 0.625)
    rates = results.speed(rounds(), 1_200)[2]["documents_per_second"]
    assert rates == {"median": 150, "min": 100, "max": 300}


@pytest.mark.parametrize(
    ("measured", "met"),
    [
        (rounds(), [True, True, True]),
        (rounds(backfill=5.0), [True, True, True]),
        (rounds(backfill=5.1), [False, False, True]),
        (rounds(memory=LIMIT + 1), [True, True, False]),
    ],
)
def test_targets_of_speed(measured: Rounds, met: list[bool]) -> None:
    """Half the ceiling and four times the script are just enough; memory has a limit."""
    assert [target.met for target in results.speed_targets(measured)] == met


@pytest.mark.parametrize(
    ("largest", "missed"),
    [
        (size(1_000_000), []),
        (size(1_000_000, memory=2 * MB), ["memory of a backfill"]),
        (size(1_000_000, examined=157), ["examined with 156 changed"]),
        (size(1_000_000, ms=20), ["a cycle with 0 changed", "a cycle with 156 changed"]),
    ],
)
def test_targets_of_a_cycle(largest: Size, missed: list[str]) -> None:
    """Neither memory, nor what is examined, nor the time may grow with the collection."""
    targets = results.delta_targets([size(10_000, memory=1.0), size(50_000), largest])
    assert [target.what for target in targets if not target.met] == missed


def test_the_chart_is_well_formed_and_tells_every_figure() -> None:
    """One bar for each contender and each kind of cycle of each size."""
    figures = {
        "documents": 1_200,
        "speed": results.speed(rounds(), 1_200),
        "delta": results.delta([size(10_000), size(50_000)]),
    }

    picture = ET.fromstring(chart.svg(figures))  # noqa: S314 (nobody else has written it)
    texts = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]

    assert {"150", BACKFILL_ALL, "10,000, 0 changed", "50,000, 156 changed"} <= set(texts)
    assert len(texts) == 2 + 2 * (3 + 4)
