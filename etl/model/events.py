"""The events of a change stream that arrived together."""

from collections.abc import Mapping
from typing import Any, NamedTuple

ResumeToken = Mapping[str, Any]
"""The place in a change stream after an event."""


class Events(NamedTuple):
    """The events that have arrived, in order; empty if none arrived in time."""

    ids: list[str]
    """`_id`s of the documents that were written or deleted, each once, as `id_text`."""
    operations: Mapping[str, int]
    """Number of events per operation."""
    token: ResumeToken
    """The resume token after these events."""
    seconds: float | None
    """Time of the last event, in seconds since the epoch by MongoDB's clock."""
