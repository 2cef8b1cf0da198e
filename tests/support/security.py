"""The Redis users that SECURITY.md shows."""

import re
import shlex
from pathlib import Path
from typing import Any, Literal

PAGE = Path(__file__).parents[2] / "SECURITY.md"
PASSWORD = "secret"


def create_user(client: Any, mode: Literal["single server", "cluster"]) -> None:
    """Create the user `etl` of the page with `PASSWORD`; `client` is one of the server or of a node."""
    commands = re.findall(r"^ +(ACL SETUSER .*)$", PAGE.read_text("utf-8"), re.MULTILINE)
    single, cluster = commands
    command = {"single server": single, "cluster": cluster}[mode]
    client.execute_command(*shlex.split(command.replace("PASSWORD", PASSWORD)))


def as_user(url: str) -> str:
    """The URL with name and password of that user."""
    return url.replace("redis://", f"redis://etl:{PASSWORD}@")
