"""The command line, run in a process of its own or in the process of the tests, which is faster.

Tests of how a command starts, is stopped and ends need a process of its own.
"""

import json
import re
import signal
import subprocess
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest

from etl.cli import run

_PROGRESS = re.compile(r"^(Syncing|Backfilling|Verifying)\b.*\n", re.MULTILINE)

LONG_ENOUGH = 60.0  # seconds for one command on a busy machine


class Result(NamedTuple):
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str

    @property
    def problems(self) -> str:
        """Stderr without the progress, which a command prints on a machine where it takes over two seconds."""
        return _PROGRESS.sub("", self.err)

    @property
    def json(self) -> Any:
        """The JSON document on stdout."""
        return json.loads(self.out)


Etl = Callable[..., Result]
"""Runs a command until it ends."""

StartEtl = Callable[..., "subprocess.Popen[str]"]
"""Starts a command as a process."""


def end_of(process: "subprocess.Popen[str]") -> Result:
    """Wait until a started command ends."""
    out, err = process.communicate(timeout=LONG_ENOUGH)
    return Result(process.returncode, out, err)


def interrupt(process: "subprocess.Popen[str]") -> Result:
    """Send SIGINT, and wait until the command ends."""
    process.send_signal(signal.SIGINT)
    return end_of(process)


class InProcess:
    """Runs commands in this process with these variables, in the current folder."""

    def __init__(
        self, variables: Mapping[str, str], patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str]
    ) -> None:
        self._patch = patch
        self._captured = captured
        for name, value in variables.items():
            patch.setenv(name, value)

    def __call__(self, *arguments: str, **variables: str) -> Result:
        """Run a command with additional variables."""
        with self._patch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            self._captured.readouterr()
            return Result(run(arguments), *self._captured.readouterr())
