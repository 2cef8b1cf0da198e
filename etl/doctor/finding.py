"""What a check says: all is well, a note, or a finding with the way out."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "note", "finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check. A `finding` needs a person, a `note` is worth knowing."""

    check: str
    subject: str
    """What was looked at: a server, a collection, a family, a key."""
    level: Level
    text: str
    remedy: str | None = None
    """What to type; of findings only."""

    def as_dict(self) -> dict[str, Any]:
        """The finding as `etl doctor --json` prints it."""
        return asdict(self)


def well(check: str, subject: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(check, subject, "ok", text)


def note(check: str, subject: str, text: str) -> Finding:
    """Nothing is wrong, but one should know."""
    return Finding(check, subject, "note", text)


def wrong(check: str, subject: str, text: str, remedy: str) -> Finding:
    """Something a person has to mend, by typing `remedy`."""
    return Finding(check, subject, "finding", text, remedy)
