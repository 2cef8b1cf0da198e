"""Medians over the rounds, ratios within a round, and targets."""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, Final, NamedTuple

from bench.contenders import BEFORE, INSERTION, SCRIPT, TWO, Rounds
from bench.documents import LARGE, MAPPED, PLAIN
from bench.follow import FOLLOW
from bench.sizes import Size

Figures = dict[str, Any]
"""The content of docs/bench.json: see `bench.main.measure`."""

OLD: Final = ", before"
"""The end of the name of a shape that was measured with the version before."""

_MOST: Final = ("pss_mb", "worker_pss_mb", "slowest_ms", "slow_commands", "read_max_ms")
"""The maximum of all rounds counts, not the median."""

_FLAT_FROM: Final = 50_000  # documents: smaller collections need less memory


class Target(NamedTuple):
    """A target of the design. `before` is the figure of the version before, where it was measured."""

    what: str
    before: float | None
    measured: float
    wanted: str
    reached: bool


def summary(rounds: Rounds) -> Figures:
    """The runs of each contender, and the medians of their figures."""
    return {
        name: {
            "median": {key: (max if key in _MOST else median)(run[key] for run in runs) for key in runs[0]},
            "rounds": runs,
        }
        for name, runs in rounds.items()
    }


def sizes(measured: Sequence[Size]) -> list[Figures]:
    """The backfill and the cycles at each size."""
    return [
        {
            "documents": size.documents,
            "backfill": size.backfill,
            "cycles": [kind._asdict() | {"median": median(kind.milliseconds)} for kind in size.cycles],
        }
        for size in measured
    ]


def ratio(part: Figures, name: str, key: str, to: str, to_key: str | None = None) -> float | None:
    """The median of the ratios within each round of two contenders; None where one was not measured."""
    if name not in part or to not in part:
        return None
    runs, others = part[name]["rounds"], part[to]["rounds"]
    ratios = [run[key] / max(other[to_key or key], 1e-9) for run, other in zip(runs, others, strict=True)]
    return float(median(ratios))


def targets(figures: Figures) -> list[Target]:
    """The targets of the parts that were measured."""
    return [
        *_speed_targets(figures.get("speed", {})),
        *_reader_targets(figures.get("readers", {})),
        *_shape_targets(figures.get("shapes", {})),
        *_size_targets(figures.get("sizes", [])),
        *_follow_targets(figures.get("follow", {})),
    ]


def _speed_targets(speed: Figures) -> Iterator[Target]:
    for what, key, most in (
        ("CPU of our own processes / CPU of Redis at bare insertion", "cpu_ours", 3.8),
        ("CPU of the coordinator / CPU of Redis at bare insertion", "cpu_coordinator", 0.2),
        ("CPU of Redis / CPU of Redis at bare insertion", "cpu_redis", 3.0),
    ):
        before, now = (ratio(speed, name, key, INSERTION, "cpu_redis") for name in (BEFORE, TWO))
        yield from _at_most(what, before, now, most)
    rate = "documents_per_second"
    before, now = (ratio(speed, name, rate, BEFORE) for name in (BEFORE, TWO))
    yield from _at_least("documents/s / the version before", before, now, 1.1)
    before, now = (ratio(speed, name, rate, SCRIPT) for name in (BEFORE, TWO))
    yield from _at_least("documents/s / straightforward script", before, now, 3.0)


def _reader_targets(readers: Figures) -> Iterator[Target]:
    before, now = (readers.get(name, {}).get("median", {}).get("slowest_ms") for name in (BEFORE, TWO))
    yield from _at_most("longest command in the slow log of Redis, ms", before, now, 2.0)
    before, now = (ratio(readers, name, "read_p99_ms", SCRIPT) for name in (BEFORE, TWO))
    yield from _at_most("a reader's p99 / its p99 beside the straightforward script", before, now, 1.0)


def _shape_targets(shapes: Figures) -> Iterator[Target]:
    rate = "own_documents_per_second"
    before, now = (ratio(shapes, LARGE.name + old, rate, PLAIN.name + old) for old in (OLD, ""))
    yield from _at_least("documents/s with 12 KB beside the contract / without", before, now, 0.9)
    now = ratio(shapes, MAPPED.name, rate, PLAIN.name)
    yield from _at_least("documents/s with a mapping / without", None, now, 0.8)


def _size_targets(found: Sequence[Figures]) -> Iterator[Target]:
    if not found:
        return
    flat = [
        size["backfill"] for size in found if size["documents"] >= min(_FLAT_FROM, found[-1]["documents"])
    ]
    memory = flat[-1]["pss_mb"] / flat[0]["pss_mb"]
    yield from _at_most("memory of all processes, largest collection / smallest", None, memory, 1.2)
    yield from _at_most("memory of a worker, MB", None, max(each["worker_pss_mb"] for each in flat), 60)
    cost, usual = (each["cpu_ours"] + each["cpu_redis"] for each in (flat[-1], flat[-2:][0]))
    yield from _at_most("CPU per document, largest collection / second largest", None, cost / usual, 1.1)
    for kind in zip(*(size["cycles"] for size in found), strict=True):
        changed, first, last = kind[0]["changed"], kind[0], kind[-1]
        taken = last["median"] / max(1, first["median"])
        yield from _at_most(
            f"a cycle with {changed} changed, largest collection / smallest", None, taken, 1.5
        )
        examined = last["documents_examined"] - first["documents_examined"]
        yield from _at_most(f"documents examined more with {changed} changed", None, examined, 0)


def _follow_targets(found: Figures) -> Iterator[Target]:
    for key, what, most in (
        ("100_p50_ms", "a follower's p50 at 100 writes/s, ms", 10),
        ("100_p99_ms", "a follower's p99 at 100 writes/s, ms", 25),
        ("1000_p99_ms", "a follower's p99 at 1,000 writes/s, ms", 100),
    ):
        yield from _at_most(what, None, found.get(FOLLOW, {}).get("median", {}).get(key), most)


def _at_most(what: str, before: float | None, measured: float | None, most: float) -> Iterator[Target]:
    if measured is not None:
        yield Target(what, before, measured, f"at most {most:g}", measured <= most)


def _at_least(what: str, before: float | None, measured: float | None, least: float) -> Iterator[Target]:
    if measured is not None:
        yield Target(what, before, measured, f"at least {least:g}", measured >= least)
