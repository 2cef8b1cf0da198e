"""`etl doctor`: checks of the settings and of both servers."""

import click

from etl.cli import output
from etl.cli.runtime import Runtime, json_option, pass_runtime

FOUND_SOMETHING = 3
"""Exit code."""


@click.command()
@json_option
@pass_runtime
def doctor(runtime: Runtime, *, as_json: bool) -> int:
    """Check settings and servers; print a remedy for each problem.

    Connections, versions, role, mapping, index, types of the timestamps, clocks, Redis eviction and persistence,
    TTLs against the cycle, the ETL's own keys. Changes nothing. Ends with 3 when it finds a problem.
    """
    with runtime.app() as app, output.progress("Checking"):
        findings = app.doctor()
    problems = [finding for finding in findings if finding.level == "finding"]
    if as_json:
        output.document({"healthy": not problems, "checks": [finding.as_dict() for finding in findings]})
    else:
        rows = [
            (finding.level, finding.check, finding.subject, finding.text)
            for finding in findings
            if finding not in problems
        ]
        output.table(("result", "check", "of", "what"), rows)
        for finding in problems:
            where = "remedy, in mongosh" if (finding.remedy or "").startswith("db.") else "remedy"
            output.say(f"\n{finding.subject}: {finding.text}\n  {where}: {finding.remedy}")
    return FOUND_SOMETHING if problems else 0
