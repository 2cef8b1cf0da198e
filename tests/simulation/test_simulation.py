"""The write protocol in a model: whatever happens, the cache ends as the projection of MongoDB.

HYPOTHESIS_PROFILE=thorough plays a hundred times as many schedules.
"""

import os
import random
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from itertools import islice

import pytest

from tests.simulation.counterexamples import COUNTEREXAMPLES, Counterexample
from tests.simulation.explore import CRASHES, Run, by_chance, schedules
from tests.simulation.protocol import Rules
from tests.simulation.scenarios import RANDOM, STORIES, Scenario

THOROUGH = 100 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 1

CREWS = (
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
    """A worker that has read a page before the last events, and a follower of those."""
    run = Run(story, ("worker", "follower"), faults=crashes, accidents=CRASHES).sync()
    run.play_by_hand("event, worker until record" + ", event" * (len(story.events) - 1), end=False)
    return run


def random_runs(group: str, count: int, cap: int = 9) -> Iterator[Run]:
    """Runs of random stories, crews and schedules."""
    for seed in range(count * THOROUGH):
        chance = random.Random(f"{group} {seed}")
        run = Run(
            RANDOM[group](chance), chance.choice(CREWS), Rules(cap=cap), faults=chance.choice((0, 1, 1, 2, 3))
        )
        if chance.random() < 0.75:
            run.sync()
        run.play(by_chance(chance))
        yield run


@pytest.mark.parametrize("name", INTERLEAVED)
def test_every_interleaving_with_a_stale_writer_ends_right(name: str) -> None:
    """Whichever writer is interrupted or crashes: the keys are right at once, and no reader saw a gap."""
    story = next(story for story in STORIES if story.name == name)
    for switches, crashes in ((4, 0), (1, 1)):
        every = schedules(partial(stale_writer, story, crashes), switches)
        for run in islice(every, 2000 * THOROUGH):
            assert run.end() == [], run.story()


@pytest.mark.parametrize(("group", "count"), [("stories", 1500), ("random", 1500)])
def test_any_schedule_ends_right_after_two_cycles(group: str, count: int) -> None:
    """Keys, queue, deferrals and dead letters are right, and a reconciliation leaves them so."""
    for run in random_runs(group, count):
        assert run.settle() == [], run.story()
        assert run.reconcile() == [], run.story()


def test_what_expires_takes_nothing_else_with_it() -> None:
    """A key is right, or absent because what it showed has expired."""
    for run in random_runs("expiring", 800):
        assert run.settle() == [], run.story()


def test_a_dropped_claim_is_reconciled() -> None:
    """Where a key has more claims than its register keeps, it is right or a reconciliation is due."""
    due = 0
    for run in random_runs("crowded", 600, cap=1):
        assert run.settle() == [] or run.world.reconcile_due, run.story()
        assert run.reconcile() == [], run.story()
        due += run.world.reconcile_due
    assert due


def test_a_reconciliation_mends_what_a_clock_set_back_has_done() -> None:
    """Where the clock of Redis goes back, the order of reads is uncertain; the keys are right afterwards."""
    for run in random_runs("clock set back", 600):
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
    """A rule that nothing goes wrong without is no rule."""
    assert {each.rule for each in COUNTEREXAMPLES} == {each.name for each in fields(Rules)} - {"cap"}
