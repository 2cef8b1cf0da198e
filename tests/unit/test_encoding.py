"""A page as Redis takes it: the arguments, what is counted, and when it has a draft."""

import hiredis
import pytest
from bson.datetime_ms import DatetimeMS

from etl.model.encoded import Arguments
from etl.model.outcome import Outcome
from etl.transform.encoding import encode
from schemas.operations import Enqueue, Entry, Evict, Put, Reject
from schemas.position import Position
from tests.support.outcomes import applied, refused

FAMILY = "config:api"


def document(number: int, *entries: Entry, ms: int | None = None, lock: str | None = None) -> Outcome:
    """A valid one."""
    return applied(Position(DatetimeMS(ms or number), number), *entries, lock=lock)


def put(key: str, family: str = FAMILY) -> Put:
    """An entry that fills a key."""
    return Put(family, key, {"status": "a"})


def read(arguments: Arguments) -> list[str]:
    """The arguments as Redis reads them."""
    reader = hiredis.Reader(encoding="utf-8")
    reader.feed(b"*%d\r\n%b" % (arguments.length, arguments.data))
    values: list[str] = reader.gets()
    return values


PAGE = [
    document(1, put("a"), put("b", "other"), lock="lock:2"),
    refused(Position(DatetimeMS(2), 2), Reject("invalid fields")),
    document(3, put("ñ"), Evict(FAMILY, "d"), lock="lock:1"),
    document(4, Evict(FAMILY, "e"), lock="lock:1"),
    document(5),
]


def test_what_redis_is_asked() -> None:
    """Each key once, all documents, each lock once."""
    page = encode(PAGE)

    assert read(page.keys) == ["a", "b", "ñ", "d", "e"]
    assert read(page.documents) == [outcome.id for outcome in PAGE]
    assert read(page.locks) == ["lock:1", "lock:2"]


def test_what_redis_is_told() -> None:
    """What every key is filled with, who claims it, and what each document claims."""
    page = encode(PAGE)
    draft = page.draft

    assert draft is not None
    assert page.fills.data == b"".join(fill.commands for outcome in PAGE for fill in outcome.fills)
    assert page.fills.length == 5  # three keys are filled, and two of them expire
    first, _, third, fourth, _ = PAGE
    owners = {"a": first, "b": first, "ñ": third, "d": third, "e": fourth}
    assert pairs(read(draft.owners)) == {key: outcome.text for key, outcome in owners.items()}
    assert pairs(read(draft.filled)) == {first.id: "a b", third.id: "ñ d", fourth.id: "e"}


def test_what_it_comes_to() -> None:
    """Those that fill, those that only evict, and keys by family."""
    draft = encode(PAGE).draft

    assert draft is not None
    assert (draft.valid, draft.written, draft.evicted) == (4, 2, 1)
    assert draft.families == {FAMILY: 2, "other": 1}


@pytest.mark.parametrize(
    "page",
    [
        [document(1, put("a")), document(2, put("a"))],
        [document(1, put("a")), document(1, put("b"), ms=2)],
        [document(1, Enqueue("queue", "q", "item"))],
    ],
    ids=["two claim one key", "one was met twice", "one asks for messages"],
)
def test_a_page_without_a_draft(page: list[Outcome]) -> None:
    """Its documents are decided one by one."""
    assert encode(page).draft is None


def pairs(flat: list[str]) -> dict[str, str]:
    """Fields and their values."""
    return dict(zip(flat[::2], flat[1::2], strict=True))
