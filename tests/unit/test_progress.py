import time

import pytest

from etl.cli import counted


def test_a_pipe_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """None before a person would wonder, and then one every few seconds, on stderr."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with counted.progress("Reading c") as tell:
        for _ in range(24):
            now[0] += 0.5
            tell(int(now[0] - 100) * 1000, 20_000)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "Reading c: 2000 of 20000, 1000/s, 18 s left",
        "Reading c: 7000 of 20000, 1000/s, 13 s left",
        "Reading c: 12000 of 20000, 1000/s, 8 s left",
    ]


def test_what_ends_soon_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither does what has done nothing yet."""
    with counted.progress("Reading c") as tell:
        tell(0, 10)
        tell(10, 10)
    assert capsys.readouterr() == ("", "")
