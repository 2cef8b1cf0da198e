"""Version 0.1.0, the last one with a single writer process, in a git worktree."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.meter import ROOT

COMMIT: Final = "61db5a35e49e9c1ea81d370fb999cd0918432cb4"


@contextmanager
def worktree(root: Path = ROOT) -> Iterator[Path | None]:
    """A folder with its files during the block; None where the repository does not have its commit."""
    git = shutil.which("git")
    command = [git or "git", "-C", str(root)]
    if git is None or _run([*command, "cat-file", "-e", f"{COMMIT}^{{commit}}"]).returncode:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "before")
        _run([*command, "worktree", "add", "--detach", str(path), COMMIT]).check_returncode()
        try:
            yield path
        finally:
            _run([*command, "worktree", "remove", "--force", str(path)]).check_returncode()


def _run(command: list[str]) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(command, capture_output=True, check=False)
