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
    """What a command writes to a terminal of 80 columns."""
    terminal, inside = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "etl", *arguments],
        env={**environment, "TERM": "xterm", "COLUMNS": "80", **variables},
        stdin=inside,
        stdout=inside,
        stderr=inside,
    )
    os.close(inside)
    written = b""
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # Linux's way to say that nobody writes to it any more
            break
        written += piece
    os.close(terminal)
    assert process.wait() == 0
    return written.decode()


def test_a_terminal_gets_colours(environment: dict[str, str]) -> None:
    """The status is coloured and a spinner turns, where a person looks; with NO_COLOR nothing is coloured."""
    environment.pop("NO_COLOR", None)

    assert COLOUR.search(on_a_terminal(environment, "sync"))
    plain = on_a_terminal(environment, "sync", NO_COLOR="1")
    assert "promptContent" in plain
    assert not COLOUR.search(plain)


def test_a_narrow_terminal_shows_whole_numbers(
    environment: dict[str, str], collection: Collection[Document]
) -> None:
    """A cycle of 1,000 documents on 36 columns."""
    collection.insert_many(provider(number) for number in range(1000))
    shown = on_a_terminal(environment, "sync", COLUMNS="36", NO_COLOR="1")
    assert "processed: 1000" in shown
    assert "written: 1000" in shown
