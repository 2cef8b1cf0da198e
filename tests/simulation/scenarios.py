"""Events in MongoDB: named and random stories.

The event `3 write D AB -2` means: three units after the previous event D is written, claims A and B, and is
dated two units ago. `@999` is an absolute date.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from tests.simulation.protocol import Document, Key, Kind, Version
from tests.simulation.world import Event

FUTURE = 999
WRITES = ("write", "evict", "ask", "break")


@dataclass(frozen=True)
class Scenario:
    """The events in MongoDB in one run."""

    name: str
    events: tuple[Event, ...]
    documents: str = "ED"  # documents that claim A at the start; the last one is the newest
    ttl: int | None = None

    def start(self) -> dict[Document, Version]:
        """The documents at the start."""
        return {d: Version(n, Kind.CONTENT, frozenset("A")) for n, d in enumerate(self.documents, 1)}


def story(name: str, *events: str, documents: str = "ED", ttl: int | None = None) -> Scenario:
    """A scenario from events in words."""
    return Scenario(name, tuple(map(_event, events)), documents, ttl)


def _event(text: str) -> Event:
    wait, action, *rest = text.split()
    dates = [word for word in rest if word[0] in "-@"]
    names = [word for word in rest if word not in dates]
    late = next((int(word[1:]) for word in dates if word[0] == "-"), 0)
    date = next((int(word[1:]) for word in dates if word[0] == "@"), None)
    return Event(int(wait), action, names[0] if names else "", "".join(names[1:]), late, date)


STORIES = [
    story("move", "3 write D B"),
    story("A-B-A", "3 write D B", "3 write D A"),
    story("A-B-A slow", "3 write D B", "30 write D A"),
    story("A-B-A-B", "2 write D B", "2 write D A", "2 write D B"),
    story("tombstone", "3 evict D"),
    story("tombstone and back", "3 evict D", "3 write D A"),
    story("tombstone of the older one", "3 evict E A"),
    story("tombstone deleted", "3 evict D", "3 delete D"),
    story("tombstone moves", "3 evict D", "3 write D B"),
    story("hard delete", "3 delete D"),
    story("hard delete of both", "3 delete D", "1 delete E"),
    story("delete, insert", "3 delete D", "3 write D A"),
    story("delete, insert elsewhere", "3 delete D", "3 write D B"),
    story("delete, insert dated earlier", "3 delete D", "1 write D A -3"),
    story("delete, insert elsewhere dated earlier", "3 delete D", "1 write D B -3"),
    story("delete, restore", "3 delete D", "1 write D A @2"),
    story("update, delete, restore", "3 write D A", "1 delete D", "1 write D A @8"),
    story("move, restore", "3 write D B", "3 write D A @2"),
    story("update, delete", "3 write D A", "1 delete D"),
    story("move, delete", "3 write D B", "1 delete D"),
    story("insert, delete", "3 write G B", "1 delete G"),
    story("insert, delete, insert dated earlier", "3 write G B", "1 delete G", "2 write G B -2"),
    story("older claim late", "6 write D A", "1 write G A -4"),
    story("older claim late, holder moves", "6 write D A", "1 write G A -4", "2 write D B"),
    story("holder deleted, older claim late", "6 write D A", "1 delete D", "1 write E A -4"),
    story("holder moved, older claim late", "6 write D A", "1 write D B", "1 write E A -4"),
    story("equal dates", "3 write D A", "0 write E A", "3 write E B"),
    story("equal dates, the lower moves", "3 write D A", "0 write E A", "3 write D B"),
    story("invalid", "3 break D"),
    story("invalid, mended", "3 break D", "3 write D A"),
    story("invalid, mended elsewhere", "3 break D", "3 write D B"),
    story("invalid, mended late", "12 break D", "3 write D B -10"),
    story("invalid successor", "3 break E", "3 write D B"),
    story("moved, invalid, moved back", "3 write D B", "2 break D", "2 write D A"),
    story("future, back", "3 write D A @999", "3 write D A"),
    story("future, back elsewhere", "3 write D A @999", "3 write D B"),
    story("future elsewhere, back", "3 write D B @999", "3 write D A"),
    story("future, deleted", "3 write D A @999", "3 delete D"),
    story("future, tombstone", "3 write D A @999", "3 evict D"),
    story("future, other claims, back", "3 write D A @999", "2 write E A", "2 write D A"),
    story("future, other claims, back late", "3 write D A @999", "5 write E A", "1 write D A -4"),
    story(
        "future, other claims, back late, other moves",
        "3 write D A @999",
        "5 write E A",
        "1 write D A -4",
        "2 write E B",
    ),
    story("future successor comes back", "3 write E A @999", "2 write D A", "2 write E A -3", "2 write D B"),
    story("future, back, moves on", "3 write D A @999", "3 write D A", "3 write D B"),
    story("future, back, time", "3 write D A @999", "3 write D A", "30 tick"),
    story("future, back late, time", "3 write D A @999", "3 write D A -6", "4 tick", "4 tick"),
    story("future, back late, other moves", "3 write D A @999", "3 write D A -6", "6 write E B", "4 tick"),
    story("future, invalid, back", "3 break D @999", "3 write D A"),
    story("pending", "3 ask D"),
    story("pending, written", "3 ask D", "3 write D A"),
    story("pending twice", "3 ask D", "3 ask D"),
    story("pending, written, pending", "2 ask D", "2 write D A", "2 ask D"),
    story("pending in the future, pending", "3 ask D @999", "3 ask D"),
    story("pending in the future, written", "3 ask D @999", "3 write D A"),
    story("pending, deleted", "3 ask D", "2 delete D"),
    story("pending, deleted, restored", "3 ask D", "2 delete D", "2 ask D @8"),
    story("pending, deleted, pending earlier", "3 ask D", "2 delete D", "2 ask D -3"),
    story("pending, tombstone", "3 ask D", "2 evict D"),
    story("lock", "0 lock D", "3 write D A", "2 unlock D"),
    story("lock, move, back", "0 lock D", "2 write D B", "2 write D A", "2 unlock D"),
    story("lock, move, long", "0 lock D", "2 write D B", "20 unlock D", "15 tick"),
    story("lock, future, back", "0 lock D", "3 write D A @999", "3 write D A", "2 unlock D"),
    story("lock, deleted", "0 lock D", "3 write D A", "3 delete D", "2 unlock D"),
    story("lock, pending", "0 lock D", "3 ask D", "3 write D A", "2 unlock D"),
    story("lock, invalid", "0 lock D", "3 write D A", "3 break D", "2 unlock D"),
    story("successor locked", "0 lock E", "2 write E A", "1 write D B", "20 unlock E"),
    story("both move", "3 write D B", "2 write E B"),
    story("swap", "3 write D B", "0 write E B", "2 write D A"),
    story(
        "successor moves to and fro, then on",
        "2 write E B",
        "2 write E A -1",
        "1 write D A",
        "1 evict D",
        "2 write E C",
    ),
    story(
        "successor to and fro",
        "2 write D A",
        "1 write E B -1",
        "1 write E A -1",
        "2 write D B",
        "1 write E C",
    ),
    story("two keys, one given up", "2 write D AB", "2 write D A", "2 write D B"),
    story("slow delete", "20 write D A", "20 delete D", "20 write D A"),
    story("time around a move", "3 write D B -2", "6 tick", "6 tick", "6 tick"),
]


def random_story(random_source: random.Random) -> Scenario:
    """Dates of a document are unique, and go back from the future only."""
    while True:
        events = tuple(_random_event(random_source) for _ in range(random_source.randint(2, 5)))
        if _is_plausible(events):
            return Scenario("random", events)


def expiring_story(random_source: random.Random) -> Scenario:
    """Keys and registers expire; time passes in leaps."""
    while True:
        events = random_story(random_source).events
        if not any(event.date == FUTURE or event.action == "break" for event in events):
            slow = [event._replace(wait=event.wait * random_source.choice((1, 1, 1, 5))) for event in events]
            return Scenario("expiring", (*slow, Event(random_source.choice((0, 5, 20, 45)), "tick")), ttl=30)


def crowded_story(random_source: random.Random) -> Scenario:
    """Many documents claim one key."""
    events, today, newest = [], 5, {"E": 1, "D": 2, "G": 3, "H": 0}
    for _ in range(random_source.randint(3, 8)):
        wait, late, document = (
            random_source.choice((0, 1, 2, 3)),
            random_source.choice((0, 0, 1, 3, 6)),
            random_source.choice("EDGH"),
        )
        if today + wait - late > newest[document]:
            today += wait
            newest[document] = today - late
            action = "evict" if document != "H" and random_source.random() < 0.15 else "write"
            events.append(Event(wait, action, document, random_source.choice("AAB"), late))
    return Scenario("crowded", tuple(events), "EDG")


def set_back_story(random_source: random.Random) -> Scenario:
    """The clock of Redis is set back once."""
    events = list(random_story(random_source).events)
    step = Event(random_source.choice((0, 1, 3)), "set-back", late=random_source.choice((1, 3, 8, 15)))
    events.insert(random_source.randint(0, len(events)), step)
    return Scenario("clock set back", tuple(events))


RANDOM: Mapping[str, Callable[[random.Random], Scenario]] = MappingProxyType(
    {
        "stories": lambda random_source: random_source.choice(STORIES),
        "random": random_story,
        "expiring": expiring_story,
        "crowded": crowded_story,
        "clock set back": set_back_story,
    }
)


def _random_event(random_source: random.Random) -> Event:
    actions = {
        "write": 10,
        "evict": 2,
        "delete": 2.5,
        "break": 1.2,
        "ask": 1.5,
        "lock": 0.7,
        "unlock": 0.7,
        "tick": 1,
    }
    action = random_source.choices(list(actions), list(actions.values()))[0]
    keys: Key = random_source.choice(("A", "A", "B", "AB")) if action == "write" else ""
    late, date = random_source.choice(
        ((0, None), (0, None), (0, None), (2, None), (5, None), (10, None), (0, FUTURE))
    )
    return Event(
        random_source.choice((0, 1, 1, 2, 3, 6, 12)), action, random_source.choice("DDDEEG"), keys, late, date
    )


def _is_plausible(events: tuple[Event, ...]) -> bool:
    today = 5
    used: dict[Document, set[int]] = {"D": {2}, "E": {1}, "G": set()}
    newest: dict[Document, int] = {"D": 2, "E": 1}
    for event in events:
        today += event.wait
        if event.action == "delete":
            newest.pop(event.document, None)
        if event.action in WRITES:
            date = today - event.late if event.date is None else event.date
            before = newest.get(event.document, 0)
            if date < 2 or date in used[event.document] or date < before < FUTURE:
                return False
            used[event.document].add(date)
            newest[event.document] = date
    return True
