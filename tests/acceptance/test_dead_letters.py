"""`etl dead-letters`, as its user runs it."""

from datetime import UTC, datetime

import redis
from bson import ObjectId
from pymongo.collection import Collection

from tests.factories import integracion_api
from tests.support.command import Etl
from tests.support.types import Document

OID = ObjectId("65a5000000000000000000a1")


def provider(**fields: object) -> Document:
    """A document of `config:api`."""
    return integracion_api(updated_at=datetime.now(UTC)) | fields


def test_a_bad_document_is_listed_shown_retried_and_cleared(
    etl: Etl, typed: Etl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """From the refusal to the mended document, and nothing of its content on the way."""
    collection.insert_one(provider(_id=OID, provider_name=7, status="geheim-777"))
    collection.insert_one(provider(provider_name="openai"))

    assert typed("sync", "--json").json["collections"][0]["dead_lettered"] == 1
    assert redis_client.exists("config:api:openai")

    listed = etl("dead-letters", "list", "--json")
    [letter] = listed.json["dead_letters"]
    assert letter["id"] == f'{{"$oid": "{OID}"}}'
    assert letter["collection"] == "promptContent"
    assert [error["field"] for error in letter["errors"]] == ["provider_name"]
    assert "geheim" not in listed.out

    table = typed("dead-letters", "list").out
    assert "provider_name" in table
    assert "geheim" not in table
    shown = typed("dead-letters", "show", str(OID))
    assert "provider_name" in shown.out
    assert "attempts 1" in shown.out

    again = etl("dead-letters", "retry", "--all", "--json").json["collections"][0]
    assert again["dead_lettered"] == 1
    assert typed("dead-letters", "show", f"ObjectId('{OID}')", "--json").json["attempts"] == 2

    # Mended without moving updated_at: no delta finds it, but a retry does.
    collection.update_one({"_id": OID}, {"$set": {"provider_name": "anthropic"}})
    assert typed("dead-letters", "retry", str(OID), "--json").json["collections"][0]["records_processed"] == 1
    assert redis_client.hget("config:api:anthropic", "status") == "geheim-777"
    assert typed("dead-letters", "list", "--json").json == {"dead_letters": [], "beyond": 0}


def test_a_retry_clears_what_is_gone(typed: Etl, collection: Collection[Document]) -> None:
    """A document that was deleted is no dead letter any more."""
    collection.insert_one(provider(_id="lost", status=7))
    typed("sync")
    collection.delete_one({"_id": "lost"})
    assert typed("dead-letters", "retry", "lost").code == 0
    assert typed("dead-letters", "list", "--json").json["dead_letters"] == []


def test_a_purge_forgets(typed: Etl, collection: Collection[Document]) -> None:
    """One by its id, then all that are left."""
    collection.insert_many([provider(_id=number, status=7) for number in range(3)])
    typed("sync")
    assert typed("dead-letters", "purge", "1", "--json").json == {"purged": 1}
    assert typed("dead-letters", "purge", "--all").out == "2 purged\n"
    assert typed("dead-letters", "list", "--json").json["dead_letters"] == []


def test_what_cannot_be_meant_is_refused(typed: Etl) -> None:
    """Unknown ids, no ids, ids and --all, unknown collections: one line and the right code."""
    for words, code, said in (
        (("show", "unknown"), 1, "unknown is not a dead letter of promptContent"),
        (("retry",), 2, "name the documents, or give --all"),
        (("purge", "1", "--all"), 2, "name the documents, or give --all"),
        (("list", "nope"), 2, "unknown collection 'nope'"),
        (("show", "1", "--collection", "nope"), 2, "unknown collection 'nope'"),
    ):
        result = typed("dead-letters", *words)
        assert (result.code, result.out) == (code, "")
        assert result.err.count("\n") == 1
        assert said in result.err
