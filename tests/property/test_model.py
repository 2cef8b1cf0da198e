"""A state machine over the whole ETL: MongoDB and Redis agree after any events.

HYPOTHESIS_PROFILE=thorough runs for an hour instead of seconds, with other examples each time.
"""

import os
import sys
from contextlib import closing
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from pymongo.collection import Collection

from etl.cache.client import Wire, open_pool
from etl.cache.cluster import ClusterWire
from etl.mongo.reader import MongoReader
from tests.support.assembly import NAME
from tests.support.cluster import Cluster
from tests.support.slots import CAMPAIGNS, SLOTS, Slot
from tests.support.types import Document
from tests.support.world import DEADLINE, LATEST, OVERLAP, STEP, Event, World, fake_world, real_world

TEN_MINUTES = 600_000
YEARS = 73 * 365 * 24 * 3_600_000

LONG = bool(os.environ.get("LONG_RUNS"))
THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
PROFILE = settings(
    max_examples=5000 if THOROUGH else 200 if LONG else 80,
    stateful_step_count=50 if THOROUGH else 30,
    deadline=None,
    derandomize=not THOROUGH,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

jitters = st.one_of(
    st.sampled_from([0, 0, 0, -1, 1, -LATEST, TEN_MINUTES, YEARS]), st.integers(-LATEST, OVERLAP)
)
contents = [(slot, content) for slot in SLOTS for content in slot.contents]
versions = st.builds(lambda content, jitter: (*content, jitter), st.sampled_from(contents), jitters)
campaigns = st.sampled_from(CAMPAIGNS)
numbers = st.integers(0, len(SLOTS) - 1)
steps = st.sampled_from([-STEP, -2 * STEP, -4 * STEP, STEP, 4 * STEP])


pages = st.tuples(st.integers(0, 8), st.integers(1, 8))
families = st.sampled_from(["config:api", "ai:campaign_messages"])

actions = st.one_of(
    st.tuples(st.sampled_from(["kill", "lose", "lose", "fail"])),
    st.tuples(st.sampled_from(["write", "write_late"]), versions),
    st.tuples(st.sampled_from(["commit", "delete", "follow"]), st.tuples(numbers)),
    st.tuples(st.just("read_page"), pages),
    st.tuples(st.just("warm"), st.tuples(families)),
    st.tuples(st.sampled_from(["lock", "unlock"]), st.tuples(campaigns)),
    st.tuples(st.just("advance"), st.tuples(st.one_of(st.integers(1, 300), st.just(DEADLINE + 1)))),
    st.tuples(st.just("step"), st.tuples(steps)),
    st.tuples(st.sampled_from(["flush", "other_holder", "pop", "deliver", "deliver"])),
)
events = st.builds(
    lambda call, after, what: Event(call, after, *what), st.integers(0, 30), st.booleans(), actions
)


@pytest.fixture(autouse=True)
def _one_page_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cold start reads no page ahead in another thread, so that runs are reproducible."""
    monkeypatch.setattr("etl.backfill.coordinator.TASK_SECONDS", 0)


class Model(RuleBasedStateMachine):
    """Rules that change the world; `World` checks its invariants."""

    def __init__(self) -> None:
        super().__init__()
        self.world = self.make()

    def make(self) -> World:
        """An empty world."""
        return fake_world()

    @rule(some=st.lists(versions, min_size=1, max_size=6))
    def write(self, some: list[tuple[Slot, str, int]]) -> None:
        """Documents are inserted or changed, several at a time so that cycles are not the most frequent step."""
        for version in some:
            self.world.write(*version)

    @rule(version=versions)
    def write_late(self, version: tuple[Slot, str, int]) -> None:
        """A document is written in a transaction that is committed later."""
        self.world.write_late(*version)

    @rule(count=st.integers(3, 8))
    def write_bulk(self, count: int) -> None:
        """More documents than fit a page get one date."""
        self.world.write_bulk(count)

    @rule(moment=st.sampled_from(["2025-01-15", None]))
    def write_dateless(self, moment: Any) -> None:
        """A document is written that no delta can reach."""
        self.world.write_dateless(moment)

    @rule(number=numbers)
    def delete(self, number: int) -> None:
        """A document is deleted."""
        self.world.delete(number)

    @rule(page=pages)
    def read_page(self, page: tuple[int, int]) -> None:
        """Another worker reads a page, which it may write much later."""
        self.world.read_page(*page)

    @rule(events=st.lists(events, min_size=1, max_size=3))
    def disturbed_worker(self, events: list[Event]) -> None:
        """The worker writes that page, with other events meanwhile."""
        self.world.deliver(events)

    @rule(number=numbers)
    def follow(self, number: int) -> None:
        """A follower applies a document, or its deletion."""
        self.world.follow(number)

    @rule(family=families)
    def warm(self, family: str) -> None:
        """A family is refreshed."""
        self.world.warm(family)

    @rule(number=numbers)
    def commit(self, number: int) -> None:
        """A late version becomes visible."""
        self.world.commit(number)

    @rule(ms=st.sampled_from([1, 500, LATEST, OVERLAP, DEADLINE, 3 * OVERLAP, TEN_MINUTES]))
    def advance(self, ms: int) -> None:
        """Time passes."""
        self.world.advance(ms)

    @rule(ms=steps)
    def step(self, ms: int) -> None:
        """The clock of MongoDB is set."""
        self.world.step(ms)

    @rule(campaign=campaigns)
    def lock(self, campaign: str) -> None:
        """A generation begins."""
        self.world.lock(campaign)

    @rule(campaign=campaigns)
    def unlock(self, campaign: str) -> None:
        """A generation ends."""
        self.world.unlock(campaign)

    @rule()
    def pop(self) -> None:
        """The generator takes all queued requests."""
        self.world.pop()

    @rule()
    def flush(self) -> None:
        """Redis is flushed."""
        self.world.flush()

    @rule(events=st.lists(events, min_size=1, max_size=3))
    def disturbed_cycle(self, events: list[Event]) -> None:
        """A cycle runs, with other events meanwhile."""
        self.world.cycle(events)

    @rule()
    def cycle(self) -> None:
        """A cycle runs, and the next one finds nothing to do."""
        self.world.settle()

    def teardown(self) -> None:
        """Check that one cycle makes Redis agree once all is committed and no lock is held."""
        if sys.exception() is None:
            self.settle()
        self.world.closing.close()

    def settle(self) -> None:
        """Commit and unlock everything, then run cycles and the remaining writes of slow workers."""
        for number in list(self.world.uncommitted):
            self.world.commit(number)
        for campaign in CAMPAIGNS:
            self.world.unlock(campaign)
        self.world.advance(2 * OVERLAP)
        self.world.settle()
        while self.world.pages:
            self.world.settle()


def test_redis_agrees_with_mongodb_after_any_events() -> None:
    """Requests are queued once, and no checkpoint goes back."""
    run_state_machine_as_test(Model, settings=PROFILE)


class FollowedModel(Model):
    """The same with a follower, which makes Redis agree before any cycle."""

    @rule()
    def follow_stream(self) -> None:
        """A follower applies all changes, and Redis agrees without a cycle."""
        self.world.follow_stream()

    @rule(events=st.lists(events, min_size=1, max_size=3))
    def disturbed_follower(self, events: list[Event]) -> None:
        """A follower runs, with other events meanwhile."""
        self.world.follow_stream(events)

    def settle(self) -> None:
        """Commit and unlock everything, let the follower apply the remaining events, then run cycles."""
        for number in list(self.world.uncommitted):
            self.world.commit(number)
        for campaign in CAMPAIGNS:
            self.world.unlock(campaign)
        self.world.follow_stream()
        super().settle()


def test_follower_alone_makes_redis_agree_after_any_events() -> None:
    run_state_machine_as_test(
        FollowedModel, settings=settings(PROFILE, max_examples=PROFILE.max_examples // 2)
    )


def run_on_servers(collection: Collection[Document], client: Any, wire: Wire, examples: int) -> None:
    """Run the model on MongoDB and this Redis, each example on empty servers."""

    class RealModel(Model):
        """The model on servers, which are emptied first."""

        def make(self) -> World:
            """An empty world on the servers of this test."""
            collection.delete_many({})
            client.flushdb()
            source = MongoReader(collection.database.client, collection.database.name, NAME)
            source.prepare()
            return real_world(collection, source, client, wire)

    profile = settings(PROFILE, max_examples=examples, stateful_step_count=15)
    run_state_machine_as_test(RealModel, settings=profile)


def test_real_redis_agrees_with_mongodb_after_any_events(
    collection: Collection[Document], redis_client: redis.Redis, redis_url: str
) -> None:
    """For a few examples."""
    with closing(Wire(open_pool(redis_url, 5))) as wire:
        run_on_servers(collection, redis_client, wire, PROFILE.max_examples // 10)


def test_cluster_agrees_with_mongodb_after_any_events(
    collection: Collection[Document], cluster_client: Any, shared_cluster: Cluster
) -> None:
    """The keys of a document may be on three servers. LONG_RUNS=1 tries more examples."""
    with closing(ClusterWire(shared_cluster.url, 5)) as wire:
        run_on_servers(collection, cluster_client, wire, PROFILE.max_examples if LONG else 5)
