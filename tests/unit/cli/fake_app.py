"""An application that gives the answers of a test."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, cast

from etl.app import Shown
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
