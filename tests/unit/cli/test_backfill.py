"""Options of `etl backfill`, without a server."""

import pytest

from tests.support.command import Etl


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--since", "yesterday"], "'yesterday' is no ISO 8601 date"),
        (["--rate", "0"], "--rate"),
        (["--workers", "0"], "--workers"),
        (["--executor", "dask"], "--executor dask takes --scheduler tcp://host:8786, and no --workers"),
        (["--executor", "dask", "--scheduler", "tcp://127.0.0.1:1", "--workers", "2"], "and no --workers"),
        (["--scheduler", "tcp://127.0.0.1:1"], "--scheduler goes with --executor dask"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(etl: Etl, arguments: list[str], message: str) -> None:
    result = etl("backfill", "promptContent", *arguments)

    assert (result.code, result.out, len(result.err.splitlines())) == (2, "", 1)
    assert message in result.err
