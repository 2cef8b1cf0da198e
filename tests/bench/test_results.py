"""Figures, targets, tables and chart from measurements."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from bench import chart, contenders, page, report, results
from bench.contenders import BEFORE, INSERTION, ONE, SCRIPT, START, TWO, Contender, Rounds, Run, figures_of
from bench.documents import LARGE, MAPPED, PLAIN
from bench.follow import FOLLOW, RATES, WATCH
from bench.meter import Measured, Meter
from bench.results import OLD, Figures
from bench.servers import Bench, Source
from bench.sizes import Cycles, Size

CPU = {"coordinator": 0.2, "workers": 3.5, "redis": 3.0, "mongodb": 0.5}
READS = {"read_p50_ms": 0.2, "read_p99_ms": 1.0, "read_max_ms": 2.0, "slowest_ms": 1.5, "slow_commands": 0}


def run(rate: float, **changes: float) -> Run:
    """The figures of a run with this rate."""
    measured = Measured(100_000 / rate, CPU, 100.0, 40.0, {})
    return figures_of(100_000, measured, None) | READS | changes


def rounds(*, new: float = 12_000, old: float = 10_000, **changes: float) -> Rounds:
    """Two rounds; in the second the machine is half as fast."""
    rates = {INSERTION: 40_000.0, SCRIPT: 4_000.0, BEFORE: old, ONE: new / 2, TWO: new}
    of = {INSERTION: {"cpu_redis": 1.0}, TWO: changes}
    return {name: [run(rate * s, **of.get(name, {})) for s in (1, 0.5)] for name, rate in rates.items()}


def size(documents: int, *, ms: int = 10, examined: int = 156, **changes: float) -> Size:
    """One size with cycles of 0 and 156."""
    cycles = [Cycles(0, [ms], 1, 1, 4), Cycles(156, [ms], examined, 156, 4)]
    return Size(documents, run(10_000, **changes), cycles)


def followed(**changes: float) -> Figures:
    """The latencies of two rounds; in the second the machine is half as fast."""
    of = {f"{what}_{part}_ms": 4.0 for what in (*RATES, "deletes") for part in ("p50", "p99", "max")}
    watch = [{key: value / 2 * slow for key, value in of.items()} for slow in (1, 2)]
    follow = [
        {key: changes.get(key.removesuffix("_ms"), value) * slow for key, value in of.items()}
        for slow in (1, 2)
    ]
    return results.summary({WATCH: watch, FOLLOW: follow})


def figures(**parts: Any) -> Figures:
    """The figures of a whole run."""
    machine = {"cores": 2, "memory_gb": 8, "system": "s", "python": "3", "mongodb": "6", "redis": "6"}
    extent = {"documents": 1_200, "shaped": 500, "rounds": 2, "cycles": 1}
    shapes = {shape.name + old: [run(9_000)] for shape in (PLAIN, LARGE, MAPPED) for old in (OLD, "")}
    found: Figures = {
        "machine": machine,
        "extent": extent,
        "speed": results.summary(rounds()),
        "readers": results.summary(rounds()),
        "shapes": results.summary(shapes),
        "sizes": results.sizes([size(50_000), size(1_000_000), size(2_000_000)]),
        "follow": followed(),
        **parts,
    }
    return found | {"targets": [target._asdict() for target in results.targets(found)]}


def mapped(share: float) -> Figures:
    """The shapes; the mapped one has this share of the speed."""
    return results.summary({PLAIN.name: [run(1_000)], MAPPED.name: [run(1_000 * share)]})


def missed(found: Figures) -> list[str]:
    """The targets that were not reached."""
    return [target["what"] for target in found["targets"] if not target["reached"]]


def test_ratio_is_taken_within_a_round() -> None:
    """A machine that slows down from round to round changes speeds, not ratios."""
    speed = results.summary(rounds())

    assert results.ratio(speed, TWO, "documents_per_second", SCRIPT) == 3
    uneven = results.summary({"a": [run(1), run(10), run(3)], "b": [run(2), run(1), run(3)]})
    assert results.ratio(uneven, "a", "documents_per_second", "b") == 1
    assert speed[TWO]["median"]["documents_per_second"] == 9_000
    assert results.ratio(speed, TWO, "cpu_redis", INSERTION) == 3
    assert results.ratio(speed, TWO, "documents_per_second", "not measured") is None


def test_memory_and_pauses_are_the_maximum_of_all_rounds() -> None:
    """Not the median."""
    summary = results.summary({TWO: [run(1, pss_mb=ms, slowest_ms=ms) for ms in (1.0, 5.0, 2.0)]})
    assert (summary[TWO]["median"]["pss_mb"], summary[TWO]["median"]["slowest_ms"]) == (5, 5)


def test_cpu_time_of_the_start_is_subtracted() -> None:
    """The rest is given in seconds per 100,000 documents."""
    started = Measured(1.0, {"coordinator": 0.6, "workers": 1.0, "redis": 0.1}, 50, 20, {})
    whole = Measured(
        5.0, {"coordinator": 0.8, "workers": 5.0, "redis": 4.1}, 100, 40, {"sync_duration_ms": 4000}
    )

    documents = START.documents + 200_000
    found = figures_of(documents, whole, started)

    assert found["cpu_coordinator"] == pytest.approx(0.1)
    assert (found["cpu_workers"], found["cpu_redis"], found["cpu_ours"]) == pytest.approx((2, 2, 2.1))
    assert (found["documents_per_second"], found["own_documents_per_second"]) == (
        documents / 5,
        documents / 4,
    )


def test_contenders_take_turns(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow minute of the machine affects all of them."""
    order: list[str] = []

    def record(_: Bench, __: Meter, contender: Contender) -> Run:
        order.append(contender.name)
        return {"number": len(order)}

    monkeypatch.setattr(contenders, "run", record)
    some = [Contender(name, (), Source("d", 1)) for name in "abc"]

    measured = contenders.rounds(bench, Meter({}), some, 2)

    assert "".join(order) == "abcabc"
    assert measured["b"] == [{"number": 2}, {"number": 5}]


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        ({}, []),
        ({"speed": results.summary(rounds(new=10_999))}, ["version before", "straightforward script"]),
        ({"speed": results.summary(rounds(cpu_ours=3.81))}, ["CPU of our own processes"]),
        ({"speed": results.summary(rounds(cpu_coordinator=0.21))}, ["CPU of the coordinator"]),
        ({"speed": results.summary(rounds(cpu_redis=3.01))}, ["CPU of Redis"]),
        ({"readers": results.summary(rounds(slowest_ms=2.01))}, ["longest command"]),
        ({"readers": results.summary(rounds(read_p99_ms=1.01))}, ["a reader's p99"]),
        ({"shapes": mapped(0.79)}, ["documents/s with a mapping"]),
        ({"shapes": mapped(0.81)}, []),
        ({"sizes": results.sizes([size(50_000), size(90_000, pss_mb=121)])}, ["memory of all processes"]),
        ({"sizes": results.sizes([size(50_000, worker_pss_mb=61)])}, ["memory of a worker"]),
        ({"sizes": results.sizes([size(50_000), size(90_000, cpu_redis=3.7)])}, ["CPU per document"]),
        ({"sizes": results.sizes([size(500, pss_mb=1.0), size(50_000)])}, []),
        (
            {"sizes": results.sizes([size(500), size(50_000, ms=16)])},
            ["a cycle with 0 changed", "a cycle with 156 changed"],
        ),
        ({"sizes": results.sizes([size(500), size(50_000, examined=157)])}, ["documents examined"]),
        ({"follow": followed(**{"100_p50": 6.7})}, ["p50 at 100 writes/s"]),
        ({"follow": followed(**{"100_p99": 16.7})}, ["p99 at 100 writes/s"]),
        ({"follow": followed(**{"1000_p99": 66.7})}, ["p99 at 1,000 writes/s"]),
    ],
)
def test_target_is_missed_by_a_small_difference(parts: Figures, what: list[str]) -> None:
    """And no other target is."""
    found = missed(figures(**parts))
    assert len(found) == len(what)
    assert all(one in line for one, line in zip(what, found, strict=True))


def test_previous_version_may_be_missing() -> None:
    """As in a source distribution; then no ratio and no table has it."""
    speed = {name: found for name, found in results.summary(rounds()).items() if name != BEFORE}

    found = figures(speed=speed, readers=speed)

    lines = {target["what"]: target for target in found["targets"]}
    assert "documents/s / the version before" not in lines
    assert lines["documents/s / straightforward script"]["before"] is None
    assert BEFORE not in page.tables(found)


def test_report_has_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    """Missed targets are marked."""
    report.show(figures(speed=results.summary(rounds(cpu_redis=3.01))))

    printed = capsys.readouterr().out
    for title in (
        "Speed",
        "CPU seconds",
        "Latency",
        "Shapes",
        "Backfill by size",
        "Cycle by size",
        "Latency from an acknowledged write",
        "Targets",
    ):
        assert title in printed
    [line] = [line for line in printed.splitlines() if "missed" in line]
    assert line.split()[-5:] == ["3.01", "at", "most", "3", "missed"]


def test_chart_has_every_contender(tmp_path: Path) -> None:
    """As text in the SVG."""
    chart.draw(figures(), tmp_path / "chart.svg")

    picture = (tmp_path / "chart.svg").read_bytes()
    texts = {text.text for text in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")}  # noqa: S314 (our own)
    assert {INSERTION, SCRIPT, BEFORE, ONE, TWO, LARGE.name, "30,000", "1,000,000 documents", "p99"} <= texts


def test_tables_of_the_page_have_every_contender_and_target() -> None:
    """One row each."""
    found = figures()

    lines = page.tables(found).splitlines()

    assert f"| {TWO} | 9,000 | 0.3 | 3 | 1.2 | 3.7 | 3 | 100 |" in lines
    assert "| 1,000 writes/s, p99 | 3 | 6 | 2 |" in lines
    assert "| 100 deletes/s, p50 | 3 | 6 | 2 |" in lines
    rows = len(found["speed"]) + len(found["targets"]) + 2 * (len(RATES) + 1)
    assert sum(line.startswith("|") for line in lines) == 6 + rows


def test_page_has_the_figures_of_bench_json() -> None:
    """`make bench` writes both files."""
    text = page.PAGE.read_text("utf-8")
    assert page.updated(text, json.loads(page.FIGURES.read_text("utf-8"))) == text


def test_new_figures_replace_only_the_old_ones() -> None:
    """Without the marking comments it is an error."""
    text = "a\n<!-- python -m bench.page -->\n| old |\n<!-- end of figures -->\nb\n"

    before, new, after = page.updated(text, figures()).partition(page.tables(figures()))

    assert new
    assert (before, after) == ("a\n<!-- python -m bench.page -->\n", "<!-- end of figures -->\nb\n")
    with pytest.raises(ValueError, match="comments"):
        page.updated("a\nb\n", figures())
