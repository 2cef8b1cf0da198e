"""The result of a check: ok, a note, or a finding with its remedy."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "note", "finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. A `finding` has to be fixed, a `note` is information."""

    check: str
    subject: str
    """What was checked: a server, a collection, a family, a key."""
    level: Level
    text: str
    remedy: str | None = None
    """The command to type; None except for findings."""

    def as_dict(self) -> dict[str, Any]:
        """The finding as `etl doctor --json` prints it."""
        return asdict(self)


def ok(check: str, subject: str, text: str) -> Finding:
    """The check passed."""
    return Finding(check, subject, "ok", text)


def note(check: str, subject: str, text: str) -> Finding:
    """Information; nothing is wrong."""
    return Finding(check, subject, "note", text)


def problem(check: str, subject: str, text: str, remedy: str) -> Finding:
    """A problem, and the command that fixes it."""
    return Finding(check, subject, "finding", text, remedy)
