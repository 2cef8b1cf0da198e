"""The entry point of the command, before its modules are loaded."""

import gc
import signal
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from etl.__main__ import main


class Loading(ModuleType):
    """A module during whose import Ctrl-C arrives."""

    def __getattr__(self, name: str) -> object:
        raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def restore_process_state() -> Iterator[None]:
    """The entry point blocks signals and disables the garbage collector for the whole process.

    A server that a later test starts would inherit the blocked signals, and never end.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    gc.enable()


def test_ctrl_c_during_imports_prints_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "etl.cli", Loading("etl.cli"))
    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 130
    assert capsys.readouterr() == ("", "")
