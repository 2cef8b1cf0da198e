"""The worktree of the previous version."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bench import before


def git(folder: Path, *arguments: str) -> str:
    """The output of a git command."""
    author = ("-c", "user.name=a", "-c", "user.email=a@b.invalid")
    program = shutil.which("git")
    assert program is not None
    return subprocess.check_output([program, "-C", folder, *author, *arguments], text=True).strip()


def test_worktree_has_the_files_of_the_commit_and_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Afterwards neither the folder nor an entry in the repository is left."""
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


def test_there_is_no_worktree_without_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a source distribution, in another repository, or without git."""
    with before.worktree(tmp_path) as folder:
        assert folder is None
    git(tmp_path, "init", "--quiet")
    with before.worktree(tmp_path) as folder:
        assert folder is None
    monkeypatch.setenv("PATH", str(tmp_path))
    with before.worktree() as folder:
        assert folder is None
