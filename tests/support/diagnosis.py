"""Runs of `etl doctor` and their findings."""

from collections.abc import Callable
from typing import Any, NamedTuple

from etl.cache.keys import state_keys
from tests.support.pipeline import NAME

HEALTHY = 0
FOUND = 3
OWN = state_keys(NAME)


class Diagnosis(NamedTuple):
    """The output of `etl doctor --json`."""

    code: int
    checks: list[dict[str, Any]]

    @property
    def findings(self) -> list[dict[str, Any]]:
        """The checks that found a problem."""
        return [check for check in self.checks if check["level"] == "finding"]

    def said(self, check: str) -> dict[str, Any]:
        """The result of a check, but not of MongoDB if there are several."""
        [said] = [one for one in self.checks if one["check"] == check and one["subject"] != "MongoDB"]
        return said

    def remedy(self, check: str) -> str:
        """The remedy of the only finding."""
        assert self.code == FOUND
        [finding] = self.findings
        assert finding["check"] == check
        return str(finding["remedy"])


Doctor = Callable[..., Diagnosis]
