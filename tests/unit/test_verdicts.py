"""The verdict on one key: a table of what can be known of it."""

from dataclasses import replace
from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS

from etl.verify.classify import Case, Rules, State, family_of, judge, lock_of
from etl.verify.compare import Looked, differences
from etl.verify.reading import Reading
from schemas.ids import id_text
from schemas.operations import Evict, Put, Reject
from schemas.position import Position

API = "config:api:p"
MESSAGES = f"ai:campaign_messages:c:{0:032}"
NOW = 10_000_000
TTLS = {"config:api": 3600, "ai:campaign_messages": 10_800}
RULES = Rules(TTLS)
BEHIND = State(NOW, known=True, position=Position(DatetimeMS(NOW - 1000), 1), window=NOW - 100_000)
"""The cycles have passed all that is older than 100 seconds."""

OLD, FRESH, EXPIRED = NOW - 200_000, NOW - 50_000, NOW - 4_000_000
HELD = Looked("hash", 5000, 1, {"status": "held"})


def reading(ms: int, *entries: Put | Evict, document: Any = 1, **more: Any) -> Reading:
    """A document that claims these keys."""
    position = Position(DatetimeMS(ms), document)
    return Reading(position.text(), ms, id_text(document), {entry.key: entry for entry in entries}, **more)


def put(status: str = "said", key: str = API) -> Put:
    """What a document says of a key."""
    return Put("config:api", key, {"status": status})


EVICT = Evict("config:api", API)
CLAIM = reading(OLD, put())
NEWER = Position(DatetimeMS(FRESH), 2)
"""The position at which another document claimed the key."""


@pytest.mark.parametrize(
    ("case", "name"),
    [
        # what a document says, where the cycles have passed it
        (Case(API, HELD, reading(OLD, put("held"))), "matching"),
        (Case(API, HELD, CLAIM), "different"),
        (Case(API, None, CLAIM), "missing"),
        (Case(API, None, reading(EXPIRED, put())), "expired"),
        (Case(API, None, reading(OLD, EVICT)), "absent"),
        (Case(API, HELD, reading(OLD, EVICT), CLAIM.position), "orphaned"),
        (Case(API, HELD, reading(OLD, EVICT)), "left_alone"),
        # where they have not
        (Case(API, HELD, reading(FRESH, put())), "pending"),
        (Case(API, HELD, reading(NOW + 5, put())), "pending"),
        (Case(API, None, reading(NOW + 5, put())), "pending"),
        (Case(API, None, reading(NOW + 5, put()), reading(NOW + 5).position), "expired"),
        (Case(API, None, reading(FRESH, put())), "pending"),
        (Case(API, HELD, reading(FRESH, put("held"))), "matching"),
        # whoever has claimed it since
        (Case(API, HELD, reading(FRESH, put()), reading(FRESH).position), "different"),
        (Case(API, HELD, CLAIM, NEWER), "different"),
        (Case(API, HELD, CLAIM, NEWER, reading(FRESH, put(key="q"), document=2)), "pending"),
        (Case(API, HELD, CLAIM, NEWER, reading(OLD, put(key="q"), document=2)), "different"),
        (Case(API, HELD, CLAIM, NEWER, reading(FRESH, document=2, reject=Reject("no"))), "left_alone"),
        (Case(API, HELD, CLAIM, shared=True), "left_alone"),
        # what no document claims
        (Case(API, HELD), "left_alone"),
        (Case(API, None, None, NEWER), "absent"),
        (Case(API, HELD, None, NEWER), "orphaned"),
        (Case(API, HELD, None, NEWER, shared=True), "left_alone"),
        (Case(API, HELD._replace(ttl_ms=None), None, NEWER), "left_alone"),
        (Case(API, HELD._replace(ttl_ms=3_600_001), None, NEWER), "left_alone"),
        (Case(API, Looked("list", 5000), None, NEWER), "left_alone"),
        (Case(API, HELD, None, NEWER, reading(OLD, put(key="q"), document=2)), "orphaned"),
        (Case(API, HELD, None, NEWER, reading(OLD, document=2, reject=Reject("no"))), "left_alone"),
    ],
)
def test_every_case_has_its_name(case: Case, name: str) -> None:
    """With nobody at work, no lock held and all ownership recorded."""
    assert judge(case, BEHIND, RULES).name == name


MOVED = Case(API, HELD, None, NEWER, reading(FRESH, put(key="q"), document=2))
ARCHIVED = Case(API, HELD, reading(FRESH, EVICT, document=2), CLAIM.position)


@pytest.mark.parametrize("case", [MOVED, ARCHIVED], ids=["moved", "archived"])
def test_a_daemon_is_given_the_time_to_evict(case: Case) -> None:
    """Where none is at work, nobody will."""
    assert judge(case, replace(BEHIND, scheduled=lambda: True), RULES).name == "pending"
    assert judge(case, BEHIND, RULES).name == "orphaned"


@pytest.mark.parametrize(
    ("rules", "name"),
    [
        (RULES, "left_alone"),
        (Rules(TTLS, tracked=False), "orphaned"),
        (Rules(TTLS, tracked=False, others_tracked=False), "left_alone"),
    ],
)
def test_without_records_only_the_archived_document_itself_is_certain(rules: Rules, name: str) -> None:
    """And only where no other collection may have filled the key unrecorded."""
    assert judge(Case(API, HELD, reading(OLD, EVICT)), BEHIND, rules).name == name
    assert judge(Case(API, HELD), BEHIND, rules).name == "left_alone"


def test_whoever_waits_is_deferred() -> None:
    """By the lock of its campaign, also where its document is gone, or by its own deferral."""
    lock = "lock:content_generation:c"
    held = replace(BEHIND, held=frozenset([lock]))
    said = Put("ai:campaign_messages", MESSAGES, ["said"])
    looked = Looked("list", 5000, 1, ["held"])
    locked = reading(OLD, said, lock=lock)
    assert judge(Case(MESSAGES, looked, locked), held, RULES).name == "deferred"
    assert judge(Case(MESSAGES, looked, None, NEWER), held, RULES).name == "deferred"
    waiting = replace(BEHIND, deferred={locked.id: lock})
    assert judge(Case(MESSAGES, looked, locked), waiting, RULES).name == "deferred"
    assert judge(Case(MESSAGES, looked, locked), BEHIND, RULES).name == "different"
    assert judge(Case(MESSAGES, looked._replace(value=["said"]), locked), held, RULES).name == "matching"


@pytest.mark.parametrize(
    ("state", "reached"),
    [
        (State(NOW), True),
        (State(NOW, known=True), False),
        (replace(BEHIND, window=None), True),
        (replace(BEHIND, window=None, position=Position(DatetimeMS(FRESH - 1), 1)), False),
        (BEHIND, False),
        (replace(BEHIND, seen=frozenset([reading(FRESH).position.name()])), True),
        (replace(BEHIND, window=NOW), True),
    ],
    ids=["lost", "none finished", "first one past it", "first one before it", "overlap", "seen", "passed"],
)
def test_what_the_cycles_have_passed(state: State, *, reached: bool) -> None:
    """A version within the overlap only if it was handled; all of it where there is no checkpoint."""
    assert state.reached(reading(FRESH).position) == reached


def test_a_document_without_a_date_is_not_waited_for() -> None:
    """No cycle will reach it; how old it is, nobody knows."""
    undated = Reading(Position(None, 1).text(), None, id_text(1), {API: put()})
    assert judge(Case(API, HELD, undated), BEHIND, RULES).name == "different"
    assert judge(Case(API, None, undated), BEHIND, RULES).name == "expired"


@pytest.mark.parametrize(
    ("key", "family", "lock"),
    [
        (API, "config:api", None),
        ("mcp:tool:a:b:c", "mcp:tool", None),
        (MESSAGES, "ai:campaign_messages", "lock:content_generation:c"),
        (f"ai:generation:meta:a%3Ab:{0:032}", "ai:generation:meta", "lock:content_generation:a%3Ab"),
        ("nobody:knows", None, None),
    ],
)
def test_a_key_names_its_family_and_its_lock(key: str, family: str | None, lock: str | None) -> None:
    """Its document may be gone."""
    found = family_of(key)
    assert (found.name if found else None, lock_of(key)) == (family, lock)


LIST = Put("ai:campaign_messages", MESSAGES, ["a" * 80 + "1", "b", "c"])


@pytest.mark.parametrize(
    ("held", "why"),
    [
        (["b", "a" * 80 + "1", "c"], "the members are right but in another order, from member 1 on"),
        (["a" * 80 + "1", "b"], "it has 2 members, not 3"),
        (
            ["a" * 80 + "2", "b", "c"],
            f'member 1 is "…{"a" * 20}2", and should be "…{"a" * 20}1"',
        ),
    ],
)
def test_a_list_says_where_it_differs(held: list[str], why: str) -> None:
    """Long texts from where they part."""
    assert differences(LIST, Looked("list", 5000, len(held), held), 10_800) == [why]
    assert differences(LIST, Looked("list", 5000, 3, [*LIST.value]), 10_800) == []


def test_a_ttl_that_should_not_be_is_a_difference() -> None:
    """In a family that lives until it is removed."""
    assert differences(put("held"), HELD, None) == ["it has a TTL, and should have none"]
