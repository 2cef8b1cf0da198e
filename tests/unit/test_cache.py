from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from etl.cache.cache import Cache
from etl.cache.client import Wire
from etl.cache.keys import companions
from etl.cache.keyspace import Keyspace, Shown
from etl.errors import Overtaken
from etl.sync.batch import Decision
from tests.support.outcomes import put
from tests.support.twins import NAME, fake_redis, take_lease

PUT = Decision(writes={"config:api:a": put("config:api:a", {"status": "active"})})


@pytest.fixture
def client() -> Iterator[Any]:
    """A Redis in memory."""
    with fake_redis() as client:
        yield client


@pytest.fixture
def wire(client: Any) -> Iterator[Wire]:
    """A wire to it."""
    with closing(Wire(client.connection_pool)) as wire:
        yield wire


def test_an_idle_batch_does_not_spoil_the_cycle_after_it(client: Any, wire: Wire) -> None:
    """A batch that wrote nothing leaves no WATCH behind: the next lease moves the fence, and can write."""
    cache = Cache(wire, NAME, companions(NAME))
    cache.look([], take_lease(client), None, has_claims=False)
    cache.write(Decision(), frozenset())
    cache.look([], take_lease(client), None, has_claims=False)
    cache.write(PUT, frozenset())
    assert client.hgetall("config:api:a") == {"status": "active"}


def test_a_lease_taken_over_between_look_and_write_stops_the_write(client: Any, wire: Wire) -> None:
    """The transaction is bound to the fence that `look` has seen: nothing of it is carried out."""
    cache = Cache(wire, NAME, companions(NAME))
    cache.look([], take_lease(client), None, has_claims=False)
    take_lease(client)
    with pytest.raises(Overtaken):
        cache.write(PUT, frozenset())
    assert not client.exists("config:api:a")


def test_an_idle_batch_does_not_spoil_what_is_shown_after_it(client: Any, wire: Wire) -> None:
    """A key can be shown over the wire of a cycle that ended without a write, whoever came after it."""
    cache = Cache(wire, NAME, companions(NAME))
    cache.look([], take_lease(client), None, has_claims=False)
    cache.write(Decision(), frozenset())
    take_lease(client)
    client.set("lock:content_generation:a", "17")
    assert Keyspace(wire).show("lock:content_generation:a") == Shown(
        "lock:content_generation:a", "string", None, "17"
    )
