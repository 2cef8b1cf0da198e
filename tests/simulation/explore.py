"""Schedules: the order of the steps of all actors, and the accidents between them."""

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from tests.simulation.actors import ACTORS, Actor, Step, cycle, follower, reconcile
from tests.simulation.expected import faults
from tests.simulation.protocol import Answer, Read, Rules
from tests.simulation.scenarios import Scenario
from tests.simulation.world import DEADLINE, INTERVAL, UNIT, World

LIMIT = 300  # steps after which a run counts as an endless loop
CRASHES = ("crash", "crash, call under way")
ACCIDENTS = (*CRASHES, "repeat", "sleep", "stale")


class Option(NamedTuple):
    """A possible next action."""

    what: str
    actor: str = ""
    switch: int = 0  # 1: it interrupts an actor
    fault: int = 0


Choose = Callable[[Sequence[Option]], Option]


class Run:
    """One schedule of a scenario."""

    def __init__(
        self,
        scenario: Scenario,
        actor_names: Sequence[str],
        rules: Rules | None = None,
        faults: int = 0,
        accidents: Collection[str] = ACCIDENTS,
    ) -> None:
        self.world = World(rules or Rules(), scenario.start(), scenario.ttl)
        self.trace: list[tuple[object, ...]] = []
        self.events = list(scenario.events)
        self.actor_names = list(actor_names)
        self.starts = dict.fromkeys(actor_names, 1)
        self.running: dict[str, tuple[Actor, Step]] = {}
        self.current = ""
        self.in_flight: list[Step] = []  # calls that were sent but not received yet
        self.faults = faults
        self.accidents = accidents
        self.steps = 0
        self.stuck = False

    def sync(self) -> "Run":
        """Start with a cache that agrees with MongoDB."""
        self._finish(cycle(self.world), "first cycle")
        if self.world.ttl is None:
            self.world.watched = frozenset(self.world.documents)
        return self

    def play(self, choose: Choose) -> None:
        """Choose actions until none is possible."""
        while not self.stuck and (options := self.options()):
            self.do(choose(options))

    def options(self) -> list[Option]:
        """The possible next actions; the first one is the most usual."""
        busy = int(self.current in self.running)
        options = [Option("go on", self.current)] if busy else []
        if self.events:
            options.append(Option("event", switch=busy))
        options += [Option("go on", a, busy) for a in self.running if a != self.current]
        options += [
            Option("start", a, busy) for a in self.actor_names if a not in self.running and self._may_start(a)
        ]
        if self.in_flight and options:
            options.append(Option("late call", switch=busy))
        return options + self._accidents() if self.faults > 0 and busy else options

    def _accidents(self) -> list[Option]:
        step = self.running[self.current][1]
        possible = {"crash", "sleep"}
        if step.writes:
            possible |= {"crash, call under way", "repeat"}
        if step.name == "page" and self.world.ticks <= self.world.stale_until:
            possible.add("stale")
        return [Option(each, self.current, fault=1) for each in self.accidents if each in possible]

    def _may_start(self, actor: str) -> bool:
        if actor.endswith("follower"):
            return len(self.world.events) > self.world.token
        return self.starts[actor] > 0

    def do(self, option: Option) -> None:
        """Carry out an action."""
        self.world.pass_time(1)
        self.faults -= option.fault
        what, actor = option.what, option.actor
        match what:
            case "event":
                event = self.events.pop(0)
                self.world.happen(event)
                self.trace.append(("--", event, f"[{self.world.today}]"))
            case "late call":
                self._receive(self.in_flight.pop(0))
            case "crash" | "crash, call under way":
                step = self.running.pop(actor)[1]
                self.trace.append((actor, what, "before", step))
                self.starts[actor] += 1
                if what != "crash":
                    self.in_flight.append(step)
            case "repeat":
                self.in_flight.append(self.running[actor][1])
            case "wait":
                self.world.pass_time(DEADLINE * UNIT // 2)
            case "sleep":
                self.world.pass_time((DEADLINE + 1) * UNIT)
                self.trace.append(("--", "time passes", f"[{self.world.today}]"))
            case _:
                self._step(actor, stale=what == "stale")

    def _step(self, actor: str, *, stale: bool) -> None:
        if actor not in self.running:
            self.starts[actor] -= 1
            steps = ACTORS[actor](self.world)
            self.running[actor] = steps, next(steps)
        self.current = actor
        self.steps += 1
        self.stuck |= self.steps > LIMIT
        steps, step = self.running[actor]
        result = step.call(stale=True) if stale else step.call()
        self.trace.append((actor, step, "stale" if stale else "", "->", result))
        try:
            self.running[actor] = steps, steps.send(result)
        except StopIteration:
            del self.running[actor]

    def _receive(self, step: Step) -> None:
        self.trace.append(("late call", step, "->", step.call()))

    def _finish(self, steps: Actor, name: str) -> None:
        try:
            step = next(steps)
            for _ in range(LIMIT):
                self.world.pass_time(1)
                result = step.call()
                self.trace.append((name, step, "->", result))
                step = steps.send(result)
        except StopIteration:
            return
        self.stuck = True

    def play_by_hand(self, schedule: str, *, end: bool = True) -> None:
        """Play a schedule in words, then the remaining actions in order."""
        for move in schedule.split(", "):
            if move in {"event", "sleep", "wait"}:
                self.do(Option(move))
            elif move.startswith(("crash ", "stale ")):
                what, _, actor = move.partition(" ")
                self.do(Option(what, actor))
            else:
                actor, _, step = move.partition(" until ")
                if actor not in self.actor_names:
                    self.actor_names.append(actor)
                    self.starts[actor] = 1
                self.do(Option("go on", actor))
                while not self.stuck and actor in self.running and self.running[actor][1].name != step:
                    self.do(Option("go on", actor))
        if end:
            self.play(lambda options: options[0])

    # Checks at the end

    def end(self) -> list[str]:
        """The faults as soon as the actors have finished."""
        for step in self.in_flight:
            self._receive(step)
        return self._faults(strict=True, lists=False)

    def settle(self) -> list[str]:
        """The faults after two cycles without events, or after one if keys expire."""
        world, followed = self.world, any(actor.endswith("follower") for actor in self.actor_names)
        self.trace.append(("-- quiet",))
        world.pass_time(UNIT)
        world.locked.clear()
        if followed and self._may_start("follower"):
            self._finish(follower(world), "last follower")
        self._finish(cycle(world), "last but one cycle")
        for step in self.in_flight:
            self._receive(step)
        if world.ttl is None:
            world.pass_time(INTERVAL * UNIT)
            self._finish(cycle(world), "last cycle")
        if world.beyond_overlap and not followed:
            return ["stuck"] * self.stuck
        deleted = any(version is None for history in world.history.values() for version in history)
        return self._faults(strict=followed or not deleted, lists=world.ttl is None)

    def settle_or_reconcile(self) -> list[str]:
        """The faults after two cycles, and after a reconciliation if one is due."""
        found = self.settle()
        return self.reconcile() if self.world.reconcile_due else found

    def reconcile(self) -> list[str]:
        """The faults after a reconciliation and a cycle."""
        self._finish(reconcile(self.world), "reconciliation")
        self.world.pass_time(INTERVAL * UNIT)
        self._finish(cycle(self.world), "cycle afterwards")
        return self._faults(strict=True, lists=True)

    def _faults(self, *, strict: bool, lists: bool) -> list[str]:
        return ["stuck"] if self.stuck else faults(self.world, strict=strict, lists=lists)

    def story(self) -> str:
        """The trace, one line for each step."""
        return "\n".join(" ".join(_text(each) for each in line) for line in self.trace)


def _text(item: object) -> str:
    if isinstance(item, Step):
        return f"{item.name} {_text(item.subject)}"
    if isinstance(item, Answer):
        return item.name
    if isinstance(item, Read) or not isinstance(item, list | tuple):
        return str(item)
    return " ".join(map(_text, filter(None, item)))


# Schedules at random


def random_choice(random_source: random.Random) -> Choose:
    """Mostly continue an actor, sometimes switch, rarely choose an accident."""
    stay = random_source.choice((0.5, 0.8, 0.9))

    def choose(options: Sequence[Option]) -> Option:
        accidents = [option for option in options if option.fault]
        if accidents and random_source.random() < 0.05:
            return random_source.choice(accidents)
        harmless = [option for option in options if not option.fault]
        if harmless[0].what == "go on" and not harmless[0].switch and random_source.random() < stay:
            return harmless[0]
        return random_source.choice(harmless)

    return choose


# Every schedule


def schedules(prepare: Callable[[], Run], switches: int) -> Iterator[Run]:
    """Every schedule with at most `switches` interruptions, and with the faults that the run allows."""
    prefixes: list[list[int]] = [[]]
    while prefixes:
        run = prepare()
        run.play(_Search(prefixes, switches))
        yield run


class _Search:
    """Follow a prefix of choices, then take the first option each time, and record the others."""

    def __init__(self, prefixes: list[list[int]], switches: int) -> None:
        self.prefixes = prefixes
        self.prefix = prefixes.pop()
        self.switches = switches
        self.path: list[int] = []

    def __call__(self, options: Sequence[Option]) -> Option:
        depth = len(self.path)
        number = self.prefix[depth] if depth < len(self.prefix) else 0
        if depth >= len(self.prefix):
            self.prefixes += [
                [*self.path, n]
                for n, option in enumerate(options)
                if n > 0 and option.switch <= self.switches
            ]
        self.path.append(number)
        self.switches -= options[number].switch
        return options[number]
