"""The report of a verification: counts and examples."""

from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple

SHOWN: Final = 10
"""Number of examples per verdict."""


class Example(NamedTuple):
    """A key and the reason of its verdict."""

    key: str
    why: str


@dataclass(slots=True)
class VerifyReport:
    """The counts of one verification, in keys except for `documents` and `invalid`."""

    collection: str
    documents: int = 0
    """Documents read."""
    matching: int = 0
    different: int = 0
    missing: int = 0
    expired: int = 0
    """Absent; their documents are older than the TTL."""
    orphaned: int = 0
    deferred: int = 0
    """They wait for the lock of their campaign."""
    pending: int = 0
    """Their documents changed after the last cycle."""
    left_alone: int = 0
    """Not judged: they may belong to another collection."""
    invalid: int = 0
    """Invalid documents."""
    repaired: int = 0
    """Mismatches that were repaired."""
    sampled: bool = False
    duration_ms: int = 0
    keys: dict[str, list[Example]] = field(default_factory=dict)
    """Examples per verdict."""

    @property
    def wrong(self) -> int:
        """The number of mismatches."""
        return self.different + self.missing + self.orphaned

    @property
    def true(self) -> bool:
        """Whether there is no mismatch, or all were repaired."""
        return self.wrong == self.repaired

    def count(self, name: str, number: int = 1) -> None:
        """Count keys of one verdict."""
        setattr(self, name, getattr(self, name) + number)

    def example(self, name: str, key: str, why: str) -> None:
        """Add an example, up to the maximum."""
        examples = self.keys.setdefault(name, [])
        if len(examples) < SHOWN:
            examples.append(Example(key, why))

    def as_dict(self) -> dict[str, Any]:
        """The report as `etl verify --json` prints it."""
        keys = {name: [one._asdict() for one in examples] for name, examples in self.keys.items()}
        return {"true": self.true} | asdict(self) | {"keys": keys}
