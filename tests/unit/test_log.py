import json
import logging
import re
import threading
from typing import Any

import pytest

from etl import logs

ours = logging.getLogger("etl.somewhere")


pytestmark = pytest.mark.usefixtures("loggers_as_they_were")


def fail(secret: str) -> None:
    """What a driver might do."""
    raise ValueError(f"cannot connect to mongodb://user:{secret}@host")


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines on stderr."""
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The lines on stderr, each one JSON object."""
    return [json.loads(line) for line in said(capsys)]


def test_a_line_of_text_has_time_level_and_message(capsys: pytest.CaptureFixture[str]) -> None:
    """When, how bad, the action, what it is about, the message; numbers are in the message."""
    logs.configure(logging.INFO)
    with logs.bound(collection="promptContent", cycle="1f3a09c2"):
        ours.info("%d processed", 3, extra=logs.event("cycle", processed=3))
    [line] = said(capsys)
    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(rf"{moment} INFO cycle collection=promptContent cycle=1f3a09c2: 3 processed", line), (
        line
    )


def test_a_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The same, with the numbers as fields, in ASCII."""
    logs.configure(logging.INFO, "json")
    with logs.bound(collection="año", cycle="1f3a09c2"):
        ours.info("%d processed", 3, extra=logs.event("cycle", processed=3))
    [line] = said(capsys)
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
def test_an_event_is_one_line(form: logs.Form, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a name or a message holds, and nothing in it can steer the terminal."""
    logs.configure(logging.INFO, form)
    with logs.bound(collection="a\nb\x1b[2J"):
        ours.warning("what\n%s", "an\r\nerror\u2028says\x1b[2J")
    [line] = said(capsys)
    assert "\x1b" not in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_every_line_has_an_action(form: logs.Form, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of code that does not name one too."""
    logs.configure(logging.INFO, form)
    ours.info("something")
    [line] = said(capsys)
    assert ('"action": "note"' if form == "json" else " INFO note: ") in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_is_logged_without_its_message(
    form: logs.Form, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its kind and place, on the same line, from whichever library: its message may quote a secret."""
    logs.configure(logging.INFO, form)
    for logger in (ours, logging.getLogger("some.library")):
        try:
            fail("hunter2")
        except ValueError:
            logger.exception("it failed")
    lines = said(capsys)
    assert len(lines) == 2
    for line in lines:
        assert "hunter2" not in line
        assert "Traceback" not in line
        assert "unforeseen ValueError in test_log.py:" in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_debug_level_adds_the_traceback(form: logs.Form, capsys: pytest.CaptureFixture[str]) -> None:
    """With JSON still on one line."""
    logs.configure(logging.DEBUG, form)
    try:
        fail("x")
    except ValueError:
        ours.debug("it failed", exc_info=True)
    lines = said(capsys)
    assert "Traceback" in "".join(lines)
    assert (len(lines) == 1) == (form == "json")


def test_bound_fields_last_until_the_block_ends_in_this_thread(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Blocks nest; another thread is about something else."""
    logs.configure(logging.INFO, "json")
    with logs.bound(collection="a"):
        with logs.bound(cycle="1"):
            ours.info("both")
        ours.info("outer")
        other = threading.Thread(target=ours.info, args=("other",))
        other.start()
        other.join()
    ours.info("none")
    about = [(line.get("collection"), line.get("cycle")) for line in objects(capsys)]
    assert about == [("a", "1"), ("a", None), (None, None), (None, None)]


def test_libraries_are_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    """At every level of ours: a driver's debug log may show what it sends."""
    logs.configure(logging.DEBUG)
    logging.getLogger("pymongo.command").debug("secret")
    logging.getLogger("uvicorn.access").info("secret")
    logging.getLogger("apscheduler.scheduler").warning("secret")
    assert said(capsys) == []
