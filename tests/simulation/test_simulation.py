"""A model of the write protocol: every schedule ends with the cache equal to the projection of MongoDB.

HYPOTHESIS_PROFILE=thorough plays a hundred times as many random schedules, and more interruptions.
"""

import os
import random
from collections.abc import Iterator
from dataclasses import fields
from functools import partial

import pytest

from tests.simulation.counterexamples import COUNTEREXAMPLES, Counterexample
from tests.simulation.explore import CRASHES, Run, random_choice, schedules
from tests.simulation.protocol import Rules
from tests.simulation.scenarios import RANDOM, STORIES, Scenario

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"

ACTOR_SETS = (
    ("worker",),
    ("cycle",),
    ("follower",),
    ("reconcile",),
    ("worker", "cycle"),
    ("worker", "follower"),
    ("worker", "reconcile"),
    ("cycle", "follower"),
    ("cycle", "second cycle"),
    ("cycle", "reconcile"),
    ("follower", "second follower"),
    ("follower", "reconcile"),
    ("worker", "cycle", "follower"),
    ("worker", "cycle", "second cycle"),
    ("worker", "second worker", "cycle"),
    ("worker", "second worker", "follower"),
    ("worker", "follower", "second follower"),
    ("cycle", "follower", "reconcile"),
)

INTERLEAVED = (
    "move",
    "A-B-A",
    "tombstone",
    "tombstone and back",
    "tombstone deleted",
    "tombstone moves",
    "hard delete",
    "hard delete of both",
    "delete, insert elsewhere",
    "move, delete",
    "insert, delete",
    "older claim late",
    "equal dates",
    "future, back elsewhere",
    "both move",
    "two keys, one given up",
    "pending, written",
    "pending twice",
    "pending, deleted",
)


def stale_writer(story: Scenario, crashes: int) -> Run:
    """A worker that has read a page before the last events, and a follower of these events."""
    run = Run(story, ("worker", "follower"), faults=crashes, accidents=CRASHES).sync()
    run.play_by_hand("event, worker until record" + ", event" * (len(story.events) - 1), end=False)
    return run


def random_runs(group: str, count: int, cap: int = 9) -> Iterator[Run]:
    """Runs of random stories, actors and schedules."""
    for seed in range(count * 100 if THOROUGH else count):
        random_source = random.Random(f"{group} {seed}")
        run = Run(
            RANDOM[group](random_source),
            random_source.choice(ACTOR_SETS),
            Rules(cap=cap),
            faults=random_source.choice((0, 1, 1, 2, 3)),
        )
        if random_source.random() < 0.75:
            run.sync()
        run.play(random_choice(random_source))
        yield run


@pytest.mark.parametrize("name", INTERLEAVED)
def test_every_interleaving_with_a_stale_writer_ends_right(name: str) -> None:
    """The keys are right as soon as both writers have finished, and were never missing."""
    story = next(story for story in STORIES if story.name == name)
    for switches, crashes in ((5, 0), (2, 1)) if THOROUGH else ((3, 0), (1, 1)):
        for run in schedules(partial(stale_writer, story, crashes), switches):
            assert run.end() == [], run.story()


@pytest.mark.parametrize(("group", "count"), [("stories", 1300), ("random", 1300)])
def test_random_schedules_end_right_after_two_cycles(group: str, count: int) -> None:
    """Keys, queue, deferrals and dead letters are right; a reconciliation changes nothing."""
    for run in random_runs(group, count):
        assert run.settle() == [], run.story()
        assert run.reconcile() == [], run.story()


def test_keys_are_right_although_keys_and_registers_expire() -> None:
    """Or the version that should be in the key has expired."""
    for run in random_runs("expiring", 700):
        assert run.settle() == [], run.story()


def test_key_with_too_many_claims_is_right_or_reconciliation_is_due() -> None:
    """A register that dropped claims reports that when its holder leaves."""
    due = 0
    for run in random_runs("crowded", 500, cap=1):
        assert run.settle() == [] or run.world.reconcile_due, run.story()
        assert run.reconcile() == [], run.story()
        due += run.world.reconcile_due
    assert due


def test_reconciliation_repairs_keys_after_the_clock_was_set_back() -> None:
    """While the clock of Redis is behind, the order of reads is uncertain."""
    for run in random_runs("clock set back", 500):
        run.settle()
        assert [fault for fault in run.reconcile() if "shows" in fault or "stays" in fault] == [], run.story()


@pytest.mark.parametrize("example", COUNTEREXAMPLES, ids=lambda each: f"{each.rule}: {each.why}")
def test_each_rule_is_needed(example: Counterexample) -> None:
    """A schedule ends right with the rule and wrong without it."""
    run, found = example.play(without=False)
    assert found == [], run.story()
    run, found = example.play(without=True)
    assert found != [], run.story()


def test_each_rule_has_a_counterexample() -> None:
    """A rule without a counterexample can be dropped."""
    assert {each.rule for each in COUNTEREXAMPLES} == {each.name for each in fields(Rules)} - {"cap"}
