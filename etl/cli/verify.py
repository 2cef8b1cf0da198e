"""`etl verify`: compare Redis with MongoDB."""

from typing import TYPE_CHECKING

import click

from etl.cli import output
from etl.cli.doctor import FOUND_SOMETHING
from etl.cli.progress import Bar
from etl.cli.runtime import Runtime, json_option, pass_runtime
from etl.text import counted

if TYPE_CHECKING:
    from etl.app import VerifyReport

_COUNTS = {
    "matching": "match their documents",
    "different": "hold another value",
    "missing": "absent, although their documents changed less than a TTL ago",
    "expired": "absent; changed longer ago than a TTL, or without a timestamp",
    "orphaned": "present, although no document fills them",
    "deferred": "wait for the lock of their campaign",
    "pending": "changed after the last cycle, or during the verification",
    "left_alone": "claimed by other collections too; not judged",
}


@click.command()
@click.argument("collection")
@click.option("--sample", type=click.IntRange(1, 1_000_000), metavar="N", help="Compare about N documents.")
@click.option("--repair", is_flag=True, help="Write the keys that do not match.")
@json_option
@pass_runtime
def verify(runtime: Runtime, collection: str, sample: int | None, *, repair: bool, as_json: bool) -> int:
    """Compare Redis with MongoDB, key by key.

    Compares type, value and presence of a TTL of each key with its newest document. Ends with 3 when a key is
    different, missing or orphaned; with 0 when none is, or all were repaired.
    """
    with runtime.app() as app, Bar(f"Verifying {collection}") as bar:
        report = app.verify(collection, sample, repair=repair, progress=bar.count)
    if as_json:
        output.document(report.as_dict())
    else:
        _show(report)
    return 0 if report.true else FOUND_SOMETHING


def _show(report: "VerifyReport") -> None:
    output.table(("", "keys", ""), [(name, getattr(report, name), what) for name, what in _COUNTS.items()])
    for name, examples in report.keys.items():
        count = getattr(report, name)
        output.say(f"\n{name}{f', the first {len(examples)} of {count}' if count > len(examples) else ''}:")
        for example in examples:
            output.say(f"  {example.key}: {example.why}")
    output.say(f"\n{report.collection}: {_summary(report)}")


def _summary(report: "VerifyReport") -> str:
    read = f"{counted(report.documents, 'document')} read in {report.duration_ms / 1000:.1f} s"
    if report.invalid:
        read += f", {report.invalid} of them invalid"
    if not report.wrong:
        return f"all keys match; {read}"
    if report.true:
        return f"{counted(report.repaired, 'key')} repaired; {read}"
    repaired = f", {report.repaired} of them repaired" if report.repaired else ""
    wrong = f"{counted(report.wrong, 'key')} {'does' if report.wrong == 1 else 'do'} not match{repaired}"
    return f"{wrong}; {read}; --repair corrects them"
