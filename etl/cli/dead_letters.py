"""`etl dead-letters`: documents that could not be applied."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from etl.cli import ids, output
from etl.cli.runtime import Runtime, json_option, pass_runtime, shared_options
from etl.cli.sync import end_with_reports
from etl.errors import EtlError
from etl.model.state import DeadLetter

if TYPE_CHECKING:
    from etl.app import App

_COLUMNS = ("collection", "_id", "attempts", "last seen", "reason")

collection_option = click.option("--collection", metavar="NAME", help="Only this collection.")
all_option = click.option("--all", "everything", is_flag=True, help="All dead letters.")
ids_argument = click.argument("words", nargs=-1, metavar="[ID]...")


@click.group("dead-letters")
def dead_letters() -> None:
    """List, show, retry or purge documents that are invalid.

    An ID is ObjectId('…') or UUID('…'), their digits, a number, Extended JSON, or plain text.
    """


@dead_letters.command("list")
@click.argument("collections", nargs=-1, metavar="[COLLECTION]...")
@json_option
@pass_runtime
def list_(runtime: Runtime, collections: tuple[str, ...], *, as_json: bool) -> None:
    """List all dead letters, the oldest first."""
    with runtime.app() as app:
        found = {name: app.dead_letters(name).list() for name in collections or app.collections}
        beyond = {name: app.dead_letters(name).beyond() for name in found}
    if as_json:
        documents = [
            {"collection": name, **letter.as_dict()} for name, letters in found.items() for letter in letters
        ]
        output.document({"dead_letters": documents, "beyond": sum(beyond.values())})
        return
    rows = [
        (name, letter.id, letter.attempts, letter.last_seen, letter.why())
        for name, letters in found.items()
        for letter in letters
    ]
    output.table(_COLUMNS, rows)
    if sum(beyond.values()):
        output.say(f"and {sum(beyond.values())} more, counted but not kept")


@dead_letters.command(cls=ids.IdCommand)
@click.argument("word", metavar="ID")
@collection_option
@json_option
@pass_runtime
def show(runtime: Runtime, word: str, collection: str | None, *, as_json: bool) -> None:
    """Show one dead letter with every invalid field."""
    with runtime.app() as app:
        [(name, [letter]), *_] = _found(app, [word], collection).items()
    if as_json:
        output.document({"collection": name, **letter.as_dict()})
        return
    output.heading(f"{name} {letter.id}")
    output.say(f"  {letter.reason}")
    for error in letter.errors:
        output.say(f"  {error.field}: {error.problem}")
    output.say(f"  first seen {letter.first_seen}, last seen {letter.last_seen}, attempts {letter.attempts}")


@dead_letters.command(cls=ids.IdCommand)
@ids_argument
@all_option
@collection_option
@json_option
@pass_runtime
def retry(
    runtime: Runtime, words: tuple[str, ...], collection: str | None, *, everything: bool, as_json: bool
) -> int:
    """Read the documents again, in one cycle.

    Those that are valid or deleted are cleared.
    """
    with runtime.app() as app, output.progress("Retrying"):
        chosen = _chosen(app, words, collection, everything=everything)
        reports = [
            app.retry_dead_letters(name, [letter.id for letter in letters])
            for name, letters in chosen.items()
        ]
    return end_with_reports(reports, as_json=as_json)


@dead_letters.command(cls=ids.IdCommand)
@ids_argument
@all_option
@collection_option
@json_option
@pass_runtime
def purge(
    runtime: Runtime, words: tuple[str, ...], collection: str | None, *, everything: bool, as_json: bool
) -> None:
    """Delete dead letters; the documents stay unapplied.

    They are read again when they change.
    """
    with runtime.app() as app:
        purged = sum(_purged(app, words, collection, everything=everything))
    if as_json:
        output.document({"purged": purged})
    else:
        output.say(f"{purged} purged")


def _purged(app: "App", words: Sequence[str], collection: str | None, *, everything: bool) -> Iterator[int]:
    for name, letters in _chosen(app, words, collection, everything=everything).items():
        letters_of = app.dead_letters(name)
        yield letters_of.purge_all() if everything else letters_of.purge([letter.id for letter in letters])


def _chosen(
    app: "App", words: Sequence[str], collection: str | None, *, everything: bool
) -> dict[str, list[DeadLetter]]:
    """The chosen dead letters, by collection."""
    if bool(words) == everything:
        raise click.UsageError("name the documents, or give --all")
    if not everything:
        return _found(app, words, collection)
    return {name: app.dead_letters(name).list() for name in _names(app, collection)}


def _found(app: "App", words: Sequence[str], collection: str | None) -> dict[str, list[DeadLetter]]:
    found: dict[str, list[DeadLetter]] = {}
    for word in words:
        name, letter = _find(app, word, collection)
        found.setdefault(name, []).append(letter)
    return found


def _find(app: "App", word: str, collection: str | None) -> tuple[str, DeadLetter]:
    names = _names(app, collection)
    for name in names:
        letters = {letter.id: letter for letter in app.dead_letters(name).list()}
        if (found := ids.find(word, letters)) is not None:
            return name, letters[found]
    raise EtlError(f"{word} is not a dead letter of {', '.join(names)}: see etl dead-letters list")


def _names(app: "App", collection: str | None) -> Sequence[str]:
    return app.collections if collection is None else [collection]


for _command in dead_letters.commands.values():
    shared_options(hidden=True)(_command)
