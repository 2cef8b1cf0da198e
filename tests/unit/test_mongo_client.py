import atexit

import pytest

from etl.mongo.client import end_without_waiting


def test_a_command_does_not_wait_for_the_monitors_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the driver has registered for the end of the process is found, whatever its version."""
    hooks: list[object] = []
    monkeypatch.setattr(atexit, "unregister", hooks.append)
    end_without_waiting()
    [hook] = hooks
    assert callable(hook)
