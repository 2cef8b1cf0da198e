import json
import logging
import re
import threading
from typing import Any

import pytest

from etl import logs

ours = logging.getLogger("etl.somewhere")


pytestmark = pytest.mark.usefixtures("restore_loggers")


def fail(secret: str) -> None:
    """Raise an error that quotes a secret, as a driver might."""
    raise ValueError(f"cannot connect to mongodb://user:{secret}@host")


def stderr_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def json_lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines on stderr, parsed as JSON."""
    return [json.loads(line) for line in stderr_lines(capsys)]


def test_text_line_has_time_level_action_and_message(capsys: pytest.CaptureFixture[str]) -> None:
    """Then the bound fields; the numbers are in the message."""
    logs.configure(logging.INFO)
    with logs.bound(collection="promptContent", cycle="1f3a09c2"):
        ours.info("%d processed", 3, extra=logs.event("cycle", processed=3))
    [line] = stderr_lines(capsys)
    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(rf"{moment} INFO cycle collection=promptContent cycle=1f3a09c2: 3 processed", line), (
        line
    )


def test_json_line_has_the_numbers_as_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """The line is ASCII."""
    logs.configure(logging.INFO, "json")
    with logs.bound(collection="año", cycle="1f3a09c2"):
        ours.info("%d processed", 3, extra=logs.event("cycle", processed=3))
    [line] = stderr_lines(capsys)
    assert line.isascii()
    found = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found == {
        "level": "info",
        "logger": "etl.somewhere",
        "action": "cycle",
        "collection": "año",
        "cycle": "1f3a09c2",
        "processed": 3,
        "message": "3 processed",
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_event_is_one_line_without_control_characters(
    form: logs.Form, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a name or a message contains."""
    logs.configure(logging.INFO, form)
    with logs.bound(collection="a\nb\x1b[2J"):
        ours.warning("what\n%s", "an\r\nerror\u2028says\x1b[2J")
    [line] = stderr_lines(capsys)
    assert "\x1b" not in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_line_without_action_gets_note(form: logs.Form, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(logging.INFO, form)
    ours.info("something")
    [line] = stderr_lines(capsys)
    assert ('"action": "note"' if form == "json" else " INFO note: ") in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_exception_is_logged_without_its_message(form: logs.Form, capsys: pytest.CaptureFixture[str]) -> None:
    """Type and place are on the same line, also for libraries. The message may quote a secret."""
    logs.configure(logging.INFO, form)
    for logger in (ours, logging.getLogger("some.library")):
        try:
            fail("hunter2")
        except ValueError:
            logger.exception("it failed")
    lines = stderr_lines(capsys)
    assert len(lines) == 2
    for line in lines:
        assert "hunter2" not in line
        assert "Traceback" not in line
        assert "unforeseen ValueError in test_log.py:" in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_debug_level_adds_the_traceback(form: logs.Form, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON stays on one line."""
    logs.configure(logging.DEBUG, form)
    try:
        fail("x")
    except ValueError:
        ours.debug("it failed", exc_info=True)
    lines = stderr_lines(capsys)
    assert "Traceback" in "".join(lines)
    assert (len(lines) == 1) == (form == "json")


def test_bound_fields_apply_to_the_block_and_thread(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Blocks nest; other threads have no fields."""
    logs.configure(logging.INFO, "json")
    with logs.bound(collection="a"):
        with logs.bound(cycle="1"):
            ours.info("both")
        ours.info("outer")
        other = threading.Thread(target=ours.info, args=("other",))
        other.start()
        other.join()
    ours.info("none")
    about = [(line.get("collection"), line.get("cycle")) for line in json_lines(capsys)]
    assert about == [("a", "1"), ("a", None), (None, None), (None, None)]


def test_libraries_do_not_log(capsys: pytest.CaptureFixture[str]) -> None:
    """Not even at debug level: the log of a driver may have secrets."""
    logs.configure(logging.DEBUG)
    logging.getLogger("pymongo.command").debug("secret")
    logging.getLogger("uvicorn.access").info("secret")
    logging.getLogger("apscheduler.scheduler").warning("secret")
    assert stderr_lines(capsys) == []
