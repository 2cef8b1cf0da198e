"""The checkpoint of a follower: its resume token, and whether it has caught up."""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

import bson

from etl.checkpoint.checkpoint import CheckpointStore
from etl.model.batch import BatchOutcome


class FollowStore:
    """The checkpoint of a follower. Methods raise as those of `CheckpointStore`."""

    def __init__(self, store: CheckpointStore) -> None:
        self._store = store

    def token(self) -> Mapping[str, Any] | None:
        """The resume token; None before the first batch, or if it cannot be decoded."""
        text = self._store.field("token")
        try:
            return None if text is None else bson.decode(b64decode(text))
        except (ValueError, bson.errors.BSONError):
            return None

    def replaced(self, primaries: frozenset[str]) -> bool:
        """As `CheckpointStore.replaced`."""
        return self._store.replaced(primaries)

    def begin(self, token: str) -> None:
        """Record that a follower starts: until its first batch it is unknown whether it is caught up.

        Args:
            token: the fencing token.
        """
        self._store.follow(token, {"caught_up": ""}, BatchOutcome())

    def advance(
        self,
        token: str,
        resume: Mapping[str, Any],
        seconds: float | None,
        outcome: BatchOutcome,
        *,
        caught_up: bool,
    ) -> None:
        """Record one written batch and its resume token.

        Args:
            token: the fencing token.
            resume: the resume token.
            seconds: the time of the last event, in seconds since the epoch.
            outcome: the outcome of the batch.
            caught_up: whether no further event was available.
        """
        fields: dict[str, str | int] = {
            "token": b64encode(bson.encode(resume)).decode(),
            "caught_up": int(caught_up),
        }
        if seconds is not None:
            fields["event_seconds"] = str(seconds)
        self._store.follow(token, fields, outcome)
