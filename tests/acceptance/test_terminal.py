import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping

from pymongo.collection import Collection

from tests.support.daemons import provider
from tests.support.types import Document

COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]")


def on_a_terminal(environment: Mapping[str, str], *arguments: str, **variables: str) -> str:
    """The output of a command on a terminal of 80 columns."""
    terminal, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "etl", *arguments],
        env={**environment, "TERM": "xterm", "COLUMNS": "80", **variables},
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    written = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # Linux raises this when the other end is closed
            break
        written += piece
    os.close(terminal)
    assert process.wait() == 0
    return written.decode()


def test_terminal_gets_colours_unless_no_color_is_set(environment: dict[str, str]) -> None:
    environment.pop("NO_COLOR", None)

    assert COLOUR.search(on_a_terminal(environment, "sync"))
    plain = on_a_terminal(environment, "sync", NO_COLOR="1")
    assert "promptContent" in plain
    assert not COLOUR.search(plain)


def test_narrow_terminal_shows_complete_numbers(
    environment: dict[str, str], collection: Collection[Document]
) -> None:
    """A cycle of 1,000 documents on 36 columns."""
    collection.insert_many(provider(number) for number in range(1000))
    shown = on_a_terminal(environment, "sync", COLUMNS="36", NO_COLOR="1")
    assert "processed: 1000" in shown
    assert "written: 1000" in shown
