"""The failpoints of MongoDB: the server fails the given commands."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pymongo import MongoClient

Mode = Mapping[str, int]


def times(count: int) -> Mode:
    """Fail the first `count` commands."""
    return {"times": count}


def after(count: int) -> Mode:
    """Fail all commands after `count` ones."""
    return {"skip": count}


class Failure:
    """An active failpoint; a retry of the driver that fails too counts as a second failure."""

    def __init__(self, client: MongoClient[dict[str, Any]], before: int) -> None:
        self._client = client
        self._before = before

    def injected(self) -> int:
        """The number of commands that it has failed so far."""
        status = self._client.admin.command({"getParameter": 1, "failpoint.failCommand": 1})
        entered: int = status["failpoint.failCommand"]["timesEntered"]
        return entered - self._before


@contextmanager
def fail_command(
    client: MongoClient[dict[str, Any]], *commands: str, mode: Mode | None = None, **data: object
) -> Iterator[Failure]:
    """Fail `commands` on the server of `client` until the block ends; by default the first one only.

    `data` has the names of MongoDB: `errorCode=10107`, `closeConnection=True`, `errorLabels=[...]`,
    `blockConnection=True, blockTimeMS=500`, `appName="..."`. Raises `AssertionError` on leaving when
    nothing failed: such a test proves nothing.
    """
    what = {"failCommands": list(commands), **data}
    set_failpoint = {"configureFailPoint": "failCommand"}
    reply = client.admin.command({**set_failpoint, "mode": mode or times(1), "data": what})
    failure = Failure(client, reply["count"])
    try:
        yield failure
        assert failure.injected(), f"no {' or '.join(commands)} came to be failed"
    finally:
        client.admin.command({**set_failpoint, "mode": "off"})
