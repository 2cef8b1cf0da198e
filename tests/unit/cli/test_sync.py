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
    """A cycle that went well."""
    return Report(
        collection="promptContent",
        records_processed=6,
        written=7,
        enqueued=1,
        sync_duration_ms=12,
        last_id="ObjectId('65a5000000000000000000a6')",
        last_timestamp="2025-01-15T10:31:00Z",
    )


def test_json_is_the_document_of_the_design(etl: Etl) -> None:
    """`--json` prints exactly one document with the fields that programs were promised."""
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


def test_a_pipe_gets_plain_aligned_lines(etl: Etl) -> None:
    """Where stdout is no terminal, columns line up and nothing is coloured."""
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


def test_the_named_collections_are_synced(etl: Etl) -> None:
    """Names are handed on in order; without names the application takes all."""
    app = FakeApp(applied())
    etl("sync", "b", "a", app=app)
    etl("sync", app=app)
    assert app.asked == [("sync", "b", "a"), ("sync",)]
    assert app.closed


def test_invalid_documents_are_named(etl: Etl) -> None:
    """What could not be applied is told with its `_id`, the reason and the fields."""
    report = Report(collection="promptContent", dead_lettered=12, dead_letters=[LETTER] * 10)
    result = etl("sync", app=FakeApp(report))
    assert result.code == 0
    assert "promptContent: 12 invalid, not applied:" in result.out
    assert "65a5000000000000000000a1" in result.out
    assert "mensajes.0.numero: Field required" in result.out
    assert "and 2 more" in result.out


def test_what_waits_and_what_cannot_be_found_is_told(etl: Etl) -> None:
    """Deferred and unreachable documents are explained, not only counted."""
    result = etl("sync", app=FakeApp(Report(collection="c", deferred=2, unreachable=3)))
    assert "2 deferred: their campaign is being generated" in result.out
    assert "3 without a timestamp: " in result.out


@pytest.mark.parametrize(
    ("codes", "expected"),
    [((0, 0), 0), ((0, 75), 75), ((75, 1), 1), ((1, 2), 2), ((75, 0, 1), 1)],
)
def test_the_worst_report_decides_the_exit_code(etl: Etl, codes: tuple[int, ...], expected: int) -> None:
    """Every collection has its turn, and the exit code tells of the worst."""
    reports = [Report(collection="c").failed("gone", code) if code else applied() for code in codes]
    assert etl("sync", app=FakeApp(*reports)).code == expected


@pytest.mark.parametrize("arguments", [("sync",), ("sync", "--json")])
def test_a_failure_is_a_line_on_stderr(etl: Etl, arguments: tuple[str, ...]) -> None:
    """The reason of a failed collection is an error line, with `--json` too; the others have their turn."""
    report = Report(collection="c").failed("no answer from 10.0.0.1:27017", 1)
    result = etl(*arguments, app=FakeApp(report, applied()))
    assert result.err == "error: c: no answer from 10.0.0.1:27017\n"
    assert "promptContent" in result.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_to_stop(etl: Etl, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM let the application end between two steps."""

    def interrupted() -> Report:
        os.kill(os.getpid(), number)
        return Report(collection="c").failed("stopped", 130)

    app = FakeApp(interrupted)
    before = signal.getsignal(number)
    assert etl("sync", app=app).code == 130
    assert ("stop",) in app.asked
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_ends_at_once(etl: Etl) -> None:
    """A person who insists does not wait for the application; the exit code is 130, without traceback."""

    def insisting() -> Report:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not interrupted")

    app = FakeApp(insisting)
    result = etl("sync", app=app)
    assert result.code == 130
    assert result.err.strip() == "error: interrupted"
    assert app.closed
