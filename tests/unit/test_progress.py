import time

import pytest

from etl.cli.progress import Bar
from etl.model.report import Report


def test_pipe_gets_a_line_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, and not in the first seconds."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Bar("Reading c") as bar:
        for _ in range(24):
            now[0] += 0.5
            bar.count(int(now[0] - 100) * 1000, 20_000)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "Reading c: 2,000 of 20,000 documents, 1,000/s, 0:00:18 left",
        "Reading c: 7,000 of 20,000 documents, 1,000/s, 0:00:13 left",
        "Reading c: 12,000 of 20,000 documents, 1,000/s, 0:00:08 left",
    ]


def test_short_run_prints_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither does a run without documents yet."""
    with Bar("Reading c") as bar:
        bar.count(0, 10)
        bar.count(10, 10)
    assert capsys.readouterr() == ("", "")


def test_reports_add_pages_dead_letters_and_position(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Several collections are added up; without a total none is printed."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    north = Report("north", records_processed=3_000, dead_lettered=1)
    south = Report("south", records_processed=999, last_timestamp="2025-01-15T10:30:00Z")
    with Bar("Syncing") as bar:
        for seconds, report in ((1.0, north), (1.5, north), (5.5, south)):
            now[0] += seconds
            bar.update(report)
    assert capsys.readouterr().err.splitlines() == [
        "Syncing: 3,001 documents, 1,200/s, 2 pages, 1 dead letter",
        "Syncing: 4,000 documents, 500/s, 3 pages, 1 dead letter, up to 2025-01-15T10:30:00Z",
    ]


def test_documents_of_an_interrupted_run_count_as_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A resumed backfill continues the count; its speed is that of this run."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Bar("Backfilling c", 10_000) as bar:
        now[0] += 2.0
        bar.update(Report("c", records_processed=1_000, before=5_000))
    assert capsys.readouterr().err.splitlines() == [
        "Backfilling c: 6,000 of 10,000 documents, 500/s, 0:00:08 left, 1 page, 0 dead letters"
    ]
