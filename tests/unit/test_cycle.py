"""Cases that a state machine found, or would find by luck only: cycles in a small fake world."""

from collections.abc import Iterator

import pytest

from tests.support.slots import SLOTS
from tests.support.world import LATEST, OVERLAP, World, fake_world

FIRST, SECOND = SLOTS[0], SLOTS[1]
"""Two documents that claim the same keys, of one campaign."""

API, OTHER_API = SLOTS[5], SLOTS[6]
"""Two documents that claim one key, which no lock guards."""


@pytest.fixture
def world() -> Iterator[World]:
    """An empty world without servers."""
    world = fake_world()
    yield world
    world.closing.close()


def test_deferred_document_is_not_displaced_by_an_older_one(world: World) -> None:
    """The older one commits late, and is read in the cycle after the lock was released."""
    world.settle()
    world.lock("A")
    world.write(FIRST, "put")
    world.write_late(SECOND, "put", -1)
    world.settle()
    world.commit(SECOND.number)
    world.unlock("A")
    world.advance(2 * OVERLAP)
    world.settle()


def test_tombstone_with_an_earlier_date_evicts(world: World) -> None:
    """The document was dated in the future, its tombstone by a correct clock."""
    world.write(API, "put", 600_000)
    world.settle()
    world.write(API, "tombstone")
    world.settle()
    assert world.contents() == {}


def test_late_commit_at_the_edge_of_the_overlap_is_found(world: World) -> None:
    """At the greatest guaranteed delay, and behind many other documents."""
    world.settle()
    world.write_late(API, "put")
    world.advance(LATEST)
    world.write_bulk(10)
    world.settle()
    world.commit(API.number)
    world.settle()
    assert world.contents()["config:api:p"] == {"status": "status 1"}


def test_documents_of_one_date_are_ordered_as_in_mongodb(world: World) -> None:
    """The holder of their key has meanwhile become `pendiente`, and does not claim content any more."""
    world.write_late(SECOND, "plain", 1)
    world.commit(SECOND.number)
    world.settle()
    world.write_late(FIRST, "plain", 1)
    world.write(SECOND, "baja", 1757)
    world.commit(FIRST.number)
    world.settle()


def test_older_claim_gets_the_key_of_a_deleted_document(world: World) -> None:
    """The older claim is committed after the deletion."""
    world.write(API, "put", 5_000)
    world.settle()
    world.delete(API.number)
    world.write(OTHER_API, "put")
    world.settle()
    assert world.contents()["config:api:p"] == {"status": "status 2"}


def test_stale_page_changes_nothing(world: World) -> None:
    """A worker writes it last, after its documents were moved, evicted, deleted or dated back."""
    world.write(API, "put", 60_000)
    world.write(OTHER_API, "put")
    world.write(FIRST, "alta")
    world.read_page(0, 8)
    world.settle()
    world.write(API, "tombstone")
    world.write(OTHER_API, "move")
    world.delete(FIRST.number)
    world.settle()
    world.settle()
