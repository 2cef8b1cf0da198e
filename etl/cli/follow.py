"""`etl follow`: apply the change stream of a collection, in the foreground."""

from typing import TYPE_CHECKING

import click

from etl.cli import output
from etl.cli.runtime import Runtime, json_option, pass_runtime

if TYPE_CHECKING:
    from etl.sync.follow import Followed


@click.command()
@click.argument("collection")
@json_option
@pass_runtime
def follow(runtime: Runtime, /, collection: str, *, as_json: bool) -> int:
    """Apply changes as they happen, deletes included.

    Reads the change stream of a collection until Ctrl-C, without a scheduler: first a cycle, then every change within
    milliseconds. Its position is recorded, so the same command resumes there. The daemon does the same beside its
    cycles for collections with `follow: true`. If a server does not answer, it waits for it.
    """
    begun = False

    def show(batch: "Followed") -> None:
        nonlocal begun
        counts = dict(batch.operations)
        if not begun and not batch.restarted and not as_json:
            output.say(f"following {collection}")
        begun = not batch.restarted
        if as_json and (counts or batch.restarted):
            output.json_line({"events": counts, "restarted": batch.restarted})
        elif batch.restarted:
            output.say(f"opens the stream again: {batch.restarted}")
        elif counts:
            output.say(", ".join(f"{count} {operation}" for operation, count in sorted(counts.items())))

    with runtime.app() as app:
        app.follow(collection, show)
    return 0
