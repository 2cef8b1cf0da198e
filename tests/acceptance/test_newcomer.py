"""The steps of docs/start.md, on a database with many other collections."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
import redis
import yaml
from bson import json_util
from pymongo.database import Database

from etl.settings import Settings
from tests.support.command import Etl
from tests.support.redis_dump import entries
from tests.support.types import Document, StartRedis

PAGE = (Path(__file__).parents[2] / "docs" / "start.md").read_text("utf-8")
NOW = datetime.now(UTC)


def unrelated(number: int) -> Sequence[Document]:
    """Documents of a shop, a blog, sensors: none of the contract."""
    random = Random(number)
    shapes: Sequence[Document] = (
        {"sku": "a-1", "price": 9.5, "stock": 3, "tags": ["x"], "updated_at": NOW},
        {"title": "t", "body": "b", "author": {"name": "n", "mail": "m"}, "published": True},
        {"sensor": 7, "celsius": 21.5, "at": NOW, "place": {"lat": 9.9, "lon": -84.1}},
        {"order": "o-1", "lines": [{"sku": "a-1", "n": 2}], "status": "paid", "paid_at": NOW},
        {"estado": "activo", "direccion": {"calle": "c", "numero": 3}, "$odd": 1, "a.b": 2},
    )
    return [{**shapes[number % len(shapes)], "n": random.random()} for _ in range(30)]


def messages(number: int) -> Document:
    """A document of the user on the page, in another shape."""
    return {
        "_id": number,
        "campaign": {"campana_id": f"c{number % 4}", "owner": "marketing"},
        "Segmento": f"s{number}",
        "textos": [{"n": 1, "t": "hola", "s": "casual"}, {"n": 2, "t": "adiós", "s": "formal"}],
        "costs": {"metadata": {"tokens_total": 10 * number}},
        "estado": "generado",
        "activo": True,
        "modifiedAt": NOW - timedelta(seconds=number),
    }


@pytest.fixture
def crowded(database: Database[Document]) -> Database[Document]:
    """Thirty other collections, the one of the user, and a view."""
    for number in range(30):
        database[f"other_{number}"].insert_many(unrelated(number))
    database["mensajes_ia"].insert_many([messages(number) for number in range(40)])
    database.command("create", "a_view", viewOn="other_1", pipeline=[])
    return database


EDIT = """\
      segmento: $Segmento
      mensajes: {$map: {input: $textos, as: t, in: {numero: $$t.n, texto: $$t.t, tono: $$t.s}}}
      eliminado: {$not: [$activo]}
"""


def test_steps_of_the_page_work_on_a_crowded_database(
    etl: Etl, crowded: Database[Document], redis_client: redis.Redis, tmp_path: Path
) -> None:
    """Every step, in order."""
    proposed = etl("init", "--output", "etl.yaml")
    assert (proposed.code, proposed.err) == (0, "")
    path = tmp_path / "etl.yaml"
    text = path.read_text("utf-8")
    [collection] = Settings.model_validate(yaml.safe_load(text)).collections
    assert (collection.name, collection.tipo, collection.timestamp_field) == (
        "mensajes_ia",
        "generacion",
        "modifiedAt",
    )
    assert collection.fields == {
        "campana_id": "$campaign.campana_id",
        "metadata": "$costs.metadata",
        "segmento": "$Segmento",
    }
    assert "# eliminado: {$not: [$activo]}" in text
    assert "# mensajes: ?" in text
    assert "{$map: {input: $textos, as: t, in: {n: $$t.n, t: $$t.t, s: $$t.s}}}" in text
    assert all(f"# - name: other_{number} " in text for number in range(30))
    assert "# - name: a_view " in text
    assert "ACL SETUSER etl" in proposed.out
    refused = etl("init", "--output", "etl.yaml")
    assert (refused.code, refused.err) == (2, "error: cannot write etl.yaml: File exists\n")

    settings = {"ETL_CONFIG": str(path)}
    tried = etl("try", "mensajes_ia", "--limit", "3", "--json", **settings).json
    assert len(tried["documents"]) == 3
    assert {one["errors"][0]["field"] for one in tried["documents"]} == {"mensajes"}

    [end] = re.findall(r"^ +# mensajes: \?.*\n", text, re.MULTILINE)
    path.write_text(
        re.sub(r"^      segmento: .*\n", "", text, flags=re.MULTILINE).replace(end, EDIT), "utf-8"
    )
    shown = etl("try", "mensajes_ia", "7", **settings)
    assert shown.code == 0
    assert 'textos: [{"n": 1' in shown.out
    assert "fills ai:campaign_messages:c3:" in shown.out
    assert '1.  {"numero":1,"texto":"hola","tono":"casual"}' in shown.out
    assert not [*redis_client.scan_iter()]

    found = etl("doctor", **settings)
    assert found.code == 3
    [command] = re.findall(
        r"remedy, in mongosh: db\.getSiblingDB.*createIndex\((.*)\)$", found.out, re.MULTILINE
    )
    assert f"createIndex({command})" in proposed.out
    crowded["mensajes_ia"].create_index([("modifiedAt", 1), ("_id", 1)], name="etl_modifiedAt")
    assert "createIndex" not in etl("doctor", **settings).out

    assert etl("sync", **settings).code == 0
    keys = [key for key in entries(redis_client) if key.startswith("ai:")]
    assert len(keys) == 80
    crowded["mensajes_ia"].update_one(
        {"_id": 0}, {"$set": {"activo": False, "modifiedAt": datetime.now(UTC)}}
    )
    assert etl("sync", **settings).code == 0
    assert sum(1 for _ in redis_client.scan_iter("ai:*")) == 78
    assert etl("verify", "mensajes_ia", **settings).code == 0


def test_page_has_the_tested_steps() -> None:
    """In this order, with the same edit."""
    steps = ["etl init", "etl try", "etl doctor", "etl sync", "etl verify"]
    places = [PAGE.index(f"    {step}") for step in steps]
    assert places == sorted(places)
    assert EDIT in PAGE


def test_proposal_for_the_document_of_the_page_is_the_printed_one(
    etl_in_process: Etl, database: Database[Document]
) -> None:
    [shown] = re.findall(r"^```js\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    text, dates = re.subn(r"ISODate\((.*?)\)", r'{"$date": \1}', shown)
    assert dates == 1
    database["mensajes_ia"].insert_one(json_util.loads(text))
    [collection] = yaml.safe_load(etl_in_process("init").out)["collections"]
    assert (collection["name"], collection["timestamp_field"]) == ("mensajes_ia", "modifiedAt")
    assert collection["fields"] == {"campana_id": "$campaign.campana_id", "segmento": "$Segmento"}


def test_timestamp_field_is_found_among_undated_documents(
    etl_in_process: Etl, database: Database[Document]
) -> None:
    """The proposal has the share of documents with the field."""
    content = {"tipo": "cliente_mcp", "client_name": "a"}
    database["content"].insert_many([*({**content, "updated_at": NOW} for _ in range(3)), content])
    proposed = etl_in_process("init").out
    assert yaml.safe_load(proposed)["collections"] == [{"name": "content", "timestamp_field": "updated_at"}]
    assert "# date in 3 of 4; check that every write sets it" in proposed


def test_documents_of_the_contract_need_no_mapping(etl_in_process: Etl, database: Database[Document]) -> None:
    """A collection is recognised by `tipo`; otherwise the proposal has no collection."""
    database["nothing"].insert_one({"a": 1})
    empty = etl_in_process("init")
    assert yaml.safe_load(empty.out) == {"mongo": {"database": database.name}, "collections": None}
    database["content"].insert_one({"tipo": "cliente_mcp", "client_name": "a", "updated_at": NOW})
    proposed = yaml.safe_load(etl_in_process("init").out)
    assert proposed["collections"] == [{"name": "content", "timestamp_field": "updated_at"}]


def test_proposed_redis_user_may_sync_and_verify(
    etl_in_process: Etl, database: Database[Document], start_redis: StartRedis
) -> None:
    """It may not write other keys."""
    server = start_redis()
    database["promptContent"].insert_one(
        {"tipo": "cliente_mcp", "client_name": "a", "tools_acceso": [], "estado": "x", "updated_at": NOW}
    )
    [command] = re.findall(r"^#   (ACL SETUSER .*)$", etl_in_process("init").out, re.MULTILINE)
    with redis.Redis.from_url(server.url) as client:
        client.execute_command(*command.replace("PASSWORD", "secret").split())
    url = server.url.replace("redis://", "redis://etl:secret@")
    assert etl_in_process("sync", ETL_REDIS__URL=url).code == 0
    assert etl_in_process("verify", "promptContent", ETL_REDIS__URL=url).code == 0
    with redis.Redis.from_url(url) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.set("other", "x")


def test_try_without_document_is_a_one_line_error(etl_in_process: Etl, database: Database[Document]) -> None:
    """For an empty collection, and for an unknown `_id`."""
    done = etl_in_process("try", "promptContent")
    assert (done.code, done.err) == (1, "error: promptContent has no documents\n")
    database["promptContent"].insert_one({"_id": 1, "campana_id": 3, "updated_at": NOW})
    done = etl_in_process("try", "promptContent", "2")
    assert (done.code, done.err) == (1, "error: promptContent: no such document\n")
    [one] = etl_in_process("try", "promptContent", "1", "--json").json["documents"]
    assert (one["id"], one["document"]["campana_id"], one["reason"]) == ("1", 3, "invalid fields")
    assert {error["field"] for error in one["errors"]} >= {"campana_id", "segmento"}
