import json
import os
import signal

import pytest

from etl.model.report import Report
from tests.support.command import Etl
from tests.unit.cli.fake_app import FakeApp

LETTER = {
    "id": '{"$oid":"65a5000000000000000000a1"}',
    "reason": "invalid fields",
    "errors": [{"field": "mensajes.0.numero", "problem": "Field required"}],
}


def applied() -> Report:
    """The report of a successful cycle."""
    return Report(
        collection="promptContent",
        records_processed=6,
        written=7,
        enqueued=1,
        sync_duration_ms=12,
        last_id="ObjectId('65a5000000000000000000a6')",
        last_timestamp="2025-01-15T10:31:00Z",
    )


def test_json_has_the_documented_fields(etl: Etl) -> None:
    result = etl("sync", "--json", app=FakeApp(applied()))
    assert result.code == 0
    assert result.err == ""
    assert json.loads(result.out) == {
        "collections": [
            {
                "collection": "promptContent",
                "status": "ok",
                "mode": "delta",
                "records_processed": 6,
                "written": 7,
                "evicted": 0,
                "enqueued": 1,
                "dead_lettered": 0,
                "deferred": 0,
                "unreachable": 0,
                "sync_duration_ms": 12,
                "last_id": "ObjectId('65a5000000000000000000a6')",
                "last_timestamp": "2025-01-15T10:31:00Z",
                "error": None,
                "dead_letters": [],
            }
        ]
    }


def test_pipe_gets_aligned_lines_without_colours(etl: Etl) -> None:
    result = etl("sync", app=FakeApp(applied(), Report(collection="b")))
    header, first, second, *notes = result.out.splitlines()
    assert header.index("mode") == first.index("delta") == second.index("delta")
    assert first.split() == ["promptContent", "ok", "delta", "6", "7", "0", "1"]
    position = "2025-01-15T10:31:00Z, ObjectId('65a5000000000000000000a6')"
    assert notes == [
        f"promptContent: in sync up to {position}; it took 12 ms",
        "b: in sync; it took 0 ms",
    ]
    assert "\x1b" not in result.out


def test_named_collections_are_synced_in_order(etl: Etl) -> None:
    """Without names the application syncs all."""
    app = FakeApp(applied())
    etl("sync", "b", "a", app=app)
    etl("sync", app=app)
    assert app.asked == [("sync", "b", "a"), ("sync",)]
    assert app.closed


def test_invalid_documents_are_listed(etl: Etl) -> None:
    """With `_id`, reason and fields."""
    report = Report(collection="promptContent", dead_lettered=12, dead_letters=[LETTER] * 10)
    result = etl("sync", app=FakeApp(report))
    assert result.code == 0
    assert "promptContent: 12 invalid, not applied:" in result.out
    assert "65a5000000000000000000a1" in result.out
    assert "mensajes.0.numero: Field required" in result.out
    assert "and 2 more" in result.out


def test_deferred_and_unreachable_documents_are_explained(etl: Etl) -> None:
    result = etl("sync", app=FakeApp(Report(collection="c", deferred=2, unreachable=3)))
    assert "2 deferred: their campaign is being generated" in result.out
    assert "3 without a timestamp: " in result.out


@pytest.mark.parametrize(
    ("codes", "expected"),
    [((0, 0), 0), ((0, 75), 75), ((75, 1), 1), ((1, 2), 2), ((75, 0, 1), 1)],
)
def test_worst_report_decides_the_exit_code(etl: Etl, codes: tuple[int, ...], expected: int) -> None:
    reports = [Report(collection="c").failed("gone", code) if code else applied() for code in codes]
    assert etl("sync", app=FakeApp(*reports)).code == expected


@pytest.mark.parametrize("arguments", [("sync",), ("sync", "--json")])
def test_failure_is_a_line_on_stderr(etl: Etl, arguments: tuple[str, ...]) -> None:
    """The other collections are reported on stdout."""
    report = Report(collection="c").failed("no answer from 10.0.0.1:27017", 1)
    result = etl(*arguments, app=FakeApp(report, applied()))
    assert result.err == "error: c: no answer from 10.0.0.1:27017\n"
    assert "promptContent" in result.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_stops_the_application(etl: Etl, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end it between two steps."""

    def interrupted() -> Report:
        os.kill(os.getpid(), number)
        return Report(collection="c").failed("stopped", 130)

    app = FakeApp(interrupted)
    before = signal.getsignal(number)
    assert etl("sync", app=app).code == 130
    assert ("stop",) in app.asked
    assert signal.getsignal(number) == before


def test_second_ctrl_c_ends_at_once(etl: Etl) -> None:
    """With exit code 130 and without traceback."""

    def interrupted_twice() -> Report:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not interrupted")

    app = FakeApp(interrupted_twice)
    result = etl("sync", app=app)
    assert result.code == 130
    assert result.err.strip() == "error: interrupted"
    assert app.closed
