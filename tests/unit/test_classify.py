"""The verdict on one key, for each combination of facts."""

from dataclasses import replace
from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS

from etl.cache.inspector import Claim, Content, Record
from etl.model.result import TransformResult
from etl.model.scan import Checkpoint, ServerTimes
from etl.verify.classify import KeyFacts, State, classify, lock_of
from etl.verify.compare import differences
from schemas.documents import family_of
from schemas.ids import id_text
from schemas.operations import Evict, Keep, Put, Reject
from schemas.position import Position, timestamp_text

API = "config:api:p"
MESSAGES = f"ai:campaign_messages:c:{0:032}"
NOW = 10_000_000
TTLS = {"config:api": 3600, "ai:campaign_messages": 10_800}
OVERLAP = 100_000


def checkpoint(position: int, began: int | None) -> Checkpoint:
    """A checkpoint with this watermark; the last finished cycle began at `began`."""
    clocks = None if began is None else ServerTimes(began, began)
    return Checkpoint(Position(DatetimeMS(position), 1), clocks)


BEHIND = State(NOW, checkpoint(NOW - 1000, NOW), OVERLAP)
"""Cycles have applied all that is older than 100 seconds."""

OLD, FRESH, EXPIRED = NOW - 200_000, NOW - 50_000, NOW - 4_000_000
HELD = Content("hash", 5000, 1, {"status": "held"})


def result(ms: int | None, *writes: Put | Evict, document: Any = 1, **more: Any) -> TransformResult:
    """The transform result of a document that claims these keys."""
    timestamp = timestamp_text(None if ms is None else DatetimeMS(ms))
    return TransformResult(f"c {id_text(document)}", timestamp, ms, writes, **more)


def claim(of: TransformResult) -> Claim:
    """The claim of an applied document."""
    return Claim(of.document, of.timestamp, "1")


def put(status: str = "said", key: str = API) -> Put:
    """A write of this status."""
    return Put("config:api", key, {"status": status})


EVICT = Evict("config:api", API)
CLAIM = result(OLD, put())
NEWER = claim(result(FRESH, document=2))
"""The later claim of another document."""
MOVED_AWAY = result(FRESH, put(key="q"), document=2)
INVALID = result(FRESH, document=2, reject=Reject("no"))
KEEPS = result(FRESH, document=2, keeps=(Keep("config:api", API),))


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        # one document claims the key, and a cycle has reached it
        (KeyFacts(API, HELD, result(OLD, put("held"))), "matching"),
        (KeyFacts(API, HELD, CLAIM), "different"),
        (KeyFacts(API, None, CLAIM), "missing"),
        (KeyFacts(API, None, result(EXPIRED, put())), "expired"),
        (KeyFacts(API, None, result(OLD, EVICT)), "absent"),
        (KeyFacts(API, HELD, result(OLD, EVICT), claim(CLAIM)), "orphaned"),
        (KeyFacts(API, HELD, result(OLD, EVICT)), "left_alone"),
        # no cycle has reached it yet
        (KeyFacts(API, HELD, result(FRESH, put())), "pending"),
        (KeyFacts(API, HELD, result(NOW + 5, put())), "pending"),
        (KeyFacts(API, None, result(NOW + 5, put())), "pending"),
        (KeyFacts(API, None, result(NOW + 5, put()), claim(result(NOW + 5))), "expired"),
        (KeyFacts(API, None, result(FRESH, put())), "pending"),
        (KeyFacts(API, HELD, result(FRESH, put("held"))), "matching"),
        # another document has claimed the key later
        (KeyFacts(API, HELD, result(FRESH, put()), claim(result(FRESH))), "different"),
        (KeyFacts(API, HELD, CLAIM, NEWER), "different"),
        (KeyFacts(API, HELD, CLAIM, NEWER, MOVED_AWAY), "pending"),
        (KeyFacts(API, HELD, CLAIM, NEWER, result(OLD, put(key="q"), document=2)), "different"),
        (KeyFacts(API, HELD, CLAIM, NEWER, INVALID), "left_alone"),
        (KeyFacts(API, HELD, CLAIM, shared=True), "left_alone"),
        (KeyFacts(API, HELD, CLAIM, NEWER, KEEPS), "matching"),
        (KeyFacts(API, None, CLAIM, NEWER, KEEPS), "absent"),
        (KeyFacts(API, HELD, result(NOW - 40_000, put()), NEWER, KEEPS), "pending"),
        # no document claims the key
        (KeyFacts(API, HELD), "left_alone"),
        (KeyFacts(API, None, None, NEWER), "absent"),
        (KeyFacts(API, HELD, None, NEWER, KEEPS), "matching"),
        (KeyFacts(API, HELD, None, NEWER), "orphaned"),
        (KeyFacts(API, HELD, None, NEWER, shared=True), "left_alone"),
        (KeyFacts(API, HELD._replace(ttl_ms=None), None, NEWER), "left_alone"),
        (KeyFacts(API, HELD._replace(ttl_ms=3_600_001), None, NEWER), "left_alone"),
        (KeyFacts(API, Content("list", 5000), None, NEWER), "left_alone"),
        (KeyFacts(API, HELD, None, NEWER, result(OLD, put(key="q"), document=2)), "orphaned"),
        (KeyFacts(API, HELD, None, NEWER, result(OLD, document=2, reject=Reject("no"))), "left_alone"),
    ],
)
def test_verdict_without_daemon_and_lock(facts: KeyFacts, name: str) -> None:
    assert classify(facts, BEHIND, TTLS).name == name


MOVED = KeyFacts(API, HELD, None, NEWER, MOVED_AWAY)
ARCHIVED = KeyFacts(API, HELD, result(FRESH, EVICT, document=2), claim(CLAIM))


@pytest.mark.parametrize("facts", [MOVED, ARCHIVED], ids=["moved", "archived"])
def test_key_to_evict_is_pending_while_a_daemon_runs(facts: KeyFacts) -> None:
    """Without a daemon it is orphaned."""
    assert classify(facts, replace(BEHIND, scheduled=True), TTLS).name == "pending"
    assert classify(facts, BEHIND, TTLS).name == "orphaned"


def test_locked_or_deferred_document_gives_deferred() -> None:
    """A lock counts also if the document was deleted."""
    lock = "lock:content_generation:c"
    held = replace(BEHIND, held=frozenset([lock]))
    said = Put("ai:campaign_messages", MESSAGES, ["said"])
    content = Content("list", 5000, 1, ["held"])
    locked = result(OLD, said, lock=lock)
    assert classify(KeyFacts(MESSAGES, content, locked), held, TTLS).name == "deferred"
    assert classify(KeyFacts(MESSAGES, content, None, NEWER), held, TTLS).name == "deferred"
    waiting = replace(BEHIND, deferred=frozenset([locked.id]))
    assert classify(KeyFacts(MESSAGES, content, locked), waiting, TTLS).name == "deferred"
    assert classify(KeyFacts(MESSAGES, content, locked), BEHIND, TTLS).name == "different"
    assert (
        classify(KeyFacts(MESSAGES, content._replace(value=["said"]), locked), held, TTLS).name == "matching"
    )


DONE = {result(FRESH).document: Record(str(FRESH), done=True, keys=())}


@pytest.mark.parametrize(
    ("state", "reached"),
    [
        (State(NOW), True),
        (State(NOW, Checkpoint(None, None)), False),
        (State(NOW, checkpoint(NOW - 1000, None)), True),
        (State(NOW, checkpoint(FRESH - 1, None)), False),
        (BEHIND, False),
        (replace(BEHIND, records=DONE), True),
        (replace(BEHIND, records={name: one._replace(done=False) for name, one in DONE.items()}), False),
        (replace(BEHIND, records={name: one._replace(timestamp="7") for name, one in DONE.items()}), False),
        (replace(BEHIND, overlap=0), True),
    ],
    ids=[
        *("lost", "none finished", "first one past it", "first one before it", "overlap"),
        *("done", "not done", "another version done", "passed"),
    ],
)
def test_state_reached(state: State, *, reached: bool) -> None:
    """A version within the overlap only if it is done; every version without a checkpoint."""
    assert state.reached(result(FRESH)) == reached


def test_undated_document_is_never_pending() -> None:
    """No cycle will reach it, and its age is unknown."""
    undated = result(None, put())
    assert classify(KeyFacts(API, HELD, undated), BEHIND, TTLS).name == "different"
    assert classify(KeyFacts(API, None, undated), BEHIND, TTLS).name == "expired"


@pytest.mark.parametrize(
    ("key", "family", "lock"),
    [
        (API, "config:api", None),
        ("mcp:tool:a:b:c", "mcp:tool", None),
        (MESSAGES, "ai:campaign_messages", "lock:content_generation:c"),
        (f"ai:generation:meta:a%3Ab:{0:032}", "ai:generation:meta", "lock:content_generation:a%3Ab"),
        ("other:key", None, None),
    ],
)
def test_family_and_lock_follow_from_the_key(key: str, family: str | None, lock: str | None) -> None:
    """Its document may have been deleted."""
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
def test_differences_of_a_list_name_the_member(held: list[str], why: str) -> None:
    """Long texts are quoted from where they differ."""
    assert differences(LIST, Content("list", 5000, len(held), held), 10_800) == [why]
    assert differences(LIST, Content("list", 5000, 3, [*LIST.value]), 10_800) == []


def test_ttl_in_a_family_without_ttl_is_a_difference() -> None:
    assert differences(put("held"), HELD, None) == ["it has a TTL, and should have none"]
