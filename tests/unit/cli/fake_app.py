"""A fake application with prepared answers."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, cast

from etl.app import Shown
from etl.model.report import ProgressCallback, RefreshReport, Report, no_progress
from etl.settings import Settings


class FakeApp:
    """Returns or raises the prepared answers, and records the calls."""

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
        """Return all answers: one report per collection."""
        self.asked.append(("sync", *names))
        return [cast("Report", self._answer(answer)) for answer in self.answers]

    def refresh(self, family: str, name: str | None) -> RefreshReport:
        """Return the first answer."""
        self.asked.append(("refresh", family, name))
        return cast("RefreshReport", self._answer(self.answers[0]))

    def show(self, key: str) -> Shown | None:
        """Return the first answer; without answers the key is absent."""
        self.asked.append(("show", key))
        return cast("Shown", self._answer(self.answers[0])) if self.answers else None

    def stop(self) -> None:
        """Record the call."""
        self.asked.append(("stop",))

    def _answer(self, answer: Any) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer() if callable(answer) else answer
