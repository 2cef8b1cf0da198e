"""The dead letters of a collection, as the command line reads and clears them."""

from collections.abc import Sequence

from etl.companions import companions
from etl.redis_wire import Wire
from etl.state import DeadLetter, dead_letter_from_text


class DeadLetters:
    """Those of one collection.

    Writing them is the checkpoint's part: they change in one step with the position.
    """

    def __init__(self, wire: Wire, collection: str) -> None:
        self._wire = wire
        self._key = companions(collection).dead_letters

    def list(self) -> list[DeadLetter]:
        """All of them, the oldest first."""
        [texts] = self._wire.exchange([("HVALS", self._key)])
        return sorted(map(dead_letter_from_text, texts), key=lambda letter: (letter.first_seen, letter.id))

    def find(self, ids: Sequence[str]) -> dict[str, DeadLetter]:
        """Those of these `_id`s (canonical Extended JSON) that are dead letters."""
        # HMGET takes at least one field: the empty one stands for none and is never found.
        [_, *texts] = self._wire.exchange([("HMGET", self._key, "", *ids)])[0]
        return {i: dead_letter_from_text(text) for i, text in zip(ids, texts, strict=True) if text}

    def purge(self, ids: Sequence[str]) -> int:
        """Forget these; returns how many there were. Their documents stay as they are."""
        return int(self._wire.exchange([("HDEL", self._key, "", *ids)])[0])
