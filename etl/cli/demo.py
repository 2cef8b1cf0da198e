"""`etl demo`: sample documents and two cycles on embedded servers."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

import click
from bson import json_util

from etl.cli import output
from etl.cli.runtime import Runtime, pass_runtime
from etl.cli.show import show_entry
from etl.cli.sync import show_reports
from etl.errors import EtlError
from etl.settings import Settings
from schemas.documents import project
from schemas.families import LAST_SYNC
from schemas.operations import Keep, Projection
from schemas.values import text

if TYPE_CHECKING:
    from etl.app import App
    from etl.demo import Servers

COLLECTION = "promptContent"
NEW_TEXT = "Domina Arenal antes del amanecer"


@click.command()
@click.option(
    "--keep", is_flag=True, help="Keep the servers running until Ctrl-C, and print their addresses."
)
@pass_runtime
def demo(runtime: Runtime, *, keep: bool) -> None:
    """Run sample documents through two cycles on embedded servers.

    Starts a MongoDB and a Redis on free ports, shows the first cycle, a change and the next cycle, and removes both
    servers afterwards. Your own servers and settings are not touched.
    """
    from etl import demo as embedded_servers  # noqa: PLC0415 (only this command needs embedded servers)

    output.say("Starting an embedded MongoDB and Redis ...")
    with embedded_servers.servers() as servers:
        output.say(f"{servers.mongo.uri}\n{servers.redis.url}\n")
        with runtime.start(_settings(servers)) as app:
            _run_demo(app, servers.mongo.uri)
        if keep:
            _wait(servers)


def _settings(servers: "Servers") -> Settings:
    """The two addresses; the user's own settings are ignored."""
    return Settings.model_validate({"mongo": {"uri": servers.mongo.uri}, "redis": {"url": servers.redis.url}})


def _run_demo(app: "App", uri: str) -> None:
    from etl.mongo.client import connect  # noqa: PLC0415 (the driver loads slowly, and `--help` does not need it)

    documents = sample_documents()
    with connect(uri) as client:
        collection = client[Settings().mongo.database][COLLECTION]
        collection.create_index([("updated_at", 1), ("_id", 1)])
        collection.insert_many(documents)
        _show_documents(documents)
        _cycle(app, "2. The first cycle reads all of them", processed=len(documents))
        _show_cache(app, documents)
        output.heading("5. The first message is changed in MongoDB")
        output.say(f"  {NEW_TEXT}\n")
        change = {"mensajes.$[first].texto": NEW_TEXT, "updated_at": datetime.now(UTC)}
        collection.update_one(
            {"_id": documents[0]["_id"]}, {"$set": change}, array_filters=[{"first.numero": 1}]
        )
        _cycle(app, "6. The next cycle reads only what changed", processed=1)
        output.heading("7. The list was replaced as a whole")
        _show_entry(app, keys(documents[0])[0])


def sample_documents() -> list[dict[str, Any]]:
    """The six documents of the users' design, of all five kinds."""
    content = resources.files("etl.cli").joinpath("demo_documents.json").read_text("utf-8")
    documents: list[dict[str, Any]] = json_util.loads(content)
    return documents


def keys(document: Mapping[str, Any]) -> list[str]:
    """The keys that a document is written to."""
    projection = project(document, "generacion")
    entries = projection.entries if isinstance(projection, Projection) else ()
    return [entry.key for entry in entries if not isinstance(entry, Keep)]


def _show_documents(documents: Sequence[Mapping[str, Any]]) -> None:
    output.heading(f"1. {len(documents)} documents in the MongoDB collection {COLLECTION}")
    columns = ("tipo", "about", "updated_at")
    output.table(columns, [(d["tipo"], _about(d), text(d["updated_at"])) for d in documents])
    output.say()


def _about(document: Mapping[str, Any]) -> str:
    names = ("campana_id", "server", "tool", "server_name", "provider_name", "client_name", "estado")
    return " / ".join(document[name] for name in names if name in document)


def _cycle(app: "App", title: str, processed: int) -> None:
    """Run a cycle and show its report.

    Raises:
        EtlError: it did not process the expected number of documents.
    """
    output.heading(title)
    with output.progress("Syncing"):
        reports = list(app.sync((COLLECTION,)))
    show_reports(reports)
    output.say()
    if [report.records_processed for report in reports] != [processed]:
        raise EtlError(f"this cycle should have processed {processed}: {reports[0].error or 'see above'}")


def _show_cache(app: "App", documents: Sequence[Mapping[str, Any]]) -> None:
    output.heading("3. The keys in Redis: type, TTL and value")
    for key in (key for document in documents for key in keys(document)):
        _show_entry(app, key)
    output.heading("4. The published watermark")
    _show_entry(app, LAST_SYNC.key(collection=COLLECTION))


def _show_entry(app: "App", key: str) -> None:
    shown = app.show(key)
    if shown is None:
        raise EtlError(f"{key}: not in Redis, although its document was just synced")
    show_entry(shown)
    output.say()


def _wait(servers: "Servers") -> None:
    output.heading("The servers run until Ctrl-C. In another terminal:")
    output.say(f"  export ETL_MONGO__URI='{servers.mongo.uri}'")
    output.say(f"  export ETL_REDIS__URL='{servers.redis.url}'")
    output.say("  etl sync")
    with suppress(KeyboardInterrupt):
        while True:
            time.sleep(1)
