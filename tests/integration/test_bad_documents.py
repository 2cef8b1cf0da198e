"""An invalid document becomes a dead letter, and the others are applied."""

from datetime import timedelta
from typing import Any

import bson
import pytest
import redis
from bson.datetime_ms import DatetimeMS
from bson.raw_bson import RawBSONDocument
from pymongo.collection import Collection

from tests.factories import api
from tests.support.pipeline import STATE_PREFIX, Clock, OpenApp, sync
from tests.support.types import Document


def not_utf8(document: Document, text: str) -> RawBSONDocument:
    """The document with the first byte of `text` replaced by one that is invalid in UTF-8."""
    raw = bson.encode(document)
    assert raw.count(text.encode()) == 1
    return RawBSONDocument(raw.replace(text.encode(), b"\xff" + text.encode()[1:]))


def test_undecodable_bson_is_isolated(
    open_app: OpenApp, collection: Collection[Any], redis_client: redis.Redis, clock: Clock
) -> None:
    """Texts that are not UTF-8, also as `_id`, on pages with valid documents and on pages without.

    Names of fields that no kind has are not read at all.
    """
    moment = clock.now()
    good: list[Any] = [api(f"p{number}", moment, _id=f"good-{number}") for number in range(6)]
    good.append(not_utf8(api("p", moment, _id=2, QQname=1), "QQname"))
    bad = [
        not_utf8(api("p", moment, _id=1, status="QQstatus"), "QQstatus"),
        *(not_utf8(api("p", moment, _id=f"QQ{number}"), f"QQ{number}") for number in range(5)),
    ]
    collection.insert_many([*good, *bad])
    report = sync(open_app(page_size=2))
    assert (report.records_processed, report.dead_lettered) == (7, 6)
    assert len(list(redis_client.scan_iter("config:api:*"))) == 7
    assert sync(open_app(page_size=2)).records_processed == 0


def test_invalid_ids_with_the_same_text_are_distinguished(
    open_app: OpenApp, collection: Collection[Any], redis_client: redis.Redis, clock: Clock
) -> None:
    """An `_id` that is not UTF-8 must not be mistaken for another document."""
    moment = clock.now()
    later = moment + timedelta(milliseconds=1)
    collection.insert_many([api("good", moment, _id="\ufffdQ"), not_utf8(api("bad", later, _id="QQ"), "QQ")])

    report = sync(open_app())

    assert (report.records_processed, report.dead_lettered) == (1, 1)
    assert redis_client.exists("config:api:good")


@pytest.mark.parametrize(
    "change",
    [
        {"last_updated": DatetimeMS(2**60)},
        {"endpoints": [float("nan")]},
        {"endpoints": [{"x": bson.Regex("a")}]},
        {"provider_name": ""},
        {"status": 7},
        {"eliminado": "yes"},
        {"tipo": "desconocido"},
    ],
    ids=repr,
)
def test_invalid_value_is_a_dead_letter_until_it_is_corrected(
    open_app: OpenApp,
    collection: Collection[Document],
    redis_client: redis.Redis,
    clock: Clock,
    change: Document,
) -> None:
    """The dead letter names the document and the reason."""
    collection.insert_many([api("bad", clock.now(), _id="bad") | change, api("good", clock.now())])
    app = open_app()
    report = sync(app)
    assert (report.records_processed, report.dead_lettered) == (1, 1)
    [letter] = app.dead_letters("promptContent").list()
    assert (letter.id, letter.attempts) == ('"bad"', 1)
    assert sync(app).dead_lettered == 0  # not tried again before it changes

    collection.replace_one({"_id": "bad"}, api("bad", clock.now()))
    assert sync(app).records_processed == 1
    assert app.dead_letters("promptContent").list() == []
    assert redis_client.exists("config:api:bad")


def test_dead_letters_are_bounded(
    open_app: OpenApp,
    collection: Collection[Document],
    redis_client: redis.Redis,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beyond the cap they are counted only; the attempts of stored ones are still counted."""
    monkeypatch.setattr("etl.checkpoint.checkpoint.DEAD_LETTER_CAP", 5)
    collection.insert_many([api("", clock.now(), _id=number) for number in range(12)])
    app = open_app(page_size=4)
    report = sync(app)
    assert report.dead_lettered == 12
    letters = app.dead_letters("promptContent")
    assert (len(letters.list()), letters.beyond()) == (5, 7)

    app.retry_dead_letters("promptContent", [letter.id for letter in letters.list()])
    assert {letter.attempts for letter in letters.list()} == {2}
    assert len({(letter.first_seen, letter.id) for letter in letters.list()}) == 5
    assert redis_client.hlen(f"{STATE_PREFIX}dead_letters") == 5
