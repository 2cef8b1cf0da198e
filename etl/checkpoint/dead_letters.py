"""The dead letters of a collection, as the command line reads and clears them."""

from collections.abc import Sequence
from typing import Any

from etl.cache.client import Command, Wire
from etl.cache.keys import StateKeys
from etl.model.state import DeadLetter, dead_letter_from_text
from etl.retry import Retry

_BEYOND = "dead_letters_beyond"


class DeadLetters:
    """Those of one collection. Methods raise as `Wire.exchange` does.

    Writing them is the checkpoint's part: they change in one step with the position.
    """

    def __init__(self, wire: Wire, keys: StateKeys, retry: Retry) -> None:
        self._wire = wire
        self._retry = retry
        self._own = keys

    def list(self) -> list[DeadLetter]:
        """All that are kept, the oldest first."""
        texts = self._ask(("HVALS", self._own.dead_letters))
        return sorted(map(dead_letter_from_text, texts), key=lambda letter: (letter.first_seen, letter.id))

    def beyond(self) -> int:
        """How often a document was refused when there was no more room to keep it as a dead letter."""
        return int(self._ask(("HGET", self._own.checkpoint, _BEYOND)) or 0)

    def find(self, ids: Sequence[str]) -> dict[str, DeadLetter]:
        """Those of these `_id`s (canonical Extended JSON) that are dead letters."""
        # HMGET takes at least one field: the empty one stands for none and is never found.
        _, *texts = self._ask(("HMGET", self._own.dead_letters, "", *ids))
        return {i: dead_letter_from_text(text) for i, text in zip(ids, texts, strict=True) if text}

    def purge(self, ids: Sequence[str]) -> int:
        """Forget these; returns how many there were. Their documents stay as they are."""
        return int(self._ask(("HDEL", self._own.dead_letters, "", *ids)))

    def purge_all(self) -> int:
        """Forget all of them, and how many there were beyond; returns how many were kept."""
        count: Command = ("HLEN", self._own.dead_letters)
        forget: list[Command] = [("DEL", self._own.dead_letters), ("HDEL", self._own.checkpoint, _BEYOND)]
        return int(self._retry(lambda: self._wire.exchange([count, *forget]))[0])

    def _ask(self, command: Command) -> Any:
        return self._retry(lambda: self._wire.exchange([command]))[0]
