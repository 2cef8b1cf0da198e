"""What is ready to be sent to Redis: bytes, and how much they stand for. See `etl.transform.encoding`."""

from collections.abc import Mapping
from typing import NamedTuple


class Packed(NamedTuple):
    """Commands that are encoded already, and how many they are."""

    data: bytes
    length: int


class Arguments(NamedTuple):
    """Arguments of a command that are encoded already, and how many they are."""

    data: bytes
    length: int


class Draft(NamedTuple):
    """How all valid documents of a page are written where nothing that Redis holds speaks against it."""

    owners: Arguments
    """Each key that is claimed, followed by the position of the document that claims it."""
    filled: Arguments
    """Each document that claims keys by its `_id`, followed by these."""
    valid: int
    """How many documents of the page are valid."""
    written: int
    """How many of them fill a key."""
    evicted: int
    """How many only want keys removed."""
    families: Mapping[str, int]
    """How many keys of each family are filled."""


class Encoded(NamedTuple):
    """What Redis is asked about a page, and what it is told where nothing speaks against it."""

    keys: Arguments
    """The keys that its documents claim, each once."""
    fills: Packed
    """What fills them once they are removed, in the order of the documents."""
    documents: Arguments
    """Its documents, by `_id`."""
    locks: Arguments
    """The locks that would put some of them off."""
    draft: Draft | None
    """None where its documents concern one another, or ask for messages."""
