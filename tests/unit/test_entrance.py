"""The entrance of the command, before anything of it is loaded."""

import gc
import signal
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from etl.__main__ import main


class Loading(ModuleType):
    """A command line that is still being loaded when Ctrl-C arrives."""

    def __getattr__(self, name: str) -> object:
        raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """The entrance blocks signals and stops the garbage collector: for this process, not for the next test.

    A server that a later test starts would inherit the block, and never end.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    gc.enable()


def test_ctrl_c_during_imports_prints_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends with 130, and says nothing."""
    monkeypatch.setitem(sys.modules, "etl.cli", Loading("etl.cli"))
    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 130
    assert capsys.readouterr() == ("", "")
