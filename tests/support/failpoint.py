"""MongoDB's own fault injection: the server fails the commands it is told to fail."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pymongo import MongoClient

Mode = Mapping[str, int]


def times(count: int) -> Mode:
    """The first `count` commands fail."""
    return {"times": count}


def after(count: int) -> Mode:
    """`count` commands pass, all later ones fail."""
    return {"skip": count}


class Failure:
    """A failpoint that is set; a command that a driver tries again and that fails again counts twice."""

    def __init__(self, client: MongoClient[dict[str, Any]], before: int) -> None:
        self._client = client
        self._before = before

    def injected(self) -> int:
        """How many commands have failed because of it so far."""
        status = self._client.admin.command({"getParameter": 1, "failpoint.failCommand": 1})
        entered: int = status["failpoint.failCommand"]["timesEntered"]
        return entered - self._before


@contextmanager
def fail_command(
    client: MongoClient[dict[str, Any]], *commands: str, mode: Mode | None = None, **data: object
) -> Iterator[Failure]:
    """Have `commands` fail on the server of `client` until left; by default the first one only.

    `data` is in MongoDB's own names: `errorCode=10107`, `closeConnection=True`, `errorLabels=[...]`,
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
