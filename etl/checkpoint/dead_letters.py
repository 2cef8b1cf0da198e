"""The dead letters of a collection: list, find, delete."""

from collections.abc import Sequence
from typing import Any, Final

from etl.cache.client import Command, Wire
from etl.cache.keys import StateKeys
from etl.model.state import DeadLetter, dead_letter_from_text
from etl.retry import Retry

BEYOND_CAP: Final = "dead_letters_beyond"
"""The field of a checkpoint with the number of rejections beyond the maximum of dead letters."""


class DeadLetters:
    """The dead letters of one collection. Methods raise as `Wire.exchange` does.

    They are written by `CheckpointStore`, in one step with the position.
    """

    def __init__(self, wire: Wire, keys: StateKeys, retry: Retry) -> None:
        self._wire = wire
        self._retry = retry
        self._keys = keys

    def list(self) -> list[DeadLetter]:
        """All dead letters, the oldest first."""
        texts = self._ask(("HVALS", self._keys.dead_letters))
        return sorted(map(dead_letter_from_text, texts), key=lambda letter: (letter.first_seen, letter.id))

    def beyond(self) -> int:
        """Number of rejections beyond the maximum of dead letters."""
        return int(self._ask(("HGET", self._keys.checkpoint, BEYOND_CAP)) or 0)

    def find(self, ids: Sequence[str]) -> dict[str, DeadLetter]:
        """The dead letters with these `_id`s (canonical Extended JSON), by `_id`."""
        # HMGET needs at least one field: the empty one never exists.
        _, *texts = self._ask(("HMGET", self._keys.dead_letters, "", *ids))
        return {i: dead_letter_from_text(text) for i, text in zip(ids, texts, strict=True) if text}

    def purge(self, ids: Sequence[str]) -> int:
        """Delete the dead letters with these `_id`s; return how many existed."""
        return int(self._ask(("HDEL", self._keys.dead_letters, "", *ids)))

    def purge_all(self) -> int:
        """Delete all dead letters, and reset the number beyond the maximum; return how many existed."""
        count: Command = ("HLEN", self._keys.dead_letters)
        forget: list[Command] = [
            ("DEL", self._keys.dead_letters),
            ("HDEL", self._keys.checkpoint, BEYOND_CAP),
        ]
        return int(self._retry(lambda: self._wire.exchange([count, *forget]))[0])

    def _ask(self, command: Command) -> Any:
        return self._retry(lambda: self._wire.exchange([command]))[0]
