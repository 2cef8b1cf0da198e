"""The Lua scripts beside the code; the header of each names its keys, their types, and what it returns."""

from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Final


class Script:
    """One script, called by the digest under which the client loads it."""

    def __init__(self, name: str) -> None:
        self.source = files("etl.cache").joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")
        self.sha = sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[str], *arguments: str | bytes | int) -> tuple[str | bytes | int, ...]:
        """The command that calls the script."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)


SCRIPTS: Final = {
    name: Script(name)
    for name in (
        "acquire",
        "renew",
        "release",
        "commit",
        "record",
        "apply",
        "done",
        "enqueue",
        "forget",
        "inspect",
    )
}
