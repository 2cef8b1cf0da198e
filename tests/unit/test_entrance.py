"""The entrance of the command, before anything of it is loaded."""

import gc
import sys
from types import ModuleType

import pytest

from etl.__main__ import main


class Loading(ModuleType):
    """A command line that is still being loaded when a person has had enough."""

    def __getattr__(self, name: str) -> object:
        raise KeyboardInterrupt


def test_ctrl_c_during_imports_prints_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends with 130, and says nothing."""
    monkeypatch.setitem(sys.modules, "etl.cli", Loading("etl.cli"))
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        gc.enable()

    assert ended.value.code == 130
    assert capsys.readouterr() == ("", "")
