"""A page after the transform: its outcomes are made when they are asked for, here or after a journey."""

import pickle
from collections.abc import Sequence
from typing import Any

import bson
import pytest
from bson.datetime_ms import DatetimeMS

from etl.model.outcome import Outcome
from etl.transform.encoding import encode
from etl.transform.sheet import Sheet, parcel, sheet, since, unpacked
from etl.transform.transform import Transform
from schemas.operations import Enqueue, Evict, Put, Reject
from schemas.position import Position
from tests.support.outcomes import TTLS, applied, refused


def at(ms: Any, number: int = 1) -> Position:
    """A position; without a date for None."""
    return Position(None if ms is None else DatetimeMS(ms), number)


FILLS = applied(at(1), Put("config:api", "config:api:ñ", {"status": "a"}), lock="lock:content_generation:c")
LIST = applied(at(2, 2), Put("ai:campaign_messages", "ai:campaign_messages:c:0", [b'{"numero":1}', b"{}"]))
BOTH = applied(at(3, 3), Put("config:api", "config:api:b", {"status": "b"}), Evict("x", "x:b"))
GONE = applied(at(4, 4), Evict("config:api", "config:api:c"))
WISH = applied(at(5, 5), Enqueue("queue:ai_generation", "queue:ai_generation:alta", "item"))
BAD = refused(at(None, 6), Reject("invalid fields"))


def travelled(outcomes: Sequence[Outcome]) -> Sheet:
    """A sheet as it comes from another process."""
    return unpacked(pickle.loads(pickle.dumps(parcel(outcomes, encode(outcomes)))))  # noqa: S301 (made here)


@pytest.mark.parametrize(
    "page",
    [[], [FILLS], [BAD], [WISH], [BAD, GONE], [BAD, FILLS, LIST, BOTH, GONE, WISH]],
    ids=["none", "a hash", "a bad one", "a request", "nothing filled", "all sorts"],
)
def test_a_journey_changes_nothing(page: list[Outcome]) -> None:
    """Every outcome arrives as it was, with its commands; the page is as long, and encoded alike."""
    arrived = travelled(page)

    assert len(arrived) == len(page)
    assert [*arrived] == page
    assert arrived.encoded == encode(page)


def test_a_worker_makes_what_this_process_would() -> None:
    """Of good, bad and undecodable documents alike."""
    transform = Transform("integracion_api", "updated_at", TTLS)
    common = {"status": "a", "updated_at": DatetimeMS(1)}
    documents = [bson.encode({"_id": n, "provider_name": f"{n}", **common}) for n in range(3)]
    documents += [bson.encode({"_id": 7}), bson.encode({"_id": 8, "a": "b"}).replace(b"b", b"\xff")]

    here, there = transform(documents), unpacked(transform.parcel(documents))

    assert [*there] == [*here]
    assert there.encoded == here.encoded
    assert [outcome.reject is None for outcome in here] == [True, True, True, False, False]


def counted(page: list[Outcome]) -> tuple[Sheet, list[int]]:
    """A sheet, and how often its outcomes were made."""
    made: list[int] = []

    def make() -> list[Outcome]:
        made.append(1)
        return page

    dated = [outcome for outcome in page if outcome.ms is not None]
    return Sheet(len(page), dated[-1] if dated else None, make, encode(page)), made


def test_outcomes_are_made_once_and_only_when_asked_for() -> None:
    """How many, the newest, its draft, and that none is recent: nobody has to be made to know that."""
    page, made = counted([BAD, FILLS, LIST])

    assert (len(page), page.newest(), page.newest(2)) == (3, LIST, LIST)
    assert page.draft is not None
    assert since(page, 3) == []
    assert made == []

    assert page[1] == FILLS
    assert [*reversed(page)] == [LIST, FILLS, BAD]
    assert made == [1]


@pytest.mark.parametrize(("until", "newest"), [(None, LIST), (2, LIST), (1, FILLS), (0, None)])
def test_the_newest_until_a_moment(until: int | None, newest: Outcome | None) -> None:
    """Documents without a date are left out of it, and those dated later."""
    assert counted([BAD, FILLS, LIST])[0].newest(until) == newest


def test_a_page_without_dates() -> None:
    """It has no newest, and nothing of it is recent."""
    page = sheet([BAD], encode([BAD]))

    assert page.newest() is page.newest(5) is None
    assert since(page, 0) == since([BAD], 0) == []


@pytest.mark.parametrize("kind", [list, lambda page: counted(page)[0]], ids=["a list", "a sheet"])
def test_those_since_a_moment(kind: Any) -> None:
    """That millisecond included."""
    page = kind([BAD, FILLS, LIST, BOTH])

    assert since(page, 2) == [LIST, BOTH]
    assert since(page, 3) == [BOTH]
