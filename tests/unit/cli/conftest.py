import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, cast

import pytest

from etl.app import App, Shown
from etl.cli import run
from etl.model.report import ProgressCallback, RefreshReport, Report, no_progress
from etl.settings import Settings


class FakeApp:
    """Answers what a test gives it, and remembers what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[Any, ...]] = []
        self.settings: Settings | None = None
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed = True

    def sync(self, names: Sequence[str], _: ProgressCallback = no_progress) -> list[Report]:
        """Several answers: one report per collection."""
        self.asked.append(("sync", *names))
        return [cast("Report", self._given(answer)) for answer in self.answers]

    def refresh(self, family: str, name: str | None) -> RefreshReport:
        """One answer."""
        self.asked.append(("refresh", family, name))
        return cast("RefreshReport", self._given(self.answers[0]))

    def show(self, key: str) -> Shown | None:
        """One answer; none is an absent key."""
        self.asked.append(("show", key))
        return cast("Shown", self._given(self.answers[0])) if self.answers else None

    def stop(self) -> None:
        """Remembered like the questions."""
        self.asked.append(("stop",))

    def _given(self, answer: Any) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer() if callable(answer) else answer


class Result(NamedTuple):
    """What a person sees of one command."""

    code: int
    out: str
    err: str


Etl = Callable[..., Result]


@pytest.fixture
def etl(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    loggers_as_they_were: None,  # noqa: ARG001 (what a command configures ends with its test)
) -> Etl:
    """Runs one command line in an empty folder, without variables, on the application it is given."""
    for name in [name for name in os.environ if name.startswith("ETL_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments: str, app: FakeApp | None = None) -> Result:
        chosen = app or FakeApp()

        def start(settings: Settings) -> App:
            chosen.settings = settings
            return cast("App", chosen)

        code = run(arguments, start)
        return Result(code, *capsys.readouterr())

    return run_command
