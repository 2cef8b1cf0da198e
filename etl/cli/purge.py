"""`etl purge`: delete the ETL's own keys of a collection."""

import sys

import click

from etl.cache.keys import record_key
from etl.cli import output
from etl.cli.runtime import Runtime, json_option, pass_runtime
from etl.text import counted


@click.command()
@click.argument("collection")
@click.option("--queues", is_flag=True, help="Also the generation queues, with the requests in them.")
@click.option("--dry-run", is_flag=True, help="Print the keys and delete none.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
@pass_runtime
def purge(
    runtime: Runtime, collection: str, *, queues: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Delete the ETL's own keys of a collection, to uninstall it.

    Checkpoint, history, dead letters and so on. Stop the daemons first: the next cycle would be a cold start. Entries
    of the cache expire; documents in MongoDB are not touched.
    """
    with runtime.app() as app:
        with output.progress("Reading keys"):
            keys = app.own_keys(collection, queues=queues)
        if not as_json:
            records = sum(key.startswith(record_key("")) for key in keys)
            for key in keys:
                if not key.startswith(record_key("")):
                    output.say(key)
            if records:
                output.say(f"and {counted(records, 'record')} of documents: {record_key('…')}")
        if not dry_run and keys and not yes:
            _ask(f"Delete {counted(len(keys), 'key')}?", as_json=as_json)
        deleted = 0 if dry_run else app.delete_keys(keys)
    if as_json:
        output.document({"collection": collection, "keys": keys, "deleted": deleted})
    else:
        output.say(f"{counted(len(keys), 'key')}, none deleted" if dry_run else f"{deleted} deleted")


def _ask(question: str, *, as_json: bool) -> None:
    if as_json or not sys.stdin.isatty():
        raise click.UsageError("cannot ask for confirmation here: give --yes or --dry-run")
    click.confirm(question, abort=True, err=True)
