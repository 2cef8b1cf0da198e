"""What must be true of a world once nothing happens any more."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from tests.simulation.protocol import Document, Key, Kind, Version
from tests.simulation.world import World

Content = tuple[Document, int]


class Projection(NamedTuple):
    """The content of the keys if each invalid document counts as one of its former versions, or as none."""

    shown: dict[Key, Content]
    omitted: frozenset[Document]


def faults(world: World, *, strict: bool = True, lists: bool = True) -> list[str]:
    """The faults of a world in which nothing happens any more.

    Not strict: a deleted document may still hold its keys, because no event reported it.
    """
    found = [*world.wrong, *_keys(world, strict=strict), *_queue(world)]
    return [*found, *_lists(world)] if lists else found


def _keys(world: World, *, strict: bool) -> Iterator[str]:
    """Each key has the content of the newest claim."""
    projections = list(_projections(world))
    for key in sorted(set(world.shown).union(*(each.shown for each in projections))):
        possible = [each.shown.get(key) for each in projections if not _omits(world, key, each)]
        if not any(_matches(world, key, expected, strict=strict) for expected in possible):
            yield f"{key} shows {world.shown.get(key)} instead of {' or '.join(map(str, possible))}"


def _projections(world: World) -> Iterator[Projection]:
    invalid = [d for d, v in world.documents.items() if v.kind is Kind.INVALID]
    former = [[None, *(v for v in world.history[d] if v and v.kind is not Kind.INVALID)] for d in invalid]
    for chosen in itertools.product(*former):
        documents: dict[Document, Version | None] = {
            **world.documents,
            **dict(zip(invalid, chosen, strict=True)),
        }
        claims = sorted((v.timestamp, d, v) for d, v in documents.items() if v)
        newest = {key: claim for claim in claims for key in claim[2].keys}
        shown = {k: (d, t) for k, (t, d, v) in newest.items() if v.kind is Kind.CONTENT}
        yield Projection(shown, frozenset(d for d, v in documents.items() if v is None))


def _omits(world: World, key: Key, projection: Projection) -> bool:
    """Whether a projection omits an invalid document that had filled the key, and was no successor."""
    return any(
        (key, d) in world.claimed and d not in world.invalid_successors and None not in world.history[d]
        for d in projection.omitted
    )


def _matches(world: World, key: Key, expected: Content | None, *, strict: bool) -> bool:
    shown = world.shown.get(key)
    if shown == expected:
        return True
    expired = world.ttl is not None and expected and expected[1] <= world.today - world.ttl
    if expired and expected and (shown is None or shown[1] < expected[1]):
        return True  # an older claim may have been written later
    owner = world.owners.get(key)
    if strict or owner is None or not owner.claims(world.rules):
        return False
    holder = owner.claims(world.rules)[-1].document
    if holder in world.documents:
        return False
    return not expected or _behind_deleted(world, expected[0], holder, owner.entries[holder].written_at)


def _behind_deleted(world: World, document: Document, holder: Document, written_at: int) -> bool:
    """Whether a claim may lose against a deleted document: unless it was handled later."""
    if world.documents[document].kind is Kind.INVALID:
        return True
    if world.changed_at.get(document, -1) < world.changed_at[holder]:
        return True
    return world.handled.get(document, (None, -1))[1] < written_at


def _queue(world: World) -> Iterator[str]:
    """Each version of a request is queued exactly once."""
    queued = world.queued()
    for (document, timestamp, _), count in queued.items():
        if count > 1:
            yield f"{document}@{timestamp} queued {count} times"
    for document, version in world.documents.items():
        requested = any(d == document and t == version.timestamp for d, t, _ in queued)
        if version.kind is Kind.PENDING and not requested:
            yield f"{document}@{version.timestamp} not queued"


def _lists(world: World) -> Iterator[str]:
    """No document stays deferred, and the invalid ones are the dead letters."""
    for document in sorted(world.deferred):
        yield f"{document} stays deferred"
    for document, version in world.documents.items():
        if (version.kind is Kind.INVALID) != (document in world.dead):
            yield f"{document} is {'' if document in world.dead else 'not '}among the dead letters"
