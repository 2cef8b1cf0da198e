"""From measurements to what is told: medians, ratios within a round, and whether each target is met."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

from bench.contenders import BACKFILL_ALL, INSERTION, SCRIPT, WORKERS, Rounds, Run
from bench.delta import Cycles, Size

OF_INSERTION: Final = 0.5
OF_SCRIPT: Final = 4.0
BASE_MB: Final = 150
MB_A_WORKER: Final = 60
"""What a worker process may take beside the base: an interpreter, the libraries, the pages in flight."""

SAME: Final = 1.2
"""Two figures of memory are the same when the greater is at most so many times the other."""

SAME_TIME: Final = 1.5
"""Likewise two times of a cycle: a few milliseconds, on a machine that does other things too."""

_FLAT_FROM: Final = 50_000

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the rounds."""

    median: float
    min: float
    max: float


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that must hold, and what was measured."""

    what: str
    wanted: str
    measured: str
    met: bool


def spread(values: Iterable[float], digits: int = 3) -> Spread:
    """The median and the extremes of some figures."""
    known = sorted(values)
    return Spread(*(round(value, digits) for value in (median(known), known[0], known[-1])))


def ratio(rounds: Rounds, name: str, to: str) -> Spread:
    """How many times as fast as another one a contender was, each time within one round."""
    return spread(other.seconds / one.seconds for one, other in zip(rounds[name], rounds[to], strict=True))


def speed(rounds: Rounds, documents: int) -> list[Figures]:
    """Every contender: how fast, how that compares, and what it took."""
    return [
        {
            "name": name,
            "documents_per_second": asdict(spread((documents / run.seconds for run in runs), 0)),
            "of_insertion": asdict(ratio(rounds, name, INSERTION)),
            "of_script": asdict(ratio(rounds, name, SCRIPT)),
            "seconds": [round(run.seconds, 3) for run in runs],
            "wall_seconds": [round(run.measured.wall_seconds, 3) for run in runs],
            "own_seconds": [seconds for run in runs for seconds in _own_seconds(run)],
            "peak_pss_mb": round(max(run.measured.memory.pss_mb for run in runs), 1),
            "peak_rss_mb": round(max(run.measured.memory.rss_mb for run in runs), 1),
            "processes": max(run.measured.memory.processes for run in runs),
            "cpu_seconds": _cpu(runs),
        }
        for name, runs in rounds.items()
    ]


def delta(sizes: Sequence[Size]) -> list[Figures]:
    """Every size: the backfill that came first, and the cycles after it."""
    return [
        {
            "documents": size.documents,
            "backfill_seconds": round(size.backfill_seconds, 3),
            "backfill_peak_pss_mb": round(size.backfill_memory.pss_mb, 1),
            "backfill_peak_rss_mb": round(size.backfill_memory.rss_mb, 1),
            "cycles": [
                {
                    "changed": cycles.changed,
                    "milliseconds": asdict(spread(cycles.milliseconds, 1)),
                    "wall_milliseconds": asdict(spread(cycles.wall_milliseconds, 1)),
                    "documents_examined": cycles.documents_examined,
                    "keys_examined": cycles.keys_examined,
                    "commands": cycles.commands,
                }
                for cycles in size.cycles
            ],
        }
        for size in sizes
    ]


def speed_targets(rounds: Rounds) -> list[Target]:
    """What a backfill must show beside the ceiling and the script of the same round."""
    of_insertion, of_script = (ratio(rounds, BACKFILL_ALL, other).median for other in (INSERTION, SCRIPT))
    most = BASE_MB + MB_A_WORKER * WORKERS
    peak = max(run.measured.memory.pss_mb for run in rounds[BACKFILL_ALL])
    limit = f"at most {most} MB ({BASE_MB}, and {MB_A_WORKER} for each of {WORKERS} workers)"
    return [
        _at_least("backfill / mass insertion", OF_INSERTION, of_insertion),
        _at_least("backfill / straightforward script", OF_SCRIPT, of_script),
        Target("memory of all processes of a backfill", limit, f"{peak:.0f} MB", peak <= most),
    ]


def delta_targets(sizes: Sequence[Size]) -> list[Target]:
    """What must not grow with the collection."""
    flat = [size for size in sizes if size.documents >= _FLAT_FROM] or sizes
    memory = {size.documents: round(size.backfill_memory.pss_mb) for size in flat}
    targets = [_not_more("memory of a backfill", memory, "MB", SAME)]
    for kind in zip(*(size.cycles for size in sizes), strict=True):
        targets += _cycle_targets([size.documents for size in sizes], kind)
    return targets


def _cycle_targets(documents: Sequence[int], kind: Sequence[Cycles]) -> list[Target]:
    changed = kind[0].changed
    times = {size: round(median(c.milliseconds)) for size, c in zip(documents, kind, strict=True)}
    examined = {size: c.documents_examined for size, c in zip(documents, kind, strict=True)}
    return [
        _not_more(f"a cycle with {changed} changed", times, "ms", SAME_TIME),
        _not_more(f"examined with {changed} changed", examined, "documents", 1),
    ]


def _at_least(what: str, least: float, value: float) -> Target:
    return Target(what, f"at least {least}", f"{value:.2f}", value >= least)


def _not_more(what: str, values: Mapping[int, int], unit: str, factor: float) -> Target:
    """The figure of the largest collection is at most `factor` times that of the smallest."""
    smallest, largest = values[min(values)], values[max(values)]
    told = ", ".join(f"{value} at {size:,}" for size, value in values.items())
    wanted = "the same" if factor == 1 else f"at most {factor} times as much in the largest"
    return Target(what, wanted, f"{told} ({unit})", largest <= smallest * factor)


def _own_seconds(run: Run) -> list[float]:
    """What a contender says it took, without the start and end of its process; empty where it does not."""
    answer = run.measured.answer
    known = (answer.get("seconds"), answer.get("sync_duration_ms", 0) / 1000)
    return [round(seconds, 3) for seconds in known if seconds][:1]


def _cpu(runs: Sequence[Run]) -> dict[str, float]:
    names = runs[0].measured.cpu_seconds
    return {name: round(median(run.measured.cpu_seconds[name] for run in runs), 2) for name in names}
