"""The version before is measured from a worktree that is gone afterwards."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bench import before


def git(folder: Path, *arguments: str) -> str:
    """What git prints."""
    who = ("-c", "user.name=a", "-c", "user.email=a@b.invalid")
    program = shutil.which("git")
    assert program is not None
    return subprocess.check_output([program, "-C", folder, *who, *arguments], text=True).strip()


def test_its_files_are_there_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And neither they nor a trace in the repository afterwards."""
    git(tmp_path, "init", "--quiet")
    for text in ("old", "new"):
        (tmp_path / "file").write_text(text)
        git(tmp_path, "add", "file")
        git(tmp_path, "commit", "--quiet", "--message", text)
    monkeypatch.setattr(before, "COMMIT", git(tmp_path, "rev-parse", "HEAD~1"))

    with before.worktree(tmp_path) as folder:
        assert folder is not None
        assert (folder / "file").read_text() == "old"

    assert not folder.exists()
    assert len(git(tmp_path, "worktree", "list").splitlines()) == 1


def test_without_that_commit_it_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a source distribution, another repository, or where there is no git."""
    with before.worktree(tmp_path) as folder:
        assert folder is None
    git(tmp_path, "init", "--quiet")
    with before.worktree(tmp_path) as folder:
        assert folder is None
    monkeypatch.setenv("PATH", str(tmp_path))
    with before.worktree() as folder:
        assert folder is None
