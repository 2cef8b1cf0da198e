"""What becomes of a batch: decisions without servers."""

from typing import Any

import pytest
from bson.datetime_ms import DatetimeMS

from etl.model.outcome import Outcome
from etl.sync.batch import Request, Sight, confirmed, contested, decide
from etl.transform.encoding import encode
from etl.transform.sheet import sheet
from schemas.operations import Enqueue, Entry, Evict, Put, Reject
from schemas.position import Position
from tests.support.outcomes import applied, fill, refused

FAMILY = "config:api"
NOTHING = Reject("invalid fields")


def position(ms: int, document_id: Any = "id") -> Position:
    """A position."""
    return Position(DatetimeMS(ms), document_id)


def put(text: str, key: str = "k") -> Put:
    """An entry that says `text`."""
    return Put(FAMILY, key, {"text": text})


def outcome(ms: int, *entries: Entry, document_id: Any = None, lock: str | None = None) -> Outcome:
    """A valid document that asks for these entries, another one for each `ms`."""
    return applied(position(ms, document_id or f"{ms}"), *entries, lock=lock)


def test_the_last_of_a_batch_wins() -> None:
    """A batch comes in order, so the last claim on a key is the newest; earlier ones count as applied."""
    entries = [put("old"), put("new"), put("else", "other")]
    batch = [outcome(n, entry, document_id=n) for n, entry in enumerate(entries)]
    decision = decide(batch, Sight(), frozenset())
    assert decision.writes == {"k": fill(put("new")), "other": fill(put("else", "other"))}
    assert decision.claims == {"k": batch[1], "other": batch[2]}
    assert decision.applied == batch == decision.handled_since(0)


@pytest.mark.parametrize(("document_id", "wins"), [("a", False), ("b", True), ("c", True)])
def test_a_newer_claim_holds_an_older_document_back(document_id: str, *, wins: bool) -> None:
    """On one timestamp the `_id` decides; an equal claim is the document's own."""
    sight = Sight(claims={"k": position(5, "b").text()})
    decision = decide([outcome(5, Evict(FAMILY, "k"), document_id=document_id)], sight, frozenset())
    assert bool(decision.writes) == wins
    assert len(decision.applied) == 1


def test_only_the_contested_key_is_held_back() -> None:
    """What else the document says is written."""
    both = outcome(1, put("old"), put("mine", "other"))
    decision = decide([both], Sight(claims={"k": position(2, "newer").text()}), frozenset())
    assert decision.writes == {"other": fill(put("mine", "other"))}


def test_versions_that_were_seen_are_passed_over() -> None:
    """They are in no list; the same document at another date is a version of its own."""
    seen = Sight(seen=frozenset([position(1).name()]))
    older, newer = (outcome(ms, put("text"), document_id="id") for ms in (1, 2))
    decision = decide([older, newer], seen, frozenset())
    assert decision.handled_since(0) == [newer]


def test_a_held_lock_puts_off_all_of_its_campaign() -> None:
    """Requests too; neither other campaigns nor documents without a lock."""
    wish = outcome(1, Enqueue("queue", "q", "item"), lock="lock:a")
    free, apart = outcome(2, put("b"), lock="lock:b"), outcome(3, put("x", "x"))
    decision = decide([wish, free, apart], Sight(held=frozenset(["lock:a"])), frozenset())
    assert (decision.deferred, decision.applied) == ([wish], [free, apart])
    assert decision.requests == []


def test_who_comes_later_waits_behind_who_waits() -> None:
    """Though the lock is gone: their order is kept."""
    later = outcome(2, put("new"), lock="lock:a")
    decision = decide([later], Sight(), frozenset(["lock:a"]))
    assert (decision.deferred, decision.writes) == ([later], {})


def test_a_rejected_document_stops_nothing() -> None:
    """Its neighbours are applied."""
    bad = refused(position(1), NOTHING)
    good = outcome(2, put("good"))
    decision = decide([bad, good], Sight(), frozenset())
    assert (decision.rejected, decision.applied) == ([bad], [good])
    assert (bad.lock, bad.fills) == (None, ())


def test_a_request_names_its_document_and_its_version() -> None:
    """By which it is queued once."""
    wish = outcome(7, Enqueue("queue", "q", "item"), document_id=5)
    decision = decide([wish], Sight(), frozenset())
    assert decision.requests == [Request("q", "item", wish)]
    assert decision.requests[0].outcome.id == '{"$numberInt": "5"}'
    assert decision.requests[0].outcome.version == position(7, 5).name()


def test_what_redis_has_no_place_for_is_rejected() -> None:
    """It moves from the applied to the rejected, with the reason."""
    wish, other = outcome(1, Enqueue("queue", "q", "item")), outcome(2, put("x"))
    decision = decide([wish, other], Sight(), frozenset())
    decision.refuse([(wish, NOTHING), (wish, NOTHING)])
    assert decision.applied == [other]
    assert decision.rejected == [refused(position(1, "1"), NOTHING)]


CLAIM = position(9, "claimant").text()
SIGHT = Sight(claims={"k": CLAIM, "other": position(1).text()})


def test_only_claims_that_hold_a_document_back_are_in_doubt() -> None:
    """Usually none is, and nothing is asked."""
    assert contested([outcome(5, put("x"), put("y", "other"))], SIGHT) == {"k": CLAIM}
    assert contested([outcome(10, put("x"))], SIGHT) == {}


@pytest.mark.parametrize(
    ("claimants", "claim"),
    [
        ([], None),
        ([outcome(9, put("moved", "elsewhere"), document_id="claimant")], None),
        ([outcome(3, put("dated back"), document_id="claimant")], position(3, "claimant").text()),
        ([outcome(9, put("same"), document_id="claimant")], CLAIM),
        ([refused(position(12, "claimant"), NOTHING)], CLAIM),
    ],
    ids=["deleted", "moved to another key", "dated back", "as it was", "invalid by now"],
)
def test_a_claim_counts_as_long_as_its_document_makes_it(claimants: list[Outcome], claim: str | None) -> None:
    """What a document that has become invalid said before still stands in the cache, so its claim does."""
    claims = confirmed(SIGHT, {"k": CLAIM}, claimants).claims
    assert (claims.get("k"), claims["other"]) == (claim, position(1).text())


def test_a_document_that_a_page_met_twice() -> None:
    """It was written again while the page was read: what it said before is passed over."""
    before = outcome(1, put("old", "before"), Enqueue("queue", "q", "old"), document_id="id")
    now = outcome(2, put("new", "now"), document_id="id")
    decision = decide([before, now], Sight(), frozenset())
    assert (decision.applied, decision.requests) == ([now], [])
    assert decision.claims == {"now": now}


@pytest.mark.parametrize(
    ("sight", "waiting"),
    [
        (Sight(seen=frozenset([position(1, "a").name()])), frozenset[str]()),
        (Sight(held=frozenset(["lock:a"])), frozenset[str]()),
        (Sight(claims={"k": position(2, "b").text()}), frozenset[str]()),
        (Sight(filled={'"a"': ["before"]}, claims={"before": position(0, "a").text()}), frozenset[str]()),
        (Sight(filled={'"a"': ["before"]}), frozenset[str]()),
        (Sight(), frozenset(["lock:a"])),
    ],
    ids=["seen", "held", "claimed", "moved", "filled", "waiting"],
)
def test_what_redis_holds_is_weighed_document_by_document(sight: Sight, waiting: frozenset[str]) -> None:
    """A page that could be written as a whole is decided as its documents are."""
    page = [outcome(1, put("text"), document_id="a", lock="lock:a")]
    decision = decide(sheet(page, encode(page)), sight, waiting)
    assert decision == decide(page, sight, waiting)
    assert decision.draft is None


def test_a_page_as_a_whole() -> None:
    """Nothing in sight concerns it: its valid documents are applied by its draft."""
    good, bad = outcome(1, put("text"), document_id="a"), refused(position(2), NOTHING)
    page = sheet([good, bad], encode([good, bad]))
    decision = decide(page, Sight(), frozenset())
    assert (decision.applied, decision.rejected, decision.draft) == ([good], [bad], page.draft)
    assert decision.counts() == decide([good, bad], Sight(), frozenset()).counts()
    assert decision.handled_since(1) == [good, bad]
    assert (decision.claims_since(1), decision.claims_since(2)) == ({"k": good}, {})
