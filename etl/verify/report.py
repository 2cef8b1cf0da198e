"""What a verification found: the numbers and examples `etl verify` prints."""

from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple

SHOWN: Final = 10
"""So many keys of each kind are named."""


class Example(NamedTuple):
    """A key, and what is wrong with it."""

    key: str
    why: str


@dataclass(slots=True)
class VerifyReport:
    """The tally of one verification, in keys but for `documents` and `invalid`."""

    collection: str
    documents: int = 0
    """How many documents were read."""
    matching: int = 0
    different: int = 0
    missing: int = 0
    expired: int = 0
    """Absent, as their documents changed longer ago than they live."""
    orphaned: int = 0
    deferred: int = 0
    """Not true, and waiting for the lock of their campaign."""
    pending: int = 0
    """Not true yet: their documents changed after the last cycle had read."""
    left_alone: int = 0
    """Not certainly this collection's: not judged."""
    invalid: int = 0
    """Documents that claim nothing, because they are invalid."""
    repaired: int = 0
    """How many of the different, missing and orphaned keys were repaired."""
    sampled: bool = False
    duration_ms: int = 0
    keys: dict[str, list[Example]] = field(default_factory=dict)
    """The first few keys of each kind that is not matching."""

    @property
    def wrong(self) -> int:
        """How many keys are not as they should be."""
        return self.different + self.missing + self.orphaned

    @property
    def true(self) -> bool:
        """Whether nothing is wrong, or everything that was has been repaired."""
        return self.wrong == self.repaired

    def count(self, name: str, number: int = 1) -> None:
        """Count keys of one kind."""
        setattr(self, name, getattr(self, name) + number)

    def example(self, name: str, key: str, why: str) -> None:
        """Name a key, if there is room."""
        examples = self.keys.setdefault(name, [])
        if len(examples) < SHOWN:
            examples.append(Example(key, why))

    def as_dict(self) -> dict[str, Any]:
        """The report as `etl verify --json` prints it."""
        keys = {name: [one._asdict() for one in examples] for name, examples in self.keys.items()}
        return {"true": self.true} | asdict(self) | {"keys": keys}
