"""`etl dead-letters`."""

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


def test_dead_letter_is_listed_shown_retried_and_removed(
    etl: Etl, etl_in_process: Etl, collection: Collection[Document], redis_client: redis.Redis
) -> None:
    """Until the document is corrected; its content is never printed."""
    collection.insert_one(provider(_id=OID, provider_name=7, status="geheim-777"))
    collection.insert_one(provider(provider_name="openai"))

    assert etl_in_process("sync", "--json").json["collections"][0]["dead_lettered"] == 1
    assert redis_client.exists("config:api:openai")

    listed = etl("dead-letters", "list", "--json")
    [letter] = listed.json["dead_letters"]
    assert letter["id"] == f'{{"$oid": "{OID}"}}'
    assert letter["collection"] == "promptContent"
    assert [error["field"] for error in letter["errors"]] == ["provider_name"]
    assert "geheim" not in listed.out

    table = etl_in_process("dead-letters", "list").out
    assert "provider_name" in table
    assert "geheim" not in table
    shown = etl_in_process("dead-letters", "show", str(OID))
    assert "provider_name" in shown.out
    assert "attempts 1" in shown.out

    again = etl("dead-letters", "retry", "--all", "--json").json["collections"][0]
    assert again["dead_lettered"] == 1
    assert etl_in_process("dead-letters", "show", f"ObjectId('{OID}')", "--json").json["attempts"] == 2

    # Corrected without a new updated_at: no delta finds it, but a retry does.
    collection.update_one({"_id": OID}, {"$set": {"provider_name": "anthropic"}})
    assert (
        etl_in_process("dead-letters", "retry", str(OID), "--json").json["collections"][0][
            "records_processed"
        ]
        == 1
    )
    assert redis_client.hget("config:api:anthropic", "status") == "geheim-777"
    assert etl_in_process("dead-letters", "list", "--json").json == {"dead_letters": [], "beyond": 0}


def test_retry_removes_the_dead_letter_of_a_deleted_document(
    etl_in_process: Etl, collection: Collection[Document]
) -> None:
    collection.insert_one(provider(_id="lost", status=7))
    etl_in_process("sync")
    collection.delete_one({"_id": "lost"})
    assert etl_in_process("dead-letters", "retry", "lost").code == 0
    assert etl_in_process("dead-letters", "list", "--json").json["dead_letters"] == []


def test_purge_deletes_dead_letters(etl_in_process: Etl, collection: Collection[Document]) -> None:
    collection.insert_many([provider(_id=number, status=7) for number in range(3)])
    etl_in_process("sync")
    assert etl_in_process("dead-letters", "purge", "1", "--json").json == {"purged": 1}
    assert etl_in_process("dead-letters", "purge", "--all").out == "2 purged\n"
    assert etl_in_process("dead-letters", "list", "--json").json["dead_letters"] == []


def test_invalid_arguments_are_refused_in_one_line(etl_in_process: Etl) -> None:
    """Unknown ids, no ids, ids and --all, unknown collections."""
    for words, code, message in (
        (("show", "unknown"), 1, "unknown is not a dead letter of promptContent"),
        (("retry",), 2, "name the documents, or give --all"),
        (("purge", "1", "--all"), 2, "name the documents, or give --all"),
        (("list", "nope"), 2, "unknown collection 'nope'"),
        (("show", "1", "--collection", "nope"), 2, "unknown collection 'nope'"),
    ):
        result = etl_in_process("dead-letters", *words)
        assert (result.code, result.out) == (code, "")
        assert result.err.count("\n") == 1
        assert message in result.err
