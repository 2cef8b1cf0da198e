"""Outcomes made of entries, as the transform makes them of documents."""

from typing import Any

from etl.model.outcome import Fill, Outcome
from etl.transform.sheet import outcomes
from etl.transform.transform import row
from schemas.documents import FAMILIES
from schemas.operations import Entry, Evict, Projection, Put, Reject
from schemas.position import Position

TTLS = {name: family.ttl for name, family in FAMILIES.items()}


def applied(position: Position, *entries: Entry, lock: str | None = None) -> Outcome:
    """A valid document that asks for these entries."""
    [outcome] = outcomes([row(position.place(), Projection(entries, lock), TTLS)])
    return outcome


def refused(position: Position, reject: Reject) -> Outcome:
    """A document that cannot be applied."""
    [outcome] = outcomes([row(position.place(), reject, TTLS)])
    return outcome


def fill(entry: Put | Evict) -> Fill:
    """What a key is filled with, or that it is to be removed."""
    return applied(Position(None, None), entry).fills[0]


def put(key: str, value: Any, family: str = "config:api") -> Fill:
    """A key filled with this."""
    return fill(Put(family, key, value))
